package archiver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestSecondPrimary: a server that was started by hand as a second primary of one timeline. Their segments are equal up to
// there, so the node is vouched for; but what it wrote since is not shipped behind the first one's, until a person says that the
// archive's counts.
func TestSecondPrimary(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	second := w.Clone(7)
	w.Fill(1)
	second.Fill(3)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	before := stored(t, n1.Archive())

	n2 := newTestNode(t, s, "n2", w)
	n2.copyFrom(second, ".ready")
	n2.shipAll(2)
	if got := len(stored(t, n1.Archive())); got != len(before) {
		t.Errorf("the archive has %d files, want the %d of the first server", got, len(before))
	}
	parting, next := wal.SegmentName(second.Full()[2]), wal.SegmentName(second.Full()[3])
	if err := n2.Ship(t.Context(), next); !errors.Is(err, errNotOurs) {
		t.Errorf("ship %v: got %v, want errNotOurs", next, err)
	}
	n2.wantPush(parting, 1, "6c")
	c, err := n2.local.check(next)
	if err == nil {
		_, err = n2.prove(t.Context(), n2.local, next, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := n2.State(); len(got.Held.Spans()) != 1 || !got.Held.Has(next.Segment) || !got.Misses.Has(next.Segment) {
		t.Errorf("held back: %v of %v, want what follows on %v", got.Held, got.Misses, parting)
	}
	if _, err := n2.Resolve(t.Context(), order(KeepArchive, parting)); err != nil {
		t.Fatal(err)
	}
	if got := n2.State(); !got.Held.Empty() {
		t.Errorf("held back after the decision: %v", got.Held)
	}
	n2.wantPush(parting, 0, "6c")
	if err := n2.Ship(t.Context(), next); err != nil {
		t.Errorf("ship %v after the decision: %v", next, err)
	}
}

// TestDifferenceSeenByTheShipper: while the DCS is silent the first segment that differs from the archive's is found by the shipper, not by a push;
// what follows on ours is not put from then on.
func TestDifferenceSeenByTheShipper(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	twin := w.Clone(7)
	w.Fill(2)
	twin.Fill(4)
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", twin)
	n2.copyFrom(twin, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	n2.BeginTerm(t.Context(), 2, Set{})
	full := twin.Full()
	if err := n2.Ship(t.Context(), wal.SegmentName(full[2])); !errors.Is(err, errDiffers) {
		t.Errorf("ship what the archive has of another server: %v", err)
	}
	if err := n2.Ship(t.Context(), wal.SegmentName(full[5])); !errors.Is(err, errNotOurs) {
		t.Errorf("ship what follows on it: %v, want it refused", err)
	}
}

// TestNothingBehindAnotherServersSegment: a worker that has the second segment after one that differs holds that one against the archive's, too. While the
// DCS is silent the holder may have put it a moment ago, so the archive is listed before each batch.
func TestNothingBehindAnotherServersSegment(t *testing.T) {
	for name, ship := range map[string]func(n *testNode, second wal.Name) error{
		"in a term": func(n *testNode, second wal.Name) error {
			n.BeginTerm(t.Context(), 2, Set{})
			if err := n.List(n.t.Context()); err != nil {
				n.t.Fatal(err)
			}
			return n.Ship(n.t.Context(), second)
		},
		"the DCS is silent": func(n *testNode, second wal.Name) error {
			n.silent = true
			if got := n.NextAlone(n.t.Context()); len(got) == 0 {
				n.t.Error("the primary has nothing to ship without the DCS")
			}
			return n.Ship(n.t.Context(), second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter()
			w.Fill(2)
			s := mem.New("x")
			twin := w.Clone(7)
			w.Fill(1)
			twin.Fill(4)
			n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", twin)
			n1.sees(func(c *Cluster, _ *Server) { c.Leader, c.Self = "n1", "n1" })
			n2.sees(func(c *Cluster, srv *Server) { c.Leader, c.Self, srv.State = "n2", "n2", ServerPrimary })
			n2.copyFrom(twin, ".ready")
			if err := n2.List(t.Context()); err != nil {
				t.Fatal(err)
			}
			n1.copyFrom(w, ".ready")
			n1.shipAll(1)
			before := len(stored(t, n1.Archive()))
			second := wal.SegmentName(twin.Full()[4])
			if err := ship(n2, second); !errors.Is(err, errNotOurs) {
				t.Errorf("ship %v: %v, want it refused", second, err)
			}
			if got := len(stored(t, n1.Archive())); got != before {
				t.Errorf("the archive has %d files, want the %d of the first server", got, before)
			}
		})
	}
}

// TestStandbyOfTheSecondPrimary: a standby streams from a second primary of the leader's timeline. What it received before is the archive's; its pg_wal
// no longer has what would tell that the rest is another server's. It ships none of that, and what the leader writes takes the names.
func TestStandbyOfTheSecondPrimary(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	twin := w.Clone(7)
	w.Fill(4)
	twin.Fill(4)
	full := w.Full()
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", twin)
	n1.copyFrom(w, ".ready")
	n1.BeginTerm(t.Context(), 1, Set{})
	for _, g := range full[:3] {
		if err := n1.Ship(t.Context(), wal.SegmentName(g)); err != nil {
			t.Fatal(err)
		}
	}
	n1.EndTerm()

	n2.copyFrom(twin, ".ready")
	if err := os.Remove(filepath.Join(n2.dir, full[2].String())); err != nil {
		t.Fatal(err)
	}
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.sees(func(_ *Cluster, srv *Server) { srv.Receiver.Host = "10.0.0.3" })
	var errand Set
	errand.Add(full[3])
	errand.Add(full[4])
	n2.BeginTerm(t.Context(), 2, errand)
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is vouched for by the first time
		for _, g := range full[3:5] {
			if err := n2.Ship(t.Context(), wal.SegmentName(g)); !errors.Is(err, errNotOurs) {
				t.Errorf("ship %v of the second primary: %v, want it refused", g, err)
			}
		}
	}
	if got := n2.State().Refused; !got.equal(errand) {
		t.Errorf("refused %v of the errand, want %v", got, errand)
	}
	n2.EndTerm()
	n1.shipAll(3)
	n1.wantPush(wal.SegmentName(full[4]), 0, "2")

	// A standby of the same server that has what is before it ships, whomever it streams from.
	n3 := newTestNode(t, s, "n3", w)
	w.Fill(1)
	last := wal.SegmentName(w.Full()[6])
	n3.copyFrom(w, ".ready")
	n3.sees(func(_ *Cluster, srv *Server) { srv.Receiver.Host, srv.Flush = "10.0.0.2", w.Pos() })
	n3.BeginTerm(t.Context(), 4, Set{})
	if err := errors.Join(n3.List(t.Context()), n3.Ship(t.Context(), last)); err != nil {
		t.Error(err)
	}
}

// TestNothingBeforeAnotherServersSegment: a former primary is stopped where it parted from the cluster's line, which is on the next timeline by now. Of the
// segments that the two wrote apart the archive lacks the first one, and this node has one of that name. It is not the cluster's, though all before it is; what
// comes after tells.
func TestNothingBeforeAnotherServersSegment(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	twin := w.Clone(7)
	w.Fill(3)
	twin.Fill(3)
	full := w.Full()
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.BeginTerm(t.Context(), 1, Set{})
	for _, i := range []int{0, 1, 3, 4} {
		if err := n1.Ship(t.Context(), wal.SegmentName(full[i])); err != nil {
			t.Fatal(err)
		}
	}
	n1.EndTerm()

	next := w.Fork(2)
	lacking := SetOf(Span{1, full[2].No, full[2].No})
	n2 := newTestNode(t, s, "n2", twin)
	n2.copyFrom(twin, ".ready")
	n2.sees(func(c *Cluster, srv *Server) {
		c.Leader, c.Self, c.Line = "n3", "n2", next.History()
		srv.State, srv.WasPrimary, srv.Receiver = ServerStopped, true, Receiver{}
	})
	// It has the baton, and what it wrote before they parted is known to be the archive's.
	n2.BeginTerm(t.Context(), 2, lacking)
	n2.wantPush(wal.SegmentName(full[1]), 0, "2")
	if err := errors.Join(n2.Rescan(), n2.List(t.Context())); err != nil {
		t.Fatal(err)
	}
	third := wal.SegmentName(full[2])
	before := len(stored(t, n1.Archive()))
	for range 2 { // by a comparison, and by what is known from it
		if err := n2.Ship(t.Context(), third); !errors.Is(err, errNotOurs) {
			t.Errorf("ship %v: %v, want it refused", third, err)
		}
	}
	if got := len(stored(t, n1.Archive())); got != before {
		t.Errorf("the archive has %d files, want the %d of before", got, before)
	}
	n2.Confirm(t.Context())
	if err := n2.look(t.Context(), n2.local, third); err != nil {
		t.Fatal(err)
	}
	if st := n2.State(); !st.Has.Has(full[2]) || !st.Held.Has(full[2]) {
		t.Errorf("%v is not told to wait for a person: others give the baton away for it, again and again", third)
	}
	n2.EndTerm()

	// Who has the cluster's own ships it, also while nothing streams.
	n1.sees(func(c *Cluster, srv *Server) { c.Leader, c.Line, srv.State = "n3", next.History(), ServerStopped })
	n1.BeginTerm(t.Context(), 3, lacking)
	if err := n1.Ship(t.Context(), third); err != nil {
		t.Error(err)
	}
}
