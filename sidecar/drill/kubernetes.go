package drill

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kubernetesServer is a kube-apiserver on an etcd of its own, without kubelets and controllers: Pods are only objects, and the
// nodes' processes go by their names. The nodes use the service account of their Pods through a kubeconfig.
type kubernetesServer struct {
	c         *Cluster
	dir       string
	url       string
	endpoints bool // Patroni keeps its keys in Endpoints, otherwise in ConfigMaps
	admin     *http.Client
	allowed   []string // what the chart's Roles let the nodes do, as "verb resource"
	etcd, api *process
}

const (
	apiserverTool = "kube-apiserver@v1.37.1"
	adminToken    = "only-in-this-network"
	kubeNamespace = "db"
	portKubeEtcd  = 3
)

func newKubernetes(c *Cluster, endpoints bool) (*kubernetesServer, error) {
	dir, err := c.folder("kubernetes")
	if err != nil {
		return nil, err
	}
	k := &kubernetesServer{c: c, dir: dir, endpoints: endpoints, url: fmt.Sprintf("https://%s:%d", c.host(atDCS), c.port(portDCS))}
	binary, err := toolPath(apiserverTool)
	if err != nil {
		return nil, err
	}
	if err := Run(exec.Command("cp", "--reflink=auto", binary, k.in("kube-apiserver"))); err != nil { // root's home is closed to user postgres
		return nil, err
	}
	roots, err := k.certificates()
	if err != nil {
		return nil, err
	}
	k.admin = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	return k, errors.Join(k.write("tokens.csv", adminToken+`,admin,admin,"system:masters"`), k.write("audit.yaml", auditPolicy))
}

func (k *kubernetesServer) in(name string) string { return filepath.Join(k.dir, name) }

func (k *kubernetesServer) write(name, text string) error {
	return errors.Join(os.WriteFile(k.in(name), []byte(text), 0o600), k.c.own(k.in(name)))
}

func (k *kubernetesServer) start(ctx context.Context) (err error) {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", k.c.port(portKubeEtcd)), fmt.Sprintf("http://127.0.0.1:%d", k.c.port(portDCSPeer))
	k.etcd, err = k.c.spawn("etcd", k.dir, nil, "etcd", "--name", "etcd", "--data-dir", k.in("data"), "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "etcd="+peer)
	if err != nil {
		return err
	}
	host := k.c.host(atDCS)
	k.api, err = k.c.spawn("kube-apiserver", k.dir, nil, k.in("kube-apiserver"), "--etcd-servers", client,
		"--bind-address", host, "--advertise-address", host, "--secure-port", fmt.Sprint(k.c.port(portDCS)),
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24", "--cert-dir", k.dir,
		"--client-ca-file", k.in("ca.crt"), "--tls-cert-file", k.in("server.crt"), "--tls-private-key-file", k.in("server.key"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", k.in("account.pub"), "--service-account-signing-key-file", k.in("account.key"),
		"--audit-policy-file", k.in("audit.yaml"), "--audit-log-path", k.in(auditLog),
		"--token-auth-file", k.in("tokens.csv"), "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount")
	if err != nil {
		return err
	}
	err = until(ctx, 60*time.Second, "the API server is ready", func(ctx context.Context) error {
		_, err := k.ask(ctx, http.MethodGet, "/readyz", nil)
		return err
	})
	if err != nil || exists(k.in("kubeconfig")) {
		return err
	}
	return k.furnish(ctx)
}

func (k *kubernetesServer) stop() {
	k.api.kill()
	k.etcd.kill()
}

func (k *kubernetesServer) signal(s syscall.Signal) error { return k.api.signal(s) }

// section names the node's Pod by the node's name, which Patroni takes for it.
func (k *kubernetesServer) section(n *Node) string {
	return fmt.Sprintf("kubernetes:\n  namespace: %s\n  context: drill\n  labels: {application: patroni}\n  use_endpoints: %t\n"+
		"  pod_ip: %s\n  ports: [{name: postgresql, port: %d}]\n", kubeNamespace, k.endpoints, n.host(), n.port())
}

func (k *kubernetesServer) env(*Node) []string { return []string{"KUBECONFIG=" + k.in("kubeconfig")} }

// furnish makes the namespace, its service account with what the chart lets the pods of a cluster do and nothing more, a Pod for each node, and the
// kubeconfig.
func (k *kubernetesServer) furnish(ctx context.Context) error {
	core := "/api/v1/namespaces/" + kubeNamespace
	objects := []struct{ path, text string }{{"/api/v1/namespaces", `{"metadata": {"name": "db"}}`}}
	rights, err := k.rights(ctx)
	if err != nil {
		return err
	}
	objects = append(objects, rights...)
	for _, n := range k.c.Nodes {
		objects = append(objects, struct{ path, text string }{core + "/pods", fmt.Sprintf(`{"metadata": {"name": %q,
			"labels": {"application": "patroni", "cluster-name": %q}},
			"spec": {"serviceAccountName": "postgres", "containers": [{"name": "postgres", "image": "none"}]}}`, n.Name, k.c.o.Scope)})
	}
	for _, o := range objects {
		if _, err := k.ask(ctx, http.MethodPost, o.path, []byte(o.text)); err != nil {
			return err
		}
	}
	answer, err := k.ask(ctx, http.MethodPost, core+"/serviceaccounts/postgres/token", []byte(`{"spec": {"expirationSeconds": 86400}}`))
	if err != nil {
		return err
	}
	var token struct{ Status struct{ Token string } }
	if err := json.Unmarshal(answer, &token); err != nil {
		return err
	}
	return k.write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: drill
contexts: [{name: drill, context: {cluster: drill, user: postgres}}]
clusters: [{name: drill, cluster: {server: %q, certificate-authority: %s}}]
users: [{name: postgres, user: {token: %s}}]
`, k.url, k.in("ca.crt"), token.Status.Token))
}

// ask sends a request as administrator.
func (k *kubernetesServer) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, k.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.admin.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(answer)))
	}
	return answer, err
}

// certificates writes an authority, a certificate of the server and the key that signs the tokens of service accounts. They have
// one key: nobody is to be kept out here.
func (k *kubernetesServer) certificates() (*x509.CertPool, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "drill"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(k.c.host(atDCS))},
	}
	roots := x509.NewCertPool()
	for name, c := range map[string]*x509.Certificate{"ca.crt": ca, "server.crt": server} {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, key)
		if err != nil {
			return nil, err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if c == ca {
			roots.AppendCertsFromPEM(text)
		}
		if err := k.write(name, string(text)); err != nil {
			return nil, err
		}
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return roots, errors.Join(k.write("server.key", private), k.write("account.key", private),
		k.write("account.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))))
}
