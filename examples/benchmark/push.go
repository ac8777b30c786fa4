package main

import (
	"context"
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
