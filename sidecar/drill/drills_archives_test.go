//go:build drills

package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two required archives. The second one goes away, and the primary is killed meanwhile: the first one has everything all the same. Then the first one
// goes away, with another switchover. In the end both are whole and have the same files, and a fetch needs only one of them.
func TestDrillTwoArchives(t *testing.T) {
	s := begin(t, Options{Second: true})
	s.do("three segments are finished", s.finish(3))
	s.do("the dashboard finds what it asks for", func(ctx context.Context) error {
		text, err := s.primary().Scrape(ctx)
		s.dashboardFinds(map[string]string{"": text})
		return err
	})
	s.do("the second archive goes away", s.Second.stop)
	s.do("eight segments are finished", s.finish(8))
	before := s.segments(s.Store)
	old := s.primary()
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", old.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("three more segments are finished", s.finish(3))
	s.do("the first archive gets what the second one cannot take", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "it has six more segments", func(context.Context) error {
			if got := s.segments(s.Store); got < before+6 {
				return fmt.Errorf("it has %d segments, and had %d", got, before)
			}
			return nil
		})
	})
	s.do("the old primary comes back", old.Restart)
	s.do("as a standby", s.AllStreaming)
	s.do("the second archive comes back", s.Second.start)
	s.do("three more segments are finished", s.finish(3))
	s.do("the second archive catches up", s.sameArchives)

	s.do("the first archive goes away", s.StopStore)
	s.do("three segments are finished", s.finish(3))
	s.do("another node becomes the primary", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three segments are finished", s.finish(3))
	s.do("the first archive comes back", s.StartStore)
	s.do("all stream", s.AllStreaming)
	s.wholeTruth()
	s.do("both archives have the same", s.sameArchives)
	s.do("verify finds nothing in the second one either", func(ctx context.Context) error {
		return Run(s.Nodes[0].Walbaton(ctx, "verify", "--archive", "second"))
	})
	s.do("the first archive goes away for good", s.StopStore)
	s.do("a segment is fetched from the second one", s.fetchFirst)
}

// fetchFirst fetches a segment as a person does, while the first archive is away.
func (s *scenario) fetchFirst(ctx context.Context) error {
	all, err := s.Second.Objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if name := path.Base(o.Key); strings.Contains(o.Key, "/wal/") && len(name) == 24 {
			dst := filepath.Join(s.Nodes[0].Dir, "fetched")
			if err := Run(s.Nodes[0].Walbaton(ctx, "fetch", name, dst)); err != nil {
				return err
			}
			info, err := os.Stat(dst)
			if err == nil && info.Size() != 1<<20 {
				err = fmt.Errorf("%s has %d bytes", name, info.Size())
			}
			return err
		}
	}
	return errors.New("the second archive has no segment")
}

// segments counts the files of WAL in an archive.
func (s *scenario) segments(store Store) (count int) {
	s.t.Helper()
	all, err := store.Objects(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range all {
		if strings.Contains(o.Key, "/wal/") {
			count++
		}
	}
	return count
}

// sameArchives waits until both archives have the same files, and compares their content without walbaton.
func (s *scenario) sameArchives(ctx context.Context) error {
	names := func(store Store) (map[string]bool, error) {
		all, err := store.Objects(ctx)
		out := map[string]bool{}
		for _, o := range all {
			if strings.Contains(o.Key, "/wal/") || strings.Contains(o.Key, "/history/") {
				out[o.Key] = true
			}
		}
		return out, err
	}
	return until(ctx, 2*time.Minute, "both archives have the same files", func(ctx context.Context) error {
		first, err := names(s.Store)
		if err != nil {
			return err
		}
		second, err := names(s.Second)
		if err != nil {
			return err
		}
		for key := range first {
			if !second[key] {
				return fmt.Errorf("the second one lacks %s", key)
			}
			x, err := s.Store.Read(ctx, key)
			if err != nil {
				return err
			}
			y, err := s.Second.Read(ctx, key)
			if err != nil {
				return err
			}
			// What was shipped to the second one from pg_wal later has another header (who put it, in which term), and the same frame behind it.
			if n := min(len(x), len(y)) / 2; !bytes.Equal(x[len(x)-n:], y[len(y)-n:]) {
				return fmt.Errorf("%s is not the same in both", key)
			}
		}
		if len(second) != len(first) {
			return fmt.Errorf("the first one has %d files, the second one %d", len(first), len(second))
		}
		return nil
	})
}
