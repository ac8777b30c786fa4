package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build makes the program as it is shipped, alone in a folder.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "walbaton-wal")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// sidecar answers every connection with talk, and hands over the request lines.
func sidecar(t *testing.T, talk func(c net.Conn)) (socket string, requests chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	requests = make(chan string, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			requests <- line
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket, requests
}

func say(s string) func(net.Conn) {
	return func(c net.Conn) { _, _ = c.Write([]byte(s)) }
}

type result struct {
	code   int // -1: ended by a signal
	stderr string
}

func start(t *testing.T, bin, dir string, env []string, args ...string) result {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	cmd.Env = append([]string{}, env...) // nil would inherit ours
	_ = cmd.Run()
	return result{cmd.ProcessState.ExitCode(), stderr.String()}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	bin := build(t)
	for name, tc := range map[string]struct {
		talk        string
		push, fetch int
		stderr      string
	}{
		"stored":           {"0 \"\"\n", 0, 0, ""},
		"after dots":       {"....0 \"\"\n", 0, 0, ""},
		"with a message":   {"..1 \"not yet:\\twait\"\n", 1, 1, "walbaton-wal: not yet:\twait\n"},
		"above 125":        {"200 \"archive \\\"a\\\" down\"\n", 1, 200, "walbaton-wal: archive \"a\" down\n"},
		"cannot answer":    {"-1 \"stopping\"\n", 1, 200, "walbaton-wal: stopping\n"},
		"junk":             {"hello\n", 1, 200, "does not understand"},
		"code out of byte": {"300 \"\"\n", 1, 200, ""},
		"half a line":      {"0 \"", 1, 200, "hung up without an answer"},
		"nothing":          {"", 1, 200, "hung up without an answer"},
	} {
		t.Run(name, func(t *testing.T) {
			socket, requests := sidecar(t, say(tc.talk))
			dir := t.TempDir()
			write(t, filepath.Join(dir, "recovery.signal"))
			for verb, want := range map[string]int{"push": tc.push, "fetch": tc.fetch} {
				args := []string{verb, "--socket", socket, "pg_wal/x y"}
				line := `"walbaton/1" "push" "pg_wal/x y" "` + dir + "\"\n"
				if verb == "fetch" {
					args = []string{verb, "--socket=" + socket, "f", "pg_wal/r"}
					line = `"walbaton/1" "fetch" "f" "pg_wal/r" "` + dir + "\"\n"
				}
				got := start(t, bin, dir, nil, args...)
				if got.code != want {
					t.Errorf("%s: exit %d, want %d (%s)", verb, got.code, want, got.stderr)
				}
				if !strings.Contains(got.stderr, tc.stderr) {
					t.Errorf("%s: stderr %q, want %q", verb, got.stderr, tc.stderr)
				}
				if request := <-requests; request != line {
					t.Errorf("%s: request %q, want %q", verb, request, line)
				}
			}
		})
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Without a sidecar and without walbaton, what fetch says depends on what PostgreSQL would
// make of "not there" (DESIGN section 8).
func TestFetchAlone(t *testing.T) {
	t.Parallel()
	bin := build(t)
	for name, tc := range map[string]struct {
		files []string
		want  int
	}{
		"pg_rewind":             {nil, 1},
		"recovery":              {[]string{"recovery.signal"}, 200},
		"standby":               {[]string{"standby.signal"}, 1},
		"standby with recovery": {[]string{"recovery.signal", "standby.signal"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range tc.files {
				write(t, filepath.Join(dir, f))
			}
			for _, args := range [][]string{
				{"fetch", "--socket", filepath.Join(dir, "none"), "f", "pg_wal/r"},
				{"fetch", "f"},
				{"fetch", "--sockt", "x", "f", "p"},
			} {
				if got := start(t, bin, dir, nil, args...); got.code != tc.want || strings.Count(got.stderr, "\n") != 1 {
					t.Errorf("%v: exit %d, want %d, and one line in %q", args, got.code, tc.want, got.stderr)
				}
			}
		})
	}
}

// fetch becomes walbaton, beside itself or in PATH, with its flags.
func TestFetchBecomesWalbaton(t *testing.T) {
	t.Parallel()
	bin := build(t)
	script := []byte("#!/bin/sh\necho \"$0 $*\" >&2\nexit 7\n")
	other := t.TempDir()
	for _, where := range []string{other, filepath.Dir(bin)} { // beside it wins, so it comes last
		if err := os.WriteFile(filepath.Join(where, "walbaton"), script, 0o700); err != nil {
			t.Fatal(err)
		}
		got := start(t, bin, "/", []string{"PATH=/nowhere::" + other}, "fetch", "--socket", "/nowhere/s", "--config=/c d", "--", "f", "p")
		want := where + "/walbaton fetch --config /c d f p\n"
		if got.code != 7 || got.stderr != want {
			t.Errorf("walbaton in %s: exit %d, stderr %q, want 7 and %q", where, got.code, got.stderr, want)
		}
	}
}

func TestPushAlone(t *testing.T) {
	t.Parallel()
	bin := build(t)
	dir := t.TempDir()
	for _, args := range [][]string{
		{"push", "pg_wal/x"},
		{"push", "--socket", filepath.Join(dir, strings.Repeat("long", 50)), "pg_wal/x"},
		{"push"}, {"push", "a", "b"}, {"push", "--socket"}, {"pull"},
	} {
		got := start(t, bin, dir, []string{"WALBATON_SOCKET=" + filepath.Join(dir, "none")}, args...)
		if got.code != 1 || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stderr %q; want 1 and one line", args, got.code, got.stderr)
		}
	}
}

// A sidecar that hangs is given up after five seconds of silence, not before; one that shows
// that it lives is not.
func TestSilence(t *testing.T) {
	t.Parallel()
	bin := build(t)
	stop := make(chan struct{})
	socket, _ := sidecar(t, func(c net.Conn) {
		_, _ = c.Write([]byte("."))
		time.Sleep(3 * time.Second)
		_, _ = c.Write([]byte("."))
		select {
		case <-stop:
		case <-time.After(20 * time.Second):
		}
	})
	t.Cleanup(func() { close(stop) }) // runs before the sidecar is joined
	t0 := time.Now()
	got := start(t, bin, "/", nil, "push", "--socket", socket, "x")
	took := time.Since(t0)
	if got.code != 1 || !strings.Contains(got.stderr, "silent for 5s") {
		t.Errorf("exit %d, stderr %q", got.code, got.stderr)
	}
	if took < 8*time.Second || took > 11*time.Second {
		t.Errorf("gave up after %v, want 8 s: 3 s and 5 s of silence", took)
	}
}

// PostgreSQL wants to see SIGTERM itself when it shuts down. SIGQUIT, which it sends when it crashes, ends us in the same way: without a
// word in PostgreSQL's log, and with no exit code that a recovery could take for the end of the WAL.
func TestTerminated(t *testing.T) {
	t.Parallel()
	bin := build(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT} {
		stop := make(chan struct{})
		socket, requests := sidecar(t, func(net.Conn) { <-stop })
		t.Cleanup(func() { close(stop) })
		cmd := exec.Command(bin, "fetch", "--socket", socket, "f", "p")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-requests
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != syscall.SIGTERM || stderr.Len() > 0 {
			t.Errorf("%v: ended with %v, want SIGTERM; it wrote %q", sig, cmd.ProcessState, stderr.String())
		}
	}
}
