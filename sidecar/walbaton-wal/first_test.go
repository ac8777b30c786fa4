package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// This walbaton-wal asks what that of the first release asked, and makes of its sidecar's answers what that one made of them.
func TestSidecarOfFirstRelease(t *testing.T) {
	t.Parallel()
	bin := build(t)
	text, err := os.ReadFile("../testdata/first/socket.txt")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	var ask, answer string
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch rest = strings.TrimSpace(rest); word {
		case "ask":
			ask = rest
		case "answer":
			answer = rest
		case "exit":
			calls++
			socket, requests := sidecar(t, say(answer+"\n"))
			dir := t.TempDir()
			write(t, filepath.Join(dir, "recovery.signal"))
			words := strings.Split(strings.Trim(ask, `"`), `" "`)
			args := append([]string{words[1], "--socket", socket}, words[2:len(words)-1]...)
			if got := start(t, bin, dir, nil, args...); fmt.Sprint(got.code) != rest {
				t.Errorf("%s, answered %s: exit %d, want %s", ask, answer, got.code, rest)
			}
			if got, want := <-requests, strings.Replace(ask, "/data", dir, 1)+"\n"; got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
		}
	}
	if calls < 6 {
		t.Errorf("%d calls", calls)
	}
}
