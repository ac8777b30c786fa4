package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/web"
)

// WebConfig says who may look at the sidecar's pages, and how. Sidecars of one cluster ask each other, so they share it.
type WebConfig struct {
	Username string
	Password string
	Cert     string // files in PEM
	Key      string
	CA       string // of those who signed the others' certificates
}

func (w WebConfig) check() error {
	switch {
	case (w.Username == "") != (w.Password == ""):
		return withHint(configError("web.username", "a name and a password go together, and one of them is missing"), "give web.username and web.password_file, or neither")
	case strings.Contains(w.Username, ":"):
		return withHint(configError("web.username", "%q has a colon, which no browser can send in a name", w.Username), "give a name without one")
	case (w.Cert == "") != (w.Key == ""):
		return withHint(configError("web.cert", "a certificate and its key go together, and one of them is missing"), "give web.cert and web.key, or neither")
	}
	return nil
}

// https says whether sidecars of this configuration talk TLS.
func (w WebConfig) https() bool { return w.Cert != "" || w.CA != "" }

// listenWeb takes the address, so that a port that is taken is known before anything else starts.
func listenWeb(ctx context.Context, c Config, log *slog.Logger) (*web.Server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, withHint(fmt.Errorf("listen for web requests on %s: %w", c.Listen, bare(err)), "give another address with --listen; several clusters on one host need one each")
	}
	s, err := web.New(l, web.Options{Username: c.Web.Username, Password: c.Web.Password, Cert: c.Web.Cert, Key: c.Web.Key}, log)
	if err != nil {
		return nil, errors.Join(withHint(err, "web.cert takes the certificate and those between it and the root, web.key its key, both as PEM and readable for the sidecar"), l.Close())
	}
	return s, nil
}

// client asks sidecars with the name, the password and the certificates that all of a cluster share.
func (w WebConfig) client() (*http.Client, error) {
	if !w.https() {
		return &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}, nil
	}
	roots, err := w.roots()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{Config: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ServerName:         host,
			InsecureSkipVerify: true, // verify does it, which knows one case more
			VerifyConnection:   w.verify(roots, host),
		}}
		return d.DialContext(ctx, network, address)
	}
	return &http.Client{Transport: t}, nil
}

// roots are those of web.ca, or else the machine's.
func (w WebConfig) roots() (*x509.CertPool, error) {
	if w.CA == "" {
		return nil, nil
	}
	b, err := readSmall(w.CA)
	if err != nil {
		return nil, withHint(configError("web.ca", "%w", bare(err)), "it takes a file with certificates as PEM; leave it out where all nodes share one certificate, or a public authority signed them")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, withHint(configError("web.ca", "%s has no certificate", w.CA), "it takes a file with certificates as PEM, each between BEGIN CERTIFICATE and END CERTIFICATE")
	}
	return pool, nil
}

// verify accepts the very certificate that web.cert holds, whatever names it has: it is asked for on the loopback address, too, and a self-signed one may be
// shared by all nodes. Any other one has to be signed by a root and to have the name or address that was asked for.
func (w WebConfig) verify(roots *x509.CertPool, host string) func(tls.ConnectionState) error {
	return func(c tls.ConnectionState) error {
		leaf := c.PeerCertificates[0]
		if w.Cert != "" {
			if b, err := os.ReadFile(w.Cert); err == nil && holds(b, leaf) {
				if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
					return x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired}
				}
				return nil
			}
		}
		o := x509.VerifyOptions{Roots: roots, DNSName: host, Intermediates: x509.NewCertPool()}
		for _, between := range c.PeerCertificates[1:] {
			o.Intermediates.AddCert(between)
		}
		_, err := leaf.Verify(o)
		return err
	}
}

// holds says whether the first certificate in PEM is this one.
func holds(text []byte, leaf *x509.Certificate) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return bytes.Equal(block.Bytes, leaf.Raw)
		}
	}
	return false
}
