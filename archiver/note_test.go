package archiver

import (
	"io"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestDamagedObjectIsNoSilence: an object whose header cannot be read is row 6b. The store answers, so the node keeps the baton
// and probes nothing.
func TestDamagedObjectIsNoSilence(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	name := wal.SegmentName(w.Full()[0])
	key := n.Archive().Key(name)
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 16
	if err := s.Put(t.Context(), key, Bytes(b)); err != nil {
		t.Fatal(err)
	}
	n2 := newTestNode(t, s, "n2", w)
	n2.copyFrom(w, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	n2.wantPush(name, 1, "6b")
	if ok, why := n2.StoreAnswers(); !ok {
		t.Errorf("the store is taken for silent: %s", why)
	}
}
