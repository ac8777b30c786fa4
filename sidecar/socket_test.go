package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAnswerer answers with functions, so that a test says in place what happens.
type fakeAnswerer struct {
	push  func(ctx context.Context, path string) Answer
	fetch func(ctx context.Context, name, dest string) Answer
}

func (f fakeAnswerer) Push(ctx context.Context, path string) Answer { return f.push(ctx, path) }
func (f fakeAnswerer) Fetch(ctx context.Context, name, dest string) Answer {
	return f.fetch(ctx, name, dest)
}

func (f fakeAnswerer) Explain(_ context.Context, name string) Answer {
	return Answer{0, "explain " + name}
}

func (f fakeAnswerer) Resolve(_ context.Context, request string) Answer {
	return Answer{2, "resolve " + request}
}

func (f fakeAnswerer) Expire(_ context.Context, request string) Answer {
	return Answer{2, "expire " + request}
}

func (f fakeAnswerer) Cleanup(_ context.Context, name string) Answer {
	return Answer{0, "cleanup " + name}
}

func echoAnswers() fakeAnswerer {
	return fakeAnswerer{
		push:  func(_ context.Context, path string) Answer { return Answer{0, "push " + path} },
		fetch: func(_ context.Context, name, dest string) Answer { return Answer{1, "fetch " + name + " to " + dest} },
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve runs a server until the test or stop ends it.
func serve(t *testing.T, a answerer) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "s")
	s, err := listenSocket(path, discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, a) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("serve does not return")
		}
	})
	t.Cleanup(stop)
	return path, stop
}

func dial(t *testing.T, path, request string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

func talk(t *testing.T, path, request string) string {
	t.Helper()
	got, err := io.ReadAll(dial(t, path, request))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestSocketRequests(t *testing.T) {
	path, _ := serve(t, echoAnswers())
	for request, want := range map[string]string{
		`"walbaton/1" "push" "pg_wal/0A" "/data"`:                         `0 "push /data/pg_wal/0A"`,
		`"walbaton/1" "push" "/data/pg_wal/0A" ""`:                        `0 "push /data/pg_wal/0A"`,
		`"walbaton/1" "push" "a b\"\\" "/d \x01"`:                         `0 "push /d \x01/a b\"\\"`,
		`"walbaton/1" "fetch" "00000002.history" "pg_wal/R" "/data"`:      `1 "fetch 00000002.history to /data/pg_wal/R"`,
		`"walbaton/1" "push" "pg_wal/0A" ""`:                              `-1 "read request: the path \"pg_wal/0A\" is relative`,
		`"walbaton/1" "push" "" "/data"`:                                  `-1 "read request: the path is empty"`,
		`"walbaton/2" "push" "pg_wal/0A" "/data"`:                         `-1 `,
		`"walbaton/1" "push" "pg_wal/0A"`:                                 `-1 `,
		`"walbaton/1"`:                                                    `-1 `,
		`walbaton/1 push`:                                                 `-1 `,
		``:                                                                `-1 `,
		`"walbaton/1" "explain" "00000002.history"`:                       `0 "explain 00000002.history"`,
		`"walbaton/1" "resolve" "{\"a\": 1}"`:                             `2 "resolve {\"a\": 1}"`,
		`"walbaton/1" "explain"`:                                          `-1 `,
		`"walbaton/1" "explain" "a" "b"`:                                  `-1 `,
		`"walbaton/1" "resolve" "{}" "/data"`:                             `-1 `,
		`"walbaton/1" "drop" "pg_wal/0A" "/data"`:                         `-1 `,
		`"walbaton/1" "push" "` + strings.Repeat("x", 8000) + `" "/data"`: `0 "push /data/xxx`,
	} {
		if got := talk(t, path, request+"\n"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\"\n") {
			t.Errorf("%.80s: got %.200q, want %.80q", request, got, want)
		}
	}
	if got, _ := io.ReadAll(dial(t, path, strings.Repeat("x", maxRequest+1))); len(got) > 0 { // the end may be a reset
		t.Errorf("a request without end: got %q, want nothing", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestSocketBeat(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, fakeAnswerer{push: func(ctx context.Context, _ string) Answer {
		if err := sleep(ctx, 2500*time.Millisecond); err != nil {
			return Answer{1, err.Error()}
		}
		return Answer{0, ""}
	}})
	if got, want := talk(t, path, `"walbaton/1" "push" "a" "/"`+"\n"), "..0 \"\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A client that is gone ends its call.
func TestSocketClientGone(t *testing.T) {
	ended := make(chan error, 1)
	path, _ := serve(t, fakeAnswerer{push: func(ctx context.Context, _ string) Answer {
		<-ctx.Done()
		ended <- ctx.Err()
		return Answer{1, ""}
	}})
	dial(t, path, `"walbaton/1" "push" "a" "/"`+"\n").Close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the call goes on")
	}
}

// When the sidecar stops, calls end and their clients hear it; an answer to a fetch that was cut short is
// no proof.
func TestSocketStops(t *testing.T) {
	started := make(chan bool, 10)
	wait := func(ctx context.Context) Answer {
		started <- true
		<-ctx.Done()
		return Answer{1, "stopping"}
	}
	path, stop := serve(t, fakeAnswerer{
		push:  func(ctx context.Context, _ string) Answer { return wait(ctx) },
		fetch: func(ctx context.Context, _, _ string) Answer { return wait(ctx) },
	})
	push := dial(t, path, `"walbaton/1" "push" "a" "/"`+"\n")
	fetch := dial(t, path, `"walbaton/1" "fetch" "a" "b" "/"`+"\n")
	silent := dial(t, path, "")
	<-started
	<-started
	silent.Close()
	stop()
	for c, want := range map[net.Conn]string{push: `1 "stopping"`, fetch: `-1 "stopping"`} {
		got, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || strings.TrimLeft(got, ".") != want+"\n" {
			t.Errorf("got %q (%v), want %q", got, err, want)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there (%v)", err)
	}
}

func TestSocketManyClients(t *testing.T) {
	path, _ := serve(t, echoAnswers())
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			got := talk(t, path, fmt.Sprintf("%q %q \"%d\" \"/\"\n", "walbaton/1", "push", i))
			if want := fmt.Sprintf("0 \"push /%d\"\n", i); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	clients.Wait()
}

func TestListenSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")

	// Left behind by a sidecar that died.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := listenSocket(path, discard())
	if err != nil {
		t.Fatalf("with a stale socket: %v", err)
	}
	if _, err := listenSocket(path, discard()); err == nil {
		t.Error("a second sidecar may listen")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	// Another program's socket, and a file.
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(path, discard()); err == nil {
		t.Error("another program's socket was taken")
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(path, discard()); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q (%v)", b, err)
	}
	_, err = listenSocket(filepath.Join(path, "s"), discard())
	if err == nil || !strings.Contains(explainError(err), "\n  make the folder "+path) {
		t.Errorf("below a file: got %v, want what to do", err)
	}
}

func TestCheckUID(t *testing.T) {
	for _, tc := range []struct {
		peer, own uint32
		ok        bool
	}{{0, 26, true}, {26, 26, true}, {27, 26, false}, {26, 0, false}, {0, 0, true}} {
		if err := checkUID(tc.peer, tc.own); (err == nil) != tc.ok {
			t.Errorf("user %d asks %d: %v, want ok %v", tc.peer, tc.own, err, tc.ok)
		}
	}
}
