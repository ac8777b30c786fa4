package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	"github.com/walbaton/walbaton/leader"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

// Whole sidecars, with all the loops that app.Run starts. A test whose goroutines have not all returned at its end fails.

func newTestWriter(segments int) *waltest.Writer {
	w := waltest.New(testSystemID, 1<<20)
	w.Fill(segments)
	return w
}

// TestArchiveAwayAtStart: a sidecar that starts while the archive is away says so once, tries again and again, and begins to
// work as soon as it answers.
func TestArchiveAwayAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(3)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		c.spoils(storemem.Fault{Drop: true})
		n1.start()
		time.Sleep(5 * time.Minute)
		if got := n1.readyz(); !strings.Contains(got, storemem.ErrFault.Error()) {
			t.Errorf("/readyz: got %q, want why the archive is not open", got)
		}
		if st := n1.Status(); st.Ready || st.Archive.Open || !strings.Contains(st.Archive.Why, storemem.ErrFault.Error()) {
			t.Errorf("status: got %+v", st.Archive)
		}
		if n := n1.log.count("the archive is not open"); n != 1 {
			t.Errorf("it was said %d times that the archive is not open, want once:\n%s", n, strings.Join(n1.log.lines(), "\n"))
		}
		if n1.holds() {
			t.Error("a node without an archive took the baton")
		}
		c.heal()
		last := w.Full()[2].String()
		n1.until(15*time.Second, "all segments are in the archive", func() bool { return c.archived(last) && n1.holds() })
		if answer, _ := n1.push(last); answer != `0 ""` {
			t.Errorf("push: got %q, want 0", answer)
		}
		if got := n1.readyz(); got != "ready" {
			t.Errorf("/readyz: got %q", got)
		}
		n1.stop()
	})
}

// TestCloneInAnOutage: what came with a clone is .done. While the archive cannot be asked PostgreSQL keeps it; where it can be asked
// at once nothing is kept unseen.
func TestCloneInAnOutage(t *testing.T) {
	for _, away := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, w := newTestCluster(t), newTestWriter(3)
			c.patroni("n1", 1, "n1", "n2")
			n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
			n1.primary(w)
			n1.start()
			n1.until(15*time.Second, "all segments are in the archive", func() bool {
				return !slices.ContainsFunc(w.Full(), func(g wal.Segment) bool { return !c.archived(g.String()) })
			})
			n2.standby(w, "n1")
			dir := filepath.Join(n2.pgWAL(), "archive_status")
			for _, g := range w.Full() {
				if err := os.Rename(filepath.Join(dir, g.String()+".ready"), filepath.Join(dir, g.String()+".done")); err != nil {
					t.Fatal(err)
				}
			}
			if away {
				c.spoils(storemem.Fault{Hang: true})
			}
			n2.start()
			time.Sleep(30 * time.Second)
			if said := n2.log.count("PostgreSQL is asked to keep WAL that it takes for archived: the archive was not asked yet"); said > 0 != away {
				t.Errorf("the archive is away: %v; PostgreSQL was asked %d times to keep WAL", away, said)
			}
			for _, g := range w.Full() {
				if away && !exists(filepath.Join(dir, g.String()+".ready")) {
					t.Errorf("%v is not .ready", g)
				}
			}
			c.heal()
			n2.stop()
			n1.stop()
		})
	}
}

// TestDCSAway: the term ends before the lease may be another's, the sidecar says why it is not ready, ships as a primary may (P4),
// and has the baton again when the DCS is back.
func TestDCSAway(t *testing.T) {
	for name, fault := range map[string]dcsmem.Fault{"hangs": dcsmem.Hang, "fails": dcsmem.Drop} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newTestCluster(t), newTestWriter(2)
				c.patroni("n1", 1, "n1")
				n1 := c.newSidecar("n1")
				n1.primary(w)
				n1.start()
				n1.until(10*time.Second, "the baton is taken", n1.holds)
				term := n1.elector.Status().Epoch
				time.Sleep(7 * time.Second)
				n1.cut.Store(int32(fault))
				n1.until(n1.cfg.TTL-n1.cfg.Margin, "the term ends", func() bool { return !n1.holds() })
				if left := n1.until(n1.cfg.TTL, "the lease ends", func() bool { return !c.reading().Baton.Held() }); left < n1.cfg.Margin-50*time.Millisecond {
					t.Errorf("the term ended %v before the lease, want %v", left, n1.cfg.Margin)
				}
				if n := n1.log.count("lost the baton"); n != 1 {
					t.Errorf("%d lines say that the baton was lost, want one", n)
				}
				if got := n1.readyz(); !strings.HasPrefix(got, "the DCS does not answer: ") {
					t.Errorf("/readyz: got %q", got)
				}
				if st := n1.Status(); st.Ready || st.DCS.Answers {
					t.Errorf("status: ready %v, DCS %+v", st.Ready, st.DCS)
				}
				w.Fill(1)
				n1.primary(w)
				last := w.Full()[len(w.Full())-1].String()
				n1.until(5*time.Second, "a primary ships without the DCS", func() bool { return c.archived(last) })
				n1.cut.Store(int32(dcsmem.None))
				n1.until(10*time.Second, "the baton is taken again", n1.holds)
				if again := n1.elector.Status().Epoch; again <= term {
					t.Errorf("term %d after term %d", again, term)
				}
				if got := n1.readyz(); got != "ready" {
					t.Errorf("/readyz: got %q", got)
				}
				for _, msg := range []string{"the DCS does not answer", "the DCS answers again"} {
					if n := n1.log.count(msg); n != 1 {
						t.Errorf("%d lines say that %s, want one", n, msg)
					}
				}
				n1.stop()
			})
		})
	}
}

// TestLeaderMoves: when Patroni's leader key goes to another node, our term ends and the other's begins, never both at once;
// the new timeline is shipped; and no record is written more than once a second, whatever happens.
func TestLeaderMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		n1.until(10*time.Second, "the baton is taken", n1.holds)
		var both, steps int
		busy := func() { // WAL is finished all the time
			if steps++; steps%30 == 0 {
				w.Fill(1)
				n1.primary(w)
				n2.standby(w, "n1")
			}
			if n1.holds() && n2.holds() {
				both++
			}
		}
		for range 600 {
			busy()
			time.Sleep(10 * time.Millisecond)
		}
		fork := w.Fork(2)
		fork.Fill(2)
		c.spoilsSome(func(call storemem.Call) storemem.Fault {
			if call.Op == storemem.OpPut && strings.HasSuffix(call.Key, ".history") {
				return storemem.Fault{Delay: 4 * time.Second} // the others see the new line before the archive has it
			}
			return storemem.Fault{}
		})
		n2.primary(fork)
		n1.stopped(w)
		c.patroni("n2", 2, "n1", "n2")
		took := n2.until(3*time.Second, "the new leader has the baton", func() bool {
			if n1.holds() && n2.holds() {
				both++
			}
			return n2.holds()
		})
		if n1.holds() || both > 0 {
			t.Errorf("both nodes held the baton %d times (P4)", both)
		}
		if took > 2*time.Second {
			t.Errorf("the new leader took the baton after %v", took)
		}
		n1.standby(fork, "n2")
		last := fork.Full()[len(fork.Full())-1].String()
		n2.until(10*time.Second, "the new timeline is in the archive", func() bool { return c.archived(last) && c.archived("00000002.history") })
		if answer, took := n1.push(last); answer != `0 ""` || took > 2*time.Second {
			t.Errorf("push on the new standby: got %q after %v, want 0", answer, took)
		}
		n1.until(25*time.Second, "the standby keeps the new history", func() bool {
			return exists(filepath.Join(n1.cfg.KeepDir, "histories", "7710542482846769188", "00000002.history"))
		})
		for _, n := range []*sidecar{n1, n2} {
			writes := n.writes()
			for i, at := range writes[1:] {
				if gap := at.Sub(writes[i]); gap < time.Second {
					t.Errorf("%s wrote its record twice within %v", n.cfg.Name, gap)
				}
			}
			if len(writes) < 4 {
				t.Errorf("%s wrote its record %d times, and much happened", n.cfg.Name, len(writes))
			}
		}
		n1.stop()
		n2.stop()
	})
}

// TestStop: a sidecar that stops answers who waits, gives the baton back, withdraws its record and returns, all within three seconds,
// whatever is away.
func TestStop(t *testing.T) {
	for _, tc := range []struct {
		name  string
		dcs   dcsmem.Fault
		store storemem.Fault
	}{
		{"all is well", dcsmem.None, storemem.Fault{}},
		{"the archive hangs", dcsmem.None, storemem.Fault{Hang: true}},
		{"the archive fails", dcsmem.None, storemem.Fault{Drop: true}},
		{"the DCS hangs", dcsmem.Hang, storemem.Fault{}},
		{"both hang", dcsmem.Hang, storemem.Fault{Hang: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newTestCluster(t), newTestWriter(1)
				c.patroni("n1", 1, "n1")
				n1 := c.newSidecar("n1")
				n1.primary(w)
				n1.start()
				n1.until(10*time.Second, "the first segment is in the archive", func() bool { return c.archived(w.Full()[0].String()) && n1.holds() })
				c.spoils(tc.store)
				n1.cut.Store(int32(tc.dcs))
				w.Fill(2)
				n1.primary(w)
				time.Sleep(6 * time.Second)
				var calls sync.WaitGroup
				missing := "0000000100000000000000FF" // nobody ever finishes it
				n1.file(missing, make([]byte, 1<<20))
				var answer string
				var took time.Duration
				calls.Go(func() { answer, took = n1.push(missing) })
				time.Sleep(2 * time.Second)
				if stop := n1.stop(); stop > 3*time.Second {
					t.Errorf("the stop took %v", stop)
				}
				calls.Wait()
				if !strings.HasPrefix(answer, "1 ") || took > 3500*time.Millisecond {
					t.Errorf("the push that waited got %q after %v", answer, took)
				}
				if r := c.reading(); tc.dcs == dcsmem.None && (r.Baton.Held() || len(r.Records) > 0) {
					t.Errorf("after the stop the baton is %+v and there are %d records", r.Baton, len(r.Records))
				}
				if got, _ := n1.push(missing); !strings.Contains(got, "closed pipe") {
					t.Errorf("after the stop the socket says %q", got)
				}
			})
		})
	}
}

// TestStopBeforeTheArchive: also a sidecar that never reached an archive, which hangs, stops in time.
func TestStopBeforeTheArchive(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			c, w := newTestCluster(t), newTestWriter(1)
			c.patroni("n1", 1, "n1")
			n1 := c.newSidecar("n1")
			n1.primary(w)
			c.spoils(storemem.Fault{Hang: true})
			n1.start()
			time.Sleep(after)
			if stop := n1.stop(); stop > 3*time.Second {
				t.Errorf("%v after the start: the stop took %v", after, stop)
			}
		})
	}
}

// TestPushWaits: a push that nobody can answer is answered at push_wait; without an archive too.
func TestPushWaits(t *testing.T) {
	for name, open := range map[string]bool{"the archive was open": true, "the archive never was": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newTestCluster(t), newTestWriter(1)
				c.patroni("n1", 1, "n1")
				n1 := c.newSidecar("n1")
				n1.primary(w)
				if !open {
					c.spoils(storemem.Fault{Drop: true})
				}
				n1.start()
				if open {
					n1.until(10*time.Second, "the archive is open and the baton taken", func() bool { return c.archived(w.Full()[0].String()) && n1.holds() })
					time.Sleep(time.Second)
				}
				c.spoils(storemem.Fault{Drop: true})
				w.Fill(1)
				n1.primary(w)
				answer, took := n1.push(w.Full()[1].String())
				if !strings.HasPrefix(answer, "1 ") || !strings.Contains(answer, storemem.ErrFault.Error()) || took < n1.cfg.PushWait || took > n1.cfg.PushWait+5*time.Second {
					t.Errorf("push: got %q after %v, want 1 and why after %v", answer, took, n1.cfg.PushWait)
				}
				var calls sync.WaitGroup
				calls.Go(func() { answer, took = n1.push(w.Full()[1].String()) })
				time.Sleep(20 * time.Second)
				c.heal()
				calls.Wait()
				if answer != `0 ""` || took > 40*time.Second {
					t.Errorf("push while the archive comes back: got %q after %v, want 0 soon", answer, took)
				}
				n1.stop()
			})
		})
	}
}

// TestDataDirectoryIsReplaced: when pg_wal is another one the archive is opened anew, and when the server belongs to another
// cluster, that one's; the baton stays where it is.
func TestDataDirectoryIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.until(10*time.Second, "the segments are in the archive", func() bool { return c.archived(w.Full()[1].String()) })
		first, _ := n1.current()
		if err := os.Rename(n1.pgWAL(), n1.pgWAL()+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(n1.pgWAL(), "archive_status"), 0o700); err != nil {
			t.Fatal(err)
		}
		n1.look(queue.ErrReplaced)
		n1.until(10*time.Second, "the archive is open again", func() bool { s, _ := n1.current(); return s != nil && s != first })
		w.Fill(1)
		n1.primary(w)
		n1.until(10*time.Second, "what the new folder has is shipped", func() bool { return c.archived(w.Full()[2].String()) })

		other := waltest.New(testSystemID+1, 1<<20)
		other.Fill(1)
		second, _ := n1.current()
		srv := n1.server.Server()
		srv.SystemID, srv.Flush = testSystemID+1, other.Pos()
		n1.server.set(srv)
		c.scope.Put("initialize", "7710542482846769189")
		n1.until(10*time.Second, "the other cluster's archive is open", func() bool {
			s, _ := n1.current()
			return s != nil && s != second && s.archiver.Archive().Identity().SystemID == testSystemID+1
		})
		n1.file(other.Full()[0].String(), other.Segment(other.Full()[0]))
		n1.look(nil)
		time.Sleep(5 * time.Second)
		if n := n1.log.count("took the baton"); n != 1 || !n1.holds() {
			t.Errorf("the baton was taken %d times, holding %v; want one term over all of it\n%s", n, n1.holds(), strings.Join(n1.log.lines(), "\n"))
		}
		n1.stop()
	})
}

// TestKeeperWhileTheArchiveIsAway is row 7 over all the loops: what a stopped server has is set aside while the archive is away since
// the start, and shipped from there when it is back, although pg_wal has lost it.
func TestKeeperWhileTheArchiveIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		c.patroni("n1", 1, "n1", "n2")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.until(10*time.Second, "timeline 1 is open", func() bool { return c.archived(w.Full()[0].String()) })
		n1.stop()
		w.Fill(3) // and nobody ships them

		c.spoils(storemem.Fault{Drop: true})
		again := c.newSidecar("n1")
		again.stopped(w)
		again.start()
		time.Sleep(10 * time.Second)
		for i, g := range w.Full() {
			answer, took := again.push(g.String())
			if !strings.HasPrefix(answer, "1 ") || !strings.Contains(answer, "row 7") {
				t.Errorf("push %v: got %q, want 1 by row 7", g, answer)
			}
			if wait := again.cfg.StoppedWait; i == 0 && (took < wait || took > wait+2*time.Second) || i > 0 && took > time.Second {
				t.Errorf("push %d was answered after %v; stopped_wait is %v, for all of them", i, took, wait)
			}
		}
		for _, g := range w.Full() { // pg_rewind
			if err := os.Remove(filepath.Join(again.pgWAL(), g.String())); err != nil {
				t.Fatal(err)
			}
		}
		c.heal()
		again.until(time.Minute, "what was set aside is in the archive", func() bool {
			for _, g := range w.Full() {
				if !c.archived(wal.SegmentName(g).String()) {
					return false
				}
			}
			return true
		})
		again.standby(w, "n2")
		time.Sleep(5 * time.Second)
		for msg, want := range map[string]string{
			"PostgreSQL is stopped: what is not known to be stored is set aside in keep_dir": "first=000000010000000000000001",
			"files were set aside in keep_dir while PostgreSQL was stopped":                  "files=4",
			"keep_dir is empty again: the archive has what was set aside":                    "files=4",
		} {
			if lines := strings.Join(again.log.lines(), "\n"); again.log.count(msg) != 1 || !strings.Contains(lines, msg+`" `+want) {
				t.Errorf("%q is not told once, with %s:\n%s", msg, want, lines)
			}
		}
		again.stop()
	})
}

// TestAnotherClusterBefore: who begins an archive under a scope that has another cluster's says so once, and all show it.
func TestAnotherClusterBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		old := archiver.Identity{Scope: "shop", SystemID: 77, SegmentSize: 1 << 20}
		if err := archiver.CreateArchive(t.Context(), c.store, old); err != nil {
			t.Fatal(err)
		}
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		said := func(n *sidecar) (count int) {
			for _, l := range n.log.lines() {
				if strings.Contains(l, "level=WARN") && strings.Contains(l, "another cluster") && strings.Contains(l, "others=77") {
					count++
				}
			}
			return count
		}
		for _, n := range []*sidecar{n1, n2} {
			n.start()
			n.until(10*time.Second, "the archive is open", func() bool { s, _ := n.current(); return s != nil })
			if got := n.metric("walbaton_other_archives"); got != 1 {
				t.Errorf("%s: walbaton_other_archives is %v, want 1", n.cfg.Name, got)
			}
		}
		if said(n1) != 1 || said(n2) != 0 {
			t.Errorf("n1, which began the archive, warned %d times and n2 %d times, want 1 and 0", said(n1), said(n2))
		}
		n1.stop()
		n2.stop()
	})
}

// TestDiskIsTold: while the archive is away the others learn what is left on this node's disk, and everybody's status says how
// much it keeps. In an idle cluster the record does not move.
func TestDiskIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		free := func() uint64 {
			r, err := leader.ParseRecord(c.reading().Records["n1"].Value)
			if err != nil {
				t.Fatal(err)
			}
			return r.Free
		}
		last := w.Full()[1].String()
		n1.until(20*time.Second, "all is in the archive", func() bool { return c.archived(last) && n1.Status().Archive.Waiting == 0 })
		time.Sleep(2 * time.Second)
		if got := free(); got != 0 {
			t.Errorf("in order: the record says that %d bytes are free", got)
		}
		c.spoils(storemem.Fault{Drop: true})
		w.Fill(3)
		n1.primary(w)
		n1.until(2*time.Minute, "the record says what is free", func() bool { return free() != 0 })
		told := func() string {
			for _, p := range n2.Status().problems() {
				if strings.HasPrefix(p, "n1 keeps 3 segments (3.0 MB)") {
					return p
				}
			}
			return ""
		}
		n2.until(time.Minute, "the other node's status tells of it", func() bool { return told() != "" })
		c.heal()
		n1.until(2*time.Minute, "it is over", func() bool { return free() == 0 && told() == "" })
		n1.stop()
		n2.stop()
	})
}
