//go:build servers

package helm

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// cluster is a real API server for Helm. No controllers run: what is installed are objects, and no pods start.
type cluster struct {
	*dcstest.APIServer
	kubeconfig string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	s := dcstest.NewAPIServer(t)
	for _, kind := range []string{"PodMonitor", "PrometheusRule"} { // what the Prometheus operator would have brought
		plural := strings.ToLower(kind) + "s"
		s.Do(t, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", map[string]any{
			"metadata": map[string]any{"name": plural + ".monitoring.coreos.com"},
			"spec": map[string]any{
				"group": "monitoring.coreos.com", "scope": "Namespaced",
				"names": map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind)},
				"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true,
					"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
			},
		})
	}
	return &cluster{s, s.Kubeconfig(t, dcstest.AdminToken)}
}

// found lists what a release has in its namespace, as kind/name.
func (c *cluster) found(t *testing.T, namespace string) []string {
	t.Helper()
	var all []string
	for _, path := range []string{"/api/v1/%/configmaps", "/api/v1/%/secrets", "/api/v1/%/services", "/api/v1/%/serviceaccounts", "/apis/apps/v1/%/statefulsets",
		"/apis/policy/v1/%/poddisruptionbudgets", "/apis/rbac.authorization.k8s.io/v1/%/roles", "/apis/rbac.authorization.k8s.io/v1/%/rolebindings",
		"/apis/networking.k8s.io/v1/%/networkpolicies", "/apis/monitoring.coreos.com/v1/%/podmonitors", "/apis/monitoring.coreos.com/v1/%/prometheusrules"} {
		answer := c.Do(t, "GET", strings.Replace(path, "%", "namespaces/"+namespace, 1)+"?labelSelector=app.kubernetes.io%2Fmanaged-by%3DHelm", nil)
		items, _ := answer["items"].([]any)
		for _, i := range items {
			all = append(all, path[strings.LastIndex(path, "/")+1:]+"/"+i.(map[string]any)["metadata"].(map[string]any)["name"].(string))
		}
	}
	slices.Sort(all)
	return all
}

// TestInstall uses one API server for all, each in a namespace of its own.
func TestInstall(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	t.Run("all", func(t *testing.T) { // ends when its parallel tests do
		t.Run("the page", func(t *testing.T) { t.Parallel(); c.page(t) })
		t.Run("a release", func(t *testing.T) { t.Parallel(); c.release(t) })
		for _, values := range ciValues(t) {
			t.Run(values, func(t *testing.T) { t.Parallel(); c.installs(t, values) })
		}
	})
}

// Every file of values in ci/ can be installed, upgraded and uninstalled, and leaves nothing but the passwords.
func (c *cluster) installs(t *testing.T, values string) {
	in := []string{"--namespace", values, "--create-namespace", "-f", ci(values)}
	runHelm(t, c.kubeconfig, append([]string{"install", "demo", chart}, in...)...)
	installed := c.found(t, values)
	if len(installed) < 3 {
		t.Errorf("installed are %v", installed)
	}
	runHelm(t, c.kubeconfig, append([]string{"upgrade", "demo", chart, "--set", "config.workers=7"}, in...)...)
	if upgraded := c.found(t, values); !slices.Equal(upgraded, installed) {
		t.Errorf("the upgrade made of %v\n%v", installed, upgraded)
	}
	config := c.Do(t, "GET", "/api/v1/namespaces/"+values+"/configmaps/demo-walbaton", nil)["data"].(map[string]any)
	if !strings.Contains(config["walbaton.yml"].(string), "workers: 7") {
		t.Errorf("walbaton.yml after the upgrade:\n%s", config["walbaton.yml"])
	}
	runHelm(t, c.kubeconfig, "uninstall", "demo", "--namespace", values)
	left := slices.DeleteFunc(c.found(t, values), func(o string) bool { return strings.HasSuffix(o, "-passwords") })
	if len(left) > 0 {
		t.Errorf("left is %v", left)
	}
}

// Passwords are made once: an upgrade does not change them, nor does a release that comes after an uninstalled one and finds its volumes. A change of the
// configuration restarts the pods, and nothing else does. The service account may do what Patroni and the sidecar need, and nothing else.
func (c *cluster) release(t *testing.T) {
	passwords := func() map[string]any {
		return c.Do(t, "GET", "/api/v1/namespaces/release/secrets/shop-passwords", nil)["data"].(map[string]any)
	}
	template := func() string {
		text, err := json.Marshal(c.Do(t, "GET", "/apis/apps/v1/namespaces/release/statefulsets/shop", nil)["spec"].(map[string]any)["template"])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	args := []string{"shop", chart, "--namespace", "release", "--set", "archive.url=s3://wal/prod,patroni.enabled=true"}
	runHelm(t, c.kubeconfig, append([]string{"install", "--create-namespace"}, args...)...)
	first, pods := passwords(), template()
	if len(first) != 2 || first["superuser-password"] == first["replication-password"] {
		t.Fatalf("passwords %v", first)
	}
	if strings.Count(pods, `"restartPolicy":"Always"`) != 2 { // of the pod and of the sidecar
		t.Errorf("the API server is new, and the sidecar is no native one: %s", pods)
	}
	c.rights(t)
	runHelm(t, c.kubeconfig, append([]string{"upgrade"}, args...)...)
	if template() != pods {
		t.Error("an upgrade that changes nothing restarts the pods")
	}
	runHelm(t, c.kubeconfig, append([]string{"upgrade", "--set", "config.policy=replica"}, args...)...)
	if template() == pods {
		t.Error("a changed configuration does not restart the pods")
	}
	runHelm(t, c.kubeconfig, "uninstall", "shop", "--namespace", "release")
	runHelm(t, c.kubeconfig, append([]string{"install"}, args...)...)
	if again := passwords(); !maps.Equal(first, again) {
		t.Errorf("the passwords were %v and are %v", first, again)
	}
}

// rights asks the server for each right of the service account shop. The drills on Kubernetes run with the same Roles.
func (c *cluster) rights(t *testing.T) {
	t.Helper()
	answer := c.Do(t, "POST", "/api/v1/namespaces/release/serviceaccounts/shop/token", map[string]any{"spec": map[string]any{"expirationSeconds": 3600}})
	token := answer["status"].(map[string]any)["token"].(string)
	want := []string{"list pods", "watch pods", "list configmaps", "watch configmaps", "list leases", "watch leases", "create leases", "update leases", // walbaton's
		"patch pods", "create configmaps", "get configmaps", "patch configmaps"} // Patroni's
	var got []string
	for resource, group := range map[string]string{"pods": "", "configmaps": "", "endpoints": "", "secrets": "", "services": "", "serviceaccounts": "",
		"leases": "coordination.k8s.io", "statefulsets": "apps", "roles": "rbac.authorization.k8s.io"} {
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"} {
			ask := map[string]any{"namespace": "release", "verb": verb, "group": group, "resource": resource}
			code, body, err := c.As(token, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", map[string]any{"spec": map[string]any{"resourceAttributes": ask}})
			if err != nil || code != http.StatusCreated {
				t.Fatalf("%d %s %v", code, body, err)
			}
			var review struct{ Status struct{ Allowed bool } }
			if err := json.Unmarshal(body, &review); err != nil {
				t.Fatal(err)
			}
			if review.Status.Allowed {
				got = append(got, verb+" "+resource)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the service account may\n%q, want\n%q", got, want)
	}
}

// The commands of docs/install-kubernetes.md are typed into one shell, in order, against a real API server.
func (c *cluster) page(t *testing.T) {
	page, err := os.ReadFile("../docs/install-kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // a checkout, as far as the page goes
	if err := os.CopyFS(filepath.Join(dir, "helm"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dcstest.Tool(t, helmTool), filepath.Join(bin, "helm")); err != nil {
		t.Fatal(err)
	}
	script, ran := "set -e\n", 0
	for _, block := range regexp.MustCompile("(?ms)^```sh(?: run=TestInstall)?\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		if !strings.HasPrefix(block[1], "# not run: ") {
			script += block[1]
			ran++
		}
	}
	if ran < 8 {
		t.Fatalf("%d blocks", ran)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "KUBECONFIG=" + c.kubeconfig, "PATH=" + bin + ":" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What the page says of what is there at its end.
	for path, want := range map[string]int{
		"/api/v1/namespaces/db/secrets/shop-passwords":                http.StatusOK,
		"/apis/apps/v1/namespaces/db/statefulsets/shop":               http.StatusNotFound,
		"/api/v1/namespaces/db/configmaps/walbaton-acid-shop-zalando": http.StatusOK,
		"/api/v1/namespaces/db/configmaps/shop-wal-walbaton":          http.StatusOK,
	} {
		if code, body, err := c.As(dcstest.AdminToken, "GET", path, nil); err != nil || code != want {
			t.Errorf("%s: %d, want %d: %s %v", path, code, want, body, err)
		}
	}
	for _, line := range []string{"patch postgresql acid-shop", "rollout status statefulset/shop", "exec shop-0 -c walbaton -- walbaton status"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("Helm does not print %q:\n%s", line, out)
		}
	}
}
