package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	// ErrFormat says that something is no object of walbaton, or one of a version that is newer than this.
	ErrFormat = errors.New("not an object of a known format")
	// ErrDamaged says that an object is not what was once sealed: cut, longer, changed, or put together wrong.
	ErrDamaged = errors.New("damaged object")
	// ErrEncrypted says that an object is encrypted and cannot be opened here; its header can be read. It is one of the two below.
	ErrEncrypted = errors.New("it is encrypted with age")
	// ErrNoIdentity is ErrEncrypted where no identity was given.
	ErrNoIdentity = fmt.Errorf("%w, and there is no identity here that would open it", ErrEncrypted)
	// ErrWrongIdentity is ErrEncrypted where identities were given, and the object, which is whole, was encrypted to others.
	ErrWrongIdentity = fmt.Errorf("%w, and none of the identities here opens it", ErrEncrypted)
)

// Codec is how the plain bytes are stored.
type Codec string

const (
	Zstd Codec = "zstd" // at its fastest level
	LZ4  Codec = "lz4"
	None Codec = "none" // an lz4 frame of stored blocks
)

func (c Codec) known() bool { return c == Zstd || c == LZ4 || c == None }

const (
	// HeaderRange is how many bytes from the start of an object ReadHeader may need.
	HeaderRange = 4096
	// MaxSize is the largest number of plain bytes in an object: the largest segment PostgreSQL knows.
	MaxSize = 1 << 30

	format        = 1
	encryptionAge = "age"
	headerMagic   = 0x184D2A57
	headerStep    = 512 // the header frame is filled up to a multiple of this
)

// Header says what an object holds and who made it. Packed.Seal fills Format, Size, Digest, DigestName, Codec, Encryption and BodyDigest.
type Header struct {
	Format      int       `json:"format"`
	Name        string    `json:"name"` // the file's name in pg_wal
	SystemID    uint64    `json:"system_id,string"`
	Size        int64     `json:"size"` // plain bytes
	Digest      Digest    `json:"digest"`
	DigestName  string    `json:"digest_name"` // always "xxh3-128"
	Codec       Codec     `json:"codec"`
	Encryption  string    `json:"encryption,omitempty"`  // empty, or "age"
	BodyDigest  Digest    `json:"body_digest,omitzero"`  // of the encrypted bytes, so that damage is found without an identity
	FirstCommit time.Time `json:"first_commit,omitzero"` // of the first and the last commit or abort record; zero if there is none
	LastCommit  time.Time `json:"last_commit,omitzero"`
	Member      string    `json:"member,omitempty"` // Patroni's name of the node that sealed it
	Term        uint64    `json:"term,omitempty"`   // of the baton, 0 when sealed without it
}

// ReadHeader reads the header of an object from its start, and takes no more than HeaderRange bytes from r.
// It is ErrFormat for what is not ours or too new, ErrDamaged for a broken header, and r's own error.
// Only Open proves that the bytes are what the header says.
func ReadHeader(r io.Reader) (Header, error) {
	h, err := readHeader(r)
	if err != nil {
		return Header{}, fmt.Errorf("read object header: %w", err)
	}
	return h, nil
}

func readHeader(r io.Reader) (Header, error) {
	var start [8]byte
	if err := readFull(r, start[:]); err != nil {
		return Header{}, err
	}
	if magic := binary.LittleEndian.Uint32(start[:]); magic != headerMagic {
		return Header{}, fmt.Errorf("%w: starts with %08x, want %08x", ErrFormat, magic, headerMagic)
	}
	n := binary.LittleEndian.Uint32(start[4:])
	if n > HeaderRange-8 {
		return Header{}, fmt.Errorf("%w: the header has %d bytes, want at most %d", ErrDamaged, n, HeaderRange-8)
	}
	text := make([]byte, n)
	if err := readFull(r, text); err != nil {
		return Header{}, err
	}
	for i, c := range text {
		if (c < ' ' || c > '~') && c != '\n' {
			return Header{}, fmt.Errorf("%w: byte %d of the header is %#02x, want printable ASCII", ErrDamaged, 8+i, c)
		}
	}
	return parseHeader(text)
}

// parseHeader looks at the format number before anything else: a newer header may look otherwise.
func parseHeader(text []byte) (Header, error) {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	if version.Format != format {
		return Header{}, fmt.Errorf("%w: format %d, want %d", ErrFormat, version.Format, format)
	}
	var h Header
	if err := json.Unmarshal(text, &h); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	signed, err := checkText(bytes.TrimRight(text, " \n"))
	if err != nil {
		return Header{}, err
	}
	switch {
	case h.DigestName != digestName:
		return Header{}, fmt.Errorf("%w: digest %q, want %q", ErrFormat, h.DigestName, digestName)
	case !h.Codec.known():
		return Header{}, fmt.Errorf("%w: codec %q", ErrFormat, h.Codec)
	case h.Encryption != "" && h.Encryption != encryptionAge:
		return Header{}, fmt.Errorf("%w: encryption %q", ErrFormat, h.Encryption)
	case h.Encryption != "" && (!signed || h.BodyDigest == Digest{}):
		return Header{}, fmt.Errorf("%w: header of an encrypted object without its digests", ErrDamaged)
	case h.Name == "":
		return Header{}, fmt.Errorf("%w: header without a name", ErrDamaged)
	case h.Size < 0 || h.Size > MaxSize:
		return Header{}, fmt.Errorf("%w: size %d, want 0 to %d", ErrDamaged, h.Size, MaxSize)
	}
	return h, nil
}

// append appends the header's frame to b.
func (h Header) append(b []byte) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	text = escape(text)
	if h.Encryption != "" {
		text = signText(text)
	}
	n := (8 + len(text) + 1 + headerStep - 1) / headerStep * headerStep
	if n > HeaderRange {
		return nil, fmt.Errorf("the header has %d bytes, want at most %d", 8+len(text)+1, HeaderRange)
	}
	b = binary.LittleEndian.AppendUint32(b, headerMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(n-8))
	b = append(b, text...)
	b = append(b, bytes.Repeat([]byte{' '}, n-8-len(text)-1)...)
	return append(b, '\n'), nil
}

// textDigest is the last key of an encrypted object's header: its value is the digest of all text before it. The header is all that a
// node without an identity can read, so damage of it has to show without the bytes.
const textDigest = `,"header_digest":"`

func signText(text []byte) []byte {
	before := text[:len(text)-1] // without the brace
	return slices.Concat(before, []byte(textDigest), []byte(DigestOf(before).String()), []byte(`"}`))
}

// checkText holds the text of a header against its digest, and says whether it has one.
func checkText(text []byte) (signed bool, err error) {
	before, after, found := bytes.Cut(text, []byte(textDigest))
	if !found {
		return false, nil
	}
	if string(after) != DigestOf(before).String()+`"}` {
		return false, fmt.Errorf("%w: the header was changed: it has another digest than it says", ErrDamaged)
	}
	return true, nil
}

// escape writes what is not ASCII in JSON text, which is always inside a string, as \u escapes.
func escape(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch high, low := utf16.EncodeRune(r); {
		case r == 0x7f: // the one ASCII control that JSON lets through
			out = append(out, `\u007f`...)
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case high != utf8.RuneError:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// readFull fills p. An end that comes too early is ErrDamaged.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", ErrDamaged)
	}
	return err
}
