package main

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := func() string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	n := notifier{discard()}
	n.Ready() // without systemd: nothing
	n.Watch(t.Context(), func() bool { t.Error("watched without a watchdog"); return true })

	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(90_000))
	n.Ready()
	if got, want := next(), "READY=1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	looks := 0
	go func() {
		defer close(done)
		n.Watch(ctx, func() bool { looks++; return looks%2 == 0 })
	}()
	for range 2 {
		if got, want := next(), "WATCHDOG=1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	<-done
	if looks < 4 {
		t.Errorf("fed the watchdog after %d looks, want one in two", looks)
	}
	n.Stopping()
	for got := next(); got != "STOPPING=1"; got = next() {
		if got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
}
