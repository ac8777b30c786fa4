package leader

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestP4OneBaton plays thousands of schedules with slow, lost and unheard requests, nodes
// that stand still, clocks that are wrong and run at different speeds, and a cluster that
// changes all the time: at no instant do two terms live, no lease is released while the
// work of its term goes on, and when the network is good again the right node ships.
func TestP4OneBaton(t *testing.T) {
	schedules := 2000
	if testing.Short() {
		schedules = 200
	}
	terms := 0
	for seed := range schedules {
		s := chaos(t, uint64(seed))
		terms += s.terms
		if t.Failed() {
			t.Fatalf("schedule %d", seed)
		}
	}
	t.Logf("%d schedules, %d terms", schedules, terms)
}

// mood is how bad the network is, in chances of a thousand.
type mood struct{ slow, lost, unheard, refused int }

func chaos(t *testing.T, seed uint64) *sim {
	s := newSim(t)
	random := rand.New(rand.NewPCG(seed, 1))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	m := mood{random.IntN(200), random.IntN(200), random.IntN(200), random.IntN(200)}
	healed := false
	s.fate = func(*simNode, Action) fate {
		f := fate{there: upTo(20 * time.Millisecond), back: upTo(20 * time.Millisecond)}
		if healed {
			return f
		}
		switch n := random.IntN(1000); {
		case n < m.slow:
			f.there, f.back = upTo(20*time.Second), upTo(6*time.Second)
		case n < m.slow+m.lost:
			f.lost = true
		case n < m.slow+m.lost+m.unheard:
			f.unheard = true
		case n < m.slow+m.lost+m.unheard+m.refused:
			f.err = errors.New("refused")
		}
		return f
	}
	s.linger = func(*simNode) time.Duration {
		if random.IntN(10) == 0 {
			return upTo(40 * time.Second)
		}
		return upTo(time.Second)
	}
	options := Options{}
	if random.IntN(2) == 0 {
		options.Policy, options.MaxLag = PolicyReplica, 1000
	}
	for i := range 2 + random.IntN(3) {
		n := s.add(fmt.Sprintf("n%d", i+1), options)
		n.rate = 0.99 + 0.02*random.Float64()
		n.offset = upTo(2*time.Hour) - time.Hour
	}
	s.lead("n1")
	check := func() {
		if h := s.holders(); len(h) > 1 {
			t.Errorf("after %v: %v hold the baton", s.now.Sub(simStart), h)
		}
	}
	for range 40 {
		s.run(upTo(8*time.Second), check)
		s.disturb(random, upTo)
		if t.Failed() {
			return s
		}
	}
	healed = true
	s.run(3*time.Minute, check)
	s.expectHolder()
	return s
}

// disturb changes one thing.
func (s *sim) disturb(random *rand.Rand, upTo func(time.Duration) time.Duration) {
	name := s.names[random.IntN(len(s.names))]
	n := s.nodes[name]
	r := n.m.mine
	switch random.IntN(10) {
	case 0, 1:
		s.lead(name)
		for _, other := range s.names {
			if other != name {
				s.server.Put("members/"+other, memberKey(other, "replica", `,"replication_state":"streaming"`))
			}
		}
		return
	case 2:
		if until := s.now.Add(upTo(40 * time.Second)); until.After(n.paused) {
			n.paused = until
		}
		return
	case 3:
		s.returned(n)
		return
	case 4:
		r.Store = !r.Store
	case 5:
		r.Has = RangesOf(Range{1, uint64(random.IntN(10)), uint64(random.IntN(20))})
	case 6:
		r.Misses = RangesOf(Range{1, uint64(random.IntN(10)), uint64(random.IntN(12))})
	case 7, 8:
		r.Holder = &Holder{Term: n.term.Epoch, Lacks: RangesOf(Range{1, uint64(random.IntN(10)), uint64(random.IntN(12))})}
	case 9:
		r.Holder = &Holder{Term: n.term.Epoch}
	}
	s.tell(n, func(time.Time) { n.m.Announce(r) })
}

// expectHolder says whether, with everything well, the one who is to have the baton has it.
func (s *sim) expectHolder() {
	holders := s.holders()
	v, ok := s.nodes["n1"].m.View()
	if !ok {
		s.t.Errorf("n1 has read nothing")
		return
	}
	if want := Choose(v); want.Member != "" && (len(holders) != 1 || holders[0] != want.Member) {
		// A node that was passed over waits for up to a minute, and what was tried for another.
		s.t.Errorf("%v hold the baton, want %s: %s (%s)", holders, want.Member, want.Why, want.Rule)
	}
}
