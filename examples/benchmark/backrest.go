package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// backRest is a pgBackRest that archives asynchronously, with a configuration, a queue and locks of its own, below the folder of c. Its
// asynchronous process asks no server: it looks into pg_wal/archive_status of the data directory, and at its pg_control.
type backRest struct {
	c        *drill.Cluster
	dir      string
	settings []string
}

// newBackRest writes the configuration. The repository is a folder that user postgres may write.
func newBackRest(ctx context.Context, c *drill.Cluster, data, repository string, settings ...string) (*backRest, error) {
	r := &backRest{c: c, dir: filepath.Join(c.Dir, "pgbackrest"), settings: settings}
	if err := errors.Join(os.Mkdir(r.dir, 0o755), drill.Run(exec.CommandContext(ctx, "chown", "postgres", r.dir))); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`[global]
repo1-path=%[1]s
log-path=%[2]s/log
lock-path=%[2]s/lock
spool-path=%[2]s/spool
log-level-file=off
log-level-console=warn
archive-async=y
%[3]s

[bench]
pg1-path=%[4]s
`, repository, r.dir, strings.Join(settings, "\n"), data)
	return r, os.WriteFile(r.conf(), []byte(text), 0o644)
}

func (r *backRest) conf() string { return filepath.Join(r.dir, "pgbackrest.conf") }

// create makes the stanza. The server, if there is one, is not asked.
func (r *backRest) create(ctx context.Context) error {
	return drill.Run(r.command(ctx, "--no-online", "stanza-create"))
}

func (r *backRest) command(ctx context.Context, args ...string) *exec.Cmd {
	return r.c.Command(ctx, "pgbackrest", append([]string{"--config=" + r.conf(), "--stanza=bench"}, args...)...)
}

// archiveCommand is what the manual says for archive_command.
func (r *backRest) archiveCommand() string {
	return "pgbackrest --config=" + r.conf() + " --stanza=bench archive-push %p"
}

// quiet waits until no process of it works any more.
func (r *backRest) quiet(ctx context.Context) error {
	return until(ctx, time.Minute, 100*time.Millisecond, "pgBackRest has ended", func() (bool, error) {
		pids, err := naming("--config=" + r.conf())
		return len(pids) == 0, err
	})
}

// end ends what works of it: the asynchronous process outlives the call that began it, and would make its folders again.
func (r *backRest) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pids, err := naming("--config=" + r.conf())
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	return errors.Join(err, r.quiet(ctx))
}

// empty empties its queue.
func (r *backRest) empty() error { return os.RemoveAll(filepath.Join(r.dir, "spool")) }

// acknowledges says what is wrong unless that many segments lie in its queue as archived.
func (r *backRest) acknowledges(want int) error {
	got, err := filepath.Glob(filepath.Join(r.dir, "spool/archive/bench/out/*.ok"))
	if err == nil && len(got) != want {
		err = fmt.Errorf("pgBackRest has %d of %d segments in its queue", len(got), want)
	}
	return err
}
