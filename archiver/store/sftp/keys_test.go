//go:build servers

package sftp_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantRefused checks that no connection is made, with words that say why, and that this says nothing about keys.
func wantRefused(t *testing.T, url string, words ...string) {
	t.Helper()
	_, err := open(t, url).Head(t.Context(), "key")
	if err == nil || isFact(err) {
		t.Errorf("got %v, want an error without a kind", err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want it to say %q", err, word)
		}
	}
}

// A host is believed by its key in known_hosts, and by nothing else.
func TestKnownHosts(t *testing.T) {
	server := start(t, nil)
	url := server.URL(0)
	line := readFile(t, server.KnownHosts)
	_, key, _ := strings.Cut(strings.TrimSpace(line), " ")
	dir := t.TempDir()
	// The whole line to add is in the message.
	wantRefused(t, with(t, url, "known_hosts_file", writeFile(t, filepath.Join(dir, "empty"), "# nobody\n")),
		"is not known", filepath.Join(dir, "empty"), "ssh-ed25519 SHA256:", "ssh-keygen -lf", strings.TrimSpace(line))
	wantRefused(t, with(t, url, "known_hosts_file", filepath.Join(dir, "missing")), filepath.Join(dir, "missing"))
	wantRefused(t, with(t, url, "known_hosts_file", writeFile(t, filepath.Join(dir, "garbage"), "what is this\n")), filepath.Join(dir, "garbage")+":1")
	host, _, _ := strings.Cut(line, " ")
	other := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newKey(t, filepath.Join(dir, "other")))))
	wantRefused(t, with(t, url, "known_hosts_file", writeFile(t, filepath.Join(dir, "changed"), "# one\n"+host+" "+other+"\n")),
		"has changed", filepath.Join(dir, "changed")+":2")
	wantRefused(t, with(t, url, "known_hosts_file", writeFile(t, filepath.Join(dir, "revoked"), line+"@revoked * "+key+"\n")), "revoked")

	// By default it is ssh's own file.
	home := t.TempDir()
	t.Setenv("HOME", home)
	bare := strings.Replace(url, "&known_hosts_file="+strings.ReplaceAll(server.KnownHosts, "/", "%2F"), "", 1)
	if bare == url {
		t.Fatal("known_hosts_file is still in " + url)
	}
	wantRefused(t, bare, "is not known", filepath.Join(home, ".ssh", "known_hosts"))
	writeFile(t, filepath.Join(home, ".ssh", "known_hosts"), line)
	if err := open(t, bare).Delete(t.Context(), "key"); err != nil {
		t.Errorf("with ~/.ssh/known_hosts: %v", err)
	}
}

// A server with keys of several types is asked for the one that is known.
func TestHostWithSeveralKeys(t *testing.T) {
	dir := folder(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	second := writeFile(t, filepath.Join(dir, "ecdsa"), string(pem.EncodeToMemory(block)))
	user, _, err := servers.Users()
	if err != nil {
		t.Fatal(err)
	}
	server, err := servers.SSHD(t.Context(), servers.SSHDOptions{Dir: dir, Accounts: []servers.Account{{User: user}}, Config: []string{"HostKey " + second}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	if err := open(t, server.URL(0)).Delete(t.Context(), "key"); err != nil {
		t.Errorf("its ed25519 key is known: %v", err)
	}
	public, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(readFile(t, server.KnownHosts), " ")
	known := writeFile(t, filepath.Join(dir, "known"), host+" "+string(ssh.MarshalAuthorizedKey(public)))
	if err := open(t, with(t, server.URL(0), "known_hosts_file", known)).Delete(t.Context(), "key"); err != nil {
		t.Errorf("its ecdsa key is known: %v", err)
	}
}

func newKey(t *testing.T, name string) ssh.PublicKey {
	t.Helper()
	if err := servers.NewKey(name); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.ParsePrivateKey([]byte(readFile(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey()
}

// Private keys come from a file, with a passphrase or without, from ~/.ssh, or from an agent.
func TestKeys(t *testing.T) {
	server := start(t, nil)
	url, dir := server.URL(0), t.TempDir()
	private, err := ssh.ParseRawPrivateKey([]byte(readFile(t, server.KeyFile)))
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private.(*ed25519.PrivateKey), "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	locked := with(t, url, "key_file", writeFile(t, filepath.Join(dir, "locked"), string(pem.EncodeToMemory(block))))
	wantRefused(t, locked, "has a passphrase", "passphrase_file")
	wantRefused(t, with(t, locked, "passphrase_file", writeFile(t, filepath.Join(dir, "wrong"), "sesame")), filepath.Join(dir, "locked"))
	wantRefused(t, with(t, locked, "passphrase_file", filepath.Join(dir, "missing")), "passphrase_file", filepath.Join(dir, "missing"))
	wantRefused(t, with(t, url, "key_file", filepath.Join(dir, "missing")), "key_file", filepath.Join(dir, "missing"))
	wantRefused(t, with(t, url, "key_file", server.KnownHosts), "key_file", server.KnownHosts)
	opened := with(t, locked, "passphrase_file", writeFile(t, filepath.Join(dir, "right"), "open sesame\n"))
	if err := open(t, opened).Delete(t.Context(), "key"); err != nil {
		t.Errorf("with the passphrase: %v", err)
	}

	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	bare, _, _ := strings.Cut(url, "?")
	bare = with(t, bare, "known_hosts_file", server.KnownHosts)
	wantRefused(t, bare, "no private key", "SSH_AUTH_SOCK", filepath.Join(home, ".ssh"))
	name := writeFile(t, filepath.Join(home, ".ssh", "id_ed25519"), readFile(t, server.KeyFile))
	if err := open(t, bare).Delete(t.Context(), "key"); err != nil {
		t.Errorf("with ~/.ssh/id_ed25519: %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", startAgent(t, private))
	if err := open(t, bare).Delete(t.Context(), "key"); err != nil {
		t.Errorf("with an agent: %v", err)
	}
}

// startAgent starts an SSH agent that has a key, and returns its socket.
func startAgent(t *testing.T, private any) string {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, conn) }()
		}
	}()
	return socket
}
