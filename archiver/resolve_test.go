package archiver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestResolveTwoWhole is row 6c: two whole segments of one name.
func TestResolveTwoWhole(t *testing.T) {
	w, _, n2 := pair(t, 2)
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(2)
	g := w.Full()[0]
	n2.has(wal.SegmentName(g), other.Segment(g))
	n2.wantDecided(wal.SegmentName(g), "6c", other.Segment(g))

	p, err := n2.Resolve(t.Context(), order(KeepArchive, wal.SegmentName(g)))
	if err != nil || !p.Already {
		t.Errorf("resolving again: got %+v (%v), want that it is decided already", p, err)
	}
}

// TestResolveTheirsDamaged is row 6b, with an object that cannot be read and with one whose content is bad.
func TestResolveTheirsDamaged(t *testing.T) {
	w, n1, n2 := pair(t, 1)
	w.Fill(2)
	n2.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
	one, two := w.Full()[1], w.Full()[2]
	n1.put(wal.SegmentName(one), waltest.Flip(w.Segment(one), 300_000))
	if err := n1.Archive().store.Put(t.Context(), n1.Archive().Key(wal.SegmentName(two)), Bytes([]byte("rubbish"))); err != nil {
		t.Fatal(err)
	}
	for _, g := range []wal.Segment{one, two} {
		n2.has(wal.SegmentName(g), w.Segment(g))
		if e := n2.Explain(t.Context(), wal.SegmentName(g)); e.Archive.State != "damaged" || e.Push.Row != "6b" || !e.Push.Disputed {
			t.Errorf("explain %v: got archive %+v, push %+v, want a damaged one and row 6b", g, e.Archive, e.Push)
		}
		n2.wantDecided(wal.SegmentName(g), "6b", w.Segment(g))
	}
}

// TestRepairByHand: a person removes the damaged object, and the good copy takes its place without a restart.
func TestRepairByHand(t *testing.T) { synctest.Test(t, testRepairByHand) }

func testRepairByHand(t *testing.T) {
	w, n1, _ := pair(t, 1)
	w.Fill(1)
	g := w.Full()[1]
	name := wal.SegmentName(g)
	n1.put(name, waltest.Flip(w.Segment(g), 300_000))
	n1.copyFrom(w, ".ready")
	n1.shipAll(2)
	n1.wantPush(name, 1, "6b")
	if err := n1.Archive().store.Delete(t.Context(), n1.Archive().Key(name)); err != nil {
		t.Fatal(err)
	}
	if r := n1.Push(t.Context(), name); r.Code != 1 {
		t.Errorf("push while the archive has none: got %+v", r)
	}
	n1.shipAll(3)
	n1.wantPush(name, 0, "2")
	if !bytes.Equal(stored(t, n1.Archive())[g.String()], w.Segment(g)) {
		t.Error("the archive has not the good copy")
	}
	if got := n1.Alarms(); len(got) != 0 {
		t.Errorf("alarms: got %v, want none", got)
	}
}

// TestResolveHistory is row 4c: another history of a timeline of the line.
func TestResolveHistory(t *testing.T) {
	w, n1, n2 := pair(t, 2)
	fork := w.Fork(2)
	name := wal.HistoryName(2)
	n1.put(name, fork.History().Bytes())
	ours := bytes.Replace(fork.History().Bytes(), []byte("no recovery target"), []byte("another reason"), 1)
	if bytes.Equal(ours, fork.History().Bytes()) {
		ours = append([]byte("# written elsewhere\n"), ours...)
	}
	n2.sees(func(c *Cluster, _ *Server) { c.Line = fork.History() })
	n2.has(name, ours)
	n2.wantDecided(name, "4c", ours)
}

// TestResolveCutThatDiffers is row 8 with another content in the archive, of which ours is no prefix.
func TestResolveCutThatDiffers(t *testing.T) { synctest.Test(t, testResolveCutThatDiffers) }

func testResolveCutThatDiffers(t *testing.T) {
	w, _, n2 := pair(t, 2)
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(1)
	g := w.Full()[0]
	ours := waltest.Zero(other.Segment(g), 500_000)
	n2.has(wal.SegmentName(g), ours)
	n2.o.StallTimeout = 100 * time.Millisecond
	n2.wantDecided(wal.SegmentName(g), "8", ours)
}

// TestAccept is P3's exception: what our check refused is stored as it is, damaged (row 9) or cut (row 8),
// and nothing else is.
func TestAccept(t *testing.T) { synctest.Test(t, testAccept) }

func testAccept(t *testing.T) {
	w, n1, _ := pair(t, 1)
	w.Fill(3)
	n1.copyFrom(w, ".ready")
	bad, cut, worse := w.Full()[1], w.Full()[2], w.Full()[3]
	copies := map[wal.Segment][]byte{bad: waltest.Flip(w.Segment(bad), 300_000), cut: waltest.Zero(w.Segment(cut), 400_000), worse: waltest.Flip(w.Segment(worse), 300_000)}
	for g, b := range copies {
		n1.write(g.String(), b, "")
	}
	n1.shipAll(2)
	n1.wantPush(wal.SegmentName(bad), 1, "9")
	n1.wantPush(wal.SegmentName(cut), 1, "8")
	for _, g := range []wal.Segment{bad, cut} {
		p, err := n1.Resolve(t.Context(), order(Accept, wal.SegmentName(g)))
		if err != nil || p.Resolution.Digest != seal.DigestOf(copies[g]) {
			t.Fatalf("resolve %v: got %+v (%v)", g, p, err)
		}
		if has := n1.State().Has; !has.Has(g) {
			t.Errorf("the record does not list %v, so the baton would not come for it", g)
		}
	}
	n1.shipAll(3)
	got := stored(t, n1.Archive())
	for _, g := range []wal.Segment{bad, cut} {
		if !bytes.Equal(got[g.String()], copies[g]) {
			t.Errorf("%v is not in the archive as it is here", g)
		}
		n1.wantPush(wal.SegmentName(g), 0, "2")
	}
	if _, ok := got[worse.String()]; ok {
		t.Errorf("%v is in the archive, and nobody accepted it", worse)
	}
	n1.wantPush(wal.SegmentName(worse), 1, "9")
}

// TestAcceptFromKeepDir: what a stopped server left behind, damaged, is shipped from keep_dir once it is accepted.
func TestAcceptFromKeepDir(t *testing.T) {
	w, n1, _ := pair(t, 1)
	w.Fill(1)
	g := w.Full()[1]
	b := waltest.Flip(w.Segment(g), 300_000)
	if err := os.WriteFile(filepath.Join(n1.o.KeepDir, g.String()), b, 0o600); err != nil {
		t.Fatal(err)
	}
	n1.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
	n1.ReleaseKept(t.Context()) // reads keep_dir
	n1.shipAll(2)
	if _, err := n1.Resolve(t.Context(), order(Accept, wal.SegmentName(g))); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(3)
	if !bytes.Equal(stored(t, n1.Archive())[g.String()], b) {
		t.Error("the accepted copy is not in the archive")
	}
}

// TestDecisionNamesOneCopy: another content of the same name is judged anew, and another node with the very
// same copy honours the decision.
func TestDecisionNamesOneCopy(t *testing.T) { synctest.Test(t, testDecisionNamesOneCopy) }

func testDecisionNamesOneCopy(t *testing.T) {
	w, n1, n2 := pair(t, 1)
	w.Fill(1)
	n1.copyFrom(w, ".ready")
	g := w.Full()[1]
	name := wal.SegmentName(g)
	first, second := waltest.Flip(w.Segment(g), 300_000), waltest.Flip(w.Segment(g), 600_000)
	n1.write(g.String(), first, "")
	o := order(Accept, name)
	o.Digest = seal.DigestOf(second)
	if _, err := n1.Resolve(t.Context(), o); err == nil || !strings.Contains(err.Error(), "look again") {
		t.Errorf("resolving a copy that was not looked at: got %v", err)
	}
	o.Digest = seal.DigestOf(first)
	if _, err := n1.Resolve(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	n1.write(g.String(), second, "")
	n1.shipAll(2)
	n1.wantPush(name, 1, "9")

	n2.write(g.String(), first, ".ready")
	n2.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
	n2.wantPush(name, 1, "12") // nobody ships it; it is no longer damaged for n2, who read the decision before it refused
	n2.shipAll(3)
	n2.wantPush(name, 0, "2")
	if !bytes.Equal(stored(t, n2.Archive())[g.String()], first) {
		t.Error("the archive has not the copy that was accepted")
	}
}

// TestDecisionIsHeardWithinAMinute: a node that read the decisions a moment ago does not ask at every push.
func TestDecisionIsHeardWithinAMinute(t *testing.T) {
	w, n1, n2 := pair(t, 2)
	now := time.Now()
	n2.o.Now = func() time.Time { return now }
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(1)
	g := w.Full()[0]
	name := wal.SegmentName(g)
	n2.has(name, other.Segment(g))
	n2.wantPush(name, 1, "6c")
	if err := n1.Archive().record(t.Context(), Resolution{Decision: KeepArchive, Name: name.String(), Digest: seal.DigestOf(other.Segment(g))}); err != nil {
		t.Fatal(err)
	}
	n2.wantPush(name, 1, "6c")
	now = now.Add(time.Minute)
	n2.wantPush(name, 0, "6c")
}

// TestSecondIncarnation: two nodes promoted to timeline 2. The archive has the leader's; the other node's goes to
// orphans/, what differs and what lies off the line, and nothing else of it.
func TestSecondIncarnation(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	theirs, ours := w.Fork(2), w.Fork(2).Clone(1)
	theirs.Fill(3)
	ours.Fill(4)
	three := theirs.Fork(3) // the cluster went on
	three.Fill(2)
	n1.write("00000002.history", theirs.History().Bytes(), ".ready")
	n1.write("00000003.history", three.History().Bytes(), ".ready")
	n1.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = three.History(), 3 })
	n1.copyFrom(three, ".ready")
	n1.shipAll(2)

	n2 := newTestNode(t, s, "n2", ours)
	n2.sees(func(c *Cluster, s *Server) {
		c.Line = three.History()
		s.State, s.Receiver, s.Timeline = ServerPrimary, Receiver{}, 2 // split brain
	})
	history := append([]byte("# of n2\n"), ours.History().Bytes()...)
	n2.write("00000002.history", history, ".ready")
	n2.copyFrom(ours, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	var own []wal.Segment
	for _, g := range ours.Full() {
		if g.Timeline == 2 {
			own = append(own, g)
		}
	}
	first := wal.SegmentName(own[0])
	n2.wantPush(first, 1, "6c")
	n2.wantPush(wal.HistoryName(2), 1, "4c")

	// Asked of the leader's node, which cannot look into n2's pg_wal.
	o := Order{Decision: Apart, Member: "n2", Timeline: 2, Reason: "fencing failed", By: "ann"}
	if p, err := n1.Resolve(t.Context(), o); err != nil || p.Already {
		t.Fatalf("resolve: got %+v (%v)", p, err)
	}
	n2.decisions.read = time.Time{} // a minute passes
	n2.wantPush(first, 0, "6c")
	n2.wantPush(wal.HistoryName(2), 0, "4c")
	for _, g := range own[1:] {
		if r := n2.Push(t.Context(), wal.SegmentName(g)); r.Code != 0 {
			t.Errorf("push %v: got %+v, want 0", g, r)
		}
	}
	kept := n2.orphans("n2")
	if !bytes.Equal(kept["00000002.history"], history) {
		t.Error("orphans/ has not n2's history")
	}
	for _, g := range own {
		if !bytes.Equal(kept[g.String()], ours.Segment(g)) {
			t.Errorf("orphans/ has not n2's %v", g)
		}
	}
	for _, g := range ours.Full() {
		if g.Timeline == 1 {
			n2.wantPush(wal.SegmentName(g), 0, "2")
		}
	}
	if len(kept) != len(own)+1 {
		t.Errorf("orphans/ has %d files of n2, want %d", len(kept), len(own)+1)
	}
	if got := n2.Alarms(); len(got) != 0 {
		t.Errorf("alarms: got %v, want none", got)
	}

	// While n2 leads the cluster on timeline 2 the decision rests: what differs is a conflict again.
	n2.sees(func(c *Cluster, _ *Server) { c.Leader, c.Line = "n2", ours.History() })
	n2.wantPush(first, 1, "6c")
}

// TestSecondIncarnationIsAhead: the second primary of the number has written more than the leader. What the archive has not got from the
// leader yet goes to orphans/ as well; not so when the member is a clone of the leader afterwards.
func TestSecondIncarnationIsAhead(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	theirs, ours := w.Fork(2), w.Fork(2).Clone(1)
	theirs.Fill(2)
	ours.Fill(6)
	n1.write("00000002.history", theirs.History().Bytes(), ".ready")
	n1.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = theirs.History(), 2 })
	n1.copyFrom(theirs, ".ready")
	n1.shipAll(2)

	n2 := newTestNode(t, s, "n2", ours)
	n2.sees(func(c *Cluster, s *Server) {
		c.Line = theirs.History()
		s.State, s.Receiver, s.Timeline = ServerPrimary, Receiver{}, 2 // split brain
	})
	n2.write("00000002.history", ours.History().Bytes(), ".ready")
	n2.copyFrom(ours, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	own := onTimeline(ours, 2)
	last := wal.SegmentName(own[len(own)-1])
	n2.wantPush(last, 1, "12")
	if _, err := n2.Resolve(t.Context(), Order{Decision: Apart, Member: "n2", Timeline: 2, Reason: "fencing failed"}); err != nil {
		t.Fatal(err)
	}
	n2.wantPush(last, 0, "5")
	if !bytes.Equal(n2.orphans("n2")[last.String()], ours.Segment(last.Segment)) {
		t.Error("orphans/ has not our copy")
	}
	before := wal.SegmentName(own[len(own)-2])
	n2.sees(func(_ *Cluster, s *Server) { s.State = ServerStandby })
	n2.wantPush(before, 1, "12")
	n2.sees(func(_ *Cluster, s *Server) { s.State, s.Timeline = ServerPrimary, 3 })
	n2.wantPush(before, 1, "12")
}

// TestSecondIncarnationAboveTheLine: a split-brain primary on a timeline that the cluster has never seen waits, as
// it might just have been promoted; the decision says that it was not.
func TestSecondIncarnationAboveTheLine(t *testing.T) {
	synctest.Test(t, testSecondIncarnationAboveTheLine)
}

func testSecondIncarnationAboveTheLine(t *testing.T) {
	w, _, n2 := pair(t, 2)
	ours := w.Fork(2)
	ours.Fill(2)
	n2.sees(func(_ *Cluster, s *Server) { s.State, s.Receiver, s.Timeline = ServerPrimary, Receiver{}, 2 })
	g := ours.Full()[len(ours.Full())-1]
	n2.sees(func(_ *Cluster, s *Server) { s.Flush = ours.Pos() })
	n2.has(wal.SegmentName(g), ours.Segment(g))
	n2.wantPush(wal.SegmentName(g), 1, "12")
	if _, err := n2.Resolve(t.Context(), Order{Decision: Apart, Member: "n2", Timeline: 2, Reason: "fencing failed"}); err != nil {
		t.Fatal(err)
	}
	n2.wantPush(wal.SegmentName(g), 0, "5")
	if !bytes.Equal(n2.orphans("n2")[g.String()], ours.Segment(g)) {
		t.Error("orphans/ has not our copy")
	}
}

// TestDecidedOrphansAreNotAdopted: when the archive's copy is gone, ours, which somebody decided against, does
// not take its place.
func TestDecidedOrphansAreNotAdopted(t *testing.T) {
	w, n1, n2 := pair(t, 2)
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(1)
	name := wal.SegmentName(w.Full()[0])
	n2.has(name, other.Segment(w.Full()[0]))
	n2.wantDecided(name, "6c", other.Segment(w.Full()[0]))
	if err := n1.Archive().store.Delete(t.Context(), n1.Archive().Key(name)); err != nil {
		t.Fatal(err)
	}
	n3 := newTestNode(t, n1.Archive().store, "n3", w)
	if err := errors.Join(n3.List(t.Context()), n3.ReadDecisions(t.Context()), n3.AdoptOrphans(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, ok := stored(t, n3.Archive())[name.String()]; ok {
		t.Error("the orphan was adopted")
	}
}

// TestRefusedOrders: what is not in dispute, or would do harm, or is not understood.
func TestRefusedOrders(t *testing.T) {
	w, n1, n2 := pair(t, 2)
	w.Fill(4)
	same, missing, damaged, writing := w.Full()[0], w.Full()[3], w.Full()[4], w.Full()[5]
	n1.copyFrom(w, ".ready")
	for _, g := range []wal.Segment{same, missing} {
		n2.has(wal.SegmentName(g), w.Segment(g))
	}
	n2.has(wal.SegmentName(damaged), waltest.Flip(w.Segment(damaged), 300_000))
	n2.sees(func(_ *Cluster, s *Server) { s.Flush = writing.Start() + 100 })
	n2.write(writing.String(), waltest.Zero(w.Segment(writing), 500_000), "")
	branch := wal.SegmentName(seg2(7, 5))
	n2.has(branch, w.Segment(same))
	prefix := w.Full()[1]
	n2.has(wal.SegmentName(prefix), waltest.Zero(w.Segment(prefix), 500_000))
	below := wal.SegmentName(seg2(1, 0))
	n2.has(below, make([]byte, 1<<20))
	calls := n2.calls.take
	for _, tt := range []struct {
		name string
		o    Order
		want string
		over bool // an alarm of this name has no reason any more
	}{
		{"same", order(KeepArchive, wal.SegmentName(same)), "the archive has this very content", true},
		{"same, accept", order(Accept, wal.SegmentName(same)), "the archive has this very content", true},
		{"whole and not there yet", order(Accept, wal.SegmentName(missing)), "our check finds nothing wrong with it", false},
		{"whole, nothing to keep", order(KeepArchive, wal.SegmentName(missing)), "the archive has no", false},
		{"damaged, nothing to keep", order(KeepArchive, wal.SegmentName(damaged)), "that could be kept", false},
		{"being written", order(Accept, wal.SegmentName(writing)), "PostgreSQL has not finished it", false},
		{"on a branch", order(Accept, branch), "answered 0 by row 5", true},
		{"a prefix", order(KeepArchive, wal.SegmentName(prefix)), "answered 0 by row 6a", true},
		{"below the floor", order(Accept, below), "below the floor", true},
		{"not here", order(Accept, wal.SegmentName(seg2(1, 900))), "this node has no", false},
		{"no reason", Order{Decision: Accept, Name: wal.SegmentName(damaged), Reason: " \n\x01 "}, "needs a reason", false},
		{"a long reason", Order{Decision: Accept, Name: wal.SegmentName(damaged), Reason: strings.Repeat("x", 1001)}, "1001 bytes", false},
		{"no decision", Order{Name: wal.SegmentName(damaged), Reason: "x"}, "unknown decision", false},
		{"leader on its own timeline", Order{Decision: Apart, Member: "n1", Timeline: 1, Reason: "x"}, "n1 is Patroni's leader", false},
		{"nothing differs", Order{Decision: Apart, Member: "n2", Timeline: 3, Reason: "x"}, "differs from the archive's or lies off the line", false},
		{"no member", Order{Decision: Apart, Timeline: 3, Reason: "x"}, "both must be given", false},
		{"no timeline", Order{Decision: Apart, Member: "n2", Reason: "x"}, "both must be given", false},
		{"a path for a member", Order{Decision: Apart, Member: "../n2", Timeline: 2, Reason: "x"}, "as Patroni names them", false},
	} {
		calls()
		n2.alarm("9", tt.o.Name, "it was so once")
		_, err := n2.Resolve(t.Context(), tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if n := calls()[mem.OpPut]; n != 0 {
			t.Errorf("%s: %d puts by a refused order", tt.name, n)
		}
		if over := len(n2.Alarms()) == 0; over != tt.over {
			t.Errorf("%s: nobody has to be asked any more: %v, want %v", tt.name, over, tt.over)
		}
		n2.calm(tt.o.Name)
	}
	both := Order{Decision: Accept, Name: wal.SegmentName(damaged), Reason: "x"}
	n2.sees(func(c *Cluster, _ *Server) { c.Unshipped.Add(damaged) })
	if _, err := n2.Resolve(t.Context(), both); !errors.Is(err, ErrTaggedNever) {
		t.Errorf("accepting what a node tagged never has whole: got %v", err)
	}
	n2.sees(func(c *Cluster, _ *Server) { c.Others.Add(damaged) })
	if _, err := n2.Resolve(t.Context(), both); !errors.Is(err, ErrNotDisputed) {
		t.Errorf("accepting what another node has whole: got %v", err)
	}
	n2.silent = true
	if _, err := n2.Resolve(t.Context(), Order{Decision: Apart, Member: "n2", Timeline: 7, Reason: "x"}); err == nil || !strings.Contains(err.Error(), "the DCS does not answer") {
		t.Errorf("without the DCS: got %v", err)
	}
	n2.silent = false
	n2.sees(func(c *Cluster, _ *Server) { c.Leader = "" })
	if _, err := n2.Resolve(t.Context(), Order{Decision: Apart, Member: "n2", Timeline: 7, Reason: "x"}); err == nil || !strings.Contains(err.Error(), "leader is not known") {
		t.Errorf("without a leader: got %v", err)
	}
	n2.calls.fail(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := n2.Resolve(ctx, both); err == nil || !strings.Contains(err.Error(), "the archive does not answer") {
		t.Errorf("with a silent archive: got %v", err)
	}
}

// TestAcceptDisputed: two segments that do not fit each other are held back; a person who knows which is good
// accepts both, and each is stored as it is.
func TestAcceptDisputed(t *testing.T) {
	w, before, after := crossing(200)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	b := waltest.Flip(w.Segment(before), 1<<20-100)
	n.write(before.String(), b, "")
	n.list()
	n.refuses("disputed", after)
	n.refuses("disputed", before)
	for _, g := range []wal.Segment{before, after} {
		name := wal.SegmentName(g)
		if e := n.Explain(t.Context(), name); e.Push.Row != "9" || e.Here[0].Good || !strings.Contains(e.Here[0].Problem, "do not fit") {
			t.Errorf("explain %v: got %+v here %+v", g, e.Push, e.Here)
		}
		if _, err := n.Resolve(t.Context(), order(Accept, name)); err != nil {
			t.Fatal(err)
		}
		n.shipAll(2)
	}
	got := stored(t, n.Archive())
	if !bytes.Equal(got[before.String()], b) || !bytes.Equal(got[after.String()], w.Segment(after)) {
		t.Error("the archive has not both as they are here")
	}
	n.wantPush(wal.SegmentName(before), 0, "2")
	n.wantPush(wal.SegmentName(after), 0, "2")
}
