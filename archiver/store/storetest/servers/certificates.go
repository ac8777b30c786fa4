package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificates are the files of a server on 127.0.0.1 and of the authority that signed for it. The names of
// certificate and key are those that MinIO looks for in its folder.
type certificates struct {
	dir           string
	ca, cert, key string
}

// makeCertificates writes new ones into dir, unless it has them already.
func makeCertificates(dir string) (certificates, error) {
	c := certificates{dir: dir, ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "public.crt"), key: filepath.Join(dir, "private.key")}
	if _, err := os.Stat(c.key); err == nil {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	authority := template("walbaton test authority")
	authority.IsCA = true
	authority.KeyUsage |= x509.KeyUsageCertSign
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	ca, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		return c, err
	}
	server := template("127.0.0.1")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	cert, err := x509.CreateCertificate(rand.Reader, server, authority, &key.PublicKey, caKey)
	if err != nil {
		return c, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, err
	}
	// The key comes last: it says that all are there.
	err = errors.Join(write(c.ca, "CERTIFICATE", ca), write(c.cert, "CERTIFICATE", cert), write(c.key, "PRIVATE KEY", pkcs8))
	if err != nil {
		return c, fmt.Errorf("write certificates: %w", err)
	}
	return c, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func write(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
