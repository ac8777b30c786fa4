package rest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// A Patroni with restapi.certfile, cafile and verify_client: required wants a certificate for a GET, too.
func TestTLS(t *testing.T) {
	s := newStore()
	p := newPatroni(t, s, "n1")
	server := httptest.NewUnstartedServer(p)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	p.url = server.URL
	s.put("members/n1", p.key("primary", 1))
	s.put("leader", "n1")

	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := write("crt", "CERTIFICATE", pair.Certificate[0]), write("key", "PRIVATE KEY", der)
	good := Config{Member: "n1", Scope: "batman", URL: server.URL, CACert: cert, Cert: cert, Key: key}
	for _, tc := range []struct {
		name   string
		change func(c *Config)
		ok     bool
	}{
		{"all is given", func(*Config) {}, true},
		{"insecure, without an authority", func(c *Config) { c.CACert, c.Insecure = "", true }, true},
		{"no authority", func(c *Config) { c.CACert = "" }, false},
		{"no client certificate", func(c *Config) { c.Cert, c.Key = "", "" }, false},
	} {
		c := good
		tc.change(&c)
		d, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := d.Read(t.Context()); (err == nil) != tc.ok {
			t.Errorf("%s: %+v, %v", tc.name, r, err)
		}
		d.Close()
	}
	for name, c := range map[string]Config{
		"no such file":  {URL: server.URL, CACert: filepath.Join(dir, "none")},
		"no authority":  {URL: server.URL, CACert: key},
		"no key in crt": {URL: server.URL, Cert: cert},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
