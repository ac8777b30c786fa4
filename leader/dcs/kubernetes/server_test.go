//go:build servers

package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// server is a kube-apiserver with an etcd behind it, on free loopback ports. No controllers run:
// nothing but what a test does happens in it.
type server struct {
	url       string
	etcd      string
	dir       string
	authority string // the file of the certificate authority
	args      []string
	client    *http.Client // of an administrator
	owner     testing.TB   // at whose end it ends
	scopes    atomic.Int32
	dcstest.Process
}

const adminToken = "top-secret"

// startServer runs Debian's etcd-server and the kube-apiserver that .ci/build-tools built; a
// machine without them fails the test.
func startServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	in := func(name string) string { return filepath.Join(dir, name) }
	authority := dcstest.NewAuthority(t)
	s := &server{url: "https://" + address, etcd: "http://" + freeAddress(t), dir: dir, authority: authority.File, owner: t, Process: dcstest.Process{Log: in("apiserver.log")}}
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: trusting(t, authority.File)}}
	accountKeys(t, in("sa.key"), in("sa.pub"))
	writeFile(t, in("tokens.csv"), adminToken+`,admin,admin,"system:masters"`)
	peer := "http://" + freeAddress(t)
	behind := &dcstest.Process{Log: in("etcd.log")}
	behind.Launch(t, "Debian's etcd-server", exec.Command("etcd", "--data-dir", in("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", s.etcd, "--advertise-client-urls", s.etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer))
	s.args = []string{
		"--etcd-servers", s.etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", port,
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24", "--cert-dir", dir,
		"--client-ca-file", authority.File, "--tls-cert-file", authority.Server + ".crt", "--tls-private-key-file", authority.Server + ".key",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", in("sa.pub"), "--service-account-signing-key-file", in("sa.key"),
		"--token-auth-file", in("tokens.csv"), "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount",
	}
	s.Start(t)
	return s
}

func freeAddress(t testing.TB) string { return dcstest.FreeAddresses(t, 1)[0] }

func (s *server) Start(t testing.TB) {
	t.Helper()
	s.Launch(s.owner, ".ci/build-tools", exec.Command(dcstest.Tool(t, "kube-apiserver@v1.37.1"), s.args...))
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		code, body, err := s.try("GET", "/readyz", nil)
		if err == nil && code == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("kube-apiserver is not ready: %d %s %v\n%s", code, body, err, s.Said())
		}
	}
}

func (s *server) Kill(t testing.TB) {
	s.Process.Kill(t)
	s.client.CloseIdleConnections()
}

// object is one of Kubernetes' as JSON.
type object map[string]any

// try sends a request as administrator.
func (s *server) try(method, path string, body any) (int, []byte, error) {
	return s.as(adminToken, method, path, body)
}

func (s *server) as(token, method, path string, body any) (int, []byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(context.Background(), method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// do is try for what must succeed.
func (s *server) do(t testing.TB, method, path string, body any) object {
	t.Helper()
	code, answer, err := s.try(method, path, body)
	if err != nil || code >= 300 {
		t.Fatalf("%s %s: %d %s %v", method, path, code, answer, err)
	}
	var o object
	if err := json.Unmarshal(answer, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// accountKeys writes the keys with which the server signs and checks the tokens of service accounts.
func accountKeys(t testing.TB, private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, private, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: signs})))
	writeFile(t, public, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: checks})))
}

// trusting is how a client trusts the certificates of an authority.
func trusting(t testing.TB, authority string) *tls.Config {
	t.Helper()
	cert, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
