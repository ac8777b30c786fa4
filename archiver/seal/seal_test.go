package seal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pierrec/lz4/v4"
)

func TestRoundTrip(t *testing.T) {
	all := walLike(1<<20 + 7)
	for _, codec := range codecs {
		for _, n := range []int{0, 1, 100, 255, 256, 4096, pieceSize - 1, pieceSize, blockSize, blockSize + 1, len(all)} {
			object := sealed(t, codec, all[:n])
			h, got, err := opened(iotest.HalfReader(bytes.NewReader(object)))
			if err != nil || !bytes.Equal(got, all[:n]) {
				t.Errorf("%s, %d bytes: got %d bytes, %v", codec, n, len(got), err)
			}
			want := someHeader
			want.Format, want.Size, want.Digest, want.DigestName, want.Codec = 1, int64(n), DigestOf(all[:n]), "xxh3-128", codec
			if h != want {
				t.Errorf("%s, %d bytes: got header\n%+v, want\n%+v", codec, n, h, want)
			}
			if codec == None && len(object) > n+2*headerStep {
				t.Errorf("none, %d bytes: got an object of %d", n, len(object))
			}
		}
	}
}

// The result depends on the bytes only, not on how the source cuts its reads.
func TestPackTakesAnyReads(t *testing.T) {
	plain := walLike(blockSize + 1000)
	for _, codec := range codecs {
		want := sealed(t, codec, plain)
		for name, r := range map[string]io.Reader{
			"one byte":     iotest.OneByteReader(bytes.NewReader(plain)),
			"half":         iotest.HalfReader(bytes.NewReader(plain)),
			"EOF at once":  iotest.DataErrReader(bytes.NewReader(plain)),
			"with WriteTo": bytes.NewBuffer(bytes.Clone(plain)),
		} {
			p, err := newSealer(t, codec).Pack(r, int64(len(plain)))
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.Seal(someHeader)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: another object (%v)", codec, name, err)
			}
			s.Close()
		}
	}
}

func TestPackFails(t *testing.T) {
	broken := errors.New("input/output error")
	plain := walLike(300 << 10)
	for _, codec := range codecs {
		s := newSealer(t, codec)
		for name, tt := range map[string]struct {
			r    io.Reader
			size int64
			want error // nil: any
		}{
			"too short":        {bytes.NewReader(plain), int64(len(plain)) + 1, io.ErrUnexpectedEOF},
			"empty":            {bytes.NewReader(nil), 5, io.ErrUnexpectedEOF},
			"too long":         {bytes.NewReader(plain), int64(len(plain)) - 1, nil},
			"more than a file": {bytes.NewReader(plain), 0, nil},
			"negative":         {bytes.NewReader(plain), -1, nil},
			"above the limit":  {bytes.NewReader(plain), MaxSize + 1, nil},
			"source breaks":    {io.MultiReader(bytes.NewReader(plain), iotest.ErrReader(broken)), int64(len(plain)) + 5, broken},
			"temp file, short": {bytes.NewReader(plain), memoryMax + 1, io.ErrUnexpectedEOF},
		} {
			p, err := s.Pack(tt.r, tt.size)
			if p != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: got %v, %v, want %v", codec, name, p, err, tt.want)
			}
		}
		// The sealer works on after all that, with encoders that were left in the middle.
		p, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
		if err != nil {
			t.Fatal(err)
		}
		o, err := p.Seal(someHeader)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := opened(o); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: after failures: got %d bytes, %v", codec, len(got), err)
		}
		p.Close()
	}
	if _, err := New("gzip"); err == nil {
		t.Error("New with an unknown codec: got no error")
	}
}

func TestSealedIsABody(t *testing.T) {
	for _, codec := range codecs {
		plain := walLike(3*pieceSize + 5)
		p, err := newSealer(t, codec).Pack(bytes.NewReader(plain), int64(len(plain)))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if p.Digest() != DigestOf(plain) || p.Size() != int64(len(plain)) {
			t.Errorf("%s: got digest %s, size %d", codec, p.Digest(), p.Size())
		}
		s, err := p.Seal(someHeader)
		if err != nil {
			t.Fatal(err)
		}
		want := sealed(t, codec, plain)
		if s.Size() != int64(len(want)) {
			t.Errorf("%s: got size %d, want %d", codec, s.Size(), len(want))
		}
		if err := iotest.TestReader(s, want); err != nil { // Read, Seek, ReadAt in all ways
			t.Errorf("%s: %v", codec, err)
		}
		other, err := p.Seal(Header{Name: "other"})
		if err != nil {
			t.Fatal(err)
		}
		h, got, err := opened(other)
		if err != nil || h.Name != "other" || !bytes.Equal(got, plain) {
			t.Errorf("%s: sealed twice: got %q, %d bytes, %v", codec, h.Name, len(got), err)
		}
	}
}

func TestHeaderLimits(t *testing.T) {
	p, err := newSealer(t, Zstd).Pack(strings.NewReader("x"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, tt := range map[string]struct {
		h  Header
		ok bool
	}{
		"no name":               {Header{}, false},
		"a member of 3000":      {Header{Name: "x", Member: strings.Repeat("m", 3000)}, true},
		"a member of 4000":      {Header{Name: "x", Member: strings.Repeat("m", 4000)}, false},
		"a year above 9999":     {Header{Name: "x", FirstCommit: time.Date(290000, 1, 1, 0, 0, 0, 0, time.UTC)}, false},
		"not ASCII":             {Header{Name: "x", Member: "Nöd €\U0001F418\x7f\x01\\\"<&>\u2028"}, true},
		"the largest numbers":   {Header{Name: "x", SystemID: 1<<64 - 1, Term: 1<<64 - 1}, true},
		"a commit in some zone": {Header{Name: "x", LastCommit: time.Date(2026, 11, 21, 9, 0, 0, 0, time.FixedZone("", 3600))}, true},
	} {
		s, err := p.Seal(tt.h)
		if (err == nil) != tt.ok {
			t.Errorf("%s: got error %v", name, err)
		}
		if err != nil {
			continue
		}
		h, err := ReadHeader(io.LimitReader(s, HeaderRange))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if h.Member != tt.h.Member || h.SystemID != tt.h.SystemID || h.Term != tt.h.Term || !h.LastCommit.Equal(tt.h.LastCommit) {
			t.Errorf("%s: got %+v", name, h)
		}
	}
}

// Segments above 64 MiB go through a file without a name, and are the same objects.
func TestTempFile(t *testing.T) {
	plain := append(make([]byte, memoryMax), walLike(1<<20)...)
	codecs := codecs
	if testing.Short() {
		codecs = codecs[:1] // the file does not know what is in it
	}
	for _, codec := range codecs {
		s := newSealer(t, codec)
		p, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
		if err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(s.TempDir); len(left) > 0 || err != nil {
			t.Errorf("%s: the temp file has a name: %v, %v", codec, left, err)
		}
		o, err := p.Seal(someHeader)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := opened(o); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: got %d bytes, %v", codec, len(got), err)
		}
		if _, err := o.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("%s: close: %v", codec, err)
		}
		if _, err := o.Read(make([]byte, 1<<20)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: read after close: got %v, want fs.ErrClosed", codec, err)
		}

		s.TempDir = filepath.Join(s.TempDir, "missing")
		if _, err := s.Pack(bytes.NewReader(plain), int64(len(plain))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: no temp folder: got %v, want fs.ErrNotExist", codec, err)
		}
	}
}

// An HTTP client may go on reading a body after its request was cancelled. It must get an error then,
// and never bytes of what was packed into the same memory later.
func TestLateReadsSeeNoOtherBytes(t *testing.T) {
	s := newSealer(t, None)
	var wg sync.WaitGroup
	for round := range 50 {
		fill := byte(round + 1)
		p, err := s.Pack(bytes.NewReader(bytes.Repeat([]byte{fill}, pieceSize)), pieceSize)
		if err != nil {
			t.Fatal(err)
		}
		o, err := p.Seal(someHeader)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			buf := make([]byte, 512)
			for {
				switch n, err := o.ReadAt(buf, 8192); {
				case errors.Is(err, fs.ErrClosed):
					return
				case err != nil || n != len(buf):
					t.Errorf("got %d, %v", n, err)
					return
				}
				if !bytes.Equal(buf, bytes.Repeat([]byte{fill}, len(buf))) {
					t.Errorf("round %d: got bytes %#x", round, buf[0])
					return
				}
			}
		})
		runtime.Gosched()
		p.Close()
		p.Close() // does nothing: the memory is not given back twice
	}
	wg.Wait()
	p, err := s.Pack(strings.NewReader("x"), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := p.Seal(someHeader); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("seal after close: got %v, want fs.ErrClosed", err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, codec := range codecs {
		object := sealed(t, codec, walLike(600<<10))
		for range 20 {
			_, content, err := Open(bytes.NewReader(object))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := content.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			content.Close() // in the middle
			content.Close()
			if _, err := content.Read(make([]byte, 1)); err == nil {
				t.Error("read after close: got no error")
			}
			opened(bytes.NewReader(object[:len(object)/2]))
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("got %d goroutines, %d before", after, before)
	}
}

// The source's own errors come back as they are: a broken connection is no damaged object.
func TestOpenTellsDamageFromABrokenSource(t *testing.T) {
	broken := errors.New("connection reset by peer")
	for _, codec := range codecs {
		object := sealed(t, codec, walLike(600<<10))
		for _, at := range []int{0, 3, 8, 100, 511, 512, 514, 530, len(object) / 2, len(object) - 1} {
			_, _, err := opened(io.MultiReader(bytes.NewReader(object[:at]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrFormat) {
				t.Errorf("%s, source breaks at %d: got %v, want only its error", codec, at, err)
			}
			_, _, err = opened(bytes.NewReader(object[:at]))
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, object ends at %d: got %v, want ErrDamaged", codec, at, err)
			}
		}
		_, _, err := opened(io.MultiReader(bytes.NewReader(object), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("%s, source breaks at the end: got %v, want its error", codec, err)
		}
	}
}

// No flipped bit of the content goes unseen, whether the codec has a checksum or not.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	plain := walLike(600)
	for _, codec := range codecs {
		object := sealed(t, codec, plain)
		for i := headerStep; i < len(object); i++ {
			for bit := range 8 {
				if testing.Short() && bit != i%8 {
					continue
				}
				object[i] ^= 1 << bit
				if _, got, err := opened(bytes.NewReader(object)); err == nil && !bytes.Equal(got, plain) {
					t.Errorf("%s: bit %d of byte %d flipped: got other bytes and no error", codec, bit, i)
				} else if err != nil && !errors.Is(err, ErrDamaged) {
					t.Errorf("%s: bit %d of byte %d flipped: got %v, want ErrDamaged", codec, bit, i, err)
				}
				object[i] ^= 1 << bit
			}
		}
	}
}

func TestDigest(t *testing.T) {
	// From xxhash's own tests: XXH3_128bits of nothing.
	const empty = "99aa06d3014798d86001c324468d497f"
	if got := DigestOf(nil).String(); got != empty {
		t.Errorf("got %s, want %s", got, empty)
	}
	plain := walLike(100_000)
	d := NewDigest()
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), 777)
		d.Write(rest[:n])
		rest = rest[n:]
	}
	if d.Sum() != DigestOf(plain) {
		t.Errorf("in pieces: got %s, want %s", d.Sum(), DigestOf(plain))
	}
	for _, text := range []string{"", empty[1:], empty + "0", strings.ToUpper(empty), "g" + empty[1:]} {
		var d Digest
		if err := d.UnmarshalText([]byte(text)); err == nil || d != (Digest{}) {
			t.Errorf("UnmarshalText(%q): got %v, %v", text, d, err)
		}
	}
}

// The constant start of our stored frames is what a real lz4 writer puts there for the same parameters.
func TestStoredStart(t *testing.T) {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block256Kb), lz4.ChecksumOption(false)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := b.String()[:len(storedStart)]; got != storedStart {
		t.Errorf("got %x, want %x", got, storedStart)
	}
}
