package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// push is one run: calls of `walbaton-wal push` for segments that the archive has already, one after the other, and
// before each a call of /bin/true. The times are in microseconds, from before fork to the end of the process.
type push struct {
	Push, True []int64
	Sidecar    float64 // CPU time in seconds of the sidecar, for all calls
	Load       load
	Command    string
}

func (b *bench) pushes(ctx context.Context) (_ any, err error) {
	wal, err := b.prepared(ctx)
	if err != nil {
		return nil, err
	}
	car, err := wal.newSidecar(ctx, drill.Files, "zstd")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, car.close()) }()
	names, err := wal.waiting()
	if err != nil {
		return nil, err
	}
	if err := car.start(); err != nil {
		return nil, err
	}
	if err := car.watch(ctx, &drain{Segments: len(names)}); err != nil {
		return nil, err
	}
	var all []push
	for range b.rounds {
		p, err := car.push(ctx, wal, names, b.calls)
		if err != nil {
			return nil, err
		}
		b.say("push p50 %.2f ms, p99 %.2f ms; /bin/true %.2f, %.2f", p50(p.Push), p99(p.Push), p50(p.True), p99(p.True))
		all = append(all, p)
	}
	return all, nil
}

// push is one run, over all names in turn. Both programs are started in the same way: as user postgres, in the data
// directory, as PostgreSQL's archiver would do it but without a shell between.
func (car *sidecar) push(ctx context.Context, wal *segments, names []string, calls int) (p push, err error) {
	if err := drill.Run(car.archive.Command(ctx, "sync")); err != nil {
		return p, err
	}
	user, system, err := processCPU(car.cmd.Process.Pid)
	if err != nil {
		return p, err
	}
	begun, m := user+system, startMeter()
	for i := range calls {
		nothing := car.archive.Command(ctx, "/bin/true")
		call := car.archive.Command(ctx, "walbaton-wal", "push", "--socket", car.socket(), filepath.Join("pg_wal", names[i%len(names)]))
		nothing.Dir, call.Dir = wal.data, wal.data
		took, err := timed(nothing)
		if err != nil {
			return p, err
		}
		p.True = append(p.True, took)
		if took, err = timed(call); err != nil {
			return p, err
		}
		p.Push = append(p.Push, took)
		p.Command = fmt.Sprint(call)
	}
	if user, system, err = processCPU(car.cmd.Process.Pid); err != nil {
		return p, err
	}
	p.Sidecar = user + system - begun
	_, p.Load = m.stop(p.Sidecar)
	return p, nil
}

// timed runs a program and returns how long it took in microseconds.
func timed(cmd *exec.Cmd) (int64, error) {
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", cmd, err)
	}
	return time.Since(begin).Microseconds(), nil
}
