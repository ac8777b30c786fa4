// Benchmark is `make bench`: it measures walbaton and other tools on real WAL and real Patroni clusters, and writes docs/benchmark.md,
// with the raw numbers beside it in docs/benchmark/*.json and plots of them in docs/benchmark/*.svg.
//
//	benchmark [flags]              every part of `make bench`
//	benchmark -full [flags]        the others: `make bench FULL=1`
//	benchmark [flags] drain        this part; parts() in main.go has the others
//	benchmark page                 the page again, from the raw numbers that are there
//
// A part is a file of this folder, and its section of the page a template in page/. Each starts what it needs
// below /tmp and stops it at its end, also after Ctrl-C. segments.go prepares the WAL that is drained. A part can be run
// alone: the page then has its new numbers beside the older ones of the others, each with its date. Numbers are saved
// after each run, so what was measured before an interruption is not lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	var o options
	flag.IntVar(&o.segments, "segments", 300, "how many `segments` of 16 MB wait when a drain begins")
	flag.IntVar(&o.rounds, "rounds", 3, "how many `runs` of each measurement")
	flag.IntVar(&o.calls, "calls", 2000, "how many `calls` of each archive_command in a run of ack")
	flag.IntVar(&o.switchovers, "switchovers", 15, "how many `switchovers`")
	flag.IntVar(&o.kills, "kills", 8, "how many `kills` of the node that leads")
	flag.IntVar(&o.confirmed, "confirmed", 100, "how many `segments` the standbys confirm while their requests are counted")
	flag.IntVar(&o.restored, "restored", 200, "how many of the `segments` are restored")
	flag.IntVar(&o.small, "small", 10_000, "how many `segments` of 1 MB the archive has that verify looks at")
	flag.BoolVar(&o.full, "full", false, "measure what takes parts of an hour, and only that")
	flag.StringVar(&o.data, "data", "", "a `folder` for the prepared WAL, which is kept and used again (default: a new one that is deleted)")
	flag.StringVar(&o.docs, "docs", "docs", "the `folder` of benchmark.md and benchmark/")
	flag.Parse()
	err := run(ctx, o, flag.Args())
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchmark: %v\n", err)
		os.Exit(1)
	}
}

// options are how much is measured, and where the results go.
type options struct {
	segments, rounds, calls, switchovers, kills, confirmed, restored, small int

	full       bool
	data, docs string
}

// part is one measurement, and its section of the page.
type part struct {
	name    string                      // of it, of its raw numbers and of its template
	full    bool                        // it runs with -full only, or when it is named
	both    bool                        // with -full, too, and then it measures more
	measure func(context.Context) error // nil: the part before it measures it, too
	section func(name string, raw []byte) (string, error)
	plots   func(raw []byte) (map[string]string, error) // nil: it has none. By the file's name without .svg
}

// parts are all, in the order of the page.
func (b *bench) parts() []part {
	return []part{
		{name: "drain", measure: b.drains, section: section[drain](drainFuncs()), plots: drainPlots},
		{name: "ack", measure: b.acks, section: section[ack](ackFuncs())},
		{name: "handover", measure: b.handovers, section: section[handover](template.FuncMap{"column": column, "killed": killed, "goals": handoverGoals}), plots: handoverPlots},
		{name: "standby", measure: b.standbys, section: section[standby](template.FuncMap{"goals": standbyGoals, "nothing": nothing.Seconds})},
		{name: "restore", both: true, measure: b.restores, section: section[restored](template.FuncMap{"groups": restoreGroups, "name": restored.name, "goals": restoreGoals}), plots: restorePlots},
		{name: "recovery", measure: b.recoveries, section: section[recovered](template.FuncMap{"groups": recoveryGroups, "name": recovered.name, "goals": recoveryGoals}), plots: recoveryPlots},
		{name: "backlog", both: true, measure: b.backlogs, section: section[backlogged](backlogFuncs()), plots: backlogPlots},
		{name: "idle", both: true, measure: b.idles, section: section[idled](idleFuncs())},
		{name: "slow", measure: b.slows, section: section[slowed](slowFuncs()), plots: slowPlots},
		{name: "verify", full: true, measure: b.verifies, section: section[verified](template.FuncMap{"groups": verifyGroups})},
	}
}

// run measures the named parts, or those that the flags choose, and writes the page.
func run(ctx context.Context, o options, names []string) (err error) {
	if o.full { // a restore of 500 segments is what its promise is about; 200 keep the other parts within their time
		o.segments, o.restored = max(o.segments, 500), max(o.restored, 500)
	}
	b := &bench{options: o, begin: time.Now()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := os.MkdirAll(filepath.Join(o.docs, "benchmark"), 0o755); err != nil {
		return err
	}
	known := []string{"page"}
	for _, p := range b.parts() {
		known = append(known, p.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%q is no part; the parts are %s", name, strings.Join(known, ", "))
		}
	}
	for _, p := range b.parts() {
		if p.measure == nil || len(names) > 0 && !slices.Contains(names, p.name) || len(names) == 0 && !p.both && p.full != o.full {
			continue
		}
		b.say("%s", p.name)
		if err := p.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return b.page()
}

// bench is one run of the program.
type bench struct {
	options
	begin time.Time
	wal   *segments // prepared when a part first asks for it
	from  *restore  // the archives that are restored from; so are they
}

// close removes the archives, and stops the server that has the segments.
func (b *bench) close() (err error) {
	if b.from != nil {
		err = b.from.close()
	}
	if b.wal != nil {
		err = errors.Join(err, b.wal.close())
	}
	return err
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("[%4.0f s] %s\n", time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}
