package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// backlogged is one run: a sidecar starts, and that many files wait.
type backlogged struct {
	Files    int     // that have .ready
	Written  int     // the first of them, which are WAL: more than it ships in the time
	Seconds  float64 // from the start of its process until the run was ended
	FirstPut float64 // until the first segment had its name in the archive
	Put      int     // segments that it had put in the end
	CPU      float64 // its user and system time in seconds
	PeakAnon int64   // bytes: the largest RssAnon of all samples
	Load     load

	// Reads are of another run of its own, under strace, which makes it slower.
	Reads   map[string]reads `json:",omitempty"`
	Command string
}

// reads are those of a directory: getdents64(2).
type reads struct {
	Scans   int // that came to its end
	Before  int // of these, before the first put
	Calls   int
	Entries int
}

// after the first put a run goes on for this long, or until everything was put.
const goesOn = 10 * time.Second

// backlogs are runs with more and more files.
func (b *bench) backlogs(ctx context.Context) (err error) {
	sizes, written := []int{1000, 10_000, 100_000}, 3000
	if b.full {
		sizes, written = []int{1000, 5000, 10_000, 100_000, 1_000_000}, 5000
	}
	s, err := b.newSmall(ctx, written)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var all []backlogged
	for _, files := range sizes {
		written, err := s.choose(ctx, files)
		if err != nil {
			return err
		}
		for i := range b.rounds + 1 {
			r, err := s.backlog(ctx, files, written, i == b.rounds)
			if err != nil {
				return fmt.Errorf("%d files: %w", files, err)
			}
			b.say("%d files: first put after %.2f s, %d put in %.1f s, CPU %.1f s, %.1f MB anonymous; others used %.2f cores %v",
				files, r.FirstPut, r.Put, r.Seconds, r.CPU, float64(r.PeakAnon)/(1<<20), r.Load.Others, r.Reads)
			all = append(all, r)
			if err := b.save(ctx, "backlog", all); err != nil {
				return err
			}
		}
	}
	return nil
}

// backlog is one run, with a new archive in a folder.
func (s *small) backlog(ctx context.Context, files, written int, traced bool) (r backlogged, err error) {
	car, err := s.newSidecar(ctx, drill.Files, "zstd")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, car.close()) }()
	if err := s.warm(ctx, s.names[:written]); err != nil {
		return r, err
	}
	r = backlogged{Files: files, Written: written, Command: strings.Join(car.cmd.Args, " ")}
	trace := filepath.Join(car.archive.Nodes[0].Dir, "strace") // a folder of user postgres
	if traced {
		if car.cmd.Args, car.cmd.Path, err = underStrace(car.cmd, trace); err != nil {
			return r, err
		}
	}
	begin, m := time.Now(), startMeter()
	if err := car.start(); err != nil {
		return r, err
	}
	first, err := car.sample(ctx, &r, begin)
	if err != nil {
		return r, err
	}
	r.FirstPut = first.Sub(begin).Seconds()
	if traced {
		if err := car.end(); err != nil {
			return r, err
		}
		f, err := os.Open(trace)
		if err != nil {
			return r, err
		}
		defer f.Close()
		r.Reads, err = countReads(f, first)
		return r, err
	}
	user, system, err := processCPU(car.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	r.CPU = user + system
	r.Seconds, r.Load = m.stop(r.CPU)
	return r, nil
}

// sample samples memory until the run is over, and gives when the first segment was put. The sidecar is not asked: to answer it would look at all files.
func (car *sidecar) sample(ctx context.Context, r *backlogged, begin time.Time) (first time.Time, err error) {
	status := fmt.Sprintf("/proc/%d/status", car.cmd.Process.Pid)
	err = until(ctx, 5*time.Minute, 20*time.Millisecond, "the first segment is in the archive", func() (bool, error) {
		r.PeakAnon = max(r.PeakAnon, kilobytes(status, "RssAnon")<<10)
		if err := car.runs(); err != nil {
			return false, err
		}
		var err error
		r.Put, first, err = car.segments()
		return r.Put > 0, err
	})
	if err != nil {
		return first, err
	}
	err = until(ctx, time.Minute, 20*time.Millisecond, "the time is over", func() (bool, error) {
		r.PeakAnon = max(r.PeakAnon, kilobytes(status, "RssAnon")<<10)
		if err := car.runs(); err != nil {
			return false, err
		}
		var err error
		r.Put, _, err = car.segments()
		return r.Put >= r.Written-50 && r.Written < r.Files || r.Put >= r.Files || r.Written < r.Files && time.Since(first) > goesOn, err
	})
	return first, err
}

// segments counts those in the folder of the archive, and gives when the first one got its name there.
func (car *sidecar) segments() (n int, first time.Time, err error) {
	all, err := filepath.Glob(filepath.Join(strings.TrimPrefix(car.archive.Store.URL(), "file://"), "*/*/wal/*", strings.Repeat("[0-9A-F]", 24)))
	if err != nil || len(all) == 0 {
		return 0, first, err
	}
	for _, path := range all[:min(len(all), 20)] { // four workers began with the oldest
		at, err := changed(path)
		if err != nil {
			return 0, first, err
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return len(all), first, nil
}

// underStrace makes a command run under strace, which writes its reads of directories to a file.
func underStrace(cmd *exec.Cmd, file string) (args []string, path string, err error) {
	if path, err = exec.LookPath("strace"); err != nil {
		return nil, "", err
	}
	args = []string{"strace", "-f", "-y", "-ttt", "-e", "trace=getdents64", "-e", "signal=none", "-o", file, cmd.Path}
	return append(args, cmd.Args[1:]...), path, nil
}

// countReads reads what strace wrote, with the folders of pg_wal by their names. A call of one thread may be interrupted by others: then its
// answer has a line of its own.
func countReads(trace io.Reader, first time.Time) (map[string]reads, error) {
	call := regexp.MustCompile(`^(\d+) +([\d.]+) getdents64\(\d+<(.*?)>`)
	answered := regexp.MustCompile(`^(\d+) +([\d.]+) .*/\* (\d+) entries \*/.*\) += (\d+)`)
	all := map[string]reads{}
	open := map[string]string{} // the folder that a thread reads
	lines := bufio.NewScanner(trace)
	for lines.Scan() {
		if found := call.FindStringSubmatch(lines.Text()); found != nil {
			open[found[1]] = filepath.Base(found[3])
		}
		answer := answered.FindStringSubmatch(lines.Text())
		if answer == nil {
			continue
		}
		name := open[answer[1]]
		if !slices.Contains([]string{"pg_wal", "archive_status"}, name) {
			continue
		}
		seconds, err := strconv.ParseFloat(answer[2], 64)
		if err != nil {
			return nil, err
		}
		entries, err := strconv.Atoi(answer[3])
		if err != nil {
			return nil, err
		}
		r := all[name]
		r.Calls++
		r.Entries += entries
		if answer[4] == "0" {
			r.Scans++
			if seconds < float64(first.UnixMicro())/1e6 {
				r.Before++
			}
		}
		all[name] = r
	}
	return all, lines.Err()
}
