package wal_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/walbaton/walbaton/archiver/wal"
)

// lineOf4 is timeline 4, which came from 3 and that from 1; 2 is somebody else's.
const lineOf4 = "1\t0/1000090\tat restore point \"rp\"\n\n3\t0/1200000\tno recovery target specified\n"

func TestParseHistory(t *testing.T) {
	h, err := wal.ParseHistory(4, strings.NewReader(lineOf4))
	want := wal.History{Timeline: 4, Forks: []wal.Fork{
		{Timeline: 1, End: 0x1000090, Reason: `at restore point "rp"`},
		{Timeline: 3, End: 0x1200000, Reason: "no recovery target specified"},
	}}
	if err != nil || !reflect.DeepEqual(h, want) {
		t.Fatalf("got %+v, %v, want %+v", h, err, want)
	}
	if got := string(h.Bytes()); got != lineOf4 {
		t.Errorf("written as %q, want %q", got, lineOf4)
	}
	var b bytes.Buffer
	if n, err := h.WriteTo(&b); err != nil || b.String() != lineOf4 || n != int64(len(lineOf4)) {
		t.Errorf("WriteTo: %d, %v, %q", n, err, b.String())
	}
	// What timeline.c reads, too.
	loose := "# a comment\r\n  \n 1 0/1000090\r\n\t3\t\t0/01200000   by hand  \n"
	h, err = wal.ParseHistory(4, strings.NewReader(loose))
	if err != nil || len(h.Forks) != 2 || h.Forks[0].Reason != "" || h.Forks[1].Timeline != 3 || h.Forks[1].End != 0x1200000 {
		t.Errorf("got %+v, %v", h, err)
	}
	if h, err := wal.ParseHistory(1, strings.NewReader("")); err != nil || h.Timeline != 1 || h.Forks != nil || len(h.Bytes()) != 0 {
		t.Errorf("the first timeline: got %+v, %v", h, err)
	}
}

// TestParseHistoryGoesBack: PostgreSQL 15 wrote the first of these when a cluster on timeline 2 was restored to a time before that
// began, with recovery_target_timeline = latest.
func TestParseHistoryGoesBack(t *testing.T) {
	for text, want := range map[string][]wal.Fork{
		"1\t0/23000A0\tno recovery target specified\n\n2\t0/1F36078\tbefore 2026-11-27 21:21:52.75+00\n": {{1, 0x1F36078, "before 2026-11-27 21:21:52.75+00"}},
		"1\t0/10\ta\n2\t0/20\tb\n3\t0/30\tc\n4\t0/5\td\n":                                                {{1, 5, "d"}},
		"1\t0/10\ta\n2\t0/20\tb\n3\t0/15\tc\n4\t0/40\td\n":                                               {{1, 0x10, "a"}, {2, 0x15, "c"}, {4, 0x40, "d"}},
		"1\t0/10\ta\n2\t0/10\tb\n":                                                                       {{1, 0x10, "a"}, {2, 0x10, "b"}},
	} {
		h, err := wal.ParseHistory(5, strings.NewReader(text))
		if err != nil || !reflect.DeepEqual(h.Forks, want) {
			t.Errorf("%q: got %v, %v, want %v", text, h.Forks, err, want)
		}
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"x\t0/1\tr\n":                "not a timeline",
		"0\t0/1\tr\n":                "not a timeline",
		"-1\t0/1\tr\n":               "not a timeline",
		"4294967296\t0/1\tr\n":       "not a timeline",
		"1\n":                        "parse LSN",
		"1\tzero\tr\n":               "parse LSN",
		"4\t0/1\tr\n":                "no ancestor",
		"5\t0/1\tr\n":                "no ancestor",
		"1\t0/1\tr\n1\t0/2\tr\n":     "line 2",
		"2\t0/1\tr\n1\t0/2\tr\n":     "line 2",
		strings.Repeat("#\n", 3<<20): "4 MiB",
	} {
		_, err := wal.ParseHistory(4, strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.30q: got %v, want an error about %q", text, err, why)
		}
	}
	if _, err := wal.ParseHistory(0, strings.NewReader("")); err == nil {
		t.Error("timeline 0 has a history")
	}
	broken := errors.New("disk on fire")
	if _, err := wal.ParseHistory(4, io.MultiReader(strings.NewReader(lineOf4), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestLine(t *testing.T) {
	h, err := wal.ParseHistory(4, strings.NewReader(lineOf4))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		timeline   wal.Timeline
		begin, end wal.LSN
		on         bool
	}{
		{0, 0, 0, false}, {1, 0, 0x1000090, true}, {2, 0, 0, false}, {3, 0x1000090, 0x1200000, true}, {4, 0x1200000, wal.MaxLSN, true}, {5, 0, 0, false},
	} {
		begin, ok := h.Begin(c.timeline)
		if end, ok2 := h.End(c.timeline); begin != c.begin || end != c.end || ok != c.on || ok2 != c.on {
			t.Errorf("timeline %d: got %v to %v, %v", c.timeline, begin, end, ok)
		}
	}
	for lsn, want := range map[wal.LSN]wal.Timeline{0: 1, 0x100008F: 1, 0x1000090: 3, 0x11FFFFF: 3, 0x1200000: 4, wal.MaxLSN: 4} {
		if got := h.TimelineAt(lsn); got != want {
			t.Errorf("at %v: got timeline %d, want %d", lsn, got, want)
		}
	}
	for _, c := range []struct {
		timeline wal.Timeline
		no       uint64
		want     bool
	}{
		{1, 1, true}, {1, 15, true}, {1, 16, false}, {1, 17, false}, // left inside 16
		{2, 1, false}, {2, 16, false},
		{3, 15, false}, {3, 16, true}, {3, 17, true}, {3, 18, false}, // left on the boundary between 17 and 18
		{4, 17, false}, {4, 18, true}, {4, 1 << 30, true},
		{5, 18, false}, {0, 18, false},
	} {
		if got := h.Holds(wal.Segment{Timeline: c.timeline, Size: mib, No: c.no}); got != c.want {
			t.Errorf("timeline %d, segment %d: got %v, want %v", c.timeline, c.no, got, c.want)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(4), lineOf4)
	f.Add(uint32(2), "1\t0/60648A8\tno recovery target specified\n")
	f.Add(uint32(3), "# c\n 1 FFFFFFFF/0\n2\tffffffff/ffffffff\tx")
	f.Fuzz(func(t *testing.T, tli uint32, text string) {
		h, err := wal.ParseHistory(wal.Timeline(tli), strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := wal.ParseHistory(h.Timeline, bytes.NewReader(h.Bytes()))
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%q: %+v is read back as %+v, %v", text, h, again, err)
		}
		for _, fork := range h.Forks {
			if fork.End > 0 && h.TimelineAt(fork.End-1) > fork.Timeline {
				t.Errorf("%q: timeline %d does not reach its end", text, fork.Timeline)
			}
			if h.TimelineAt(fork.End) <= fork.Timeline {
				t.Errorf("%q: timeline %d goes on after its end", text, fork.Timeline)
			}
		}
	})
}
