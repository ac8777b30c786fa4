//go:build servers

package consul

import (
	"crypto/tls"
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
