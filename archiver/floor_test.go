package archiver

import (
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestFloorRaisedWhileRunning: expire raises a floor and deletes what is below it, and a sidecar that runs hears of it: else
// PostgreSQL there would ask for ever about a file that nobody ships again, and archive nothing behind it.
func TestFloorRaisedWhileRunning(t *testing.T) {
	w := newWriter()
	w.Fill(4)
	s := mem.New("x")
	n1 := newTestNode(t, s, "n1", w)
	n2 := newTestNode(t, s, "n2", w)
	n2.copyFrom(w, ".ready")
	floor, err := Floor{Timeline: 1, LSN: w.Full()[1].End()}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), n1.Archive().root+"/floor/one", Bytes(floor)); err != nil {
		t.Fatal(err)
	}
	below, above := n2.NewCall(wal.SegmentName(w.Full()[1])), n2.NewCall(wal.SegmentName(w.Full()[2]))
	n2.o.Now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if r, _ := above.Step(t.Context()); r.Row != "12" {
		t.Errorf("above the floor: got %+v, want row 12", r)
	}
	if r, done := below.Step(t.Context()); r.Row != "1" || r.Code != 0 || !done {
		t.Errorf("below the floor: got %+v, want 0 by row 1", r)
	}
}
