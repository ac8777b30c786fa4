package archiver

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestShippingIsOnePut counts requests: a segment is one PUT, and nothing else once the timeline is open.
func TestShippingIsOnePut(t *testing.T) {
	w := newWriter()
	w.Fill(1)
	s := mem.New("x")
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	w.Fill(5)
	n.copyFrom(w, ".ready")
	n.calls.take()
	for _, name := range n.Shippable() {
		if err := n.Ship(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := n.calls.take(), map[mem.Op]int{mem.OpPut: 5}; !maps.Equal(got, want) {
		t.Errorf("requests for five segments: got %v, want %v", got, want)
	}
	for name, b := range stored(t, n.Archive()) {
		g, err := wal.ParseName(name, 1<<20)
		if err != nil || !bytes.Equal(b, w.Segment(g.Segment)) {
			t.Errorf("%s in the archive is not what was written (%v)", name, err)
		}
	}
	n.calls.take()
	for _, g := range w.Full() {
		if r := n.Push(t.Context(), wal.SegmentName(g)); r.Code != 0 || r.Row != "2" {
			t.Errorf("push %v: got %+v, want 0 by row 2", g, r)
		}
	}
	if got := n.calls.take(); len(got) != 0 {
		t.Errorf("requests for pushes of what we stored: got %v, want none", got)
	}
}

// TestConfirmingIsOneRangedGet counts requests on a standby: one small GET a segment, no LIST and no
// PUT in the steady state.
func TestConfirmingIsOneRangedGet(t *testing.T) {
	w := newWriter()
	w.Fill(1)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	n2.copyFrom(w, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	w.Fill(5)
	n1.copyFrom(w, ".ready")
	n2.copyFrom(w, ".ready")
	n2.calls.take()
	n2.Confirm(t.Context())
	if got := n2.calls.take(); len(got) != 0 {
		t.Errorf("requests before the mark: got %v, want none", got)
	}
	n1.shipAll(1)
	n2.sees(func(c *Cluster, _ *Server) { c.Marks = n1.State().Marks })
	n2.Confirm(t.Context())
	if got, want := n2.calls.take(), map[mem.Op]int{mem.OpGet: 5}; !maps.Equal(got, want) {
		t.Errorf("requests for five segments: got %v, want %v", got, want)
	}
	for _, g := range w.Full() {
		if r := n2.Push(t.Context(), wal.SegmentName(g)); r.Code != 0 {
			t.Errorf("push %v on the standby: got %+v, want 0", g, r)
		}
	}
	if got := n2.calls.take(); len(got) != 0 {
		t.Errorf("requests for pushes of what was compared: got %v, want none", got)
	}
}

// TestStoppedInsideASegment: a standby that was shut down has the beginning of a segment that the archive has whole, and files
// that it recycled for what comes after. That is as it should be, and no line of the log.
func TestStoppedInsideASegment(t *testing.T) {
	w, _, n2 := pair(t, 3)
	var log strings.Builder
	n2.log = slog.New(slog.NewTextHandler(&log, nil))
	n2.sees(func(c *Cluster, s *Server) { s.State, s.SQL, s.Receiver = ServerStopped, false, Receiver{} })
	first, last := w.Full()[0], w.Full()[2]
	n2.write(last.String(), waltest.Zero(w.Segment(last), 300_000), ".ready")
	n2.write(w.Full()[1].String(), w.Segment(first), "") // recycled, and not written yet
	n2.write(last.Next().String(), w.Segment(first), "") // which another node's mark passed by mistake
	n2.sees(func(c *Cluster, _ *Server) { c.Marks[1] = 90 })
	if err := errors.Join(n2.Rescan(), n2.List(t.Context())); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	if log.Len() > 0 {
		t.Errorf("it was said: %s", log.String())
	}
}

// TestBackupLabelBeingWritten: PostgreSQL makes the file, writes it, and makes its .ready. Before that it is nobody's business.
func TestBackupLabelBeingWritten(t *testing.T) {
	w, n1, _ := pair(t, 3)
	var log strings.Builder
	n1.log = slog.New(slog.NewTextHandler(&log, nil))
	name := wal.Name{Kind: wal.KindBackup, Segment: w.Full()[1], Offset: 0x28}
	for _, step := range []struct {
		text, status string
		stored       bool
	}{{"", "", false}, {"START WAL LOCATION: 0/2000028 (file " + w.Full()[1].String() + ")\nSTOP WAL LOCATION: 0/2000100 (file " + w.Full()[1].String() + ")\n", ".ready", true}} {
		n1.write(name.String(), []byte(step.text), step.status)
		if err := n1.Rescan(); err != nil {
			t.Fatal(err)
		}
		n1.Confirm(t.Context())
		if _, ok := stored(t, n1.Archive())[name.String()]; ok != step.stored || log.Len() > 0 {
			t.Errorf("after %q: stored %v, want %v; said: %s", step.text, ok, step.stored, log.String())
		}
	}
}

// TestMarkEndsWithWhatIsStored: a stopped server does not say how far its WAL goes, and has files that it recycled for later. The mark does not
// run ahead to them: the other nodes would take all below for archived, and ask for each.
func TestMarkEndsWithWhatIsStored(t *testing.T) {
	w, n1, _ := pair(t, 3)
	n1.sees(func(_ *Cluster, s *Server) { s.State, s.SQL = ServerStopped, false })
	later := w.Full()[2]
	for range 5 {
		later = later.Next()
	}
	n1.write(later.String(), w.Segment(w.Full()[0]), "")
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	if got, want := n1.State().Marks[1], w.Full()[2].No+1; got != want {
		t.Errorf("the mark is %d, want %d", got, want)
	}
}

// TestLocalTroubleIsNotTheStores: a data directory that is taken away under the sidecar says nothing about the archive.
func TestLocalTroubleIsNotTheStores(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n1 := newTestNode(t, mem.New("x"), "n1", w)
	n1.copyFrom(w, ".ready")
	n1.BeginTerm(t.Context(), 1, Set{})
	if err := errors.Join(n1.Rescan(), os.RemoveAll(n1.dir)); err != nil {
		t.Fatal(err)
	}
	for _, g := range w.Full() {
		if err := n1.Ship(t.Context(), wal.SegmentName(g)); err == nil {
			t.Errorf("%v was shipped from a folder that is not there", g)
		}
	}
	if ok, why := n1.StoreAnswers(); !ok {
		t.Errorf("the store is said not to answer: %s", why)
	}
}

// TestPushWaitsForTheHolder: a standby's push is answered when the holder's mark passes, and 1 when it does not in time.
func TestPushWaitsForTheHolder(t *testing.T) { synctest.Test(t, testPushWaitsForTheHolder) }

func testPushWaitsForTheHolder(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n2.copyFrom(w, ".ready")
	name := wal.SegmentName(w.Full()[0])
	if r := n2.Push(t.Context(), name); r.Code != 1 || r.Row != "12" {
		t.Errorf("push that nobody ships: got %+v, want 1 by row 12", r)
	}
	var got Reply
	var wg sync.WaitGroup
	wg.Go(func() { got = n2.Push(t.Context(), name) })
	n1.shipAll(1)
	n2.sees(func(c *Cluster, _ *Server) { c.Marks = n1.State().Marks })
	wg.Wait()
	if got.Code != 0 {
		t.Errorf("push that waited: got %+v, want 0", got)
	}
}

// TestHangingStoreHoldsNobodyUp: a push looks into the archive, which does not answer any more. PostgreSQL begins to stop, and hears 1 after
// shutdown_wait; where it goes on it hears so after push_wait.
func TestHangingStoreHoldsNobodyUp(t *testing.T) {
	for _, stops := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWriter()
			w.Fill(2)
			n := newTestNode(t, mem.New("x"), "n1", w)
			n.o.Limits = Limits{PushWait: time.Minute, ShutdownWait: 5 * time.Second, StoppedWait: time.Minute}
			n.copyFrom(w, ".ready")
			n.calls.spoil(func(mem.Call) mem.Fault { return mem.Fault{Hang: true} })
			want, within := "11", 61*time.Second
			if stops {
				want, within = "10", 26*time.Second
				time.AfterFunc(20*time.Second, func() { n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopping }) })
			}
			began := time.Now()
			r := n.Push(t.Context(), wal.SegmentName(w.Full()[0]))
			if took := time.Since(began); r.Code != 1 || r.Row != want || took > within {
				t.Errorf("stops %v: %+v after %v, want 1 by row %s within %v", stops, r, took, want, within)
			}
		})
	}
}

// TestOnlyTheLeaderOpens: without a segment in the archive the holder that is not the leader and does
// not stream from it ships nothing; the leader ships one segment without the baton, and no more.
func TestOnlyTheLeaderOpens(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n2.sees(func(_ *Cluster, s *Server) { s.Receiver.Host = "10.0.0.9" })
	n2.copyFrom(w, ".ready")
	n2.shipAll(1)
	if got := stored(t, n2.Archive()); len(got) != 0 {
		t.Fatalf("a holder that is nobody's replica opened timeline 1 with %v", slices.Collect(maps.Keys(got)))
	}
	n1.copyFrom(w, ".ready")
	if err := n1.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, name := range n1.ShippableAlone() {
		wg.Go(func() { _ = n1.Ship(t.Context(), name) }) // all but one are refused
	}
	wg.Wait()
	if got := stored(t, n1.Archive()); len(got) != 1 {
		t.Errorf("the leader without the baton put %d segments, want the first only", len(got))
	}
}

// TestHealsAfterFailover is the reason why this program exists (P5): the store is away, the primary
// dies with finished segments, and the standby ships what the primary could not.
func TestHealsAfterFailover(t *testing.T) {
	for _, mode := range []string{"always", "on"} {
		w := newWriter()
		w.Fill(2)
		s := mem.New("x")
		n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
		status := map[string]string{"always": ".ready", "on": ".done"}[mode]
		n2.sees(func(_ *Cluster, s *Server) { s.ArchiveMode = mode })
		n1.copyFrom(w, ".ready")
		n1.shipAll(1)
		n1.calls.fail(true)
		w.Fill(4)
		n1.copyFrom(w, ".ready")
		n2.copyFrom(w, status)
		if err := n2.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		n2.Confirm(t.Context())
		n2.Confirm(t.Context())
		last := w.Full()[len(w.Full())-1]
		if got := n2.status(last.String()); got != ".ready" {
			t.Errorf("%s: a missing segment has status %q on the standby, want .ready: the promotion checkpoint would remove it", mode, got)
		}
		fork := w.Fork(2)
		fork.Fill(2)
		n2.write("00000002.history", fork.History().Bytes(), ".ready")
		n2.write(w.Current().String()+".partial", fork.Segment(w.Current().On(1)), ".ready")
		n2.sees(func(c *Cluster, s *Server) {
			c.Leader, c.Line = "n2", fork.History()
			s.State, s.Receiver, s.Timeline = ServerPrimary, Receiver{}, 2
		})
		n2.copyFrom(fork, ".ready")
		n2.Confirm(t.Context())
		n2.shipAll(2)
		got := stored(t, n2.Archive())
		for _, g := range fork.Full() {
			if !bytes.Equal(got[g.String()], fork.Segment(g)) {
				t.Errorf("%s: %v is not in the archive", mode, g)
			}
		}
		for _, name := range []string{"00000002.history", w.Current().String() + ".partial"} {
			if got[name] == nil {
				t.Errorf("%s: %s is not in the archive", mode, name)
			}
		}
		if f := n2.State().Frontier; f != fork.Full()[len(fork.Full())-1].End() {
			t.Errorf("%s: frontier %v, want %v", mode, f, fork.Full()[len(fork.Full())-1].End())
		}
	}
}

// TestBranchGoesToOrphans: the dead primary's own end of timeline 1 is kept beside the line, never on it (row 5).
func TestBranchGoesToOrphans(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	fork := w.Fork(2)
	w.Fill(2) // the old primary goes on alone
	n2 := newTestNode(t, s, "n2", fork)
	n2.sees(func(c *Cluster, s *Server) { c.Leader, s.State = "n1", ServerStopped })
	branch := fork.Current().On(1)
	n2.write(branch.String(), w.Segment(branch), ".ready")
	if r := n2.Push(t.Context(), wal.SegmentName(branch)); r.Code != 0 || r.Row != "5" {
		t.Fatalf("push of a branch: got %+v, want 0 by row 5", r)
	}
	orphans := readAll(t, t.Context(), n2.Archive(), n2.Archive().root+"/orphans/n2/")
	if len(orphans) != 1 {
		t.Fatalf("orphans: got %d, want 1", len(orphans))
	}
	for name, b := range orphans {
		if !strings.HasPrefix(name, branch.String()+"-") || !bytes.Equal(b, w.Segment(branch)) {
			t.Errorf("orphan %s is not our copy", name)
		}
	}
	if _, ok := stored(t, n2.Archive())[branch.String()]; ok {
		t.Error("the branch is in wal/ too")
	}
}

// TestDamagedCopyIsNotShipped is P3.
func TestDamagedCopyIsNotShipped(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	s := mem.New("x")
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	bad := w.Full()[1]
	n.write(bad.String(), waltest.Flip(w.Segment(bad), 300_000), "")
	n.shipAll(1)
	if _, ok := stored(t, n.Archive())[bad.String()]; ok {
		t.Error("a damaged segment is in the archive")
	}
	if r := n.Push(t.Context(), wal.SegmentName(bad)); r.Code != 1 || r.Row != "9" {
		t.Errorf("push of a damaged segment: got %+v, want 1 by row 9", r)
	}
	if got := n.Alarms(); len(got) != 1 || got[0].Row != "9" {
		t.Errorf("alarms: got %v, want one of row 9", got)
	}
	has := n.State().Has
	if has.Has(bad) {
		t.Error("the record lists a damaged segment as good")
	}
}

// TestHolderAsksForWhatItLacks: a promoted clone publishes what another node alone has, the other
// node ships it, and the holder then lacks nothing.
func TestHolderAsksForWhatItLacks(t *testing.T) {
	w := newWriter()
	w.Fill(6)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	full := w.Full()
	for _, g := range full[4:] {
		n1.write(g.String(), w.Segment(g), ".ready")
	}
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	n1.shipAll(1)
	n2.copyFrom(w, ".ready")
	n2.Confirm(t.Context())
	n1.sees(func(c *Cluster, _ *Server) { c.Others = n2.State().Has })
	if err := n1.CheckLacks(t.Context()); err != nil {
		t.Fatal(err)
	}
	lacks := n1.State().Lacks
	if got, want := lacks.Len(), 4; got != want {
		t.Fatalf("the holder lacks %d segments, want %d", got, want)
	}
	n1.EndTerm()
	n2.BeginTerm(t.Context(), 2, lacks)
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range n2.Shippable() {
		if err := n2.Ship(t.Context(), name); err != nil {
			t.Errorf("ship %v: %v", name, err)
		}
	}
	if left := n2.State().Errand; !left.Empty() {
		t.Errorf("the errand still has %v", left.Spans())
	}
	if got := len(stored(t, n2.Archive())); got != len(full) {
		t.Errorf("the archive has %d segments, want %d", got, len(full))
	}
}

// TestStatusFilesOfAStandby: with archive_mode=on a missing segment is protected by .ready, and let
// go when the archive has it.
func TestStatusFilesOfAStandby(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n2.sees(func(_ *Cluster, s *Server) { s.ArchiveMode = "on" })
	n1.copyFrom(w, ".ready")
	n2.copyFrom(w, ".done")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := w.Full()[0].String()
	n2.Confirm(t.Context()) // reads
	if got := n2.status(first); got != ".ready" {
		t.Errorf("missing: status %q, want .ready", got)
	}
	n1.shipAll(1)
	n2.sees(func(c *Cluster, _ *Server) { c.Marks = n1.State().Marks })
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context()) // compares
	n2.Confirm(t.Context()) // lets go
	if got := n2.status(first); got != ".done" {
		t.Errorf("stored: status %q, want .done", got)
	}
}

// TestMarkPassesWhatTheHolderNeverHad: a holder that lacks old WAL sets its mark behind it. A node that has it finds out that the
// archive does not, lists it, and keeps it, whatever its status (seed 22 of the simulation).
func TestMarkPassesWhatTheHolderNeverHad(t *testing.T) {
	for _, status := range []string{".ready", ".done"} {
		w := newWriter()
		w.Fill(5)
		s := mem.New("x")
		n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
		full := w.Full()
		for _, g := range full[2:] {
			n1.write(g.String(), w.Segment(g), ".ready")
		}
		if err := n1.Rescan(); err != nil {
			t.Fatal(err)
		}
		n1.shipAll(1)
		n2.copyFrom(w, status)
		n2.sees(func(c *Cluster, _ *Server) { c.Marks = n1.State().Marks })
		n2.Confirm(t.Context())
		has := n2.State().Has
		for _, g := range full[:2] {
			if !has.Has(g) {
				t.Errorf("%s: %v is not listed, and the archive lacks it", status, g)
			}
			if got := n2.status(g.String()); got != ".ready" {
				t.Errorf("%s: %v has status %q, want .ready", status, g, got)
			}
		}
	}
}

// TestKeptCopyBesideAnother: what was set aside goes to orphans/ itself, also when pg_wal has another file of its name by now.
func TestKeptCopyBesideAnother(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	twin := w.Clone(7)
	w.Fill(2)
	twin.Fill(2)
	g := w.Full()[2]
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	if err := os.WriteFile(filepath.Join(n2.o.KeepDir, g.String()), twin.Segment(g), 0o600); err != nil {
		t.Fatal(err)
	}
	n2.copyFrom(w, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.ReleaseKept(t.Context())
	orphans := readAll(t, t.Context(), n2.Archive(), n2.Archive().root+"/orphans/n2/")
	for _, b := range orphans {
		if !bytes.Equal(b, twin.Segment(g)) {
			t.Error("the orphan is not what was set aside")
		}
	}
	if left, _ := os.ReadDir(n2.o.KeepDir); len(left) == 0 && len(orphans) != 1 {
		t.Errorf("released from keep_dir, with %d orphans, want 1", len(orphans))
	}
}

// TestKeepDir is row 7: what only a stopped server has is set aside, shipped from there, and released.
func TestKeepDir(t *testing.T) { synctest.Test(t, testKeepDir) }

func testKeepDir(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	w.Fill(2)
	n2.copyFrom(w, ".ready")
	n2.sees(func(c *Cluster, s *Server) {
		c.LeaderLive = false
		s.State, s.SQL, s.Receiver = ServerStopped, false, Receiver{}
	})
	lost := w.Full()[3]
	began := time.Now()
	if r := n2.Push(t.Context(), wal.SegmentName(lost)); r.Code != 1 || r.Row != "7" {
		t.Fatalf("push on a stopped server: got %+v, want 1 by row 7", r)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it waited %v", took)
	}
	if err := os.Remove(filepath.Join(n2.dir, lost.String())); err != nil { // pg_rewind
		t.Fatal(err)
	}
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.ReleaseKept(t.Context())
	if has := n2.State().Has; !has.Has(lost) {
		t.Error("what is set aside is not listed, so nobody would give us the baton for it")
	}
	n2.shipAll(2)
	if !bytes.Equal(stored(t, n2.Archive())[lost.String()], w.Segment(lost)) {
		t.Error("the segment set aside is not in the archive")
	}
	n2.ReleaseKept(t.Context())
	if left, _ := os.ReadDir(n2.o.KeepDir); len(left) != 0 {
		t.Errorf("keep_dir still has %v", left)
	}
}

// TestNewTimelineIsNoBranch: right after a promotion the leader's record and member key still show the
// old timeline. A follower that pushes the new timeline's first segment must not put it into orphans/.
func TestNewTimelineIsNoBranch(t *testing.T) { synctest.Test(t, testNewTimelineIsNoBranch) }

func testNewTimelineIsNoBranch(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	fork := w.Fork(2)
	fork.Fill(1)
	n2 := newTestNode(t, s, "n2", w) // its server reading, too, is of before the promotion
	first := fork.Full()[len(fork.Full())-1]
	n2.write(first.String(), fork.Segment(first), ".ready")
	if r := n2.Push(t.Context(), wal.SegmentName(first)); r.Code != 1 {
		t.Errorf("push of the new timeline: got %+v, want 1", r)
	}
	if got := readAll(t, t.Context(), n2.Archive(), n2.Archive().root+"/orphans/"); len(got) != 0 {
		t.Errorf("orphans: got %d, want none", len(got))
	}
}

// TestStallIsAnAlarm is the end of row 8: a cut segment that no timeline switch explains is quiet at first,
// and an alarm when it has waited for stall_timeout over several calls; the alarm ends with the file.
func TestStallIsAnAlarm(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n := newTestNode(t, s, "n1", w)
	now := time.Now()
	n.o.Now = func() time.Time { return now }
	n.o.StallTimeout = time.Minute
	n.copyFrom(w, ".ready")
	cut := w.Current()
	n.write(cut.String(), w.Segment(cut), ".ready")
	for _, want := range []int{0, 0, 1} {
		call := n.NewCall(wal.SegmentName(cut))
		if r, _ := call.Step(t.Context()); r.Code != 1 || r.Row != "8" {
			t.Fatalf("push of a cut segment: got %+v, want 1 by row 8", r)
		}
		if got := len(n.Alarms()); got != want {
			t.Errorf("alarms after %v: got %d, want %d", now, got, want)
		}
		now = now.Add(45 * time.Second)
	}
	if err := os.Remove(filepath.Join(n.dir, cut.String())); err != nil {
		t.Fatal(err)
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if got := n.Alarms(); len(got) != 0 {
		t.Errorf("alarms of a file that is gone: %v", got)
	}
}

// TestAlarmsEndInTheLog: who was called by a line of the log is told by another one when nobody is needed any more, once.
func TestAlarmsEndInTheLog(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n := newTestNode(t, mem.New("m"), "n1", w)
	n.copyFrom(w, ".ready")
	var log strings.Builder
	n.log = slog.New(slog.NewTextHandler(&log, nil))
	healed, gone := wal.SegmentName(w.Full()[0]), wal.SegmentName(w.Full()[1])
	n.alarm("9", healed, "our copy is damaged")
	n.alarm("9", gone, "our copy is damaged")
	n.calm(healed)
	n.calm(healed)
	if err := os.Remove(filepath.Join(n.dir, gone.String())); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []wal.Name{healed, gone} {
		if got := strings.Count(log.String(), `msg="this needs nobody any more" file=`+f.String()+" row=9"); got != 1 {
			t.Errorf("%v: told %d times\n%s", f, got, log.String())
		}
	}
}

// TestMadeForLaterIsNoConflict: a rewind brings the segments that its source had made for later, under names that the archive has by the
// time somebody looks. That is worth no word; another content of a whole segment is.
func TestMadeForLaterIsNoConflict(t *testing.T) {
	w, s := newWriter(), mem.New("m")
	w.Fill(4)
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	full := w.Full()
	n2.write(full[3].String(), w.Segment(full[0]), "")
	n2.sees(func(c *Cluster, srv *Server) {
		c.Holder, c.Marks[1] = "n1", full[3].No+1
		srv.State, srv.SQL = ServerStopped, false
	})
	var log strings.Builder
	n2.log = slog.New(slog.NewTextHandler(&log, nil))
	if err := n2.Rescan(); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	if _, tried := n2.State().Failed[full[3].String()]; !tried || log.Len() > 0 {
		t.Errorf("compared %v, and logged\n%s", tried, log.String())
	}
}
