// Package dcs is the narrow door through which walbaton reaches the store that a
// Patroni cluster agrees in: etcd, Consul, Kubernetes, ZooKeeper, or, for a single
// server, nothing at all.
//
// A driver does raw operations and has no policy: no loops, no retries, no timing of
// its own beyond the idle time of Wait. All clocks of the election live once, in
// package leader. A driver must pass the suites of package dcstest.
//
// Three kinds of keys are seen through the door:
//
//   - Patroni's own (Reading.Nodes), which are only ever read;
//   - one record for each sidecar (Reading.Records), bound to a lease: a record that
//     is there belongs to a sidecar that lived a moment ago;
//   - the baton (Reading.Baton), bound to a lease of its own.
//
// What a driver promises:
//
//  1. Read is linearizable and shows everything at one revision. (Kubernetes has one for each
//     kind of object; there the leader is as new as anything else in the reading, or newer.)
//  2. Of any number of claims for a free baton one succeeds.
//  3. A lease lives for its TTL from when the server handled the claim or extension that
//     Claim answered, which is after the call began. An extension that comes after the end
//     does not revive it: it gets ErrLost, even if nobody else has taken the baton since.
//  4. Epochs of one scope only grow from holder to holder.
//  5. Values are ASCII. Patroni decodes every key below its scope as UTF-8, and demotes
//     the primary when that fails (patroni/dcs/etcd3.py, consul.py).
//  6. Every call ends when its context does, also when the server hangs.
//
// An error that is fs.ErrPermission says that a right is missing, and which: the server did
// nothing. Any other error that is neither *HeldError nor ErrLost says nothing about what
// the server did: the request may have been carried out, or may still be.
package dcs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DCS is one Patroni scope, as one sidecar reaches it. Its methods may be called at the
// same time, but at most one of Claim and Release at once.
type DCS interface {
	// Read returns every Patroni key of the scope, our records and the baton, at one
	// revision. An empty scope is no error.
	Read(ctx context.Context) (Reading, error)

	// Wait returns nil when the scope may differ from since, or after an idle time of
	// some seconds; otherwise the context's error. Changes of Patroni's status key
	// alone, which come with every loop of its leader, do not count.
	Wait(ctx context.Context, since Reading) error

	// Claim with l.Epoch 0 takes the baton for l.Holder if it is free and returns the
	// lease with its Epoch and Token; *HeldError when somebody has it. Otherwise l is a
	// lease that Claim returned: it is extended to l.TTL from now; ErrLost when it has
	// ended or is not ours.
	Claim(ctx context.Context, l Lease) (Lease, error)

	// Release gives the baton back if l is the lease that holds it. Success too when
	// it has ended already.
	Release(ctx context.Context, l Lease) error

	// Announce makes value the record of member and keeps it alive for ttl from now; an
	// unchanged value costs no write. A ttl of 0 withdraws the record. Values that
	// CheckValue refuses are refused.
	Announce(ctx context.Context, member, value string, ttl time.Duration) error

	// String names the store and the scope, without secrets.
	String() string
}

// Reading is what a scope held at one revision.
type Reading struct {
	Nodes    map[string]Node // Patroni's keys by their path below the scope: "leader", "members/n1", "history"
	Records  map[string]Node // our records by member, live ones only
	Baton    Lease           // zero when free; never with a Token
	Revision string          // the driver's own, for Wait
}

// Node is one key.
type Node struct {
	Value   string
	Version uint64 // grows with every change of the key (etcd: mod revision; Consul: modify index)
	Token   uint64 // unique for each creation of the key (etcd: create revision; Consul: create index)
}

// Lease is one holding of the baton.
type Lease struct {
	Holder string        // the member that holds it
	TTL    time.Duration // how long a claim or an extension lasts; whole seconds on most servers, rounded up
	Epoch  uint64        // grows from holder to holder; 0: none yet
	Token  string        // the driver's own: what proves that the lease is ours
}

// Held says whether l names a holder.
func (l Lease) Held() bool { return l.Holder != "" }

// ErrLost is the answer to an extension that came too late: the lease has ended.
var ErrLost = errors.New("lease lost")

// HeldError is the answer to a claim for a baton that somebody holds. The holder may be
// the caller itself, in an earlier term that was not released.
type HeldError struct{ Lease Lease }

func (e *HeldError) Error() string { return fmt.Sprintf("claim baton: held by %s", e.Lease.Holder) }

// MaxValue is the size in bytes above which a record is refused: under Patroni's scope
// every write reaches every Patroni.
const MaxValue = 64 << 10

// CheckValue refuses what must not be written below a Patroni scope: anything but
// printable ASCII (and tab and newline), and more than MaxValue bytes.
func CheckValue(v string) error {
	if len(v) > MaxValue {
		return fmt.Errorf("check value: %d bytes, at most %d are allowed", len(v), MaxValue)
	}
	for i := range len(v) {
		if c := v[i]; c > '~' || (c < ' ' && c != '\n' && c != '\t') {
			return fmt.Errorf("check value: byte %#02x at %d is not printable ASCII", c, i)
		}
	}
	return nil
}
