//go:build servers

package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
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
	want := dcs.Lease{Holder: "n1", TTL: 30 * time.Second}

	t.Run("the retry recognises its own key", func(t *testing.T) {
		d, n := through(t, s, prefixOf(t))
		n.set("lose")
		_, err := d.Claim(soon(t), want)
		uncertain(t, err)
		r, err := d.Read(soon(t))
		if err != nil || r.Baton.Holder != "n1" {
			t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
		}
		l, err := d.Claim(soon(t), want)
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
	})
	t.Run("another process of the same name does not", func(t *testing.T) {
		d, n := through(t, s, prefixOf(t))
		n.set("lose")
		_, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
		uncertain(t, err)
		other := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
		var held *dcs.HeldError
		if _, err := other.Claim(soon(t), want); !errors.As(err, &held) {
			t.Fatalf("got %v, want it held", err)
		}
		// ... and nobody renews it, so it is free after its TTL.
		time.Sleep(3 * time.Second)
		if _, err := other.Claim(soon(t), want); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Claim(soon(t), want); !errors.As(err, &held) {
			t.Errorf("the first one, later: %v, want it held", err)
		}
	})
	t.Run("a claim carried out after the retry changes nothing", func(t *testing.T) {
		d, n := through(t, s, prefixOf(t))
		n.set("late")
		_, err := d.Claim(soon(t), want)
		uncertain(t, err)
		l, err := d.Claim(soon(t), want)
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
	})
	t.Run("a claim carried out after the baton went to another is void", func(t *testing.T) {
		d, n := through(t, s, prefixOf(t))
		other := open(t, Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
		n.set("late")
		_, err := d.Claim(soon(t), want)
		uncertain(t, err)
		theirs, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		var held *dcs.HeldError
		if _, err := d.Claim(soon(t), want); !errors.As(err, &held) {
			t.Fatalf("retry: %v, want it held", err)
		}
		if err := other.Release(soon(t), theirs); err != nil {
			t.Fatal(err)
		}
		n.late(soon(t)) // its lease was revoked with the answer that n2 holds it
		if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
			t.Errorf("after the late claim: %+v, %v", r.Baton, err)
		}
	})
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

// TestRemoved deletes all keys of the scope, as `patronictl remove` does.
func TestRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		if err := d.Announce(soon(t), "n1", "1", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	say()
	if _, err := s.raw(t).Delete(soon(t), "/service/batman/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
		t.Errorf("extension: %v, want ErrLost", err)
	}
	for i, want := range []int{0, 1} { // the first reading notices
		r, err := d.Read(soon(t))
		if err != nil || len(r.Records) != want {
			t.Errorf("reading %d: records %v, %v; want %d", i, r.Records, err, want)
		}
		say()
	}
}

func TestJunkBaton(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	put(t, s.raw(t), "/service/batman/walbaton/baton", "\xff\x00 not ours")
	put(t, s.raw(t), "/service/batman/walbaton/records/%zz", "junk")
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	r, err := d.Read(soon(t))
	if err != nil || !r.Baton.Held() || len(r.Records)+len(r.Nodes) != 0 {
		t.Errorf("got %+v, %v; want a held baton and nothing else", r, err)
	}
	var held *dcs.HeldError
	if _, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second}); !errors.As(err, &held) {
		t.Errorf("got %v, want it held", err)
	}
}

func TestPrefixIsolation(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	put(t, raw, "/service/batman2/leader", "x")
	put(t, raw, "/service/bat/leader", "x")
	put(t, raw, "/service/batman", "x")
	put(t, raw, "/service/batman/leader", "n1")
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	other := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman2/"})
	if _, err := other.Claim(soon(t), dcs.Lease{Holder: "n9", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	r, err := d.Read(soon(t))
	if err != nil || len(r.Nodes) != 1 || r.Nodes["leader"].Value != "n1" || r.Baton.Held() {
		t.Errorf("got %+v, %v; want batman's leader only", r, err)
	}
	put(t, raw, "/service/batman2/leader", "y")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Wait(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change in batman2 ended the wait: %v", err)
	}
}

func TestCompaction(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	old, err := d.Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		put(t, raw, "/elsewhere", "x")
	}
	now, err := raw.Get(soon(t), "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Compact(soon(t), now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := d.Wait(soon(t), old); err != nil {
		t.Errorf("wait from a compacted revision: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("wait from a compacted revision took %v", took)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := startServer(t, ca)
	c := Config{Endpoints: []string{s.url}, Prefix: "/service/batman/", CACert: ca.file, Cert: ca.member + ".crt", Key: ca.member + ".key"}
	d := open(t, c)
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(soon(t), l); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *Config){
		"no client certificate": func(c *Config) { c.Cert, c.Key = "", "" },
		"another authority":     func(c *Config) { c.CACert = newAuthority(t).file },
		"plain text":            func(c *Config) { c.Endpoints = []string{strings.Replace(s.url, "https", "http", 1)} },
	} {
		bad := c
		change(&bad)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if r, err := open(t, bad).Read(ctx); err == nil {
			t.Errorf("%s: read %+v", name, r)
		}
		cancel()
	}
}

// administrator turns authentication on, with one user who may do what Patroni's may.
func administrator(t *testing.T, raw *clientv3.Client) {
	t.Helper()
	steps := []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := raw.UserAdd(ctx, "root", "top secret"); return err },
		func(ctx context.Context) error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := raw.UserAdd(ctx, "patroni", "pa$s"); return err },
		func(ctx context.Context) error { _, err := raw.RoleAdd(ctx, "batman"); return err },
		func(ctx context.Context) error {
			_, err := raw.RoleGrantPermission(ctx, "batman", "/service/batman/", clientv3.GetPrefixRangeEnd("/service/batman/"),
				clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := raw.UserGrantRole(ctx, "patroni", "batman"); return err },
		func(ctx context.Context) error { _, err := raw.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		err := step(soon(t))
		if i == 1 && err != nil { // the role root has to be made first on old servers
			if _, err = raw.RoleAdd(soon(t), "root"); err == nil {
				err = step(soon(t))
			}
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	administrator(t, s.raw(t))
	c := Config{Endpoints: []string{s.url}, Prefix: "/service/batman/", Username: "patroni", Password: "pa$s"}
	d := open(t, c)
	var logins atomic.Int32
	d.config.DialOptions = append(d.config.DialOptions, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if strings.HasSuffix(method, "/Authenticate") {
				logins.Add(1)
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}))
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	everything := func() {
		t.Helper()
		if _, err := d.Claim(soon(t), l); err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(soon(t), "n1", "1", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		r, err := d.Read(soon(t))
		if err != nil || r.Baton.Holder != "n1" {
			t.Fatal(r, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := d.Wait(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for range 20 {
		everything()
	}
	// One for the client, one for each stream: two renewals and a watch that was cut once.
	if n := logins.Load(); n > 6 {
		t.Errorf("%d logins in 20 rounds", n)
	}
	s.Kill(t) // its login tokens are in memory only
	s.Start(t)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := d.Claim(soon(t), l)
		if err == nil {
			break
		}
		if time.Now().After(end) || errors.Is(err, dcs.ErrLost) {
			t.Fatalf("after the restart: %v", err)
		}
	}
	everything()
	if err := d.Release(soon(t), l); err != nil {
		t.Error(err)
	}

	for name, change := range map[string]func(c *Config){
		"wrong password": func(c *Config) { c.Password = "x" },
		"no user":        func(c *Config) { c.Username, c.Password = "", "" },
		"other scope":    func(c *Config) { c.Prefix = "/service/batman2/" },
	} {
		bad := c
		change(&bad)
		_, err := open(t, bad).Read(soon(t))
		if err == nil || strings.Contains(err.Error(), "pa$s") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Hang(t)
	defer s.Resume(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := open(t, c).Read(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Errorf("first call to a hung server: %v after %v", err, time.Since(start))
	}
}

// TestThreeServers takes one away, by a stop or a kill: the client finds the others.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	servers := make([]*server, 3)
	var cluster, urls []string
	for i := range servers {
		servers[i] = newServer(t, nil)
		cluster = append(cluster, servers[i].name()+"="+servers[i].peer)
		urls = append(urls, servers[i].url)
	}
	for _, s := range servers {
		s.args = append(s.args, "--initial-cluster", strings.Join(cluster, ","))
		s.launch(t)
	}
	for _, s := range servers {
		s.waitReady(t)
	}
	d := open(t, Config{Endpoints: urls, Prefix: "/service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	outages := map[string][2]func(s *server){
		"hung":   {func(s *server) { s.Hang(t) }, func(s *server) { s.Resume(t) }},
		"killed": {func(s *server) { s.Kill(t) }, func(s *server) { s.Start(t) }},
	}
	for name, o := range outages {
		for i, s := range servers {
			o[0](s)
			failed := 0
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
				if _, err := d.Claim(ctx, l); errors.Is(err, dcs.ErrLost) {
					t.Fatalf("server %d %s: %v", i, name, err)
				} else if err != nil {
					t.Log(err)
					failed++
				}
				cancel()
				time.Sleep(300 * time.Millisecond) // an election takes up to a second here
			}
			o[1](s)
			t.Logf("server %d %s: %d of 5 extensions failed", i, name, failed)
			if failed > 3 {
				t.Errorf("server %d %s: %d of 5 extensions failed", i, name, failed)
			}
		}
	}
}
