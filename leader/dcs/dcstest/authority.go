package dcstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority made for one test, with files for a server and for a client of it.
type Authority struct {
	File   string // the authority's certificate
	Server string // + .crt, .key, or both in .pem; for 127.0.0.1
	Member string // + .crt, .key, .pem

	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	hosts  []net.IP // that its certificates are for
}

// NewAuthority makes one in a folder of the test. Its certificates are for 127.0.0.1, and for more addresses.
func NewAuthority(t testing.TB, more ...net.IP) *Authority {
	t.Helper()
	dir := t.TempDir()
	a := &Authority{File: filepath.Join(dir, "ca.crt"), Server: filepath.Join(dir, "server"), Member: filepath.Join(dir, "member"), serial: 1,
		hosts: append([]net.IP{net.IPv4(127, 0, 0, 1)}, more...)}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, a.File, block("CERTIFICATE", der))
	a.issue(t, a.Server)
	a.issue(t, a.Member)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *Authority) issue(t testing.TB, path string) {
	t.Helper()
	key := newKey(t)
	cert := a.Sign(t, filepath.Base(path), &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key) // Java reads no other
	if err != nil {
		t.Fatal(err)
	}
	private := block("PRIVATE KEY", der)
	write(t, path+".crt", cert)
	write(t, path+".key", private)
	write(t, path+".pem", append(private, cert...))
}

// Sign is a certificate, as PEM, for a key that the test has made.
func (a *Authority) Sign(t testing.TB, name string, public any) []byte {
	t.Helper()
	a.serial++
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: a.hosts,
	}, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
