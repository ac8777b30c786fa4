package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"filippo.io/age"
)

// Sealer makes objects with one codec. It may be used concurrently. What its users give back it keeps for
// the next ones, until the garbage collector wants it.
type Sealer struct {
	// TempDir is where objects of more than 64 MiB are put together; empty is os.TempDir. Set it before use.
	TempDir string

	codec      Codec
	recipients []Recipient // none: nothing is encrypted
	encoders   sync.Pool   // encoder
	buffers    sync.Pool   // *[blockSize]byte
	pieces     sync.Pool   // *[pieceSize]byte
}

// blockSize is how much is read at once, and the block size of frames that are not compressed.
const blockSize = 256 << 10

// New returns a Sealer for one of the known codecs. With recipients everything that it packs is encrypted, and each of them can open it.
func New(codec Codec, recipients ...Recipient) (*Sealer, error) {
	s := &Sealer{codec: codec, recipients: slices.Clone(recipients)}
	s.buffers.New = func() any { return new([blockSize]byte) }
	s.pieces.New = func() any { return new([pieceSize]byte) }
	e, err := newEncoder(codec) // so that later ones cannot fail: the options are the same
	if err != nil {
		return nil, fmt.Errorf("make sealer: %w", err)
	}
	s.encoders.Put(e)
	if len(recipients) > 0 {
		if _, err := age.Encrypt(io.Discard, recipients...); err != nil { // some do not go together
			return nil, fmt.Errorf("make sealer: %w", err)
		}
	}
	return s, nil
}

// Pack reads r to its end, which has to come after exactly size bytes (0 to MaxSize), and compresses it.
// The result has to be closed.
func (s *Sealer) Pack(r io.Reader, size int64) (*Packed, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("pack: %d bytes, want 0 to %d", size, MaxSize)
	}
	body, err := s.newSpool(size)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	p := &Packed{codec: s.codec, size: size, body: body}
	if err := s.fill(p, r); err != nil {
		body.Close()
		return nil, fmt.Errorf("pack: %w", err)
	}
	return p, nil
}

// fill compresses r into p, and on the way encrypts it.
func (s *Sealer) fill(p *Packed, r io.Reader) (err error) {
	if len(s.recipients) == 0 {
		p.digest, err = s.compress(p.body, r, p.size)
		return err
	}
	sum := NewDigest()
	w, err := age.Encrypt(io.MultiWriter(p.body, sum), s.recipients...)
	if err != nil {
		return err
	}
	if p.digest, err = s.compress(w, r, p.size); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	p.encryption, p.bodyDigest = encryptionAge, sum.Sum()
	return nil
}

// compress fills whole buffers, so that the result does not depend on how r cuts its reads.
func (s *Sealer) compress(w io.Writer, r io.Reader, size int64) (Digest, error) {
	buffer := s.buffers.Get().(*[blockSize]byte)
	defer s.buffers.Put(buffer)
	enc, ok := s.encoders.Get().(encoder)
	if !ok {
		var err error
		if enc, err = newEncoder(s.codec); err != nil {
			return Digest{}, err
		}
	}
	if err := enc.reset(w, size); err != nil {
		return Digest{}, err
	}
	digest := NewDigest()
	for n := int64(0); ; {
		m, err := io.ReadFull(r, buffer[:])
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return Digest{}, err
		}
		if n += int64(m); n > size {
			return Digest{}, fmt.Errorf("more than %d bytes", size)
		}
		digest.Write(buffer[:m])
		if _, err := enc.Write(buffer[:m]); err != nil {
			return Digest{}, err
		}
		if last && n < size {
			return Digest{}, fmt.Errorf("%d bytes, want %d: %w", n, size, io.ErrUnexpectedEOF)
		}
		if last {
			break
		}
	}
	if err := enc.Close(); err != nil {
		return Digest{}, err
	}
	// Only an encoder that came through is used again; the others go to the garbage collector.
	if err := enc.reset(nil, 0); err == nil {
		s.encoders.Put(enc)
	}
	return digest.Sum(), nil
}

// Packed is compressed and waits for its header. Its methods may be called concurrently.
type Packed struct {
	codec  Codec
	digest Digest
	size   int64

	encryption string // "" or encryptionAge
	bodyDigest Digest // of body, when it is encrypted

	// The lock keeps a late read from seeing memory that belongs to somebody else by then.
	mu     sync.RWMutex
	body   spool
	closed bool
}

// Digest returns the digest of the plain bytes.
func (p *Packed) Digest() Digest { return p.digest }

// Size returns how many plain bytes there are.
func (p *Packed) Size() int64 { return p.size }

// Close gives the memory back. Everything that was sealed from p can no longer be read. Only the first call
// does something.
func (p *Packed) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.body.Close()
}

// Seal puts the header before the bytes, with Format, Size, Digest, DigestName, Codec, Encryption and BodyDigest filled in.
// It may be called more than once.
func (p *Packed) Seal(h Header) (*Sealed, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, fmt.Errorf("seal %s: %w", h.Name, fs.ErrClosed)
	}
	h.Format, h.Size, h.Digest, h.DigestName, h.Codec = format, p.size, p.digest, digestName, p.codec
	h.Encryption, h.BodyDigest = p.encryption, p.bodyDigest
	h.FirstCommit, h.LastCommit = h.FirstCommit.UTC(), h.LastCommit.UTC()
	if h.Name == "" {
		return nil, errors.New("seal: no name")
	}
	head, err := h.append(nil)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.Name, err)
	}
	s := &Sealed{packed: p, head: head}
	s.SectionReader = io.NewSectionReader(sealedBytes{s}, 0, int64(len(head))+p.body.Size())
	return s, nil
}

// Sealed is an object, ready to be stored: io.ReadSeeker, io.ReaderAt and Size. For a second reader of the
// same object make an io.NewSectionReader over it.
type Sealed struct {
	*io.SectionReader
	packed *Packed
	head   []byte
}

// Close closes the Packed that it came from.
func (s *Sealed) Close() error { return s.packed.Close() }

// sealedBytes is the head and then the body.
type sealedBytes struct{ s *Sealed }

func (b sealedBytes) ReadAt(p []byte, off int64) (int, error) {
	packed, head := b.s.packed, b.s.head
	packed.mu.RLock()
	defer packed.mu.RUnlock()
	if packed.closed {
		return 0, fs.ErrClosed
	}
	n := 0
	if off < int64(len(head)) {
		n = copy(p, head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	m, err := packed.body.ReadAt(p[n:], off+int64(n)-int64(len(head)))
	return n + m, err
}
