package sim

import (
	"bytes"
	"io"
	"os"
	"slices"

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
	b, err := c.scratch.read(f)
	if err != nil {
		return nil, err
	}
	x := &content{plain: slices.Clone(trim(b)), digest: seal.DigestOf(b)}
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
