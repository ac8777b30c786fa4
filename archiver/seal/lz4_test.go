package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// lz4Compressed compresses one block, and holds it against pierrec/lz4's reading of it and against the rules for its end. nil: there was no room.
func lz4Compressed(t testing.TB, plain []byte) []byte {
	t.Helper()
	room := bytes.Repeat([]byte{0xA5}, len(plain)+8)
	n := new(lz4Table).compress(room[:len(plain):len(plain)], plain)
	if !bytes.Equal(room[len(plain):], bytes.Repeat([]byte{0xA5}, 8)) {
		t.Fatal("it wrote behind its room")
	}
	if n == 0 {
		return nil
	}
	block := room[:n]
	back := make([]byte, len(plain))
	if m, err := lz4.UncompressBlock(block, back); err != nil || m != len(plain) || !bytes.Equal(back, plain) {
		t.Fatalf("%d bytes came back of %d, %v", m, len(plain), err)
	}
	if err := lz4Ends(block, len(plain)); err != nil {
		t.Fatal(err)
	}
	return block
}

// lz4Ends walks over a block that can be read, and says whether its end is as lz4_Block_format.md wants it: other decoders rely on that.
func lz4Ends(block []byte, size int) error {
	at := 0
	length := func(first byte) (n int) {
		n = int(first)
		for more := first; first == 15; {
			more, block = block[0], block[1:]
			if n += int(more); more < 255 {
				break
			}
		}
		return n
	}
	for {
		token := block[0]
		block = block[1:]
		literals := length(token >> 4)
		at, block = at+literals, block[literals:]
		if len(block) == 0 {
			if at != size || literals < min(size, lz4LastLiteral) || token&15 != 0 {
				return fmt.Errorf("it ends at %d of %d with %d literals", at, size, literals)
			}
			return nil
		}
		offset := int(binary.LittleEndian.Uint16(block))
		block = block[2:]
		if at > size-lz4LastMatch || offset == 0 || offset > at {
			return fmt.Errorf("at %d of %d a match with what is %d bytes before it", at, size, offset)
		}
		at += length(token&15) + lz4MinMatch
	}
}

func TestLZ4Blocks(t *testing.T) {
	noise := make([]byte, lz4Block)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	far := bytes.Clone(noise)
	copy(far[lz4Block-40:], far[:20]) // the longest way back that fits before the last literals
	for name, plain := range map[string][]byte{
		"WAL": walLike(lz4Block), "zeros": make([]byte, lz4Block), "a long match": bytes.Repeat([]byte("0123456789abcdef"), 1000),
		"long literals and a match": append(bytes.Clone(noise[:40_000]), noise[:20_000]...), "far": far,
	} {
		if block := lz4Compressed(t, plain); block == nil && name != "far" {
			t.Errorf("%s: not compressed", name)
		}
	}
	if block := lz4Compressed(t, noise); block != nil {
		t.Errorf("noise takes %d bytes of %d", len(block), len(noise))
	}
	for size := range 300 { // every length at which something may begin or end
		lz4Compressed(t, make([]byte, size))
		lz4Compressed(t, walLike(size))
		lz4Compressed(t, append(bytes.Clone(noise[:size]), noise[:size]...))
	}
}

// What we write is at most a tenth longer than what pierrec/lz4 makes of the same WAL.
func TestLZ4Ratio(t *testing.T) {
	plain := walLike(lz4Block)
	ours := lz4Compressed(t, plain)
	theirs := make([]byte, lz4.CompressBlockBound(len(plain)))
	var c lz4.Compressor
	n, err := c.CompressBlock(plain, theirs)
	if err != nil || len(ours) > n*11/10 {
		t.Errorf("%d bytes, pierrec/lz4 writes %d, %v", len(ours), n, err)
	}
}

func FuzzLZ4(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add(walLike(300), uint16(3))
	f.Add(make([]byte, 5000), uint16(1))
	f.Fuzz(func(t *testing.T, plain []byte, again uint16) {
		if len(plain) > 0 { // some of it once more, so that there are matches
			plain = append(plain, plain[int(again)%len(plain):]...)
		}
		lz4Compressed(t, plain[:min(len(plain), lz4Block)])
	})
}
