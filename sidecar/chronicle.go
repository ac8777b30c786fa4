package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// maxChanges bounds what is remembered of the past.
const maxChanges = 20

// ChangeStatus is a change of a role, or of what roles depend on, in plain words.
type ChangeStatus struct {
	At   time.Time `json:"at"` // when this sidecar saw it
	Text string    `json:"text"`
}

// glance is what a person would want to hear of when it changes. It is comparable, but for its maps.
type glance struct {
	leader   string
	line     wal.Timeline
	left     wal.LSN // where the line left the timeline before
	holder   string
	term     uint64
	why      string // who is to hold the baton
	noBaton  bool   // there is none
	silent   bool   // the DCS is
	paused   bool
	open     bool // the archive is
	store    bool // and answers
	ready    string
	members  map[string]string // role and state by Patroni
	sidecars map[string]bool   // whose sidecar is alive
}

// chronicle remembers the last changes, and since when the frontier is where it is.
type chronicle struct {
	mu       sync.Mutex
	begun    time.Time
	last     *glance // nil: nothing was seen yet
	changes  []ChangeStatus
	frontier wal.LSN
	moved    time.Time     // when the frontier did last
	changed  chan struct{} // closed and replaced when a glance is another one
}

func newChronicle(now time.Time) *chronicle {
	return &chronicle{begun: now, changed: make(chan struct{})}
}

// look compares what is seen now with what was seen before.
func (c *chronicle) look(now time.Time, g glance, frontier wal.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if frontier != c.frontier {
		c.frontier, c.moved = frontier, now
	}
	if c.last != nil && c.last.same(g) {
		return
	}
	texts := []string{g.begins()}
	if c.last != nil {
		texts = c.last.changes(g)
	}
	for _, text := range texts {
		c.changes = append(c.changes, ChangeStatus{now.UTC(), text})
	}
	c.changes = c.changes[max(0, len(c.changes)-maxChanges):]
	c.last = &g
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait gives a channel that is closed at the next change.
func (c *chronicle) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// status gives the changes, the oldest first, and when the frontier moved.
func (c *chronicle) status() (changes []ChangeStatus, moved time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.changes), c.moved
}

func (g glance) same(h glance) bool {
	return g.comparable() == h.comparable() && maps.Equal(g.members, h.members) && maps.Equal(g.sidecars, h.sidecars)
}

func (g glance) comparable() [12]any {
	return [12]any{g.leader, g.line, g.left, g.holder, g.term, g.why, g.noBaton, g.silent, g.paused, g.open, g.store, g.ready}
}

// begins is the first entry: what was when the sidecar started to look.
func (g glance) begins() string {
	text := "This sidecar began to look: "
	switch {
	case g.leader == "":
		text += "there was no leader"
	default:
		text += g.leader + " was the leader"
	}
	if g.line != 0 {
		text += fmt.Sprintf(" on timeline %d", g.line)
	}
	switch {
	case g.noBaton:
	case g.holder == "":
		text += ", and nobody held the baton"
	default:
		text += ", and " + g.holder + " held the baton"
	}
	return text + "."
}

// changes says what is new in h, in the order in which it happens.
func (g glance) changes(h glance) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case !g.silent && h.silent:
		say("The DCS stopped answering.")
	case g.silent && !h.silent:
		say("The DCS answers again.")
	}
	switch {
	case !g.paused && h.paused:
		say("Patroni was paused: it changes no roles.")
	case g.paused && !h.paused:
		say("Patroni was resumed.")
	}
	switch {
	case h.leader == g.leader:
	case h.leader == "":
		say("%s is the leader no more, and there is no other one yet.", g.leader)
	case g.leader == "":
		say("%s became the leader.", h.leader)
	default:
		say("%s became the leader in the place of %s.", h.leader, g.leader)
	}
	if h.line > g.line && g.line != 0 {
		if h.left != 0 {
			say("The cluster is on timeline %d, which left timeline %d at %v.", h.line, g.line, h.left)
		} else {
			say("The cluster is on timeline %d.", h.line)
		}
	}
	out = append(out, g.batonChanges(h)...)
	for _, name := range slices.Sorted(maps.Keys(h.members)) {
		before, known := g.members[name]
		switch after := h.members[name]; {
		case known && !follows(before) && follows(after):
			say("%s follows as a replica.", name)
		case !known:
			say("%s joined the cluster.", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.members)) {
		if _, known := h.members[name]; !known {
			say("%s left the cluster: Patroni lists it no more.", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.members)) {
		switch was, is := g.sidecars[name], h.sidecars[name]; {
		case was && !is:
			say("The sidecar of %s is gone.", name)
		case !was && is:
			say("The sidecar of %s is there.", name)
		}
	}
	return out
}

// follows says whether role and state are those of a standby that runs. Patroni says "streaming" from 3.0.4 on.
func follows(s string) bool { return s == "replica, streaming" || s == "replica, running" }

func (g glance) batonChanges(h glance) []string {
	why := ""
	if h.why != "" {
		why = ": " + h.why
	}
	switch {
	case h.noBaton || h.silent: // or it is not known
		return nil
	case h.holder == g.holder && (h.term == g.term || h.holder == ""):
		return nil
	case h.holder == "":
		return []string{fmt.Sprintf("%s gave the baton back.", g.holder)}
	case g.holder == h.holder:
		return []string{fmt.Sprintf("%s took the baton again, term %d%s.", h.holder, h.term, why)}
	case g.holder == "":
		return []string{fmt.Sprintf("%s took the baton, term %d%s.", h.holder, h.term, why)}
	}
	return []string{fmt.Sprintf("%s took the baton from %s, term %d%s.", h.holder, g.holder, h.term, why)}
}

// lookAround is called again and again, and at once when something may have changed.
func (a *app) lookAround(now time.Time) {
	g := glance{noBaton: a.scope.lens.NoDCS, members: map[string]string{}, sidecars: map[string]bool{}}
	es := a.elector.Status()
	g.silent = !a.scope.lens.Alone && es.Silent
	if v, ok := a.elector.View(); ok {
		g.leader, g.paused, g.holder, g.term = v.Cluster.Leader, v.Cluster.Paused, v.Baton.Holder, v.Baton.Epoch
		if es.Choice.Member == g.holder {
			g.why = es.Choice.Why
		}
		if !v.Baton.Held() {
			g.holder = ""
		}
		for name, m := range v.Cluster.Members {
			g.members[name] = m.Role + ", " + m.State
		}
		for name := range v.Records {
			g.sidecars[name] = true
		}
	} else if !a.scope.lens.NoDCS {
		return // nothing is known yet
	}
	line := a.scope.Last().Line
	g.line = line.Timeline
	if n := len(line.Forks); n > 0 {
		g.left = line.Forks[n-1].End
	}
	if err := a.ready(); err != nil {
		g.ready = err.Error()
	}
	var frontier wal.LSN
	if s, _ := a.current(); s != nil {
		st := s.archiver.State()
		g.open, g.store, frontier = true, st.StoreAnswers, st.Frontier
		a.rates.note(now, s, st.Shipped, st.ShippedBytes)
	}
	a.chronicle.look(now, g, frontier)
}
