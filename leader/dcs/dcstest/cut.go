package dcstest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Cut tests what a driver does when the network to its server fails, which itself stays as it is. The clients of a scope go through
// its Network, those of Direct do not.
func Cut(t *testing.T, r Runner) {
	run := func(name string, test func(t *testing.T, s Scope)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			r(t, test)
		})
	}
	for _, d := range deeds() {
		run(d.name+" when the connections had been cut", func(t *testing.T, s Scope) { cutBefore(t, s, d) })
		for _, f := range faults() {
			run(d.name+" "+f.name, func(t *testing.T, s Scope) { atEachMoment(t, s, d, f) })
		}
	}
	run("a wait when the connections had been cut", cutBeforeWait)
	run("a wait whose connections are cut returns or shows the change", cutWait)
	run("a wait shows the change that was made while it was cut off", waitCutOff)
	run("a take that is carried out late and not repeated is over after its TTL", orphan)
	run("a take that is carried out after the release of the repeated one is void", lateAfterRelease)
	run("a take that is carried out after another one got the baton is void", lateAfterAnother)
	run("a release that is carried out late does not disturb the successor", lateRelease)
	for how, mend := range map[string]func(n *Network){
		"and what it sent arrives late":          (*Network).Mend,
		"and its connections are broken at last": func(n *Network) { n.Cut(); n.Mend() },
	} {
		run("who is cut off for longer than the TTL loses the baton, "+how, func(t *testing.T, s Scope) { cutOff(t, s, mend) })
	}
}

// play is one scope with a client behind the network and one beside it.
type play struct {
	Scope
	d, direct dcs.DCS
	ttl       time.Duration // of what it claims
	l         dcs.Lease     // of d, which is n1
	round     int
	tries     int
	seen      dcs.Reading
}

func newPlay(t *testing.T, s Scope) *play {
	t.Helper()
	p := &play{Scope: s, d: s.Client(t), direct: s.Direct(t), ttl: s.TTL * 10}
	s.Put(t, "leader", "n0")
	read(t, p.d)
	return p
}

// free gives the baton back if d has it.
func (p *play) free(t *testing.T) {
	t.Helper()
	if p.l.Held() {
		release(t, p.d, p.l)
		p.l = dcs.Lease{}
	}
}

func (p *play) claim(ctx context.Context) error {
	l, err := p.d.Claim(ctx, dcs.Lease{Holder: "n1", TTL: p.ttl})
	if err == nil {
		p.l = l
	}
	return err
}

func (p *play) taken(t *testing.T) {
	t.Helper()
	p.free(t)
	if err := p.claim(within(t, patience)); err != nil {
		t.Fatalf("Claim: %v", err)
	}
}

// holds checks that n1 has the baton by the lease that its client knows, and no other.
func (p *play) holds(t *testing.T) {
	t.Helper()
	if b := read(t, p.direct).Baton; b.Holder != "n1" || b.Epoch != p.l.Epoch {
		t.Fatalf("round %d: the baton is %+v, want it with n1 in epoch %d", p.round, b, p.l.Epoch)
	}
	wantHeld(t, p.direct, dcs.Lease{Holder: "n2", TTL: p.TTL}, "n1")
}

func (p *play) isFree(t *testing.T) {
	t.Helper()
	if b := read(t, p.direct).Baton; b.Held() {
		t.Fatalf("round %d: the baton is %+v, want it free", p.round, b)
	}
}

// value is what the try of a round announces: the first something new, every other what was there before.
func (p *play) value() string {
	if p.tries > 1 {
		return "former"
	}
	return fmt.Sprint(p.round)
}

// deed is one call, with what must be so before it and what is so after it.
type deed struct {
	name   string
	before func(t *testing.T, p *play)
	do     func(ctx context.Context, p *play) error
	after  func(t *testing.T, p *play)
}

func deeds() []deed {
	return []deed{{
		name:   "a read",
		before: func(t *testing.T, p *play) { p.Put(t, "leader", fmt.Sprintf("n%d", p.round)) },
		do: func(ctx context.Context, p *play) (err error) {
			p.seen, err = p.d.Read(ctx)
			return err
		},
		after: func(t *testing.T, p *play) {
			if got, want := p.seen.Nodes["leader"].Value, fmt.Sprintf("n%d", p.round); got != want {
				t.Fatalf("read the leader %q, want %q", got, want)
			}
		},
	}, {
		name:   "a take",
		before: func(t *testing.T, p *play) { p.free(t) },
		do:     func(ctx context.Context, p *play) error { return p.claim(ctx) },
		after: func(t *testing.T, p *play) {
			p.holds(t)
			claim(t, p.d, p.l)
		},
	}, {
		name: "an extension",
		before: func(t *testing.T, p *play) {
			if !p.l.Held() {
				p.taken(t)
			}
		},
		do: func(ctx context.Context, p *play) error {
			got, err := p.d.Claim(ctx, p.l)
			if err == nil && got != p.l {
				err = fmt.Errorf("extended to %+v, want %+v: %w", got, p.l, dcs.ErrLost)
			}
			return err
		},
		after: func(t *testing.T, p *play) { p.holds(t) },
	}, {
		name: "a release",
		before: func(t *testing.T, p *play) {
			p.ttl = p.TTL * 4 // what cannot be given back runs out
			p.taken(t)
		},
		do: func(ctx context.Context, p *play) error { return p.d.Release(ctx, p.l) },
		after: func(t *testing.T, p *play) {
			p.isFree(t)
			p.l = dcs.Lease{}
		},
	}, {
		name:   "a record",
		before: func(t *testing.T, p *play) { announce(t, p.d, "n1", "former", p.TTL*10) },
		do: func(ctx context.Context, p *play) error {
			return p.d.Announce(ctx, "n1", fmt.Sprint(p.round), p.TTL*10)
		},
		after: func(t *testing.T, p *play) {
			if got := read(t, p.direct).Records["n1"].Value; got != fmt.Sprint(p.round) {
				t.Fatalf("the record is %q, want %d", got, p.round)
			}
		},
	}, {
		name: "a record that is put back",
		before: func(t *testing.T, p *play) {
			announce(t, p.d, "n1", "former", p.TTL*10)
			p.tries = 0
		},
		do: func(ctx context.Context, p *play) error {
			p.tries++
			return p.d.Announce(ctx, "n1", p.value(), p.TTL*10)
		},
		after: func(t *testing.T, p *play) {
			if got := read(t, p.direct).Records["n1"].Value; got != p.value() {
				t.Fatalf("the record is %q, want %s", got, p.value())
			}
		},
	}}
}

// fault is what befalls the network at one moment of a call.
type fault struct {
	name    string
	after   func(n *Network, pieces int) (struck func() bool)
	silence bool // nobody is told: the call ends with its context
}

func faults() []fault {
	return []fault{
		{name: "whose connections are cut", after: (*Network).CutAfter},
		{name: "whose answer is lost", silence: true, after: func(n *Network, pieces int) func() bool { return n.HoldAfter(pieces, Answers) }},
		{name: "whose request comes late", silence: true, after: func(n *Network, pieces int) func() bool { return n.HoldAfter(pieces, Requests) }},
		{name: "whose request comes after it was repeated", after: (*Network).StrandAfter},
	}
}

// silence is how long a call waits for an answer that does not come.
const silence = 500 * time.Millisecond

// atEachMoment makes the call again and again, each time with the fault one piece later, until the call is over before the fault
// comes.
func atEachMoment(t *testing.T, s Scope, d deed, f fault) {
	p := newPlay(t, s)
	failed, late := 0, 0
	for pieces := 0; ; p.round++ {
		if p.round > 100 {
			t.Fatalf("it is not over after %d pieces", pieces)
		}
		d.before(t, p)
		limit := patience
		if f.silence {
			limit = silence
		}
		struck := f.after(s.Network, pieces)
		err := d.do(within(t, limit), p)
		come := struck()
		s.Network.Mend()
		switch {
		case !come && err == nil && pieces == 0:
			t.Fatal("nothing went through the network")
		case !come && err == nil:
			d.after(t, p)
			t.Logf("%d moments: %d calls failed, %d bytes came late", pieces, failed, late)
			return
		case !come && errors.Is(err, context.DeadlineExceeded):
			t.Logf("%v on a slow machine: once more", err)
			repeat(t, p, d)
			pieces--
		case !come:
			t.Fatalf("the network is whole, but: %v", err)
		case err != nil:
			failed++
			saysNothing(t, err)
			repeat(t, p, d)
		}
		d.after(t, p)
		late += s.Network.Late()
		d.after(t, p)
		pieces++
	}
}

// cutBefore makes the call on connections that were cut since the last one.
func cutBefore(t *testing.T, s Scope, d deed) {
	p := newPlay(t, s)
	for ; p.round < 3; p.round++ {
		d.before(t, p)
		s.Network.Cut()
		if err := d.do(within(t, patience), p); err != nil {
			saysNothing(t, err)
			repeat(t, p, d)
		}
		d.after(t, p)
	}
}

// saysNothing checks an error that must not be taken for an answer.
func saysNothing(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, dcs.ErrLost) || errors.As(err, new(*dcs.HeldError)) || errors.Is(err, fs.ErrPermission) {
		t.Fatalf("got %v, want an error that says nothing about the lease", err)
	}
}

// repeat makes the call on a network that is whole, until it succeeds: a library may not have noticed yet that a connection is dead.
func repeat(t *testing.T, p *play, d deed) {
	t.Helper()
	until(t, patience, d.name+" repeated", func() bool {
		err := d.do(within(t, patience), p)
		if err != nil {
			saysNothing(t, err)
		}
		return err == nil
	})
}

// cutBeforeWait cuts what a driver keeps from one wait to the next.
func cutBeforeWait(t *testing.T, s Scope) {
	p := newPlay(t, s)
	for ; p.round < 3; p.round++ {
		now := read(t, p.d)
		if err := p.d.Wait(within(t, 300*time.Millisecond), now); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("nothing has changed, and Wait: %v", err)
		}
		s.Network.Cut()
		leader := fmt.Sprintf("n%d", p.round+1)
		changed := waitFor(t, p.d, now, leader)
		s.Put(t, "leader", leader)
		changed()
	}
}

// cutWait cuts the connections of a wait at each moment, of its beginning and of the change that ends it.
func cutWait(t *testing.T, s Scope) {
	p := newPlay(t, s)
	for pieces := 0; ; pieces++ {
		now := read(t, p.d)
		struck := s.Network.CutAfter(pieces)
		changed := waitFor(t, p.d, now, fmt.Sprintf("n%d", pieces+1))
		time.Sleep(200 * time.Millisecond)
		s.Put(t, "leader", fmt.Sprintf("n%d", pieces+1))
		changed()
		if !struck() {
			t.Logf("%d moments", pieces)
			return
		}
	}
}

// waitCutOff makes the change while nothing gets through, and then breaks the connections, or not.
func waitCutOff(t *testing.T, s Scope) {
	p := newPlay(t, s)
	for i, mend := range []func(){s.Network.Mend, func() { s.Network.Cut(); s.Network.Mend() }} {
		leader := fmt.Sprintf("n%d", i+1)
		changed := waitFor(t, p.d, read(t, p.d), leader)
		time.Sleep(200 * time.Millisecond)
		s.Network.Hold(Requests, Answers)
		s.Put(t, "leader", leader)
		time.Sleep(200 * time.Millisecond)
		mend()
		changed()
	}
}

// waitFor waits and reads, as an election does, until the leader is this one. It must be so well before the idle time of Wait has
// passed, when a change that was missed would be seen as well.
func waitFor(t *testing.T, d dcs.DCS, now dcs.Reading, leader string) (changed func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		ctx := within(t, patience)
		for now.Nodes["leader"].Value != leader {
			if err := d.Wait(ctx, now); err != nil {
				done <- fmt.Errorf("wait: %w", err)
				return
			}
			r, err := d.Read(ctx)
			switch {
			case err == nil:
				now = r
			case ctx.Err() != nil:
				done <- fmt.Errorf("read: %w", err)
				return
			}
		}
		done <- nil
	}()
	return func() {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(6 * time.Second):
			t.Fatalf("leader %s is not seen after 6 s", leader)
		}
	}
}
