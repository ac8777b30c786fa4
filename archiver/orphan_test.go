package archiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestOrphansAfterTheOpening: a primary of timeline 2 that nobody followed gave its first segments to orphans/, and PostgreSQL removed
// them. Then it leads the cluster after all, with the later ones. Its first put opens the timeline, and in the same
// term the orphans are adopted.
func TestOrphansAfterTheOpening(t *testing.T) {
	synctest.Test(t, testOrphansAfterTheOpening)
}

func testOrphansAfterTheOpening(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	line := w.Fork(2)
	line.Fill(4)
	own := onTimeline(line, 2)

	n2 := newTestNode(t, s, "n2", line)
	history := wal.HistoryName(2)
	n2.write(history.String(), line.History().Bytes(), ".ready")
	n2.copyFrom(line, ".ready")
	n2.sees(func(c *Cluster, s *Server) { // n1 leads on timeline 1, as far as anybody knows
		c.Line = wal.History{Timeline: 1}
		s.State, s.Receiver = ServerStopped, Receiver{}
	})
	for _, g := range own[:2] {
		if err := n2.orphan(t.Context(), n2.local, wal.SegmentName(g)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(n2.dir, g.String())); err != nil {
			t.Fatal(err)
		}
	}
	n2.sees(func(c *Cluster, s *Server) {
		c.Leader, c.Line = "n2", line.History()
		s.State = ServerPrimary
	})
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.calls.take()
	term, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n2.Lead(term, 2, Set{}); err != nil {
		t.Fatal(err)
	}
	if lists := n2.calls.take()[mem.OpList]; lists > 30 {
		t.Errorf("%d listings in a minute: orphans/ is looked through without a reason", lists)
	}
	got := stored(t, n2.Archive())
	for _, g := range own {
		if _, ok := got[g.String()]; !ok {
			t.Errorf("%v is not in the archive", g)
		}
	}
}

// TestOrphansOpenTheTimelineBetween: of timeline 2 there is nothing but orphans, of a server that nobody followed. It leads after all, on a
// timeline that grew from it; the first segment of that begins with the end of timeline 2 and tells that the orphans are its own. Those
// of another server of that number fit nothing.
func TestOrphansOpenTheTimelineBetween(t *testing.T) {
	for _, same := range []bool{true, false} {
		w := newWriter()
		w.Fill(2)
		s := mem.New("x")
		between, twin := w.Fork(2), w.Clone(7).Fork(2)
		between.Fill(3)
		between.Record(100)
		twin.Fill(4)
		orphans := between
		if !same {
			orphans = twin
		}
		line := between.Fork(3)
		line.Fill(3)
		n := newTestNode(t, s, "n1", line)
		n.write("00000002.history", between.History().Bytes(), ".ready")
		n.write("00000003.history", line.History().Bytes(), ".ready")
		for _, g := range append(onTimeline(w, 1), onTimeline(line, 3)...) {
			n.write(g.String(), line.Segment(g), ".ready")
		}
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		n.sees(func(c *Cluster, s *Server) { c.Leader, s.State, s.Flush = "n1", ServerPrimary, line.Pos() })
		n.shipAll(1)
		other := newTestNode(t, s, "n2", orphans)
		other.copyFrom(orphans, "")
		lost := onTimeline(between, 2)
		for _, g := range lost {
			if err := other.orphan(t.Context(), other.local, wal.SegmentName(g)); err != nil {
				t.Fatal(err)
			}
		}
		n.BeginTerm(t.Context(), 2, Set{})
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := stored(t, n.Archive())
		for _, g := range lost {
			if _, ok := got[g.String()]; ok != same {
				t.Errorf("same server %v: the archive has %v: %v", same, g, ok)
			}
		}
	}
}

// TestOrphanBesideADamagedObject: the archive's copy of the segment before an orphan is damaged, at its beginning or further in. The one after tells all the same
// that the orphan is the line's.
func TestOrphanBesideADamagedObject(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"no object at all": func([]byte) []byte { return []byte("spoiled") },
		"cut":              func(b []byte) []byte { return b[:len(b)/2] },
	} {
		w := newWriter()
		w.Fill(4)
		s := mem.New("x")
		full := w.Full()
		n := newTestNode(t, s, "n1", w)
		n.sees(func(c *Cluster, s *Server) { c.Leader, s.State, s.Flush = "n1", ServerPrimary, w.Pos() })
		other := newTestNode(t, s, "n2", w)
		other.copyFrom(w, "")
		other.put(wal.SegmentName(full[0]), w.Segment(full[0]))
		spoilObject(t, s, n.Archive().Key(wal.SegmentName(full[0])), spoil)
		for _, g := range full[2:] {
			n.write(g.String(), w.Segment(g), ".ready")
		}
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		n.shipAll(1)
		if err := other.orphan(t.Context(), other.local, wal.SegmentName(full[1])); err != nil {
			t.Fatal(err)
		}
		n.BeginTerm(t.Context(), 2, Set{})
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Archive().Header(t.Context(), n.Archive().Key(wal.SegmentName(full[1]))); err != nil {
			t.Errorf("%s: the orphan was not adopted: %v", name, err)
		}
	}
}

// TestOrphanWhileTheStoreFails: the archive did not answer when an orphan was to be read. The same term asks again, after a while.
func TestOrphanWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter()
		w.Fill(3)
		s := mem.New("x")
		full := w.Full()
		n := newTestNode(t, s, "n1", w)
		n.copyFrom(w, ".ready")
		if err := n.orphan(t.Context(), n.local, wal.SegmentName(full[1])); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(n.dir, full[1].String())); err != nil {
			t.Fatal(err)
		}
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		n.calls.spoil(func(c mem.Call) mem.Fault {
			return mem.Fault{Drop: c.Op == mem.OpGet && strings.Contains(c.Key, "/orphans/")}
		})
		n.shipAll(2)
		n.calls.take()
		for range 20 {
			if err := n.AdoptOrphans(t.Context()); err == nil {
				t.Fatal("the store fails, and nobody hears of it")
			}
			time.Sleep(time.Second)
		}
		if lists := n.calls.take()[mem.OpList]; lists < 2 || lists > 6 {
			t.Errorf("%d listings in 20 s of a store that fails", lists)
		}
		n.calls.spoil(func(mem.Call) mem.Fault { return mem.Fault{} })
		time.Sleep(lookAfter)
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := stored(t, n.Archive())[full[1].String()]; !ok {
			t.Error("the orphan was not adopted")
		}
	})
}

// TestOrphanGetsANeighbour: nothing was beside an orphan when it was looked at. Once another node has put that, the same term adopts it.
func TestOrphanGetsANeighbour(t *testing.T) {
	w := newWriter()
	w.Fill(5)
	s := mem.New("x")
	full := w.Full()
	n, other := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	other.copyFrom(w, ".ready")
	if err := other.orphan(t.Context(), other.local, wal.SegmentName(full[3])); err != nil {
		t.Fatal(err)
	}
	n.write(full[0].String(), w.Segment(full[0]), ".ready")
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	n.shipAll(1)
	n.BeginTerm(t.Context(), 2, Set{})
	if err := n.AdoptOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := stored(t, n.Archive())[full[3].String()]; ok {
		t.Fatal("adopted with nothing beside it")
	}
	other.put(wal.SegmentName(full[4]), w.Segment(full[4]))
	if err := errors.Join(n.List(t.Context()), n.AdoptOrphans(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, ok := stored(t, n.Archive())[full[3].String()]; !ok {
		t.Error("the orphan was not adopted")
	}
}

// spoilObject changes what is stored under a key.
func spoilObject(t *testing.T, s *mem.Store, key string, spoil func([]byte) []byte) {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err == nil {
		err = errors.Join(r.Close(), s.Delete(t.Context(), key), s.Put(t.Context(), key, bytes.NewReader(spoil(b))))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOrphansOfAnIdleTwin: an idle server writes what another idle one of the same timeline number would write, so an orphan can fit.
// What lies beyond the end of the line is not adopted all the same.
func TestOrphansOfAnIdleTwin(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	twin, line := w.Fork(2), w.Fork(2)
	twin.Fill(5)
	line.Fill(3)
	n3 := newTestNode(t, s, "n3", w)
	n3.write("00000002.history", twin.History().Bytes(), ".ready")
	n3.copyFrom(twin, ".ready")
	for _, g := range onTimeline(twin, 2) {
		if err := n3.orphan(t.Context(), n3.local, wal.SegmentName(g)); err != nil {
			t.Fatal(err)
		}
	}
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = line.History(), 2 })
	n1.copyFrom(line, ".ready")
	n1.shipAll(2)
	n1.BeginTerm(t.Context(), 3, Set{})
	if err := n1.AdoptOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := stored(t, n1.Archive())
	for _, g := range onTimeline(twin, 2) {
		if _, ok := got[g.String()]; ok != (g.End() <= line.Pos()) {
			t.Errorf("the archive has %v: %v, and the line ends at %v", g, ok, line.Pos())
		}
	}
}

// TestOrphansOfAnotherIncarnation: a server that was promoted by hand, beside the leader, gave its timeline 2 to orphans/ and
// rejoined. Later the cluster takes the number 2 itself. What the first timeline 2 had is not adopted: neither what lies beyond
// the end of the line, nor what another node has and the archive lacks for now.
func TestOrphansOfAnotherIncarnation(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)

	first := w.Clone(1).Fork(2)
	first.Fill(9)
	n3 := newTestNode(t, s, "n3", w)
	n3.sees(func(_ *Cluster, s *Server) { s.State, s.Receiver = ServerStopped, Receiver{} })
	n3.write("00000002.history", first.History().Bytes(), ".ready")
	n3.copyFrom(first, ".ready")
	for _, g := range onTimeline(first, 2) {
		if err := n3.orphan(t.Context(), n3.local, wal.SegmentName(g)); err != nil {
			t.Fatal(err)
		}
	}

	w.Fill(1)
	n1.copyFrom(w, ".ready")
	n1.shipAll(2)
	line := w.Fork(2)
	line.Fill(4)
	own := onTimeline(line, 2)
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = line.History(), 2 })
	n1.copyFrom(line, ".ready")
	if err := os.Remove(filepath.Join(n1.dir, own[2].String())); err != nil { // another node has it
		t.Fatal(err)
	}
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(3)
	n2 := newTestNode(t, s, "n2", line) // has none of it: a clone, say
	n2.write("00000002.history", line.History().Bytes(), ".done")
	for _, n := range []*testNode{n1, n2} {
		n.BeginTerm(t.Context(), 4, Set{})
		if err := n.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := stored(t, n1.Archive())
	for _, g := range onTimeline(first, 2) {
		if theirs, ok := got[g.String()]; ok && !bytes.Equal(theirs, line.Segment(g)) {
			t.Errorf("the archive has %v of the first timeline 2", g)
		}
	}
}
