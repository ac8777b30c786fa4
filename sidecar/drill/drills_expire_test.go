//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDrillExpire: under load, with a primary killed in between, the holder of the baton expires all that a restore to the cut-off does not need. What stays
// is whole and untouched, the cut-off can be restored, and a recovery from what went stops rather than ends.
func TestDrillExpire(t *testing.T) {
	s := begin(t, Options{})
	first := s.base
	s.do("eight segments are finished", s.finish(8))
	s.do("another base backup is taken", s.backup)
	s.do("four segments are finished", s.finish(4))
	then := s.writer.Acked()
	cut := time.Now()
	lsn, err := query[string](s.ctx, s.primary().DSN(), "select pg_current_wal_lsn()::text")
	if err != nil {
		t.Fatal(err)
	}
	s.do("two segments are finished", s.finish(2))
	old := s.primary()
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", old.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("three segments are finished", s.finish(3))
	p := s.primary()
	s.do("it has the baton", s.holds(p))
	if err := s.watching(); err != nil { // from now on files go
		t.Fatal(err)
	}
	folder := s.base.Folder() + "/"
	before := s.objects(folder)
	cutoff := cut.UTC().Format(time.RFC3339Nano)
	label := ""
	for key := range before { // the newest, of two
		if strings.HasSuffix(key, ".backup") {
			label = max(label, path.Base(key))
		}
	}
	for _, n := range s.Standbys(p) {
		if n != old {
			s.exits(n, 1, []string{p.Name + " holds the baton"}, "expire", "--before", cutoff, "--yes")
			s.exits(n, 0, []string{"keeps     from"}, "expire", "--before", cutoff, "--dry-run")
		}
	}
	said := s.types(p, "docs/retention.md", map[string]string{"TIME": cutoff, "LSN": lsn, "NAME": label, "LABEL": filepath.Base(s.base.dir)})
	if !strings.Contains(said, "keeps     from") || !strings.Contains(said, "deleted") {
		t.Error("that is not what runs say of which the last one deletes")
	}
	s.exits(p, 0, []string{"Nothing lies below"}, "expire", "--before", cutoff, "--yes")
	after := s.objects(folder)
	gone := 0
	for key, o := range before {
		now, ok := after[key]
		switch {
		case !ok && !strings.Contains(key, "/wal/"):
			t.Errorf("%s is gone", key)
		case !ok:
			gone++
		case now != o:
			t.Errorf("%s was %v, and is %v", key, o, now)
		}
	}
	if gone < 8 {
		t.Errorf("%d objects went, and eight segments lie below the backup", gone)
	}
	s.do("walbaton verify finds nothing", s.verify)
	s.do("three segments are finished", s.finish(3))
	s.do("the old primary comes back", old.Restart)
	s.rejoins(old)
	s.settle()
	s.do("a server is restored to the cut-off", func(ctx context.Context) error {
		server, err := s.base.Restore(ctx, ByWalbaton, cut)
		if err != nil {
			return err
		}
		rows, err := Rows(ctx, server.DSN())
		for id := range then {
			if _, ok := rows[id]; !ok && err == nil {
				err = fmt.Errorf("row %d, which was acknowledged before, is missing among %d", id, len(rows))
			}
		}
		return errors.Join(err, server.Stop())
	})
	for _, how := range []How{ByHand, ByWalbaton} {
		server := s.restore(how)
		s.do("every row is there", func(ctx context.Context) error { return s.Compare(ctx, server) })
		s.do("the restored server goes", func(context.Context) error { return server.Stop() })
	}
	s.do("a recovery from the first backup stops", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // it stops at once, and Restore waits on
		defer cancel()
		server, err := first.Restore(ctx, ByWalbaton, time.Time{})
		if err == nil {
			return errors.Join(errors.New("it went through, and the WAL that it needs is gone"), server.Stop())
		}
		if said := s.Logs(400); !strings.Contains(said, "it was expired") {
			return fmt.Errorf("its log does not say why: %w\n%s", err, said)
		}
		return nil
	})
	s.do("walbaton verify finds nothing", s.verify)
	s.calm(s.Nodes...)
	s.lost()
}

// TestDrillStandbyOnly: with archive_cleanup_command and retention "standby-only" the archive has no more than what the members' restarts need. A standby
// that was away goes on from it, and so does one that stops and starts while the others go on.
func TestDrillStandbyOnly(t *testing.T) {
	s := begin(t, Options{Cleanup: true, Settings: "retention: {mode: standby-only, every: 2s}\n"})
	if err := s.watching(); err != nil {
		t.Fatal(err)
	}
	p := s.primary()
	away := s.Standbys(p)[0]
	lowest := func() string {
		var names []string
		for key := range s.objects(s.base.Folder() + "/") {
			if name := path.Base(key); strings.Contains(key, "/wal/") && len(name) == 24 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names[0]
	}
	checkpoints := func(ctx context.Context) error {
		for _, n := range append([]*Node{s.primary()}, s.Standbys(s.primary())...) {
			if err := n.Exec(ctx, "checkpoint"); err != nil && n != away {
				return err
			}
		}
		return nil
	}
	begin := lowest()
	s.do("the archive becomes smaller", func(ctx context.Context) error {
		return until(ctx, 2*time.Minute, "what no restart needs is gone", func(ctx context.Context) error {
			if err := errors.Join(s.Finish(ctx, 2), checkpoints(ctx)); err != nil {
				return err
			}
			if now := lowest(); now <= begin {
				return fmt.Errorf("it begins with %s still", now)
			}
			return nil
		})
	})
	s.do("PostgreSQL of a standby stops, and its Patroni stands still", away.Freeze)
	kept := lowest()
	s.do("six segments are finished", s.finish(6))
	s.do("the others make checkpoints", func(ctx context.Context) error {
		for _, n := range s.Nodes {
			if n != away {
				if err := n.Exec(ctx, "checkpoint"); err != nil {
					return err
				}
			}
		}
		return nil
	})
	s.do("time passes", pass(8*time.Second))
	if now := lowest(); now > kept && now > restartOf(s, away) {
		t.Errorf("the archive begins with %s now, and %s would go on from %s", now, away.Name, restartOf(s, away))
	}
	s.do("it wakes up", away.Thaw)
	s.do("all stream", s.AllStreaming)
	s.do("the primary is killed", p.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("three segments are finished", s.finish(3))
	s.do("the old primary comes back", p.Restart)
	s.rejoins(p)
	begin = lowest()
	s.do("the archive becomes smaller again", func(ctx context.Context) error {
		return until(ctx, 2*time.Minute, "what no restart needs is gone", func(ctx context.Context) error {
			if err := errors.Join(s.Finish(ctx, 2), checkpoints(ctx)); err != nil {
				return err
			}
			if now := lowest(); now[8:] <= begin[8:] {
				return fmt.Errorf("it begins with %s still", now)
			}
			return nil
		})
	})
	s.writer.Stop()
	s.do("walbaton verify finds nothing", s.verify)
	s.calm(s.Nodes...)
}

// restartOf is the segment from which a node would go on, by pg_control.
func restartOf(s *scenario, n *Node) string {
	out, err := s.command(s.ctx, n.Dir, nil, filepath.Join(pgBin, "pg_controldata"), n.PGData()).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(out), "REDO WAL file:")
	line, _, _ = strings.Cut(line, "\n")
	return strings.TrimSpace(line)
}
