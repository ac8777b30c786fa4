package main

import (
	"context"
	"strconv"
	"strings"
	"testing"
)

// During an upgrade walbaton-wal and the sidecar beside it may be of two releases for a moment. What the first release (commit f40cf83) said over the
// socket is testdata/first/socket.txt; walbaton-wal has the other half of this test.

// firstCall is one exchange of that file.
type firstCall struct {
	ask, answer string
	exit        int
}

func firstCalls(t *testing.T) (calls []firstCall) {
	t.Helper()
	for line := range strings.Lines(page(t, "sidecar/testdata/first/socket.txt")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "ask":
			calls = append(calls, firstCall{ask: rest})
		case "answer":
			calls[len(calls)-1].answer = rest
		case "exit":
			n, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatal(err)
			}
			calls[len(calls)-1].exit = n
		}
	}
	if len(calls) < 6 {
		t.Fatalf("%d calls", len(calls))
	}
	return calls
}

// This sidecar understands what the walbaton-wal of the first release asks, and answers in its words.
func TestSocketOfFirstRelease(t *testing.T) {
	for _, c := range firstCalls(t) {
		code, quoted, _ := strings.Cut(strings.TrimLeft(c.answer, "."), " ")
		message, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(code)
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		path, stop := serve(t, fakeAnswerer{
			push: func(_ context.Context, path string) Answer { asked = []string{"push", path}; return Answer{n, message} },
			fetch: func(_ context.Context, name, dest string) Answer {
				asked = []string{"fetch", name, dest}
				return Answer{n, message}
			},
		})
		if got, want := talk(t, path, c.ask+"\n"), strings.TrimLeft(c.answer, ".")+"\n"; got != want {
			t.Errorf("%s: answered %q, want %q", c.ask, got, want)
		}
		stop()
		words := strings.Split(strings.Trim(c.ask, `"`), `" "`)
		want := append(words[1:len(words)-2:len(words)-2], words[len(words)-1]+"/"+words[len(words)-2]) // the last word is the working directory
		if strings.Join(asked, " ") != strings.Join(want, " ") {
			t.Errorf("%s: understood as %q, want %q", c.ask, asked, want)
		}
	}
}
