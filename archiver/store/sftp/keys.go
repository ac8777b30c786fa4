package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// signers returns the private keys to log in with, or what signs for them; release is called when that is done.
func (to target) signers(ctx context.Context) (signers []ssh.Signer, release func(), err error) {
	if to.keyFile != "" {
		s, err := readKey(to.keyFile, to.passphraseFile)
		return []ssh.Signer{s}, func() {}, err
	}
	signers, release = agentSigners(ctx)
	home, err := homeDir()
	if err == nil {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			if s, err := readKey(filepath.Join(home, ".ssh", name), ""); err == nil {
				signers = append(signers, s)
			}
		}
	}
	if len(signers) == 0 {
		release()
		return nil, nil, fmt.Errorf("no private key was found: no key_file is given, no SSH agent has one (SSH_AUTH_SOCK), and none of id_ed25519, id_ecdsa and id_rsa in %s can be used",
			filepath.Join(home, ".ssh"))
	}
	return signers, release, nil
}

// agentSigners asks the SSH agent, where there is one. One that does not answer has no keys.
func agentSigners(ctx context.Context) ([]ssh.Signer, func()) {
	none := func() {}
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, none
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, none
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		_ = conn.Close()
		return nil, none
	}
	return signers, func() { _ = conn.Close() }
}

func readKey(file, passphraseFile string) (ssh.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w", err)
	}
	var s ssh.Signer
	if passphraseFile == "" {
		s, err = ssh.ParsePrivateKey(data)
	} else {
		var passphrase []byte
		if passphrase, err = os.ReadFile(passphraseFile); err != nil {
			return nil, fmt.Errorf("passphrase_file: %w", err)
		}
		s, err = ssh.ParsePrivateKeyWithPassphrase(data, bytes.TrimRight(passphrase, "\r\n"))
	}
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("key_file %s: it has a passphrase: give passphrase_file, or leave key_file out and use an SSH agent", file)
	case err != nil:
		return nil, fmt.Errorf("key_file %s: %w", file, err)
	}
	return s, nil
}

// homeDir is where .ssh is. PostgreSQL and Patroni may start us without HOME.
func homeDir() (string, error) {
	if home, err := os.UserHomeDir(); err == nil {
		return home, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// knownFiles are the known_hosts files to read: the one that is named, or those of ssh that are there.
func (to target) knownFiles() ([]string, error) {
	if to.knownFile != "" {
		return []string{to.knownFile}, nil
	}
	names := []string{"/etc/ssh/ssh_known_hosts"}
	if home, err := homeDir(); err == nil {
		names = append([]string{filepath.Join(home, ".ssh", "known_hosts")}, names...)
	}
	var files []string
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			files = append(files, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the host is not known: there is no file %s; make one with ssh-keyscan, and compare its keys with the server's", strings.Join(names, " or "))
	}
	return files, nil
}

// algorithmsOf are the signature algorithms that a known key can prove itself with, also as the key of an authority.
func algorithmsOf(key knownhosts.KnownKey) []string {
	certificates := []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
	switch {
	case isAuthority(key):
		return certificates // of hosts, whose own keys may be of any type
	case key.Key.Type() == ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Key.Type()}
}

func isAuthority(key knownhosts.KnownKey) bool {
	data, err := os.ReadFile(key.Filename)
	if err != nil {
		return false
	}
	lines := bytes.Split(data, []byte("\n"))
	return key.Line > 0 && key.Line <= len(lines) && bytes.HasPrefix(bytes.TrimSpace(lines[key.Line-1]), []byte("@cert-authority"))
}
