//go:build servers

package kubernetes

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// counter is a proxy in front of the API server that writes down what passes.
type counter struct {
	mu   sync.Mutex
	seen []string
}

// through makes a client whose requests the counter sees.
func (c *counter) through(t *testing.T, n *namespace) *Client {
	t.Helper()
	target, err := url.Parse(n.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = n.Transport()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := map[string]string{"GET": "list", "POST": "create", "PUT": "update"}[r.Method]
		if r.URL.Query().Has("watch") {
			what = "watch"
		}
		c.mu.Lock()
		_, rest, _ := strings.Cut(r.URL.Path, "/namespaces/"+n.name+"/")
		resource, _, _ := strings.Cut(rest, "/")
		c.seen = append(c.seen, what+" "+resource)
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	cfg := n.config()
	cfg.Access.Server = front.URL
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// want checks, and forgets, what has been sent.
func (c *counter) want(t *testing.T, step string, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.seen)
	if !slices.Equal(c.seen, want) {
		t.Errorf("%s: %q, want %q", step, c.seen, want)
	}
	c.seen = nil
}

// requests are what the API server has to bear: three lists a reading, one write a renewal, and three
// watches for many waits.
func requests(t *testing.T, n *namespace) {
	var sent counter
	c := sent.through(t, n)
	kind := n.names().kind
	n.put(t, "leader", "n1")
	now := read(t, c)
	sent.want(t, "read", "list "+kind, "list leases", "list pods")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := c.Wait(ctx, now); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
	}
	sent.want(t, "three waits", "watch "+kind, "watch leases", "watch pods")
	l := claim(t, c, dcs.Lease{Holder: "n1", TTL: 30 * time.Second})
	sent.want(t, "claim", "create leases", "list leases")
	claim(t, c, l)
	sent.want(t, "extension", "update leases")
	if err := c.Release(soon(t), l); err != nil {
		t.Error(err)
	}
	sent.want(t, "release", "update leases")
	for i, want := range [][]string{{"create leases", "list leases"}, {"update leases"}} {
		if err := c.Announce(soon(t), "n1", "1", 30*time.Second); err != nil {
			t.Error(err)
		}
		sent.want(t, []string{"announce", "announce again"}[i], want...)
	}
}
