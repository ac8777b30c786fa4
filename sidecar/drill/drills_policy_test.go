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

// Drills with policy: replica. n1 is the first primary and n3 the designated replica: n2 would be the one without a tag.

// The shortest times that the election takes: a baton's lease is 6 s.
const (
	batonTTL      = 6 * time.Second
	replicaPolicy = "policy: replica\nttl: 6s\nrenewal: 2s\nmargin: 1500ms\n"
)

// beginReplica starts a cluster with n3 as the designated replica, and waits until it has the baton.
func beginReplica(t *testing.T, o Options) (s *scenario, primary, second, designated *Node) {
	t.Helper()
	o.Settings = replicaPolicy + o.Settings
	if o.Tags == nil {
		o.Tags = map[string]string{"n3": "walbaton: designated"}
	}
	s = begin(t, o)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the way of the baton:\n" + strings.Join(s.batons(), "\n"))
		}
	})
	primary, second, designated = s.Nodes[0], s.Nodes[1], s.Nodes[2]
	if p := s.primary(); p != primary {
		t.Fatalf("%s is the primary, want %s", p.Name, primary.Name)
	}
	s.do("the designated replica has the baton", s.holds(designated, s.Nodes...))
	return s, primary, second, designated
}

// Drill 11: the designated replica ships. It dies, and another replica takes over when the lease has run out. It comes
// back, and the baton comes back to it, in order.
func TestDrill11DesignatedDies(t *testing.T) {
	s, _, second, designated := beginReplica(t, Options{})
	begin := s.mark()
	mark := begin
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)

	s.do("kill -9 of the designated replica: PostgreSQL, Patroni, sidecar", designated.Kill)
	s.do("the other replica has the baton", s.holds(second, s.Standbys(designated)...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, second)

	s.do("the designated replica comes back", designated.Restart)
	s.do("it has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 12: the designated replica's machine stands still for three times the baton's life, in the middle of uploads,
// and meanwhile the primary dies. It wakes up in a cluster on another timeline, of which its successor ships.
func TestDrill12DesignatedFrozen(t *testing.T) {
	s, primary, second, designated := beginReplica(t, Options{})
	s.do("the designated replica stands still in the middle of uploads", s.amidUploads(designated.Freeze))
	begin := s.mark()
	s.do("the other replica has the baton", s.holds(second, primary, second))
	mark := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.do("kill -9 of the primary", primary.Kill)
	s.do("the other replica is promoted", func(ctx context.Context) error { return s.Promoted(ctx, primary) })
	s.do("three segments are finished on the new timeline", s.finish(3))
	s.do("time passes", pass(3*batonTTL-time.Since(begin.at)))
	s.shippedBy(mark, second)
	s.do("it wakes up", designated.Thaw)
	// Until it streams the baton may pass the leader: two of Patroni's loops are short here.
	s.do("it follows the new primary", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("it has the baton again", s.holds(designated, second, designated))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.opened(2, second)
	s.do("the old primary comes back", primary.Restart)
	s.do("both stream", s.AllStreaming)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 12 with the sidecar alone: PostgreSQL and Patroni of the designated replica go on.
func TestDrill12SidecarFrozen(t *testing.T) {
	s, primary, second, designated := beginReplica(t, Options{})
	s.do("the sidecar of the designated replica stands still in the middle of uploads", s.amidUploads(designated.FreezeSidecar))
	begin := s.mark()
	s.do("the other replica has the baton", s.holds(second, primary, second))
	mark := s.mark()
	s.do("the designated replica becomes the primary", s.switchover(designated))
	s.do("all stream from it", s.AllStreaming)
	s.do("time passes", pass(3*batonTTL-time.Since(begin.at)))
	s.do("its sidecar wakes up", designated.ThawSidecar)
	s.do("five segments are finished", s.finish(5))
	s.holdsStill(second, 5*time.Second, s.Nodes...)
	s.opened(2, second, designated) // the one has the baton and streams from the leader, the other is the leader
	s.shippedBy(mark, second)
	s.path(begin, second)
	s.do("the first primary becomes the primary again", s.switchover(primary))
	s.do("all stream from it", s.AllStreaming)
	s.do("the designated replica has the baton again", s.holds(designated, s.Nodes...))
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 13: the designated replica is cut off from the DCS alone. It streams, but has no baton any more; who has it ships.
func TestDrill13CutFromDCS(t *testing.T) {
	s, primary, second, designated := beginReplica(t, Options{Apart: true})
	begin := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.do("the designated replica is cut off from the DCS", designated.CutFromDCS)
	s.do("the other replica has the baton", s.holds(second, primary, second))
	mark := s.mark()
	s.do("time passes", pass(3*batonTTL))
	s.shippedBy(mark, second)
	s.says(second, "n2 holds it")
	s.says(designated, "baton     n3 held it when the DCS answered last", "! the DCS does not answer")
	s.do("its PostgreSQL lets go of what the others have archived", s.drains(designated, 8))
	s.do("it is connected again", designated.Mend)
	s.do("it has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 13: it is cut off from the primary alone, and lives in Patroni's DCS. What it does not get it cannot ship.
func TestDrill13CutFromPrimary(t *testing.T) {
	s, primary, second, designated := beginReplica(t, Options{Apart: true, Settings: "max_lag: 8MB\n"})
	begin := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.do("the designated replica is cut off from the primary", func(ctx context.Context) error { return designated.CutFrom(ctx, primary) })
	s.do("the other replica has the baton", s.holds(second, s.Nodes...))
	mark := s.mark()
	s.do("time passes", pass(2*batonTTL))
	s.shippedBy(mark, second)
	s.do("it is connected again", designated.Mend)
	s.do("it has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 13: it is cut off from the store alone. The others reach it.
func TestDrill13CutFromStoreMinIO(t *testing.T) {
	s, _, second, designated := beginReplica(t, Options{Apart: true, Place: MinIO, Settings: "stall_timeout: 4s\n"})
	begin := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.do("the designated replica is cut off from the store", designated.CutFromStore)
	s.do("the other replica has the baton", s.holds(second, s.Nodes...))
	mark := s.mark()
	s.do("time passes", pass(2*batonTTL))
	s.shippedBy(mark, second)
	s.says(designated, "n2 holds it", "! the archive does not answer")
	s.do("it is connected again", designated.Mend)
	s.do("it has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 14: the store is away, and the disk of the designated replica is full: its PostgreSQL stops. The others archive
// what waited; an administrator gives it more room, and it comes back.
func TestDrill14DesignatedDiskFull(t *testing.T) {
	s, _, second, designated := beginReplica(t, Options{DiskMB: map[string]int{"n3": 200}})
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("the disk of the designated replica has room for six segments more", func(ctx context.Context) error { return designated.FillDisk(ctx, 6<<20) })
	s.do("fourteen segments are finished", s.finish(14))
	s.do("only one standby streams", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("the store comes back", s.StartStore)
	s.do("the other replica has the baton", s.holds(second, s.Nodes...))
	mark := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.shippedBy(mark, second)
	s.says(designated, "n2 holds it", "designated")
	s.do("an administrator frees the disk", designated.FreeDisk)
	s.do("it streams again", s.AllStreaming)
	s.do("it has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 14, where it is the primary's disk, and keep_dir is on it, too. It takes no more writes, and dies. On its return
// Patroni submits what waits there, and nothing can be set aside: the others have it.
func TestDrill14PrimaryDiskFull(t *testing.T) {
	s, full, second, designated := beginReplica(t, Options{DiskMB: map[string]int{"n1": 400}, Settings: "stopped_wait: 2s\n"})
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("six segments are finished that nobody can archive", s.finish(6))
	s.do("the disk of the primary is full", func(ctx context.Context) error { return full.FillDisk(ctx, 0) })
	s.do("it takes no more writes", s.failing)
	s.do("kill -9 of the primary", full.Kill)
	s.do("another node is promoted", func(ctx context.Context) error { return s.Promoted(ctx, full) })
	standby := designated
	if s.primary() == designated {
		standby = second
	}
	s.do("three segments are finished", s.finish(3))
	s.do("the old primary comes back, its disk as full as before", full.Start)
	s.do("and cannot start", pass(8*time.Second))
	s.logged(full, "patroni", "(row 7; walbaton status says more)")
	s.do("the store comes back", s.StartStore)
	s.do("what waited is archived", s.drains(s.primary(), 3)) // by the primary, where that reaches the store before the standby's word of it does
	s.do("the standby that is left has the baton", s.holds(standby, s.Nodes...))
	s.do("three segments are finished", s.finish(3))
	s.do("it has it still", s.holds(standby, s.Nodes...))
	mark := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.shippedBy(mark, standby)
	s.do("an administrator frees the disk, and makes it larger", func(ctx context.Context) error { // the writer goes on while the node comes back
		return errors.Join(full.FreeDisk(ctx), full.GrowDisk(ctx, 2000))
	})
	s.rejoins(full)
	s.do("three segments are finished", s.finish(3))
	s.do("nothing stays in keep_dir", func(ctx context.Context) error {
		return until(ctx, failoverLimit, "keep_dir is empty", func(ctx context.Context) error {
			st, err := full.look(ctx)
			if err == nil && st.Archive.Kept > 0 {
				err = fmt.Errorf("%d files are there", st.Archive.Kept)
			}
			return err
		})
	})
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 15: with the store away, the designated replica's copy of a segment goes bad on its disk. When the store is back
// another node ships its own copy of that one, and the baton comes back.
func TestDrill15DamagedCopy(t *testing.T) {
	s, _, _, designated := beginReplica(t, Options{})
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("six segments are finished that nobody can archive", s.finish(6))
	var bad string
	s.do("one that waits goes bad on the designated replica", func(context.Context) error {
		waiting, err := designated.WAL("ready")
		if err != nil || len(waiting) < 5 {
			return errors.Join(err, fmt.Errorf("%d segments wait", len(waiting)))
		}
		bad = waiting[len(waiting)-4] // the archive may have the first ones
		return designated.DamageWAL(bad)
	})
	s.explains(designated, bad, "damaged: ", "row 9")
	s.do("the store comes back", s.StartStore)
	s.do("somebody archives it", func(ctx context.Context) error {
		return until(ctx, failoverLimit, bad+" is archived", func(ctx context.Context) error {
			all, err := s.Shipped(ctx, nil)
			i := slices.IndexFunc(all, func(h Header) bool { return h.Name == bad })
			switch {
			case err != nil:
				return err
			case i < 0:
				return errors.New("it is not")
			case all[i].Member == designated.Name || all[i].Term == 0:
				t.Errorf("%s was put by %s in term %d", bad, all[i].Member, all[i].Term)
			}
			return nil
		})
	})
	s.explains(designated, bad, "has another content, put by", "row 6a: the answer is 0")
	s.do("the designated replica has the baton again", s.holds(designated, s.Nodes...))
	mark := s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, designated)
	s.do("its PostgreSQL lets go of the bad one", s.drains(designated, 3))
	s.calm(s.Nodes...)
	s.wholeTruth()
}

// Drill 16: a node with the tag "never" ships nothing but the first segment of the timeline that it leads, also when it is the
// only one. What it has waits for another node.
func TestDrill16Never(t *testing.T) {
	s := begin(t, Options{Settings: replicaPolicy, Tags: map[string]string{"n2": "walbaton: never"}})
	primary, never, other := s.Nodes[0], s.Nodes[1], s.Nodes[2]
	s.do("the other replica has the baton", s.holds(other, s.Nodes...))
	s.says(other, "- n2 has the tag walbaton: never: what only it has waits")
	s.do("it is killed", other.Kill)
	s.do("the primary has the baton", s.holds(primary, primary, never))
	mark := s.mark()
	s.do("three segments are finished", s.finish(3))
	s.shippedBy(mark, primary)
	s.do("the primary is killed, too", primary.Kill)
	s.do("the node that never ships is promoted", func(ctx context.Context) error { return s.Promoted(ctx, primary) })
	mark = s.mark()
	s.do("a baton's life passes, and more", pass(batonTTL+2*time.Second))
	s.says(never, "! nobody holds the baton: the leader n2 has the tag walbaton: never", "- n2 has the tag walbaton: never: what only it has waits")
	waiting, err := never.WAL("ready")
	if err != nil || len(waiting) < 5 {
		t.Fatalf("%v wait on %s, %v; want five or more", waiting, never.Name, err)
	}
	s.explains(never, waiting[len(waiting)-1], "not this node: nobody has the baton")
	if all, err := s.Shipped(s.ctx, mark.known); err != nil || len(all) > 1 {
		t.Errorf("%v was shipped, %v; want one segment at most, the first of the new timeline", all, err)
	}
	s.do("the other replica comes back", other.Restart)
	s.do("it has the baton", s.holds(other, never, other))
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, other)
	s.do("the first primary comes back", primary.Restart)
	s.do("both stream", s.AllStreaming)
	for _, line := range s.batons() {
		if strings.Contains(line, " "+never.Name+" ") {
			t.Errorf("it has had the baton: %s", line)
		}
	}
	s.wholeTruth()
}

// Drill 17: the designated replica lags by more than max_lag, though Patroni finds nothing wrong with it: another one ships
// until it has caught up.
func TestDrill17MaxLag(t *testing.T) {
	s, _, second, designated := beginReplica(t, Options{Settings: "max_lag: 8MB\n"})
	begin := s.mark()
	s.do("the walreceiver of the designated replica stands still", designated.FreezeReceiver)
	s.do("the other replica has the baton", s.holds(second, s.Nodes...))
	mark := s.mark()
	s.do("five segments are finished", s.finish(5))
	s.shippedBy(mark, second)
	s.do("it goes on", designated.Thaw)
	s.do("the designated replica has the baton again", s.holds(designated, s.Nodes...))
	mark = s.mark()
	s.do("ten segments are finished", s.finish(10))
	s.shippedBy(mark, designated)
	s.path(begin, second, designated)
	s.calm(s.Nodes...)
	s.wholeTruth()
}
