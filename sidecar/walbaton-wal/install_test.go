package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// install copies both programs where both are, whole and executable, over what is there; and leaves nothing behind when it cannot.
func TestInstall(t *testing.T) {
	t.Parallel()
	bin, dir := build(t), t.TempDir()
	if got := start(t, bin, "/", nil, "install", dir); got.code != 0 || got.stderr != "" {
		t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
	}
	if exists(filepath.Join(dir, "walbaton")) {
		t.Error("there is a walbaton where there was none")
	}
	for name, text := range map[string]string{filepath.Join(filepath.Dir(bin), "walbaton"): "the large program", filepath.Join(dir, "walbaton"): "an older one"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(dir, "walbaton-wal")
	if got := start(t, copied, "/", nil, "install", dir); got.code != 0 { // onto itself
		t.Fatalf("the copy does not run: exit %d, stderr %q", got.code, got.stderr)
	}
	if got := start(t, bin, "/", nil, "install", dir); got.code != 0 {
		t.Fatalf("again: exit %d, stderr %q", got.code, got.stderr)
	}
	for _, name := range []string{"walbaton", "walbaton-wal"} {
		want, err := os.ReadFile(filepath.Join(filepath.Dir(bin), name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || info.Mode() != 0o755 {
			t.Errorf("%s: %d bytes with mode %v, want %d and 0755", name, len(got), info.Mode(), len(want))
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left are %v, %v", entries, err)
	}
	for _, args := range [][]string{{"install"}, {"install", "--now"}, {"install", "/nowhere"}, {"install", "/proc/self"}} {
		if got := start(t, bin, "/", nil, args...); got.code != 1 || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, want 1, and one line in %q", args, got.code, got.stderr)
		}
	}
}
