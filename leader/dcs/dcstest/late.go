package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// stranded makes the call again and again, each time with the requests from one piece later on left on their way. next goes on from
// what the call said; it is to deliver them.
func stranded(t *testing.T, s Scope, before func(p *play), call func(ctx context.Context, p *play) error, next func(p *play, err error)) {
	for pieces := 0; ; pieces++ {
		p := newPlay(t, s)
		p.round = pieces
		before(p)
		struck := s.Network.StrandAfter(pieces)
		err := call(within(t, patience), p)
		come := struck()
		if err != nil {
			saysNothing(t, err)
		}
		next(p, err)
		s.Network.Late()
		if !come {
			return
		}
	}
}

// orphan: a claim whose answer never came is nobody's for one TTL, and no longer; another process of the same name does not take it
// for its own.
func orphan(t *testing.T, s Scope) {
	l := dcs.Lease{Holder: "n1", TTL: s.TTL}
	carriedOut := 0
	take := func(ctx context.Context, p *play) (err error) {
		p.l, err = p.d.Claim(ctx, l)
		return err
	}
	stranded(t, s, func(*play) {}, take, func(p *play, err error) {
		s.Network.Late()
		if err != nil && read(t, p.direct).Baton.Holder == "n1" {
			carriedOut++
		}
		var got dcs.Lease
		until(t, s.TTL+s.Slack, "the baton is free", func() bool {
			var err error
			got, err = p.direct.Claim(within(t, patience), dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
			return err == nil
		})
		wantHeld(t, p.d, l, "n1")
		if now := claim(t, p.direct, got); now != got {
			t.Errorf("extended to %+v, want %+v", now, got)
		}
		release(t, p.direct, got)
	})
	if carriedOut == 0 {
		t.Error("no take was carried out late: the network does not do what it says")
	}
}

func claimed(ctx context.Context, p *play) error { return p.claim(ctx) }

func lateAfterRelease(t *testing.T, s Scope) {
	stranded(t, s, func(*play) {}, claimed, func(p *play, err error) {
		if err != nil {
			p.taken(t)
		}
		p.holds(t)
		p.free(t)
		p.isFree(t)
		s.Network.Late()
		p.isFree(t)
	})
}

func lateAfterAnother(t *testing.T, s Scope) {
	stranded(t, s, func(*play) {}, claimed, func(p *play, err error) {
		theirs, taken := p.direct.Claim(within(t, patience), dcs.Lease{Holder: "n2", TTL: s.TTL * 10})
		switch {
		case err == nil || taken != nil: // it was carried out before, by one of the client's own tries
			if err == nil && taken == nil {
				t.Fatalf("two holders: %+v and %+v", p.l, theirs)
			}
			if err != nil {
				p.taken(t)
			}
			wantHeld(t, p.direct, dcs.Lease{Holder: "n2", TTL: s.TTL}, "n1")
			p.free(t)
			return
		}
		wantHeld(t, p.d, dcs.Lease{Holder: "n1", TTL: s.TTL * 10}, "n2")
		release(t, p.direct, theirs)
		s.Network.Late()
		p.isFree(t)
	})
}

func lateRelease(t *testing.T, s Scope) {
	before := func(p *play) { p.l = claim(t, p.d, dcs.Lease{Holder: "n1", TTL: s.TTL}) }
	call := func(ctx context.Context, p *play) error { return p.d.Release(ctx, p.l) }
	stranded(t, s, before, call, func(p *play, _ error) {
		var next dcs.Lease
		until(t, s.TTL+s.Slack, "the baton is free", func() bool {
			var err error
			next, err = p.direct.Claim(within(t, patience), dcs.Lease{Holder: "n2", TTL: s.TTL * 10})
			return err == nil
		})
		s.Network.Late()
		if got := claim(t, p.direct, next); got != next {
			t.Errorf("the successor's is extended to %+v, want %+v", got, next)
		}
		release(t, p.direct, next)
	})
}

// cutOff: a holder that the server does not hear loses the baton by the server's clock, and learns that when it is heard again. What
// it has sent meanwhile is too late, and what it sends then does nothing to the successor.
func cutOff(t *testing.T, s Scope, mend func(n *Network)) {
	d, other := s.Client(t), s.Direct(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	announce(t, d, "n1", "1", s.TTL)
	read(t, other) // on Kubernetes a lease ends for those who saw it
	sent := time.Now()
	if got := claim(t, d, l); got != l {
		t.Fatalf("extended to %+v, want %+v", got, l)
	}
	s.Network.Hold(Requests, Answers)
	if got, err := d.Claim(within(t, l.TTL/4), l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("extended to %+v, %v while cut off, want the deadline", got, err)
	}
	if err := d.Announce(within(t, l.TTL/4), "n1", "late", s.TTL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("announced while cut off: %v, want the deadline", err)
	}
	var next dcs.Lease
	until(t, s.TTL*2+s.Slack, "the baton is free", func() bool {
		var err error
		next, err = other.Claim(within(t, patience), dcs.Lease{Holder: "n2", TTL: s.TTL * 10})
		return err == nil
	})
	if took := time.Since(sent); took < l.TTL {
		t.Errorf("it was free %v after the last extension was sent, its TTL is %v", took, l.TTL)
	}
	mend(s.Network)
	until(t, patience, "the first holder learns that its lease is lost", func() bool {
		_, err := d.Claim(within(t, patience), l)
		if err == nil {
			t.Fatal("a lease that another one has was extended")
		}
		return errors.Is(err, dcs.ErrLost)
	})
	release(t, d, l)
	wantHeld(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL}, "n2")
	wantLost(t, d, l)
	if b := read(t, d).Baton; b.Holder != "n2" || b.Epoch != next.Epoch {
		t.Errorf("the baton is %+v, want it with n2 in epoch %d", b, next.Epoch)
	}
	if got := claim(t, other, next); got != next {
		t.Errorf("the successor's is extended to %+v, want %+v", got, next)
	}
	announce(t, d, "n1", "2", s.TTL*10)
	if got := read(t, other).Records["n1"].Value; got != "2" {
		t.Errorf("the record is %q, want the one that was announced last", got)
	}
}
