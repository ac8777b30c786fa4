//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"
)

// The drills of the project, by number. What each must prove at its end is scenario.wholeTruth.

// The harness itself: cp to a healthy archive, and a switchover, lose nothing, and the oracle says so.
func TestDrill00HealthyCopy(t *testing.T) {
	s := begin(t, Options{Archiver: Copy})
	s.do("three segments are finished", s.finish(3))
	s.do("another node becomes the primary", s.switchover(s.Standbys(s.primary())[0]))
	s.do("three more segments are finished", s.finish(3))
	s.copiedWell()
}

// The verbs of the harness that the other drills here do not use, each once.
func TestDrill00Verbs(t *testing.T) {
	s := begin(t, Options{Archiver: Copy, Failsafe: true})
	old := s.primary()
	standby := s.Standbys(old)[0]
	s.do("Patroni's members know each other without etcd", s.failsafe)
	s.do("etcd goes away", s.StopDCS)
	s.do("the primary takes writes for longer than the ttl, because of failsafe_mode", s.finish(24))
	s.do("etcd comes back", s.StartDCS)
	s.do("a standby loses its disk", standby.Reinit)
	s.do("it is cloned again", s.AllStreaming)
	s.do("PostgreSQL of the primary is killed; Patroni recovers it, or another node takes over", old.KillPostgres)
	s.do("all are back", s.AllStreaming)
	old = s.primary()
	s.do("the primary is killed", old.Kill)
	s.do("another node is promoted", s.promoted)
	s.do("one segment is finished", s.finish(1))
	s.do("the old primary comes back", old.Restart)
	s.do("by pg_rewind", s.AllStreaming)
	s.copiedWell()
}

// failsafe waits until each Patroni has read all members from the key of failsafe_mode: the leader writes it in the loop after a member has come, and who is
// not in it, or does not know it, ends the mode.
func (s *scenario) failsafe(ctx context.Context) error {
	return until(ctx, clusterLimit, "all know all", func(ctx context.Context) error {
		for _, n := range s.Nodes {
			_, body, err := get(ctx, n.rest()+"/failsafe")
			if err != nil {
				return err
			}
			var members map[string]string
			if err := json.Unmarshal(body, &members); err != nil || len(members) != len(s.Nodes) {
				return fmt.Errorf("%s knows %.200s", n.Name, body)
			}
		}
		return nil
	})
}

// Nodes that are apart can be cut off, and mended: a standby that does not see the primary stops to stream, one that does not
// see the DCS loses its place in it.
func TestDrill00Apart(t *testing.T) {
	s := begin(t, Options{Archiver: Copy, Apart: true})
	p := s.primary()
	standby := s.Standbys(p)[0]
	s.do(standby.Name+" is cut off from the primary", func(ctx context.Context) error { return standby.CutFrom(ctx, p) })
	s.do("the other one alone streams", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do(standby.Name+" is connected again", standby.Mend)
	s.do("both stream", s.AllStreaming)
	s.do("the primary is cut off from the DCS", p.CutFromDCS)
	s.do("another node is promoted", func(ctx context.Context) error { return s.Promoted(ctx, p) })
	s.do("the old primary is connected again", p.Mend)
	s.do("it becomes a standby", s.AllStreaming)
	s.copiedWell()
}

// copiedWell ends a drill with a cp that never failed: nothing is missing.
func (s *scenario) copiedWell() {
	s.t.Helper()
	s.writer.Stop()
	missing, err := s.Settle(s.ctx, s.base, 60*time.Second)
	if err != nil || len(missing) > 0 {
		s.t.Fatalf("missing: %v, %v", missing, err)
	}
	if err := s.Compare(s.ctx, s.restore(ByHand)); err != nil {
		s.t.Error(err)
	}
	s.lost()
}

// Drill 1: a switchover under load.
func TestDrill01Switchover(t *testing.T) {
	s := begin(t, Options{})
	old := s.primary()
	s.do("five segments are finished", s.finish(5))
	s.do("another node becomes the primary", s.switchover(s.Standbys(old)[0]))
	s.do("five more segments are finished", s.finish(5))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.do("and the primary again", s.switchover(old))
	s.do("five more segments are finished", s.finish(5))
	s.wholeTruth()
}

// Drill 2: the primary dies while the store is away and twenty segments wait for it.
func TestDrill02KilledPrimary(t *testing.T) { killedPrimary(t, Options{}) }

// Drill 2 on S3: MinIO is killed, and comes back.
func TestDrill02KilledPrimaryMinIO(t *testing.T) { killedPrimary(t, Options{Place: MinIO}) }

// Drill 2 on Consul.
func TestDrill02KilledPrimaryConsul(t *testing.T) { killedPrimary(t, Options{DCS: Consul}) }

// Drill 2 on Kubernetes, which deletes nothing when a leader dies: Patroni's keys are in Endpoints, or in ConfigMaps.
func TestDrill02KilledPrimaryKubernetes(t *testing.T) { killedPrimary(t, Options{DCS: Kubernetes}) }

func TestDrill02KilledPrimaryKubernetesConfigMaps(t *testing.T) {
	killedPrimary(t, Options{DCS: KubernetesConfigMaps})
}

// Drill 2 on ZooKeeper.
func TestDrill02KilledPrimaryZooKeeper(t *testing.T) { killedPrimary(t, Options{DCS: ZooKeeper}) }

func killedPrimary(t *testing.T, o Options) {
	s := begin(t, o)
	s.killPrimaryWhileStoreIsDown()
	s.wholeTruth()
	if o.DCS == Kubernetes || o.DCS == KubernetesConfigMaps {
		s.everyRightIsNeeded()
	}
}

// everyRightIsNeeded looks for what the chart's Roles allow and neither Patroni nor walbaton has done. That they suffice shows the drill.
func (s *scenario) everyRightIsNeeded() {
	unused, err := s.UnusedRights()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, right := range unused {
		if right != "get endpoints" && right != "get configmaps" { // Patroni does when another node was faster to write the leader's object
			s.t.Errorf("the chart's Roles allow %s, and nobody does it", right)
		}
	}
}

// killPrimaryWhileStoreIsDown ends with the store back, a new primary, and the old one dead: its disk helps nobody.
func (s *scenario) killPrimaryWhileStoreIsDown() {
	s.t.Helper()
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("twenty segments are finished that nobody can archive", s.finish(20))
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", s.primary().Kill)
	s.do("another node is promoted", s.promoted)
	s.do("the other standby follows it", func(ctx context.Context) error { return s.Streaming(ctx, 1) })
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
}

// The control of drill 2: with archive_mode=on and cp the same faults leave a hole of all that waited, and a recovery
// ends before it. A harness that does not see this proves nothing about walbaton.
func TestDrill02ControlShowsTheHole(t *testing.T) {
	s := begin(t, Options{Archiver: Copy})
	s.killPrimaryWhileStoreIsDown()
	s.writer.Stop()
	missing, err := s.Settle(s.ctx, s.base, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) < 20 {
		t.Fatalf("%d files are missing, want the 20 segments that waited: %v", len(missing), missing)
	}
	t.Logf("the hole: %d files, %s to %s", len(missing), missing[0], missing[len(missing)-1])
	err = s.Compare(s.ctx, s.restore(ByHand))
	var differ *RowsDiffer
	if !errors.As(err, &differ) || len(differ.Missing) == 0 {
		t.Fatalf("restored server: %v, want rows missing", err)
	}
	t.Log(err)
}
