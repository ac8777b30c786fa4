//go:build servers

package zookeeper

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// authority is a certificate authority made for one test, with files for ZooKeeper and for us.
type authority struct {
	file   string // the authority's certificate
	trust  string // the same, named as Java wants it
	server string // + .pem, certificate and key in one
	member string // the client's certificate
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{file: filepath.Join(dir, "ca.crt"), trust: filepath.Join(dir, "trust.pem"),
		server: filepath.Join(dir, "server"), member: filepath.Join(dir, "member.crt"), cert: cert, key: key}
	write(t, a.file, block("CERTIFICATE", der))
	write(t, a.trust, block("CERTIFICATE", der))
	a.issue(t, a.server, 2)
	known, _ := pem.Decode(file(t, "testdata/key.pem")) // which testdata has encrypted, too
	private, err := x509.ParsePKCS8PrivateKey(known.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	write(t, a.member, a.sign(t, "member", 3, private.(*ecdsa.PrivateKey).Public()))
	return a
}

func (a *authority) issue(t *testing.T, path string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := a.sign(t, filepath.Base(path), serial, &key.PublicKey)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path+".crt", cert)
	write(t, path+".pem", block("PRIVATE KEY", private)+cert)
}

func (a *authority) sign(t *testing.T, name string, serial int64, public any) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// TestTLS is a server that wants certificates, and a member whom set_acls names by the subject of
// his, with a key that has a password.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := startServer(t, ca)
	good := TLS{CACert: ca.file, Cert: ca.member, Key: "testdata/aes256.pem", KeyPassword: "p$s"}
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
	other := newAuthority(t)
	for name, c := range map[string]struct {
		change func(c *Config, tls *TLS)
		want   string
	}{
		"no client certificate":    {func(_ *Config, tls *TLS) { tls.Cert, tls.Key, tls.KeyPassword = "", "", "" }, "tls: "},
		"another authority":        {func(_ *Config, tls *TLS) { tls.CACert = other.file }, "x509: "},
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
	lenient.CACert, lenient.Insecure = other.file, true
	if _, err := open(t, Config{Hosts: []string{s.secure}, Prefix: "/service/batman/", TLS: &lenient}).Read(soon(t)); err != nil {
		t.Errorf("verify: false: %v", err)
	}
}
