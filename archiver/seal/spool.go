package seal

import (
	"errors"
	"io"
	"os"
	"sync"
)

const (
	pieceSize = 128 << 10
	memoryMax = 64 << 20 // more plain bytes than this are compressed into a file
)

// spool keeps compressed bytes: first they are written, then read. Read and Close are not to overlap.
type spool interface {
	io.Writer
	io.ReaderAt
	Size() int64
	io.Closer
}

func (s *Sealer) newSpool(size int64) (spool, error) {
	if size > memoryMax {
		return newFile(s.TempDir)
	}
	return &memory{pool: &s.pieces}, nil
}

// memory is a spool of pieces that come from a pool and go back there.
type memory struct {
	pool   *sync.Pool
	pieces []*[pieceSize]byte
	size   int64
}

func (m *memory) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		at := int(m.size % pieceSize)
		if at == 0 {
			m.pieces = append(m.pieces, m.pool.Get().(*[pieceSize]byte))
		}
		c := copy(m.pieces[len(m.pieces)-1][at:], p)
		p = p[c:]
		m.size += int64(c)
	}
	return n, nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < m.size {
		at := off % pieceSize
		end := min(pieceSize, at+m.size-off)
		c := copy(p[n:], m.pieces[off/pieceSize][at:end])
		n += c
		off += int64(c)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) Size() int64 { return m.size }

func (m *memory) Close() error {
	for _, piece := range m.pieces {
		m.pool.Put(piece)
	}
	m.pieces, m.size = nil, 0
	return nil
}

// file is a spool in a temp file that has no name: it is gone when it is closed, or the process dies.
// The os.File is not embedded, because it has more ways to be written than the one that is counted.
type file struct {
	f    *os.File
	size int64
}

func newFile(dir string) (*file, error) {
	f, err := os.CreateTemp(dir, "walbaton-seal-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{f: f}, nil
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	f.size += int64(n)
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }
func (f *file) Size() int64                             { return f.size }
func (f *file) Close() error                            { return f.f.Close() }
