package archiver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestCascadingHolder: the holder streams from another standby, so it has to be vouched for, and it listed the new timeline
// before the leader had put anything. It finds by itself that the leader has opened it, whatever PostgreSQL's archiver
// does beside it, and all that was refused before is shipped at once.
func TestCascadingHolder(t *testing.T) {
	synctest.Test(t, testCascadingHolder)
}

func testCascadingHolder(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	n1.EndTerm()
	line := w.Fork(2)
	line.Fill(5)
	own := onTimeline(line, 2)

	n2 := newTestNode(t, s, "n2", line)
	n2.sees(func(_ *Cluster, s *Server) { s.Receiver.Host = "10.0.0.3" })
	n2.write("00000002.history", line.History().Bytes(), ".ready")
	n2.copyFrom(line, ".ready")
	n2.BeginTerm(2, Set{})
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 8 { // each longer than the one before
		for _, g := range own {
			if err := n2.Ship(t.Context(), wal.SegmentName(g)); err == nil {
				t.Fatalf("%v was put, and its timeline is the leader's to open", g)
			}
		}
		time.Sleep(lookAfter)
	}

	n1.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = line.History(), 2 })
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.copyFrom(line, ".ready")
	for _, n := range []wal.Name{wal.HistoryName(2), wal.SegmentName(own[0])} {
		if err := n1.Ship(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	for time.Since(begin) < 40*time.Second && !n2.Archiver.cover.has(wal.SegmentName(own[4])) {
		for _, n := range n2.Shippable() {
			_ = n2.Ship(t.Context(), n)
		}
		time.Sleep(time.Second)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("shipped after %v", took)
	}
	got := stored(t, n1.Archive())
	for _, g := range own {
		if _, ok := got[g.String()]; !ok {
			t.Errorf("the archive lacks %v", g)
		}
	}
}
