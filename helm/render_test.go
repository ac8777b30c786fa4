//go:build servers

package helm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

const (
	helmTool = "helm@v3.22.0"
	chart    = "./walbaton"
	native   = "1.37.1" // a Kubernetes with native sidecars
	old      = "1.28.0" // and one without
)

// tryHelm runs Helm, with the cache and settings of the test and the kubeconfig that it names, if any.
func tryHelm(t testing.TB, kubeconfig string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, dcstest.Tool(t, helmTool), args...)
	home := t.TempDir()
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + kubeconfig, "PATH=" + os.Getenv("PATH")}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

func runHelm(t testing.TB, kubeconfig string, args ...string) string {
	t.Helper()
	out, complaints, err := tryHelm(t, kubeconfig, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, out, complaints)
	}
	return out
}

// render gives what the chart renders for values in ci/.
func render(t *testing.T, values string, args ...string) string {
	t.Helper()
	return runHelm(t, "", append([]string{"template", "demo", chart, "--namespace", "db", "--kube-version", native, "-f", ci(values)}, args...)...)
}

func ci(values string) string { return filepath.Join(chart, "ci", values+"-values.yaml") }

// ciValues are the names of the files in ci/.
func ciValues(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(ci("*"))
	if err != nil || len(files) < 12 {
		t.Fatalf("%d files of values: %v", len(files), err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), "-values.yaml")
	}
	return files
}

func TestLint(t *testing.T) {
	t.Parallel()
	args := []string{"lint", "--strict", "--kube-version", native, chart}
	runHelm(t, "", args...)
	for _, values := range ciValues(t) {
		runHelm(t, "", append(args, "-f", ci(values))...)
	}
}

// Every file of values in ci/ renders objects that Kubernetes' own types take, without a field that they do not know; on a Kubernetes with native
// sidecars and on one without.
func TestRender(t *testing.T) {
	t.Parallel()
	for _, values := range ciValues(t) {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			for _, version := range []string{native, old} {
				all := objects(t, render(t, values, "--kube-version", version))
				if len(all) < 2 {
					t.Fatalf("%d objects", len(all))
				}
				for _, o := range all {
					switch o := o.(type) {
					case *appsv1.StatefulSet:
						checkPod(t, o.Spec.Template.Spec, volumeNames(o), version)
						if !covers(o.Spec.Template.Labels, o.Spec.Selector.MatchLabels) {
							t.Errorf("the StatefulSet selects %v, and its pods have %v", o.Spec.Selector.MatchLabels, o.Spec.Template.Labels)
						}
					case *corev1.Pod:
						if o.Labels["cluster-name"] != "" || o.Labels["application"] != "" {
							t.Error("Patroni would take the test's pod for a member")
						}
						checkContainer(t, o.Spec.Containers[0])
					}
				}
			}
		})
	}
}

func covers(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// volumeNames are the volumes that a pod of the StatefulSet has.
func volumeNames(s *appsv1.StatefulSet) map[string]bool {
	names := map[string]bool{}
	for _, v := range s.Spec.Template.Spec.Volumes {
		names[v.Name] = true
	}
	for _, c := range s.Spec.VolumeClaimTemplates {
		names[c.Name] = true
	}
	return names
}

// checkPod looks at what makes a pod work: the sidecar starts before PostgreSQL and ends after it, both share the socket, the client and the data, and
// the sidecar runs as the user who may read them.
func checkPod(t *testing.T, pod corev1.PodSpec, volumes map[string]bool, version string) {
	t.Helper()
	var names []string
	mounts := map[string]map[string]string{} // container, path, volume
	var sidecar *corev1.Container
	all := slices.Concat(pod.InitContainers, pod.Containers)
	for i, c := range all {
		names = append(names, c.Name)
		mounts[c.Name] = map[string]string{}
		for _, m := range c.VolumeMounts {
			mounts[c.Name][m.MountPath] = m.Name
			if !volumes[m.Name] {
				t.Errorf("%s mounts %s, which is no volume of the pod", c.Name, m.Name)
			}
		}
		if c.Name == "walbaton" {
			sidecar = &all[i]
		}
		if c.Name != "postgres" {
			checkContainer(t, c)
		}
	}
	wantNative := version == native
	order := []string{"walbaton-client", "postgres", "walbaton"}
	if isNative := sidecar.RestartPolicy != nil && *sidecar.RestartPolicy == corev1.ContainerRestartPolicyAlways; isNative {
		order = []string{"walbaton-client", "walbaton", "postgres"}
		if !wantNative && names[1] == "walbaton" && !strings.Contains(t.Name(), "everything") {
			t.Errorf("a native sidecar on Kubernetes %s", version)
		}
	} else if wantNative && !strings.Contains(t.Name(), "not-native") {
		t.Errorf("no native sidecar on Kubernetes %s", version)
	}
	if !slices.Equal(names, order) {
		t.Errorf("containers %v, want %v", names, order)
	}
	for _, path := range []string{"/run/walbaton", "/opt/walbaton"} {
		for _, c := range []string{"postgres", map[string]string{"/run/walbaton": "walbaton", "/opt/walbaton": "walbaton-client"}[path]} {
			if mounts[c][path] == "" {
				t.Errorf("%s does not mount %s", c, path)
			}
		}
	}
	for path, volume := range mounts["postgres"] { // its data, and pg_wal's volume
		if !strings.HasPrefix(volume, "walbaton-") && volume != "shm" && mounts["walbaton"][path] != volume {
			t.Errorf("the sidecar does not see %s at %s", volume, path)
		}
	}
	if *sidecar.SecurityContext.RunAsUser != *pod.SecurityContext.RunAsUser {
		t.Error("the sidecar is not the user that runs PostgreSQL")
	}
	if sidecar.LivenessProbe.HTTPGet.Path != "/livez" {
		t.Error("the probe that restarts the sidecar looks at more than the process")
	}
	if wanted := strings.Contains(t.Name(), "everything"); (sidecar.ReadinessProbe != nil) != wanted || (sidecar.StartupProbe != nil) != wanted {
		t.Error("the sidecar decides whether PostgreSQL starts, or gets connections")
	}
}

// checkContainer looks at what Kubernetes calls the restricted profile, and a read-only root.
func checkContainer(t *testing.T, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || !*s.RunAsNonRoot || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: %+v", c.Name, s)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s has no resources", c.Name)
	}
}

// What each way to use the chart is for is there, and nothing else.
func TestWays(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]string{
		"default":            "ConfigMap Pod Role RoleBinding Service ServiceAccount",
		"rbac-only":          "ConfigMap Role RoleBinding",
		"patroni-spilo":      "ConfigMap Pod PodDisruptionBudget Role Role RoleBinding RoleBinding Secret Service Service Service Service ServiceAccount StatefulSet",
		"patroni-endpoints":  "ConfigMap Pod PodDisruptionBudget Role Role RoleBinding RoleBinding Secret Service Service Service Service Service ServiceAccount StatefulSet",
		"patroni-etcd":       "ConfigMap Pod PodDisruptionBudget Secret Service Service ServiceAccount StatefulSet",
		"patroni-everything": "ConfigMap Pod PodDisruptionBudget Role Role RoleBinding RoleBinding Service Service Service Service ServiceAccount StatefulSet",
		"zalando":            "ConfigMap ConfigMap Pod Role RoleBinding Service",
		"monitoring":         "ConfigMap ConfigMap Pod PodMonitor PrometheusRule Role RoleBinding Service ServiceAccount",
		"network-open":       "ConfigMap NetworkPolicy Pod Role RoleBinding Service ServiceAccount",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			var kinds []string
			for _, text := range documents(t, render(t, values)) {
				var o struct{ Kind string }
				if err := yaml.Unmarshal([]byte(text), &o); err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, o.Kind)
			}
			slices.Sort(kinds)
			if got := strings.Join(kinds, " "); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// The alerts and the dashboard are those of files/, as they are: for Prometheus' own {{ }} as well. Alerts can be left out by their names.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chart, "files/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file prometheusRule
	if err := strictly(string(text), &file.Spec); err != nil {
		t.Fatal(err)
	}
	for without, left := range map[string]int{"NoSuchAlert": 0, "WalbatonMissingAge": 1} {
		rule := one[prometheusRule](t, objects(t, render(t, "monitoring", "--set", "prometheusRule.without={"+without+"}")), nil)
		var got []string
		for _, g := range rule.Spec.Groups {
			for _, r := range g.Rules {
				got = append(got, fmt.Sprintf("%+v", r))
			}
		}
		var want []string
		for _, g := range file.Spec.Groups {
			for _, r := range g.Rules {
				if r.Alert != without {
					want = append(want, fmt.Sprintf("%+v", r))
				}
			}
		}
		if len(want) < 8-left || len(got) != len(want)+1 || !slices.Equal(got[:len(want)], want) || !strings.Contains(got[len(want)], "DiskOfWalFull") {
			t.Errorf("without %q: %d rules, want %d and ours\n%s", without, len(got), len(want), strings.Join(got, "\n"))
		}
	}
	dashboard, err := os.ReadFile(filepath.Join(chart, "files/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := one(t, objects(t, render(t, "monitoring")), func(c *corev1.ConfigMap) bool { return c.Labels["grafana_dashboard"] == "1" })
	if strings.TrimSpace(c.Data["walbaton.json"]) != strings.TrimSpace(string(dashboard)) || !json.Valid(dashboard) {
		t.Error("the ConfigMap has another dashboard than files/dashboard.json")
	}
}

// Details that nothing else would notice.
func TestPatroniPods(t *testing.T) {
	t.Parallel()
	all := objects(t, render(t, "patroni-endpoints"))
	for _, name := range []string{"shop", "shop-config"} {
		s := one(t, all, func(s *corev1.Service) bool { return s.Name == name })
		if len(s.Spec.Selector) > 0 {
			t.Errorf("Service %s has a selector: Kubernetes would write the Endpoints that are Patroni's", name)
		}
	}
	all = objects(t, render(t, "patroni-spilo"))
	primary := one(t, all, func(s *corev1.Service) bool { return s.Name == "demo" })
	if primary.Spec.Selector["role"] != "master" || primary.Spec.Selector["cluster-name"] != "demo" {
		t.Errorf("the primary's Service selects %v", primary.Spec.Selector)
	}
	pods := one[appsv1.StatefulSet](t, all, nil)
	if pods.Name != "demo" || *pods.Spec.Replicas != 3 || pods.Spec.ServiceName != "demo-pods" || !covers(pods.Spec.Template.Labels, map[string]string{"cluster-name": "demo", "application": "spilo"}) {
		t.Errorf("%s, %d, %s, %v", pods.Name, *pods.Spec.Replicas, pods.Spec.ServiceName, pods.Spec.Template.Labels)
	}
	if p := one[policyv1.PodDisruptionBudget](t, all, nil); !covers(pods.Spec.Template.Labels, p.Spec.Selector.MatchLabels) || p.Spec.MaxUnavailable.IntVal != 1 {
		t.Errorf("%+v", p.Spec)
	}
	config := one[corev1.ConfigMap](t, all, nil).Data
	for file, want := range map[string][]string{
		"spilo.yml":    {"archive_mode: always", "archive_command: /opt/walbaton/walbaton-wal push %p", "restore_command: /opt/walbaton/walbaton-wal fetch %f %p"},
		"patroni.yml":  {"scope: demo", "namespace: db", "data_dir: /home/postgres/pgdata/pgroot/data", "use_endpoints: false"},
		"walbaton.yml": {"url: s3://wal/prod", "patroni_config: /etc/walbaton/patroni.yml", "listen: :9847"},
	} {
		for _, line := range want {
			if !strings.Contains(config[file]+"\n", line+"\n") {
				t.Errorf("%s lacks %q:\n%s", file, line, config[file])
			}
		}
	}
	all = objects(t, render(t, "patroni-wal-volume"))
	claims := one[appsv1.StatefulSet](t, all, nil).Spec.VolumeClaimTemplates
	if len(claims) != 2 || claims[1].Name != "pgwal" || claims[1].Spec.Resources.Requests.Storage().String() != "50Gi" || *claims[1].Spec.StorageClassName != "fast" {
		t.Errorf("%+v", claims)
	}
	config = one[corev1.ConfigMap](t, all, nil).Data
	if strings.Count(config["spilo.yml"], "waldir: /home/postgres/pgwal/pg_wal") != 2 || !strings.Contains(config["walbaton.yml"], "prefetch_dir: /home/postgres/pgwal/") {
		t.Errorf("%s\n%s", config["spilo.yml"], config["walbaton.yml"])
	}
	policy := one[networkingv1.NetworkPolicy](t, objects(t, render(t, "network")), nil)
	if !covers(pods.Spec.Template.Labels, policy.Spec.PodSelector.MatchLabels) || len(policy.Spec.Ingress) != 4 || len(policy.Spec.Ingress[1].From) != 2 || len(policy.Spec.Ingress[2].From) != 2 {
		t.Errorf("%+v", policy.Spec)
	}
}

// What the chart writes into walbaton.yml and patroni.yml is what the program reads: it is not the configuration that it complains about.
func TestConfigurationIsThePrograms(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "walbaton")
	if out, err := exec.Command("go", "build", "-o", program, "../sidecar").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	authority := dcstest.NewAuthority(t)
	for _, values := range ciValues(t) {
		dir := t.TempDir()
		config := one(t, objects(t, render(t, values, "--show-only", "templates/configmap.yaml")), func(*corev1.ConfigMap) bool { return true }).Data
		// Files that only pods have.
		text := strings.NewReplacer("/etc/walbaton/patroni.yml", dir+"/patroni.yml", "/etc/walbaton/secrets", dir).Replace(config["walbaton.yml"])
		recipient := "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"
		files := map[string]string{"walbaton.yml": text, "patroni.yml": config["patroni.yml"], "far.key": "secret", "password": "secret", "recipients": recipient}
		for name, file := range map[string]string{"ca.crt": authority.File, "tls.crt": authority.Server + ".crt", "tls.key": authority.Server + ".key"} {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = string(b)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(program, "sidecar", "--config", filepath.Join(dir, "walbaton.yml"), "--socket", "/proc/no/socket", "--listen", "127.0.0.1:0")
		cmd.Env = []string{"WALBATON_NAME=demo-0"}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "listen on socket /proc/no/socket") {
			t.Errorf("%s: walbaton says\n%s\nof\n%s", values, out, text)
		}
	}
}

// The sidecar may do what docs/dcs.md says, and nothing else. TestKubernetes of its driver takes each verb of that Role away in turn, and each is missed.
func TestRoleIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, role, _ := strings.Cut(string(page), "```yaml\napiVersion: rbac")
	role, _, _ = strings.Cut("apiVersion: rbac"+role, "```")
	for values, kind := range map[string]string{"patroni-endpoints": "endpoints", "patroni-spilo": "configmaps", "zalando": "configmaps"} {
		want := one[rbacv1.Role](t, objects(t, strings.Replace(role, "endpoints]", kind+"]", 1)), nil).Rules
		all := objects(t, render(t, values))
		for _, o := range all {
			if r, ok := o.(*rbacv1.ClusterRole); ok {
				t.Errorf("%s: a ClusterRole %s", values, r.Name)
			}
		}
		got := one(t, all, func(r *rbacv1.Role) bool { return r.Name == "demo-walbaton" }).Rules
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the Role has\n%s, docs/dcs.md\n%s", values, b, a)
		}
	}
}

// A chart of one's own gets the sidecar from the named templates; helm/examples has one.
func TestOwnChart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "helm") // Helm puts the dependency into the chart
	for _, part := range []string{"walbaton", "examples/own-chart"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "examples/own-chart")
	runHelm(t, "", "dependency", "build", own)
	for _, version := range []string{native, old} {
		all := objects(t, runHelm(t, "", "template", "shop", own, "--namespace", "db", "--kube-version", version))
		pods := one[appsv1.StatefulSet](t, all, nil)
		checkPod(t, pods.Spec.Template.Spec, volumeNames(pods), version)
		account := one[rbacv1.RoleBinding](t, all, nil).Subjects[0].Name
		if account != pods.Spec.Template.Spec.ServiceAccountName {
			t.Errorf("the rights are for %s, and the pods run as %s", account, pods.Spec.Template.Spec.ServiceAccountName)
		}
		config := one(t, all, func(c *corev1.ConfigMap) bool { return c.Data["walbaton.yml"] != "" })
		mounted := slices.ContainsFunc(pods.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == config.Name })
		if !mounted {
			t.Errorf("the pods do not have the ConfigMap %s", config.Name)
		}
	}
}

// The patch for the Zalando operator has the fields that the operator documents, and its parts fit each other.
func TestZalando(t *testing.T) {
	t.Parallel()
	all := objects(t, render(t, "zalando"))
	text := one(t, all, func(c *corev1.ConfigMap) bool { return c.Data["patch.yaml"] != "" }).Data["patch.yaml"]
	var patch zalandoPatch
	if err := strictly(text, &patch); err != nil {
		t.Fatalf("%v\n%s", err, numbered(text))
	}
	// The parts that are Kubernetes' own types, as containers of a pod.
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "acid-shop-0"}}
	containers := []any{}
	for _, s := range patch.Spec.Sidecars {
		containers = append(containers, map[string]any{"name": s.Name, "image": s.Image, "env": decoded(t, s.Env), "ports": decoded(t, s.Ports), "command": s.Command})
		if s.Resources.Requests.CPU == "" || s.Resources.Requests.Memory == "" || s.Resources.Limits.CPU == "" || s.Resources.Limits.Memory == "" {
			t.Error("the operator wants all resources, or none")
		}
	}
	volumes := []any{}
	for _, v := range patch.Spec.AdditionalVolumes {
		source := decoded(t, []yaml.Node{v.VolumeSource})[0].(map[string]any)
		source["name"] = v.Name
		volumes = append(volumes, source)
	}
	pod["spec"] = map[string]any{"containers": containers, "initContainers": decoded(t, patch.Spec.InitContainers), "volumes": volumes}
	whole, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	p := one[corev1.Pod](t, objects(t, string(whole)), nil).Spec

	mounts := map[string]map[string]bool{}
	for _, v := range patch.Spec.AdditionalVolumes {
		for _, c := range v.TargetContainers {
			if mounts[c] == nil {
				mounts[c] = map[string]bool{}
			}
			mounts[c][v.MountPath] = true
		}
	}
	if !mounts["postgres"]["/run/walbaton"] || !mounts["walbaton"]["/run/walbaton"] || !mounts["postgres"]["/opt/walbaton"] || !mounts["walbaton"]["/etc/walbaton"] || !mounts["walbaton"]["/etc/walbaton/secrets"] {
		t.Errorf("mounts %v", mounts)
	}
	if m := p.InitContainers[0].VolumeMounts; len(m) != 1 || m[0].Name != patch.Spec.AdditionalVolumes[0].Name || m[0].MountPath != "/opt/walbaton" {
		t.Errorf("the client goes to %+v", m)
	}
	if patch.Spec.SpiloRunAsUser != 101 || patch.Spec.PostgreSQL.Parameters["archive_command"] != "/opt/walbaton/walbaton-wal push %p" || patch.Spec.PostgreSQL.Parameters["archive_mode"] != "always" {
		t.Errorf("%+v", patch.Spec)
	}
	if got := one[rbacv1.RoleBinding](t, all, nil).Subjects[0].Name; got != "postgres-pod" {
		t.Errorf("the rights are for %s, and the operator's pods are postgres-pod", got)
	}
}

func decoded(t *testing.T, nodes []yaml.Node) []any {
	t.Helper()
	all := make([]any, len(nodes))
	for i, n := range nodes {
		if err := n.Decode(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
