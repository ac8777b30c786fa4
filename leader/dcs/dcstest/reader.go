package dcstest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Reader tests Read and Wait.
func Reader(t *testing.T, r Runner) {
	r.run(t, "an empty scope is no error", func(t *testing.T, s Scope) {
		got := read(t, s.Client(t))
		if len(got.Nodes)+len(got.Records) != 0 || got.Baton != (dcs.Lease{}) {
			t.Errorf("got %+v, want nothing", got)
		}
	})
	r.run(t, "keys are named by their path below the scope", readsKeys)
	r.run(t, "version grows with each write, token changes with each creation", versions)
	r.run(t, "our own keys are not among Patroni's", ownKeys)
	Waiter(t, r)
}

// Waiter is the part of Reader that fits a driver whose keys are put together from other answers (rest).
func Waiter(t *testing.T, r Runner) {
	r.run(t, "the name says which store", func(t *testing.T, s Scope) {
		if n := s.Client(t).String(); n == "" {
			t.Errorf("got %q", n)
		}
	})
	r.run(t, "wait wakes within a second of a change", wakes)
	r.run(t, "wait sees what changed before it began", waitsFromReading)
	r.run(t, "wait does not wake for the status key", statusIsQuiet)
	r.run(t, "wait ends with its context", func(t *testing.T, s Scope) {
		d := s.Client(t)
		now := read(t, d)
		err := d.Wait(within(t, 300*time.Millisecond), now)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
	r.run(t, "wait of no reading returns at once", func(t *testing.T, s Scope) {
		if err := s.Client(t).Wait(within(t, patience), dcs.Reading{}); err != nil {
			t.Error(err)
		}
	})
	r.run(t, "waits of one client do not disturb each other", manyWaits)
}

func readsKeys(t *testing.T, s Scope) {
	want := map[string]string{
		"leader":     "n1",
		"members/n1": `{"role":"master","state":"running"}`,
		"members/n2": `{"role":"replica","state":"running"}`,
		"config":     `{"ttl":30}`,
		"status":     `{"optime":67108960}`,
		"history":    "",
	}
	for k, v := range want {
		s.Put(t, k, v)
	}
	got := map[string]string{}
	for k, n := range read(t, s.Client(t)).Nodes {
		got[k] = n.Value
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func versions(t *testing.T, s Scope) {
	d := s.Client(t)
	s.Put(t, "leader", "n1")
	first := read(t, d).Nodes["leader"]
	s.Put(t, "leader", "n1") // as a write that counts, also where one that changes nothing does not
	written := read(t, d).Nodes["leader"]
	if written.Version <= first.Version || written.Token != first.Token {
		t.Errorf("after a write: %+v, before %+v; want a higher version, the same token", written, first)
	}
	s.Delete(t, "leader")
	if n, ok := read(t, d).Nodes["leader"]; ok {
		t.Errorf("after the deletion: %+v", n)
	}
	s.Put(t, "leader", "n1")
	again := read(t, d).Nodes["leader"]
	if again.Version <= written.Version || again.Token == first.Token {
		t.Errorf("created again: %+v, before %+v; want a higher version, another token", again, written)
	}
}

func ownKeys(t *testing.T, s Scope) {
	d := s.Client(t)
	s.Put(t, "leader", "n1")
	claim(t, d, dcs.Lease{Holder: "n1", TTL: s.TTL})
	announce(t, d, "n1", "{}", s.TTL)
	r := read(t, d)
	if got := slices.Collect(maps.Keys(r.Nodes)); !slices.Equal(got, []string{"leader"}) {
		t.Errorf("nodes %q, want only the leader", got)
	}
	if len(r.Records) != 1 || r.Baton.Holder != "n1" {
		t.Errorf("records %v, baton %+v: want one of each", r.Records, r.Baton)
	}
}

// wakes measures from the change to the end of Wait, several times on one client, which
// may keep something between the calls.
func wakes(t *testing.T, s Scope) {
	d := s.Client(t)
	changes := []func(){
		func() { s.Put(t, "leader", "n1") },
		func() { s.Put(t, "leader", "n2") },
		func() { s.Delete(t, "leader") },
		func() { s.Put(t, "members/n1", "{}") },
		func() { s.Put(t, "leader", "n1") },
	}
	for i, change := range changes {
		now := read(t, d)
		done := make(chan error, 1)
		go func() { done <- d.Wait(within(t, patience), now) }()
		time.Sleep(200 * time.Millisecond)
		select {
		case err := <-done:
			t.Fatalf("wait %d ended before the change: %v", i, err)
		default:
		}
		start := time.Now()
		change()
		if err := <-done; err != nil {
			t.Fatalf("wait %d: %v", i, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("wait %d woke after %v", i, took)
		}
	}
}

func waitsFromReading(t *testing.T, s Scope) {
	d := s.Client(t)
	old := read(t, d)
	s.Put(t, "leader", "n1")
	now := read(t, d)
	for i := range 2 { // a reading that is used again is still older than the change
		start := time.Now()
		if err := d.Wait(within(t, patience), old); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("wait %d took %v, want at once", i, took)
		}
	}
	if err := d.Wait(within(t, 500*time.Millisecond), now); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait from the newer reading: %v, want the deadline", err)
	}
}

func statusIsQuiet(t *testing.T, s Scope) {
	d := s.Client(t)
	s.Put(t, "status", `{"optime":1}`)
	now := read(t, d)
	done := make(chan error, 1)
	go func() { done <- d.Wait(within(t, patience), now) }()
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		s.Put(t, "status", `{"optime":2}`)
	}
	select {
	case err := <-done:
		t.Fatalf("the status key ended the wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s.Put(t, "leader", "n1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func manyWaits(t *testing.T, s Scope) {
	d := s.Client(t)
	now := read(t, d)
	done := make(chan error, 3)
	for range 3 {
		go func() { done <- d.Wait(within(t, patience), now) }()
	}
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	s.Put(t, "leader", "n1")
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("woke after %v", took)
	}
}
