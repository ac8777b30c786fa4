package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/sidecar/drill"
)

// small is a PostgreSQL like that of segments, whose segments have 1 MB: many of them for few bytes. How many wait can be chosen for each
// run: the others are put away, or names are added.
type small struct {
	*segments
	names []string // of all segments that were written and that wait, oldest first; some may be put away
}

// newSmall makes one with at least that many segments.
func (b *bench) newSmall(ctx context.Context, want int) (s *small, err error) {
	c, err := drill.New(ctx, drill.Options{SegmentMB: 1})
	if err != nil {
		return nil, err
	}
	s = &small{segments: &segments{c: c, mb: 1, data: c.Nodes[0].PGData()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	keep := ""
	if b.data != "" {
		keep = filepath.Join(b.data, "small")
		s.data = filepath.Join(keep, "pgdata")
	}
	if _, err := os.Stat(s.data); err != nil {
		if err := s.initialise(ctx, keep); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(s.removeMade(ctx), s.takeBack()); err != nil { // of a run that was interrupted
		return nil, err
	}
	if err := s.fill(ctx, want, b.say); err != nil {
		return nil, err
	}
	s.names, err = s.waiting()
	return s, err
}

// choose lets exactly that many wait: the oldest that were written, and beyond them files that only have names. It gives how many of
// them are WAL.
func (s *small) choose(ctx context.Context, files int) (written int, err error) {
	if err := errors.Join(s.removeMade(ctx), s.takeBack()); err != nil {
		return 0, err
	}
	if files < len(s.names) {
		return files, s.putAway(s.names[files:])
	}
	return len(s.names), s.add(ctx, files-len(s.names))
}

// away is where segments are that do not wait in this run. The server does not miss them: it needs what it writes only.
func (s *small) away() string { return filepath.Join(s.data, "pg_wal_away") }

func (s *small) putAway(names []string) error {
	if err := os.MkdirAll(s.away(), 0o755); err != nil {
		return err
	}
	for _, name := range names {
		for _, path := range s.pathsOf(name) {
			if err := os.Rename(path, filepath.Join(s.away(), filepath.Base(path))); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeBack is the opposite of putAway.
func (s *small) takeBack() error {
	away, err := filepath.Glob(filepath.Join(s.away(), "*.ready"))
	if err != nil {
		return err
	}
	for _, path := range away {
		name := filepath.Base(path[:len(path)-len(".ready")])
		for _, path := range s.pathsOf(name) {
			if err := os.Rename(filepath.Join(s.away(), filepath.Base(path)), path); err != nil {
				return err
			}
		}
	}
	return nil
}

// pathsOf are those of a segment and of its .ready file. The latter is moved last: where it is, the segment is.
func (s *small) pathsOf(name string) []string {
	return []string{filepath.Join(s.data, "pg_wal", name), filepath.Join(s.data, "pg_wal/archive_status", name+".ready")}
}

// add makes files that wait after all WAL: their size is right and their content is not, which a sidecar learns when it comes to them.
// PostgreSQL, which does nothing, never does. They begin some way ahead of it.
func (s *small) add(ctx context.Context, files int) error {
	const ahead = 1000
	current, err := s.current(ctx)
	if err != nil {
		return err
	}
	at := current
	for range ahead {
		at = at.Next()
	}
	for range files {
		paths := s.pathsOf(at.String())
		f, err := os.Create(paths[0])
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(int64(at.Size)), f.Close(), os.WriteFile(paths[1], nil, 0o644), ctx.Err()); err != nil {
			return err
		}
		at = at.Next()
	}
	return nil
}

// removeMade removes what add made: all that waits and that the server has not come to.
func (s *small) removeMade(ctx context.Context) error {
	current, err := s.current(ctx)
	if err != nil {
		return err
	}
	waiting, err := s.waiting()
	if err != nil {
		return err
	}
	begin, _ := slices.BinarySearch(waiting, current.String())
	for _, name := range waiting[begin:] {
		for _, path := range s.pathsOf(name) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// current is the segment that the server writes to.
func (s *small) current(ctx context.Context) (wal.Segment, error) {
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return wal.Segment{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var name string
	if err := conn.QueryRow(ctx, "select pg_walfile_name(pg_current_wal_insert_lsn())").Scan(&name); err != nil {
		return wal.Segment{}, err
	}
	n, err := wal.ParseName(name, wal.SegmentSize(s.mb<<20))
	if err != nil {
		return wal.Segment{}, fmt.Errorf("current segment: %w", err)
	}
	return n.Segment, nil
}
