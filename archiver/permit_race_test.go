package archiver

import (
	"context"
	"errors"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// freshScope answers a reading for one call otherwise than the last reading says.
type freshScope struct {
	Scope
	fresh Cluster
}

func (s freshScope) Read(context.Context) (Cluster, error) { return s.fresh, nil }

// TestHistoryIsNotTheTimeline: n1 and n2 were promoted to timeline 2. n1 leads, and its history is in the archive. n2 has
// the baton still, and its last reading says that it leads; the first segment of timeline 2 needs a fresh one.
func TestHistoryIsNotTheTimeline(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	line, ours := w.Fork(2), w.Clone(7).Fork(2)
	line.Fill(1)
	ours.Fill(1)
	n1 := newTestNode(t, s, "n1", line)
	n1.put(wal.HistoryName(2), line.History().Bytes())

	n2 := newTestNode(t, s, "n2", ours)
	now := n2.Last()
	n2.sees(func(c *Cluster, s *Server) {
		c.Leader = "n2"
		s.State, s.Receiver = ServerPrimary, Receiver{}
	})
	n2.scope = freshScope{n2, now}
	n2.write("00000002.history", ours.History().Bytes(), ".ready")
	n2.copyFrom(ours, ".ready")
	first := wal.SegmentName(onTimeline(ours, 2)[0])
	n2.BeginTerm(t.Context(), 1, Set{})
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n2.Ship(t.Context(), first); err == nil {
		t.Errorf("%v was shipped on a stale reading", first)
	}
	n2.scope = n2
	if err := n2.Ship(t.Context(), first); err != nil {
		t.Errorf("ship %v as the leader: %v", first, err)
	}
}

// TestDCSAnswersMeanwhile: what a node may ship while the DCS is silent it may not when the DCS answers while the archive is
// asked whether somebody opened the timeline.
func TestDCSAnswersMeanwhile(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	w.Fill(1)
	n2 := newTestNode(t, s, "n2", w)
	n2.copyFrom(w, ".ready")
	n2.sees(func(c *Cluster, _ *Server) { c.Leader = "n2" })
	silence := func(on bool) {
		n2.mu.Lock()
		n2.silent = on
		n2.mu.Unlock()
	}
	silence(true)
	n2.calls.spoil(func(c mem.Call) mem.Fault {
		if c.Op == mem.OpList {
			silence(false)
		}
		return mem.Fault{}
	})
	name := wal.SegmentName(w.Full()[2])
	if err := n2.Ship(t.Context(), name); !errors.Is(err, errNotOurs) {
		t.Errorf("ship %v without the baton, and the DCS answers: got %v, want errNotOurs", name, err)
	}
}

// TestTermOverMeanwhile: the term ends while the segment before is held against the archive's, or while the archive says which of two that do not fit is damaged.
// Uploads that run get the grace; nothing new is put in it.
func TestTermOverMeanwhile(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	full := w.Full()
	for i := range 2 {
		n1, n2 := newTestNode(t, mem.New("x"), "n1", w), (*testNode)(nil)
		n2 = newTestNode(t, n1.Archive().store, "n2", w)
		n2.put(wal.SegmentName(full[0]), w.Segment(full[0]))
		n1.copyFrom(w, ".ready")
		term, over := context.WithCancel(t.Context())
		n1.BeginTerm(term, 1, Set{})
		if err := n1.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		n1.calls.spoil(func(c mem.Call) mem.Fault {
			if i == 0 || c.Op == mem.OpPut {
				over()
			}
			return mem.Fault{}
		})
		err := n1.Ship(t.Context(), wal.SegmentName(full[1]))
		over()
		if later := n1.Ship(t.Context(), wal.SegmentName(full[2])); !errors.Is(later, errNotOurs) {
			t.Errorf("ship in the grace: got %v, want errNotOurs", later)
		}
		if (err == nil) != (i == 1) {
			t.Errorf("the term ends with request %d: ship %v: %v", i, full[1], err)
		}
		if got := len(stored(t, n1.Archive())); got != 1+i {
			t.Errorf("the archive has %d segments, want %d", got, 1+i)
		}
		n1.EndTerm()
	}
}
