package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

// Whole sidecars with dcs.kind rest: each has a term, and only a running primary uses it.

// TestRESTFailover: the primary ships and standbys wait for it, and what it could not ship its successor does.
func TestRESTFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.rest = true
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n2.start()
		time.Sleep(time.Minute)
		if c.archived(w.Full()[0].String()) || c.archived("archive.json") {
			t.Error("a standby shipped, or began the archive")
		}
		n1.start()
		shipped := w.Full()[1].String()
		n1.until(10*time.Second, "the primary ships", func() bool { return c.archived(shipped) })
		if answer, _ := n2.push(shipped); answer != `0 ""` {
			t.Errorf("a standby's push of what the primary shipped: %q", answer)
		}
		if st := n2.Status(); !st.DCS.REST || st.Baton.Holder != "" || !st.Members[0].Leader {
			t.Errorf("status: %+v, %+v, %+v", st.DCS, st.Baton, st.Members)
		}
		n1.stop()
		w.Fill(2) // and it never ships them
		last := w.Full()[3].String()
		n2.standby(w, "n1")
		time.Sleep(time.Minute)
		if c.archived(last) {
			t.Error("a standby shipped")
		}
		child := w.Fork(2)
		child.Fill(1)
		c.patroni("n2", 2, "n1", "n2")
		n2.primary(child)
		n2.until(40*time.Second, "the new primary ships what its predecessor could not", func() bool { return c.archived(last) })
		first := child.Full()[len(child.Full())-1].String()
		n2.until(10*time.Second, "and its own timeline", func() bool { return c.archived(first) && c.archived("00000002.history") })
		n2.stop()
	})
}

// TestRESTStandbyDrains: PostgreSQL of a standby asks for one file at a time, and no marks tell what the primary has shipped; so the
// archive is listed for all of them.
func TestRESTStandbyDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		c.rest = true
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		n1.until(10*time.Second, "the archive is begun", func() bool { return c.archived(w.Full()[0].String()) })
		time.Sleep(10 * time.Second)
		w.Fill(40)
		n1.primary(w)
		n2.standby(w, "n1")
		began := time.Now()
		for _, g := range w.Full() {
			if answer, _ := n2.push(g.String()); answer != `0 ""` {
				t.Fatalf("push %v: %q", g, answer)
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("41 pushes took %v", took)
		}
		n1.stop()
		n2.stop()
	})
}

// TestRESTSilent: a running primary ships though no Patroni answers; one whose Patroni names another does not.
func TestRESTSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		c.rest = true
		c.patroni("n1", 1, "n1", "n2")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.until(10*time.Second, "the primary ships", func() bool { return c.archived(w.Full()[0].String()) })
		ships := func() bool {
			time.Sleep(20 * time.Second)
			w.Fill(1)
			n1.primary(w)
			last := w.Full()[len(w.Full())-1].String()
			time.Sleep(time.Minute)
			return c.archived(last)
		}
		n1.cut.Store(int32(dcsmem.Drop))
		if !ships() {
			t.Error("no Patroni answers: nothing is shipped")
		}
		if st := n1.Status(); len(st.problems()) == 0 || st.DCS.Answers {
			t.Errorf("no Patroni answers, and status says %+v", st.DCS)
		}
		n1.cut.Store(int32(dcsmem.None))
		c.patroni("n2", 1, "n1", "n2")
		if ships() {
			t.Error("Patroni names another leader: something was shipped")
		}
		c.scope.Delete("leader")
		if !ships() {
			t.Error("Patroni names nobody: nothing is shipped")
		}
		n1.stop()
	})
}

// TestRESTHidesNothing: what the REST API says is not linearizable, so no history is hidden by it.
func TestRESTHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		c.patroni("n1", 1, "n1", "n2")
		for _, rest := range []bool{false, true} {
			c.rest = rest
			n2 := c.newSidecar("n2")
			n2.standby(w, "n1")
			l, err := n2.scope.Leader(t.Context())
			if hides := err == nil && l.Live && !l.Self && l.Timeline == 1; hides == rest {
				t.Errorf("rest %v: %+v, %v", rest, l, err)
			}
		}
	})
}

// TestRESTProtects: a standby has a term that is of no use, and yet keeps what the archive lacks: .done goes back to .ready.
func TestRESTProtects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		c.rest = true
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n1.start()
		n1.until(10*time.Second, "the archive is begun", func() bool { return c.archived(w.Full()[0].String()) })
		n1.stop()
		w.Fill(2)
		n2.standby(w, "n1")
		status := filepath.Join(n2.pgWAL(), "archive_status", w.Full()[2].String())
		if err := os.Rename(status+".ready", status+".done"); err != nil {
			t.Fatal(err)
		}
		n2.start()
		n2.until(30*time.Second, "it is .ready again", func() bool { return exists(status + ".ready") })
		n2.stop()
	})
}
