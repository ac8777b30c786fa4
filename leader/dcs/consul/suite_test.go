//go:build servers

package consul

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// on runs suites in scopes of one server.
func on(s *server, raw *api.Client) dcstest.Runner {
	return func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) { test(t, scope(t, s, raw)) }
}

func scope(t *testing.T, s *server, raw *api.Client) dcstest.Scope {
	prefix := prefixOf(t)
	return dcstest.Scope{
		Client: func(t *testing.T) dcs.DCS {
			return open(t, Config{Address: s.address, Prefix: prefix})
		},
		Put: func(t *testing.T, key, value string) { put(t, raw, prefix+key, value) },
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
	s := startServer(t, quick)
	dcstest.Reader(t, on(s, s.raw(t)))
}

func TestLease(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	dcstest.Lease(t, on(s, s.raw(t)))
}

func TestOutage(t *testing.T) {
	t.Parallel()
	dcstest.Outage(t, func(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
		s := startServer(t, quick)
		test(t, scope(t, s, s.raw(t)))
	})
}
