package static_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/static"
	"github.com/walbaton/walbaton/leader/patroni"
)

// The suites of dcstest do not fit: nothing here runs out, and there are no racers.
func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var d dcs.DCS = static.New("pg1", "postgres://10.0.0.1:5433/postgres")
		r, err := d.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c, err := patroni.Parse(r.Nodes)
		if err != nil {
			t.Fatal(err)
		}
		m := c.Members["pg1"]
		if c.Leader != "pg1" || m.Role != "primary" || m.Host != "10.0.0.1" || m.Port != 5433 || len(c.Warnings) != 0 {
			t.Errorf("got %+v", c)
		}

		l, err := d.Claim(ctx, dcs.Lease{Holder: "pg1", TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got, err := d.Claim(ctx, l); err != nil || got != l {
			t.Errorf("extended to %+v, %v; want %+v", got, err, l)
		}
		if r.Baton.Holder != "pg1" || r.Baton.Epoch != l.Epoch {
			t.Errorf("the reading shows %+v, the lease is %+v", r.Baton, l)
		}
		var held *dcs.HeldError
		if _, err := d.Claim(ctx, dcs.Lease{Holder: "pg2", TTL: time.Second}); !errors.As(err, &held) {
			t.Errorf("another member: %v, want it held", err)
		}

		done := make(chan error)
		go func() { done <- d.Wait(ctx, r) }()
		synctest.Wait()
		if err := d.Announce(ctx, "pg1", "1", time.Second); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if r, err = d.Read(ctx); err != nil || r.Records["pg1"].Value != "1" {
			t.Errorf("records %v, %v", r.Records, err)
		}
		if err := d.Announce(ctx, "pg1", "é", time.Second); err == nil {
			t.Error("a value that is not ASCII was accepted")
		}
		start := time.Now()
		if err := d.Wait(ctx, r); err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("wait: %v after %v, want nil after the idle time", err, time.Since(start))
		}
		if err := d.Announce(ctx, "pg1", "", 0); err != nil {
			t.Fatal(err)
		}
		if r, err = d.Read(ctx); err != nil || len(r.Records) != 0 {
			t.Errorf("withdrawn: %v, %v", r.Records, err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := d.Wait(ended, r); !errors.Is(err, context.Canceled) {
			t.Errorf("wait on an ended context: %v", err)
		}
	})
}
