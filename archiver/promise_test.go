package archiver

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestNameIsNotContent is P1: that a listing has the name says nothing about whose content it is.
func TestNameIsNotContent(t *testing.T) {
	w, s := newWriter(), mem.New("x")
	w.Fill(2)
	other := w.Clone(1)
	w.Fill(2)
	other.Fill(2)
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	g := wal.SegmentName(w.Full()[3])
	n.put(g, other.Segment(g.Segment))
	if err := n.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !n.cover.has(g) {
		t.Fatal("the listing has not shown the name")
	}
	if r := n.Push(t.Context(), g); r.Code == 0 {
		t.Errorf("push of a segment of which the archive has another primary's: got %+v, want 1", r)
	}
}

// TestSilenceIsNoAnswer is P1: rows 2 to 6 do not fit while the store is silent, whatever was listed before, and whoever asks.
func TestSilenceIsNoAnswer(t *testing.T) { synctest.Test(t, testSilenceIsNoAnswer) }

func testSilenceIsNoAnswer(t *testing.T) {
	w, s := newWriter(), mem.New("x")
	w.Fill(2)
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	n2.copyFrom(w, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.calls.fail(true)
	for _, state := range []ServerState{ServerStandby, ServerPrimary, ServerStopping, ServerStopped} {
		n2.sees(func(_ *Cluster, s *Server) { s.State = state })
		if r := n2.Push(t.Context(), wal.SegmentName(w.Full()[0])); r.Code == 0 {
			t.Errorf("push while the store is silent, server %v: got %+v, want 1", state, r)
		}
	}
}

// TestNewFileUnderAnOldName is P1: what is known of a file holds for that file alone. After a rewind the
// same name is another file, also one of the same size and time.
func TestNewFileUnderAnOldName(t *testing.T) {
	w, s := newWriter(), mem.New("x")
	w.Fill(2)
	other := w.Clone(1)
	w.Fill(2)
	other.Fill(2)
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	g := wal.SegmentName(w.Full()[3])
	if r := n.Push(t.Context(), g); r.Code != 0 {
		t.Fatalf("push of what was shipped: got %+v, want 0", r)
	}
	path := filepath.Join(n.dir, g.String())
	old, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil { // its inode lives on
		t.Fatal(err)
	}
	n.write(g.String(), other.Segment(g.Segment), "")
	if err := os.Chtimes(path, time.Time{}, old.ModTime()); err != nil {
		t.Fatal(err)
	}
	if r := n.Push(t.Context(), g); r.Row == "2" {
		t.Errorf("push of another file of the same name: got %+v, but the archive does not have this one", r)
	}
}

// TestRecycledWhileRead is P3: PostgreSQL recycles a segment by renaming it, and what was read under the old name may by
// then be the beginning of another one.
func TestRecycledWhileRead(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	full := w.Full()
	g, path := wal.SegmentName(full[0]), filepath.Join(n.dir, full[0].String())
	_, err := n.local.read(g, func(r io.Reader, _ int64) (seal.Digest, error) {
		if err := os.Rename(path, filepath.Join(n.dir, full[2].Next().Next().String())); err != nil {
			return seal.Digest{}, err
		}
		n.write(g.String(), w.Segment(full[1]), "") // of the same size
		_, err := io.Copy(io.Discard, r)
		return seal.Digest{}, err
	})
	if !errors.Is(err, errRecycled) {
		t.Errorf("read while its file was recycled: got %v, want errRecycled", err)
	}
}

// TestFloorKnowsNoHistories: a history is archived wherever the floor is, for its number must not be used twice.
func TestFloorKnowsNoHistories(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.Archive().floors = append(n.Archive().floors, Floor{Timeline: 5, LSN: wal.MaxLSN, Ancestors: []wal.Timeline{1, 2, 3}})
	for _, name := range []wal.Name{wal.HistoryName(2), wal.HistoryName(5)} {
		if n.Archive().BelowFloor(name) {
			t.Errorf("%v counts as below the floor", name)
		}
	}
	if !n.Archive().BelowFloor(wal.SegmentName(w.Full()[0])) {
		t.Error("a segment below the floor is not")
	}
}
