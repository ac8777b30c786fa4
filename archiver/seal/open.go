package seal

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Open reads the header of an object and returns a reader of its plain bytes. The reader ends with io.EOF
// only when the object had exactly the size and digest that its header says and nothing follows; otherwise
// the last Read is ErrDamaged, or r's own error when r fails. It takes memory for one window (at most 8 MiB)
// and some blocks, starts no goroutine, and has to be closed; closing it does not close r.
//
// What is encrypted is opened with the first of the identities that fits. The error is ErrFormat or ErrDamaged as in
// ReadHeader, or ErrEncrypted (ErrNoIdentity, ErrWrongIdentity), together with the header if that could be read.
func Open(r io.Reader, identities ...Identity) (Header, io.ReadCloser, error) {
	h, err := ReadHeader(r)
	if err != nil {
		return Header{}, nil, err
	}
	if h.Encryption != "" {
		d, err := decrypt(r, h, identities)
		if err != nil {
			return h, nil, fmt.Errorf("open object %s: %w", h.Name, err)
		}
		r = d
	}
	p, err := newPlain(r, h)
	if err != nil {
		return h, nil, fmt.Errorf("open object %s: %w", h.Name, err)
	}
	return h, p, nil
}

// plain reads the content of an object and holds it against the header.
type plain struct {
	header  Header
	frame   *frame
	decoder io.Reader
	close   func()
	digest  *Digester
	n       int64 // plain bytes so far
	err     error // sticky
}

func newPlain(r io.Reader, h Header) (*plain, error) {
	f, err := newFrame(r, h.Codec)
	if err != nil {
		return nil, err
	}
	p := &plain{header: h, frame: f, digest: NewDigest()}
	if h.Codec == Zstd {
		d, err := zstd.NewReader(f,
			zstd.WithDecoderConcurrency(1), // 1 means: no goroutines
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(MaxSize))
		if err != nil {
			return nil, err
		}
		p.decoder, p.close = d, d.Close
		return p, nil
	}
	d := lz4.NewReader(f)
	if err := d.Apply(lz4.ConcurrencyOption(1)); err != nil {
		return nil, err
	}
	p.decoder, p.close = d, func() { d.Reset(nil) }
	return p, nil
}

func (p *plain) Read(b []byte) (int, error) {
	if p.err != nil || len(b) == 0 {
		return 0, p.err
	}
	// One byte more than the header promises is enough to see that there is more.
	if left := p.header.Size - p.n; int64(len(b)) > left+1 {
		b = b[:left+1]
	}
	n, err := p.decoder.Read(b)
	p.digest.Write(b[:n])
	p.n += int64(n)
	switch {
	case p.n > p.header.Size:
		err = fmt.Errorf("%w: more than the %d bytes of its header", ErrDamaged, p.header.Size)
	case err == io.EOF:
		err = p.end()
	case err != nil:
		err = p.cause(err)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read object %s: %w", p.header.Name, err)
	}
	p.err = err
	return n, err
}

// end is called when the decoder has reached the end of the frame.
func (p *plain) end() error {
	if err := p.frame.end(); err != nil {
		return err
	}
	if p.n != p.header.Size {
		return fmt.Errorf("%w: %d bytes, its header says %d", ErrDamaged, p.n, p.header.Size)
	}
	if sum := p.digest.Sum(); sum != p.header.Digest {
		return fmt.Errorf("%w: digest %s, its header says %s", ErrDamaged, sum, p.header.Digest)
	}
	return io.EOF
}

// cause prefers what the source said, which decoders replace with words of their own.
func (p *plain) cause(err error) error {
	if p.frame.err != nil && p.frame.err != io.EOF {
		return p.frame.err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Close gives the decoder's memory back. Reads fail afterwards.
func (p *plain) Close() error {
	if p.close != nil {
		p.close()
		p.close = nil
	}
	if p.err == nil {
		p.err = errors.New("read object: already closed")
	}
	return nil
}
