//go:build servers

package etcd

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/walbaton/walbaton/leader/dcs"
)

// network stands between one client and the server and may lose the answer to the next
// transaction, or carry it out late.
type network struct {
	mu   sync.Mutex
	next string // "", "lose", "late"
	late func(ctx context.Context) error
}

func (n *network) set(next string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = next
}

func (n *network) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method != "/etcdserverpb.KV/Txn" {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	n.mu.Lock()
	next := n.next
	n.next = ""
	n.mu.Unlock()
	gone := status.Error(codes.Internal, "connection reset by test")
	switch next {
	case "lose":
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		return gone
	case "late":
		n.late = func(ctx context.Context) error { return invoke(ctx, method, req, reply, cc, opts...) }
		return gone
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func through(t *testing.T, s *server, prefix string) (*Client, *network) {
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: prefix})
	n := &network{}
	d.config.DialOptions = append(d.config.DialOptions, grpc.WithChainUnaryInterceptor(n.intercept))
	return d, n
}

func uncertain(t *testing.T, err error) {
	t.Helper()
	var held *dcs.HeldError
	if err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, &held) {
		t.Fatalf("got %v, want an error that says nothing", err)
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

// TestClaimAnswerLost is about P4: an answer that is lost must neither strand the baton nor
// give it twice.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	t.Run("the retry recognises its own key", func(t *testing.T) { retryRecognises(t, s, raw) })
	t.Run("another process of the same name does not", func(t *testing.T) { anotherProcess(t, s) })
	t.Run("a claim carried out after the retry changes nothing", func(t *testing.T) { lateAfterRetry(t, s) })
	t.Run("a claim carried out after the baton went to another is void", func(t *testing.T) { lateAfterAnother(t, s) })
}

// wanted is what the tests below claim.
func wanted() dcs.Lease { return dcs.Lease{Holder: "n1", TTL: 30 * time.Second} }

func retryRecognises(t *testing.T, s *server, raw *clientv3.Client) {
	d, n := through(t, s, prefixOf(t))
	n.set("lose")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	r, err := d.Read(soon(t))
	if err != nil || r.Baton.Holder != "n1" {
		t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
	}
	l, err := d.Claim(soon(t), wanted())
	if err != nil || l.Epoch != r.Baton.Epoch {
		t.Fatalf("retry: %+v, %v; want epoch %d", l, err, r.Baton.Epoch)
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

func anotherProcess(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	n.set("lose")
	_, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
	uncertain(t, err)
	other := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
	var held *dcs.HeldError
	if _, err := other.Claim(soon(t), wanted()); !errors.As(err, &held) {
		t.Fatalf("got %v, want it held", err)
	}
	// ... and nobody renews it, so it is free after its TTL.
	time.Sleep(3 * time.Second)
	if _, err := other.Claim(soon(t), wanted()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(soon(t), wanted()); !errors.As(err, &held) {
		t.Errorf("the first one, later: %v, want it held", err)
	}
}

func lateAfterRetry(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	n.set("late")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	l, err := d.Claim(soon(t), wanted())
	if err != nil {
		t.Fatal(err)
	}
	n.late(soon(t))
	if got, err := d.Claim(soon(t), l); err != nil || got != l {
		t.Errorf("extension: %+v, %v", got, err)
	}
	if err := d.Release(soon(t), l); err != nil {
		t.Fatal(err)
	}
	n.late(soon(t)) // its lease is revoked
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
		t.Errorf("after the release and the late claim: %+v, %v", r.Baton, err)
	}
}

func lateAfterAnother(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	other := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
	n.set("late")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	theirs, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var held *dcs.HeldError
	if _, err := d.Claim(soon(t), wanted()); !errors.As(err, &held) {
		t.Fatalf("retry: %v, want it held", err)
	}
	if err := other.Release(soon(t), theirs); err != nil {
		t.Fatal(err)
	}
	n.late(soon(t)) // its lease was revoked with the answer that n2 holds it
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
		t.Errorf("after the late claim: %+v, %v", r.Baton, err)
	}
}

func TestLateRecord(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	d, n := through(t, s, "/service/batman/")
	say := func(v string) error { return d.Announce(soon(t), "n1", v, time.Minute) }
	value := func() string {
		r, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return r.Records["n1"].Value
	}
	for i, loss := range []string{"late", "lose", "late"} {
		n.set(loss)
		uncertain(t, say("old"))
		if err := say("new"); err != nil {
			t.Fatal(err)
		}
		if loss == "late" {
			n.late(soon(t))
		}
		if got := value(); got != "new" {
			t.Errorf("round %d, %s: record %q, want the newer one", i, loss, got)
		}
		// The value before the loss is not taken for the present one.
		n.set("lose")
		uncertain(t, say("other"))
		if err := say("new"); err != nil || value() != "new" {
			t.Errorf("round %d: record %q, %v; want it written again", i, value(), err)
		}
	}
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
