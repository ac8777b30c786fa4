package archiver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// BenchmarkStages is what each stage costs of a segment's way into an archive, and of its way back: docs/performance.md has the numbers. Its
// segments are those of WALBATON_SEGMENTS, a pg_wal of segments of 16 MB as `benchmark -data` leaves one, or a few that are made here.
// cpu-ms/op is the CPU time of a segment, the garbage collector's and the kernel's included.
func BenchmarkStages(b *testing.B) {
	s := newStages(b)
	b.Run("read", func(b *testing.B) { s.pass(b, func() io.Writer { return nothing{} }) })
	b.Run("crc", func(b *testing.B) {
		s.pass(b, func() io.Writer { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) })
	})
	b.Run("digest", func(b *testing.B) { s.pass(b, func() io.Writer { return seal.NewDigest() }) })
	b.Run("check", func(b *testing.B) {
		s.each(b, func(i int) error {
			c := wal.NewChecker(s.names[i].Segment, s.systemID)
			err := s.read(i, c)
			if r := c.Report(); err == nil && r.State != wal.Complete {
				err = fmt.Errorf("%v: %s", s.names[i], r.Why)
			}
			return err
		})
	})
	for _, codec := range []seal.Codec{seal.None, seal.LZ4, seal.Zstd} {
		sealer, err := seal.New(codec)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("pack/"+string(codec), func(b *testing.B) {
			s.each(b, func(i int) error { return s.pack(sealer, i, func(*seal.Sealed) error { return nil }) })
		})
		b.Run("pack and put/"+string(codec), func(b *testing.B) {
			archive, err := file.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			s.each(b, func(i int) error {
				n++
				return s.pack(sealer, i, func(o *seal.Sealed) error { return archive.Put(b.Context(), fmt.Sprint("wal/", n), o) })
			})
		})
		s.wayBack(b, sealer, codec)
	}
}

// wayBack is restore_command's: an object is opened, checked, and written.
func (s *stages) wayBack(b *testing.B, sealer *seal.Sealer, codec seal.Codec) {
	objects := make([][]byte, min(20, len(s.paths)))
	for i := range objects {
		if err := s.pack(sealer, i, func(o *seal.Sealed) (err error) { objects[i], err = io.ReadAll(o); return err }); err != nil {
			b.Fatal(err)
		}
	}
	open := func(i int, w io.Writer) error {
		_, r, err := seal.Open(bytes.NewReader(objects[i%len(objects)]))
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	}
	b.Run("open/"+string(codec), func(b *testing.B) { s.each(b, func(i int) error { return open(i, nothing{}) }) })
	b.Run("open and check/"+string(codec), func(b *testing.B) {
		s.each(b, func(i int) error { return open(i, wal.NewChecker(s.names[i%len(objects)].Segment, s.systemID)) })
	})
	b.Run("open and write/"+string(codec), func(b *testing.B) {
		root, err := os.OpenRoot(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		defer root.Close()
		s.each(b, func(i int) error {
			r, w := io.Pipe()
			go func() { w.CloseWithError(open(i, w)) }()
			if err := durable.Create(root, "RECOVERYXLOG", r, 0o600); err != nil {
				return err
			}
			return root.Remove("RECOVERYXLOG")
		})
	})
}

// stages are segments to measure with.
type stages struct {
	paths    []string
	names    []wal.Name
	systemID uint64
	buffer   []byte
}

func newStages(b *testing.B) *stages {
	const size = 16 << 20
	dir := os.Getenv("WALBATON_SEGMENTS")
	if dir == "" {
		dir = b.TempDir()
		w := waltest.New(testSystem, size)
		for w.Pos() < 5*size {
			w.Record(300)
		}
		for _, full := range w.Full() {
			if err := os.WriteFile(filepath.Join(dir, full.String()), w.Segment(full), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	all, err := filepath.Glob(filepath.Join(dir, "0*"))
	if err != nil {
		b.Fatal(err)
	}
	s := &stages{buffer: make([]byte, 256<<10)}
	for _, path := range all {
		n, err := wal.ParseName(filepath.Base(path), size)
		if err != nil || n.Kind != wal.KindSegment {
			continue
		}
		s.paths, s.names = append(s.paths, path), append(s.names, n)
	}
	if len(s.paths) == 0 {
		b.Fatalf("%s has no segments", dir)
	}
	head := make([]byte, 32)
	f, err := os.Open(s.paths[0])
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, head); err != nil {
		b.Fatal(err)
	}
	s.systemID = binary.LittleEndian.Uint64(head[24:]) // xlp_sysid of the long page header
	return s
}

// each runs a stage for one segment after the other.
func (s *stages) each(b *testing.B, stage func(i int) error) {
	begin := cpuSeconds(b)
	for n := 0; b.Loop(); n++ {
		if err := stage(n % len(s.paths)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1000*(cpuSeconds(b)-begin)/float64(b.N), "cpu-ms/op")
}

func (s *stages) pass(b *testing.B, to func() io.Writer) {
	s.each(b, func(i int) error { return s.read(i, to()) })
}

func (s *stages) read(i int, w io.Writer) error {
	f, err := os.Open(s.paths[i])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(w, struct{ io.Reader }{f}, s.buffer) // hidden, so that the file does not choose another way
	return err
}

func (s *stages) pack(sealer *seal.Sealer, i int, use func(*seal.Sealed) error) error {
	f, err := os.Open(s.paths[i])
	if err != nil {
		return err
	}
	defer f.Close()
	packed, err := sealer.Pack(f, int64(s.names[i].Segment.Size))
	if err != nil {
		return err
	}
	defer packed.Close()
	o, err := packed.Seal(seal.Header{Name: s.names[i].String()})
	if err != nil {
		return err
	}
	defer o.Close()
	return use(o)
}

// nothing is where bytes go that are only counted.
type nothing struct{}

func (nothing) Write(p []byte) (int, error) { return len(p), nil }

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
