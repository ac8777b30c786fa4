package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// segments is a PostgreSQL without Patroni in which finished segments wait. It runs all the time, idle, with
// archive_mode = on and an empty archive_command: it asks nobody to archive, keeps all, and every segment stays .ready,
// whatever a sidecar has put into an archive. So each run finds the same.
type segments struct {
	c    *drill.Cluster // a folder and the programs; it is never started as a cluster
	mb   int            // of a segment
	data string
	base string // a copy of data from before the first segment, without WAL: what a recovery begins with; "" is none
	runs bool   // the server was started
}

const (
	scale = 50 // of pgbench

	bulkLoad = `truncate bulk; insert into bulk
		select g, md5(g::text), (random() * 1e6)::int, now() + g * interval '1 ms', 'order ' || g || ' of customer ' || g % 9973
		from generate_series(1, 1500000) g`
)

// prepared prepares the segments, once.
func (b *bench) prepared(ctx context.Context) (*segments, error) {
	if b.wal != nil {
		return b.wal, nil
	}
	c, err := drill.New(ctx, drill.Options{SegmentMB: 16})
	if err != nil {
		return nil, err
	}
	s := &segments{c: c, mb: 16, data: c.Nodes[0].PGData(), base: filepath.Join(c.Nodes[0].Dir, "base")}
	b.wal = s
	if b.data != "" {
		s.data, s.base = filepath.Join(b.data, "pgdata"), filepath.Join(b.data, "base")
	}
	if _, err := os.Stat(s.data); err != nil {
		if err := s.initialise(ctx, b.data); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if err := s.fill(ctx, b.segments, b.say); err != nil {
		return nil, err
	}
	names, err := s.waiting()
	b.say("%d segments wait", len(names))
	return s, err
}

// initialise makes the database and its base backup, which is a copy: the server has not run yet. A folder that is kept belongs to
// user postgres, as the cluster's own does.
func (s *segments) initialise(ctx context.Context, keep string) error {
	if keep != "" {
		if err := errors.Join(os.MkdirAll(keep, 0o755), drill.Run(exec.CommandContext(ctx, "chown", "postgres", keep))); err != nil {
			return err
		}
	}
	err := drill.Run(s.c.Command(ctx, "initdb", "-D", s.data, "--no-sync", "--data-checksums", fmt.Sprintf("--wal-segsize=%d", s.mb), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, `
listen_addresses = ''
wal_level = replica
archive_mode = on
archive_command = ''
wal_keep_size = '100GB'
max_wal_size = '512MB'
shared_buffers = '512MB'
autovacuum = off
fsync = off
`)
	if err := errors.Join(err, f.Close()); err != nil || s.base == "" {
		return err
	}
	return drill.Run(s.c.Command(ctx, "sh", "-c", `cp -a "$1" "$2.new" && rm -f "$2.new"/pg_wal/0* && mv "$2.new" "$2"`, "sh", s.data, s.base))
}

// reset undoes what a run that was killed in the midst of acknowledge left.
func (s *segments) reset() error {
	return errors.Join(os.Truncate(filepath.Join(s.data, "postgresql.auto.conf"), 0), s.unacknowledge())
}

// start starts the server, which listens on a socket in the cluster's folder only. A server that runs already is another one's, and left alone.
func (s *segments) start(ctx context.Context) error {
	if err := drill.Run(s.c.Command(ctx, "pg_ctl", "status", "-D", s.data)); err == nil {
		return fmt.Errorf("start a server on %s: one runs already", s.data)
	}
	if err := s.reset(); err != nil {
		return err
	}
	log := filepath.Join(s.c.Nodes[0].Dir, "log/postgres.log")
	s.runs = true
	return drill.Run(s.c.Command(ctx, "pg_ctl", "start", "-w", "-s", "-D", s.data, "-l", log, "-o", "-k "+s.c.Nodes[0].Dir))
}

func (s *segments) dsn() string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", s.c.Nodes[0].Dir)
}

// exec runs a statement.
func (s *segments) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

// close stops the server, and removes all that is not to be kept.
func (s *segments) close() error {
	if !s.runs {
		return s.c.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stop := s.c.Command(ctx, "pg_ctl", "stop", "-s", "-m", "fast", "-D", s.data)
	return errors.Join(drill.Run(stop), s.c.Stop())
}

// fill makes WAL until that many segments wait: pgbench's own transactions and bulk loads in turn.
func (s *segments) fill(ctx context.Context, want int, say func(string, ...any)) error {
	names, err := s.waiting()
	if err != nil || len(names) >= want {
		return err
	}
	say("make %d segments: pgbench -s %d, and bulk loads", want, scale)
	err = s.exec(ctx, "create table if not exists bulk (id int primary key, hash text, amount int, at timestamptz, remark text)")
	if err == nil {
		err = drill.Run(s.c.Command(ctx, "pgbench", "-i", "-q", "-s", fmt.Sprint(scale), s.dsn()))
	}
	for err == nil {
		if names, err = s.waiting(); err != nil || len(names) >= want {
			return err
		}
		say("%d segments", len(names))
		if err = s.exec(ctx, bulkLoad); err == nil {
			err = drill.Run(s.c.Command(ctx, "pgbench", "-n", "-c", "4", "-j", "2", "-T", "5", s.dsn()))
		}
	}
	return err
}

// waiting are the names of the segments that wait, oldest first.
func (s *segments) waiting() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.data, "pg_wal/archive_status"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".ready"); ok && len(name) == 24 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// warm reads every segment, so that they are in the page cache when a run begins, and writes out what the last run left.
func (s *segments) warm(ctx context.Context, names []string) error {
	if err := drill.Run(s.c.Command(ctx, "sync")); err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(s.data, "pg_wal", name))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		if err := errors.Join(err, f.Close(), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
