package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// recovered is one run: a PostgreSQL begins with the base backup and replays every segment, which restore_command gets.
type recovered struct {
	Tool     string
	Parallel int // workers or processes that fetch ahead
	Segments int
	Seconds  float64 // from the start of the server's process until it has replayed into the last segment
	Ready    float64 // until it says that it is consistent
	CPU      float64 // seconds of all its processes: the server, and what fetches
	Load     load
	Command  string // restore_command
}

// toolCopy is the floor: cp, from the folder where the segments were made. Nothing is decompressed, and nothing is checked.
const toolCopy = "cp, from plain files"

func (b *bench) recoveries(ctx context.Context) error {
	r, err := b.archives(ctx)
	if err != nil {
		return err
	}
	if _, err := os.Stat(r.wal.base); err != nil {
		return fmt.Errorf("find the base backup from before the segments: %w; it was made with them: remove the folder %s, which is then prepared anew", err, b.data)
	}
	var all []recovered
	for range b.rounds {
		for _, t := range []fetcher{{toolPrefetch, 4}, {toolBackRest, 2}, {toolCopy, 0}, {toolAlone, 0}} {
			run, err := r.recover(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			b.say("%s, %d in parallel: consistent after %.1f s, %d segments replayed after %.1f s; CPU %.1f s, others used %.2f cores",
				t.name, t.parallel, run.Ready, run.Segments, run.Seconds, run.CPU, run.Load.Others)
			all = append(all, run)
			if err := b.save(ctx, "recovery", all); err != nil {
				return err
			}
		}
	}
	return nil
}

// recover is one run. The server ends itself at the first record of the last segment: it is not promoted, so that nobody archives a new timeline.
func (r *restore) recover(ctx context.Context, t fetcher) (run recovered, err error) {
	data := filepath.Join(r.c.Dir, "recovered")
	command := r.command(ctx, t, data, "%f", "%p").String()
	run = recovered{Tool: t.name, Parallel: t.parallel, Segments: len(r.names), Command: command}
	if err := r.prepare(ctx, data, command); err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data), os.RemoveAll(data+"-walbaton")) }()
	if t.name == toolCopy {
		err = r.wal.warm(ctx, r.names)
	} else {
		err = r.warm(ctx)
	}
	if err != nil {
		return run, err
	}
	grown, err := newTree(r.c.Dir, noStore)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, grown.close()) }()
	switch t.name {
	case toolPrefetch, toolAlone:
		car, err := r.sidecar(ctx, t, data, grown)
		if err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, car.end()) }()
	case toolBackRest:
		defer func() { err = errors.Join(err, r.quiet(ctx)) }()
	}
	err = r.replayAll(ctx, data, grown, &run)
	return run, err
}

// prepare copies the base backup, and says what it is to recover with and how far.
func (r *restore) prepare(ctx context.Context, data, command string) error {
	last, err := beginOf(r.names[len(r.names)-1])
	if err != nil {
		return err
	}
	if err := drill.Run(r.c.Command(ctx, "sh", "-c", `cp -a "$1" "$2" && touch "$2/recovery.signal"`, "sh", r.wal.base, data)); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, `
restore_command = '%s'
recovery_target_lsn = '%s'
recovery_target_action = 'shutdown'
wal_keep_size = 0
archive_mode = off
`, command, last)
	return errors.Join(err, f.Close())
}

// beginOf is the LSN of the first byte of a segment of 16 MB.
func beginOf(name string) (string, error) {
	high, err := strconv.ParseUint(name[8:16], 16, 32)
	if err != nil {
		return "", err
	}
	low, err := strconv.ParseUint(name[16:24], 16, 8)
	return fmt.Sprintf("%X/%X", high, low<<24), err
}

// replayAll runs the server until it ends itself.
func (r *restore) replayAll(ctx context.Context, data string, grown *tree, run *recovered) error {
	server := r.c.Command(ctx, "postgres", "-D", data, "-k", data)
	grown.plant(server)
	log, err := server.StderrPipe()
	if err != nil {
		return err
	}
	m, err := grown.meter()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	var tail []string
	var failed error
	for lines := bufio.NewScanner(log); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.Contains(line, "consistent recovery state reached"):
			run.Ready = time.Since(m.begin).Seconds()
		case strings.Contains(line, "recovery stopping after WAL location"):
			run.Seconds, run.CPU, run.Load, failed = m.read()
		}
		if tail = append(tail, line); len(tail) > 20 {
			tail = tail[1:]
		}
	}
	_, err = io.Copy(io.Discard, log) // after a line that was too long for the scanner
	err = errors.Join(failed, err, server.Wait(), ctx.Err())
	if err == nil && (run.Seconds == 0 || run.Ready == 0) {
		err = errors.New("it did not reach the last segment")
	}
	if err != nil {
		return fmt.Errorf("recover: %w: %s", err, strings.Join(tail, "; "))
	}
	return nil
}

// recoveryGroup is the runs of one tool.
type recoveryGroup struct {
	Tool     string
	Parallel int
	Runs     []recovered
}

func recoveryGroups(all []recovered) (gs []recoveryGroup) {
	for _, runs := range gather(all, recovered.name) {
		gs = append(gs, recoveryGroup{runs[0].Tool, runs[0].Parallel, runs})
	}
	return gs
}

// Name is the tool's, with how many workers or processes it has.
func (g recoveryGroup) Name() string { return parallel(g.Tool, g.Parallel) }

func (r recovered) name() string { return parallel(r.Tool, r.Parallel) }

func (g recoveryGroup) Command() string { return g.Runs[0].Command }

func (g recoveryGroup) Ready() []float64 {
	return values(g.Runs, func(r recovered) float64 { return r.Ready })
}
func (g recoveryGroup) Seconds() []float64 {
	return values(g.Runs, func(r recovered) float64 { return r.Seconds })
}
func (g recoveryGroup) Rate() []float64 {
	return values(g.Runs, func(r recovered) float64 { return float64(r.Segments) / r.Seconds })
}
func (g recoveryGroup) CPU() []float64 { // milliseconds a segment
	return values(g.Runs, func(r recovered) float64 { return 1000 * r.CPU / float64(r.Segments) })
}

// recoveryGoals compare each tool as its manual recommends it. What cp reaches is the most that any tool can.
func recoveryGoals(all []recovered) []goal {
	rate := map[string]float64{}
	for _, g := range recoveryGroups(all) {
		rate[g.Tool] = median(g.Rate())
	}
	if rate[toolPrefetch] == 0 || rate[toolBackRest] == 0 {
		return nil
	}
	return []goal{{What: fmt.Sprintf("segments a second, as a multiple of pgBackRest's (cp is %.2f times pgBackRest's)", rate[toolCopy]/rate[toolBackRest]),
		Got: rate[toolPrefetch] / rate[toolBackRest], Limit: 2, AtLeast: true}}
}

func recoveryPlots(raw []byte) (map[string]string, error) {
	var m measured[recovered]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	var bars []bar
	for _, g := range recoveryGroups(m.Result) {
		bars = append(bars, bar{Label: g.Name(), Values: g.Rate(), Ours: g.Tool == toolPrefetch || g.Tool == toolAlone})
	}
	return map[string]string{"recovery": barChart("A server recovers", "segments/s", bars)}, nil
}
