//go:build servers

package kubernetes

import (
	"os"
	"sync/atomic"
	"testing"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// server is an API server with a namespace for each test.
type server struct {
	*dcstest.APIServer
	scopes atomic.Int32
}

func startServer(t testing.TB) *server {
	t.Helper()
	return &server{APIServer: dcstest.NewAPIServer(t)}
}

// object is one of Kubernetes' as JSON.
type object map[string]any

// try sends a request as administrator.
func (s *server) try(method, path string, body any) (int, []byte, error) {
	return s.As(dcstest.AdminToken, method, path, body)
}

// do is try for what must succeed.
func (s *server) do(t testing.TB, method, path string, body any) object {
	t.Helper()
	return s.Do(t, method, path, body)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
