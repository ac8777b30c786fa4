package archiver

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// onTimeline gives the finished segments of w that have this timeline.
func onTimeline(w *waltest.Writer, t wal.Timeline) (out []wal.Segment) {
	for _, g := range w.Full() {
		if g.Timeline == t {
			out = append(out, g)
		}
	}
	return out
}

// setAside sets files aside for n, of a pg_wal that has all that w wrote since its promotion.
func setAside(t *testing.T, n *testNode, w *waltest.Writer, expected []wal.Segment, files ...wal.Segment) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "archive_status"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, g := range onTimeline(w, w.History().Timeline) {
		if err := os.WriteFile(filepath.Join(dir, g.String()), w.Segment(g), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q, err := queue.Open(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for _, g := range files {
		if err := SetAside(q, n.o.KeepDir, wal.SegmentName(g), func(s wal.Segment) bool { return slices.Contains(expected, s) }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeptFilesNeedAWitness: two servers were promoted to timeline 2, one was stopped and rewound. What it set
// aside is shipped when its witness is the archive's, and never when it is the other server's timeline.
func TestKeptFilesNeedAWitness(t *testing.T) {
	for _, same := range []bool{true, false} {
		w := newWriter()
		w.Fill(2)
		s := mem.New("x")
		line := w.Fork(2)
		ours := line
		if !same {
			ours = w.Clone(7).Fork(2)
		}
		line.Fill(2)
		n1 := newTestNode(t, s, "n1", line)
		n1.write("00000002.history", line.History().Bytes(), ".ready")
		n1.copyFrom(line, ".ready")
		n1.shipAll(1)
		if same {
			line.Fill(2)
		} else {
			ours.Fill(4)
		}
		n2 := newTestNode(t, s, "n2", line) // on the leader's line again
		own := onTimeline(ours, 2)
		last := own[len(own)-1]
		setAside(t, n2, ours, nil, last)
		n2.write("00000002.history", line.History().Bytes(), ".done")
		n2.sees(func(_ *Cluster, s *Server) { s.Flush = line.Pos() })
		if err := n2.Rescan(); err != nil {
			t.Fatal(err)
		}
		n2.ReleaseKept(t.Context())
		n2.BeginTerm(t.Context(), 2, Set{})
		if err := n2.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range n2.Shippable() {
			if err := n2.Ship(t.Context(), name); err != nil {
				t.Logf("ship %v: %v", name, err)
			}
		}
		if _, got := stored(t, n2.Archive())[last.String()]; got != same {
			t.Errorf("same timeline %v: the segment set aside is in the archive: %v", same, got)
		}
	}
}

// TestWitnessOutlivesARestart: a stopped server sets aside the oldest segments of its timeline, which the archive lacks; of the
// later ones the archive has two. One of these goes with them, and stays until the others are in the archive,
// whoever restarts meanwhile.
func TestWitnessOutlivesARestart(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	line := w.Fork(2)
	line.Fill(4)
	own := onTimeline(line, 2)
	missing, archived := own[:2], own[2:]
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", line)
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	for _, g := range archived {
		n1.write(g.String(), line.Segment(g), ".ready")
	}
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(1)

	var n2 *testNode
	for start := range 2 {
		again := newTestNode(t, s, "n2", line)
		if start == 0 {
			setAside(t, again, line, archived, missing...)
		} else {
			again.o.KeepDir = n2.o.KeepDir
			n2.Close()
			if err := again.openKeep(); err != nil {
				t.Fatal(err)
			}
		}
		n2 = again
		n2.write("00000002.history", line.History().Bytes(), ".done")
		if err := n2.Rescan(); err != nil {
			t.Fatal(err)
		}
		if err := n2.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		n2.ReleaseKept(t.Context())
	}
	n2.shipAll(2)
	for _, g := range missing {
		if _, ok := stored(t, n2.Archive())[g.String()]; !ok {
			t.Errorf("%v, set aside, is not in the archive", g)
		}
	}
	n2.ReleaseKept(t.Context())
	if left, err := os.ReadDir(n2.o.KeepDir); err != nil || len(left) > 0 {
		t.Errorf("left in keep_dir: %v, %v", left, err)
	}
}

// TestOlderThanTheListing: the archive was listed from where the oldest segment is that anybody has. What it has of the timeline
// lies below that, and is all there is to say that somebody opened it: it is asked for before a file set aside is
// refused, and compared with the one set aside of that name.
func TestOlderThanTheListing(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	line := w.Fork(2)
	line.Fill(3)
	own := onTimeline(line, 2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", line)
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.write(own[0].String(), line.Segment(own[0]), ".ready")
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(1)

	next := line.Fork(3)
	next.Fill(1)
	n2 := newTestNode(t, s, "n2", next)
	setAside(t, n2, line, nil, own...)
	last := wal.SegmentName(own[len(own)-1])
	n2.write("00000003.history", next.History().Bytes(), ".done")
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.ReleaseKept(t.Context())
	n2.BeginTerm(t.Context(), 2, Set{})
	if err := n2.Ship(t.Context(), last); err != nil {
		t.Errorf("ship %v: %v", last, err)
	}
}

// TestStatusLostInACrash: a machine went down, and the status of a segment was not on disk yet. Nobody pushes it, and pg_rewind may
// come next: while PostgreSQL is stopped it is set aside, unless the archive has it or the leader says that it does.
func TestStatusLostInACrash(t *testing.T) {
	w := newWriter()
	w.Fill(4)
	s := mem.New("x")
	full := w.Full()
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.write(full[0].String(), w.Segment(full[0]), ".ready")
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(1)
	n2.copyFrom(w, "")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	if kept, _ := os.ReadDir(n2.o.KeepDir); len(kept) > 0 {
		t.Errorf("a running server's WAL was set aside: %v", kept)
	}
	n2.sees(func(c *Cluster, s *Server) {
		s.State, s.SQL, s.Receiver = ServerStopped, false, Receiver{}
		c.Leader, c.LeaderLive = "n1", true
		c.LeaderHas.Add(full[1])
	})
	n2.Confirm(t.Context())
	var got []string
	kept, err := os.ReadDir(n2.o.KeepDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range kept {
		got = append(got, e.Name())
	}
	want := []string{full[1].String(), full[2].String(), full[3].String()}
	if !slices.Equal(got, want) {
		t.Errorf("set aside: %v, want %v", got, want)
	}
}

// TestKeptOfTheSecondPrimary: two servers wrote timeline 1, and the archive has the WAL of the one that led. What the other one set
// aside before it was rewound begins as the archive's does, and is not its: the newest segment that the archive has of it, too, says so. It is
// neither shipped nor listed, and a restart changes nothing about that. What is of the archive's WAL is shipped.
func TestKeptOfTheSecondPrimary(t *testing.T) {
	for _, same := range []bool{false, true} {
		w := newWriter()
		w.Fill(2)
		ours := w
		if !same {
			ours = w.Clone(7)
			ours.Fill(4)
		}
		w.Fill(4)
		s := mem.New("x")
		full := w.Full()
		n1 := newTestNode(t, s, "n1", w)
		for _, g := range full[:4] {
			n1.write(g.String(), w.Segment(g), ".ready")
		}
		if err := n1.Rescan(); err != nil {
			t.Fatal(err)
		}
		n1.shipAll(1)

		n2 := newTestNode(t, s, "n2", w)
		for _, g := range []wal.Segment{full[1], full[3], full[4], full[5]} { // a witness before the two part, too
			if err := os.WriteFile(filepath.Join(n2.o.KeepDir, g.String()), ours.Segment(g), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // as after a restart
			n2.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
			if err := n2.openKeep(); err != nil {
				t.Fatal(err)
			}
			if err := n2.List(t.Context()); err != nil {
				t.Fatal(err)
			}
			n2.ReleaseKept(t.Context())
			n2.shipAll(2)
			n2.ReleaseKept(t.Context())
			n2.EndTerm()
			clear(n2.cover.vouched)
			clear(n2.cover.parted)
		}
		has := n2.State().Has
		for _, g := range full[4:] {
			if b, ok := stored(t, n2.Archive())[g.String()]; ok != same || ok && !bytes.Equal(b, w.Segment(g)) {
				t.Errorf("same WAL %v: the archive has %v: %v", same, g, ok)
			}
		}
		if has.Has(full[4]) && !same {
			t.Errorf("the record lists %v, which is another server's", full[4])
		}
	}
}

// TestKeptOfAnUnopenedTimeline: nobody opens a timeline with files set aside, so the record does not list them before somebody has: the baton
// would come for them, and stay for nothing, while another node could open it.
func TestKeptOfAnUnopenedTimeline(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	line := w.Fork(2)
	line.Fill(3)
	own := onTimeline(line, 2)
	n1, n2 := newTestNode(t, s, "n1", line), newTestNode(t, s, "n2", line)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	n2.write("00000002.history", line.History().Bytes(), ".done")
	setAside(t, n2, line, nil, own[1])
	n2.ReleaseKept(t.Context())
	if has := n2.State().Has; has.Has(own[1]) {
		t.Errorf("%v is listed, and its timeline is not open", own[1])
	}
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.copyFrom(line, ".ready")
	for _, name := range []wal.Name{wal.HistoryName(2), wal.SegmentName(own[0])} {
		if err := n1.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		n1.BeginTerm(t.Context(), 2, Set{})
		if err := n1.Ship(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.ReleaseKept(t.Context())
	if has := n2.State().Has; !has.Has(own[1]) {
		t.Errorf("%v is not listed, and its timeline is open: %v", own[1], has.Spans())
	}
}
