package archiver

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// crossing writes three segments and more; a record lies in the second, where it has room bytes, and the third.
func crossing(room int) (w *waltest.Writer, before, after wal.Segment) {
	w = newWriter()
	w.Fill(1)
	w.Pad(room)
	before = w.Current()
	w.Record(500)
	w.Fill(2)
	return w, before, before.Next()
}

// list makes a holder of n, that knows what the archive has.
func (n *testNode) list() {
	n.t.Helper()
	if err := n.Rescan(); err != nil {
		n.t.Fatal(err)
	}
	n.BeginTerm(n.t.Context(), 1, Set{})
	if err := n.List(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// refuses expects that n does not ship s, and answers a push of it by row 9.
func (n *testNode) refuses(what string, s wal.Segment) {
	n.t.Helper()
	if err := n.Ship(n.t.Context(), wal.SegmentName(s)); err == nil || !strings.Contains(err.Error(), errBadCopy.Error()) {
		n.t.Errorf("%s: ship %v: got %v", what, s, err)
	}
	if _, ok := stored(n.t, n.Archive())[s.String()]; ok {
		n.t.Errorf("%s: %v is in the archive", what, s)
	}
	if r := n.Push(n.t.Context(), wal.SegmentName(s)); r.Code != 1 || r.Row != "9" {
		n.t.Errorf("%s: push %v: got %+v, want 1 by row 9", what, s, r)
	}
	if has := n.State().Has; has.Has(s) {
		n.t.Errorf("%s: the record lists %v as good", what, s)
	}
}

// ships expects that n ships s.
func (n *testNode) ships(what string, s wal.Segment, b []byte) {
	n.t.Helper()
	if err := n.Ship(n.t.Context(), wal.SegmentName(s)); err != nil {
		n.t.Errorf("%s: ship %v: %v", what, s, err)
	}
	if got := stored(n.t, n.Archive())[s.String()]; !bytes.Equal(got, b) {
		n.t.Errorf("%s: %v is not in the archive as it is in pg_wal", what, s)
	}
}

// TestCrossingRecord is P3 for a record that began in the segment before: each half has no CRC of its own.
func TestCrossingRecord(t *testing.T) {
	const size = 1 << 20
	for what, c := range map[string]struct {
		room  int
		first bool // the bit is in the first half
		off   int
	}{
		"first half":           {200, true, size - 100},
		"header in the first":  {200, true, size - 200 + 18},
		"second half":          {200, false, 40 + 100},
		"header in the second": {8, false, 40 + 9},
		"link in the second":   {8, false, 40},
		"CRC in the second":    {16, false, 40 + 4},
	} {
		w, before, after := crossing(c.room)
		b := map[bool][]byte{true: w.Segment(before), false: w.Segment(after)}
		b[c.first] = waltest.Flip(b[c.first], c.off)
		setup := func(s *mem.Store) *testNode {
			n := newTestNode(t, s, "n1", w)
			n.copyFrom(w, ".ready")
			n.write(before.String(), b[true], "")
			n.write(after.String(), b[false], "")
			return n
		}
		// In order: the first is stored before anybody can know, the second is not.
		n := setup(mem.New("x"))
		n.shipAll(1)
		n.refuses(what, after)
		got := stored(t, n.Archive())
		if len(got) != len(w.Full())-1 || !bytes.Equal(got[before.String()], b[true]) {
			t.Errorf("%s, in order: %d segments stored, want all but one", what, len(got))
		}
		// The second first: neither is stored, because nobody can tell which is damaged.
		n = setup(mem.New("x"))
		n.list()
		n.refuses(what, after)
		n.refuses(what, before)
		if n.Confirm(t.Context()); n.status(before.String()) != ".ready" {
			t.Errorf("%s: a disputed segment has status %q", what, n.status(before.String()))
		}
	}
}

// TestDisputeEnds: what another node ships decides which of two segments is damaged.
func TestDisputeEnds(t *testing.T) {
	for _, first := range []bool{true, false} {
		w, before, after := crossing(200)
		s := mem.New("x")
		n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
		n1.copyFrom(w, ".ready")
		n1.list()
		n1.ships("opens", w.Full()[0], w.Segment(w.Full()[0]))
		n2.copyFrom(w, ".ready")
		bad, good := after, before
		off := 140
		if first {
			bad, good, off = before, after, 1<<20-100
		}
		n2.write(bad.String(), waltest.Flip(w.Segment(bad), off), "")
		n2.list()
		n2.refuses("disputed", after)
		n2.refuses("disputed", before)
		n1.ships("the other node's", bad, w.Segment(bad))
		n2.list()
		n2.ships("ours fits the archive's", good, w.Segment(good))
		if r := n2.Push(t.Context(), wal.SegmentName(bad)); r.Code != 0 || r.Row != "6a" {
			t.Errorf("push of the damaged one: got %+v, want 0 by row 6a", r)
		}
	}
}

// TestJoinInParallel ships all at once, in any order: a good chain arrives whole, and of a broken one never the
// segment whose record is damaged.
func TestJoinInParallel(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 3))
		w, _, after := crossing(200)
		w.Record(3 << 20) // and one over four segments
		w.Fill(3)
		n := newTestNode(t, mem.New("x"), "n1", w)
		n.copyFrom(w, ".ready")
		n.list()
		n.ships("opens", w.Full()[0], w.Segment(w.Full()[0]))
		broken := seed%2 == 1
		if broken {
			n.write(after.String(), waltest.Flip(w.Segment(after), 140), "")
		}
		names := n.Shippable()
		r.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
		var wg sync.WaitGroup
		for _, name := range names {
			wg.Go(func() { _ = n.Ship(t.Context(), name) })
		}
		wg.Wait()
		got := stored(t, n.Archive())
		for _, s := range w.Full() {
			switch bytes.Equal(got[s.String()], w.Segment(s)) {
			case true:
				if broken && s == after {
					t.Errorf("%v is in the archive", s)
				}
			case false:
				if !broken || s != after && s.Next() != after {
					t.Errorf("broken %v: %v is not in the archive", broken, s)
				}
			}
		}
		if left := n.local.reading; len(left) != 0 {
			t.Errorf("still reading %v", left)
		}
	}
}

// TestWaitsForReading: a segment that another worker reads is waited for and not read twice, and the wait ends with ctx.
func TestWaitsForReading(t *testing.T) {
	w, before, after := crossing(200)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	n.list()
	c, err := n.local.check(wal.SegmentName(after))
	if err != nil {
		t.Fatal(err)
	}
	done := n.local.beginRead(wal.SegmentName(before))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.prove(ctx, n.local, wal.SegmentName(after), c); err == nil {
		t.Error("it did not wait")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if c, err := n.prove(t.Context(), n.local, wal.SegmentName(after), c); err != nil || !c.proven {
			t.Errorf("got %+v, %v", c, err)
		}
	})
	done()
	wg.Wait()
}

// TestJoinWithArchived: the segment before was archived earlier. It is read when it is still in pg_wal, and
// remembered when it is recycled.
func TestJoinWithArchived(t *testing.T) {
	w, before, after := crossing(200)
	s := mem.New("x")
	n1, n2, n3 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w), newTestNode(t, s, "n3", w)
	n1.copyFrom(w, ".ready")
	n1.list()
	n1.ships("archived earlier", w.Full()[0], w.Segment(w.Full()[0]))
	n1.ships("archived earlier", before, w.Segment(before))
	bad := waltest.Flip(w.Segment(after), 140)

	// Never read by this node.
	n2.write(before.String(), w.Segment(before), ".done")
	n2.write(after.String(), bad, ".ready")
	n2.list()
	n2.refuses("never read", after)

	// Shipped by this node, then recycled.
	n1.write(after.String(), bad, "")
	for _, g := range w.Full()[:2] {
		if err := os.Remove(filepath.Join(n1.dir, g.String())); err != nil {
			t.Fatal(err)
		}
	}
	n1.list()
	n1.refuses("recycled", after)
	if got := len(n1.local.archived); got != 1 {
		t.Errorf("%d joints of files that are gone, want the one that is needed", got)
	}

	// Not here at all: nothing proves anything, and the bytes are not kept from the archive for that. The deep
	// verify finds it.
	n3.write(after.String(), bad, ".ready")
	n3.list()
	n3.ships("gone", after, bad)
	a, err := n3.Archive().Audit(t.Context(), AuditOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range a.Problems {
		found = found || p.Name == after.String()
	}
	if !found {
		t.Errorf("the deep verify found %v, not %v", a.Problems, after)
	}
}

// TestRecycledParent: the parent timeline's segment under the child's name is whole, and only the history tells.
func TestRecycledParent(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	fork := w.Fork(2)
	w.Fill(3) // the old primary goes on alone
	fork.Fill(3)
	full := fork.Full()
	s := full[len(full)-1]
	n := newTestNode(t, mem.New("x"), "n1", fork)
	n.write("00000002.history", fork.History().Bytes(), ".ready")
	n.copyFrom(fork, ".ready")
	n.write(s.String(), w.Segment(s.On(1)), "")
	// Without the segment before, which would tell too.
	if err := os.Remove(filepath.Join(n.dir, s.Prev().String())); err != nil {
		t.Fatal(err)
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	n.shipAll(1)
	n.refuses("recycled", s)
	if got := len(stored(t, n.Archive())); got != len(full)-2+1 {
		t.Errorf("%d files in the archive, want %d segments and the history", got, len(full)-2)
	}
	// The first segment of the child joins its parent's last one.
	first := full[2]
	if first.Timeline != 2 || first.Prev().On(1) != full[1] {
		t.Fatalf("the first of timeline 2 is %v", first)
	}
	n = newTestNode(t, mem.New("x"), "n1", fork)
	n.write("00000002.history", fork.History().Bytes(), ".ready")
	n.copyFrom(fork, ".ready")
	n.write(first.String(), waltest.Flip(fork.Segment(first), 44), "")
	n.shipAll(1)
	n.refuses("the record that runs on from the parent's", first)
}
