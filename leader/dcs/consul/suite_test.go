//go:build servers

package consul

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/leadertest"
)

// TestMain is for the child processes of TestFrozen.
func TestMain(m *testing.M) {
	leadertest.Main(m, func(c Config) (dcs.DCS, error) { return New(c) })
}

// on runs suites in scopes of one server.
func on(s *server, raw *api.Client) dcstest.Runner {
	return func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) { test(t, scope(t, s, raw)) }
}

// config is for clients that may do exactly what docs/dcs.md says.
func config(t *testing.T, s *server, raw *api.Client) Config {
	prefix := prefixOf(t)
	rules, _ := documented(t)
	token := mustToken(t, raw, strings.ReplaceAll(strings.Join(rules, "\n"), "service/batman/", prefix))
	return Config{Address: s.address, Prefix: prefix, Token: token}
}

func scope(t *testing.T, s *server, raw *api.Client) dcstest.Scope {
	c := config(t, s, raw)
	prefix := c.Prefix
	return dcstest.Scope{
		Client: func(t *testing.T) dcs.DCS { return open(t, c) },
		Put:    func(t *testing.T, key, value string) { put(t, raw, prefix+key, value) },
		Delete: func(t *testing.T, key string) {
			if _, err := raw.KV().Delete(prefix+key, writing(soon(t))); err != nil {
				t.Fatal(err)
			}
		},
		TTL:    time.Second,
		Slack:  3 * time.Second, // a session ends after two TTLs; a busy machine is slow
		Server: s,
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	dcstest.Reader(t, on(startWithACL(t)))
}

func TestLease(t *testing.T) {
	t.Parallel()
	dcstest.Lease(t, on(startWithACL(t)))
}

func TestOutage(t *testing.T) {
	t.Parallel()
	dcstest.Outage(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		s, raw := startWithACL(t)
		test(t, scope(t, s, raw))
	})
}

func TestCut(t *testing.T) {
	t.Parallel()
	s, raw := startWithACL(t)
	dcstest.Cut(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		c := config(t, s, raw)
		test(t, scope(t, s, raw).Through(t, s.address, func(t *testing.T, address string) dcs.DCS {
			c.Address = address
			return open(t, c)
		}))
	})
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	leadertest.Frozen(t, func(t *testing.T, test func(*testing.T, dcstest.Scope, Config)) {
		s, raw := startWithACL(t)
		test(t, scope(t, s, raw), config(t, s, raw))
	})
}
