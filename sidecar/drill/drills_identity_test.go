//go:build drills

package drill

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// A cluster may not stay what it is: another one takes its name, pg_upgrade gives it a new system identifier, or it is restored
// from its own archive. In all these drills the sidecars run on, as services do.

// A cluster of the same name is built anew: it opens its own folder, says so once, and the old one can still be restored.
func TestDrillBuiltAnew(t *testing.T) {
	s := begin(t, Options{})
	s.do("three segments are finished", s.finish(3))
	s.do("another node becomes the primary, so that the old cluster has two timelines", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three segments are finished", s.finish(3))
	s.do("the old primary becomes a standby", s.AllStreaming)
	old := s.remember()
	s.do("the cluster is shut down", s.ShutDown)
	s.do("Patroni forgets it, and all disks are lost", func(ctx context.Context) error {
		return errors.Join(s.Forget(ctx), s.LoseDisks(s.Nodes...))
	})
	old.seal(s)

	s.do("a new cluster of the same name starts", s.StartPatroni)
	s.populate(drillRate)
	s.do("three segments are finished", s.finish(3))
	s.newFolder(old)
	s.types(s.primary(), "docs/operations.md", map[string]string{"OLD": old.base.systemID})
	s.do("another node becomes the primary", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three segments are finished", s.finish(3))
	s.do("all stream", s.AllStreaming)
	s.wholeTruth()
	s.untouched(old)
	s.restorable(old)
}

// pg_upgrade gives a cluster a new system identifier, and so a folder of its own.
func TestDrillUpgraded(t *testing.T) {
	s := begin(t, Options{})
	s.do("three segments are finished", s.finish(3))
	old := s.remember()
	p := s.primary()
	s.do("the cluster is shut down", s.ShutDown)
	s.do("pg_upgrade runs on the primary", p.Upgrade)
	s.do("the standbys are wiped, and Patroni forgets the old system identifier", func(ctx context.Context) error {
		return errors.Join(s.LoseDisks(s.Standbys(p)...), s.Forget(ctx))
	})
	old.seal(s)

	s.do("Patroni starts on the primary, then on the standbys, which are cloned", s.StartPatroni)
	s.do("the writer goes on", func(ctx context.Context) error { s.writer.Resume(ctx); return nil })
	s.do("a base backup is taken", s.backup)
	s.do("three segments are finished", s.finish(3))
	s.newFolder(old)
	s.do("another node becomes the primary", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three segments are finished", s.finish(3))
	s.do("all stream", s.AllStreaming)
	s.wholeTruth()
	s.untouched(old)
	s.restorable(old)
}

// newFolder proves that the sidecars have opened another folder than the past's, warned of it once, and show it.
func (s *scenario) newFolder(old past) {
	s.t.Helper()
	if s.base.Folder() == old.base.Folder() {
		s.t.Fatalf("the new cluster has the system identifier of the old one, %s: this drill proves nothing", old.base.systemID)
	}
	s.saidOnce("level=WARN", "another cluster", old.base.systemID)
	for _, n := range s.Nodes {
		if got := s.metric(n, "walbaton_other_archives"); got != 1 {
			s.t.Errorf("%s: walbaton_other_archives is %v, want 1", n.Name, got)
		}
	}
	s.exits(s.primary(), 0, []string{s.base.systemID}, "status")
	s.exits(s.primary(), 0, []string{s.base.systemID, old.base.systemID}, "list")
	s.exits(s.primary(), 0, []string{old.base.systemID, "No problem was found"}, "verify", "--system-identifier", old.base.systemID)
}

// A cluster is restored in place, to a time in the past: it keeps its folder, sees the timelines that there were, and takes the
// next number. What the archive has of the time after that stays.
func TestDrillRestoredInPlace(t *testing.T) {
	s := begin(t, Options{})
	s.do("three segments are finished", s.finish(3))
	target := time.Now()
	s.do("a mistake is made, and two segments are finished", s.finish(2))
	s.do("another node becomes the primary", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three segments are finished", s.finish(3))
	s.do("the old primary becomes a standby", s.AllStreaming)
	old := s.remember()
	s.do("the cluster is shut down", s.ShutDown)
	s.do("Patroni forgets it, and all disks are lost", func(ctx context.Context) error {
		return errors.Join(s.Forget(ctx), s.LoseDisks(s.Nodes...))
	})
	s.do("Patroni is told to begin with the base backup, and to recover to the time before the mistake", func(context.Context) error {
		return s.Nodes[0].BootstrapFrom(s.base, target)
	})
	s.do("the cluster starts", s.StartPatroni)
	s.line(1, 2, 3) // PostgreSQL writes the newest timeline as the parent, also of one that forked before it began
	s.do("the writer goes on", func(ctx context.Context) error { s.writer.Resume(ctx); return nil })
	s.do("three segments are finished", s.finish(3))
	s.do("another node becomes the primary", s.switchover(s.Nodes[1]))
	s.do("three segments are finished", s.finish(3))
	s.do("all stream", s.AllStreaming)
	s.line(1, 2, 3, 4)
	s.wholeTruth()
	old.base = old.base.Along(2)
	s.restorable(old)
	s.exits(s.primary(), 0, nil, "status")
	s.exits(s.primary(), 0, nil, "list")
	s.exits(s.primary(), 0, nil, "verify")
}

// line proves that the primary came by way of these timelines, and no others.
func (s *scenario) line(want ...uint64) {
	s.t.Helper()
	var at []origin
	s.do("the timelines are as they should be", func(ctx context.Context) error {
		p := s.primary()
		last, err := query[string](ctx, p.DSN(), "select pg_walfile_name(pg_current_wal_lsn())")
		if err != nil {
			return err
		}
		timeline, _, err := parseSegment(last, s.segmentSize())
		if err == nil {
			at, err = line(p.PGData()+"/pg_wal", timeline)
		}
		return err
	})
	var got []uint64
	for _, o := range at {
		got = append(got, o.timeline)
	}
	if !slices.Equal(got, want) {
		s.t.Fatalf("the line is %v, want %v", got, want)
	}
}
