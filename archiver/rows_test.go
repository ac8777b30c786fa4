package archiver

import (
	"bytes"
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestBelowTheFloorIsAnswered is row 1: the archive promises nothing about it, and is not asked.
func TestBelowTheFloorIsAnswered(t *testing.T) { synctest.Test(t, testBelowTheFloorIsAnswered) }

func testBelowTheFloorIsAnswered(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	n.Archive().floors = []Floor{{Timeline: 1, LSN: w.Full()[1].End()}}
	for i, want := range []string{"1", "1", "11"} {
		g := wal.SegmentName(w.Full()[i])
		if r := n.Push(t.Context(), g); r.Row != want && !(want == "11" && r.Row == "12") {
			t.Errorf("push of %v: got %+v, want row %s", g, r, want)
		}
	}
	if got := stored(t, n.Archive()); len(got) != 0 {
		t.Errorf("the archive has %d files, want none", len(got))
	}
}

// TestForeignHistoryGoesToOrphans is row 4b: a test restore took number 3, and the cluster is not on it; or the cluster is on
// a timeline 3 of another server, and ours is the dead one's.
func TestForeignHistoryGoesToOrphans(t *testing.T) {
	for _, number := range []wal.Timeline{3, 4} {
		testForeignHistory(t, number)
	}
}

func testForeignHistory(t *testing.T, number wal.Timeline) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	n.EndTerm()
	n.sees(func(c *Cluster, _ *Server) {
		c.Line = wal.History{Timeline: 4, Forks: []wal.Fork{{Timeline: 1, End: w.Pos() - 8}}}
	})
	name := wal.HistoryName(number)
	theirs := wal.History{Timeline: number, Forks: []wal.Fork{{Timeline: 1, End: w.Pos() - 8}}}
	ours := wal.History{Timeline: number, Forks: []wal.Fork{{Timeline: 1, End: w.Pos()}}}
	n.put(name, theirs.Bytes())
	n.write(name.String(), ours.Bytes(), ".ready")
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if r := n.Push(t.Context(), name); r.Code != 0 || r.Row != "4b" {
		t.Fatalf("push of a history off the line: got %+v, want 0 by row 4b", r)
	}
	for _, b := range readAll(t, t.Context(), n.Archive(), n.Archive().root+"/orphans/n1/") {
		if !bytes.Equal(b, ours.Bytes()) {
			t.Errorf("the orphan is %q, want ours", b)
		}
	}
	if got := stored(t, n.Archive())[name.String()]; !bytes.Equal(got, theirs.Bytes()) {
		t.Error("the archive's history was replaced")
	}
}

// TestStoppedSinceTheLastReading: Patroni asks as soon as PostgreSQL has stopped, and the last reading says that it is stopping, with the
// archive away for long. That is not the moment for row 10: what is answered 1 now is to be set aside.
func TestStoppedSinceTheLastReading(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n := newTestNode(t, mem.New("x"), "n1", w)
	now := time.Now()
	n.o.Now = func() time.Time { return now }
	n.o.Limits = Limits{PushWait: time.Hour, ShutdownWait: 5 * time.Second, StoppedWait: 30 * time.Second}
	n.copyFrom(w, ".ready")
	n.calls.fail(true)
	n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopping })
	n.o.Read = func(context.Context) Server { return n.server() }
	first, second := n.NewCall(wal.SegmentName(w.Full()[0])), n.NewCall(wal.SegmentName(w.Full()[1]))
	first.Step(t.Context())
	now = now.Add(6 * time.Second)
	n.o.Read = func(context.Context) Server {
		n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopped })
		return n.server()
	}
	for range 2 {
		if r, done := second.Step(t.Context()); done {
			t.Fatalf("got %+v, want to wait", r)
		}
	}
	now = now.Add(31 * time.Second)
	if r, done := second.Step(t.Context()); !done || r.Row != "7" {
		t.Errorf("after stopped_wait: got %+v done %v, want row 7", r, done)
	}
	if aside, err := os.ReadDir(n.o.KeepDir); err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

// TestShutdownIsNotHeldUp is row 10: PostgreSQL stops, the archive takes nothing, and the answer comes after
// shutdown_wait, counted across calls from when it began to stop.
func TestShutdownIsNotHeldUp(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n := newTestNode(t, mem.New("x"), "n1", w)
	now := time.Now()
	n.o.Now = func() time.Time { return now }
	n.o.Limits = Limits{PushWait: time.Hour, ShutdownWait: 5 * time.Second, StoppedWait: time.Hour}
	n.copyFrom(w, ".ready")
	n.calls.fail(true)
	n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopping })
	first, second := n.NewCall(wal.SegmentName(w.Full()[0])), n.NewCall(wal.SegmentName(w.Full()[1]))
	if r, done := first.Step(t.Context()); done {
		t.Errorf("at once: got %+v, want to wait", r)
	}
	now = now.Add(4 * time.Second)
	if r, done := first.Step(t.Context()); done {
		t.Errorf("after 4 s: got %+v, want to wait", r)
	}
	now = now.Add(2 * time.Second)
	for _, call := range []*Call{first, second} {
		if r, done := call.Step(t.Context()); !done || r.Code != 1 || r.Row != "10" {
			t.Errorf("after 6 s: got %+v done %v, want 1 by row 10", r, done)
		}
	}
}
