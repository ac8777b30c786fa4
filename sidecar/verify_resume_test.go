package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
)

// The file of an interrupted run: what was good is known again, a line that was cut short is not, and another print is another block.
func TestResumeFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state")
	begun := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	a, b, c := archiver.AuditBlock{Timeline: 1, No: 2, Print: 3}, archiver.AuditBlock{Timeline: 2, No: 2, Print: 1<<64 - 1}, archiver.AuditBlock{Timeline: 9, No: 9, Print: 9}
	r, err := openResume(name, "file:///a", begun)
	if err != nil || r.old != 0 || r.Known(a) {
		t.Fatalf("new: %+v, %v", r, err)
	}
	for _, k := range []archiver.AuditBlock{a, b, c} {
		if err := r.Good(k); err != nil || !r.Known(k) {
			t.Fatal(err)
		}
	}
	if err := r.end(false); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, whole[:len(whole)-4], 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = openResume(name, "file:///a", begun.Add(time.Hour)); err != nil || r.old != 2 || !r.begun.Equal(begun) || !r.Known(a) || !r.Known(b) || r.Known(c) {
		t.Fatalf("again: %d blocks of %v, %v", r.old, r.begun, err)
	}
	a.Print++
	if r.Known(a) {
		t.Error("another content is known")
	}
	if err := r.Good(c); err != nil {
		t.Fatal(err)
	}
	if err := r.end(false); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != string(whole) {
		t.Errorf("got\n%s\nwant\n%s (%v)", got, whole, err)
	}
	if r, err = openResume(name, "file:///a", begun); err != nil || r.old != 3 {
		t.Fatal(err)
	}
	if err := r.end(true); err != nil || exists(name) {
		t.Errorf("it is still there: %v", err)
	}
}

// What is somebody else's is left as it is.
func TestResumeForeignFile(t *testing.T) {
	dir := t.TempDir()
	for content, why := range map[string]string{
		"my thesis\n": "is no file of verify", "no line end": "is no file of verify", "{}\n": "is no file of verify",
		`{"walbaton_verify":"1","archive":"file:///b","begun":"2026-11-28T09:00:00Z"}` + "\n": "is of a run over file:///b",
	} {
		writeFile(t, dir, "f", content)
		if _, err := openResume(filepath.Join(dir, "f"), "file:///a", time.Now()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", content, err, why)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != content {
			t.Errorf("%q became %q, %v", content, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openResume(filepath.Join(dir, "empty"), "file:///a", time.Now())
	if err != nil {
		t.Fatalf("an empty file may be used: %v", err)
	}
	if err := r.end(true); err != nil {
		t.Fatal(err)
	}
}

// A deep run that is ended by a signal keeps its file and says how to go on.
func TestVerifyInterrupted(t *testing.T) {
	dir, _ := writeArchive(t, testSystemID)
	state := filepath.Join(t.TempDir(), "state")
	args := []string{"verify", "--deep", "--resume", state, "--archive", "file://" + dir, "--scope", "shop"}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs strings.Builder
	// The first thing that it says is that it goes on with an earlier run: then the signal comes.
	r, err := openResume(state, "file://"+dir+"/shop/7710542482846769188", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Good(archiver.AuditBlock{Timeline: 7}); err != nil {
		t.Fatal(err)
	}
	if err := r.end(false); err != nil {
		t.Fatal(err)
	}
	w := world{func(string) string { return "" }, &out, writerFunc(func(p []byte) (int, error) { cancel(); return errs.Write(p) })}
	code := execute(ctx, args, w)
	if code != exitSignal || !strings.Contains(errs.String(), "goes on with the run of ") || !strings.Contains(errs.String(), "what was good is kept in "+state+": the same command goes on from there") || !exists(state) {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	if code, _, errs := run(t, args...); code != exitOK || exists(state) {
		t.Errorf("to its end: exit %d, %s", code, errs)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
