package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

func TestEncryptedRoundTrip(t *testing.T) {
	all := walLike(1<<20 + 7)
	one, to1 := keyPair(t)
	two, to2 := keyPair(t)
	other, _ := keyPair(t)
	for _, codec := range codecs {
		for _, n := range []int{0, 1, 4096, 65535, 65536, 65537, pieceSize, blockSize + 1, len(all)} {
			object := sealed(t, codec, all[:n], to1, to2)
			for name, keys := range map[string][]Identity{"the first": {one}, "the second": {two}, "the second, behind a wrong one": {other, two}} {
				h, got, err := opened(iotest.HalfReader(bytes.NewReader(object)), keys...)
				if err != nil || !bytes.Equal(got, all[:n]) {
					t.Errorf("%s, %d bytes, %s: got %d bytes, %v", codec, n, name, len(got), err)
				}
				want := someHeader
				want.Format, want.Size, want.Digest, want.DigestName, want.Codec = 1, int64(n), DigestOf(all[:n]), "xxh3-128", codec
				want.Encryption, want.BodyDigest = "age", DigestOf(payload(object))
				if h != want {
					t.Errorf("%s, %d bytes: got header\n%+v, want\n%+v", codec, n, h, want)
				}
			}
			if n > 100 && bytes.Contains(object, all[50:100]) {
				t.Errorf("%s, %d bytes: plain bytes can be read in the object", codec, n)
			}
		}
	}
}

// An object that is encrypted is a body like any other: rewindable, of known size; and as large as its plain twin but for what age adds.
func TestEncryptedIsABody(t *testing.T) {
	id, to := keyPair(t)
	plain := walLike(3*pieceSize + 5)
	s := newSealer(t, Zstd, to)
	p, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o, err := p.Seal(someHeader)
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(o, object); err != nil {
		t.Error(err)
	}
	if _, got, err := opened(bytes.NewReader(object), id); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	in, out := len(payload(sealed(t, Zstd, plain))), len(payload(object))
	if chunks := in/65536 + 1; out-in > 200+16+16*chunks {
		t.Errorf("encrypted: %d bytes, and %d without", out, in)
	}
}

// Segments above 64 MiB go through the file, which has nothing but encrypted bytes.
func TestEncryptedTempFile(t *testing.T) {
	id, to := keyPair(t)
	plain := append(make([]byte, memoryMax), walLike(1<<20)...)
	object := sealed(t, None, plain, to)
	if _, got, err := opened(bytes.NewReader(object), id); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestOpenWithoutTheKey(t *testing.T) {
	_, to := keyPair(t)
	other, _ := keyPair(t)
	object := sealed(t, Zstd, walLike(200_000), to)
	for name, tt := range map[string]struct {
		object []byte
		keys   []Identity
		want   error
	}{
		"no identity":                {object, nil, ErrNoIdentity},
		"the identity of others":     {object, []Identity{other}, ErrWrongIdentity},
		"no identity, cut":           {object[:len(object)/2], nil, ErrNoIdentity}, // nothing behind the header was read
		"that of others, cut":        {object[:len(object)-1], []Identity{other}, ErrDamaged},
		"that of others, cut early":  {object[:headerLen(object)+20], []Identity{other}, ErrDamaged},
		"that of others, a bit more": {append(slices.Clone(object), 0), []Identity{other}, ErrDamaged},
	} {
		h, _, err := opened(bytes.NewReader(tt.object), tt.keys...)
		if !errors.Is(err, tt.want) || errors.Is(err, ErrEncrypted) != (tt.want != ErrDamaged) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if errors.Is(err, ErrEncrypted) && h.Name != someHeader.Name {
			t.Errorf("%s: got no header with the error", name)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", name, err)
		}
	}
}

// Without an identity no flipped bit is missed either, and with one a damaged object is never taken for one of other recipients:
// not even when the damage is in what is encrypted to them.
func TestEncryptedDamage(t *testing.T) {
	id, to := keyPair(t)
	plain := walLike(600)
	object := sealed(t, Zstd, plain, to)
	for i := range object {
		object[i] ^= 1 << (i % 8)
		if _, err := Check(bytes.NewReader(object)); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d flipped, without an identity: got %v, want ErrDamaged", i, err)
		}
		if _, _, err := opened(bytes.NewReader(object), id); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) || errors.Is(err, ErrEncrypted) {
			t.Errorf("byte %d flipped: got %v, want only ErrDamaged", i, err)
		}
		object[i] ^= 1 << (i % 8)
	}
	for _, n := range []int{0, 100, 512, headerLen(object), headerLen(object) + 30, len(object) / 2, len(object) - 17, len(object) - 1} {
		if _, err := Check(bytes.NewReader(object[:n])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes, without an identity: got %v, want ErrDamaged", n, err)
		}
		if _, _, err := opened(bytes.NewReader(object[:n]), id); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: got %v, want ErrDamaged", n, err)
		}
	}
	if h, err := Check(bytes.NewReader(object)); err != nil || h.Name != someHeader.Name {
		t.Errorf("whole, without an identity: got %v", err)
	}
	if _, err := Check(bytes.NewReader(sealed(t, LZ4, plain))); err != nil {
		t.Errorf("Check of what is not encrypted: got %v", err)
	}
}

// Who can write to the archive can put one object's header before the bytes of another.
func TestExchangedHeader(t *testing.T) {
	id, to := keyPair(t)
	x, y := walLike(5000), bytes.Repeat([]byte("y"), 5000)
	a, b := sealed(t, Zstd, x, to), sealed(t, Zstd, y, to)
	if _, _, err := opened(bytes.NewReader(slices.Concat(head(a), payload(b))), id); !errors.Is(err, ErrDamaged) {
		t.Errorf("the header of another object: got %v, want ErrDamaged", err)
	}
	// One that knows of the digest of the encrypted bytes is found out by that of the plain ones.
	forged := withJSON(slices.Concat(head(a), payload(b)), DigestOf(payload(a)).String(), DigestOf(payload(b)).String())
	if _, err := Check(bytes.NewReader(forged)); err != nil {
		t.Errorf("forged: Check cannot know, and got %v", err)
	}
	if _, _, err := opened(bytes.NewReader(forged), id); !errors.Is(err, ErrDamaged) {
		t.Errorf("forged: got %v, want ErrDamaged", err)
	}
}

func TestEncryptedBrokenSource(t *testing.T) {
	broken := errors.New("connection reset by peer")
	id, to := keyPair(t)
	other, _ := keyPair(t)
	object := sealed(t, Zstd, walLike(600<<10), to)
	for _, at := range []int{headerLen(object), headerLen(object) + 5, headerLen(object) + 150, headerLen(object) + 250, len(object) / 2, len(object) - 1, len(object)} {
		src := func() io.Reader { return io.MultiReader(bytes.NewReader(object[:at]), iotest.ErrReader(broken)) }
		for name, err := range map[string]error{
			"with the identity": func() error { _, _, err := opened(src(), id); return err }(),
			"with another":      func() error { _, _, err := opened(src(), other); return err }(),
			"with none":         func() error { _, err := Check(src()); return err }(),
		} {
			if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrEncrypted) {
				t.Errorf("%s, source breaks at %d: got %v, want only its error", name, at, err)
			}
		}
	}
}

// A source that fails while it is packed leaves no half object, and the sealer works on.
func TestEncryptedPackFails(t *testing.T) {
	id, to := keyPair(t)
	plain := walLike(300 << 10)
	s := newSealer(t, Zstd, to)
	for name, r := range map[string]io.Reader{
		"too short": bytes.NewReader(plain[:1000]),
		"breaks":    io.MultiReader(bytes.NewReader(plain[:200_000]), iotest.ErrReader(errors.New("input/output error"))),
	} {
		if p, err := s.Pack(r, int64(len(plain))); err == nil || p != nil {
			t.Errorf("%s: got no error", name)
		}
	}
	p, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o, err := p.Seal(someHeader)
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := opened(o, id); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// sshKeys gives a key as OpenSSH writes it, and the line for authorized_keys.
func sshKeys(t *testing.T, key any, passphrase string) (private []byte, public string) {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func TestKeys(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edPrivate, edPublic := sshKeys(t, ed, "")
	rsPrivate, rsPublic := sshKeys(t, rs, "")
	plain := walLike(100_000)
	for name, k := range map[string]struct {
		public  string
		private []byte
	}{
		"X25519":      {x.Recipient().String(), []byte("# created: 2026-11-28\n# public key: " + x.Recipient().String() + "\n" + x.String() + "\n")},
		"CRLF":        {"  " + x.Recipient().String() + "\r\n", []byte(" " + x.String() + "\r\n")},
		"hybrid":      {pq.Recipient().String(), []byte(pq.String())},
		"ssh-ed25519": {edPublic, edPrivate},
		"ssh-rsa":     {strings.TrimSpace(rsPublic) + " ann@example", rsPrivate},
	} {
		to, err := ParseRecipient(k.public)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids, err := ParseIdentities(k.private)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, got, err := opened(bytes.NewReader(sealed(t, Zstd, plain, to)), ids...); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
	many, err := ParseRecipients([]byte("# the safe\n" + x.Recipient().String() + "\n\n" + edPublic))
	if err != nil || len(many) != 2 {
		t.Errorf("ParseRecipients: got %d, %v", len(many), err)
	}
	// A file whose X25519 key a quantum computer could open would make the hybrid one useless.
	if _, err := New(Zstd, x.Recipient(), pq.Recipient()); err == nil {
		t.Error("New with a hybrid and another recipient: got no error")
	}
}

// What is refused is told from what it was taken for, and no part of a private key is ever repeated.
func TestKeysRefused(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	secret, public := id.String(), id.Recipient().String()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	withPass, _ := sshKeys(t, ed, "correct horse")
	open, _ := sshKeys(t, ed, "")
	recipient := func(s string) func() error { return func() error { _, err := ParseRecipient(s); return err } }
	identity := func(s string) func() error { return func() error { _, err := ParseIdentities([]byte(s)); return err } }
	for name, tt := range map[string]struct {
		parse func() error
		want  string
	}{
		"an identity as recipient":          {recipient(secret), "private key"},
		"the same, lower case":              {recipient(strings.ToLower(secret)), "private key"},
		"an OpenSSH identity as recipient":  {recipient(string(open)), "private key"},
		"a recipient cut short":             {recipient(public[:40]), "a letter is missing or wrong"},
		"a recipient with a wrong letter":   {recipient(public[:10] + "b" + public[11:]), "a letter is missing or wrong"},
		"a recipient of a plugin":           {recipient("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"), "plugin"},
		"something else":                    {recipient("ann@example"), "neither"},
		"nothing":                           {recipient(" "), "neither"},
		"an ecdsa key":                      {recipient("ssh-dss AAAA"), "ssh-ed25519"},
		"a file of recipients with another": {func() error { _, err := ParseRecipients([]byte("# x\n" + secret)); return err }, "line 2"},
		"a file without recipients":         {func() error { _, err := ParseRecipients([]byte("# x\n")); return err }, "there is none"},
		"a recipient as identity":           {identity("# x\n" + public), "line 2 is a public key"},
		"an empty file":                     {identity("# nothing\n"), "none is in it"},
		"an identity cut short":             {identity(secret[:50]), "a letter is missing or wrong"},
		"something else as identity":        {identity("hello"), "line 1 is no identity"},
		"an identity with a passphrase":     {identity("age-encryption.org/v1\n-> scrypt"), "passphrase"},
		"the same, armored":                 {identity("-----BEGIN AGE ENCRYPTED FILE-----\n"), "passphrase"},
		"an OpenSSH key with a passphrase":  {identity(string(withPass)), "passphrase"},
		"half an OpenSSH key":               {identity(string(open[:100])), "not a private key"},
		"one of a plugin":                   {identity("AGE-PLUGIN-YUBIKEY-1QQ"), "plugin"},
	} {
		err := tt.parse()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
			continue
		}
		for _, part := range []string{secret[15:30], strings.ToLower(secret[15:30]), string(open[80:100]), "correct horse"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error shows a part of the key: %v", name, err)
			}
		}
	}
}
