//go:build servers

package consul

import (
	"crypto/tls"
	"os"
	"testing"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// clientTLS is how the library's own client speaks to a server of the authority's.
func clientTLS(t testing.TB, a *dcstest.Authority) *tls.Config {
	t.Helper()
	c, err := Config{CACert: a.File, Cert: a.Member + ".crt", Key: a.Member + ".key"}.files().Config()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inOne is the member's certificate and key in one file.
func inOne(t *testing.T, a *dcstest.Authority) string {
	t.Helper()
	var all []byte
	for _, ext := range []string{".crt", ".key"} {
		b, err := os.ReadFile(a.Member + ext)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	path := a.Member + ".pem"
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
