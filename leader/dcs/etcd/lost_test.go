//go:build servers

package etcd

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/walbaton/walbaton/leader/dcs"
)

// TestClaimAnswerLost: the claim that goes on with one whose answer was lost takes no second lease. That it gets the baton is
// dcstest.Cut's.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
	lost := false
	d.config.DialOptions = append(d.config.DialOptions, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if err == nil && !lost && method == "/etcdserverpb.KV/Txn" {
				lost = true
				err = status.Error(codes.Internal, "connection reset by test")
			}
			return err
		}))
	want := dcs.Lease{Holder: "n1", TTL: 30 * time.Second}
	if l, err := d.Claim(soon(t), want); err == nil {
		t.Fatalf("claimed %+v without an answer", l)
	}
	r, err := d.Read(soon(t))
	if err != nil || r.Baton.Holder != "n1" {
		t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
	}
	l, err := d.Claim(soon(t), want)
	if err != nil || l.Epoch != r.Baton.Epoch {
		t.Fatalf("repeated: %+v, %v; want epoch %d", l, err, r.Baton.Epoch)
	}
	if got := leases(t, raw); got != 1 {
		t.Errorf("%d leases, want 1", got)
	}
	if err := d.Release(soon(t), l); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, raw); got != 0 {
		t.Errorf("%d leases after the release, want none", got)
	}
}

func leases(t *testing.T, raw *clientv3.Client) int {
	t.Helper()
	r, err := raw.Leases(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Leases)
}

// TestComesBackSoon: after an outage of any length an etcd that is back is found within seconds.
func TestComesBackSoon(t *testing.T) {
	s := startServer(t, nil)
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
	read := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Read(ctx)
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	for away := time.Now(); time.Since(away) < 10*time.Second; {
		if err := read(); err == nil {
			t.Fatal("an etcd that was killed answers")
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Start(t)
	back := time.Now()
	for read() != nil {
		if time.Since(back) > 3500*time.Millisecond {
			t.Fatal("etcd is back for 3.5 s, and was not found")
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("found after %v", time.Since(back))
}
