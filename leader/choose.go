package leader

import (
	"fmt"
	"maps"
	"slices"
)

// Policy says who holds the baton when no other rule does.
type Policy string

const (
	PolicyPrimary Policy = "primary" // Patroni's leader
	PolicyReplica Policy = "replica" // a streaming member within MaxLag, else the leader
)

// Tag is the value of the tag "walbaton" of a Patroni member.
type Tag string

const (
	TagNever      Tag = "never"      // never gives this node the baton, which may cost P5
	TagDesignated Tag = "designated" // first among the replicas
)

// TagKey is the key of Tag among a member's tags.
const TagKey = "walbaton"

// Rule names why a member is chosen.
type Rule string

const (
	RuleErrand Rule = "errand" // it has what the holder lacks (rule 2)
	RulePolicy Rule = "policy" // rule 3
	RuleHolder Rule = "holder" // no rule chooses anybody: the present holder stays
	RuleFree   Rule = "free"   // nobody took the baton for one lease time; never an answer of Choose
	RuleNobody Rule = "nobody" // nobody is to hold it
)

// Choice is the answer of Choose.
type Choice struct {
	Member string // "" with RuleNobody
	Rule   Rule
	Why    string // one clause
	Errand Ranges // with RuleErrand: what it is to ship before the policy counts again
}

// Choose says who is to hold the baton (DESIGN section 6). It is a pure function of the
// scope's content: sidecars with the same reading get the same answer.
//
// The present holder acts on it by ending its term, the chosen member by claiming a free
// baton; nobody else acts on it. When each may act is the Elector's affair.
func Choose(v View) Choice { return v.choose("") }

// choose is Choose, but one replica is taken for one that streams, whatever it does.
func (v View) choose(spare string) Choice {
	able := v.able()
	best := v.reaching(able)
	pick, why := v.byPolicy(best, spare)
	if c, ok := v.errand(able, pick); ok {
		return c // what it puts into the archives that it reaches is copied to the others later
	}
	able = best
	if pick != "" {
		return Choice{Member: pick, Rule: RulePolicy, Why: why}
	}
	if member, ok := v.instead(able, spare); ok {
		return Choice{Member: member, Rule: RulePolicy, Why: why + ", and the holder does not stream, but it does"}
	}
	if holder, _, ok := v.Holder(); ok && v.mayStay(holder, able) {
		if v.Baton.Held() {
			return Choice{Member: holder, Rule: RuleHolder, Why: why + ", so the holder stays"}
		}
		return Choice{Member: holder, Rule: RuleHolder, Why: why + ", so it is for the last holder to take"}
	}
	return Choice{Rule: RuleNobody, Why: why}
}

// able gives the members that rule 1 allows, sorted: live, of this cluster, with a store
// that answers, and not tagged "never".
func (v View) able() []string {
	var out []string
	for _, member := range sortedKeys(v.Records) {
		if r, ok := v.own(member); ok && r.Store && v.Tag(member) != TagNever {
			out = append(out, member)
		}
	}
	return out
}

// reaching gives those of the members to whom the fewest archives are silent. An archive that is down for everybody leaves the others their shipper; one
// that a node alone does not reach moves the baton to a node that does.
func (v View) reaching(able []string) []string {
	if len(able) == 0 {
		return nil
	}
	least := v.Records[able[0]].Silent
	for _, member := range able {
		least = min(least, v.Records[member].Silent)
	}
	return slices.DeleteFunc(slices.Clone(able), func(member string) bool { return v.Records[member].Silent > least })
}

// Tag is what Patroni's member key says, and while that is gone (its Patroni is stopped) what the record says. What is none of
// the known tags counts as none.
func (v View) Tag(member string) Tag {
	m, ok := v.Cluster.Members[member]
	if !ok {
		return v.Records[member].Tag
	}
	return TagOf(m.Tags)
}

// TagOf finds our tag among those of a member.
func TagOf(tags map[string]any) Tag {
	value, ok := tags[TagKey]
	if !ok {
		return ""
	}
	return Tag(fmt.Sprint(value)) // YAML makes a truth of yes and on
}

// Known says whether a tag means something.
func (t Tag) Known() bool { return t == TagNever || t == TagDesignated }

// mayStay says whether a holder that no rule chooses keeps the baton. One whose store is
// silent does only while nobody else's answers: giving the baton up would help nobody.
func (v View) mayStay(holder string, able []string) bool {
	if slices.Contains(able, holder) {
		return true
	}
	_, ok := v.own(holder)
	return ok && v.Tag(holder) != TagNever && len(able) == 0
}

// instead gives the member that is to have the baton while the leader cannot, because the holder gets no new WAL: it lags, or reads
// an archive that only it could fill. What it has not got yet it does not lack, so rule 2 would never move the baton.
func (v View) instead(able []string, spare string) (member string, ok bool) {
	holder := v.Baton.Holder
	_, maxLag := v.Policy()
	if !v.Baton.Held() || holder == v.Cluster.Leader || v.streams(holder, maxLag) || holder == spare && v.follows(holder) {
		return "", false
	}
	member = v.replica(able, maxLag, spare)
	return member, member != ""
}

// errand is rule 2: a holder with an errand stays until it is done; else the first segment
// that the holder lacks and somebody lists moves the baton there.
func (v View) errand(able []string, pick string) (Choice, bool) {
	holder, rec, ok := v.Holder()
	if !ok || rec.Holder == nil {
		return Choice{}, false
	}
	left := rec.Holder.Errand.Intersect(rec.Has.Subtract(rec.Tried))
	if !left.Empty() && slices.Contains(able, holder) {
		return Choice{Member: holder, Rule: RuleErrand, Errand: left,
			Why: fmt.Sprintf("it still has to ship %s of its errand", segments(left))}, true
	}
	lacks := rec.Holder.Lacks.Subtract(rec.Has)
	var best Choice
	for _, member := range able {
		r := v.Records[member]
		has := lacks.Intersect(r.Has.Subtract(r.Tried))
		if member == holder || has.Empty() {
			continue
		}
		if best.Member == "" || earlier(has, best.Errand) || member == pick && !earlier(best.Errand, has) {
			best = Choice{Member: member, Rule: RuleErrand, Errand: has,
				Why: fmt.Sprintf("it has %s that %s lacks", segments(has), holder)}
		}
	}
	return best, best.Member != ""
}

// earlier says whether a begins before b; neither is empty.
func earlier(a, b Ranges) bool {
	return compareRange(a[0], b[0]) < 0
}

// byPolicy is rule 3. Without a member it says why there is none.
func (v View) byPolicy(able []string, spare string) (member, why string) {
	leader := v.Cluster.Leader
	policy, maxLag := v.Policy()
	if policy == PolicyReplica {
		switch member := v.replica(able, maxLag, spare); {
		case member == spare && member != "" && !v.streams(member, maxLag):
			return member, "it streamed within max_lag until a moment ago"
		case member != "":
			return member, "it streams within max_lag"
		}
	}
	switch {
	case leader == "":
		return "", "no leader is known"
	case !slices.Contains(able, leader):
		return "", "the leader " + leader + " " + v.whyNotAble(leader)
	}
	return leader, "it is the leader"
}

// whyNotAble says why a member is not among those that rule 1 allows.
func (v View) whyNotAble(member string) string {
	r, live := v.Records[member]
	_, own := v.own(member)
	switch {
	case !live:
		return "has no live sidecar"
	case v.Tag(member) == TagNever:
		return "has the tag walbaton: never"
	case !r.Readable():
		return "has a sidecar of another version"
	case r.SystemID == 0:
		return "does not know its system identifier yet"
	case !own:
		return "has another system identifier"
	}
	if r.Store && r.Silent > 0 {
		return "reaches fewer archives than another node"
	}
	return "does not reach the archive"
}

// Policy gives the policy in force and its max_lag in bytes: that of Patroni's leader; while its
// sidecar says nothing, the holder's; else the default. The holder's must not come first: of two
// nodes with different policies each would send the baton to the other.
func (v View) Policy() (Policy, uint64) {
	if r, ok := v.Leader(); ok && r.Policy != "" {
		return r.Policy, r.MaxLag
	}
	if _, r, ok := v.Holder(); ok && r.Policy != "" {
		return r.Policy, r.MaxLag
	}
	return PolicyPrimary, 0
}

// replica gives the streaming member that the policy "replica" wants: a designated one
// before others, the holder among equals, then by name.
func (v View) replica(able []string, maxLag uint64, spare string) string {
	var all, designated []string
	for _, member := range able {
		if !v.streams(member, maxLag) && !(member == spare && v.follows(member)) {
			continue
		}
		all = append(all, member)
		if v.Tag(member) == TagDesignated {
			designated = append(designated, member)
		}
	}
	if len(designated) > 0 {
		all = designated
	}
	if holder, _, _ := v.Holder(); slices.Contains(all, holder) {
		return holder
	}
	if len(all) > 0 {
		return all[0]
	}
	return ""
}

// follows says whether a member is a replica, whatever it does now.
func (v View) follows(member string) bool {
	m, ok := v.Cluster.Members[member]
	return ok && member != v.Cluster.Leader && m.Role == "replica"
}

// streams says whether a member other than the leader streams and is at most maxLag bytes
// behind it. Patroni publishes both positions once a loop. A version that cannot say
// whether a replica streams is believed that a running one does, unless its sidecar knows better: without a
// walreceiver a standby can still keep up with the archive, as long as somebody else ships.
func (v View) streams(member string, maxLag uint64) bool {
	m, r := v.Cluster.Members[member], v.Records[member]
	if !v.follows(member) || r.Role != RoleReplica || r.Receiver == ReceiverNone {
		return false
	}
	switch {
	case m.ReplicationState == "streaming":
	case m.ReplicationState != "" || m.SaysReplication() || m.State != "running":
		return false
	}
	head := max(v.Cluster.Members[v.Cluster.Leader].LSN, v.Cluster.Optime)
	return head > 0 && m.LSN > 0 && (m.LSN >= head || head-m.LSN <= maxLag)
}

// segments counts a set in words.
func segments(s Ranges) string {
	if n := s.Count(); n != 1 {
		return fmt.Sprintf("%d segments", n)
	}
	return "1 segment"
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
