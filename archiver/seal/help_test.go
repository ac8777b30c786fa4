package seal

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"filippo.io/age"
)

var codecs = []Codec{Zstd, LZ4, None}

// walLike returns n bytes that compress about as a pgbench segment does: page headers, small records with
// increasing numbers and positions, checksums that do not compress, text that does.
func walLike(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := []string{"order ", "customer ", "invoice ", "street ", "paid ", "open ", "2026-11-21 ", "remark "}
	b := make([]byte, 0, n+1024)
	for len(b) < n {
		if len(b)%8192 < 200 {
			b = append(b, 0x10, 0xd1, 5, 0, 1, 0, 0, 0)
			b = binary.LittleEndian.AppendUint64(b, uint64(len(b)/8192*8192))
			b = binary.LittleEndian.AppendUint64(b, uint64(rnd.IntN(200)))
		}
		start := len(b)
		b = binary.LittleEndian.AppendUint32(b, uint32(80+rnd.IntN(120)))
		b = binary.LittleEndian.AppendUint32(b, uint32(7000+len(b)/400))
		b = binary.LittleEndian.AppendUint64(b, uint64(start-150))
		b = append(b, 0, 10, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, rnd.Uint32())
		b = append(b, 0, 0x20, 40, 0, 0x7f, 6, 0, 0, 5, 0, 0, 0x40, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(rnd.IntN(10000)))
		for range 3 + rnd.IntN(8) {
			b = append(b, words[rnd.IntN(len(words))]...)
		}
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
	}
	return b[:n]
}

func newSealer(t testing.TB, codec Codec, recipients ...Recipient) *Sealer {
	t.Helper()
	s, err := New(codec, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	s.TempDir = t.TempDir()
	return s
}

// someHeader is a header with everything that a caller can set.
var someHeader = Header{
	Name: "000000020000001600000042", SystemID: 7412345678901234567, Member: "pg-0", Term: 17,
	FirstCommit: time.Date(2026, 11, 21, 11, 0, 0, 123456000, time.UTC),
	LastCommit:  time.Date(2026, 11, 21, 11, 0, 9, 0, time.UTC),
}

// sealed returns the whole object that holds plain.
func sealed(t testing.TB, codec Codec, plain []byte, recipients ...Recipient) []byte {
	t.Helper()
	p, err := newSealer(t, codec, recipients...).Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Seal(someHeader)
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// opened reads a whole object.
func opened(r io.Reader, identities ...Identity) (Header, []byte, error) {
	h, content, err := Open(r, identities...)
	if err != nil {
		return h, nil, err
	}
	plain, err := io.ReadAll(content)
	content.Close()
	return h, plain, err
}

// keyPair makes an identity and its recipient.
func keyPair(t testing.TB) (Identity, Recipient) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id, id.Recipient()
}

// vectorIdentity opens the encrypted vectors.
func vectorIdentity(t testing.TB) Identity {
	t.Helper()
	text, err := os.ReadFile("testdata/identity")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseIdentities(text)
	if err != nil {
		t.Fatal(err)
	}
	return ids[0]
}
