//go:build servers

package zookeeper

import (
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/leadertest"
)

// TestMain is for the child processes of TestFrozen.
func TestMain(m *testing.M) {
	leadertest.Main(m, func(c Config) (dcs.DCS, error) { return New(c) })
}

// on runs suites in scopes of one server.
func on(s *server, r raw) dcstest.Runner {
	return func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) { test(t, scope(t, s, r)) }
}

func scope(t *testing.T, s *server, r raw) dcstest.Scope {
	prefix := prefixOf(t)
	return dcstest.Scope{
		Client: func(t *testing.T) dcs.DCS { return open(t, Config{Hosts: []string{s.address}, Prefix: prefix}) },
		Put:    func(t *testing.T, key, value string) { r.put(t, prefix+key, value) },
		Delete: func(t *testing.T, key string) { r.remove(t, prefix+key) },
		TTL:    1500 * time.Millisecond,
		Slack:  1500 * time.Millisecond,
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
	r := s.raw(t)
	dcstest.Cut(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		prefix := prefixOf(t)
		test(t, scope(t, s, r).Through(t, s.address, func(t *testing.T, address string) dcs.DCS {
			return open(t, Config{Hosts: []string{address}, Prefix: prefix})
		}))
	})
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	leadertest.Frozen(t, func(t *testing.T, test func(*testing.T, dcstest.Scope, Config)) {
		s := startServer(t, nil)
		test(t, scope(t, s, s.raw(t)), Config{Hosts: []string{s.address}, Prefix: prefixOf(t)})
	})
}
