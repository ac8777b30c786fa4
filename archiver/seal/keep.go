package seal

import (
	"errors"
	"fmt"
	"io"
)

// Kept is a sealed object as it was read: io.ReadSeeker, io.ReaderAt and Size. It is what a copy in another store is made of.
type Kept struct {
	*io.SectionReader
	Header Header
	body   spool
}

// Keep reads a sealed object to its end, and holds it against its header; at most max bytes of it (sealed). One of more than
// 64 MiB lies in a temp file meanwhile. The result has to be closed.
//
// ErrFormat, ErrDamaged: it is not worth a copy.
func (s *Sealer) Keep(r io.Reader, max int64) (*Kept, error) {
	body, err := s.newSpool(max)
	if err != nil {
		return nil, fmt.Errorf("keep object: %w", err)
	}
	k := &Kept{body: body}
	if err := k.fill(r, max); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return k, nil
}

func (k *Kept) fill(r io.Reader, max int64) error {
	if _, err := io.Copy(k.body, io.LimitReader(r, max+1)); err != nil {
		return fmt.Errorf("keep object: %w", err)
	}
	if k.body.Size() > max {
		return fmt.Errorf("keep object: %w: it has more than %d bytes", ErrFormat, max)
	}
	k.SectionReader = io.NewSectionReader(k.body, 0, k.body.Size())
	h, err := Check(io.NewSectionReader(k.body, 0, k.body.Size()))
	k.Header = h
	return err
}

// Close gives the memory back. Nobody may read it any more.
func (k *Kept) Close() error { return k.body.Close() }
