package wal

import "hash/crc32"

// The CRC-32C of bytes whose halves lie in two segments comes from the CRCs of the halves: a CRC is the
// remainder of a polynomial over GF(2), so n bytes behind it multiply it by x^8n, and what they say is added.
// Numbers are reflected, as in the CRC itself: bit 31 is the constant term.

// combine returns the CRC of some bytes and n more from the CRCs of both, in O(log n).
func combine(crc, more uint32, n uint32) uint32 {
	for x := uint32(1) << (31 - 8); n > 0; n >>= 1 { // x^8, x^16, x^32, ...
		if n&1 != 0 {
			crc = multiply(crc, x)
		}
		x = multiply(x, x)
	}
	return crc ^ more
}

// multiply returns a*b modulo the polynomial of CRC-32C.
func multiply(a, b uint32) (p uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			p ^= b
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}
