package sim

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/archiver/seal"
)

// content is what a file of some server's pg_wal holds.
type content struct {
	plain  []byte // without the zeros at its end
	digest seal.Digest
}

// content reads a file, once for each content: server.touch gave every one an mtime of its own.
func (c *cluster) content(path string) (*content, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	stamp := info.ModTime().UnixNano()
	if x := c.contents[stamp]; x != nil {
		return x, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Behind the last page that was written tmpfs has a hole, and what it reads as is known.
	size := info.Size()
	end, err := f.Seek(0, unix.SEEK_HOLE)
	if err == nil {
		if _, more := f.Seek(end, unix.SEEK_DATA); !errors.Is(more, unix.ENXIO) {
			end = size
		}
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	b, err := c.scratch.read(io.LimitReader(f, end))
	if err != nil {
		return nil, err
	}
	d := seal.NewDigest()
	d.Write(b)
	for rest := size - int64(len(b)); rest > 0; rest -= int64(len(zeros)) {
		d.Write(zeros[:min(rest, int64(len(zeros)))])
	}
	x := &content{plain: slices.Clone(trim(b)), digest: d.Sum()}
	c.contents[stamp] = x
	return x, nil
}

// scratch is memory for one file, used again and again.
type scratch struct{ bytes.Buffer }

// read reads everything; the result is valid until the next read.
func (s *scratch) read(r io.Reader) ([]byte, error) {
	s.Reset()
	_, err := s.ReadFrom(r)
	return s.Bytes(), err
}
