package wal

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func TestCombine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for i := range 2000 {
		n := r.IntN(len(b) >> (i % 20))
		b := b[:n]
		cut := r.IntN(n + 1)
		before, after := crc32.Update(0, castagnoli, b[:cut]), crc32.Update(0, castagnoli, b[cut:])
		if got, want := combine(before, after, uint32(n-cut)), crc32.Update(before, castagnoli, b[cut:]); got != want {
			t.Fatalf("%d and %d bytes: got %08x, want %08x", cut, n-cut, got, want)
		}
	}
	if got := combine(0x12345678, 0, 0); got != 0x12345678 {
		t.Errorf("nothing more: got %08x", got)
	}
}
