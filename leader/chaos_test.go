package leader

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/leader/dcs/mem"
)

var schedules = flag.Int("schedules", 200, "how many schedules TestP4OneBaton plays; a tenth of that with goroutines")

// TestP4OneBaton plays thousands of schedules with slow, lost and unheard requests, nodes
// that stand still, clocks that are wrong and run at different speeds, and a cluster that
// changes all the time: at no instant do two terms live, no lease is released while the
// work of its term goes on, and when the network is good again the right node ships.
func TestP4OneBaton(t *testing.T) {
	terms := 0
	for seed := range *schedules {
		s := chaos(t, uint64(seed))
		terms += s.terms
		if t.Failed() {
			t.Fatalf("schedule %d", seed)
		}
	}
	t.Logf("%d schedules, %d terms", *schedules, terms)
}

// TestP4OneBatonRunning is the same with Elector.Run: goroutines and timers on the virtual
// clock of a bubble, behind mem's faulty network. The contexts of two terms never live at
// the same instant, and the work of two terms overlaps only as far as a lease runs out.
func TestP4OneBatonRunning(t *testing.T) {
	terms := 0
	for seed := range max(1, *schedules/10) {
		synctest.Test(t, func(t *testing.T) { terms += running(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("schedule %d", seed)
		}
	}
	t.Logf("%d terms", terms)
}

// dice is a source that goroutines share.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) upTo(t time.Duration) time.Duration { return time.Duration(d.below(int(t))) }

func running(t *testing.T, seed uint64) int {
	d := &dice{r: rand.New(rand.NewPCG(seed, 2))}
	server := cluster()
	faults := []mem.Fault{mem.Drop, mem.Hang, mem.Lost, mem.Late, mem.Stale}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	alive := map[string]context.Context{}
	terms, last := 0, uint64(0)
	for _, name := range []string{"n1", "n2", "n3"} {
		bad := d.below(300)
		network := mem.NewFaulty(server.Client(), func(mem.Op) mem.Fault {
			time.Sleep(d.upTo(30 * time.Millisecond))
			if d.below(1000) >= bad {
				return mem.None
			}
			time.Sleep(d.upTo(10 * time.Second))
			return faults[d.below(len(faults))]
		})
		e := newElector(t, network, Options{Self: name})
		work := func(ctx context.Context, term Term) error {
			mu.Lock()
			for other, o := range alive {
				if o.Err() == nil {
					t.Errorf("%s begins term %d while %s holds the baton", name, term.Epoch, other)
				}
			}
			if term.Epoch <= last {
				t.Errorf("%s begins term %d after %d", name, term.Epoch, last)
			}
			alive[name], last = ctx, term.Epoch
			terms++
			mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(d.upTo(time.Minute)):
			}
			time.Sleep(d.upTo(3 * time.Second))
			return nil
		}
		all.Go(func() {
			if err := e.Run(ctx, work); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() { // what arrives late
			for ctx.Err() == nil {
				time.Sleep(d.upTo(20 * time.Second))
				network.Deliver(t.Context())
			}
		})
	}
	for range 30 {
		time.Sleep(d.upTo(10 * time.Second))
		server.Put("leader", fmt.Sprintf("n%d", 1+d.below(3)))
	}
	cancel()
	all.Wait()
	return terms
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
			if f.back = upTo(6 * time.Second); random.IntN(2) == 0 {
				f.there = upTo(20 * time.Second)
			}
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

// TestNoPingPong: n2 lists a segment that n1 lacks, and never gets it into the archive. n1
// computes what it lacks anew in each of its terms. The baton moves now and then, not all
// the time.
func TestNoPingPong(t *testing.T) {
	s := newSim(t)
	n1, n2 := s.add("n1", Options{}), s.add("n2", Options{})
	s.lead("n1")
	has := goodRecord("n2")
	has.Has = RangesOf(Range{1, 4, 6})
	s.tell(n2, func(time.Time) { n2.m.Announce(has) })
	n1Held := time.Duration(0)
	for range 600 { // seconds
		s.run(time.Second, nil)
		if _, _, _, ok := n1.m.Term(); ok {
			n1Held += time.Second
			r := goodRecord("n1")
			r.Holder = &Holder{Term: n1.term.Epoch, Lacks: has.Has}
			s.tell(n1, func(time.Time) { n1.m.Announce(r) })
		}
		if _, _, _, ok := n2.m.Term(); ok {
			r := has
			r.Holder = &Holder{Term: n2.term.Epoch} // it gives up what it took the baton for
			s.tell(n2, func(time.Time) { n2.m.Announce(r) })
		}
	}
	if s.terms > 22 || n1Held < 9*time.Minute {
		t.Errorf("%d terms in ten minutes, of which n1 held the baton for %v", s.terms, n1Held)
	}
	if s.terms < 10 {
		t.Errorf("%d terms in ten minutes: the errand is never tried again", s.terms)
	}
}
