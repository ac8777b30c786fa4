package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

var (
	seeds  = flag.Int("sim.seeds", 24, "how many seeds to play")
	first  = flag.Uint64("sim.first", 1, "the first of them")
	logTo  = flag.String("sim.log", "", "write the event log of the only seed here")
	procs  = flag.Int("sim.procs", 0, "play them in so many processes, and say on stderr how far they are")
	limit  = flag.Duration("sim.for", 0, "with sim.procs: begin no more seeds after this time; 0 means all are played")
	strict = flag.Bool("sim.strict", false, "fail when something never occurred; on from 1000 seeds")
)

// folder is on tmpfs where there is one.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "walbaton-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSeeds(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 10)
	}
	tally := NewTally()
	if *procs > 0 {
		spread(t, tally, n)
	} else {
		play(t, tally, n)
	}
	if *reportTo != "" {
		return // who asked for it looks at the sum
	}
	if *seeds > 24 || testing.Verbose() {
		tally.Print(os.Stdout)
	}
	if *strict || *seeds >= 1000 {
		everything(t, tally)
	}
}

// TestTwoArchives plays seeds with a second archive that has outages of its own: an acknowledged file is in both, and in the end both have the same.
func TestTwoArchives(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 6)
	}
	dir := folder(t)
	tally := NewTally()
	next := make(chan uint64)
	var wg sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				r := RunTwo(seed, filepath.Join(dir, fmt.Sprint(w)), tally)
				if b := keep(t, r); len(r.Errs) > 0 {
					t.Error(b)
				}
			}
		})
	}
	for i := range uint64(n) {
		next <- *first + i
	}
	close(next)
	wg.Wait()
	for _, what := range []string{"fault: mirror outage", "fault: node without the mirror"} {
		if n >= 20 && tally.Count(what) == 0 {
			t.Errorf("%q never occurred", what)
		}
	}
}

// play plays n seeds here, a few at a time.
func play(t *testing.T, tally *Tally, n int) {
	dir := folder(t)
	next := make(chan uint64)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []broken
	for w := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				r := Run(seed, filepath.Join(dir, fmt.Sprint(w)), tally)
				b := keep(t, r)
				mu.Lock()
				if len(r.Errs) > 0 {
					all = append(all, b)
				}
				mu.Unlock()
			}
		})
	}
	for i := range uint64(n) {
		next <- *first + i
	}
	close(next)
	wg.Wait()
	if *reportTo != "" {
		handBack(t, tally, all)
		return
	}
	for _, b := range all {
		t.Error(b)
	}
}

// broken is a seed that broke a promise.
type broken struct {
	Seed uint64
	Errs []string
	Log  string // a file
}

// String says how to play it again.
func (b broken) String() string {
	return fmt.Sprintf("seed %d: %q\nagain: go test ./sidecar/sim -run TestSeeds -sim.seeds=1 -sim.first=%d\nevent log: %s", b.Seed, b.Errs, b.Seed, b.Log)
}

// keep writes the event log of a seed that broke a promise, or that somebody wants to read.
func keep(t *testing.T, r Result) broken {
	t.Helper()
	if *seeds == 1 && *logTo != "" {
		if err := os.WriteFile(*logTo, r.Log, 0o600); err != nil {
			t.Error(err)
		}
	}
	if len(r.Errs) == 0 {
		return broken{}
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("walbaton-sim-%d.log", r.Seed))
	if err := os.WriteFile(path, r.Log, 0o600); err != nil {
		t.Error(err)
	}
	return broken{r.Seed, r.Errs, path}
}

// everything fails when something that is to occur never did.
func everything(t *testing.T, tally *Tally) {
	t.Helper()
	if got := tally.Mean("role change"); got < 2 {
		t.Errorf("role changes: got %.2f a seed, want at least 2", got)
	}
	var want []string
	for _, row := range []string{"1", "2", "3", "4a", "4b", "4c", "5", "6a", "6b", "6c", "7", "8", "9", "10", "11", "12", "13"} {
		want = append(want, "row: "+row)
	}
	for _, end := range []string{"expired", "lost", "demoted", "errand_done", "released", "stopped"} {
		want = append(want, "term end: "+end)
	}
	for _, x := range troubles() {
		want = append(want, "fault: trouble "+x.name)
	}
	want = append(want, occurrences()...)
	for _, what := range want {
		if tally.Count(what) == 0 {
			t.Errorf("%q never occurred", what)
		}
	}
}

// TestSameSeedSameLog: a seed gives the same event log byte for byte; two of them under -short.
func TestSameSeedSameLog(t *testing.T) {
	dir := folder(t)
	n := uint64(20)
	if testing.Short() {
		n = 2
	}
	for seed := range n {
		a := Run(seed, filepath.Join(dir, "a"), NewTally())
		b := Run(seed, filepath.Join(dir, "b"), NewTally())
		if !bytes.Equal(a.Log, b.Log) {
			t.Errorf("seed %d: %s", seed, difference(a.Log, b.Log))
		}
	}
}

func difference(a, b []byte) string {
	x, y := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return fmt.Sprintf("line %d is %q, and then %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines, and then %d", len(x), len(y))
}
