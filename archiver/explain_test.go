package archiver

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestExplainChangesNothing: asking neither puts nor raises an alarm nor begins to count a patience.
func TestExplainChangesNothing(t *testing.T) {
	w, _, n2 := pair(t, 2)
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(1)
	g := w.Full()[0]
	n2.has(wal.SegmentName(g), other.Segment(g))
	n2.sees(func(_ *Cluster, s *Server) { s.State = ServerStopped })
	n2.calls.take()
	e := n2.Explain(t.Context(), wal.SegmentName(g))
	if e.Push.Row != "6c" || e.Push.Code != 1 || !e.Push.Disputed || e.Archive.State != "different" || e.Archive.Member != "n1" || e.Place != "on the line" || e.MayShip {
		t.Errorf("got %+v", e)
	}
	if len(e.Here) != 1 || e.Here[0].Status != "ready" || e.Here[0].State != "complete" || !e.Here[0].Good || e.Here[0].Digest != seal.DigestOf(other.Segment(g)) {
		t.Errorf("here: got %+v", e.Here)
	}
	if n := n2.calls.take()[mem.OpPut]; n != 0 {
		t.Errorf("%d puts", n)
	}
	if len(n2.Alarms()) != 0 || !n2.stoppedSince.IsZero() {
		t.Error("it raised an alarm, or counts how long PostgreSQL is stopped")
	}

	n2.wantPush(wal.SegmentName(g), 1, "6c")
	if _, err := n2.Resolve(t.Context(), order(KeepArchive, wal.SegmentName(g))); err != nil {
		t.Fatal(err)
	}
	e = n2.Explain(t.Context(), wal.SegmentName(g))
	if len(e.Orphans) != 1 || e.Orphans[0].Member != "n2" || e.Orphans[0].Digest != e.Here[0].Digest {
		t.Errorf("orphans: got %+v", e.Orphans)
	}
	if len(e.Decisions) != 1 || e.Decisions[0].Reason != "seen with pg_waldump" || e.Decisions[0].By != "ann" || e.Decisions[0].Via != "n2" {
		t.Errorf("decisions: got %+v", e.Decisions)
	}
	if e.Push.Code != 0 || e.Push.Disputed {
		t.Errorf("push: got %+v, want 0", e.Push)
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
	if e := n2.Explain(t.Context(), wal.SegmentName(seg2(1, 900))); len(e.Here) != 0 || e.Archive.State != "absent" || e.Push.Row != "13" {
		t.Errorf("a file that nobody has: got %+v", e)
	}
}

// TestResolutionKeys: a key says which decision it is, and nothing else is taken for one.
// TestExplainInAnOutage: the holder is told that it has to ship the file, not that another node has to.
func TestExplainInAnOutage(t *testing.T) {
	w := newWriter()
	w.Fill(1)
	n1 := newTestNode(t, mem.New("x"), "n1", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	w.Fill(1)
	n1.copyFrom(w, ".ready")
	n1.BeginTerm(t.Context(), 2, Set{})
	n1.sees(func(c *Cluster, _ *Server) { c.Holder = "n1" })
	n1.calls.fail(true)
	if err := n1.Rescan(); err != nil {
		t.Fatal(err)
	}
	if e := n1.Explain(t.Context(), wal.SegmentName(w.Full()[1])); e.Push.Row != "11" || !e.MayShip {
		t.Errorf("push: got %+v, may ship %v, want row 11", e.Push, e.MayShip)
	}
}

func TestResolutionKeys(t *testing.T) {
	_, n1, _ := pair(t, 1)
	a := n1.Archive()
	d := seal.DigestOf([]byte("x"))
	for _, r := range []Resolution{
		{Decision: KeepArchive, Name: "00000002.history", Digest: d},
		{Decision: Accept, Name: "000000010000000000000007", Digest: d},
		{Decision: Accept, Name: "000000010000000000000007.00000028.backup", Digest: d},
		{Decision: Apart, Member: "n2", Timeline: 2},
		{Decision: Apart, Member: "pg-00000001-keep-archive", Timeline: 0xAB},
	} {
		if got, ok := a.parseResolutionKey(a.ResolutionKey(r)); !ok || got != r {
			t.Errorf("%s: got %+v, %v", a.ResolutionKey(r), got, ok)
		}
	}
	for _, key := range []string{"", "x", "x.json", "-00000002.json", "n2-2.json", "n2-0000000G.json", "7-" + d.String() + "-accept.json",
		"000000010000000000000007-00-accept.json", "000000010000000000000007-" + d.String() + "-reject.json", "000000010000000000000007-" + d.String() + "-accept"} {
		if got, ok := a.parseResolutionKey("a/resolved/" + key); ok {
			t.Errorf("%q was taken for %+v", key, got)
		}
	}
	var keys []string
	for info, err := range a.store.List(t.Context(), a.root+"/resolved/", "") {
		keys = append(keys, info.Key)
		if err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(keys, "") || len(keys) != 0 {
		t.Errorf("resolved/ has %v", keys)
	}
}

// TestExplainBeingWritten: nobody is needed for the segment that PostgreSQL writes just now.
func TestExplainBeingWritten(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	w.Record(100_000)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	now := wal.SegmentName(w.Current())
	n.write(now.String(), w.Segment(w.Current()), "")
	e := n.Explain(t.Context(), now)
	if len(e.Here) != 1 || !e.Here[0].Writing || e.Here[0].State != "cut" || e.Push.Disputed {
		t.Errorf("got %+v, push %+v, want a cut copy that is being written, and no dispute", e.Here, e.Push)
	}
	n.sees(func(_ *Cluster, s *Server) { s.SQL = false }) // whether it is finished is not known any more
	if e := n.Explain(t.Context(), now); len(e.Here) != 1 || e.Here[0].Writing || !e.Push.Disputed {
		t.Errorf("without SQL: got %+v, push %+v, want a dispute", e.Here, e.Push)
	}
}
