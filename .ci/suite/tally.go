package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

// result is a test that ended.
type result struct {
	name    string
	seconds float64
	passed  bool
}

// tally collects the results of all commands, which may report at the same time.
type tally struct {
	mu      sync.Mutex
	w       io.Writer
	begin   time.Time
	results []result
}

func newTally(w io.Writer) *tally { return &tally{w: w, begin: time.Now()} }

// fail counts something that failed outside of a test, and says why.
func (t *tally) fail(name, why string) {
	t.add(result{name: name}, why)
}

func (t *tally) add(r result, output string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results = append(t.results, r)
	if !r.passed {
		fmt.Fprintf(t.w, "FAIL %s\n%s\n", r.name, strings.TrimRight(output, "\n"))
	}
}

// say prints a line with the time since the begin.
func (t *tally) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "%6.0fs %s\n", time.Since(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

// read takes the events of one `go test -json` and returns how many tests failed. A test that began and never ended,
// because the program died, has failed. With alone each test is told of when it ends, and not its package.
func (t *tally) read(r io.Reader, alone bool) (failed int) {
	output := map[string]*strings.Builder{} // by test, and by package under its own name
	running := map[string]bool{}
	write := func(name, text string) {
		if output[name] == nil {
			output[name] = new(strings.Builder)
		}
		output[name].WriteString(text)
	}
	text := func(name string) string {
		if output[name] == nil {
			return ""
		}
		return output[name].String()
	}
	inPackage := map[string]int{}
	lines(r, func(line []byte) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			write("", string(line))
			return
		}
		name := strings.TrimPrefix(e.Package, "github.com/walbaton/walbaton/")
		if e.Test != "" {
			name += " " + e.Test
		}
		switch e.Action {
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				write(name, e.Output)
			}
		case "build-output":
			write(e.ImportPath, e.Output)
		case "run":
			running[name] = true
		case "pass", "fail", "skip":
			delete(running, name)
			if e.Test == "" {
				t.packageEnded(e, name, text(name)+text(e.FailedBuild), inPackage[e.Package], alone)
			} else {
				t.add(result{name: name, seconds: e.Elapsed, passed: e.Action == "pass"}, text(name))
				if alone {
					t.say("%-4s %s, %.1fs", e.Action, name, e.Elapsed)
				}
			}
			if e.Action == "fail" || e.Action == "skip" && e.Test != "" {
				failed++
				inPackage[e.Package]++
			}
		}
	})
	for name := range running {
		failed++
		t.fail(name, text(name)+"it did not end")
	}
	return failed
}

// packageEnded prints how a package ended. One that failed without a failed test, because it does not build or its
// program died, counts as a failed test itself. "skip" says that it has no tests.
func (t *tally) packageEnded(e event, name, output string, failedTests int, alone bool) {
	switch {
	case e.Action == "fail" && failedTests == 0:
		t.fail(name, output)
	case e.Action != "skip" && !alone:
		t.say("%-4s %s, %.1fs", e.Action, name, e.Elapsed)
	}
}

// summary prints the ten slowest tests and the counts, and returns how many failed.
func (t *tally) summary() (failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.results, func(a, b result) int { return cmp.Compare(b.seconds, a.seconds) })
	fmt.Fprintln(t.w, "\nThe slowest tests:")
	for _, r := range t.results[:min(10, len(t.results))] {
		fmt.Fprintf(t.w, "%7.1fs %s\n", r.seconds, r.name)
	}
	fmt.Fprintln(t.w)
	for _, r := range t.results {
		if !r.passed {
			failed++
			fmt.Fprintf(t.w, "FAIL %s\n", r.name)
		}
	}
	fmt.Fprintf(t.w, "after %v\n%d passed, %d failed\n", time.Since(t.begin).Round(time.Second), len(t.results)-failed, failed)
	return failed
}
