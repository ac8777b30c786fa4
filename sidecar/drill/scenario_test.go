//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scenario is a running cluster with a writer, a base backup from before the first role change and somebody who keeps
// an inventory of the archive. A drill tells it what to do, in order; at the end it asks for the whole truth.
type scenario struct {
	*Cluster
	t   *testing.T
	ctx context.Context

	writer    *Writer
	base      *Base
	inventory *Inventory
	watching  func() error // ends the inventory and says what it saw
	step      string       // the last one, and how it failed
}

// begin starts a cluster with a writer of about 2 MB a second.
func begin(t *testing.T, o Options) *scenario {
	t.Helper()
	return beginFor(t, o, drillLimit, drillRate)
}

const (
	drillLimit = 8 * time.Minute
	drillRate  = 2 << 20
)

// beginFor is begin, for a drill that may take another time and writes another number of bytes a second.
func beginFor(t *testing.T, o Options, limit time.Duration, rate int) *scenario {
	t.Helper()
	s := prepare(t, o, limit)
	s.do("three nodes start", s.Start)
	s.populate(rate)
	return s
}

// prepare makes a cluster, and starts nothing.
func prepare(t *testing.T, o Options, limit time.Duration) *scenario {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	o.Log = t.Logf
	c, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{Cluster: c, t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() { // who reads a build server's mail sees the end of it
			t.Log(c.Logs(25))
			t.Log("the last step:", s.step)
		}
		if to := os.Getenv("WALBATON_DRILL_LOGS"); to != "" && exists(c.Dir) { // all of them, for a person; scenario.end leaves none
			if err := Run(exec.Command("sh", "-c", `mkdir -p "$2" && cd "$1" && cp -r --parents */log "$2"`, "sh", c.Dir, to)); err != nil {
				t.Error(err)
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// populate gives the primary of a new cluster a writer and takes the first base backup.
func (s *scenario) populate(rate int) {
	s.t.Helper()
	s.do("a writer writes", func(ctx context.Context) (err error) {
		s.writer, err = s.Write(ctx, rate)
		return err
	})
	s.t.Cleanup(s.writer.Stop)
	s.do("a base backup is taken, before any role changes", s.backup)
	if s.o.Archiver != Copy && s.inventory == nil { // cp overwrites, and writes in place
		s.watch()
	}
}

// backup is the verb that takes the base backup which recoveries begin with from now on.
func (s *scenario) backup(ctx context.Context) (err error) {
	s.base, err = s.TakeBase(ctx)
	return err
}

// do is one step of a drill: what happens, in words, and the verb that makes it happen.
func (s *scenario) do(words string, verb func(context.Context) error) {
	s.t.Helper()
	start := time.Now()
	s.step = words
	if err := verb(s.ctx); err != nil {
		s.step = fmt.Sprintf("%s: %v", words, err)
		s.t.Fatal(s.step)
	}
	s.t.Logf("%5.1fs %s", time.Since(start).Seconds(), words)
}

// rejoins waits until all stream, n too, which is a former primary. Patroni 3.0 does not rewind it always, and then an administrator clones it anew: where
// recovery in single-user mode wrote its checkpoint beyond the fork and died after that (on a full disk), and where
// PostgreSQL was started as a standby at once, and replayed what it had of its own beyond the fork. And where it is starting up for ever: that was seen
// once, and not why.
func (s *scenario) rejoins(n *Node) (cloned bool) {
	s.t.Helper()
	lost := func() bool {
		log := n.Log("patroni")
		return strings.Count(log, "could not locate a valid checkpoint record") > 3 || strings.Count(log, "record with incorrect prev-link") > 12 ||
			strings.Count(sinceStart(log), "Still starting up as a standby") > 40
	}
	s.do("the old primary streams, or never will", func(ctx context.Context) error {
		return until(ctx, clusterLimit, n.Name+" streams", func(ctx context.Context) error {
			following, err := s.followers(ctx, s.primary())
			if err == nil && !slices.Contains(following, n.Name) && !lost() {
				err = fmt.Errorf("only %v do:\n%s", following, grep(sinceStart(n.Log("patroni")), " startup "))
			}
			return err
		})
	})
	if following, err := s.followers(s.ctx, s.primary()); err == nil && !slices.Contains(following, n.Name) && lost() {
		s.t.Logf("%s never will:\n%s", n.Name, grep(sinceStart(n.Log("patroni")), " startup "))
		s.do("an administrator clones it anew", n.Reinit)
		cloned = true
	}
	s.do("all stream", s.AllStreaming)
	return cloned
}

// sinceStart is what a log has since PostgreSQL was started last.
func sinceStart(log string) string { return log[strings.LastIndex(log, "starting PostgreSQL ")+1:] }

// primary is the node that takes writes now.
func (s *scenario) primary() *Node {
	s.t.Helper()
	p, err := s.Primary(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// finish is the verb that waits for so many finished segments.
func (s *scenario) finish(segments int) func(context.Context) error {
	return func(ctx context.Context) error { return s.Finish(ctx, segments) }
}

// switchover is the verb that makes a node the primary.
func (s *scenario) switchover(to *Node) func(context.Context) error {
	return func(ctx context.Context) error { return s.Switchover(ctx, to) }
}

// promoted is the verb that waits until another node than the old primary takes writes.
func (s *scenario) promoted(ctx context.Context) error {
	_, err := s.Primary(ctx)
	return err
}

// watch looks at the archive once a second, while it is there.
func (s *scenario) watch() {
	s.inventory = NewInventory(s.Store)
	ctx, cancel := context.WithCancel(s.ctx)
	var changed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil && changed == nil {
			if err := s.inventory.Look(ctx, false); errors.As(err, new(*Rewritten)) {
				changed = err
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	s.watching = sync.OnceValue(func() error {
		cancel()
		wg.Wait()
		return changed
	})
	s.t.Cleanup(func() { s.watching() })
}

// wholeTruth ends the writer and proves that the archive is complete and was written once, and that recoveries from it
// have every row which a node has: one without walbaton, one with it. Then `walbaton verify` must find nothing.
func (s *scenario) wholeTruth() {
	s.t.Helper()
	s.settle()
	if err := s.watching(); err != nil {
		s.t.Error(err)
	}
	s.do("every object is what it was when it came", func(ctx context.Context) error { return s.inventory.Look(ctx, true) })
	for _, how := range []How{ByHand, ByWalbaton} {
		server := s.restore(how)
		s.do("every row is there", func(ctx context.Context) error { return s.Compare(ctx, server) })
		s.do("the restored server goes", func(context.Context) error { return server.Stop() })
	}
	s.do("walbaton verify finds nothing", s.verify)
	s.lost()
}

// settle ends the writer, and waits until the archive is whole.
func (s *scenario) settle() {
	s.t.Helper()
	s.writer.Stop()
	missing, err := s.Settle(s.ctx, s.base, 2*time.Minute)
	if err != nil || len(missing) > 0 {
		s.t.Fatalf("the archive lacks %d files: %v, %v", len(missing), missing, err)
	}
}

// restore recovers a server from the base backup to the end of the archive.
func (s *scenario) restore(how How) *Server {
	s.t.Helper()
	return s.restoreFrom(s.base, how)
}

func (s *scenario) verify(ctx context.Context) error { return Run(s.Nodes[0].Walbaton(ctx, "verify")) }

// lost logs how many acknowledged rows no server has. Asynchronous replication allows that; the archive cannot help it.
func (s *scenario) lost() {
	s.t.Helper()
	lost, acked := s.count()
	s.t.Logf("%d rows acknowledged, %d of them lost in failovers before they reached a standby; %d failures seen by the writer",
		acked, lost, s.writer.Failures())
}

// count gives the number of acknowledged rows, and of those among them that the primary does not have.
func (s *scenario) count() (lost, acked int) {
	s.t.Helper()
	rows, err := Rows(s.ctx, s.primary().DSN())
	if err != nil {
		s.t.Fatal(err)
	}
	all := s.writer.Acked()
	for id := range all {
		if _, ok := rows[id]; !ok {
			lost++
		}
	}
	return lost, len(all)
}
