package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// TestReadable: a question ends when there is an answer, and with Ctrl-C, which no read from a terminal notices.
func TestReadable(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := readable(ctx, in); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: got %v, want the end of the context", err)
	}
	if _, err := out.WriteString("y\n"); err != nil {
		t.Fatal(err)
	}
	if err := readable(t.Context(), in); err != nil {
		t.Errorf("an answer: got %v", err)
	}
}
