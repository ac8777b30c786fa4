package zookeeper

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS is how the servers are spoken to. The files are PEM.
type TLS struct {
	CACert      string // without it the system's authorities
	Cert, Key   string // the client's; Key may be in Cert
	KeyPassword string
	Insecure    bool // any certificate of a server will do
}

// config reads the files. A server's certificate must be of CACert and name the host as it stands
// in the list of hosts.
func (c *TLS) config() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: %s: no certificate in it", c.CACert)
		}
	}
	if c.Cert == "" {
		return t, nil
	}
	if _, err := c.pair(); err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	// Read again for each connection: certificates are renewed in place.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair() }
	return t, nil
}

func (c *TLS) pair() (*tls.Certificate, error) {
	cert, err := os.ReadFile(c.Cert)
	if err != nil {
		return nil, err
	}
	key := cert
	if c.Key != "" {
		if key, err = os.ReadFile(c.Key); err != nil {
			return nil, err
		}
	}
	if c.KeyPassword != "" {
		if key, err = decryptKey(key, []byte(c.KeyPassword)); err != nil {
			return nil, fmt.Errorf("decrypt key %s: %w", cmp.Or(c.Key, c.Cert), err)
		}
	}
	pair, err := tls.X509KeyPair(cert, key)
	return &pair, err
}
