//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// outage is how long the archive is away in the drill below: a minute, or $WALBATON_DRILL_OUTAGE.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("WALBATON_DRILL_OUTAGE")
	if text == "" {
		return time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The archive is away for so long that all three disks fill with WAL. Everybody who asks is told how long they last, and then
// that they are full; no WAL is given up; and when the archive comes back all of it is archived.
func TestDrillDisksFill(t *testing.T) {
	s := beginFor(t, Options{DiskMB: map[string]int{"n1": 300, "n2": 300, "n3": 300}}, drillLimit+outage(t), drillRate)
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	begun := time.Now()
	s.do("90 MB are left on each disk", func(ctx context.Context) (err error) {
		for _, n := range s.Nodes {
			err = errors.Join(err, n.FillDisk(ctx, 90<<20))
		}
		return err
	})
	s.do("ten segments are finished that nobody can archive", s.finish(10))
	s.do("a while passes", pass(6*time.Second))
	p := s.primary()
	for _, n := range []*Node{p, s.Standbys(p)[0]} {
		s.exits(n, 3, []string{"the archive does not answer", n.Name + " keeps ", "left on its disk, which last "}, "status")
		if up, free := s.metric(n, "walbaton_store_up"), s.metric(n, "walbaton_wal_disk_free_bytes"); up != 0 || free <= 0 || free > 90<<20 {
			t.Errorf("%s: walbaton_store_up %v, walbaton_wal_disk_free_bytes %v", n.Name, up, free)
		}
	}
	s.exits(p, 1, []string{"is not there"}, "list")
	if waiting, err := p.WAL("ready"); err != nil || len(waiting) == 0 {
		t.Errorf("nothing waits: %v", err)
	} else {
		s.exits(p, 0, []string{"does not answer", "row 11"}, "explain", waiting[0])
	}
	s.do("the disks fill, until nobody can write any more", s.silent(15*time.Second))
	full := 0
	for _, n := range s.Nodes {
		free, err := n.DiskFree()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %d kB left", n.Name, free>>10)
		words := []string{n.Name + " keeps "}
		if free < 1<<20 {
			full++
			words = append(words, "its disk is full", "delete nothing in pg_wal")
			s.saidBy(n, "level=ERROR", "the disk of pg_wal is full")
		}
		s.exits(n, 3, words, "status")
	}
	if full == 0 {
		t.Error("no disk is full: this drill proves nothing")
	}
	waits, err := p.WAL("ready")
	if err != nil {
		t.Fatal(err)
	}
	s.do(fmt.Sprintf("the outage lasts %v", outage(t)), pass(outage(t)-time.Since(begun)))
	still, err := p.WAL("") // .ready is gone where Patroni has tried to recover a crashed server
	for _, name := range waits {
		if !slices.Contains(still, name) {
			t.Errorf("%s waited on %s, and is gone: %v", name, p.Name, err)
		}
	}

	s.do("the store comes back", s.StartStore)
	s.do("all that waited is archived, though PostgreSQL of the primary is down", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "the archive has what waited", func(ctx context.Context) error {
			all, err := s.Store.Objects(ctx)
			for _, name := range waits {
				if !slices.ContainsFunc(all, func(o Object) bool { return o.Key == s.base.key(name) }) {
					err = errors.Join(err, fmt.Errorf("it lacks %s", name))
				}
			}
			return err
		})
	})
	s.do("the administrator makes room for a recovery, which wants one more segment", func(ctx context.Context) (err error) {
		for _, n := range s.Nodes {
			err = errors.Join(err, n.FreeDisk(ctx))
		}
		return err
	})
	s.do("a node takes writes again", s.promoted)
	s.do("all stream", s.AllStreaming)
	s.do("three segments are finished", s.finish(3))
	s.wholeTruth()
	s.exits(s.primary(), 0, []string{"nothing waits here"}, "status")
}

// silent is the verb that waits until the writer has had no success for so long.
func (s *scenario) silent(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		last, since := 0, time.Now()
		return until(ctx, clusterLimit, "no write succeeds", func(context.Context) error {
			if now := len(s.writer.Acked()); now != last {
				last, since = now, time.Now()
			}
			if quiet := time.Since(since); quiet < d {
				return fmt.Errorf("the last one was %v ago", quiet)
			}
			return nil
		})
	}
}
