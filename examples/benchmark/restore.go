package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// restored is one run: restore_command is called for every segment, one after the other, as a recovery does it. After each call the
// segment is "replayed": read, compared with the original, and then it is waited until Replay is over.
type restored struct {
	Tool     string
	Parallel int `json:",omitempty"` // workers or processes that fetch ahead; 0: none do, or the run is older than this field
	Replay   int // milliseconds a segment; 0: it is not even read
	Segments int
	Seconds  float64
	CPU      float64 // seconds of all its processes
	Calls    []int64 // microseconds of each call, from before fork to the end of the process
	Window   int     // segments that walbaton had when they were asked for
	Waited   int     // that it was just fetching
	Archive  int     // that it had not begun to fetch
	Load     load
	Command  string
}

// fetcher is one of those that are compared, with how many workers or processes it fetches ahead.
type fetcher struct {
	name     string
	parallel int
}

const (
	toolPrefetch = "walbaton"
	toolAlone    = "walbaton, restore.prefetch: 0"
	toolBackRest = "pgBackRest, archive-async"
)

// compared are the tools that restore with one time of replay, in turn, so that a busy minute does not fall on one of them alone.
func compared(replay int) []fetcher {
	four := []fetcher{{toolPrefetch, 4}, {toolAlone, 0}, {toolBackRest, 4}}
	if replay > 0 {
		return four // who waits for the replay does not show how many fetch
	}
	return append([]fetcher{{toolPrefetch, 2}, {toolBackRest, 2}}, four...)
}

func (b *bench) restores(ctx context.Context) error {
	r, err := b.archives(ctx)
	if err != nil {
		return err
	}
	var all []restored
	for range b.rounds {
		for _, replay := range []int{0, 50} {
			for _, t := range compared(replay) {
				run, err := r.run(ctx, t, replay)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name, err)
				}
				b.say("%s, %d in parallel, replay %d ms: %d segments in %.1f s, a call p50 %.1f ms, p99 %.1f ms; CPU %.1f s; window %d, waited %d, read %d",
					t.name, t.parallel, replay, run.Segments, run.Seconds, p50(run.Calls), p99(run.Calls), run.CPU, run.Window, run.Waited, run.Archive)
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

// archives fills both with the segments, once.
func (b *bench) archives(ctx context.Context) (*restore, error) {
	if b.from != nil {
		return b.from, nil
	}
	wal, err := b.prepared(ctx)
	if err != nil {
		return nil, err
	}
	names, err := wal.waiting()
	if err != nil {
		return nil, err
	}
	car, err := wal.newSidecar(ctx, drill.Files, "zstd")
	if err != nil {
		return nil, err
	}
	first, beyond := names[:min(b.restored, len(names))], names[min(b.restored, len(names)):]
	r := &restore{wal: wal, names: first, c: car.archive, data: filepath.Join(car.archive.Dir, "restored")}
	b.say("walbaton archives %d segments", len(names))
	if err := errors.Join(car.start(), car.all(ctx, len(names)), car.end()); err != nil {
		return nil, errors.Join(err, r.close())
	}
	b.say("pgBackRest archives them, too")
	if err := errors.Join(r.place(ctx), r.backRest(ctx), r.cut(beyond)); err != nil {
		return nil, errors.Join(err, r.close())
	}
	b.from = r
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

// backRest archives the segments with pgBackRest: the same compression at its fastest level. How many processes fetch is said in the call.
func (r *restore) backRest(ctx context.Context) (err error) {
	r.back, err = newBackRest(ctx, r.c, r.data, filepath.Join(r.c.Dir, "pgbackrest/repository"), "compress-type=zst", "compress-level=1", "archive-get-queue-max=1GiB")
	if err != nil {
		return err
	}
	if err := r.back.create(ctx); err != nil {
		return err
	}
	for _, name := range r.names { // from the server's pg_wal, and with them what comes after; the data directory of the restore has the same pg_control
		if err := drill.Run(r.back.command(ctx, "--pg1-path="+r.wal.data, "archive-push", filepath.Join(r.wal.data, "pg_wal", name))); err != nil {
			return err
		}
	}
	return r.quiet(ctx)
}

// cut removes from both archives what comes after the segments that are restored. Else the tools would fetch ahead what nobody asks for.
func (r *restore) cut(beyond []string) error {
	var all []error
	for _, archive := range []string{"store", "pgbackrest/repository"} {
		all = append(all, filepath.WalkDir(filepath.Join(r.c.Dir, archive), func(path string, file fs.DirEntry, err error) error {
			if err != nil || len(file.Name()) < 24 {
				return err
			}
			if _, found := slices.BinarySearch(beyond, file.Name()[:24]); found {
				return os.Remove(path)
			}
			return nil
		}))
	}
	return errors.Join(all...)
}

// quiet waits until no process of pgBackRest works any more, and empties its queue.
func (r *restore) quiet(ctx context.Context) error {
	if r.back == nil {
		return nil
	}
	return errors.Join(r.back.quiet(ctx), r.back.empty())
}

// run restores all segments once.
func (r *restore) run(ctx context.Context, t fetcher, replay int) (run restored, err error) {
	run = restored{Tool: t.name, Parallel: t.parallel, Replay: replay, Segments: len(r.names)}
	if err := r.warm(ctx); err != nil {
		return run, err
	}
	grown, err := newTree(r.c.Dir, noStore)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, grown.close()) }()
	var car *sidecar
	if t.name != toolBackRest {
		if car, err = r.sidecar(ctx, t, r.data, grown); err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, car.end()) }()
	}
	command := func(name string) *exec.Cmd { return r.command(ctx, t, r.data, name, "pg_wal/RECOVERYXLOG") }
	run.Command = fmt.Sprint(command(r.names[0]))
	m, err := grown.meter()
	if err != nil {
		return run, err
	}
	for _, name := range r.names {
		cmd := command(name)
		grown.plant(cmd)
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
	if run.Seconds, run.CPU, run.Load, err = m.read(); err != nil {
		return run, err
	}
	if car == nil {
		return run, r.quiet(ctx)
	}
	values, err := scrape(ctx, car.address)
	from := func(name string) int { return int(values[`walbaton_fetch_segments_total{from="`+name+`"}`]) }
	run.Window, run.Waited, run.Archive = from("window"), from("waited"), from("archive")
	return run, err
}

// command is the restore_command of a tool: for a call of it, or with %f and %p for PostgreSQL.
func (r *restore) command(ctx context.Context, t fetcher, data, file, path string) *exec.Cmd {
	switch t.name {
	case toolCopy:
		return r.c.Command(ctx, "cp", filepath.Join(r.wal.data, "pg_wal", file), path)
	case toolBackRest:
		return r.back.command(ctx, "--pg1-path="+data, fmt.Sprintf("--process-max=%d", t.parallel), "archive-get", file, path)
	}
	return r.c.Command(ctx, "walbaton-wal", "fetch", "--socket", r.c.Nodes[0].Socket(), file, path)
}

// noStore is the store of a run whose archive is a folder.
func noStore() float64 { return 0 }

// treeMeter is a meter of a run whose processes are a tree. What they did before it is not counted.
type treeMeter struct {
	meter
	grown       *tree
	used, ended float64 // by the tree, and by our children that had ended
}

func (t *tree) meter() (m treeMeter, err error) {
	user, system, err := t.cpu()
	return treeMeter{meter: startMeter(), grown: t, used: user + system, ended: rusage(syscall.RUSAGE_CHILDREN)}, err
}

// read says what the run has taken so far: seconds, and those of CPU time.
func (m treeMeter) read() (seconds, cpu float64, l load, err error) {
	user, system, err := m.grown.cpu()
	cpu = user + system - m.used
	seconds, l = m.stop(cpu - (rusage(syscall.RUSAGE_CHILDREN) - m.ended)) // the meter knows our children
	return seconds, cpu, l, err
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
func (r *restore) sidecar(ctx context.Context, t fetcher, data string, grown *tree) (*sidecar, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	car := &sidecar{archive: r.c, address: l.Addr().String(), ended: make(chan struct{})}
	l.Close()
	args := []string{"sidecar", "--dcs-kind", "static", "--scope", "bench", "--name", "pg1", "--archive", r.c.Store.URL(),
		"--postgres-data-dir", data, "--socket", car.socket(), "--listen", car.address}
	if t.name == toolAlone {
		args = append(args, "--restore-prefetch", "0")
	} else {
		args = append(args, "--workers", fmt.Sprint(t.parallel))
	}
	car.cmd = r.c.Command(context.WithoutCancel(ctx), "walbaton", args...)
	grown.plant(car.cmd)
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
	Tool     string
	Parallel int
	Replay   int
	Runs     []restored
}

func restoreGroups(all []restored) (gs []restoreGroup) {
	type kind struct {
		name   string
		replay int
	}
	for _, runs := range gather(all, func(r restored) kind { return kind{r.name(), r.Replay} }) {
		gs = append(gs, restoreGroup{runs[0].Tool, runs[0].Parallel, runs[0].Replay, runs})
	}
	return gs
}

func (g restoreGroup) Segments() int { return g.Runs[0].Segments }

func (g restoreGroup) Seconds() []float64 {
	return values(g.Runs, func(r restored) float64 { return r.Seconds })
}
func (g restoreGroup) Rate() []float64 {
	return values(g.Runs, func(r restored) float64 { return float64(r.Segments) / r.Seconds })
}
func (g restoreGroup) P50() []float64 {
	return values(g.Runs, func(r restored) float64 { return p50(r.Calls) })
}
func (g restoreGroup) P99() []float64 {
	return values(g.Runs, func(r restored) float64 { return p99(r.Calls) })
}
func (g restoreGroup) CPU() []float64 { // milliseconds a segment
	return values(g.Runs, func(r restored) float64 { return 1000 * r.CPU / float64(r.Segments) })
}

// Share of the segments that were there when they were asked for, in percent.
func (g restoreGroup) Share() []float64 {
	if g.Tool != toolPrefetch {
		return nil
	}
	return values(g.Runs, func(r restored) float64 { return 100 * float64(r.Window) / float64(r.Segments) })
}

// restoreGoals compare with pgBackRest at the same number of workers and processes, where nothing is replayed.
func restoreGoals(all []restored) (goals []goal) {
	gs := restoreGroups(all)
	for _, ours := range gs {
		for _, theirs := range gs {
			if ours.Tool == toolPrefetch && theirs.Tool == toolBackRest && ours.Replay+theirs.Replay == 0 && ours.Parallel == theirs.Parallel {
				what := "segments a second, as a multiple of pgBackRest's"
				if ours.Parallel > 0 {
					what += fmt.Sprintf(" with %d processes", ours.Parallel)
				}
				goals = append(goals, goal{What: what, Got: median(ours.Rate()) / median(theirs.Rate()), Limit: 2, AtLeast: true})
			}
		}
	}
	return goals
}

func restorePlots(raw []byte) (map[string]string, error) {
	var m measured[restored]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	var bars []bar
	for _, g := range restoreGroups(m.Result) {
		if g.Replay == 0 {
			bars = append(bars, bar{Label: g.Name(), Values: g.Rate(), Ours: g.Tool != toolBackRest})
		}
	}
	return map[string]string{"restore": barChart("Restore, without replay", "segments/s", bars)}, nil
}

// Name is the tool's, with how many workers or processes it has.
func (g restoreGroup) Name() string { return parallel(g.Tool, g.Parallel) }

func (r restored) name() string { return parallel(r.Tool, r.Parallel) }

// parallel is a tool with how many of its workers or processes fetch.
func parallel(tool string, n int) string {
	switch {
	case n == 0:
		return tool
	case tool == toolBackRest:
		return fmt.Sprintf("%s, %d processes", tool, n)
	}
	return fmt.Sprintf("%s, %d workers", tool, n)
}
