package dcs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLSFiles are the certificates with which a driver speaks to its server, in files of PEM.
type TLSFiles struct {
	CACert    string // without it the system's authorities
	Cert, Key string // the client's; both may be in Cert
	Insecure  bool   // any certificate of a server will do
}

// Config reads the files.
func (f TLSFiles) Config() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.Insecure}
	if f.CACert != "" {
		pem, err := os.ReadFile(f.CACert)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: %s: no certificate in it", f.CACert)
		}
	}
	if f.Cert == "" {
		return t, nil
	}
	key := cmp.Or(f.Key, f.Cert)
	if _, err := tls.LoadX509KeyPair(f.Cert, key); err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	// Read again for each connection: certificates are renewed in place.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.Cert, key)
		return &pair, err
	}
	return t, nil
}
