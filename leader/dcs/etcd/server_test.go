//go:build servers

package etcd

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// server is one etcd process on free loopback ports.
type server struct {
	url  string
	peer string
	args []string
	log  string
	tls  *authority
	cmd  *exec.Cmd
}

// startServer runs Debian's etcd-server; a machine without it fails the test.
func startServer(t testing.TB, ca *authority, args ...string) *server {
	t.Helper()
	s := newServer(t, ca, args...)
	s.args = append(s.args, "--initial-cluster", s.name()+"="+s.peer)
	s.Start(t)
	return s
}

func newServer(t testing.TB, ca *authority, args ...string) *server {
	t.Helper()
	scheme := "http"
	if ca != nil {
		scheme = "https"
	}
	dir := t.TempDir()
	s := &server{url: scheme + "://" + freeAddress(t), peer: "http://" + freeAddress(t), log: filepath.Join(dir, "log"), tls: ca}
	s.args = append([]string{
		"--name", s.name(), "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", s.url, "--advertise-client-urls", s.url,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer,
		"--heartbeat-interval", "50", "--election-timeout", "500", // lets leases be as short as 1 s
	}, args...)
	if ca != nil {
		s.args = append(s.args, "--cert-file", ca.server+".crt", "--key-file", ca.server+".key",
			"--trusted-ca-file", ca.file, "--client-cert-auth")
	}
	return s
}

func (s *server) name() string { return "t" + s.peer[strings.LastIndex(s.peer, ":")+1:] }

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) launch(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("etcd", s.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start etcd (Debian's etcd-server): %v", err)
	}
	s.cmd = cmd
	t.Cleanup(func() {
		if s.cmd == cmd {
			s.Kill(t)
		}
	})
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
		client.Transport = &http.Transport{TLSClientConfig: s.tls.client(t)}
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
			log, _ := os.ReadFile(s.log)
			t.Fatalf("etcd does not answer: %v\n%s", err, log)
		}
	}
}

func (s *server) Kill(t testing.TB) {
	s.cmd.Process.Kill()
	s.cmd.Wait() // says that it was killed
	s.cmd = nil
}

// Hang returns when every thread has stopped: the signal takes its time.
func (s *server) Hang(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	running := func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		if err != nil || len(tasks) == 0 {
			t.Fatalf("no threads of etcd: %v", err)
		}
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if err == nil && !strings.Contains(string(stat), ") T ") {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(10 * time.Second); running(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("etcd does not stop")
		}
	}
}

func (s *server) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// raw is a client of the library, to play Patroni and the administrator.
func (s *server) raw(t *testing.T) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{Endpoints: []string{s.url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	if s.tls != nil {
		cfg.TLS = s.tls.client(t)
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
