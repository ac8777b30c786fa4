//go:build servers

package etcd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// server is one etcd process on free loopback ports.
type server struct {
	url  string
	peer string
	args []string
	tls  *dcstest.Authority
	dcstest.Process
}

// startServer runs Debian's etcd-server; a machine without it fails the test.
func startServer(t testing.TB, ca *dcstest.Authority, args ...string) *server {
	t.Helper()
	s := newServer(t, ca, args...)
	s.args = append(s.args, "--initial-cluster", s.name()+"="+s.peer)
	s.Start(t)
	return s
}

func newServer(t testing.TB, ca *dcstest.Authority, args ...string) *server {
	t.Helper()
	scheme := "http"
	if ca != nil {
		scheme = "https"
	}
	dir := t.TempDir()
	free := dcstest.FreeAddresses(t, 2)
	s := &server{url: scheme + "://" + free[0], peer: "http://" + free[1], tls: ca, Process: dcstest.Process{Log: filepath.Join(dir, "log")}}
	s.args = append([]string{
		"--name", s.name(), "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", s.url, "--advertise-client-urls", s.url,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer,
		"--heartbeat-interval", "50", "--election-timeout", "500", // lets leases be as short as 1 s
	}, args...)
	if ca != nil {
		s.args = append(s.args, "--cert-file", ca.Server+".crt", "--key-file", ca.Server+".key",
			"--trusted-ca-file", ca.File, "--client-cert-auth")
	}
	return s
}

func (s *server) name() string { return "t" + s.peer[strings.LastIndex(s.peer, ":")+1:] }

func (s *server) launch(t testing.TB) {
	t.Helper()
	s.Launch(t, "Debian's etcd-server", exec.Command("etcd", s.args...))
}

func (s *server) Start(t testing.TB) {
	t.Helper()
	s.launch(t)
	s.waitReady(t)
}

func (s *server) waitReady(t testing.TB) {
	t.Helper()
	client := &http.Client{Timeout: time.Second}
	if s.tls != nil {
		client.Transport = &http.Transport{TLSClientConfig: clientTLS(t, s.tls)}
	}
	defer client.CloseIdleConnections()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get(s.url + "/health")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if strings.Contains(string(body), `"health":"true"`) {
				return
			}
			err = fmt.Errorf("health: %s", body)
		}
		if time.Now().After(end) {
			t.Fatalf("etcd does not answer: %v\n%s", err, s.Said())
		}
	}
}

// raw is a client of the library, to play Patroni and the administrator.
func (s *server) raw(t *testing.T) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{Endpoints: []string{s.url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	if s.tls != nil {
		cfg.TLS = clientTLS(t, s.tls)
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
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

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// prefixOf gives each test a scope of its own.
func prefixOf(t *testing.T) string {
	return "/service/" + strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name()) + "/"
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(soon(t), key, value); err != nil {
		t.Fatal(err)
	}
}
