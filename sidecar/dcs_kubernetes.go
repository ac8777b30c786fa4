package main

import (
	"os"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/kubernetes"
)

// openKubernetes opens Patroni's scope at the API server, which is found where Patroni finds it.
func openKubernetes(cfg Config) (dcs.DCS, error) {
	p := cfg.Patroni
	k := p.DCS.Kubernetes
	d, err := kubernetes.New(kubernetes.Config{
		Access:    kubernetes.Find(os.Getenv, k.CACert, k.Context),
		Namespace: k.Namespace, Scope: p.Scope, Group: p.Group,
		Labels: k.Labels, ScopeLabel: k.ScopeLabel, Endpoints: k.UseEndpoints,
	})
	if err != nil {
		return nil, withHint(configError("patroni_config", "%w", err),
			"in a Pod: mount the token of its service account. Elsewhere: KUBECONFIG names a file with the context of Patroni's section kubernetes (kind-kind when it names none)")
	}
	return d, nil
}
