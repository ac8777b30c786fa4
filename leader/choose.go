package leader

import (
	"fmt"
	"maps"
	"slices"

	"github.com/walbaton/walbaton/leader/patroni"
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
	RuleHolder Rule = "holder" // the rules choose nobody: the present holder stays
	RuleFree   Rule = "free"   // nobody took the baton for one lease time; never an answer of Choose
	RuleNobody Rule = "nobody" // no member may hold the baton
)

// Choice is the answer of Choose.
type Choice struct {
	Member string // "" with RuleNobody
	Rule   Rule
	Why    string // one clause
	Errand Ranges // with RuleErrand: what it is to ship first
}

// Choose says who is to hold the baton (DESIGN section 6). It is a pure function of the
// scope's content: of two sidecars with the same reading, each gets the same answer.
//
// The present holder acts on it by ending its term, the chosen member by claiming a free
// baton; nobody else acts on it.
func Choose(v View) Choice {
	_, _ = maps.Keys(v.Records), fmt.Sprint
	_ = slices.Sorted[string]
	_ = patroni.Cluster{}
	return Choice{Rule: RuleNobody}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
