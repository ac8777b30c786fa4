package patroni_test

import (
	"reflect"
	"testing"

	"github.com/walbaton/walbaton/leader/patroni"
)

// plain is the section with nothing in it.
func plain() patroni.Kubernetes {
	return patroni.Kubernetes{
		Namespace: "default", Context: "kind-kind", ScopeLabel: "cluster-name", RoleLabel: "role",
		Labels: map[string]string{}, BootstrapLabels: map[string]string{}, Ports: []patroni.KubernetesPort{{Port: 5432}},
	}
}

func TestKubernetes(t *testing.T) {
	for text, change := range map[string]func(k *patroni.Kubernetes){
		"{}": func(*patroni.Kubernetes) {},
		"{namespace: db, context: lab, cacert: /ca, use_endpoints: on, scope_label: version, pod_ip: 10.0.0.1, bypass_api_service: true}": func(k *patroni.Kubernetes) {
			k.Namespace, k.Context, k.CACert, k.ScopeLabel, k.PodIP = "db", "lab", "/ca", "version", "10.0.0.1"
			k.UseEndpoints, k.BypassAPIService = true, true
		},
		"{labels: {application: spilo, shard: 7, ha: true}}": func(k *patroni.Kubernetes) {
			k.Labels = map[string]string{"application": "spilo", "shard": "7", "ha": "true"}
		},
		"{labels: text, ports: text}": func(*patroni.Kubernetes) {},
		"{ports: [{port: 1, name: postgresql, protocol: TCP}, {port: '2'}, {name: rest}]}": func(k *patroni.Kubernetes) {
			k.Ports = []patroni.KubernetesPort{{Name: "postgresql", Port: 1, Protocol: "TCP"}, {Port: 2}, {Name: "rest", Port: 5432}}
		},
		"{retriable_http_codes: '401, 502,x'}": func(k *patroni.Kubernetes) { k.RetriableHTTPCodes = []int{401, 502} },
		"{retriable_http_codes: [401, '502']}": func(k *patroni.Kubernetes) { k.RetriableHTTPCodes = []int{401, 502} },
		"{retriable_http_codes: 401}":          func(k *patroni.Kubernetes) { k.RetriableHTTPCodes = []int{401} },
		"{role_label: spilo-role, leader_label_value: master, follower_label_value: r, standby_leader_label_value: s, tmp_role_label: t, bootstrap_labels: {a: b}}": func(k *patroni.Kubernetes) {
			k.RoleLabel, k.LeaderLabelValue, k.FollowerLabelValue, k.StandbyLeaderLabelValue, k.TmpRoleLabel = "spilo-role", "master", "r", "s", "t"
			k.BootstrapLabels = map[string]string{"a": "b"}
		},
	} {
		want := plain()
		change(&want)
		if got := must(t, "scope: a\nkubernetes: "+text, nil).DCS; got.Kind != "kubernetes" || !reflect.DeepEqual(got.Kubernetes, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", text, got.Kubernetes, want)
		}
	}
}

func TestKubernetesNamespace(t *testing.T) {
	for text, want := range map[string]string{
		"kubernetes: {namespace: db}":                    "db",
		"namespace: top\nkubernetes: {namespace: db}":    "top",
		"namespace: /service/\nkubernetes: {}":           "/service/", // which Patroni cannot use either
		"namespace: ''\nkubernetes: {namespace: db}":     "default",
		"namespace: null\nkubernetes: {namespace: null}": "default",
	} {
		if got := must(t, "scope: a\n"+text, nil).DCS.Kubernetes.Namespace; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestKubernetesVariables(t *testing.T) {
	c := must(t, "scope: a\nkubernetes: {namespace: file, labels: {a: b}}", map[string]string{
		"PATRONI_KUBERNETES_NAMESPACE": "db", "PATRONI_KUBERNETES_CONTEXT": "lab", "PATRONI_KUBERNETES_CACERT": "/ca",
		"PATRONI_KUBERNETES_LABELS": "{application: patroni, cluster-name: demo}", "PATRONI_KUBERNETES_SCOPE_LABEL": "version",
		"PATRONI_KUBERNETES_USE_ENDPOINTS": "true", "PATRONI_KUBERNETES_POD_IP": "10.0.0.1", "PATRONI_KUBERNETES_BYPASS_API_SERVICE": "yes",
		"PATRONI_KUBERNETES_PORTS": "[{port: 5432, name: postgresql}, {port: 8008}]", "PATRONI_KUBERNETES_RETRIABLE_HTTP_CODES": "401, 502",
		"PATRONI_KUBERNETES_ROLE_LABEL": "spilo-role", "PATRONI_KUBERNETES_LEADER_LABEL_VALUE": "master", "PATRONI_KUBERNETES_FOLLOWER_LABEL_VALUE": "replica",
		"PATRONI_KUBERNETES_STANDBY_LEADER_LABEL_VALUE": "master", "PATRONI_KUBERNETES_TMP_ROLE_LABEL": "tmp", "PATRONI_KUBERNETES_BOOTSTRAP_LABELS": "{x: y}",
	})
	want := patroni.Kubernetes{
		Namespace: "db", Context: "lab", CACert: "/ca", ScopeLabel: "version", UseEndpoints: true, PodIP: "10.0.0.1", BypassAPIService: true,
		Labels: map[string]string{"application": "patroni", "cluster-name": "demo", "a": "b"}, BootstrapLabels: map[string]string{"x": "y"},
		Ports:              []patroni.KubernetesPort{{Name: "postgresql", Port: 5432}, {Port: 8008}},
		RetriableHTTPCodes: []int{401, 502}, RoleLabel: "spilo-role", LeaderLabelValue: "master", FollowerLabelValue: "replica",
		StandbyLeaderLabelValue: "master", TmpRoleLabel: "tmp",
	}
	if !reflect.DeepEqual(c.DCS.Kubernetes, want) {
		t.Errorf(" got %+v\nwant %+v", c.DCS.Kubernetes, want)
	}
}
