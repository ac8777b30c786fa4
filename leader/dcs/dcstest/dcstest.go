// Package dcstest holds what every driver of package dcs must pass: Reader for what it
// shows, Lease for the baton and the records, Outage for what it does when its server
// hangs, restarts or is gone, Cut for what it does when the network to its server breaks
// connections, loses answers or delivers requests late, at each moment of each call. The fifth
// suite needs an Elector and is beside it: leadertest.Frozen.
//
//	func TestLease(t *testing.T) {
//		dcstest.Lease(t, func(t *testing.T, test func(*testing.T, dcstest.Scope)) {
//			test(t, dcstest.Scope{Client: …, Put: …, Delete: …, TTL: 2 * time.Second})
//		})
//	}
//
// A driver hands in a runner, not a scope, so that it may run each test inside a
// testing/synctest bubble.
package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Scope is one empty scope on a server under test.
type Scope struct {
	Client func(t *testing.T) dcs.DCS          // another client, sharing nothing with the ones before
	Put    func(t *testing.T, key, val string) // writes a key below the scope, as Patroni does
	Delete func(t *testing.T, key string)
	TTL    time.Duration // a lease to test with, as short as the server honours
	Slack  time.Duration // how long after its end a lease may still be seen
	Server Server        // only for Outage

	// Only for Cut: Client goes through Network, Direct does not.
	Network *Network
	Direct  func(t *testing.T) dcs.DCS
}

// Through puts a network in front of the server's host:port; client makes a client of another address.
func (s Scope) Through(t *testing.T, server string, client func(t *testing.T, address string) dcs.DCS) Scope {
	n := NewNetwork(t, server)
	s.Network, s.Direct = n, s.Client
	s.Client = func(t *testing.T) dcs.DCS { return client(t, n.Address) }
	return s
}

// Server is the process that a scope lives on.
type Server interface {
	Hang(t testing.TB)   // it neither answers nor breaks connections
	Resume(t testing.TB) // after Hang
	Kill(t testing.TB)
	Start(t testing.TB) // after Kill, with its data
}

// Runner calls test with a fresh scope.
type Runner func(t *testing.T, test func(t *testing.T, s Scope))

func (r Runner) run(t *testing.T, name string, test func(t *testing.T, s Scope)) {
	t.Run(name, func(t *testing.T) { r(t, test) })
}

// patience bounds calls that must succeed.
const patience = 20 * time.Second

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func read(t *testing.T, d dcs.DCS) dcs.Reading {
	t.Helper()
	r, err := d.Read(within(t, patience))
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return r
}

func claim(t *testing.T, d dcs.DCS, l dcs.Lease) dcs.Lease {
	t.Helper()
	got, err := d.Claim(within(t, patience), l)
	if err != nil {
		t.Fatalf("Claim(%+v): %v", l, err)
	}
	return got
}

func release(t *testing.T, d dcs.DCS, l dcs.Lease) {
	t.Helper()
	if err := d.Release(within(t, patience), l); err != nil {
		t.Fatalf("Release(%+v): %v", l, err)
	}
}

func announce(t *testing.T, d dcs.DCS, member, value string, ttl time.Duration) {
	t.Helper()
	if err := d.Announce(within(t, patience), member, value, ttl); err != nil {
		t.Fatalf("Announce(%s): %v", member, err)
	}
}

// wantHeld checks that a claim of l finds the baton held by holder.
func wantHeld(t *testing.T, d dcs.DCS, l dcs.Lease, holder string) {
	t.Helper()
	got, err := d.Claim(within(t, patience), l)
	var held *dcs.HeldError
	if !errors.As(err, &held) || held.Lease.Holder != holder {
		t.Fatalf("Claim(%+v) = %+v, %v; want it held by %s", l, got, err, holder)
	}
	if held.Lease.Token != "" {
		t.Errorf("HeldError shows the token of %s", holder)
	}
}

func wantLost(t *testing.T, d dcs.DCS, l dcs.Lease) {
	t.Helper()
	if got, err := d.Claim(within(t, patience), l); !errors.Is(err, dcs.ErrLost) {
		t.Fatalf("Claim(%+v) = %+v, %v; want ErrLost", l, got, err)
	}
}

// until polls; what must come true within d.
func until(t *testing.T, d time.Duration, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !true(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, d)
		}
	}
}
