//go:build servers

package consul

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// server is one durable Consul server on free loopback ports.
type server struct {
	address string
	secure  string // another one, for https
	args    []string
	tls     *dcstest.Authority
	token   string // that may do all
	dcstest.Process
}

// quick lets sessions be as short as a second.
const quick = `session_ttl_min = "1s"`

// startServer runs the Consul that .ci/build-tools built; a machine without it fails the test.
// config is HCL.
func startServer(t testing.TB, config ...string) *server {
	t.Helper()
	s := newServer(t, config...)
	s.Start(t)
	return s
}

func newServer(t testing.TB, config ...string) *server {
	t.Helper()
	dir, free := t.TempDir(), dcstest.FreeAddresses(t, 4)
	s := &server{address: free[0], secure: free[3], Process: dcstest.Process{Log: filepath.Join(dir, "log")}}
	// A restarted server must find itself at the same address: these ports stay.
	s.args = []string{"agent", "-server", "-bootstrap-expect=1", "-node", "test", "-data-dir", filepath.Join(dir, "data"), "-log-level", "warn",
		"-bind", "127.0.0.1", "-client", "127.0.0.1", "-http-port", port(s.address), "-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1",
		"-server-port", port(free[1]), "-serf-lan-port", port(free[2]), "-serf-wan-port", "-1",
		"-hcl", `connect { enabled = false } disable_update_check = true performance { raft_multiplier = 1 } leave_on_terminate = false`}
	for _, c := range config {
		s.args = append(s.args, "-hcl", c)
	}
	return s
}

func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

func (s *server) Start(t testing.TB) {
	t.Helper()
	s.Launch(t, ".ci/build-tools", exec.Command(dcstest.Tool(t, "consul@v1.22.5"), s.args...))
	s.waitReady(t)
}

// waitReady waits for a leader that knows its own node: sessions belong to one.
func (s *server) waitReady(t testing.TB) {
	t.Helper()
	raw := s.raw(t)
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		id, _, err := raw.Session().CreateNoChecks(&api.SessionEntry{TTL: "10s"}, writing(ctx))
		if err == nil {
			_, err = raw.Session().Destroy(id, writing(ctx))
		}
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("consul does not answer: %v\n%s", err, s.Said())
		}
	}
}

// raw is a client of the library that may do all, to play Patroni and the administrator.
func (s *server) raw(t testing.TB) *api.Client {
	t.Helper()
	cfg := &api.Config{Address: s.address, Scheme: "http", Token: s.token, HttpClient: &http.Client{Transport: &http.Transport{}}}
	if s.tls != nil {
		cfg.Scheme = "https"
		cfg.HttpClient.Transport = &http.Transport{TLSClientConfig: clientTLS(t, s.tls)}
	}
	c, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cfg.HttpClient.CloseIdleConnections)
	return c
}

// open makes a client of ours that is closed at the end.
func open(t *testing.T, c Config) *Client {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// prefixOf gives each test a scope of its own.
func prefixOf(t *testing.T) string {
	return "service/" + strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()) + "/"
}

func put(t *testing.T, c *api.Client, key, value string) {
	t.Helper()
	// Consul does not carry out a write that changes nothing: the flags make it one that does.
	p := &api.KVPair{Key: key, Value: []byte(value), Flags: uint64(time.Now().UnixNano())}
	if _, err := c.KV().Put(p, writing(soon(t))); err != nil {
		t.Fatal(err)
	}
}
