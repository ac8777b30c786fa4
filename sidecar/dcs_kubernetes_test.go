package main

import (
	"os"
	"strings"
	"testing"
)

func TestOpenKubernetes(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := writeFile(t, dir, "kubeconfig", `
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: lab, context: {cluster: c, user: u}}, {name: kind-kind, context: {cluster: c, user: u}}]
`)
	for _, c := range []struct{ kubeconfig, patroni, want string }{
		{kubeconfig, "kubernetes: {namespace: db, context: lab}", "kubernetes https://10.0.0.1:6443/db/s"},
		{kubeconfig, "kubernetes: {}\ncitus: {group: 2, database: d}", "kubernetes https://10.0.0.1:6443/default/s-2"},
		{kubeconfig, "kubernetes: {context: other}", `context "other" does not exist`},
		{dir + "/none", "kubernetes: {}", "no such file"},
	} {
		t.Setenv("KUBECONFIG", c.kubeconfig)
		t.Setenv("KUBERNETES_SERVICE_HOST", "")
		pg := writeFile(t, t.TempDir(), "patroni.yml", "scope: s\n"+c.patroni+"\n")
		cfg, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull, "patroni-config": pg}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := openDCS(cfg)
		if err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(explainError(err), "KUBECONFIG")) {
			t.Errorf("%s: %v, want %q", c.patroni, explainError(err), c.want)
		} else if err == nil && d.String() != c.want {
			t.Errorf("%s: %s, want %s", c.patroni, d, c.want)
		}
	}
}
