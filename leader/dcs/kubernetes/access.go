package kubernetes

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Where Kubernetes mounts what a Pod needs to reach the API server.
const (
	podToken  = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	podCACert = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// Access is how the API server is reached: inside a Pod by Server, CACert and TokenFile, which is
// read again as Kubernetes renews it; elsewhere by a kubeconfig.
type Access struct {
	Server     string // https://host:port; "" means the kubeconfig
	CACert     string // PEM file
	TokenFile  string
	Kubeconfig string // file
	Context    string // of the kubeconfig; "" is its current one
}

// Find looks where Patroni looks (patroni/dcs/kubernetes.py): inside a Pod for what Kubernetes puts
// there, else for the file that KUBECONFIG names, or ~/.kube/config. cacert, from Patroni's
// configuration, replaces the Pod's certificates.
func Find(getenv func(string) string, cacert, context string) Access {
	if cacert == "" {
		cacert = podCACert
	}
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host != "" && port != "" && filled(cacert) && filled(podToken) {
		return Access{Server: "https://" + net.JoinHostPort(host, port), CACert: cacert, TokenFile: podToken}
	}
	file := getenv("KUBECONFIG")
	if file == "" {
		file = filepath.Join(getenv("HOME"), ".kube", "config")
	}
	return Access{Kubeconfig: file, Context: context}
}

func filled(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() > 0
}

func (a Access) config() (*rest.Config, error) {
	if a.Server != "" {
		return &rest.Config{Host: a.Server, BearerTokenFile: a.TokenFile, TLSClientConfig: rest.TLSClientConfig{CAFile: a.CACert}}, nil
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: a.Kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: a.Context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.Kubeconfig, err)
	}
	return cfg, nil
}
