//go:build servers

package kubernetes

import (
	"strings"
	"testing"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/leadertest"
)

// TestMain is for the child processes of TestFrozen.
func TestMain(m *testing.M) {
	leadertest.Main(m, func(c Config) (dcs.DCS, error) { return New(c) })
}

// Modes of Patroni's: the kind of its objects.
var modes = []struct {
	name      string
	endpoints bool
}{{"endpoints", true}, {"configmaps", false}}

// TestKubernetes runs on one API server whatever leaves it alone.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	t.Run("all", func(t *testing.T) { // ends when its parallel tests do
		for _, m := range modes {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				runner := func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
					test(t, s.namespace(t, m.endpoints).scope())
				}
				t.Run("reader", func(t *testing.T) { t.Parallel(); dcstest.Reader(t, runner) })
				t.Run("lease", func(t *testing.T) { t.Parallel(); dcstest.Lease(t, runner) })
				each(t, s, m.endpoints, map[string]func(*testing.T, *namespace){
					"a leader ages by our own clock": leaderAges, "Patroni's objects": patronisObjects, "Citus": citus,
					"permissions": permissions, "a watch ends": watchEnds, "requests": requests,
				})
			})
		}
		each(t, s, true, map[string]func(*testing.T, *namespace){ // without Patroni's objects
			"a client that starts waits": freshClient, "a Lease is tampered with": leaseTampered,
			"renewals are quiet": renewalsAreQuiet, "a token rotates": tokenRotates,
		})
	})
}

func each(t *testing.T, s *server, endpoints bool, tests map[string]func(*testing.T, *namespace)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, s.namespace(t, endpoints)) })
	}
}

// TestOutage stops and kills one API server again and again.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	t.Run("an extension that is handled late", func(t *testing.T) { lateExtension(t, s.namespace(t, true)) })
	t.Run("a revision that is gone", func(t *testing.T) { tooOld(t, s.namespace(t, false)) })
	dcstest.Outage(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) { test(t, s.namespace(t, true).scope()) })
}

func TestCut(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dcstest.Cut(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		n := s.namespace(t, true)
		test(t, n.scope().Through(t, strings.TrimPrefix(s.URL, "https://"), func(t *testing.T, address string) dcs.DCS {
			c := n.config()
			c.Access.Server = "https://" + address
			return open(t, c)
		}))
	})
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	leadertest.Frozen(t, func(t *testing.T, test func(*testing.T, dcstest.Scope, Config)) {
		n := startServer(t).namespace(t, true)
		test(t, n.scope(), n.config())
	})
}
