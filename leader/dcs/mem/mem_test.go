package mem_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/dcs/mem"
)

// bubble runs each test in virtual time.
func bubble(t *testing.T, test func(t *testing.T, s dcstest.Scope)) {
	synctest.Test(t, func(t *testing.T) {
		server := mem.New(time.Now)
		test(t, dcstest.Scope{
			Client: func(*testing.T) dcs.DCS { return server.Client() },
			Put:    func(_ *testing.T, key, value string) { server.Put(key, value) },
			Delete: func(_ *testing.T, key string) { server.Delete(key) },
			TTL:    time.Second,
			Slack:  time.Nanosecond,
		})
	})
}

func TestReader(t *testing.T) { dcstest.Reader(t, bubble) }
func TestLease(t *testing.T)  { dcstest.Lease(t, bubble) }
