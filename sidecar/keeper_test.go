package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestKeeperCounts: stopped_wait counts once for a series of pushes, and begins anew when PostgreSQL ran in between.
func TestKeeperCounts(t *testing.T) {
	now := time.Unix(0, 0)
	k := &keeper{wait: 30 * time.Second, now: func() time.Time { return now }}
	for _, step := range []struct {
		state archiver.ServerState
		after time.Duration
		want  bool
	}{
		{archiver.ServerStopped, 0, false},
		{archiver.ServerStopped, 29 * time.Second, false},
		{archiver.ServerStopped, time.Second, true},
		{archiver.ServerStopped, 0, true},
		{archiver.ServerPrimary, 0, false},
		{archiver.ServerStopped, 0, false},
		{archiver.ServerStopped, 30 * time.Second, true},
	} {
		now = now.Add(step.after)
		if got := k.due(step.state); got != step.want {
			t.Errorf("%v after %v: due %v, want %v", step.state, now, got, step.want)
		}
	}
}

// TestKeeperSetsAside is row 7 before the archive was ever opened: what the live leader does not list is copied, with the newest that it does as
// the witness.
func TestKeeperSetsAside(t *testing.T) {
	const size = wal.SegmentSize(1 << 20)
	pgWAL, keep := t.TempDir(), filepath.Join(t.TempDir(), "keep")
	if err := os.Mkdir(filepath.Join(pgWAL, "archive_status"), 0o755); err != nil {
		t.Fatal(err)
	}
	leaders, ours, other := "000000010000000000000007", "000000010000000000000008", "000000010000000000000009"
	for _, name := range []string{leaders, ours, other} {
		writeFile(t, pgWAL, name, name)
	}
	n, err := wal.ParseName(leaders, size)
	if err != nil {
		t.Fatal(err)
	}
	c := archiver.Cluster{LeaderLive: true}
	c.LeaderHas.Add(n.Segment)
	var out logBuffer
	k := &keeper{dir: keep, log: newLogger(&out, slog.LevelInfo), now: time.Now}
	for i, name := range []string{leaders, ours, ours, other} { // a second time is no error
		if err := k.setAside(pgWAL, filepath.Join(pgWAL, name), archiver.Server{SystemID: 7, SegmentSize: size}, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if i == 0 && exists(filepath.Join(keep, "7", leaders)) {
			t.Errorf("%s is set aside although the leader has it", leaders)
		}
	}
	if b, err := os.ReadFile(filepath.Join(keep, "7", ours)); err != nil || string(b) != ours {
		t.Errorf("%s in keep_dir: %q, %v", ours, b, err)
	}
	if !exists(filepath.Join(keep, "7", leaders)) {
		t.Errorf("%s, which the leader has, did not go as a witness", leaders)
	}
	// Another cluster in the same place has files of the same names.
	writeFile(t, pgWAL, ours, "the new cluster's")
	if err := k.setAside(pgWAL, filepath.Join(pgWAL, ours), archiver.Server{SystemID: 8, SegmentSize: size}, archiver.Cluster{}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(keep, "8", ours)); err != nil || string(b) != "the new cluster's" {
		t.Errorf("%s of the new cluster in keep_dir: %q, %v", ours, b, err)
	}
	k.strangers(8)
	k.over()
	k.over()
	want := []string{
		`level=WARN msg="PostgreSQL is stopped: what is not known to be stored is set aside in keep_dir" first=000000010000000000000008 keep_dir=` + keep,
		`level=WARN msg="keep_dir has files of another cluster that were never shipped; its archive may lack them" system_identifier=7 files=3 folder=` + keep + "/7",
		`level=INFO msg="files were set aside in keep_dir while PostgreSQL was stopped" files=2 keep_dir=` + keep,
	}
	if got := out.lines(); !slices.Equal(got, want) {
		t.Errorf("log: got\n%s\nwant one line when it begins and one when it is over:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
