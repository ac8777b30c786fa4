package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// ack is one run: PostgreSQL's archiver asks for segments that the archive has already, and then the driver calls the same program for them, one
// call after the other.
type ack struct {
	Tool     string
	Segments int
	Seconds  float64 // from the first .done file to the last, by PostgreSQL's archiver
	Calls    []int64 // microseconds of each call by the driver, from before fork to the end of the process
	Sidecar  float64 // CPU time in seconds of walbaton's sidecar, for all calls of the driver
	Load     load    // while the driver called
	Command  string  // archive_command
}

// binTrue is the program that answers 0 at once: what a call costs that does nothing.
const binTrue = "/bin/true"

// acks runs the tools in turn.
func (b *bench) acks(ctx context.Context) (err error) {
	wal, err := b.prepared(ctx)
	if err != nil {
		return err
	}
	names, err := wal.waiting()
	if err != nil {
		return err
	}
	tools := []tool{{Tool: binTrue}, files(walbaton, "zstd", 4, 0), files(pgBack, "zstd", 2, 0)}
	var ins []*installed
	defer func() {
		for _, in := range ins {
			err = errors.Join(err, in.close())
		}
	}()
	for _, t := range tools {
		in, err := wal.covered(ctx, t, names)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Tool, err)
		}
		ins = append(ins, in)
		b.say("%s has all segments", t.Tool)
	}
	var all []ack
	for range b.rounds {
		begin := len(all)
		for i, in := range ins {
			a := ack{Tool: tools[i].Tool, Segments: len(names), Command: in.said(in.command)}
			if a.Seconds, err = wal.acknowledge(ctx, in.command, names); err != nil {
				return fmt.Errorf("%s: %w", a.Tool, err)
			}
			all = append(all, a)
		}
		if err := wal.call(ctx, ins, names, b.calls, all[begin:]); err != nil {
			return err
		}
		for _, a := range all[begin:] {
			b.say("%s: the archiver %.0f segments/s; a call p50 %.2f ms, p99 %.2f, p999 %.2f", a.Tool, a.rate(), p50(a.Calls), p99(a.Calls), p999(a.Calls))
		}
		if err := b.save(ctx, "ack", all); err != nil {
			return err
		}
	}
	return nil
}

// covered sets a tool up and lets it archive every segment, so that it has only to say so. walbaton's sidecar goes on.
func (s *segments) covered(ctx context.Context, t tool, names []string) (in *installed, err error) {
	if t.Tool == binTrue {
		archive, err := s.newArchive(ctx, drill.Files)
		return &installed{archive: archive, command: binTrue}, err
	}
	if in, err = s.install(ctx, t); err != nil {
		return nil, err
	}
	if in.car != nil {
		err = in.car.start()
	}
	if err == nil {
		_, err = s.archive(ctx, in, &tree{}, names)
	}
	if err == nil && in.back != nil {
		if err = in.back.quiet(ctx); err == nil {
			err = in.back.acknowledges(len(names))
		}
	}
	if err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// acknowledge lets PostgreSQL's archiver call a command for all segments, and returns how long it took from the first .done file to the last.
// Afterwards all wait as before.
func (s *segments) acknowledge(ctx context.Context, command string, names []string) (seconds float64, err error) {
	if err := drill.Run(s.c.Command(ctx, "sync")); err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.setArchiveCommand(ctx, ""), s.unacknowledge())
	}()
	if err := s.setArchiveCommand(ctx, command); err != nil {
		return 0, err
	}
	err = until(ctx, 5*time.Minute, 50*time.Millisecond, "every segment is archived", func() (bool, error) {
		left, err := s.waiting()
		return len(left) == 0, err
	})
	if err != nil {
		return 0, err
	}
	var times []time.Time // a rename changes the inode
	for _, name := range names {
		at, err := changed(s.status(name + ".done"))
		if err != nil {
			return 0, err
		}
		times = append(times, at)
	}
	return slices.MaxFunc(times, time.Time.Compare).Sub(slices.MinFunc(times, time.Time.Compare)).Seconds(), nil
}

// setArchiveCommand sets it, and returns when the server knows; "" is what the segments wait with.
func (s *segments) setArchiveCommand(ctx context.Context, command string) error {
	set := "alter system reset archive_command"
	if command != "" {
		set = "alter system set archive_command = '" + strings.ReplaceAll(command, "'", "''") + "'"
	}
	for _, sql := range []string{set, "select pg_reload_conf()"} {
		if err := s.exec(ctx, sql); err != nil {
			return err
		}
	}
	return until(ctx, time.Minute, 10*time.Millisecond, "the server has the new archive_command", func() (bool, error) {
		conn, err := pgx.Connect(ctx, s.dsn()) // a new one has what the postmaster has
		if err != nil {
			return false, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var has string
		err = conn.QueryRow(ctx, "select current_setting('archive_command')").Scan(&has)
		return has == command, err
	})
}

// unacknowledge makes every segment wait again.
func (s *segments) unacknowledge() error {
	done, err := filepath.Glob(s.status("*.done"))
	for _, path := range done {
		err = errors.Join(err, os.Rename(path, strings.TrimSuffix(path, "done")+"ready"))
	}
	return err
}

// status is the path of a file in archive_status.
func (s *segments) status(name string) string {
	return filepath.Join(s.data, "pg_wal/archive_status", name)
}

// call calls each tool's command in turn, over all segments, without a shell: A B C A B C.
func (s *segments) call(ctx context.Context, ins []*installed, names []string, calls int, acks []ack) error {
	if err := drill.Run(s.c.Command(ctx, "sync")); err != nil {
		return err
	}
	begun := make([]float64, len(ins))
	for i, in := range ins {
		begun[i] = in.sidecarCPU()
	}
	m := startMeter()
	for n := range calls {
		for i, in := range ins {
			words := strings.Fields(strings.ReplaceAll(in.command, "%p", "pg_wal/"+names[n%len(names)]))
			cmd := in.archive.Command(ctx, words[0], words[1:]...)
			cmd.Dir = s.data
			took, err := timed(cmd)
			if err != nil {
				return err
			}
			acks[i].Calls = append(acks[i].Calls, took)
		}
	}
	var sum float64
	for i, in := range ins {
		acks[i].Sidecar = in.sidecarCPU() - begun[i]
		sum += acks[i].Sidecar
	}
	_, l := m.stop(sum)
	for i := range acks {
		acks[i].Load = l
	}
	return nil
}

// timed runs a program and returns how long it took in microseconds.
func timed(cmd *exec.Cmd) (int64, error) {
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", cmd, err)
	}
	return time.Since(begin).Microseconds(), nil
}

// sidecarCPU is the CPU time in seconds of walbaton's sidecar so far; other tools have none.
func (in *installed) sidecarCPU() float64 {
	if in.car == nil {
		return 0
	}
	user, system, err := processCPU(in.car.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return user + system
}

func (a ack) rate() float64 { return float64(a.Segments-1) / a.Seconds }

// ackGroup is the runs of one tool.
type ackGroup struct {
	Tool string
	Runs []ack
}

func ackGroups(all []ack) (gs []ackGroup) {
	for _, runs := range gather(all, func(a ack) string { return a.Tool }) {
		gs = append(gs, ackGroup{runs[0].Tool, runs})
	}
	return gs
}

func (g ackGroup) calls(of func([]int64) float64) []float64 {
	return values(g.Runs, func(a ack) float64 { return of(a.Calls) })
}

func (g ackGroup) Rate() []float64 { return values(g.Runs, ack.rate) }
func (g ackGroup) P50() []float64  { return g.calls(p50) }
func (g ackGroup) P99() []float64  { return g.calls(p99) }
func (g ackGroup) P999() []float64 { return g.calls(p999) }
func (g ackGroup) Each() []float64 { // milliseconds of the archiver for a segment
	return values(g.Runs, func(a ack) float64 { return 1000 / a.rate() })
}
func (g ackGroup) Sidecar() []float64 { // milliseconds a call
	return values(g.Runs, func(a ack) float64 { return 1000 * a.Sidecar / float64(len(a.Calls)) })
}

// ackGoals are those of issue 6 about one answer, as differences in the same round.
func ackGoals(all []ack) []goal {
	var ours, none ackGroup
	for _, g := range ackGroups(all) {
		switch g.Tool {
		case walbaton:
			ours = g
		case binTrue:
			none = g
		}
	}
	if len(ours.Runs) == 0 || len(none.Runs) < len(ours.Runs) {
		return nil
	}
	more := func(of func(ackGroup) []float64) (all []float64) {
		for i, v := range of(ours) {
			all = append(all, v-of(none)[i])
		}
		return all
	}
	return []goal{
		{What: "one call, p50: more than `/bin/true`", Got: median(more(ackGroup.P50)), Limit: 1.5, Unit: " ms"},
		{What: "one segment of PostgreSQL's archiver: more than with `/bin/true`", Got: median(more(ackGroup.Each)), Limit: 1.5, Unit: " ms"},
		{What: "one call, p99", Got: median(ours.P99()), Limit: 10, Unit: " ms"},
	}
}

// ackFuncs are what the template needs.
func ackFuncs() template.FuncMap {
	return template.FuncMap{"groups": ackGroups, "goals": ackGoals, "walbaton": func() string { return walbaton }}
}
