package leader

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/mem"
)

// sim runs Machines against one scope in one goroutine, on a clock of its own. Each request
// is an event when the server handles it and another when the node hears of it; a fate
// says when, and whether at all.
type sim struct {
	t      testing.TB
	now    time.Time
	seq    int
	events events
	server *mem.Server
	nodes  map[string]*simNode
	names  []string
	trace  func(n *simNode, a Action)
	fate   func(n *simNode, a Action) fate
	linger func(n *simNode) time.Duration // how long the work goes on after the end of its context
	epoch  uint64                         // the highest term so far
	terms  int
}

// fate is what becomes of a request.
type fate struct {
	there, back time.Duration // to the server, and of the answer
	lost        bool          // it never reaches the server
	unheard     bool          // the answer never comes
	err         error         // the server refuses it at once
}

type simNode struct {
	name   string
	m      *Machine
	d      dcs.DCS
	rate   float64 // of its clock
	offset time.Duration
	paused time.Time // until then it neither acts nor hears
	wake   int       // number of the last wake-up asked for: older ones are void
	waits  []simWait
	busy   bool // the work of a term has not returned
	term   Term
	done   bool
}

type simWait struct{ since dcs.Reading }

type event struct {
	at  time.Time
	seq int
	f   func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].seq, q[j].seq)) < 0
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newSim(t testing.TB) *sim {
	s := &sim{t: t, now: simStart, nodes: map[string]*simNode{},
		trace:  func(*simNode, Action) {},
		fate:   func(*simNode, Action) fate { return fate{} },
		linger: func(*simNode) time.Duration { return 0 },
	}
	s.server = mem.New(func() time.Time { return s.now })
	s.server.Put("initialize", fmt.Sprint(testSystem))
	return s
}

func (s *sim) at(t time.Time, f func()) {
	s.seq++
	heap.Push(&s.events, event{t, s.seq, f})
}

func (s *sim) add(name string, o Options) *simNode {
	o.Self = name
	m, err := NewMachine(o.withDefaults())
	if err != nil {
		s.t.Fatal(err)
	}
	n := &simNode{name: name, m: m, d: s.server.Client(), rate: 1}
	s.nodes[name] = n
	s.names = append(s.names, name)
	s.server.Put("members/"+name, memberKey(name, "replica", `,"replication_state":"streaming"`))
	m.Announce(goodRecord(name))
	s.wakeAt(n, s.now)
	return n
}

func (s *sim) lead(name string) {
	s.server.Put("leader", name)
	s.server.Put("members/"+name, memberKey(name, "primary", ""))
}

// clock is the time on the node's own clock.
func (n *simNode) clock(now time.Time) time.Time {
	return simStart.Add(n.offset + time.Duration(float64(now.Sub(simStart))*n.rate))
}

// real is when the node's clock will show t.
func (n *simNode) real(t time.Time) time.Time {
	return simStart.Add(time.Duration(float64(t.Sub(simStart)-n.offset)/n.rate) + 1)
}

func (s *sim) wakeAt(n *simNode, t time.Time) {
	n.wake++
	id := n.wake
	s.at(t, func() {
		if id == n.wake {
			s.step(n)
		}
	})
}

// tell reports something to a node, when it runs.
func (s *sim) tell(n *simNode, f func(now time.Time)) {
	if s.now.Before(n.paused) {
		s.at(n.paused, func() { s.tell(n, f) })
		return
	}
	s.step(n) // what is due comes first, as a timer would
	f(n.clock(s.now))
	s.step(n)
}

// step asks a node's machine until it wants to wait.
func (s *sim) step(n *simNode) {
	if s.now.Before(n.paused) {
		s.wakeAt(n, n.paused)
		return
	}
	for range 100 {
		a := n.m.Next(n.clock(s.now))
		s.trace(n, a)
		switch a.Op {
		case OpDone:
			n.done = true
			n.wake++
			return
		case OpWait:
			if !a.Until.IsZero() {
				s.wakeAt(n, n.real(a.Until))
			}
			return
		}
		s.do(n, a)
	}
	s.t.Fatalf("%v: %s does not come to rest", s.now.Sub(simStart), n.name)
}

func (s *sim) do(n *simNode, a Action) {
	switch a.Op {
	case OpBegin:
		if n.busy {
			s.t.Errorf("%s begins term %d before the work of term %d returned", n.name, a.Term.Epoch, n.term.Epoch)
		}
		if a.Term.Epoch <= s.epoch {
			s.t.Errorf("%s begins term %d after term %d", n.name, a.Term.Epoch, s.epoch)
		}
		n.busy, n.term, s.epoch = true, a.Term, a.Term.Epoch
		s.terms++
	case OpEnd:
		s.at(s.now.Add(s.linger(n)), func() { s.returned(n) })
	case OpWatch:
		n.waits = append(n.waits, simWait{a.Since})
		s.at(s.now, s.changed) // it may have changed already
		s.at(s.now.Add(mem.Idle), func() { s.endWait(n, a.Since) })
	default:
		if a.Op == OpRelease && n.busy {
			s.t.Errorf("%s releases term %d while its work goes on", n.name, a.Lease.Epoch)
		}
		s.request(n, a)
	}
}

// returned ends the work of a node's term.
func (s *sim) returned(n *simNode) {
	if !n.busy {
		return
	}
	n.busy = false
	s.tell(n, n.m.LeadDone)
}

func (s *sim) endWait(n *simNode, since dcs.Reading) {
	for i, w := range n.waits {
		if w.since.Revision == since.Revision {
			n.waits = append(n.waits[:i:i], n.waits[i+1:]...)
			s.tell(n, func(now time.Time) { n.m.WatchDone(now, nil) })
			return
		}
	}
}

// changed wakes the nodes whose reading is old.
func (s *sim) changed() {
	r, err := s.server.Client().Read(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range s.names {
		n := s.nodes[name]
		for _, w := range n.waits {
			if w.since.Revision != r.Revision {
				s.endWait(n, w.since)
			}
		}
	}
}

// request plays one request with its fate, and the node's own time limit.
func (s *sim) request(n *simNode, a Action) {
	f := s.fate(n, a)
	heard := false
	answer := func(report func(time.Time)) {
		if !heard {
			heard = true
			s.tell(n, report)
		}
	}
	s.at(s.now.Add(a.Timeout), func() { answer(n.outcome(a, dcs.Reading{}, dcs.Lease{}, context.DeadlineExceeded)) })
	if f.err != nil {
		s.at(s.now.Add(f.back), func() { answer(n.outcome(a, dcs.Reading{}, dcs.Lease{}, f.err)) })
		return
	}
	if f.lost {
		return
	}
	s.at(s.now.Add(f.there), func() {
		r, l, err := n.serve(a)
		s.changed()
		if !f.unheard {
			s.at(s.now.Add(f.back), func() { answer(n.outcome(a, r, l, err)) })
		}
	})
}

// serve is the server's side of a request.
func (n *simNode) serve(a Action) (r dcs.Reading, l dcs.Lease, err error) {
	ctx := context.Background()
	switch a.Op {
	case OpRead:
		r, err = n.d.Read(ctx)
	case OpClaim, OpRenew:
		l, err = n.d.Claim(ctx, a.Lease)
	case OpRelease:
		err = n.d.Release(ctx, a.Lease)
	case OpAnnounce:
		err = n.d.Announce(ctx, n.name, a.Value, a.TTL)
	default:
		err = errors.New("not a request")
	}
	return r, l, err
}

// outcome is the node's side of its end.
func (n *simNode) outcome(a Action, r dcs.Reading, l dcs.Lease, err error) func(time.Time) {
	return func(now time.Time) {
		switch a.Op {
		case OpRead:
			n.m.ReadDone(now, NewView(n.name, r, a.At), err)
		case OpClaim:
			n.m.ClaimDone(now, l, err)
		case OpRenew:
			n.m.RenewDone(now, l, err)
		case OpRelease:
			n.m.ReleaseDone(now, err)
		case OpAnnounce:
			n.m.AnnounceDone(now, err)
		}
	}
}

// run lets time pass, and calls check after every event.
func (s *sim) run(d time.Duration, check func()) {
	end := s.now.Add(d)
	s.changed()
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		if e.at.After(s.now) {
			s.now = e.at
		}
		e.f()
		if check != nil {
			check()
		}
	}
	s.now = end
	s.changed()
}

// holders are the nodes whose term lives. A paused node does nothing, so it does not count
// until it has had the chance to look at its clock.
func (s *sim) holders() []string {
	var out []string
	for _, name := range s.names {
		n := s.nodes[name]
		if _, _, _, ok := n.m.Term(); ok && !s.now.Before(n.paused) {
			out = append(out, name)
		}
	}
	return out
}
