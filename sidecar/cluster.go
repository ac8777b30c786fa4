package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver"
)

// ClusterStatus is /cluster.json, which the page shows: what the asked sidecar knows, and what only the others do.
type ClusterStatus struct {
	Asked   string         `json:"asked"` // the member whose sidecar answers
	Verdict Verdict        `json:"verdict"`
	Status  Status         `json:"status"`  // of the asked one, with the archive as the holder of the baton knows it
	Window  string         `json:"window"`  // what can be restored, where that is no list of windows
	Members []ClusterNode  `json:"members"` // in the order of Status.Members
	Changes []ChangeStatus `json:"role_changes"`
}

// Verdict is the answer to "is all well?".
type Verdict struct {
	Level    string   `json:"level"`    // well, changing, wrong
	Headline string   `json:"headline"` // a short sentence without an end
	Sentence string   `json:"sentence"` // what that means
	Problems []string `json:"problems"` // the worst first; what to do about one stands in its further lines
	Notes    []string `json:"notes"`    // what is in order and could be better
}

// Levels of a verdict.
const (
	levelWell     = "well"
	levelChanging = "changing" // there is no leader, or the baton changes hands
	levelWrong    = "wrong"
)

// ClusterNode is what the sidecar of one member says itself.
type ClusterNode struct {
	Name    string       `json:"name"`
	Asked   bool         `json:"answers"`
	Why     string       `json:"why,omitempty"` // it does not; "" where there is nobody to ask
	Oldest  string       `json:"oldest_missing,omitempty"`
	Waiting int          `json:"waiting"`
	Pace    uint64       `json:"wal_bytes_per_second,omitempty"`
	Started time.Time    `json:"started,omitzero"`
	Rates   *RatesStatus `json:"rates,omitempty"`
}

const (
	peerWait  = 1500 * time.Millisecond // for another sidecar's answer
	peerAgain = 10 * time.Second        // until one that did not answer is asked again: it would hold up every event
)

// peers are the other sidecars, as they answered last.
type peers struct {
	mu     sync.Mutex
	silent map[string]silence // by member
}

type silence struct {
	until time.Time
	why   string
}

// answer is what a sidecar said of itself, or why it did not.
type answer struct {
	st  *Status
	why string
}

// clusterStatus looks at everything, and asks the other sidecars: each for as long as peerWait.
func (a *app) clusterStatus(ctx context.Context) ClusterStatus {
	st := a.Status()
	return gatherCluster(st, a.askOthers(ctx, st))
}

// askOthers asks all that are alive at the same time.
func (a *app) askOthers(ctx context.Context, st Status) map[string]answer {
	ctx, cancel := context.WithTimeout(ctx, peerWait)
	defer cancel()
	var tasks sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]answer{}
	for _, m := range st.Members {
		if m.Name == st.Member || !m.Sidecar {
			continue
		}
		tasks.Go(func() {
			got := a.peers.ask(ctx, a.ask, m, st.Scope)
			mu.Lock()
			defer mu.Unlock()
			answers[m.Name] = got
		})
	}
	tasks.Wait()
	return answers
}

func (p *peers) ask(ctx context.Context, by asker, m MemberStatus, scope string) answer {
	p.mu.Lock()
	s := p.silent[m.Name]
	p.mu.Unlock()
	if time.Now().Before(s.until) {
		return answer{why: s.why}
	}
	st, err := m.ask(ctx, by, scope)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent == nil {
		p.silent = map[string]silence{}
	}
	if err == nil {
		delete(p.silent, m.Name)
		return answer{st: &st}
	}
	if ctx.Err() == context.DeadlineExceeded || ctx.Err() == nil {
		p.silent[m.Name] = silence{time.Now().Add(peerAgain), err.Error()}
	}
	return answer{why: err.Error()}
}

// gatherCluster puts the answers together. It is a function of them alone.
func gatherCluster(st Status, answers map[string]answer) ClusterStatus {
	c := ClusterStatus{Asked: st.Member, Members: []ClusterNode{}, Changes: st.Changes}
	self := st
	if got := answers[st.Baton.Holder]; got.st != nil && st.Baton.AsOf.IsZero() {
		holder := got.st
		st.Archive, st.RetentionWhy = holder.Archive, holder.RetentionWhy
		if holder.Baton.Term == st.Baton.Term {
			st.Baton.Since, st.Baton.Rule, st.Baton.Why = holder.Baton.Since, holder.Baton.Rule, holder.Baton.Why
		}
	}
	oldest := self
	for _, m := range st.Members {
		n := ClusterNode{Name: m.Name, Why: answers[m.Name].why}
		own := answers[m.Name].st
		if m.Name == self.Member {
			own = &self
		}
		if own != nil {
			n.Asked, n.Oldest, n.Waiting, n.Pace, n.Started, n.Rates = true, own.Archive.Oldest, own.Archive.Waiting, own.Postgres.Pace, own.Started, own.Rates
			if len(own.Changes) > 0 && own.Started.Before(oldest.Started) {
				oldest = *own
			}
		}
		c.Members = append(c.Members, n)
	}
	c.Changes = older(c.Changes, oldest, self)
	c.Status = st
	c.Window = st.window()
	c.Verdict = verdictOf(st, self, answers)
	return c
}

// older puts before our own changes those that a sidecar saw which was there before ours: one that was just started knows little.
func older(ours []ChangeStatus, oldest, self Status) []ChangeStatus {
	out := []ChangeStatus{}
	if oldest.Member != self.Member {
		for _, ch := range oldest.Changes {
			if ch.At.Before(self.Started) {
				out = append(out, ch)
			}
		}
		if len(out) > 0 && len(ours) > 0 {
			ours = ours[1:] // where we began to look
		}
	}
	out = append(out, ours...)
	return out[max(0, len(out)-maxChanges):]
}

// verdictOf judges the cluster. What the others' sidecars find wrong counts as well.
func verdictOf(st, self Status, answers map[string]answer) Verdict {
	v := Verdict{Level: levelWell, Problems: st.problems(), Notes: st.notes()}
	for _, m := range st.Members {
		if other := answers[m.Name].st; other != nil {
			v.add(m.Name, *other, self)
		}
	}
	if v.Notes == nil {
		v.Notes = []string{}
	}
	v.Headline, v.Sentence = st.headline(len(v.Problems))
	switch {
	case len(v.Problems) > 0:
		v.Level = levelWrong
	case st.changing() != "":
		v.Level = levelChanging
	}
	if v.Problems == nil {
		v.Problems = []string{}
	}
	return v
}

// add takes what another sidecar finds wrong and ours does not.
func (v *Verdict) add(name string, other, self Status) {
	for _, al := range other.Alarms {
		if !slices.ContainsFunc(self.Alarms, func(x archiver.Alarm) bool { return x.Row == al.Row && x.Name == al.Name }) {
			v.Problems = append(v.Problems, fmt.Sprintf("%s needs a person, says %s: %s (row %s; there: walbaton explain %s)", al.Name, name, al.Why, al.Row, al.Name))
		}
	}
	// Each words the same outage in its own way.
	kind, _, _ := strings.Cut(other.Why, ":")
	if !other.Ready && !slices.ContainsFunc(v.Problems, func(p string) bool { return strings.Contains(p, kind) }) {
		v.Problems = append(v.Problems, fmt.Sprintf("%s: %s", name, other.Why))
	}
}

// changing says what is on its way, "" for nothing.
func (st Status) changing() string {
	leader := slices.IndexFunc(st.Members, func(m MemberStatus) bool { return m.Leader })
	switch {
	case st.DCS.Static:
		return ""
	case leader < 0:
		return "No member is the leader just now"
	case st.DCS.REST || st.Baton.Rule == "errand":
		return ""
	case st.Archive.Timeline != 0 && st.Members[leader].Timeline > st.Archive.Timeline:
		return st.Members[leader].Name + " opens a new timeline"
	}
	for _, m := range st.Members {
		if !slices.Contains([]string{"", "running", "streaming", "in archive recovery", "no Patroni"}, m.State) {
			return fmt.Sprintf("PostgreSQL of %s does not run (%s)", m.Name, m.State) // Patroni's word
		}
	}
	return ""
}

// headline is the answer in a few words, and a sentence that says what it means.
func (st Status) headline(problems int) (short, long string) {
	missing, holes := 0, 0
	if v := st.Archive.Verify; v != nil {
		missing, holes = v.Missing, v.Holes
	}
	keeps := uint64(0)
	var waits int
	for _, m := range st.Members {
		keeps, waits = max(keeps, m.Keeps), max(waits, int(m.Misses))
	}
	kept := "PostgreSQL keeps its WAL until it does."
	if waits > 0 {
		kept = fmt.Sprintf("PostgreSQL keeps its WAL until it does: %s so far (%s).", counted(waits, "segment"), sizeText(int64(keeps)))
	}
	absent := st.withoutSidecar()
	switch {
	case len(st.Alarms) > 0:
		return counted(len(st.Alarms), "file") + mark(len(st.Alarms) == 1, " needs a person", " need a person"), "Nothing of it is lost, and PostgreSQL keeps it, until somebody has decided."
	case missing > 0:
		return fmt.Sprintf("The archive has %s: %s missing", mark(holes == 1, "a hole", counted(holes, "hole")), mark(missing == 1, "1 segment is", fmt.Sprintf("%d segments are", missing))),
			"A recovery that has to cross it stops there. What was archived before and after it can be restored."
	case holes > 0:
		return "The archive lacks a history file", "A recovery looks for no newer timeline above the first number that is missing."
	case len(st.secondPrimaries()) > 0:
		return "Two servers take writes", "What the one writes that is not Patroni's leader is not the cluster's."
	case slices.ContainsFunc(st.Members, func(m MemberStatus) bool { return m.Full }):
		return "A disk is full", "PostgreSQL stops where it cannot write WAL."
	case !st.DCS.Answers && !st.DCS.Static:
		return "The DCS does not answer", "Who was the leader last ships on, on timelines that are open. The baton changes hands when the DCS is back, and until then nothing is deleted."
	case !st.Archive.Open:
		return "The archive is not open", "Nothing is shipped, and PostgreSQL keeps its WAL."
	case !st.Archive.Answers:
		return "The archive does not answer", kept
	case st.changing() != "":
		return st.changing(), "A role change or a restart is under way. All WAL is kept until the archive has it, and the baton follows the leader."
	case problems > 0 && st.Baton.Holder == "" && !st.DCS.REST && !st.DCS.Static:
		return "Nobody holds the baton", "Nothing is shipped just now, and all WAL is kept until it is."
	case len(absent) > 0:
		return "No sidecar answers beside " + strings.Join(absent, " and "), "What only it has is not protected; the others go on."
	case problems > 0:
		return counted(problems, "thing") + mark(problems == 1, " is", " are") + " not in order", ""
	}
	return "All is well", st.shipsSentence()
}

// shipsSentence says who ships, up to where, and what waits. The holder knows what the archive has: another node may not have compared its own WAL
// with it yet.
func (st Status) shipsSentence() string {
	waits := st.Archive.Lacks
	for _, m := range st.Members {
		if m.Baton || m.Leader && (st.DCS.Static || st.DCS.REST) {
			waits += int(m.Misses)
		}
	}
	who := st.Baton.Holder + " holds the baton and ships."
	if st.DCS.Static || st.DCS.REST {
		who = "The primary ships."
	}
	switch {
	case st.Archive.Segment == "":
		who += " The archive waits for the first segment."
	case waits == 0:
		who += fmt.Sprintf(" The archive has every segment up to %s, and nothing waits.", st.Archive.Frontier)
	default:
		who += fmt.Sprintf(" The archive has every segment up to %s; %s on the way.", st.Archive.Frontier, mark(waits == 1, "1 is", fmt.Sprintf("%d are", waits)))
	}
	return who
}

// withoutSidecar names the members beside which no sidecar is alive.
func (st Status) withoutSidecar() (names []string) {
	for _, m := range st.Members {
		if !m.Sidecar && !st.DCS.REST && len(st.Members) > 1 {
			names = append(names, m.Name)
		}
	}
	return names
}
