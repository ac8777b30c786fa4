package seal

import (
	"encoding/binary"
	"io"
	"math/bits"
)

// lz4Encoder writes an lz4 frame of independent blocks, compressed or, without a table, stored. The frame has no content size and no
// checksum, for the header has both, so its start is always the same (lz4_Frame_format.md).
type lz4Encoder struct {
	w     io.Writer
	table *lz4Table
	block []byte // the length of a block, and room for a compressed one
}

// lz4Start is the magic, the flags (version 1, independent blocks), the block size (64 KiB) and the second byte of the XXH32 of these two.
const lz4Start = "\x04\x22\x4D\x18\x60\x40\x82"

const (
	lz4Block  = 64 << 10
	lz4Stored = 1 << 31 // in the length of a block: it is not compressed
)

func newLZ4Encoder() *lz4Encoder {
	return &lz4Encoder{table: new(lz4Table), block: make([]byte, 4+lz4Block)}
}

func newStoredEncoder() *lz4Encoder { return &lz4Encoder{block: make([]byte, 4)} }

func (e *lz4Encoder) reset(w io.Writer, _ int64) error {
	e.w = w
	if w == nil {
		return nil
	}
	_, err := io.WriteString(w, lz4Start)
	return err
}

func (e *lz4Encoder) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		plain := p[n:min(len(p), n+lz4Block)]
		if err := e.write(plain); err != nil {
			return n, err
		}
		n += len(plain)
	}
	return n, nil
}

// write writes one block.
func (e *lz4Encoder) write(plain []byte) error {
	if e.table != nil {
		if n := e.table.compress(e.block[4:4+len(plain)], plain); n > 0 {
			binary.LittleEndian.PutUint32(e.block, uint32(n))
			_, err := e.w.Write(e.block[:4+n])
			return err
		}
	}
	binary.LittleEndian.PutUint32(e.block, lz4Stored|uint32(len(plain)))
	if _, err := e.w.Write(e.block[:4]); err != nil {
		return err
	}
	_, err := e.w.Write(plain)
	return err
}

// Close writes the end mark.
func (e *lz4Encoder) Close() error {
	_, err := e.w.Write(make([]byte, 4))
	return err
}

// lz4Table compresses lz4 blocks: it remembers where bytes with some hash were last seen. It is here, and not a library's, because it takes
// less than half the time of pierrec/lz4 for WAL, whose records are short and alike. A segment has some hundred thousand matches, so what
// counts is how many there are, how often one is looked for in vain, and that block and table stay in the nearest cache.
type lz4Table [1 << lz4Bits]uint16

const (
	lz4Bits     = 13
	lz4Hashed   = 6  // how many bytes are hashed: shorter matches save next to nothing, and cost as much time as long ones
	lz4Patience = 64 // after how many bytes without a match the steps between two looks get longer by one,
	lz4Stride   = 30 // up to so much
)

// Of an lz4 block the last bytes are literals, and no match begins in the last ones: then decoders may copy more than they need to
// (lz4_Block_format.md).
const (
	lz4MinMatch    = 4
	lz4LastLiteral = 5
	lz4LastMatch   = 12
)

func lz4Hash(v uint64) uint64 {
	const prime = 227718039650203 // of 6 bytes, as in xxhash
	return v << (64 - 8*lz4Hashed) * prime >> (64 - lz4Bits)
}

// compress writes src, of at most lz4Block bytes, into dst as an lz4 block, and returns its length, or 0 when dst has no room for it.
func (t *lz4Table) compress(dst, src []byte) int {
	clear(t[:])
	n, done := 0, 0                 // what is written, and what of src is in it
	last := len(src) - lz4LastMatch // where the last match may begin
	for s := 1; s <= last; {
		v := binary.LittleEndian.Uint64(src[s:])
		h := lz4Hash(v)
		m := int(t[h])
		t[h] = uint16(s)
		if uint32(v) != binary.LittleEndian.Uint32(src[m:]) { // also where nothing was seen: m is 0
			s += 1 + min(s-done, 1) + min((s-done)/lz4Patience, lz4Stride)
			continue
		}
		for s > done && m > 0 && src[s-1] == src[m-1] {
			s, m = s-1, m-1
		}
		end := s + lz4MinMatch + equal(src[s+lz4MinMatch:len(src)-lz4LastLiteral], src[m+lz4MinMatch:])
		if n = lz4Sequence(dst, n, src, done, s, s-m, end-s); n < 0 {
			return 0
		}
		done, s = end, end
		if s <= last {
			t[lz4Hash(binary.LittleEndian.Uint64(src[s-2:]))] = uint16(s - 2)
		}
	}
	literals := len(src) - done
	if n+1+literals+literals/255+1 > len(dst) {
		return 0
	}
	return lz4Literals(dst, n, src[done:])
}

// equal returns how many bytes at the beginning of a and b are equal. b is not shorter than a.
func equal(a, b []byte) int {
	n := 0
	for ; n+8 <= len(a); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// lz4Sequence writes a sequence behind the n bytes that dst has: the literals src[from:to], and a match. It returns how many bytes dst has
// then, or -1 when it has no room.
func lz4Sequence(dst []byte, n int, src []byte, from, to, offset, length int) int {
	literals := to - from
	if n+literals+literals/255+length/255+20 > len(dst) {
		return -1
	}
	length -= lz4MinMatch
	token := n
	if literals < 15 && from+16 <= len(src) { // nearly always; what is copied too much is overwritten
		dst[n] = byte(literals << 4)
		*(*[16]byte)(dst[n+1:]) = *(*[16]byte)(src[from:])
		n += 1 + literals
	} else {
		n = lz4Literals(dst, n, src[from:to])
	}
	binary.LittleEndian.PutUint16(dst[n:], uint16(offset))
	n += 2
	dst[token] |= byte(min(length, 15))
	if length >= 15 {
		n = lz4Length(dst, n, length)
	}
	return n
}

// lz4Literals writes a token without a match, and literals.
func lz4Literals(dst []byte, n int, literals []byte) int {
	dst[n] = byte(min(len(literals), 15)) << 4
	n++
	if len(literals) >= 15 {
		n = lz4Length(dst, n, len(literals))
	}
	return n + copy(dst[n:], literals)
}

// lz4Length writes what of a length does not go into the token.
func lz4Length(dst []byte, n, length int) int {
	for length -= 15; length >= 255; length -= 255 {
		dst[n] = 255
		n++
	}
	dst[n] = byte(length)
	return n + 1
}
