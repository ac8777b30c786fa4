package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

func TestRoundFree(t *testing.T) {
	for in, want := range map[uint64]uint64{0: 1, 1: 1, 7: 7, 9: 8, 1 << 30: 1 << 30, 1<<30 + 5: 1 << 30, 1000_000_000: 7 << 27} {
		if got := roundFree(in); got != want {
			t.Errorf("%d: got %d, want %d", in, got, want)
		}
	}
}

// TestPace: the mean of the last five minutes, of one server.
func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	var p pace
	run := func(d time.Duration, perSecond wal.LSN, lsn wal.LSN) wal.LSN {
		for range int(d / time.Second) {
			now, lsn = now.Add(time.Second), lsn+perSecond
			p.note(now, lsn)
		}
		return lsn
	}
	if got := p.perSecond(); got != 0 {
		t.Errorf("before any reading: %v", got)
	}
	lsn := run(30*time.Second, 1000, 1<<30)
	if got := p.perSecond(); got != 1000 {
		t.Errorf("after half a minute: %v, want 1000", got)
	}
	lsn = run(10*time.Minute, 0, lsn)
	if got := p.perSecond(); got != 0 {
		t.Errorf("ten idle minutes later: %v, want 0", got)
	}
	run(20*time.Second, 500, lsn)
	run(20*time.Second, 300, 1<<20) // a restore in place: the position goes back
	if got := p.perSecond(); got != 300 {
		t.Errorf("of another server: %v, want 300", got)
	}
	if got := len(p.seen); got > int(paceOver/paceEvery)+1 {
		t.Errorf("%d readings are kept", got)
	}
}

// TestLasts: an idle server's disk lasts long, and never less than nothing.
func TestLasts(t *testing.T) {
	for _, tc := range []struct {
		free      uint64
		perSecond float64
		want      string
	}{
		{6000, 100, "1 minute"}, {90 << 30, 1 << 20, "25 hours"}, {90 << 30, 4, "years"}, {1 << 62, 1, "years"},
	} {
		if got := lastsText(lasts(tc.free, tc.perSecond)); got != tc.want {
			t.Errorf("%d bytes at %v a second: got %s, want %s", tc.free, tc.perSecond, got, tc.want)
		}
	}
	if got := lasts(1<<40, 0); got != 0 {
		t.Errorf("no WAL at all: got %v, want 0", got)
	}
}

// TestProgressAtFirst: before the first object is done nobody can say how long it takes.
func TestProgressAtFirst(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out, what: "verify", begin: time.Now().Add(-5 * time.Second)}
	p.show(0, 80)
	if got, want := strings.TrimSpace(out.String()), "verify  [..............................] 0 of 80 objects"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestDiskWarner: a line for each step on the way to a full disk, none while the archive answers, and all of them again in the
// next outage.
func TestDiskWarner(t *testing.T) {
	var out logBuffer
	w := diskWarner{log: newLogger(&out, slog.LevelInfo)}
	const mb = 1 << 20
	for _, n := range []int{5, 6} { // the log leaves out what it has just said
		w.look(false, n, mb, 100*mb, mb) // a backlog, but it moves
		for _, free := range []uint64{1 << 50, 5000 * mb, 3000 * mb, 2900 * mb, 300 * mb, 200 * mb, 250 * mb, mb / 2, 0, 5 * mb} {
			w.look(true, n, mb, free, mb)
		}
		w.look(true, 0, mb, 0, mb) // nothing waits for the archive: the disk is full of something else
	}
	var said []string
	for _, l := range out.lines() {
		said = append(said, l[strings.Index(l, "free="):])
		if !strings.Contains(l, `segments=5 kept="5.0 MB"`) && !strings.Contains(l, `segments=6 kept="6.0 MB"`) {
			t.Errorf("said: %s", l)
		}
	}
	want := `free="4.9 GB" lasts="83 minutes"|free="2.9 GB" lasts="50 minutes"|free="300 MB" lasts="5 minutes"|free="512 kB"`
	if got := strings.Join(said, "|"); got != want+"|"+want {
		t.Errorf("got\n%s\nwant twice\n%s\nin\n%s", got, want, strings.Join(out.lines(), "\n"))
	}
}

func TestLastsText(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Second: "1 second", 59 * time.Second: "59 seconds", 90 * time.Second: "1 minute",
		119 * time.Minute: "119 minutes", 3 * time.Hour: "3 hours", 60 * time.Hour: "2 days"} {
		if got := lastsText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
