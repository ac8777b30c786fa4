package seal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func addVectors(f *testing.F) {
	files, err := filepath.Glob("testdata/vectors/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors: ", err)
	}
	for _, name := range files {
		object, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object)
	}
}

// What opens has the size and the digest that its header says, and everything else is one of three errors.
func FuzzOpen(f *testing.F) {
	addVectors(f)
	id := vectorIdentity(f)
	f.Fuzz(func(t *testing.T, object []byte) {
		h, plain, err := opened(bytes.NewReader(object), id)
		switch {
		case err == nil:
			if int64(len(plain)) != h.Size || DigestOf(plain) != h.Digest {
				t.Errorf("got %d bytes with digest %s, the header says %d and %s", len(plain), DigestOf(plain), h.Size, h.Digest)
			}
			// Whatever follows is seen.
			if _, _, err := opened(bytes.NewReader(append(object, 0)), id); !errors.Is(err, ErrDamaged) {
				t.Errorf("one byte more: got %v, want ErrDamaged", err)
			}
			if _, err := Check(bytes.NewReader(object)); err != nil {
				t.Errorf("checked without an identity: got %v, and it opens", err)
			}
		case !errors.Is(err, ErrFormat) && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrEncrypted):
			t.Errorf("got %v, want one of the three kinds", err)
		}
	})
}

// A header that can be read can be written, and is the same when read again.
func FuzzReadHeader(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, object []byte) {
		r := bytes.NewReader(object)
		h, err := ReadHeader(r)
		if taken := len(object) - r.Len(); taken > HeaderRange {
			t.Errorf("took %d bytes, want at most %d", taken, HeaderRange)
		}
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want one of two kinds", err)
			}
			return
		}
		frame, err := h.append(nil)
		if err != nil {
			return // what \u escapes made shorter may be too long as written by us
		}
		again, err := ReadHeader(io.LimitReader(bytes.NewReader(frame), HeaderRange))
		if err != nil {
			t.Fatalf("read what was written: %v", err)
		}
		if !h.FirstCommit.Equal(again.FirstCommit) || !h.LastCommit.Equal(again.LastCommit) {
			t.Errorf("got commits %v %v, want %v %v", again.FirstCommit, again.LastCommit, h.FirstCommit, h.LastCommit)
		}
		h.FirstCommit, h.LastCommit = again.FirstCommit, again.LastCommit // equal, maybe in another zone
		if h != again {
			t.Errorf("got %+v, want %+v", again, h)
		}
	})
}
