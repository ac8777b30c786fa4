// Benchmark is `make bench`: it measures walbaton on real WAL and a real Patroni cluster, and writes docs/benchmark.md,
// with the raw numbers beside it in docs/benchmark/*.json.
//
//	benchmark [flags]              every part
//	benchmark [flags] drain        this part; the others are handover, requests, restore and verify
//	benchmark page                 the page again, from the raw numbers that are there
//
// The parts are files of this folder: drain.go (with push.go), handover.go, requests.go, restore.go and verify.go. Each starts what it needs
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
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	var o options
	flag.IntVar(&o.segments, "segments", 500, "how many `segments` of 16 MB wait when a drain begins")
	flag.IntVar(&o.rounds, "rounds", 3, "how many `runs` of each measurement")
	flag.IntVar(&o.calls, "calls", 2000, "how many `calls` of push in a run")
	flag.IntVar(&o.switchovers, "switchovers", 10, "how many `switchovers`")
	flag.IntVar(&o.requests, "requests", 100, "over how many `segments` requests are counted")
	flag.IntVar(&o.small, "small", 10_000, "how many `segments` of 1 MB the archive has that verify looks at")
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
	segments, rounds, calls, switchovers, requests, small int

	data, docs string
}

func run(ctx context.Context, o options, parts []string) (err error) {
	if len(parts) == 0 {
		parts = []string{"drain", "handover", "requests", "restore", "verify"}
	}
	b := &bench{options: o, begin: time.Now()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := os.MkdirAll(filepath.Join(o.docs, "benchmark"), 0o755); err != nil {
		return err
	}
	all := map[string]func(context.Context) error{
		"drain": b.drains, "handover": b.handovers, "requests": b.counts, "restore": b.restores, "verify": b.verifies,
	}
	for _, part := range parts {
		if part == "page" {
			continue
		}
		measure, ok := all[part]
		if !ok {
			return fmt.Errorf("%q is no part; the parts are drain, handover, requests, restore, verify and page", part)
		}
		b.say("%s", part)
		if err := measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return b.page()
}

// bench is one run of the program.
type bench struct {
	options
	begin time.Time
	wal   *segments // prepared when a part first asks for it
}

// close stops the server that has the segments.
func (b *bench) close() error {
	if b.wal == nil {
		return nil
	}
	return b.wal.close()
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("[%4.0f s] %s\n", time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}
