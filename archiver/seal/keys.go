package seal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// Recipient is a public key that objects are encrypted to.
type Recipient = age.Recipient

// Identity is a private key that opens what was encrypted to its Recipient.
type Identity = age.Identity

// ParseRecipient reads one public key: age1… (X25519, or the hybrid age1pq1…), or a line of ssh-ed25519 or
// ssh-rsa as authorized_keys has it. A private key is refused, and no error shows what was given.
func ParseRecipient(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	var r Recipient
	var err error
	switch lower := strings.ToLower(s); {
	case strings.HasPrefix(lower, "age-secret-key-"), strings.HasPrefix(lower, "age-plugin-"), strings.Contains(s, "PRIVATE KEY"):
		return nil, errors.New("parse recipient: this is a private key (an identity), and only the public one may be here: age-keygen -y prints it")
	case strings.HasPrefix(lower, "age1pq1"):
		r, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(lower, "age1") && strings.Count(lower, "1") > 1 && isPlugin(lower):
		return nil, errors.New("parse recipient: it is one of an age plugin, and those are not supported")
	case strings.HasPrefix(lower, "age1"):
		r, err = age.ParseX25519Recipient(s)
	case strings.HasPrefix(s, "ssh-"):
		if r, err = agessh.ParseRecipient(s); err != nil {
			return nil, errors.New("parse recipient: not a public key of ssh-ed25519 or of ssh-rsa with at least 2048 bits")
		}
		return r, nil
	default:
		return nil, errors.New("parse recipient: it begins neither with age1 nor with ssh-ed25519 or ssh-rsa")
	}
	if err != nil {
		return nil, errors.New("parse recipient: not a whole public key of age: a letter is missing or wrong")
	}
	return r, nil
}

// isPlugin says whether a recipient of age has a name between two digits 1, as in age1yubikey1….
// Behind the last 1 there is no further one in Bech32.
func isPlugin(s string) bool { return strings.LastIndexByte(s, '1') > len("age") }

// ParseRecipients reads a file with one recipient a line; empty lines and those that begin with # are left out.
func ParseRecipients(text []byte) ([]Recipient, error) {
	var all []Recipient
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		r, err := ParseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, errors.New("parse recipients: there is none")
	}
	return all, nil
}

// ParseIdentities reads a file of private keys: what age-keygen writes, one or more lines AGE-SECRET-KEY-1…, or one private
// key of OpenSSH. One that is protected by a passphrase is refused: nobody is there to type it. No error shows what was in the file.
func ParseIdentities(text []byte) ([]Identity, error) {
	const locked = "parse identities: the file is protected by a passphrase, which nobody can type here"
	switch start := strings.TrimSpace(string(text[:min(len(text), 64)])); {
	case strings.HasPrefix(start, "age-encryption.org/"), strings.HasPrefix(start, "-----BEGIN AGE ENCRYPTED FILE"):
		return nil, errors.New(locked)
	case strings.HasPrefix(start, "-----BEGIN"):
		id, err := agessh.ParseIdentity(text)
		var missing *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &missing):
			return nil, errors.New(locked)
		case err != nil:
			return nil, errors.New("parse identities: not a private key of ssh-ed25519 or ssh-rsa")
		}
		return []Identity{id}, nil
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		switch lower := strings.ToLower(strings.TrimSpace(line)); {
		case lower == "" || lower[0] == '#', strings.HasPrefix(lower, "age-secret-key-"):
		case strings.HasPrefix(lower, "age1"), strings.HasPrefix(lower, "ssh-"):
			return nil, fmt.Errorf("parse identities: line %d is a public key, and only the private one opens anything", n)
		case strings.HasPrefix(lower, "age-plugin-"):
			return nil, fmt.Errorf("parse identities: line %d is one of an age plugin, and those are not supported", n)
		default:
			return nil, fmt.Errorf("parse identities: line %d is no identity: they begin with AGE-SECRET-KEY-", n)
		}
	}
	ids, err := age.ParseIdentities(bytes.NewReader(trimLines(text)))
	if err != nil {
		return nil, errors.New("parse identities: no whole identity of age: none is in it, or a letter is missing or wrong")
	}
	return ids, nil
}

// trimLines takes the blanks from around each line, which age would find fault with.
func trimLines(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(append(out, bytes.TrimSpace(line)...), '\n')
	}
	return out
}
