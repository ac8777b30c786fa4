package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// run is a made-up drain of 100 segments.
func madeUp(t tool, seconds, cpu float64) drain {
	return drain{tool: t, Segments: 100, Plain: 1600 << 20, Seconds: seconds, User: cpu, Stored: 400 << 20, PeakAnon: 50 << 20, Command: "x %p"}
}

func madeUps() []drain {
	return []drain{
		madeUp(files(floor, "none", 0, 0), 4, 2),
		madeUp(files(walbaton, "none", 4, 0), 8, 3),
		madeUp(files(walbaton, "lz4", 2, 0), 2, 2),
		madeUp(files(pgBack, "lz4", 2, 0), 5, 5),
		madeUp(files(walbaton, "zstd", 2, 0), 4, 4),
		madeUp(files(pgBack, "zstd", 2, 0), 5, 5),
		madeUp(files(pgBack, "zstd", 2, 1), 3, 4),
		madeUp(tool{Tool: walbaton, Place: drill.MinIO, Codec: "none", Workers: 4}, 10, 5),
		// the second round: everything is slower
		madeUp(files(walbaton, "lz4", 2, 0), 4, 3),
		madeUp(files(pgBack, "lz4", 2, 0), 12, 6),
	}
}

func TestGroups(t *testing.T) {
	gs := groups(madeUps())
	if len(gs) != 8 {
		t.Fatalf("%d groups, want 8", len(gs))
	}
	lz4 := find(madeUps(), files(walbaton, "lz4", 2, 0))
	if got := spread("%.0f", lz4.Rate()); got != "38 (25 to 50)" {
		t.Errorf("segments/s: %s", got)
	}
	if got := spread("%.0f", lz4.CPU()); got != "25 (20 to 30)" {
		t.Errorf("CPU ms: %s", got)
	}
	if got := lz4.Stored()[0]; got != 25 {
		t.Errorf("stored %v %%, want 25", got)
	}
	if got := find(madeUps(), files(walG, "lz4", 2, 0)); len(got.Runs) != 0 {
		t.Errorf("WAL-G was not measured, and has %d runs", len(got.Runs))
	}
}

func TestPairs(t *testing.T) {
	var names []string
	for _, p := range pairs(madeUps()) {
		names = append(names, p.Name())
	}
	if got, want := strings.Join(names, " | "), "lz4, 2 at a time | zstd, 2 at a time | zstd, 2 at a time; pgBackRest at level 1"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	lz4 := pairs(madeUps())[0]
	if got := spread("%.2f", lz4.Rates()); got != "2.75 (2.50 to 3.00)" { // by round, not of the medians
		t.Errorf("ratio of segments/s: %s", got)
	}
	if got := spread("%.2f", lz4.CPUs()); got != "0.45 (0.40 to 0.50)" {
		t.Errorf("ratio of CPU: %s", got)
	}
	var beside []string
	for _, p := range uncompressed(madeUps()) {
		beside = append(beside, p.Ours.String())
	}
	if got := strings.Join(beside, " | "); got != "dd, none | walbaton, none, 4 at a time" {
		t.Errorf("beside dd: %s", got)
	}
}

func TestDrainGoals(t *testing.T) {
	want := []struct {
		got float64
		met bool
	}{
		{2.75, true},  // lz4 segments/s
		{0.45, true},  // CPU
		{1.25, false}, // zstd, against the default level only
		{0.8, false},  //
		{0.5, false},  // beside dd
		{50, true},    // memory
	}
	gs := drainGoals(madeUps())
	if len(gs) != len(want) {
		t.Fatalf("%d goals, want %d: %v", len(gs), len(want), gs)
	}
	for i, g := range gs {
		if math.Abs(g.Got-want[i].got) > 1e-9 || g.met() != want[i].met {
			t.Errorf("%v: got %v, met %v; want %v", g, g.Got, g.met(), want[i])
		}
	}
	if gs := drainGoals(madeUps()[2:3]); len(gs) != 0 {
		t.Errorf("goals without anything to compare with: %v", gs)
	}
}

// TestDrainSection holds that what was not there is said, and that raw numbers keep a tool's settings.
func TestDrainSection(t *testing.T) {
	raw, err := json.Marshal(measured[drain]{Result: madeUps()})
	if err != nil {
		t.Fatal(err)
	}
	text, err := section[drain](drainFuncs())("drain", raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"WAL-G is not here", "Barman is not here",
		"| lz4, 2 at a time | pgBackRest | 37.5 (25.0 to 50.0) |",
		"zstd, 2 at a time: segments/s, as a multiple of pgBackRest's: 1.25 ×. The goal is at least 1.7 ×: **not met**",
		"| dd | 1 | 25.0 | 1.00 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the section does not say %q", want)
		}
	}
	plots, err := drainPlots(raw)
	if err != nil || !strings.Contains(plots["drain-rate"], "walbaton, lz4, 2 at a time") || strings.Contains(plots["drain-rate"], "minio") {
		t.Errorf("plots: %v\n%s", err, plots["drain-rate"])
	}
}

func TestAckGoals(t *testing.T) {
	run := func(tool string, seconds float64, us ...int64) ack {
		return ack{Tool: tool, Segments: 101, Seconds: seconds, Calls: us, Sidecar: 0.001}
	}
	all := []ack{
		run(binTrue, 0.1, 500, 600), run(walbaton, 0.3, 1700, 12000), run(pgBack, 1, 7000, 9000),
		run(binTrue, 0.2, 600, 700), run(walbaton, 0.3, 1900, 14000), run(pgBack, 1, 7000, 9000),
	}
	want := []struct {
		got float64
		met bool
	}{{1.25, true}, {1.5, true}, {13, false}}
	gs := ackGoals(all)
	if len(gs) != len(want) {
		t.Fatalf("%d goals, want %d", len(gs), len(want))
	}
	for i, g := range gs {
		if math.Abs(g.Got-want[i].got) > 1e-9 || g.met() != want[i].met {
			t.Errorf("%v: got %v, met %v; want %v", g, g.Got, g.met(), want[i])
		}
	}
	if gs := ackGoals(all[1:3]); gs != nil {
		t.Errorf("goals without /bin/true: %v", gs)
	}
	if got := ackGroups(all)[2].Rate(); got[0] != 100 {
		t.Errorf("pgBackRest: %v segments/s, want 100", got)
	}
}
