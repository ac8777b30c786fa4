package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Outage tests what a driver does when its server fails. Each scope needs a Server of its
// own.
func Outage(t *testing.T, r Runner) {
	r.run(t, "calls to a hung server end with their context", hung)
	r.run(t, "a first call to a hung server ends with its context", firstCallHung)
	r.run(t, "a hung server does not cost the baton when it comes back in time", hungBriefly)
	r.run(t, "a restarted server keeps baton and record", restarted)
	r.run(t, "calls to a lost server fail, and recover when it is back", lost)
	r.run(t, "a client may be made while the server is away", late)
	r.run(t, "wait survives an outage", waitThrough)
}

func hung(t *testing.T, s Scope) {
	d := s.Client(t)
	now := read(t, d)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 10})
	announce(t, d, "n1", "0", s.TTL*10)
	s.Server.Hang(t)
	defer s.Server.Resume(t)
	endWithTheirContext(t, d, now, l)
}

func firstCallHung(t *testing.T, s Scope) {
	now := read(t, s.Client(t))
	s.Server.Hang(t)
	defer s.Server.Resume(t)
	endWithTheirContext(t, s.Client(t), now, dcs.Lease{Holder: "n1", TTL: s.TTL, Epoch: 1, Token: "1/x"})
}

func endWithTheirContext(t *testing.T, d dcs.DCS, now dcs.Reading, l dcs.Lease) {
	t.Helper()
	const each = 500 * time.Millisecond
	one := func(name string, call func(ctx context.Context) error) {
		start := time.Now()
		err := call(within(t, each))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the deadline", name, err)
		}
		if took := time.Since(start); took > each+time.Second {
			t.Errorf("%s took %v, its context ended after %v", name, took, each)
		}
	}
	one("Read", func(ctx context.Context) error { _, err := d.Read(ctx); return err })
	one("Wait", func(ctx context.Context) error { return d.Wait(ctx, now) })
	one("take", func(ctx context.Context) error {
		_, err := d.Claim(ctx, dcs.Lease{Holder: "n2", TTL: l.TTL})
		return err
	})
	one("extend", func(ctx context.Context) error { _, err := d.Claim(ctx, l); return err })
	one("Announce", func(ctx context.Context) error { return d.Announce(ctx, "n1", "1", l.TTL) })
	one("Release", func(ctx context.Context) error { return d.Release(ctx, l) })
}

func hungBriefly(t *testing.T, s Scope) {
	d := s.Client(t)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 10})
	s.Server.Hang(t)
	if _, err := d.Claim(within(t, 300*time.Millisecond), l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("extension while hung: %v, want the deadline", err)
	}
	s.Server.Resume(t)
	if got := claim(t, d, l); got != l {
		t.Errorf("extended to %+v, want %+v", got, l)
	}
}

func restarted(t *testing.T, s Scope) {
	d := s.Client(t)
	s.Put(t, "leader", "n1")
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL * 10})
	announce(t, d, "n1", "1", s.TTL*10)
	before := read(t, d)
	s.Server.Kill(t)
	s.Server.Start(t)
	// The first calls may meet connections that died with the server.
	until(t, patience, "extension after the restart", func() bool {
		got, err := d.Claim(within(t, time.Second), l)
		if errors.Is(err, dcs.ErrLost) {
			t.Fatalf("the baton is lost: %v", err)
		}
		return err == nil && got == l
	})
	announce(t, d, "n1", "1", s.TTL*10)
	after := read(t, d)
	if after.Records["n1"] != before.Records["n1"] || after.Baton != before.Baton || after.Nodes["leader"] != before.Nodes["leader"] {
		t.Errorf("after the restart %+v, before %+v", after, before)
	}
	announce(t, d, "n1", "2", s.TTL*10)
	release(t, d, l)
}

func lost(t *testing.T, s Scope) {
	d := s.Client(t)
	now := read(t, d)
	l := claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	s.Server.Kill(t)
	for name, err := range calls(within(t, time.Second), d, now, l) {
		var held *dcs.HeldError
		if name == "Wait" {
			continue // it may just as well find that the scope may differ
		}
		if err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, &held) {
			t.Errorf("%s without a server: %v, want an error that says nothing about the lease", name, err)
		}
	}
	s.Server.Start(t)
	until(t, patience, "a claim after the server is back", func() bool {
		got, err := d.Claim(within(t, time.Second), dcs.Lease{Holder: "n1", TTL: s.TTL * 5})
		return err == nil && got.Epoch > l.Epoch
	})
	announce(t, d, "n1", "1", s.TTL*5)
	if r := read(t, d); r.Baton.Holder != "n1" || r.Records["n1"].Value != "1" {
		t.Errorf("after the outage: %+v", r)
	}
}

func late(t *testing.T, s Scope) {
	s.Server.Kill(t)
	d := s.Client(t)
	if r, err := d.Read(within(t, time.Second)); err == nil {
		t.Errorf("read %+v without a server", r)
	}
	s.Server.Start(t)
	until(t, patience, "a read after the server is there", func() bool {
		_, err := d.Read(within(t, time.Second))
		return err == nil
	})
}

// waitThrough expects that Wait, called as its caller would, shows a change that was
// made after the server came back.
func waitThrough(t *testing.T, s Scope) {
	d := s.Client(t)
	now := read(t, d)
	s.Server.Kill(t)
	if err := d.Wait(within(t, time.Second), now); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without a server: %v, want nil or the deadline", err)
	}
	s.Server.Start(t)
	s.Put(t, "leader", "n1")
	until(t, patience, "the change after the outage", func() bool {
		if err := d.Wait(within(t, 5*time.Second), now); err != nil {
			return false
		}
		now = read(t, d)
		return now.Nodes["leader"].Value == "n1"
	})
}
