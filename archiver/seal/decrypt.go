package seal

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// body is what follows the header of an encrypted object. It digests what it reads, and remembers what its source said,
// which age replaces with words of its own.
type body struct {
	src    io.Reader
	digest *Digester
	err    error // the source's, other than io.EOF
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.digest.Write(p[:n])
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// errBody is what happened whenever age finds fault with an object that a Sealer made.
var errBody = fmt.Errorf("%w: its encrypted bytes were cut short or changed", ErrDamaged)

// cause says what an error of age means; its own words are for developers.
func (b *body) cause() error {
	if b.err != nil {
		return b.err
	}
	return errBody
}

// check holds what was read, which is all of it, against the header.
func (b *body) check(h Header) error {
	if sum := b.digest.Sum(); sum != h.BodyDigest {
		return errBody
	}
	return nil
}

// rest reads what is left, and checks it.
func (b *body) rest(h Header) error {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return err
	}
	return b.check(h)
}

// decrypted reads the frame inside of an age file.
type decrypted struct {
	header Header
	body   *body
	plain  io.Reader
}

// decrypt reads the start of the age file in src. A damaged one can look as if it were encrypted to somebody else: only the
// digest of all of it tells, so in that case it is read to its end.
func decrypt(src io.Reader, h Header, identities []Identity) (*decrypted, error) {
	if len(identities) == 0 {
		return nil, ErrNoIdentity
	}
	b := &body{src: src, digest: NewDigest()}
	plain, err := age.Decrypt(b, identities...)
	var other *age.NoIdentityMatchError
	switch {
	case errors.As(err, &other):
		if err := b.rest(h); err != nil {
			return nil, err
		}
		return nil, ErrWrongIdentity
	case err != nil:
		return nil, b.cause()
	}
	return &decrypted{header: h, body: b, plain: plain}, nil
}

func (d *decrypted) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	switch {
	case err == io.EOF: // age has seen the end of the body, too
		if bad := d.body.check(d.header); bad != nil {
			return n, bad
		}
	case err != nil:
		err = d.body.cause()
	}
	return n, err
}

// Check reads an object to its end, and says whether it is what was once sealed, as far as that can be told without an
// identity: of an encrypted one that its encrypted bytes have the digest in its header. The errors are those of Open.
func Check(r io.Reader) (Header, error) {
	h, err := ReadHeader(r)
	if err != nil {
		return Header{}, err
	}
	if h.Encryption != "" {
		b := &body{src: r, digest: NewDigest()}
		if err := b.rest(h); err != nil {
			return h, fmt.Errorf("check object %s: %w", h.Name, err)
		}
		return h, nil
	}
	p, err := newPlain(r, h)
	if err != nil {
		return h, fmt.Errorf("check object %s: %w", h.Name, err)
	}
	defer p.Close()
	_, err = io.Copy(io.Discard, p)
	return h, err
}
