//go:build servers

package zookeeper

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// TestTLS is a server that wants certificates, and a member whom set_acls names by the subject of
// his, with a key that has a password.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := dcstest.NewAuthority(t)
	s := startServer(t, ca)
	known, _ := pem.Decode(file(t, "testdata/key.pem")) // which testdata has encrypted, too
	private, err := x509.ParsePKCS8PrivateKey(known.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	member := filepath.Join(t.TempDir(), "member.crt")
	write(t, member, string(ca.Sign(t, "member", private.(*ecdsa.PrivateKey).Public())))
	good := TLS{CACert: ca.File, Cert: member, Key: "testdata/aes256.pem", KeyPassword: "p$s"}
	c := Config{Hosts: []string{s.secure}, Prefix: "/service/batman/", TLS: &good,
		ACL: []ACL{{"x509", "CN=member", Read | Write | Create | Delete}}}
	d := open(t, c)
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 5 * time.Second})
	if err != nil {
		log := s.Said()
		t.Fatalf("%v\n%s", err, log)
	}
	if _, err := d.Claim(soon(t), l); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Holder != "n1" {
		t.Errorf("got %+v, %v", r.Baton, err)
	}
	if _, _, err := s.raw(t).Get(d.baton()); err != zk.ErrNoAuth {
		t.Errorf("who has no certificate reads the baton: %v", err)
	}
	other := dcstest.NewAuthority(t)
	for name, c := range map[string]struct {
		change func(c *Config, tls *TLS)
		want   string
	}{
		"no client certificate":    {func(_ *Config, tls *TLS) { tls.Cert, tls.Key, tls.KeyPassword = "", "", "" }, "tls: "},
		"another authority":        {func(_ *Config, tls *TLS) { tls.CACert = other.File }, "x509: "},
		"another name":             {func(c *Config, _ *TLS) { c.Hosts = []string{strings.Replace(s.secure, "127.0.0.1", "localhost", 1)} }, "x509: "},
		"plain text to TLS":        {func(c *Config, _ *TLS) { c.TLS = nil }, "it may want TLS"},
		"TLS to a server in plain": {func(c *Config, _ *TLS) { c.Hosts = []string{s.address} }, "TLS handshake: "},
	} {
		bad, tls := Config{Hosts: []string{s.secure}, Prefix: "/service/batman/"}, good
		bad.TLS = &tls
		c.change(&bad, &tls)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if r, err := open(t, bad).Read(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: read %+v, %v; want %q", name, r, err, c.want)
		}
		cancel()
	}
	lenient := good
	lenient.CACert, lenient.Insecure = other.File, true
	if _, err := open(t, Config{Hosts: []string{s.secure}, Prefix: "/service/batman/", TLS: &lenient}).Read(soon(t)); err != nil {
		t.Errorf("verify: false: %v", err)
	}
}
