//go:build drills

package drill

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Two clusters with one system identifier: a clone, and the standby cluster of another site. Each writes below its own scope
// alone, and reads the other's archive.

// beside prepares a second cluster on the same DCS and archive, which reads the first one's.
func (s *scenario) beside(o Options) *scenario {
	s.t.Helper()
	o.Beside = s.Cluster
	o.Settings += fmt.Sprintf("restore_from: [%q]\n", s.Store.URL()+"#"+s.base.c.o.Scope)
	other := prepare(s.t, o, drillLimit)
	other.inventory, other.watching = s.inventory, s.watching
	return other
}

// quiet keeps a cluster from writing WAL when its writer does not.
var quiet = map[string]string{"autovacuum": "off"}

// A clone under another scope: it is restored from the first cluster's archive, lives on timelines with the same numbers as the
// first one's, and writes to its own folder.
func TestDrillClone(t *testing.T) {
	s := begin(t, Options{Parameters: quiet})
	s.do("five segments are finished", s.finish(5))
	clone := s.beside(Options{Scope: "clone", Parameters: quiet})
	clone.do("a clone begins with the base backup of the first cluster, and recovers from its archive", func(ctx context.Context) error {
		if err := clone.Nodes[0].BootstrapFrom(s.base, time.Time{}); err != nil {
			return err
		}
		return clone.Start(ctx)
	})
	clone.line(1, 2)
	s.do("the first cluster goes to timeline 2, too", s.switchover(s.Nodes[1]))
	s.do("and is ahead of the clone there", s.finish(12))
	s.do("its old primary becomes a standby", s.AllStreaming)
	first := s.remember()
	first.seal(s)

	clone.populate(drillRate)
	clone.do("three segments are finished", clone.finish(3))
	clone.do("a standby of the clone is cloned again", clone.Nodes[2].Reinit)
	clone.do("it streams", clone.AllStreaming)
	clone.do("three segments are finished", clone.finish(3))
	clone.do("another node of the clone becomes its primary", clone.switchover(clone.Nodes[1]))
	clone.do("three segments are finished", clone.finish(3))
	clone.do("all stream", clone.AllStreaming)
	clone.exits(clone.primary(), 0, nil, "status")
	clone.exits(clone.primary(), 0, nil, "list")
	clone.wholeTruth()
	clone.do("the clone is restored from the base backup that it came from", func(ctx context.Context) error {
		server, err := first.base.In(clone.Cluster).Restore(ctx, ByWalbaton, time.Time{})
		if err != nil {
			return err
		}
		return clone.Compare(ctx, server)
	})

	s.untouched(first)
	s.restorable(first)
	s.do("walbaton verify finds nothing in the first one's", s.verify)
}

// A standby cluster ships to its own scope, through role changes on both sides, and goes on when it is promoted.
func TestDrillStandbyCluster(t *testing.T) {
	s := begin(t, Options{Parameters: quiet})
	p := s.primary()
	site := s.beside(Options{Scope: "site2", Parameters: quiet, Dynamic: fmt.Sprintf("standby_cluster:\n  host: %s\n  port: %d\n", p.host(), p.port())})
	site.do("the standby cluster of another site starts", site.Start)
	site.do("a base backup of its standby leader is taken", site.backup)
	s.do("three segments are finished", s.finish(3))
	s.archivedAt(site)
	site.do("another node of the standby cluster becomes its leader", site.switchover(site.Nodes[1]))
	site.do("all stream", site.AllStreaming)
	s.do("three segments are finished", s.finish(3))
	s.do("another node of the first cluster becomes the primary", s.switchover(s.Nodes[1]))
	s.do("all stream", s.AllStreaming)
	s.do("three segments are finished", s.finish(3))
	s.archivedAt(site)
	site.exits(site.leader(), 0, nil, "status")
	first := s.remember()
	s.do("the first site is lost", func(ctx context.Context) error {
		for _, n := range s.Nodes {
			if err := n.Kill(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	first.seal(s)

	site.do("the standby cluster is promoted", site.PromoteCluster)
	site.line(1, 2, 3)
	site.do("a writer writes", func(ctx context.Context) (err error) {
		site.writer, err = site.Write(ctx, 2<<20)
		return err
	})
	t.Cleanup(site.writer.Stop)
	site.do("three segments are finished", site.finish(3))
	site.do("all stream", site.AllStreaming)
	site.do("another node becomes the primary", site.switchover(site.Nodes[0]))
	site.do("three segments are finished", site.finish(3))
	site.do("all stream", site.AllStreaming)
	site.exits(site.leader(), 0, nil, "status")
	site.exits(site.leader(), 0, nil, "list")
	site.wholeTruth()
	s.untouched(first)
	s.restorable(first)
}

// archivedAt waits until the archive of the standby cluster has all that its primary cluster, s, has written by now.
func (s *scenario) archivedAt(site *scenario) {
	s.t.Helper()
	s.do("the standby cluster has archived them for itself", func(ctx context.Context) error {
		missing, err := s.Settle(ctx, site.base, time.Minute)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("its archive lacks %d files: %v", len(missing), missing)
		}
		return err
	})
}

// leader is the node that leads, in a standby cluster, too.
func (s *scenario) leader() *Node {
	s.t.Helper()
	l, err := s.Leader(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}
