package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestWeb(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := listenWeb(ctx, "127.0.0.1:0", discard())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenWeb(ctx, s.Address(), discard()); err == nil {
		t.Error("a taken port is no error")
	}
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_test_total"})
	registry.MustRegister(counter)
	ready := make(chan error, 1)
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(ctx, webSources{registry, func() error { return <-ready }, func() any { return map[string]int{"timeline": 3} }})
	}()
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
		{"/nothing", nil, 404, ""},
	} {
		if tc.path == "/readyz" {
			ready <- tc.ready
		}
		code, body := get(t, "http://"+s.Address()+tc.path)
		if code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d %q, want %d %q", tc.path, code, body, tc.code, tc.want)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("serve does not return")
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}
