package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/walbaton/walbaton/archiver/seal"
)

// recipients sets what encrypt_to lists.
func recipients(c *Config, keys []string) error {
	c.EncryptTo = nil
	for i, k := range keys {
		r, err := seal.ParseRecipient(k)
		if err != nil {
			return withHint(fmt.Errorf("key %d: %w", i+1, err), recipientHint)
		}
		c.EncryptTo = append(c.EncryptTo, r)
	}
	return nil
}

const recipientHint = "give public keys: age1... as age-keygen prints them, or lines of ssh-ed25519 or ssh-rsa; docs/encryption.md says how to make one"

// recipientFile sets what the file of encrypt_to_file lists.
func recipientFile(c *Config, v []string) error {
	if err := noKey(v[0]); err != nil {
		return err
	}
	b, err := readSmall(v[0])
	if err != nil {
		return bare(err)
	}
	rs, err := seal.ParseRecipients(b)
	if err != nil {
		return withHint(fmt.Errorf("%s: %w", v[0], err), recipientHint)
	}
	c.EncryptToFile = rs
	return nil
}

// identityFiles sets the paths of identities. The files are read by those who open an archive.
func identityFiles(c *Config, v []string) error {
	c.Identities = nil
	for _, path := range v {
		if err := noKey(path); err != nil {
			return err
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		c.Identities = append(c.Identities, abs)
	}
	return nil
}

// noKey refuses a private key where the path of a file belongs, before an error shows it as one that is not there.
func noKey(path string) error {
	if strings.HasPrefix(strings.ToLower(filepath.Base(path)), "age-secret-key-") || strings.Contains(path, "PRIVATE KEY") {
		return withHint(errors.New("this is a private key itself, not a file"), "put it into a file that only PostgreSQL's user can read, and give the file's path; it is not shown here")
	}
	return nil
}

// encryptTo gives every recipient; none means that nothing is encrypted.
func (c Config) encryptTo() []seal.Recipient {
	return append(append([]seal.Recipient{}, c.EncryptTo...), c.EncryptToFile...)
}

// keys reads the identity files.
func (c Config) keys() ([]seal.Identity, error) {
	var all []seal.Identity
	for _, path := range c.Identities {
		b, err := readSmall(path)
		if err != nil {
			return nil, withHint(configError("identities", "%w", bare(err)), "give the path of a file that the user who restores can read, PostgreSQL's as a rule")
		}
		ids, err := seal.ParseIdentities(b)
		if err != nil {
			return nil, withHint(configError("identities", "%s: %w", path, err), "give a file as age-keygen writes it, or a private key of OpenSSH without a passphrase; docs/encryption.md says how to take one off")
		}
		all = append(all, ids...)
	}
	return all, nil
}

// warnOfOpenKeys says which identity files every user of the machine can read.
func (c Config) warnOfOpenKeys(log *slog.Logger) {
	for _, path := range c.Identities {
		if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o007 != 0 {
			log.Warn("every user of this machine can read this identity, and with it the archive: chmod 600 it", "file", path, "mode", st.Mode().Perm().String())
		}
	}
}
