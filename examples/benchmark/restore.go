package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// restored is one run: restore_command is called for every segment, one after the other, as a recovery does it. After each call the
// segment is "replayed": read, compared with the original, and then it is waited until Replay is over.
type restored struct {
	Tool     string
	Replay   int // milliseconds a segment; 0: it is not even read
	Segments int
	Seconds  float64
	CPU      float64 // seconds of the whole machine
	Calls    []int64 // microseconds of each call, from before fork to the end of the process
	Window   int     // segments that walbaton had when they were asked for
	Waited   int     // that it was just fetching
	Archive  int     // that it had not begun to fetch
	Load     load
	Command  string
}

// The tools that are compared.
const (
	toolPrefetch = "walbaton"
	toolAlone    = "walbaton, restore.prefetch: 0"
	toolBackRest = "pgBackRest, archive-async"
)

// restores runs them in turn, so that a busy minute does not fall on one tool alone.
func (b *bench) restores(ctx context.Context) (err error) {
	wal, err := b.prepared(ctx)
	if err != nil {
		return err
	}
	r, err := b.newRestore(ctx, wal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	var all []restored
	for range b.rounds {
		for _, replay := range []int{0, 50} {
			for _, tool := range []string{toolPrefetch, toolAlone, toolBackRest} {
				run, err := r.run(ctx, tool, replay)
				if err != nil {
					return fmt.Errorf("%s: %w", tool, err)
				}
				b.say("%s, replay %d ms: %d segments in %.1f s, a call p50 %.1f ms, p99 %.1f ms; machine's CPU %.1f s; window %d, waited %d, read %d",
					tool, replay, run.Segments, run.Seconds, p50(run.Calls), p99(run.Calls), run.CPU, run.Window, run.Waited, run.Archive)
				all = append(all, run)
				if err := b.save(ctx, "restore", all); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// restore has the segments in an archive of walbaton's and in a repository of pgBackRest's, both below one folder, and a data
// directory in recovery without a server.
type restore struct {
	wal   *segments
	names []string
	c     *drill.Cluster
	data  string // the data directory
	back  *backRest
}

func (b *bench) newRestore(ctx context.Context, wal *segments) (*restore, error) {
	names, err := wal.waiting()
	if err != nil {
		return nil, err
	}
	car, err := wal.newSidecar(ctx, drill.Files, "zstd")
	if err != nil {
		return nil, err
	}
	r := &restore{wal: wal, names: names, c: car.archive, data: filepath.Join(car.archive.Dir, "restored")}
	b.say("walbaton archives %d segments", len(names))
	if err := errors.Join(car.start(), car.all(ctx, len(names)), car.end()); err != nil {
		return nil, errors.Join(err, r.close())
	}
	b.say("pgBackRest archives them, too")
	if err := errors.Join(r.place(ctx), r.backRest(ctx)); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// place makes the data directory: what restore_command looks at, and no more.
func (r *restore) place(ctx context.Context) error {
	script := `mkdir -p "$2/global" "$2/pg_wal" && chmod 700 "$2" && cp "$1/PG_VERSION" "$2/" && cp "$1/global/pg_control" "$2/global/" && touch "$2/recovery.signal"`
	if err := drill.Run(exec.CommandContext(ctx, "chmod", "777", r.c.Dir)); err != nil {
		return err
	}
	return drill.Run(r.c.Command(ctx, "sh", "-c", script, "sh", r.wal.data, r.data))
}

// backRest archives the segments with pgBackRest: the same compression at its fastest level, and as many processes as walbaton has workers.
func (r *restore) backRest(ctx context.Context) (err error) {
	r.back, err = newBackRest(ctx, r.c, r.data, filepath.Join(r.c.Dir, "pgbackrest/repository"), "compress-type=zst", "compress-level=1", "process-max=4", "archive-get-queue-max=1GiB")
	if err != nil {
		return err
	}
	if err := r.back.create(ctx); err != nil {
		return err
	}
	for _, name := range r.names { // from the server's pg_wal; the data directory of the restore has the same pg_control
		if err := drill.Run(r.back.command(ctx, "--pg1-path="+r.wal.data, "archive-push", filepath.Join(r.wal.data, "pg_wal", name))); err != nil {
			return err
		}
	}
	return r.quiet(ctx)
}

// quiet waits until no process of pgBackRest works any more, and empties its queue.
func (r *restore) quiet(ctx context.Context) error {
	if r.back == nil {
		return nil
	}
	return errors.Join(r.back.quiet(ctx), r.back.empty())
}

// run restores all segments once.
func (r *restore) run(ctx context.Context, tool string, replay int) (run restored, err error) {
	run = restored{Tool: tool, Replay: replay, Segments: len(r.names)}
	if err := r.warm(ctx); err != nil {
		return run, err
	}
	command := func(name string) *exec.Cmd { return r.back.command(ctx, "archive-get", name, "pg_wal/RECOVERYXLOG") }
	var car *sidecar
	if tool != toolBackRest {
		if car, err = r.sidecar(ctx, tool == toolPrefetch); err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, car.end()) }()
		command = func(name string) *exec.Cmd {
			return r.c.Command(ctx, "walbaton-wal", "fetch", "--socket", car.socket(), name, "pg_wal/RECOVERYXLOG")
		}
	}
	run.Command = fmt.Sprint(command(r.names[0]))
	busy, m := machineCPU(), startMeter()
	for _, name := range r.names {
		cmd := command(name)
		cmd.Dir = r.data
		took, err := timed(cmd)
		if err != nil {
			return run, err
		}
		run.Calls = append(run.Calls, took)
		if err := r.replay(ctx, name, time.Duration(replay)*time.Millisecond); err != nil {
			return run, err
		}
	}
	run.CPU = machineCPU() - busy
	run.Seconds, run.Load = m.stop(0)
	run.Load.Others = 0 // not known: pgBackRest's processes are not ours
	if car == nil {
		return run, r.quiet(ctx)
	}
	values, err := scrape(ctx, car.address)
	from := func(name string) int { return int(values[`walbaton_fetch_segments_total{from="`+name+`"}`]) }
	run.Window, run.Waited, run.Archive = from("window"), from("waited"), from("archive")
	return run, err
}

// replay reads the segment, as a recovery would, and compares it.
func (r *restore) replay(ctx context.Context, name string, takes time.Duration) error {
	path := filepath.Join(r.data, "pg_wal", "RECOVERYXLOG")
	begin := time.Now()
	if takes == 0 {
		info, err := os.Stat(path)
		if err == nil && info.Size() != 16<<20 {
			err = fmt.Errorf("%s has %d bytes", name, info.Size())
		}
		return errors.Join(err, os.Remove(path))
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	want, err := os.ReadFile(filepath.Join(r.wal.data, "pg_wal", name))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s is not what was archived", name)
	}
	if err := errors.Join(err, os.Remove(path)); err != nil {
		return err
	}
	select {
	case <-time.After(takes - time.Since(begin)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// warm reads both archives, so that they come from the page cache, and writes out what the last run left.
func (r *restore) warm(ctx context.Context) error {
	return drill.Run(r.c.Command(ctx, "sh", "-c", `sync; find "$1/store" "$1/pgbackrest/repository" -type f -exec cat {} + >/dev/null`, "sh", r.c.Dir))
}

// sidecar starts walbaton beside the data directory, and waits until it answers.
func (r *restore) sidecar(ctx context.Context, prefetch bool) (*sidecar, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	car := &sidecar{archive: r.c, address: l.Addr().String(), ended: make(chan struct{})}
	l.Close()
	args := []string{"sidecar", "--dcs-kind", "static", "--scope", "bench", "--name", "pg1", "--archive", r.c.Store.URL(),
		"--postgres-data-dir", r.data, "--socket", car.socket(), "--listen", car.address}
	if !prefetch {
		args = append(args, "--restore-prefetch", "0")
	}
	car.cmd = r.c.Command(context.WithoutCancel(ctx), "walbaton", args...)
	if err := car.start(); err != nil {
		return nil, err
	}
	err = until(ctx, time.Minute, 50*time.Millisecond, "the sidecar answers", func() (bool, error) {
		values, err := scrape(ctx, car.address)
		return err == nil && values["walbaton_archive_open"] == 1, nil
	})
	if err != nil {
		text, _ := os.ReadFile(car.log())
		return nil, errors.Join(err, errors.New(strings.TrimSpace(string(text))), car.end())
	}
	return car, nil
}

func (r *restore) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(r.quiet(ctx), r.c.Stop())
}

// restoreGroup is the runs of one tool with one replay.
type restoreGroup struct {
	Tool   string
	Replay int
	Runs   []restored
}

func restoreGroups(all []restored) (gs []restoreGroup) {
	for _, run := range all {
		i := slices.IndexFunc(gs, func(g restoreGroup) bool { return g.Tool == run.Tool && g.Replay == run.Replay })
		if i < 0 {
			gs = append(gs, restoreGroup{Tool: run.Tool, Replay: run.Replay})
			i = len(gs) - 1
		}
		gs[i].Runs = append(gs[i].Runs, run)
	}
	return gs
}

func (g restoreGroup) values(of func(restored) float64) (all []float64) {
	for _, run := range g.Runs {
		all = append(all, of(run))
	}
	return all
}

func (g restoreGroup) Seconds() []float64 {
	return g.values(func(r restored) float64 { return r.Seconds })
}
func (g restoreGroup) Rate() []float64 {
	return g.values(func(r restored) float64 { return float64(r.Segments) / r.Seconds })
}
func (g restoreGroup) P50() []float64 {
	return g.values(func(r restored) float64 { return p50(r.Calls) })
}
func (g restoreGroup) P99() []float64 {
	return g.values(func(r restored) float64 { return p99(r.Calls) })
}
func (g restoreGroup) CPU() []float64 { // of the machine, milliseconds a segment
	return g.values(func(r restored) float64 { return 1000 * r.CPU / float64(r.Segments) })
}

// Share of the segments that were there when they were asked for, in percent.
func (g restoreGroup) Share() []float64 {
	if g.Tool != toolPrefetch {
		return nil
	}
	return g.values(func(r restored) float64 { return 100 * float64(r.Window) / float64(r.Segments) })
}
