package archiver

import (
	"bytes"
	"errors"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestTwoContentsOfOneName is row 6 and its border with row 9: who is damaged decides, and when both
// are, ours is not let go of.
func TestTwoContentsOfOneName(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	other := w.Clone(1)
	other.Fill(2)
	w.Fill(2)
	g := w.Full()[3]
	whole, flipped, stranger := w.Segment(g), waltest.Flip(w.Segment(g), 300_000), other.Segment(g)
	for _, tt := range []struct {
		name         string
		ours, theirs []byte
		row          string
		code         int
	}{
		{"ours is damaged", flipped, whole, "6a", 0},
		{"ours is a prefix", waltest.Zero(w.Segment(g), 500_000), whole, "6a", 0},
		{"theirs is damaged", whole, flipped, "6b", 1},
		{"both are whole", whole, stranger, "6c", 1},
		{"both are damaged", waltest.Flip(w.Segment(g), 700_000), flipped, "9", 1},
	} {
		s := mem.New("x")
		n := newTestNode(t, s, "n1", w)
		n.write(g.String(), tt.ours, ".ready")
		n.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
		n.put(wal.SegmentName(g), tt.theirs)
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		if err := n.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := n.Push(t.Context(), wal.SegmentName(g)); r.Code != tt.code || r.Row != tt.row {
			t.Errorf("%s: got %+v, want %d by row %s", tt.name, r, tt.code, tt.row)
		}
	}
}

// TestMisfitOfAnotherServer: our copy is whole and does not fit the one before it, which the archive has. When its own records are the archive's, the record that lies in both
// is damaged, and the archive's holds; else another server wrote it, and nobody may let go of it.
func TestMisfitOfAnotherServer(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	other := w.Clone(1)
	other.Fill(2)
	w.Fill(2)
	before, g := w.Full()[3], w.Full()[4]
	report, err := wal.Check(bytes.NewReader(w.Segment(g)), g, testSystem)
	if err != nil || report.First < g.Start()+100 {
		t.Fatalf("no record lies in both: %+v %v", report, err)
	}
	for _, tt := range []struct {
		name string
		ours []byte
		row  string
		code int
	}{
		{"the half of a record is damaged", waltest.Flip(w.Segment(g), 60), "6a", 0},
		{"another server wrote it", other.Segment(g), "6c", 1},
	} {
		n := newTestNode(t, mem.New("x"), "n1", w)
		n.write(before.String(), w.Segment(before), ".ready")
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		n.shipAll(1)
		n.write(g.String(), tt.ours, ".ready")
		n.put(wal.SegmentName(g), w.Segment(g))
		if err := errors.Join(n.Rescan(), n.List(t.Context())); err != nil {
			t.Fatal(err)
		}
		if r := n.Push(t.Context(), wal.SegmentName(g)); r.Code != tt.code || r.Row != tt.row {
			t.Errorf("%s: got %+v, want %d by row %s", tt.name, r, tt.code, tt.row)
		}
	}
}
