package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is how far back a zstd frame may refer, and so what decoding costs in memory. We write 1 MiB;
// 8 MiB is what every decoder has to support (RFC 8878, section 3.1.1.1.2).
const maxWindow = 8 << 20

const (
	zstdMagic = 0xFD2FB528 // RFC 8878, section 3.1.1
	lz4Magic  = 0x184D2204 // lz4_Frame_format.md
)

// frame passes on exactly one compressed frame from src and then reports io.EOF. Decoders go on with the
// next frame, skip what is skippable and take any parameters: they get to see only what we would write.
type frame struct {
	src     io.Reader
	next    func() error // reads the next piece's header into pending and sets left; io.EOF at the end
	pending []byte       // bytes read from src and not passed on yet
	left    int          // bytes of the piece that are still in src
	err     error        // sticky; io.EOF when the frame is complete

	buf       [32]byte // where pending lies
	checksum  bool     // the frame ends with a checksum of its content (4 bytes)
	last      bool     // the last block was seen
	blockMax  uint32   // lz4
	blockSums bool     // lz4
}

// newFrame reads the start of the one frame that src has to hold. codec says which kind.
func newFrame(src io.Reader, codec Codec) (*frame, error) {
	f := &frame{src: src}
	start := f.startLZ4
	if codec == Zstd {
		start = f.startZstd
	}
	if err := start(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *frame) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, f.err
	}
	for len(f.pending) == 0 && f.left == 0 && f.err == nil {
		f.err = f.next()
	}
	switch {
	case len(f.pending) > 0:
		n := copy(p, f.pending)
		f.pending = f.pending[n:]
		return n, nil
	case f.left > 0 && f.err == nil:
		n, err := f.src.Read(p[:min(len(p), f.left)])
		f.left -= n
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			f.err = err
			if errors.Is(err, io.EOF) {
				f.err = fmt.Errorf("%w: cut short", ErrDamaged)
			}
		}
		if n > 0 {
			return n, nil // the error comes with the next call
		}
	}
	return 0, f.err
}

// end says whether the frame has been passed on whole and the source ends with it.
func (f *frame) end() error {
	var one [1]byte
	switch n, err := f.Read(one[:]); {
	case n > 0:
		return fmt.Errorf("%w: the frame goes on behind its content", ErrDamaged)
	case err != io.EOF:
		return err
	}
	switch _, err := io.ReadFull(f.src, one[:]); {
	case err == nil:
		return fmt.Errorf("%w: something follows the frame", ErrDamaged)
	case err != io.EOF:
		return err
	}
	return nil
}

// take reads n more bytes from src into buf, to be passed on, and returns them.
func (f *frame) take(n int) ([]byte, error) {
	have := len(f.pending)
	f.pending = f.buf[:have+n]
	if err := readFull(f.src, f.pending[have:]); err != nil {
		f.pending = f.buf[:have]
		return nil, err
	}
	return f.pending[have:], nil
}

func (f *frame) startZstd() error {
	b, err := f.take(5)
	if err != nil {
		return err
	}
	if magic := binary.LittleEndian.Uint32(b); magic != zstdMagic {
		return wrongFrame(magic, zstdMagic)
	}
	descriptor := b[4]
	single := descriptor&(1<<5) != 0
	rest := [4]int{0, 1, 2, 4}[descriptor&3] + [4]int{0, 2, 4, 8}[descriptor>>6]
	if !single || descriptor>>6 == 0 {
		rest++ // the window, or the one byte that a small single segment has for its size
	}
	if _, err := f.take(rest); err != nil {
		return err
	}
	var h zstd.Header
	if err := h.Decode(f.pending); err != nil {
		return fmt.Errorf("%w: zstd frame: %w", ErrDamaged, err)
	}
	switch {
	case h.DictionaryID != 0:
		return fmt.Errorf("%w: zstd frame wants dictionary %d", ErrDamaged, h.DictionaryID)
	case single && h.FrameContentSize > maxWindow, h.WindowSize > maxWindow:
		return fmt.Errorf("%w: zstd frame wants a window above %d bytes", ErrDamaged, maxWindow)
	}
	f.checksum = h.HasCheckSum
	f.next = f.nextZstd
	return nil
}

func (f *frame) nextZstd() error {
	if f.last {
		return f.finish()
	}
	b, err := f.take(3)
	if err != nil {
		return err
	}
	header := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = header&1 != 0
	switch kind := header >> 1 & 3; kind {
	case 0, 2: // raw, compressed
		f.left = int(header >> 3)
	case 1: // one byte, repeated
		f.left = 1
	default:
		return fmt.Errorf("%w: zstd block of the reserved kind", ErrDamaged)
	}
	return nil
}

func (f *frame) startLZ4() error {
	b, err := f.take(7)
	if err != nil {
		return err
	}
	if magic := binary.LittleEndian.Uint32(b); magic != lz4Magic {
		return wrongFrame(magic, lz4Magic)
	}
	flags, blockSize := b[4], b[5]
	// Version 1, independent blocks, reserved bit clear, no dictionary; any block size that exists.
	if flags&0b11100011 != 0b01100000 || blockSize&0b10001111 != 0 || blockSize>>4 < 4 {
		return fmt.Errorf("%w: lz4 frame with parameters %02x %02x", ErrDamaged, flags, blockSize)
	}
	if flags&(1<<3) != 0 { // content size
		if _, err := f.take(8); err != nil {
			return err
		}
	}
	f.blockMax = 1 << (8 + 2*(blockSize>>4))
	f.blockSums = flags&(1<<4) != 0
	f.checksum = flags&(1<<2) != 0
	f.next = f.nextLZ4
	return nil
}

func (f *frame) nextLZ4() error {
	if f.last {
		return f.finish()
	}
	b, err := f.take(4)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(b) &^ (1 << 31) // the highest bit says "stored"
	if n == 0 {
		f.last = true
		return nil
	}
	if n > f.blockMax {
		return fmt.Errorf("%w: lz4 block of %d bytes, want at most %d", ErrDamaged, n, f.blockMax)
	}
	f.left = int(n)
	if f.blockSums {
		f.left += 4
	}
	return nil
}

// finish passes on the checksum of the content, if there is one, and then ends the frame.
func (f *frame) finish() error {
	if !f.checksum {
		return io.EOF
	}
	f.checksum = false
	_, err := f.take(4)
	return err
}

func wrongFrame(got, want uint32) error {
	return fmt.Errorf("%w: the bytes start with %08x, want %08x", ErrDamaged, got, want)
}
