package archiver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
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
	n2.BeginTerm(t.Context(), 2, Set{})
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

	// Its server is restarted, and knows from pg_control for a moment that it was on timeline 1: who vouched for the timeline is
	// forgotten, and the segment that it has put itself is what it goes on with.
	for _, t := range []wal.Timeline{1, 2} {
		n2.sees(func(_ *Cluster, s *Server) { s.Timeline = t })
		if err := n2.Rescan(); err != nil {
			panic(err)
		}
	}
	line.Fill(1)
	last := wal.SegmentName(onTimeline(line, 2)[5])
	n2.copyFrom(line, ".ready")
	if err := n2.Ship(t.Context(), last); err != nil {
		t.Errorf("ship %v after the restart: %v", last, err)
	}
}

// TestFirstSegmentDamagedAtItsLeader: the leader's copy of the first segment of its timeline is damaged, and the archive has what
// follows. The only good copy is on a node that has nothing else of the timeline to compare, is stopped, and is asked for
// it; or it was set aside, and pg_rewind put the leader's in its place. It fits what follows, and is shipped;
// that of another server which was promoted to the same number does not.
func TestFirstSegmentDamagedAtItsLeader(t *testing.T) {
	for _, tc := range []firstDamaged{{same: true}, {}, {kept: true, same: true}, {kept: true}, {gap: true}, {kept: true, gap: true}} {
		t.Run(fmt.Sprintf("%+v", tc), tc.run)
	}
}

type firstDamaged struct {
	kept bool // the good copy was set aside, and pg_wal has the damaged one
	same bool // it is of the archive's timeline
	gap  bool // the archive lacks the segment behind it, too, and has the ones after that
}

func (tc firstDamaged) run(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	line, twin := w.Fork(2), w.Clone(7).Fork(2)
	line.Fill(4)
	twin.Fill(4)
	own := onTimeline(line, 2)
	first, bad := wal.SegmentName(own[0]), waltest.Flip(line.Segment(own[0]), 300_000)
	n1 := newTestNode(t, s, "n1", line)
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.write(own[0].String(), bad, ".ready")
	n1.copyFrom(line, ".ready")
	if tc.gap {
		if err := os.Remove(filepath.Join(n1.dir, own[1].String())); err != nil {
			t.Fatal(err)
		}
		if err := n1.Rescan(); err != nil {
			t.Fatal(err)
		}
	}
	n1.shipAll(1)

	good := twin.Segment(own[0])
	if tc.same {
		good = line.Segment(own[0])
	}
	n2 := newTestNode(t, s, "n2", line)
	n2.write("00000002.history", line.History().Bytes(), ".ready")
	var errand Set
	if tc.kept {
		if err := os.WriteFile(filepath.Join(n2.o.KeepDir, own[0].String()), good, 0o600); err != nil {
			t.Fatal(err)
		}
		n2.write(own[0].String(), bad, ".done")
		n2.sees(func(_ *Cluster, s *Server) { s.Flush = line.Pos() })
	} else {
		errand.Add(own[0])
		n2.write(own[0].String(), good, ".ready")
		n2.sees(func(_ *Cluster, s *Server) { s.State, s.SQL, s.Receiver, s.Flush = ServerStopped, false, Receiver{}, 0 })
	}
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.ReleaseKept(t.Context())
	n2.BeginTerm(t.Context(), 2, errand)
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 2 { // the first try may find out that the copy in pg_wal is damaged
		err = n2.Ship(t.Context(), first)
	}
	if got, ok := stored(t, n2.Archive())[first.String()]; ok != (tc.same && !tc.gap) || ok && !bytes.Equal(got, good) {
		t.Errorf("the archive has it: %v; ship: %v", ok, err)
	}
}
