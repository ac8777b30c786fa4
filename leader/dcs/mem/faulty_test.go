package mem_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/dcs/mem"
)

// A network without faults changes nothing.
func TestFaultless(t *testing.T) {
	run := func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		bubble(t, func(t *testing.T, s dcstest.Scope) {
			plain := s.Client
			s.Client = func(t *testing.T) dcs.DCS {
				return mem.NewFaulty(plain(t), func(mem.Op) mem.Fault { return mem.None })
			}
			test(t, s)
		})
	}
	dcstest.Reader(t, run)
	dcstest.Lease(t, run)
}

// faulty is a client whose faults the test sets, and a sound one beside it.
func faulty(t *testing.T) (d *mem.Faulty, sound dcs.DCS, next map[mem.Op]mem.Fault) {
	t.Helper()
	server := mem.New(time.Now)
	next = map[mem.Op]mem.Fault{}
	return mem.NewFaulty(server.Client(), func(op mem.Op) mem.Fault { return next[op] }), server.Client(), next
}

func holder(t *testing.T, d dcs.DCS) string {
	t.Helper()
	r, err := d.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.Baton.Holder
}

func TestFaults(t *testing.T) {
	want := dcs.Lease{Holder: "n1", TTL: 15 * time.Second}

	t.Run("drop", func(t *testing.T) {
		d, sound, next := faulty(t)
		next[mem.OpTake] = mem.Drop
		if _, err := d.Claim(t.Context(), want); !errors.Is(err, mem.ErrNetwork) {
			t.Errorf("got %v", err)
		}
		if h := holder(t, sound); h != "" {
			t.Errorf("the baton is with %q", h)
		}
	})
	t.Run("lost", func(t *testing.T) {
		d, sound, next := faulty(t)
		next[mem.OpTake] = mem.Lost
		if l, err := d.Claim(t.Context(), want); !errors.Is(err, mem.ErrNetwork) || l != (dcs.Lease{}) {
			t.Errorf("got %+v, %v", l, err)
		}
		if h := holder(t, sound); h != "n1" {
			t.Errorf("the baton is with %q, want n1", h)
		}
	})
	t.Run("late", func(t *testing.T) {
		d, sound, next := faulty(t)
		next[mem.OpTake] = mem.Late
		if _, err := d.Claim(t.Context(), want); !errors.Is(err, mem.ErrNetwork) {
			t.Errorf("got %v", err)
		}
		if h := holder(t, sound); h != "" {
			t.Errorf("before the delivery the baton is with %q", h)
		}
		if n, h := d.Deliver(t.Context()), holder(t, sound); n != 1 || h != "n1" {
			t.Errorf("delivered %d, the baton is with %q", n, h)
		}
		if n := d.Deliver(t.Context()); n != 0 {
			t.Errorf("delivered %d twice", n)
		}
	})
	t.Run("stale", func(t *testing.T) {
		d, sound, next := faulty(t)
		holder(t, d)
		if _, err := sound.Claim(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		next[mem.OpRead] = mem.Stale
		if h := holder(t, d); h != "" {
			t.Errorf("a stale read shows %q", h)
		}
		next[mem.OpRead] = mem.None
		if h := holder(t, d); h != "n1" {
			t.Errorf("a read shows %q", h)
		}
	})
	t.Run("hang", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, _, next := faulty(t)
			next[mem.OpExtend] = mem.Hang
			l, err := d.Claim(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			if _, err := d.Claim(ctx, l); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
				t.Errorf("got %v after %v", err, time.Since(start))
			}
			if h := holder(t, d); h != "" {
				t.Errorf("the lease outlived the hang: %q", h)
			}
		})
	})
}

// A simulation moves its own clock; Expire wakes who waits.
func TestOwnClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Unix(0, 0)
		server := mem.New(func() time.Time { return now })
		d := server.Client()
		if _, err := d.Claim(t.Context(), dcs.Lease{Holder: "n1", TTL: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r, err := d.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := d.Wait(t.Context(), r); err != nil || time.Since(start) != mem.Idle {
			t.Errorf("wait while the clock stands: %v after %v, want nil after the idle time", err, time.Since(start))
		}
		done := make(chan error)
		go func() { done <- d.Wait(t.Context(), r) }()
		synctest.Wait()
		start = time.Now()
		now = now.Add(5 * time.Second)
		server.Expire()
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("wait: %v after %v, want at once", err, time.Since(start))
		}
		if h := holder(t, d); h != "" {
			t.Errorf("the baton is with %q", h)
		}
	})
}
