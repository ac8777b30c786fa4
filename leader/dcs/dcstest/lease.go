package dcstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Lease tests the baton and the records.
func Lease(t *testing.T, r Runner) {
	r.run(t, "of N racers one wins", race)
	r.run(t, "a lease lives as long as it is extended", extends)
	r.run(t, "a late extension cannot revive", lateExtension)
	r.run(t, "a late extension does not disturb the successor", lateAfterSuccessor)
	r.run(t, "the holder cannot take it a second time", func(t *testing.T, s Scope) {
		d := s.Client(t)
		l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
		wantHeld(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL}, "n1")
		claim(t, d, l)
	})
	r.run(t, "epochs only grow", epochsGrow)
	r.run(t, "release frees at once and may be repeated", releases)
	r.run(t, "release by a non-holder does nothing", foreignRelease)
	r.run(t, "extension by a non-holder is lost", foreignExtension)
	r.run(t, "a claim without holder or TTL is refused", func(t *testing.T, s Scope) {
		d := s.Client(t)
		for _, l := range []dcs.Lease{{TTL: s.TTL}, {Holder: "n1"}} {
			if got, err := d.Claim(within(t, patience), l); err == nil {
				t.Errorf("Claim(%+v) = %+v", l, got)
			}
		}
	})
	r.run(t, "wait wakes when the baton runs out", waitForExpiry)
	r.run(t, "a record appears, changes and is withdrawn", recordLife)
	r.run(t, "a record disappears at its TTL and comes back", recordExpires)
	r.run(t, "the baton's end leaves the record alone", apart)
	r.run(t, "a record of the same name is taken over", recordTakenOver)
	r.run(t, "what is not ASCII is refused", ascii)
	r.run(t, "calls on an ended context fail", endedContext)
}

// race lets separate clients claim at the same moment, again and again.
func race(t *testing.T, s Scope) {
	const racers, rounds = 8, 5
	clients := make([]dcs.DCS, racers)
	for i := range clients {
		clients[i] = s.Client(t)
		read(t, clients[i])
	}
	last := uint64(0)
	for round := range rounds {
		var mu sync.Mutex
		var wins []dcs.Lease
		var by []dcs.DCS
		var held []string
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i, d := range clients {
			wg.Go(func() {
				<-start
				l, err := d.Claim(within(t, patience), dcs.Lease{Holder: fmt.Sprintf("n%d", i), TTL: s.TTL * 5})
				mu.Lock()
				defer mu.Unlock()
				var h *dcs.HeldError
				switch {
				case err == nil:
					wins, by = append(wins, l), append(by, d)
				case errors.As(err, &h):
					held = append(held, h.Lease.Holder)
				default:
					t.Errorf("round %d: racer %d: %v", round, i, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if len(wins) != 1 {
			t.Fatalf("round %d: %d winners: %+v", round, len(wins), wins)
		}
		for _, h := range held {
			if h != wins[0].Holder {
				t.Errorf("round %d: a loser was told %s holds it, want %s", round, h, wins[0].Holder)
			}
		}
		if b := read(t, clients[0]).Baton; b.Holder != wins[0].Holder || b.Epoch != wins[0].Epoch || b.Token != "" {
			t.Errorf("round %d: the reading shows %+v, want %+v without its token", round, b, wins[0])
		}
		if wins[0].Epoch <= last {
			t.Errorf("round %d: epoch %d after %d", round, wins[0].Epoch, last)
		}
		last = wins[0].Epoch
		release(t, by[0], wins[0])
	}
}

func extends(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	if l.TTL < s.TTL || l.Epoch == 0 || l.Token == "" {
		t.Fatalf("claimed %+v, want a TTL of at least %v, an epoch and a token", l, s.TTL)
	}
	for range 8 {
		time.Sleep(s.TTL / 3)
		got := claim(t, d, l)
		if got != l {
			t.Fatalf("extended to %+v, want %+v", got, l)
		}
	}
	wantHeld(t, other, dcs.Lease{Holder: "n2", TTL: s.TTL}, "n1")
}

func lateExtension(t *testing.T, s Scope) {
	d := s.Client(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	time.Sleep(s.TTL + s.Slack)
	wantLost(t, d, l)
	if b := read(t, d).Baton; b.Held() {
		t.Errorf("the baton is %+v, want it free", b)
	}
	again := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
	if again.Epoch <= l.Epoch {
		t.Errorf("epoch %d after %d", again.Epoch, l.Epoch)
	}
	wantLost(t, d, l)
	claim(t, d, again)
}

func lateAfterSuccessor(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	read(t, other) // on Kubernetes a lease ends for those who saw it: one lease time after that
	time.Sleep(s.TTL + s.Slack)
	next := claim(t, other, dcs.Lease{Holder: "n2", TTL: s.TTL * 5})
	wantLost(t, d, l)
	release(t, d, l)
	if b := read(t, d).Baton; b.Holder != "n2" || b.Epoch != next.Epoch {
		t.Errorf("the baton is %+v, want it with n2", b)
	}
	claim(t, other, next)
}

func epochsGrow(t *testing.T, s Scope) {
	clients := []dcs.DCS{s.Client(t), s.Client(t)}
	last := uint64(0)
	for i := range 6 {
		d := clients[i%2]
		l := claim(t, d, dcs.Lease{Holder: fmt.Sprintf("n%d", i%2), TTL: s.TTL * 5})
		if l.Epoch <= last {
			t.Fatalf("epoch %d after %d", l.Epoch, last)
		}
		last = l.Epoch
		if got := claim(t, d, l); got.Epoch != last {
			t.Fatalf("extension changed the epoch from %d to %d", last, got.Epoch)
		}
		release(t, d, l)
	}
}

func releases(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
	release(t, d, l)
	release(t, d, l)
	if b := read(t, other).Baton; b.Held() {
		t.Errorf("the baton is %+v, want it free", b)
	}
	wantLost(t, d, l)
	claim(t, other, dcs.Lease{Holder: "n2", TTL: s.TTL})
}

func foreignRelease(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	earlier := claim(t, other, dcs.Lease{Holder: "n2", TTL: s.TTL * 5})
	release(t, other, earlier)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
	for _, foreign := range []dcs.Lease{
		{},
		{Holder: "n1", TTL: l.TTL, Epoch: l.Epoch},
		{Holder: "n1", TTL: l.TTL, Token: l.Token},
		earlier,
		{Holder: "n2", TTL: l.TTL, Epoch: l.Epoch, Token: earlier.Token},
	} {
		other.Release(within(t, patience), foreign) // an error is as good as none
		if b := read(t, d).Baton; b.Holder != "n1" || b.Epoch != l.Epoch {
			t.Fatalf("after the release of %+v the baton is %+v, want it with n1", foreign, b)
		}
	}
	claim(t, d, l)
}

func foreignExtension(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	earlier := claim(t, other, dcs.Lease{Holder: "n2", TTL: s.TTL * 5})
	release(t, other, earlier)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
	wantLost(t, other, earlier)
	wantLost(t, other, dcs.Lease{Holder: "n1", TTL: l.TTL, Epoch: l.Epoch})
	wantLost(t, other, dcs.Lease{Holder: "n2", TTL: l.TTL, Epoch: l.Epoch, Token: earlier.Token})
	claim(t, d, l)
}

func waitForExpiry(t *testing.T, s Scope) {
	d := s.Client(t)
	claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	now := read(t, d)
	if err := d.Wait(within(t, s.TTL+s.Slack), now); err != nil {
		t.Fatal(err)
	}
	if b := read(t, d).Baton; b.Held() {
		t.Errorf("the baton is %+v, want it free", b)
	}
}

func recordLife(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	now := read(t, other)
	announce(t, d, "n1", `{"a":1}`, s.TTL*5)
	if err := other.Wait(within(t, time.Second), now); err != nil {
		t.Errorf("wait for the record: %v", err)
	}
	first := read(t, other).Records["n1"]
	if first.Value != `{"a":1}` {
		t.Fatalf("record %+v", first)
	}
	announce(t, d, "n1", `{"a":1}`, s.TTL*5)
	if same := read(t, other).Records["n1"]; same != first {
		t.Errorf("unchanged value: %+v, want %+v", same, first)
	}
	announce(t, d, "n1", `{"a":2}`, s.TTL*5)
	changed := read(t, other).Records["n1"]
	if changed.Value != `{"a":2}` || changed.Version <= first.Version || changed.Token != first.Token {
		t.Errorf("changed value: %+v after %+v", changed, first)
	}
	odd := `n 2/ü%41`
	announce(t, other, odd, "", s.TTL*5)
	if _, ok := read(t, d).Records[odd]; !ok {
		t.Errorf("records %v, want one of %q", read(t, d).Records, odd)
	}
	for range 2 {
		announce(t, d, "n1", "", 0)
		r := read(t, d).Records
		if _, ok := r["n1"]; ok || len(r) != 1 {
			t.Errorf("withdrawn: %v", r)
		}
	}
	announce(t, d, "n1", `{"a":3}`, s.TTL*5)
	if again := read(t, other).Records["n1"]; again.Token == first.Token || again.Value != `{"a":3}` {
		t.Errorf("announced again: %+v, want another token than %+v", again, first)
	}
}

func recordExpires(t *testing.T, s Scope) {
	d, other := s.Client(t), s.Client(t)
	for range 6 {
		announce(t, d, "n1", "1", s.TTL)
		time.Sleep(s.TTL / 3)
	}
	now := read(t, other)
	if now.Records["n1"].Value != "1" {
		t.Fatalf("kept alive: %v", now.Records)
	}
	if err := other.Wait(within(t, s.TTL+s.Slack), now); err != nil {
		t.Fatal(err)
	}
	if r := read(t, other).Records; len(r) != 0 {
		t.Fatalf("after its TTL: %v", r)
	}
	announce(t, d, "n1", "1", s.TTL)
	if r := read(t, other).Records; r["n1"].Value != "1" {
		t.Errorf("announced after its end: %v", r)
	}
}

func apart(t *testing.T, s Scope) {
	d := s.Client(t)
	announce(t, d, "n1", "1", s.TTL*10)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 10})
	release(t, d, l)
	if r := read(t, d).Records; len(r) != 1 {
		t.Errorf("after the release: %v", r)
	}
	claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	time.Sleep(s.TTL + s.Slack)
	if r := read(t, d); len(r.Records) != 1 || r.Baton.Held() {
		t.Errorf("after the baton's end: %+v", r)
	}
}

// recordTakenOver is a sidecar that starts again while its former record still lives.
func recordTakenOver(t *testing.T, s Scope) {
	former, d := s.Client(t), s.Client(t)
	announce(t, former, "n1", "1", s.TTL)
	announce(t, d, "n1", "2", s.TTL*10)
	time.Sleep(s.TTL + s.Slack)
	if r := read(t, d).Records; r["n1"].Value != "2" {
		t.Errorf("after the end of the former lease: %v", r)
	}
}

func ascii(t *testing.T, s Scope) {
	d := s.Client(t)
	announce(t, d, "n1", "kept", s.TTL*5)
	for _, bad := range []string{"\xff\xfe", "é", "a\x00b", "\x7f", strings.Repeat("a", dcs.MaxValue+1)} {
		if err := d.Announce(within(t, patience), "n1", bad, s.TTL); err == nil {
			t.Errorf("%.10q was accepted", bad)
		}
	}
	announce(t, d, "n2", strings.Repeat("a", dcs.MaxValue), s.TTL*5)
	// A member's name goes into values and keys too.
	l := claim(t, d, dcs.Lease{Holder: "größe \U0001f418\n", TTL: s.TTL * 5})
	r := read(t, d)
	if r.Records["n1"].Value != "kept" || len(r.Records["n2"].Value) != dcs.MaxValue || r.Baton.Holder != l.Holder {
		t.Errorf("records of %d members, baton %+v", len(r.Records), r.Baton)
	}
}

func endedContext(t *testing.T, s Scope) {
	d := s.Client(t)
	now := read(t, d)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range calls(ctx, d, now, l) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the context's error", name, err)
		}
	}
	claim(t, d, l) // none of them did anything
}

// calls makes one of each, with what they need.
func calls(ctx context.Context, d dcs.DCS, now dcs.Reading, l dcs.Lease) map[string]error {
	errs := map[string]error{}
	_, errs["Read"] = d.Read(ctx)
	errs["Wait"] = d.Wait(ctx, now)
	_, errs["take"] = d.Claim(ctx, dcs.Lease{Holder: "n2", TTL: l.TTL})
	_, errs["extend"] = d.Claim(ctx, l)
	errs["Release"] = d.Release(ctx, l)
	errs["Announce"] = d.Announce(ctx, "n1", "1", l.TTL)
	return errs
}
