package seal

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// A kept object is the very same bytes, and only a good one is kept.
func TestKeep(t *testing.T) {
	s, err := New(Zstd)
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("wal and more wal "), 20000)
	packed, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	sealed, err := packed.Seal(Header{Name: "000000010000000000000001", SystemID: 7})
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(sealed)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Keep(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	got, err := io.ReadAll(k)
	if err != nil || !bytes.Equal(got, object) || k.Size() != int64(len(object)) || k.Header.SystemID != 7 {
		t.Errorf("kept %d bytes (%v) of system %d, want the %d of the object", len(got), err, k.Header.SystemID, len(object))
	}
	flipped := bytes.Clone(object)
	flipped[len(flipped)-9] ^= 1
	for name, bad := range map[string][]byte{"cut": object[:len(object)-1], "flipped": flipped, "longer": append(bytes.Clone(object), 0)} {
		if k, err := s.Keep(bytes.NewReader(bad), int64(len(object))); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v (%v), want that it is refused", name, k, err)
		}
	}
}
