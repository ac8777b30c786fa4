package dcstest

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
	"testing"
	"time"
)

// APIServer is a kube-apiserver with an etcd behind it, on free loopback ports. No controllers run: nothing but what a test does
// happens in it.
type APIServer struct {
	URL       string
	Etcd      string // URL of the etcd behind it
	Authority string // the file of the certificate authority
	Process

	args   []string
	client *http.Client // of an administrator
	owner  testing.TB   // at whose end it ends
}

// AdminToken is the token of an administrator of every APIServer.
const AdminToken = "top-secret"

// NewAPIServer runs Debian's etcd-server and the kube-apiserver that .ci/build-tools built; a machine without them fails the test. It answers
// at more addresses of this machine, too, such as that of a bridge that pods are on.
func NewAPIServer(t testing.TB, more ...net.IP) *APIServer {
	t.Helper()
	dir := t.TempDir()
	addresses := FreeAddresses(t, 3)
	_, port, _ := net.SplitHostPort(addresses[0])
	in := func(name string) string { return filepath.Join(dir, name) }
	authority, bind := NewAuthority(t, more...), "127.0.0.1"
	if len(more) > 0 {
		bind = "0.0.0.0"
	}
	s := &APIServer{URL: "https://" + addresses[0], Etcd: "http://" + addresses[1], Authority: authority.File, owner: t, Process: Process{Log: in("apiserver.log")}}
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	accountKeys(t, in("sa.key"), in("sa.pub"))
	write(t, in("tokens.csv"), []byte(AdminToken+`,admin,admin,"system:masters"`))
	peer := "http://" + addresses[2]
	behind := &Process{Log: in("etcd.log")}
	behind.Launch(t, "Debian's etcd-server", exec.Command("etcd", "--data-dir", in("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", s.Etcd, "--advertise-client-urls", s.Etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer))
	s.args = []string{
		"--etcd-servers", s.Etcd, "--bind-address", bind, "--advertise-address", "127.0.0.1", "--secure-port", port,
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24", "--cert-dir", dir,
		"--client-ca-file", authority.File, "--tls-cert-file", authority.Server + ".crt", "--tls-private-key-file", authority.Server + ".key",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", in("sa.pub"), "--service-account-signing-key-file", in("sa.key"),
		"--token-auth-file", in("tokens.csv"), "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount",
	}
	s.Start(t)
	return s
}

// Start starts it, also after Kill, and waits until it is ready.
func (s *APIServer) Start(t testing.TB) {
	t.Helper()
	s.Launch(s.owner, ".ci/build-tools", exec.Command(Tool(t, "kube-apiserver@v1.37.1"), s.args...))
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		code, body, err := s.As(AdminToken, "GET", "/readyz", nil)
		if err == nil && code == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("kube-apiserver is not ready: %d %s %v\n%s", code, body, err, s.Said())
		}
	}
}

// Kill ends it at once; the etcd behind it runs on.
func (s *APIServer) Kill(t testing.TB) {
	s.Process.Kill(t)
	s.client.CloseIdleConnections()
}

// As sends a request with a token, and gives the status and the body of the answer. The request's body is sent as JSON.
func (s *APIServer) As(token, method, path string, body any) (int, []byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, bytes.NewReader(text))
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

// Do sends a request of an administrator's that must succeed, and gives the object that is answered.
func (s *APIServer) Do(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	code, answer, err := s.As(AdminToken, method, path, body)
	if err != nil || code >= 300 {
		t.Fatalf("%s %s: %d %s %v", method, path, code, answer, err)
	}
	var o map[string]any
	if err := json.Unmarshal(answer, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// Kubeconfig writes one for the bearer of a token into a folder of the test, and gives its path.
func (s *APIServer) Kubeconfig(t testing.TB, token string) string {
	t.Helper()
	authority, err := os.ReadFile(s.Authority)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": s.URL, "certificate-authority-data": authority}}},
		"users":    []any{map[string]any{"name": "test", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": "test"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, path, config)
	return path
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
	write(t, private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: signs}))
	write(t, public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: checks}))
}

// Transport is a connection to it that trusts its certificate.
func (s *APIServer) Transport() http.RoundTripper { return s.client.Transport }
