package remote

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Tune makes t a transport for a store: it keeps connections, goes through the proxies of the environment (HTTPS_PROXY, NO_PROXY), and
// bounds only what has no bytes to watch: dialling, handshake, idling. How long a transfer may stand still is store.Stall's to say.
// A pool of nil trusts the system's authorities.
func Tune(t *http.Transport, pool *x509.CertPool) {
	t.Proxy = proxy
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 10 * time.Second
	t.IdleConnTimeout = 90 * time.Second
	t.MaxIdleConns = 64
	t.MaxIdleConnsPerHost = 64
	// HTTP/2 would send everything through one connection.
	t.ForceAttemptHTTP2 = false
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if pool != nil {
		t.TLSClientConfig.RootCAs = pool
	}
}

// proxy is that of the environment, and none for the address at which clouds tell a machine who it is (169.254.169.254).
func proxy(r *http.Request) (*url.URL, error) {
	if ip := net.ParseIP(r.URL.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// Authorities returns the system's certificates with those in a PEM file; nil, which means the system's, without a file.
func Authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s: no certificate in it", file)
	}
	return pool, nil
}
