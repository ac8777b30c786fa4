package seal

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/xxh3"
)

// digestName is the only digest of format 1.
const digestName = "xxh3-128"

// Digest is the XXH3-128 of plain bytes in its canonical (big endian) order. It is comparable.
type Digest [16]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return xxh3.Hash128(b).Bytes() }

// String returns 32 lower-case hexadecimal digits, as xxh128sum prints them.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts only what String returns.
func (d *Digest) UnmarshalText(text []byte) error {
	var read Digest
	if len(text) != 2*len(read) {
		return fmt.Errorf("parse digest %q: not 32 digits", text)
	}
	if _, err := hex.Decode(read[:], text); err != nil || read.String() != string(text) {
		return fmt.Errorf("parse digest %q: not lower-case hexadecimal", text)
	}
	*d = read
	return nil
}

// Digester computes a Digest of what is written to it.
type Digester struct{ h *xxh3.Hasher }

// NewDigest returns a Digester that has seen nothing.
func NewDigest() *Digester { return &Digester{h: xxh3.New()} }

// Write never fails.
func (d *Digester) Write(p []byte) (int, error) { return d.h.Write(p) }

// Sum returns the digest of what was written so far.
func (d *Digester) Sum() Digest { return d.h.Sum128().Bytes() }
