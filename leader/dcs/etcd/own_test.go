//go:build servers

package etcd

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/patroni"
)

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

// TestCitusGroups: the groups of one scope do not see each other, though the coordinator's Patroni reads them all.
func TestCitusGroups(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	prefixes := []string{"/service/demo/0/", "/service/demo/1/", "/service/demo/10/", "/service/demo/"} // the last is no group
	clients := make([]*Client, len(prefixes))
	for i, prefix := range prefixes {
		member := "n" + strings.Trim(prefix[len("/service/demo/"):], "/")
		put(t, raw, prefix+"leader", member)
		put(t, raw, prefix+"members/"+member, `{"role":"primary"}`)
		clients[i] = open(t, Config{Endpoints: []string{s.url}, Prefix: prefix})
		if _, err := clients[i].Claim(soon(t), dcs.Lease{Holder: member, TTL: time.Minute}); err != nil {
			t.Fatalf("%s: a baton for each group: %v", prefix, err)
		}
		if err := clients[i].Announce(soon(t), member, "{}", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for i, prefix := range prefixes {
		r, err := clients[i].Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		member := r.Nodes["leader"].Value
		c, err := patroni.Parse(r.Nodes)
		if err != nil || len(c.Warnings) != 0 || c.Leader != member || len(c.Members) != 1 || c.Members[member].Role != "primary" {
			t.Errorf("%s: %+v, %v", prefix, c, err)
		}
		if len(r.Records) != 1 || r.Records[member].Value != "{}" || r.Baton.Holder != member {
			t.Errorf("%s: records %v, baton %+v", prefix, r.Records, r.Baton)
		}
	}
	now, err := clients[1].Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	put(t, raw, "/service/demo/0/leader", "x")
	put(t, raw, "/service/demo/10/leader", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := clients[1].Wait(ctx, now); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change in another group ended the wait: %v", err)
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
	ca := dcstest.NewAuthority(t)
	s := startServer(t, ca)
	c := Config{Endpoints: []string{s.url}, Prefix: "/service/batman/", CACert: ca.File, Cert: ca.Member + ".crt", Key: ca.Member + ".key"}
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
		"another authority":     func(c *Config) { c.CACert = dcstest.NewAuthority(t).File },
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

// TestASCII looks at the bytes: Patroni demotes the primary when it cannot decode a key or
// value below its scope.
func TestASCII(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	d := open(t, Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	const odd = "größe \U0001f418\xff/\n"
	if _, err := d.Claim(soon(t), dcs.Lease{Holder: odd, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(soon(t), odd, `{"v":1}`, time.Minute); err != nil {
		t.Fatal(err)
	}
	r, err := s.raw(t).Get(soon(t), "", clientv3.WithPrefix())
	if err != nil || len(r.Kvs) != 2 {
		t.Fatalf("%v, %v; want two keys", r, err)
	}
	for _, kv := range r.Kvs {
		key := strings.TrimPrefix(string(kv.Key), "/service/batman/walbaton/")
		if dcs.CheckValue(key) != nil || dcs.CheckValue(string(kv.Value)) != nil || strings.Count(key, "/") > 1 {
			t.Errorf("key %q, value %q", kv.Key, kv.Value)
		}
		if kv.Lease == 0 {
			t.Errorf("key %q has no lease", kv.Key)
		}
	}
	if r.Kvs[0].Lease == r.Kvs[1].Lease {
		t.Error("baton and record hang on one lease")
	}
}

// TestCloseEndsAll does not run beside others: it counts goroutines.
func TestCloseEndsAll(t *testing.T) {
	s := startServer(t, nil)
	before := runtime.NumGoroutine()
	for range 5 {
		d, err := New(Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Claim(soon(t), l); err != nil {
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
		if _, err := d.Read(soon(t)); err == nil {
			t.Error("a closed client reads")
		}
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	s := startServer(b, nil)
	d, err := New(Config{Endpoints: []string{s.url}, Prefix: "/service/batman/"})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	ctx := b.Context()
	l, err := d.Claim(ctx, dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	calls := map[string]func() error{
		"Read":               func() error { _, err := d.Read(ctx); return err },
		"Extend":             func() error { _, err := d.Claim(ctx, l); return err },
		"Announce unchanged": func() error { return d.Announce(ctx, "n1", "1", time.Minute) },
		"Announce another":   func() error { return d.Announce(ctx, "n1", time.Now().String()[:27], time.Minute) },
	}
	for name, call := range calls {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
