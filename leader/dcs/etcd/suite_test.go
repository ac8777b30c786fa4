//go:build servers

package etcd

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/leadertest"
)

// TestMain is for the child processes of TestFrozen.
func TestMain(m *testing.M) {
	leadertest.Main(m, func(c Config) (dcs.DCS, error) { return New(c) })
}

// on runs suites in scopes of one server.
func on(s *server, raw *clientv3.Client) dcstest.Runner {
	return func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) { test(t, scope(t, s, raw)) }
}

func scope(t *testing.T, s *server, raw *clientv3.Client) dcstest.Scope {
	prefix := prefixOf(t)
	return dcstest.Scope{
		Client: func(t *testing.T) dcs.DCS {
			return open(t, Config{Endpoints: []string{s.url}, Prefix: prefix})
		},
		Put: func(t *testing.T, key, value string) { put(t, raw, prefix+key, value) },
		Delete: func(t *testing.T, key string) {
			if _, err := raw.Delete(soon(t), prefix+key); err != nil {
				t.Fatal(err)
			}
		},
		TTL:    time.Second,
		Slack:  2 * time.Second, // the server looks for ended leases twice a second
		Server: s,
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	dcstest.Reader(t, on(s, s.raw(t)))
}

func TestLease(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	dcstest.Lease(t, on(s, s.raw(t)))
}

func TestOutage(t *testing.T) {
	t.Parallel()
	dcstest.Outage(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		s := startServer(t, nil)
		test(t, scope(t, s, s.raw(t)))
	})
}

func TestCut(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	raw := s.raw(t)
	dcstest.Cut(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		prefix := prefixOf(t)
		test(t, scope(t, s, raw).Through(t, strings.TrimPrefix(s.url, "http://"), func(t *testing.T, address string) dcs.DCS {
			return open(t, Config{Endpoints: []string{"http://" + address}, Prefix: prefix})
		}))
	})
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	leadertest.Frozen(t, func(t *testing.T, test func(*testing.T, dcstest.Scope, Config)) {
		s := startServer(t, nil)
		test(t, scope(t, s, s.raw(t)), Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
	})
}
