package mem

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Fault is what a broken network does to one call.
type Fault uint8

const (
	None  Fault = iota
	Drop        // the request does not arrive; the call fails at once
	Hang        // the request does not arrive; the call ends with its context
	Lost        // the request is carried out, the answer is lost; the call fails at once
	Late        // the call fails at once; a write is carried out when Deliver is called
	Stale       // Read answers what it answered the time before; other calls are not disturbed
)

func (f Fault) String() string {
	return [...]string{"none", "drop", "hang", "lost", "late", "stale"}[f]
}

// Op names a method of dcs.DCS; taking and extending the baton are told apart.
type Op string

const (
	OpRead     Op = "read"
	OpWait     Op = "wait"
	OpTake     Op = "take"
	OpExtend   Op = "extend"
	OpRelease  Op = "release"
	OpAnnounce Op = "announce"
)

// ErrNetwork is how a call fails that meets Drop, Lost or Late. It says nothing about
// whether the server carried the request out.
var ErrNetwork = errors.New("network fault")

// Faulty is any dcs.DCS behind a broken network: fault is asked before each call.
type Faulty struct {
	dcs   dcs.DCS
	fault func(Op) Fault

	mu   sync.Mutex
	last dcs.Reading
	late []func(ctx context.Context)
}

// NewFaulty puts a network in front of d.
func NewFaulty(d dcs.DCS, fault func(Op) Fault) *Faulty { return &Faulty{dcs: d, fault: fault} }

func (f *Faulty) String() string { return f.dcs.String() }

// Deliver carries out the late writes, oldest first, and says how many there were. Nobody
// learns their answers.
func (f *Faulty) Deliver(ctx context.Context) int {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	for _, write := range late {
		write(ctx)
	}
	return len(late)
}

// through takes one call through the network.
func (f *Faulty) through(ctx context.Context, op Op, fault Fault, write bool, call func(ctx context.Context) error) error {
	switch fault {
	case Hang:
		<-ctx.Done()
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case Late:
		if write {
			f.mu.Lock()
			f.late = append(f.late, func(ctx context.Context) { call(ctx) })
			f.mu.Unlock()
		}
		return fmt.Errorf("%s: %w: %v", op, ErrNetwork, fault)
	case Lost:
		call(ctx)
		return fmt.Errorf("%s: %w: %v", op, ErrNetwork, fault)
	case Drop:
		return fmt.Errorf("%s: %w: %v", op, ErrNetwork, fault)
	}
	return call(ctx)
}

// Read answers the reading before when it meets Stale, as a follower that lags would.
func (f *Faulty) Read(ctx context.Context) (dcs.Reading, error) {
	var r dcs.Reading
	fault := f.fault(OpRead)
	if fault == Stale {
		if last := f.before(); last.Revision != "" {
			return last, nil
		}
	}
	err := f.through(ctx, OpRead, fault, false, func(ctx context.Context) (err error) {
		r, err = f.dcs.Read(ctx)
		return err
	})
	if err != nil {
		return dcs.Reading{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = r
	return r, nil
}

func (f *Faulty) before() dcs.Reading {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Wait passes on.
func (f *Faulty) Wait(ctx context.Context, since dcs.Reading) error {
	return f.through(ctx, OpWait, f.fault(OpWait), false, func(ctx context.Context) error { return f.dcs.Wait(ctx, since) })
}

// Claim passes on.
func (f *Faulty) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	op := OpTake
	if l.Epoch != 0 {
		op = OpExtend
	}
	var got dcs.Lease
	err := f.through(ctx, op, f.fault(op), true, func(ctx context.Context) (err error) {
		got, err = f.dcs.Claim(ctx, l)
		return err
	})
	if err != nil {
		return dcs.Lease{}, err
	}
	return got, nil
}

// Release passes on.
func (f *Faulty) Release(ctx context.Context, l dcs.Lease) error {
	return f.through(ctx, OpRelease, f.fault(OpRelease), true, func(ctx context.Context) error { return f.dcs.Release(ctx, l) })
}

// Announce passes on.
func (f *Faulty) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	return f.through(ctx, OpAnnounce, f.fault(OpAnnounce), true, func(ctx context.Context) error { return f.dcs.Announce(ctx, member, value, ttl) })
}
