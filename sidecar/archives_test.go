package main

import (
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	storemem "github.com/walbaton/walbaton/archiver/store/mem"
)

// farArchive is a second archive of a test cluster, each way to which can be cut.
type farArchive struct {
	store    *storemem.Store
	required bool
	spoil    atomic.Pointer[func(node, archive string) storemem.Fault]
}

func (f *farArchive) spoils(by func(node, archive string) storemem.Fault) { f.spoil.Store(&by) }

func (f *farArchive) heal() {
	f.spoils(func(string, string) storemem.Fault { return storemem.Fault{} })
}

func (f *farArchive) stores(near *storemem.Store, node string, cfg Config, log *slog.Logger) []*oneStore {
	wire := func(archive string, s store.Store) store.Store {
		cfg.StallTimeout = stallOfSeveral
		return surround(storemem.NewFaults(s, func(storemem.Call) storemem.Fault { return (*f.spoil.Load())(node, archive) }), cfg, nil, log)
	}
	return []*oneStore{{name: "near", required: true, store: wire("near", near)}, {name: "far", required: f.required, store: wire("far", f.store)}}
}

// has says whether the second archive has a segment.
func (f *farArchive) has(t *testing.T, segment string) bool {
	for info, err := range f.store.List(t.Context(), fmt.Sprintf("shop/%d/wal/", uint64(testSystemID)), "") {
		if err != nil {
			t.Fatal(err)
		}
		if path.Base(info.Key) == segment {
			return true
		}
	}
	return false
}

func newFarCluster(t *testing.T, required bool) *testCluster {
	c := newTestCluster(t)
	c.far = &farArchive{store: storemem.New("far"), required: required}
	c.far.heal()
	return c
}

// A required archive that is down for everybody, failing or hanging: the other one gets every file all the same, the leader keeps the baton, and a push
// waits and names it. When it is back it gets what it lacks, and the push is answered.
func TestRequiredArchiveAway(t *testing.T) {
	for name, fault := range map[string]storemem.Fault{"fails": {Drop: true}, "hangs": {Hang: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newFarCluster(t, true), newTestWriter(2)
				c.patroni("n1", 1, "n1", "n2")
				n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
				n1.primary(w)
				n2.standby(w, "n1")
				n1.start()
				n2.start()
				defer n1.stop()
				defer n2.stop()
				first := w.Full()[1].String()
				n1.until(time.Minute, "both archives have the first segments", func() bool {
					a, _ := n1.push(w.Full()[0].String())
					b, _ := n1.push(first)
					return a == `0 ""` && b == a && n1.holds()
				})

				c.far.spoils(func(_, archive string) storemem.Fault {
					if archive == "far" {
						return fault
					}
					return storemem.Fault{}
				})
				w.Fill(10)
				n1.primary(w)
				n2.standby(w, "n1")
				last := w.Full()[11].String()
				n1.until(2*time.Minute, "the archive that answers has all", func() bool { return c.archived(last) })
				for range 12 {
					time.Sleep(10 * time.Second)
					if !n1.holds() {
						t.Fatalf("the leader gave the baton away, though the archive is silent to everybody:\n%s", strings.Join(n1.log.lines(), "\n"))
					}
				}
				answer, _ := n1.push(last)
				if !strings.HasPrefix(answer, "1 ") || !strings.Contains(answer, "archive far does not answer") {
					t.Errorf("push: got %q, want 1 and the name of the archive", answer)
				}
				if got := n1.readyz(); !strings.Contains(got, "far") {
					t.Errorf("/readyz: got %q, want the name of the archive", got)
				}
				st := n1.Status()
				if len(st.Archive.Each) != 2 || !st.Archive.Each[0].Answers || st.Archive.Each[1].Answers || st.Archive.Each[1].Lacks != 10 {
					t.Errorf("status: got %+v", st.Archive.Each)
				}

				c.far.heal()
				n1.until(2*time.Minute, "the other one has caught up", func() bool { return c.far.has(t, last) && c.far.has(t, w.Full()[4].String()) })
				for _, n := range []*sidecar{n1, n2} {
					n.until(time.Minute, "pushes are answered", func() bool { a, _ := n.push(last); return a == `0 ""` })
				}
			})
		})
	}
}

// An archive that one node alone does not reach moves the baton to a node that reaches all, and back.
func TestArchiveAwayForOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newFarCluster(t, true), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		defer n1.stop()
		defer n2.stop()
		n1.until(time.Minute, "the leader ships", func() bool { return c.far.has(t, w.Full()[1].String()) && n1.holds() })
		c.far.spoils(func(node, archive string) storemem.Fault {
			return storemem.Fault{Drop: node == "n1" && archive == "far"}
		})
		w.Fill(4)
		n1.primary(w)
		n2.standby(w, "n1")
		last := w.Full()[5].String()
		n2.until(3*time.Minute, "the other node ships to all", func() bool { return n2.holds() && c.far.has(t, last) && c.archived(last) })
		c.far.heal()
		n1.until(3*time.Minute, "the baton comes back", n1.holds)
		if answer, _ := n1.push(last); answer != `0 ""` {
			t.Errorf("push: got %q, want 0", answer)
		}
	})
}

// An optional archive that hangs holds up no push, and is filled when it is back, though PostgreSQL has recycled the files.
func TestOptionalArchiveAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newFarCluster(t, false), newTestWriter(2)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		defer n1.stop()
		n1.until(time.Minute, "both archives have the first segments", func() bool { return c.far.has(t, w.Full()[1].String()) })
		c.far.spoils(func(_, archive string) storemem.Fault { return storemem.Fault{Hang: archive == "far"} })
		w.Fill(5)
		n1.primary(w)
		for _, s := range w.Full() {
			began := time.Now()
			if answer, _ := n1.push(s.String()); answer != `0 ""` || time.Since(began) > 15*time.Second {
				t.Errorf("push of %v after %v: got %q, want 0 soon", s, time.Since(began), answer)
			}
		}
		if got := n1.readyz(); got != "ready" {
			t.Errorf("/readyz: got %q, want ready: the archive is not required", got)
		}
		for _, s := range w.Full() {
			if err := os.Remove(filepath.Join(n1.pgWAL(), s.String())); err != nil {
				t.Fatal(err)
			}
		}
		n1.look(nil)
		c.far.heal()
		n1.until(2*time.Minute, "it is filled", func() bool { return c.far.has(t, w.Full()[6].String()) && c.far.has(t, w.Full()[3].String()) })
	})
}

// A sidecar that starts while one of two required archives is away begins with the other one, and takes up the work on the first when it is there.
func TestArchiveAwayAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newFarCluster(t, true), newTestWriter(3)
		c.far.spoils(func(_, archive string) storemem.Fault { return storemem.Fault{Hang: archive == "near"} })
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		defer n1.stop()
		last := w.Full()[2].String()
		n1.until(3*time.Minute, "the archive that answers has all", func() bool { return c.far.has(t, last) })
		if answer, _ := n1.push(last); !strings.HasPrefix(answer, "1 ") {
			t.Errorf("push: got %q, want 1", answer)
		}
		c.far.heal()
		n1.until(3*time.Minute, "the other one has them, too", func() bool { return c.archived(last) })
		n1.until(time.Minute, "the push is answered", func() bool { a, _ := n1.push(last); return a == `0 ""` })
	})
}
