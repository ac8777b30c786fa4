package main

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAskSidecar: the verbs and the socket server speak the same language.
func TestAskSidecar(t *testing.T) {
	path, _ := serve(t, echoAnswers())
	got, err := askSidecar(t.Context(), path, "explain", "a \"b\"\n\u00e4")
	if err != nil || got != "explain a \"b\"\n\u00e4" {
		t.Errorf("got %q (%v)", got, err)
	}
	_, err = askSidecar(t.Context(), path, "resolve", `{"decision":"accept"}`)
	if err == nil || err.Error() != `resolve {"decision":"accept"}` || exitCode(err) != 2 {
		t.Errorf("an error: got %v with code %d, want the message with code 2", err, exitCode(err))
	}
	if _, err = askSidecar(t.Context(), path, "drop", "x"); err == nil || exitCode(err) != exitFailed {
		t.Errorf("a word that the sidecar does not know: got %v with code %d, want code 1", err, exitCode(err))
	}
}

// TestAskSidecarThatMisbehaves: whatever is behind the socket, the answer is an error that says so.
func TestAskSidecarThatMisbehaves(t *testing.T) {
	for name, tc := range map[string]struct{ reply, want string }{
		"nothing":       {"", "it hung up without an answer"},
		"half a line":   {`0 "x`, "it hung up without an answer"},
		"dots alone":    {"...", "it hung up without an answer"},
		"no code":       {"x \"y\"\n", "does not understand"},
		"no quotes":     {"0 y\n", "does not understand"},
		"an empty line": {"\n", "does not understand"},
		"without end":   {strings.Repeat("0", maxReply+1), "it hung up without an answer"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, tc.reply)
		}()
		got, err := askSidecar(t.Context(), path, "explain", "x")
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "ask the sidecar on "+path+": ") {
			t.Errorf("%s: got %q and %v, want %q", name, got, err, tc.want)
		}
		l.Close()
	}
}

// TestAskSidecarIsPatient: dots keep it waiting; silence and a cancelled context end it.
func TestAskSidecarIsPatient(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			line := make([]byte, 100)
			n, _ := c.Read(line)
			if strings.Contains(string(line[:n]), "dots") {
				for range 3 {
					time.Sleep(2 * time.Second)
					_, _ = io.WriteString(c, ".")
				}
				_, _ = io.WriteString(c, "0 \"late\"\n")
			}
		}
	}()
	if got, err := askSidecar(t.Context(), path, "explain", "dots"); err != nil || got != "late" {
		t.Errorf("an answer after 6 s of dots: got %q (%v)", got, err)
	}
	began := time.Now()
	if _, err := askSidecar(t.Context(), path, "explain", "silent"); err == nil || !strings.Contains(err.Error(), "it was silent for 5s") {
		t.Errorf("silence: got %v", err)
	}
	if took := time.Since(began); took < socketSilence || took > 2*socketSilence {
		t.Errorf("silence was noticed after %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := askSidecar(ctx, path, "explain", "silent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that ends: got %v", err)
	}
}
