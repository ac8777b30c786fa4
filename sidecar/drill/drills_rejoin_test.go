//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Drill 4: the old primary alone has WAL that the archive lacks, since both standbys were cloned anew in the outage. It
// comes back by single-user recovery, before which Patroni wipes archive_status, and then by pg_rewind, which deletes
// what the new primary does not have.
func TestDrill04SingleUserRecovery(t *testing.T) {
	s := begin(t, Options{Settings: "stopped_wait: 3s\n"})
	old := s.onlyThePrimaryHasIt()
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", old.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("one segment is finished", s.finish(1))
	s.do("the old primary comes back, the store does not", old.Restart)
	s.do("by single-user recovery and pg_rewind", s.AllStreaming)
	s.logged(old, "patroni", "crash recovery in a single user mode", "pg_rewind")
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// The same with a former primary that was cut off, went on taking writes on its dead timeline, and was shut down in
// order: pg_rewind without a recovery before it. The other standby is away until then: it would get WAL from beyond the fork,
// and a clone made while the archive is away cannot always be rewound (its first segments are .done, so they are recycled when it
// stops, and pg_rewind needs them).
func TestDrill04Rewind(t *testing.T) {
	s := begin(t, Options{Settings: "stopped_wait: 3s\n"})
	old := s.onlyThePrimaryHasIt()
	other := s.Standbys(old)[1]
	s.do("kill -9 of one standby: PostgreSQL, Patroni, sidecar", other.Kill)
	s.do("Patroni of the primary dies, PostgreSQL goes on", old.KillPatroni)
	s.do("another node is promoted, beside it", func(ctx context.Context) error { return s.Promoted(ctx, old) })
	s.do("the writer has written to the old one until now; it is shut down in order", old.StopPostgres)
	s.do(other.Name+" comes back", other.Start)
	s.do("it follows the new primary", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("one segment of the new primary is finished", s.finish(1))
	s.do("Patroni of the old primary starts again", old.Restart)
	s.do("it comes back by pg_rewind", s.AllStreaming)
	s.logged(old, "patroni", "pg_rewind")
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// The same with a former primary whose disk is gone: it comes back as a fresh clone. The standbys have what it had.
func TestDrill04FreshClone(t *testing.T) {
	s := begin(t, Options{})
	old := s.primary()
	s.killPrimaryWhileStoreIsDown()
	s.do("the old primary comes back without its disk", old.Reinit)
	s.do("as a fresh clone", s.AllStreaming)
	s.do("three more segments are finished", s.finish(3))
	s.do("the clone becomes the primary", s.switchover(old))
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// onlyThePrimaryHasIt ends with the store down and standbys that were cloned after ten segments waited.
func (s *scenario) onlyThePrimaryHasIt() *Node {
	s.t.Helper()
	p := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("ten segments are finished that nobody can archive", s.finish(10))
	for _, n := range s.Standbys(p) {
		s.do(n.Name+" loses its disk", n.Reinit)
		s.do("it is cloned again", s.AllStreaming)
	}
	s.do("three more segments are finished", s.finish(3))
	return p
}

// logged fails the drill when a log of the node does not have these words: then it was another drill.
func (s *scenario) logged(n *Node, log string, words ...string) {
	s.t.Helper()
	text := n.Log(log)
	for _, w := range words {
		if !strings.Contains(text, w) {
			s.t.Errorf("%s of %s says nothing of %q", log, n.Name, w)
		}
	}
}

// Drill 5: a standby that was cloned in the outage is promoted; of older WAL that the archive lacks another standby has
// some, with holes, and only the dead primary has the rest. What is there is archived at once, past the holes; the rest
// when the dead one comes back.
func TestDrill05CloneIsPromoted(t *testing.T) {
	s := begin(t, Options{Settings: "stopped_wait: 3s\n"})
	dead := s.primary()
	clone, other := s.Standbys(dead)[0], s.Standbys(dead)[1]
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("twenty segments are finished that nobody can archive", s.finish(20))
	s.do(clone.Name+" loses its disk", clone.Reinit)
	s.do("it is cloned again", s.AllStreaming)
	s.do("three more segments are finished", s.finish(3))

	var waiting, lost []string
	s.do("the other standby loses four of its segments, in two places", func(context.Context) (err error) {
		waiting, err = other.WAL("ready")
		if err != nil {
			return err
		}
		has, err := clone.WAL("")
		if err != nil {
			return err
		}
		// Of the first ones the archive may have some: the outage came before this node saw them there. From its first one on the clone has all.
		from := slices.IndexFunc(waiting, func(name string) bool { return name >= has[0] }) - 12
		if from < 2 {
			return fmt.Errorf("before %s only %d segments wait on %s: %v", has[0], from+12, other.Name, waiting)
		}
		lost = append(append(lost, waiting[from:from+3]...), waiting[from+6])
		return other.LoseWAL(lost...)
	})
	s.do("Patroni of the other standby sleeps, so that it is not elected", other.PausePatroni)
	s.do("kill -9 of the primary", dead.Kill)
	s.do("the clone is promoted", s.promoted)
	s.do("Patroni of the other standby wakes up", other.ResumePatroni)
	s.do("it follows the clone", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	if p := s.primary(); p != clone {
		t.Fatalf("%s is the primary, not the clone %s", p.Name, clone.Name)
	}
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	missing, err := s.Settle(s.ctx, s.base, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(missing, " ") != strings.Join(lost, " ") {
		t.Fatalf("the archive lacks %v, want what no living node has: %v", missing, lost)
	}
	t.Logf("the archive has all that a living node has, and lacks %v", lost)
	s.do("the dead primary comes back", dead.Restart)
	s.do("by pg_rewind", s.AllStreaming)
	s.wholeTruth()
}

// Drill 8: archive_mode=on everywhere. A standby marks .done what it streams, and yet all that waited is archived.
func TestDrill08ArchiveModeOn(t *testing.T) {
	s := begin(t, Options{ArchiveMode: "on"})
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("twenty-eight segments are finished that nobody can archive", s.finish(28)) // PostgreSQL keeps 16 anyway
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", s.primary().Kill)
	s.do("another node is promoted", s.promoted)
	s.do("it checkpoints at once and again, which recycles what is .done", func(ctx context.Context) error {
		p := s.primary()
		return errors.Join(p.Exec(ctx, "checkpoint"), s.Finish(ctx, 2), p.Exec(ctx, "checkpoint"))
	})
	s.do("the other standby follows it", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// Drill 8, where the bytes are gone from the standbys: their restartpoints recycled what was .done in the outage. The
// disk of the dead primary has them, and its return heals the archive.
func TestDrill08ArchiveModeOnRecycled(t *testing.T) {
	s := begin(t, Options{ArchiveMode: "on", Settings: "stopped_wait: 3s\n"})
	old := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("twenty-eight segments are finished that nobody can archive", s.finish(28)) // PostgreSQL keeps 16 anyway
	s.do("the primary checkpoints", func(ctx context.Context) error { return old.Exec(ctx, "checkpoint") })
	s.do("two segments are finished", s.finish(2))
	for _, n := range s.Standbys(old) {
		s.do(n.Name+" makes a restartpoint", func(ctx context.Context) error { return n.Exec(ctx, "checkpoint") })
	}
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", old.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("the other standby follows it", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	missing, err := s.Settle(s.ctx, s.base, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("without the old primary the archive lacks %d files: %v", len(missing), missing)
	if len(missing) == 0 {
		t.Error("the standbys have recycled nothing: this drill proves nothing")
	}
	s.do("the old primary comes back", old.Restart)
	s.do("by pg_rewind", s.AllStreaming)
	s.wholeTruth()
}

// Drill 9: two promotions in one outage of the store. One node is left, and has everything.
func TestDrill09TwoPromotions(t *testing.T) {
	s := begin(t, Options{})
	first := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("eight segments are finished that nobody can archive", s.finish(8))
	s.do("kill -9 of the primary", first.Kill)
	s.do("a second node is promoted", s.promoted)
	second := s.primary()
	s.do("the third follows it", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("five segments are finished on the new timeline", s.finish(5))
	s.do("kill -9 of the second primary", second.Kill)
	s.do("the third node is promoted", func(ctx context.Context) error { return s.Promoted(ctx, second) })
	s.do("three segments are finished on the third timeline", s.finish(3))
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
	s.do("the dead come back", func(ctx context.Context) error {
		if err := first.Restart(ctx); err != nil {
			return err
		}
		return second.Restart(ctx)
	})
	s.do("and stream", s.AllStreaming)
	s.do("every object is what it was", func(ctx context.Context) error { return s.inventory.Look(ctx, true) })
	s.do("walbaton verify finds nothing", s.verify)
}
