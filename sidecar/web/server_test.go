package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// still is a source with nothing to say but one thing.
func still() Sources {
	never := make(chan struct{})
	return Sources{
		Gatherer: prometheus.NewRegistry(),
		Ready:    func() error { return nil },
		Status:   func() any { return map[string]int{"timeline": 3} },
		Cluster:  func(context.Context) any { return map[string]string{"asked": "n1"} },
		Changed:  func() <-chan struct{} { return never },
	}
}

// serve starts a server on loopback, and ends it with the test.
func serve(t *testing.T, src Sources, o Options) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(l, o, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, src) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("serve does not return")
		}
	})
	t.Cleanup(stop)
	return s.Address(), stop
}

func get(t *testing.T, url, name, password string) (code int, h http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		req.SetBasicAuth(name, password)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, r.Header, string(b)
}

func TestWeb(t *testing.T) {
	src := still()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_test_total"}))
	ready := make(chan error, 1)
	src.Gatherer, src.Ready = registry, func() error { return <-ready }
	at, _ := serve(t, src, Options{})
	for _, tc := range []struct {
		path  string
		ready error
		code  int
		want  string
	}{
		{"/livez", nil, 200, "alive\n"},
		{"/readyz", nil, 200, "ready\n"},
		{"/readyz", errors.New("the archive does not answer: refused"), 503, "the archive does not answer: refused\n"},
		{"/metrics", nil, 200, "walbaton_test_total 0\n"},
		{"/status.json", nil, 200, "{\n  \"timeline\": 3\n}\n"},
		{"/cluster.json", nil, 200, "{\n  \"asked\": \"n1\"\n}\n"},
		{"/", nil, 200, "<h1 id=\"headline\">"},
		{"/nothing", nil, 404, ""},
		{"/index.html", nil, 404, ""},
	} {
		if tc.path == "/readyz" {
			ready <- tc.ready
		}
		code, _, body := get(t, "http://"+at+tc.path, "", "")
		if code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d %.200q, want %d %q", tc.path, code, body, tc.code, tc.want)
		}
	}
	r, err := http.Post("http://"+at+"/status.json", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want 405", r.StatusCode)
	}
}

// Probes have no password; everything else asks for it, and who has none is not told why a node is not ready.
func TestPassword(t *testing.T) {
	src := still()
	src.Ready = func() error { return errors.New("the archive at secret.example does not answer") }
	at, _ := serve(t, src, Options{Username: "dba", Password: "wal:baton"})
	for _, path := range []string{"/", "/events", "/cluster.json", "/status.json", "/metrics"} {
		for _, as := range [][2]string{{"", ""}, {"dba", "wal"}, {"dba", ""}, {"DBA", "wal:baton"}, {"db", "awal:baton"}} {
			code, h, body := get(t, "http://"+at+path, as[0], as[1])
			if code != http.StatusUnauthorized || !strings.HasPrefix(h.Get("WWW-Authenticate"), "Basic ") || strings.Contains(body, "n1") {
				t.Errorf("%s as %v: got %d %q", path, as, code, body)
			}
		}
		if path == "/events" {
			continue // it does not end
		}
		if code, _, _ := get(t, "http://"+at+path, "dba", "wal:baton"); code != http.StatusOK {
			t.Errorf("%s with the password: got %d", path, code)
		}
	}
	if code, _, _ := get(t, "http://"+at+"/livez", "", ""); code != http.StatusOK {
		t.Errorf("/livez without the password: got %d", code)
	}
	if code, _, body := get(t, "http://"+at+"/readyz", "", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "secret") {
		t.Errorf("/readyz without the password: got %d %q", code, body)
	}
	if code, _, body := get(t, "http://"+at+"/readyz", "dba", "wal:baton"); code != http.StatusServiceUnavailable || !strings.Contains(body, "secret") {
		t.Errorf("/readyz with the password: got %d %q", code, body)
	}
}

// A page that is open does not hold up the end, and gets events beyond the time that a request may take to be read.
func TestEventsOverHTTP(t *testing.T) {
	at, stop := serve(t, still(), Options{})
	r, err := http.Get("http://" + at + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got := r.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewScanner(r.Body)
	var got []string
	for len(got) < 4 && lines.Scan() {
		if lines.Text() != "" {
			got = append(got, lines.Text())
		}
	}
	want := []string{"retry: 2000", "event: cluster", `data: {"asked":"n1"}`, "event: cluster"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the end took %v", took)
	}
}
