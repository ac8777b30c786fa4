package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// The vectors are objects that every later version has to open, or to refuse, for ever. After a change of
// the format add new ones; `go test -run TestVectors -update` writes them all anew.
var update = flag.Bool("update", false, "write testdata/vectors anew")

const vectorTable = "testdata/vectors.txt"

// vector is a file of testdata/vectors and what Open has to make of it.
type vector struct {
	name, want, why string
	object          []byte
}

var wants = map[string]error{"ok": nil, "format": ErrFormat, "damaged": ErrDamaged, "encrypted": ErrEncrypted}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	plain, err := os.ReadFile("testdata/plain")
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(vectorTable)
	if err != nil {
		t.Fatal(err)
	}
	id := vectorIdentity(t)
	var listed []string
	for line := range strings.Lines(string(table)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want, why, _ := strings.Cut(strings.TrimSpace(rest), " ")
		listed = append(listed, name)
		object, err := os.ReadFile(filepath.Join("testdata/vectors", name))
		if err != nil {
			t.Fatal(err)
		}
		kind, ok := wants[want]
		if !ok {
			t.Fatalf("%s: unknown result %q", name, want)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h, got, err := opened(bytes.NewReader(object), id)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*maxWindow {
			t.Errorf("%s: took %d bytes of memory, want at most %d", name, n, 2*maxWindow)
		}
		if !errors.Is(err, kind) || kind == nil && err != nil {
			t.Errorf("%s (%s): got %v, want %s", name, strings.TrimSpace(why), err, want)
			continue
		}
		if want == "ok" && (!bytes.Equal(got, plain[:h.Size]) || h.Name != someHeader.Name || h.SystemID != someHeader.SystemID) {
			t.Errorf("%s: got %d bytes, header %+v", name, len(got), h)
		}
		if want == "encrypted" && h.Name != someHeader.Name {
			t.Errorf("%s: got header %+v, want it in the clear", name, h)
		}
	}
	files, err := os.ReadDir("testdata/vectors")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(listed, f.Name()) {
			t.Errorf("%s is not in %s", f.Name(), vectorTable)
		}
	}
}

func writeVectors(t *testing.T) {
	plain := walLike(3000)
	if err := errors.Join(os.RemoveAll("testdata/vectors"), os.MkdirAll("testdata/vectors", 0o755),
		os.WriteFile("testdata/plain", plain, 0o644)); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, v := range slices.Concat(goodVectors(t, plain), badHeaders(t, plain), badFrames(t, plain), ageVectors(t, plain)) {
		fmt.Fprintf(&table, "%-24s %-10s %s\n", v.name, v.want, v.why)
		if err := os.WriteFile(filepath.Join("testdata/vectors", v.name), v.object, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(vectorTable, []byte(table.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func goodVectors(t *testing.T, plain []byte) []vector {
	var all []vector
	for _, codec := range codecs {
		all = append(all,
			vector{string(codec), "ok", "as written", sealed(t, codec, plain)},
			vector{string(codec) + "-empty", "ok", "no bytes at all", sealed(t, codec, nil)})
	}
	z := sealed(t, Zstd, plain)
	return append(all,
		vector{"header-unknown-key", "ok", "a later version says more in its header", withJSON(z, `"format":1`, `"format":1,"later":{"a":[1]}`)},
		vector{"header-not-padded", "ok", "the filling is a habit, not a rule", append(headerFrame(bytes.TrimRight(headerText(z), " \n")), payload(z)...)},
	)
}

func badHeaders(t *testing.T, plain []byte) []vector {
	z := sealed(t, Zstd, plain)
	long := headerFrame(slices.Concat(headerText(z), bytes.Repeat([]byte(" "), HeaderRange)))
	huge := slices.Clone(z)
	binary.LittleEndian.PutUint32(huge[4:], 1<<32-1)
	other := slices.Clone(z)
	other[0] = 0x50
	return []vector{
		{"empty", "damaged", "not one byte", nil},
		{"not-ours", "format", "a plain zstd file", payload(z)},
		{"other-skippable", "format", "starts with a skippable frame of somebody else", other},
		{"header-cut-magic", "damaged", "ends inside the magic", z[:3]},
		{"header-cut", "damaged", "ends inside the header", z[:300]},
		{"header-only", "damaged", "ends after the header", z[:len(z)-len(payload(z))]},
		{"header-too-long", "damaged", "the header does not fit in the first 4096 bytes", append(long, payload(z)...)},
		{"header-huge", "damaged", "the header claims 4 GiB", huge},
		{"header-no-json", "damaged", "not JSON", withJSON(z, `{"format"`, `"format"`)},
		{"header-null", "format", "JSON that says nothing, so no format number", append(headerFrame([]byte("null")), payload(z)...)},
		{"header-two-values", "damaged", "a second JSON value", withJSON(z, `"term":17}`, `"term":17} {}`)},
		{"header-not-ascii", "damaged", "a letter that is not ASCII", withJSON(z, `pg-0`, "pg-\u00f6")},
		{"header-control", "damaged", "a NUL in the filling", withJSON(z, `"term":17}`, "\"term\":17}\x00")},
		{"format-2", "format", "a later format", withJSON(z, `"format":1`, `"format":2`)},
		{"format-2-other-keys", "format", "a later format that changed the type of a key", withJSON(z, `"format":1`, `"format":2,"size":"big"`)},
		{"digest-unknown", "format", "another digest", withJSON(z, `xxh3-128`, `sha2-256`)},
		{"digest-short", "damaged", "half a digest", withJSON(z, DigestOf(plain).String(), DigestOf(plain).String()[:16])},
		{"digest-wrong", "damaged", "the digest of other bytes", withJSON(z, DigestOf(plain).String(), DigestOf(nil).String())},
		{"codec-unknown", "format", "another codec", withJSON(z, `"zstd"`, `"gzip"`)},
		{"encryption-unknown", "format", "another encryption", withJSON(z, `"codec"`, `"encryption":"pgp","codec"`)},
		{"encryption-age", "damaged", "the beginning of an age file", append(headerFrame([]byte(strings.Replace(
			strings.TrimSpace(string(headerText(z))), `"codec"`, `"encryption":"age","codec"`, 1))), "age-encryption.org/v1\n-> X25519 ...\n"...)},
		{"name-missing", "damaged", "no name", withJSON(z, someHeader.Name, ``)},
		{"system-id-number", "damaged", "the system identifier is a number, which JSON readers round", withJSON(z, `"7412345678901234567"`, `7412345678901234567`)},
		{"size-negative", "damaged", "a negative size", withJSON(z, `"size":3000`, `"size":-1`)},
		{"size-too-large", "damaged", "more than the largest segment", withJSON(z, `"size":3000`, `"size":1073741825`)},
		{"size-less", "damaged", "the content is longer than the header says", withJSON(z, `"size":3000`, `"size":2999`)},
		{"size-more", "damaged", "the content is shorter than the header says", withJSON(z, `"size":3000`, `"size":3001`)},
	}
}

func badFrames(t *testing.T, plain []byte) []vector {
	z, l, n := sealed(t, Zstd, plain), sealed(t, LZ4, plain), sealed(t, None, plain)
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	all := []vector{
		{"zstd-frame-is-lz4", "damaged", "the header says zstd, the bytes are lz4", append(head(z), payload(l)...)},
		{"lz4-frame-is-zstd", "damaged", "the header says lz4, the bytes are zstd", append(head(l), payload(z)...)},
		{"lz4-legacy", "damaged", "the old lz4 frame, which has neither parameters nor an end", append(head(l), 0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, 'x')},
		{"zstd-is-age", "damaged", "an age file that the header does not announce", append(head(z), "age-encryption.org/v1\n"...)},
		// Window descriptor 0xF8: 2^41 bytes.
		{"zstd-huge-window", "damaged", "wants 2 TiB of memory", append(head(z), 0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0)},
		// Single segment with a content size of 8 bytes, 2^40.
		{"zstd-huge-segment", "damaged", "wants a window of 1 TiB", append(head(z), 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0)},
		{"zstd-dictionary", "damaged", "wants a dictionary", append(head(z), 0x28, 0xb5, 0x2f, 0xfd, 1, 0x58, 7, 1, 0, 0)},
		{"zstd-reserved-block", "damaged", "a block of the reserved kind", append(head(z), 0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 7, 0, 0)},
		{"lz4-linked", "damaged", "linked blocks, which we never write", append(head(n), 0x04, 0x22, 0x4d, 0x18, 0x40, 0x50, 0x00)},
		{"lz4-dictionary", "damaged", "wants a dictionary", append(head(n), 0x04, 0x22, 0x4d, 0x18, 0x61, 0x50, 7, 0, 0, 0, 0x00)},
		{"lz4-block-too-large", "damaged", "a block of 2 GiB less one byte", append(head(n), storedStart+"\xff\xff\xff\xff"...)},
		{"lz4-header-checksum", "damaged", "the checksum of the frame's parameters is wrong", append(head(n), storedStart[:6]+"\x00\x00\x00\x00\x00"...)},
		{"zstd-bomb", "damaged", "64 MiB of zeros where the header says 3000 bytes", append(head(z), bomb(t)...)},
	}
	for _, codec := range codecs {
		name, o := string(codec), sealed(t, codec, plain)
		flipped := slices.Clone(o)
		flipped[len(head(o))+100] ^= 4
		all = append(all,
			vector{name + "-cut-start", "damaged", "ends inside the frame's magic", o[:len(head(o))+2]},
			vector{name + "-cut", "damaged", "ends in the middle", o[:len(o)-500]},
			vector{name + "-cut-end", "damaged", "the last byte is missing", o[:len(o)-1]},
			vector{name + "-flipped", "damaged", "one bit is wrong", flipped},
			vector{name + "-and-a-byte", "damaged", "a byte follows", append(slices.Clone(o), 0)},
			vector{name + "-and-skippable", "damaged", "a skippable frame follows, which tools take", append(slices.Clone(o), skippable...)},
			vector{name + "-twice", "damaged", "the same frame again, which tools append", append(slices.Clone(o), payload(o)...)},
			vector{name + "-and-empty-frame", "damaged", "a frame of nothing follows", append(slices.Clone(o), payload(sealed(t, codec, nil))...)},
			vector{name + "-behind-skippable", "damaged", "a skippable frame between header and bytes", slices.Concat(head(o), skippable, payload(o))},
		)
	}
	return all
}

// ageVectors are encrypted; testdata/identity opens the good ones.
func ageVectors(t *testing.T, plain []byte) []vector {
	to, err := age.ParseX25519Recipient(vectorIdentity(t).(*age.X25519Identity).Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	_, other := keyPair(t)
	z, theirs := sealed(t, Zstd, plain, to), sealed(t, Zstd, plain, other)
	flipped, stanza := slices.Clone(z), slices.Clone(z)
	flipped[len(z)-100] ^= 4
	stanza[len(head(z))+bytes.IndexByte(payload(z), '>')+20] ^= 1 // in what is wrapped for the recipient
	digest := DigestOf(payload(z)).String()
	return []vector{
		{"age-zstd", "ok", "encrypted", z},
		{"age-lz4", "ok", "encrypted", sealed(t, LZ4, plain, to)},
		{"age-none", "ok", "encrypted", sealed(t, None, plain, to)},
		{"age-empty", "ok", "encrypted, no bytes at all", sealed(t, Zstd, nil, to)},
		{"age-to-two", "ok", "encrypted to somebody else, too", sealed(t, Zstd, plain, other, to)},
		{"age-no-body-digest", "damaged", "the digest of the encrypted bytes is missing", withJSON(z, `,"body_digest":"`+digest+`"`, ``)},
		{"age-to-others", "encrypted", "whole, and encrypted to somebody else", theirs},
		{"age-to-others-cut", "damaged", "encrypted to somebody else, and the last byte is missing", theirs[:len(theirs)-1]},
		{"age-header-only", "damaged", "ends after our header", head(z)},
		{"age-header-flipped", "damaged", "one bit is wrong in the digest of the plain bytes", otherDigest(z)},
		{"age-header-unsigned", "damaged", "the digest of the header itself is missing", unsigned(z)},
		{"age-header-unknown-key", "ok", "a later version says more in its header", withJSON(z, `"format":1`, `"format":1,"later":{"a":[1]}`)},
		{"age-cut", "damaged", "ends in the middle", z[:len(z)-500]},
		{"age-cut-end", "damaged", "the last byte is missing", z[:len(z)-1]},
		{"age-flipped", "damaged", "one bit is wrong", flipped},
		{"age-flipped-stanza", "damaged", "one bit is wrong where it would look like another recipient's", stanza},
		{"age-and-a-byte", "damaged", "a byte follows", append(slices.Clone(z), 0)},
		{"age-body-digest-wrong", "damaged", "the digest of other encrypted bytes", withJSON(z, digest, DigestOf(nil).String())},
		{"age-other-header", "damaged", "the header of another object, with the digest of these encrypted bytes", otherHeader(t, z, to)},
		{"age-not-age", "damaged", "the header says age, and the bytes are a zstd frame", append(head(withJSON(z, digest, DigestOf(payload(sealed(t, Zstd, plain))).String())), payload(sealed(t, Zstd, plain))...)},
		{"age-holds-lz4", "damaged", "the header says zstd, and in the age file is lz4", otherCodec(t, plain, to)},
	}
}

// otherDigest changes one bit of the plain digest, where another hexadecimal digit comes of it.
func otherDigest(object []byte) []byte {
	b := slices.Clone(object)
	at := bytes.Index(b, []byte(`"digest":"`)) + len(`"digest":"`)
	for !bytes.Contains([]byte("02468ace"), b[at:at+1]) {
		at++
	}
	b[at] ^= 1
	return b
}

// unsigned leaves the digest of the header out.
func unsigned(object []byte) []byte {
	before, _, _ := bytes.Cut(headerText(object), []byte(textDigest))
	return append(headerFrame(append(slices.Clone(before), '}')), payload(object)...)
}

// otherHeader puts before the encrypted bytes of an object the header of another one.
func otherHeader(t *testing.T, object []byte, to Recipient) []byte {
	another := sealed(t, Zstd, nil, to)
	named := withJSON(another, DigestOf(payload(another)).String(), DigestOf(payload(object)).String())
	return append(head(named), payload(object)...)
}

// otherCodec is an encrypted object whose header names another codec than that of its bytes.
func otherCodec(t *testing.T, plain []byte, to Recipient) []byte {
	return withJSON(sealed(t, LZ4, plain, to), `"codec":"lz4"`, `"codec":"zstd"`)
}

// bomb is a small zstd frame of 64 MiB of zeros.
func bomb(t *testing.T) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func headerLen(object []byte) int     { return 8 + int(binary.LittleEndian.Uint32(object[4:])) }
func head(object []byte) []byte       { return slices.Clip(object[:headerLen(object)]) }
func headerText(object []byte) []byte { return object[8:headerLen(object)] }
func payload(object []byte) []byte    { return object[headerLen(object):] }
func headerFrame(text []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, headerMagic)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
}

// withJSON replaces from, which must be there, in the header's text, and keeps the bytes.
func withJSON(object []byte, from, to string) []byte {
	text := headerText(object)
	if !bytes.Contains(text, []byte(from)) {
		panic("the header has no " + from)
	}
	text = bytes.Replace(text, []byte(from), []byte(to), 1)
	if before, _, signed := bytes.Cut(text, []byte(textDigest)); signed { // who forges a header makes its digest, too
		text = signText(append(slices.Clone(before), '}'))
	}
	return append(headerFrame(text), payload(object)...)
}
