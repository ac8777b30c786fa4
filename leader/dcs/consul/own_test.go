//go:build servers

package consul

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// TestTenSeconds is about a Consul as it comes: no session below 10 s, and none that ends before its TTL.
func TestTenSeconds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	d, other := open(t, Config{Address: s.address, Prefix: "service/batman/"}), open(t, Config{Address: s.address, Prefix: "service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 2 * time.Second})
	if err != nil || l.TTL != 10*time.Second {
		t.Fatalf("claimed %+v, %v; want a TTL of 10 s", l, err)
	}
	if err := d.Announce(soon(t), "n1", "1", time.Second); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	sent := time.Now()
	if got, err := d.Claim(soon(t), l); err != nil || got != l {
		t.Fatalf("extended to %+v, %v; want %+v", got, err, l)
	}
	for {
		r, err := other.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		if !r.Baton.Held() {
			break
		}
		if time.Since(sent) > 40*time.Second {
			t.Fatal("the baton does not run out")
		}
		time.Sleep(100 * time.Millisecond)
	}
	lived := time.Since(sent)
	t.Logf("the lease lived for %v", lived)
	if lived < 10*time.Second {
		t.Errorf("the lease lived for %v, want 10 s at least", lived)
	}
	next, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: 12 * time.Second})
	if err != nil || next.TTL != 12*time.Second || next.Epoch <= l.Epoch {
		t.Errorf("the next one got %+v, %v", next, err)
	}
	if _, err := d.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
		t.Errorf("a late extension: %v, want ErrLost", err)
	}
}

// TestEndedByHand ends a lease in the ways that an administrator has: the holder is told, and nothing revives it.
func TestEndedByHand(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	for name, by := range map[string]func(t *testing.T, l dcs.Lease, prefix string) error{
		"session": func(t *testing.T, l dcs.Lease, _ string) error {
			_, err := raw.Session().Destroy(l.Token, writing(soon(t)))
			return err
		},
		"key": func(t *testing.T, _ dcs.Lease, prefix string) error {
			_, err := raw.KV().Delete(prefix+batonKey, writing(soon(t)))
			return err
		},
		"patronictl remove": func(t *testing.T, _ dcs.Lease, prefix string) error {
			_, err := raw.KV().DeleteTree(prefix, writing(soon(t)))
			return err
		},
		"key written over": func(t *testing.T, l dcs.Lease, prefix string) error {
			kv := &api.KVPair{Key: prefix + batonKey, Session: l.Token}
			if _, _, err := raw.KV().Release(kv, writing(soon(t))); err != nil {
				return err
			}
			_, err := raw.KV().Put(&api.KVPair{Key: kv.Key, Value: []byte("\xff junk")}, writing(soon(t)))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, other := open(t, Config{Address: s.address, Prefix: prefixOf(t)}), open(t, Config{Address: s.address, Prefix: prefixOf(t)})
			l, err := d.Claim(soon(t), wanted())
			if err != nil {
				t.Fatal(err)
			}
			if err := by(t, l, prefixOf(t)); err != nil {
				t.Fatal(err)
			}
			if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
				t.Errorf("the baton is %+v, %v; want it free", r.Baton, err)
			}
			next, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
			if err != nil || next.Epoch <= l.Epoch {
				t.Fatalf("the next claim: %+v, %v", next, err)
			}
			if _, err := d.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
				t.Errorf("extension: %v, want ErrLost", err)
			}
			if err := d.Release(soon(t), l); err != nil {
				t.Error(err)
			}
			if got, err := other.Claim(soon(t), next); err != nil || got != next {
				t.Errorf("the successor's extension: %+v, %v", got, err)
			}
		})
	}
}

// TestRecordRemoved deletes all keys of the scope, as `patronictl remove` does: the record comes back.
func TestRecordRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	say := func() {
		t.Helper()
		if err := d.Announce(soon(t), "n1", "1", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	say()
	if _, err := s.raw(t).KV().DeleteTree("service/batman/", writing(soon(t))); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 1} { // the first reading notices
		r, err := d.Read(soon(t))
		if err != nil || len(r.Records) != want {
			t.Errorf("reading %d: records %v, %v; want %d", i, r.Records, err, want)
		}
		say()
	}
}

func TestJunk(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	id, _, err := raw.Session().CreateNoChecks(&api.SessionEntry{TTL: "60s"}, writing(soon(t)))
	if err != nil {
		t.Fatal(err)
	}
	kv := &api.KVPair{Key: "service/batman/walbaton/baton", Value: []byte("\xff\x00 not ours"), Session: id}
	if ok, _, err := raw.KV().Acquire(kv, writing(soon(t))); !ok || err != nil {
		t.Fatal(ok, err)
	}
	put(t, raw, "service/batman/walbaton/records/%zz", "junk")
	put(t, raw, "service/batman/walbaton/records/n9", "no session")
	put(t, raw, "service/batman/", "a folder of the web page")
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	r, err := d.Read(soon(t))
	if err != nil || !r.Baton.Held() || len(r.Records)+len(r.Nodes) != 0 {
		t.Errorf("got %+v, %v; want a held baton and nothing else", r, err)
	}
	if _, err := d.Claim(soon(t), wanted()); !errors.As(err, new(*dcs.HeldError)) {
		t.Errorf("got %v, want it held", err)
	}
	if err := d.Announce(soon(t), "n9", "1", time.Minute); err != nil {
		t.Error(err)
	}
	if r, err := d.Read(soon(t)); err != nil || r.Records["n9"].Value != "1" {
		t.Errorf("records %v, %v", r.Records, err)
	}
}

func TestPrefixIsolation(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	put(t, raw, "service/batman2/leader", "x")
	put(t, raw, "service/bat/leader", "x")
	put(t, raw, "service/batman", "x")
	put(t, raw, "service/batman/leader", "n1")
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	other := open(t, Config{Address: s.address, Prefix: "service/batman2/"})
	if _, err := other.Claim(soon(t), dcs.Lease{Holder: "n9", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	r, err := d.Read(soon(t))
	if err != nil || len(r.Nodes) != 1 || r.Nodes["leader"].Value != "n1" || r.Baton.Held() {
		t.Errorf("got %+v, %v; want batman's leader only", r, err)
	}
	put(t, raw, "service/batman2/leader", "y")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Wait(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change in batman2 ended the wait: %v", err)
	}
}

// TestIndexGoesBack waits from an index that the servers do not have yet, as after they were restored from a backup.
func TestIndexGoesBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	put(t, raw, "service/batman/leader", "n1")
	now, err := d.Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	now.Revision += "000"
	done := make(chan error, 1)
	go func() { done <- d.Wait(soon(t), now) }()
	time.Sleep(300 * time.Millisecond)
	put(t, raw, "service/batman/leader", "n2")
	if err := <-done; err != nil { // at the latest after the idle time
		t.Error(err)
	}
}

// TestLeaderToken plays Patroni's leader key: each tenure is a creation of its own, also of the same member.
func TestLeaderToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	tokens := map[uint64]bool{}
	var last dcs.Node
	for round, gone := range []string{"expires", "is given back", ""} {
		id, _, err := raw.Session().CreateNoChecks(&api.SessionEntry{TTL: "1s", Behavior: api.SessionBehaviorDelete, LockDelay: lockDelay}, writing(soon(t)))
		if err != nil {
			t.Fatal(err)
		}
		kv := &api.KVPair{Key: "service/batman/leader", Value: []byte("n1"), Session: id}
		if ok, _, err := raw.KV().Acquire(kv, writing(soon(t))); !ok || err != nil {
			t.Fatal(ok, err)
		}
		r, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		n := r.Nodes["leader"]
		if n.Value != "n1" || tokens[n.Token] || n.Version <= last.Version {
			t.Errorf("round %d: %+v after %+v, want another token and a higher version", round, n, last)
		}
		tokens[n.Token], last = true, n
		if gone == "is given back" {
			if ok, _, err := raw.KV().DeleteCAS(&api.KVPair{Key: kv.Key, ModifyIndex: n.Version}, writing(soon(t))); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		for end := time.Now().Add(10 * time.Second); gone != ""; time.Sleep(50 * time.Millisecond) {
			if r, err := d.Read(soon(t)); err != nil || time.Now().After(end) {
				t.Fatal(r, err)
			} else if _, there := r.Nodes["leader"]; !there {
				break
			}
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := dcstest.NewAuthority(t)
	s := newServer(t, quick, `tls { defaults { verify_incoming = true ca_file = "`+ca.File+`" cert_file = "`+ca.Server+`.crt" key_file = "`+ca.Server+`.key" } }`)
	s.address, s.tls = s.secure, ca
	s.args = append(s.args, "-https-port", port(s.address))
	s.Start(t)
	c := Config{Address: s.address, Scheme: "https", Prefix: "service/batman/", CACert: ca.File, Cert: ca.Member + ".crt", Key: ca.Member + ".key"}
	use := func(name string, c Config) {
		t.Helper()
		d := open(t, c)
		l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 5 * time.Second})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := d.Claim(soon(t), l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := d.Release(soon(t), l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	use("all three files", c)
	unchecked := c
	unchecked.CACert, unchecked.Insecure = "", true
	use("verify off", unchecked)
	both := c
	both.Cert, both.Key = ca.Member+".pem", ""
	use("certificate and key in one file", both)
	for name, change := range map[string]func(c *Config){
		"no client certificate":                func(c *Config) { c.Cert, c.Key = "", "" },
		"another authority":                    func(c *Config) { c.CACert = dcstest.NewAuthority(t).File },
		"another authority, and verify off":    func(c *Config) { c.CACert, c.Insecure = dcstest.NewAuthority(t).File, true },
		"no authority":                         func(c *Config) { c.CACert = "" },
		"plain text":                           func(c *Config) { c.Scheme = "http" },
		"another name than in the certificate": func(c *Config) { c.Address = "localhost:" + port(c.Address) },
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

// TestASCII looks at the bytes: Patroni demotes the primary when it cannot decode a value below its scope.
func TestASCII(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	const odd = "größe \U0001f418\xff/..\n"
	l, err := d.Claim(soon(t), dcs.Lease{Holder: odd, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{`{"v":1}`, `{"v":2}`} {
		if err := d.Announce(soon(t), odd, v, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	pairs, _, err := s.raw(t).KV().List("", (&api.QueryOptions{}).WithContext(soon(t)))
	if err != nil || len(pairs) != 2 {
		t.Fatalf("%v, %v; want two keys", pairs, err)
	}
	for _, kv := range pairs {
		key := strings.TrimPrefix(kv.Key, "service/batman/walbaton/")
		if dcs.CheckValue(key) != nil || dcs.CheckValue(string(kv.Value)) != nil || strings.Count(key, "/") > 1 {
			t.Errorf("key %q, value %q", kv.Key, kv.Value)
		}
		if kv.Session == "" {
			t.Errorf("key %q has no session", kv.Key)
		}
	}
	if pairs[0].Session == pairs[1].Session {
		t.Error("baton and record hang on one session")
	}
	for _, id := range []string{l.Token, d.announced.get().session} {
		se, _, err := s.raw(t).Session().Info(id, (&api.QueryOptions{}).WithContext(soon(t)))
		if err != nil || se == nil || se.Behavior != "delete" || se.LockDelay != time.Millisecond || len(se.NodeChecks)+len(se.ServiceChecks) != 0 {
			t.Errorf("session %+v, %v; want behavior delete, a lock delay of 1 ms and no checks", se, err)
		}
	}
}

// TestCloseEndsAll does not run beside others: it counts goroutines.
func TestCloseEndsAll(t *testing.T) {
	s := startServer(t, quick)
	before := runtime.NumGoroutine()
	for range 5 {
		d, err := New(Config{Address: s.address, Prefix: "service/batman/"})
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.Claim(soon(t), wanted())
		if err != nil {
			t.Fatal(err)
		}
		now, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		d.Wait(ctx, now)
		cancel()
		if err := errors.Join(d.Release(soon(t), l), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

type counter struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// TestRequests counts: an idle sidecar's renewals and an unchanged record cost one or two requests each.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	d := open(t, Config{Address: s.address, Prefix: "service/batman/"})
	n := &counter{RoundTripper: d.http.Transport}
	d.http.Transport = n
	l, err := d.Claim(soon(t), wanted())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(soon(t), "n1", "1", time.Minute); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		most int64
		call func() error
	}{
		"Read":               {1, func() error { _, err := d.Read(soon(t)); return err }},
		"extend":             {2, func() error { _, err := d.Claim(soon(t), l); return err }},
		"Announce unchanged": {1, func() error { return d.Announce(soon(t), "n1", "1", time.Minute) }},
	} {
		n.n.Store(0)
		if err := c.call(); err != nil || n.n.Load() != c.most {
			t.Errorf("%s: %v, %d requests, want %d", name, err, n.n.Load(), c.most)
		}
	}
	n.n.Store(0)
	if err := d.Announce(soon(t), "n1", "2", time.Minute); err != nil || n.n.Load() != 2 {
		t.Errorf("Announce changed: %v, %d requests, want 2", err, n.n.Load())
	}
}
