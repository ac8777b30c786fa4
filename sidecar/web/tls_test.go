package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned writes a certificate for 127.0.0.1 and its key into dir.
func selfSigned(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// served gives the name in the certificate that the server shows.
func served(t *testing.T, at string) string {
	t.Helper()
	c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// A certificate that is changed is read again, without a restart; one whose key does not fit is not used.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "old")
	at, _ := serve(t, still(), Options{Cert: cert, Key: key})
	if got := served(t, at); got != "old" {
		t.Errorf("at first: %q", got)
	}
	pool := x509.NewCertPool()
	b, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(b)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	r, err := client.Get("https://" + at + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	client.CloseIdleConnections()
	if r.ProtoMajor != 2 || r.StatusCode != 200 {
		t.Errorf("got %s %d, want HTTP/2 200", r.Proto, r.StatusCode)
	}
	other, _ := selfSigned(t, t.TempDir(), "half")
	half, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, half, 0o600); err != nil { // half of a change
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	if got := served(t, at); got != "old" {
		t.Errorf("a certificate without its key: %q, want the old one", got)
	}
	selfSigned(t, dir, "new")
	time.Sleep(1100 * time.Millisecond)
	if got := served(t, at); got != "new" {
		t.Errorf("after the change: %q", got)
	}
}

func TestCertificateThatIsNone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(l, Options{Cert: "/nowhere/tls.crt", Key: "/nowhere/tls.key"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("got %v", err)
	}
}
