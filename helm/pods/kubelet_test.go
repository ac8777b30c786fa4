//go:build servers

package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// kubelet runs pods of one namespace by podman, as far as the chart's go.
type kubelet struct {
	t         *testing.T
	api       *dcstest.APIServer
	gateway   string // of the pods' network: this machine
	namespace string
	dir       string // volumes, by claim or pod
}

// do sends a request to the API server, which must succeed, and reads its answer into one.
func (k *kubelet) do(method, path string, body, answer any) {
	k.t.Helper()
	code, text, err := k.api.As(dcstest.AdminToken, method, path, body)
	if err == nil && code >= 300 {
		err = fmt.Errorf("%d %s", code, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		k.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// pod is one that runs.
type pod struct {
	k      *kubelet
	name   string
	ip     string
	object core.Pod
	// containers has podman's names of the running ones, by the name in the pod, and in the order of their start.
	containers map[string]string
	order      []string
}

// play makes the pod of an ordinal, as the controller of StatefulSets does, and runs it.
func (k *kubelet) play(ctx context.Context, set apps.StatefulSet, ordinal int) *pod {
	k.t.Helper()
	name := fmt.Sprintf("%s-%d", set.Name, ordinal)
	made := core.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	made.Name, made.Namespace, made.Spec.Hostname, made.Spec.Subdomain, made.Spec.NodeName = name, k.namespace, name, set.Spec.ServiceName, "node"
	if made.Labels == nil {
		made.Labels = map[string]string{}
	}
	made.Labels["statefulset.kubernetes.io/pod-name"], made.Labels["apps.kubernetes.io/pod-index"] = name, strconv.Itoa(ordinal)
	for _, claim := range set.Spec.VolumeClaimTemplates {
		made.Spec.Volumes = append(made.Spec.Volumes, core.Volume{Name: claim.Name, VolumeSource: core.VolumeSource{
			PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name}}})
	}
	p := &pod{k: k, name: name, containers: map[string]string{}}
	k.do(http.MethodPost, k.path("pods"), made, &p.object)

	// What a pause container is elsewhere: it holds the pod's network.
	p.start("pause", "--network", "podman", "--hostname", name, "localhost/debian:bookworm", "sleep", "infinity")
	p.ip = strings.TrimSpace(podman(k.t, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", p.containers["pause"]))
	p.report(core.PodPending, false)
	p.volumes(ctx)
	for _, c := range p.object.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == core.ContainerRestartPolicyAlways {
			p.run(c)
			p.started(ctx, c)
			continue
		}
		podman(k.t, append([]string{"run", "--rm", "--name", p.container(c.Name)}, p.arguments(c)...)...)
	}
	for _, c := range p.object.Spec.Containers {
		p.run(c)
		p.started(ctx, c)
	}
	p.report(core.PodRunning, true)
	return p
}

func (k *kubelet) path(kind string) string { return "/api/v1/namespaces/" + k.namespace + "/" + kind }

func (p *pod) container(name string) string {
	return filepath.Base(p.k.dir) + "-" + p.name + "-" + name
}

func (p *pod) run(c core.Container) { p.start(c.Name, p.arguments(c)...) }

// start runs a container until the pod ends.
func (p *pod) start(name string, args ...string) {
	p.k.t.Helper()
	p.containers[name], p.order = p.container(name), append(p.order, name)
	p.k.t.Cleanup(func() { podman(p.k.t, "rm", "--force", "--time", "0", "--ignore", p.container(name)) })
	podman(p.k.t, append([]string{"run", "--detach", "--name", p.container(name)}, args...)...)
}

// arguments are those of podman run for a container of the pod.
func (p *pod) arguments(c core.Container) []string {
	args := []string{"--read-only-tmpfs=false", "--network", "container:" + p.containers["pause"]}
	var common core.PodSecurityContext
	if s := p.object.Spec.SecurityContext; s != nil {
		common = *s
	}
	user, group := common.RunAsUser, common.RunAsGroup
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			user = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			group = s.RunAsGroup
		}
		if s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem {
			args = append(args, "--read-only")
		}
		if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
			args = append(args, "--security-opt", "no-new-privileges")
		}
		if s.Capabilities != nil {
			for _, drop := range s.Capabilities.Drop {
				args = append(args, "--cap-drop", string(drop))
			}
		}
	}
	if user != nil {
		as := strconv.FormatInt(*user, 10)
		if group != nil {
			as += ":" + strconv.FormatInt(*group, 10)
		} else {
			as += ":0"
		}
		args = append(args, "--user", as)
	}
	if common.FSGroup != nil {
		args = append(args, "--group-add", strconv.FormatInt(*common.FSGroup, 10))
	}
	for _, e := range p.environment(c) {
		args = append(args, "--env", e)
	}
	for _, m := range c.VolumeMounts {
		mount := filepath.Join(p.volume(m.Name), m.SubPath) + ":" + m.MountPath
		if m.ReadOnly {
			mount += ":ro"
		}
		args = append(args, "--volume", mount)
	}
	if c.WorkingDir != "" {
		args = append(args, "--workdir", c.WorkingDir)
	}
	if len(c.Command) > 0 {
		entry, err := json.Marshal(c.Command)
		if err != nil {
			p.k.t.Fatal(err)
		}
		args = append(args, "--entrypoint", string(entry))
	}
	return append(append(args, c.Image), c.Args...)
}

// environment is a container's, with what a kubelet adds.
func (p *pod) environment(c core.Container) []string {
	t, k := p.k.t, p.k
	t.Helper()
	port := k.api.URL[strings.LastIndex(k.api.URL, ":")+1:]
	known := map[string]string{"KUBERNETES_SERVICE_HOST": k.gateway, "KUBERNETES_SERVICE_PORT": port, "KUBERNETES_PORT": "tcp://" + k.gateway + ":" + port}
	var all []string
	for name, value := range known {
		all = append(all, name+"="+value)
	}
	set := func(name, value string) {
		known[name] = value
		all = append(all, name+"="+value)
	}
	for _, from := range c.EnvFrom {
		switch {
		case from.SecretRef != nil:
			for name, value := range k.secret(from.SecretRef.Name) {
				set(from.Prefix+name, string(value))
			}
		case from.ConfigMapRef != nil:
			for name, value := range k.configMap(from.ConfigMapRef.Name) {
				set(from.Prefix+name, value)
			}
		}
	}
	for _, e := range c.Env {
		value := e.Value
		for name, v := range known {
			value = strings.ReplaceAll(value, "$("+name+")", v)
		}
		if from := e.ValueFrom; from != nil {
			switch {
			case from.FieldRef != nil:
				value = p.field(from.FieldRef.FieldPath)
			case from.SecretKeyRef != nil:
				value = string(k.secret(from.SecretKeyRef.Name)[from.SecretKeyRef.Key])
			case from.ConfigMapKeyRef != nil:
				value = k.configMap(from.ConfigMapKeyRef.Name)[from.ConfigMapKeyRef.Key]
			default:
				t.Fatalf("%s: the variable %s comes from something that this kubelet does not know", c.Name, e.Name)
			}
		}
		set(e.Name, value)
	}
	return all
}

// field is what the downward API gives.
func (p *pod) field(path string) string {
	switch path {
	case "metadata.name":
		return p.name
	case "metadata.namespace":
		return p.k.namespace
	case "status.podIP":
		return p.ip
	}
	p.k.t.Fatalf("the field %s is not known to this kubelet", path)
	return ""
}

func (k *kubelet) secret(name string) map[string][]byte {
	var s core.Secret
	k.do(http.MethodGet, k.path("secrets/"+name), nil, &s)
	return s.Data
}

func (k *kubelet) configMap(name string) map[string]string {
	var m core.ConfigMap
	k.do(http.MethodGet, k.path("configmaps/"+name), nil, &m)
	return m.Data
}

// volume is the folder of a volume of the pod: a claim's outlives it.
func (p *pod) volume(name string) string {
	for _, v := range p.object.Spec.Volumes {
		switch {
		case v.Name != name:
		case v.PersistentVolumeClaim != nil:
			return filepath.Join(p.k.dir, "claims", v.PersistentVolumeClaim.ClaimName)
		case v.HostPath != nil:
			return v.HostPath.Path
		}
	}
	return filepath.Join(p.k.dir, "pods", p.name, string(p.object.UID), name)
}

// volumes makes the folders of the pod, and fills those with something in them.
func (p *pod) volumes(ctx context.Context) {
	t := p.k.t
	t.Helper()
	for _, v := range p.object.Spec.Volumes {
		dir := p.volume(v.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		sources := []core.VolumeProjection{}
		switch {
		case v.ConfigMap != nil:
			sources = append(sources, core.VolumeProjection{ConfigMap: &core.ConfigMapProjection{LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items}})
		case v.Secret != nil:
			sources = append(sources, core.VolumeProjection{Secret: &core.SecretProjection{LocalObjectReference: core.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items}})
		case v.Projected != nil:
			sources = v.Projected.Sources
		case v.HostPath != nil:
			continue
		}
		for _, s := range sources {
			p.project(dir, s)
		}
		p.own(dir)
	}
	p.account(ctx)
}

// own gives a volume to the group of the pod, as fsGroup says.
func (p *pod) own(dir string) {
	s := p.object.Spec.SecurityContext
	if s == nil || s.FSGroup == nil {
		return
	}
	group := strconv.FormatInt(*s.FSGroup, 10)
	if info, err := os.Stat(dir); err == nil && info.Mode()&os.ModeSetgid != 0 {
		return // fsGroupChangePolicy: OnRootMismatch; PostgreSQL does not start on a data directory that its group may write to
	}
	if out, err := exec.Command("sh", "-euc", `chgrp -R "$1" "$2"; chmod -R g+rwX "$2"; chmod g+s "$2"`, "sh", group, dir).CombinedOutput(); err != nil {
		p.k.t.Fatalf("%v: %s", err, out)
	}
}

// project writes the files of one source of a volume.
func (p *pod) project(dir string, s core.VolumeProjection) {
	t := p.k.t
	t.Helper()
	files, items := map[string][]byte{}, []core.KeyToPath{}
	switch {
	case s.ConfigMap != nil:
		for name, text := range p.k.configMap(s.ConfigMap.Name) {
			files[name] = []byte(text)
		}
		items = s.ConfigMap.Items
	case s.Secret != nil:
		files, items = p.k.secret(s.Secret.Name), s.Secret.Items
	default:
		t.Fatalf("the source %+v of a volume is not known to this kubelet", s)
	}
	if len(items) > 0 {
		chosen := map[string][]byte{}
		for _, i := range items {
			chosen[i.Path] = files[i.Key]
		}
		files = chosen
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// accountMount is where clients look for the token of their pod.
const accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"

// account adds the volume with the token of the service account, unless the pod does not want it.
func (p *pod) account(context.Context) {
	t, k, spec := p.k.t, p.k, &p.object.Spec
	t.Helper()
	if spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken {
		return
	}
	const volume = "kube-api-access"
	account := spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	var token struct{ Status struct{ Token string } }
	k.do(http.MethodPost, k.path("serviceaccounts/"+account+"/token"), map[string]any{"spec": map[string]any{"expirationSeconds": 3600,
		"boundObjectRef": map[string]any{"kind": "Pod", "apiVersion": "v1", "name": p.name, "uid": p.object.UID}}}, &token)
	ca, err := os.ReadFile(k.api.Authority)
	if err != nil {
		t.Fatal(err)
	}
	dir := p.volume(volume)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"token": []byte(token.Status.Token), "ca.crt": ca, "namespace": []byte(k.namespace)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range [][]core.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = append(list[i].VolumeMounts, core.VolumeMount{Name: volume, MountPath: accountMount, ReadOnly: true})
		}
	}
}

// started waits for what the startup probe of a container asks for.
func (p *pod) started(ctx context.Context, c core.Container) {
	t := p.k.t
	t.Helper()
	if c.StartupProbe == nil || c.StartupProbe.HTTPGet == nil {
		return
	}
	get := c.StartupProbe.HTTPGet
	port := get.Port.String()
	for _, named := range c.Ports {
		if named.Name == port {
			port = strconv.Itoa(int(named.ContainerPort))
		}
	}
	client := http.Client{Timeout: 2 * time.Second}
	until(ctx, t, 60*time.Second, "the startup probe of "+p.name+"/"+c.Name, func() error {
		resp, err := client.Get("http://" + p.ip + ":" + port + get.Path)
		if err != nil {
			return fmt.Errorf("%w; it says %s", err, p.logs(c.Name, 5))
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 400 {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}

// report tells the API server what a kubelet tells it.
func (p *pod) report(phase core.PodPhase, ready bool) {
	status := core.ConditionFalse
	if ready {
		status = core.ConditionTrue
	}
	now := meta.Now()
	p.k.do(http.MethodPatch, p.k.path("pods/"+p.name+"/status"), map[string]any{"status": core.PodStatus{
		Phase: phase, PodIP: p.ip, PodIPs: []core.PodIP{{IP: p.ip}}, HostIP: p.k.gateway, StartTime: &now,
		Conditions: []core.PodCondition{{Type: core.PodReady, Status: status, LastTransitionTime: now}},
	}}, nil)
}

// kill is what happens to a pod whose machine loses its power: no container is told, and the pod's object goes. Its claims stay.
func (p *pod) kill() {
	p.k.t.Helper()
	args := []string{"kill"}
	for _, c := range p.order {
		args = append(args, p.containers[c])
	}
	podman(p.k.t, args...)
	p.gone()
}

// stop is what a kubelet does when a pod is deleted: the containers first, all at once, and then the native sidecars, the last one first.
func (p *pod) stop() {
	p.k.t.Helper()
	var native []string
	for _, c := range p.object.Spec.InitContainers {
		if name := p.containers[c.Name]; name != "" {
			native = append([]string{name}, native...)
		}
	}
	args := []string{"stop", "--time", "60"}
	for _, c := range p.object.Spec.Containers {
		args = append(args, p.containers[c.Name])
	}
	podman(p.k.t, args...)
	for _, name := range native {
		podman(p.k.t, "stop", "--time", "30", name)
	}
	p.gone()
}

// gone removes what is left of the pod.
func (p *pod) gone() {
	p.k.t.Helper()
	for _, c := range slices.Backward(p.order) { // that with the network last
		podman(p.k.t, "rm", "--force", "--time", "0", p.containers[c])
	}
	p.k.do(http.MethodDelete, p.k.path("pods/"+p.name), map[string]any{"gracePeriodSeconds": 0}, nil)
}

// exec runs a program in a container and gives what it prints.
func (p *pod) exec(container string, args ...string) (string, error) {
	return try("podman", append([]string{"--runtime", "runc", "exec", p.containers[container]}, args...)...)
}

// logs are the last lines of a container.
func (p *pod) logs(container string, lines int) string {
	out, err := exec.Command("podman", "logs", "--tail", strconv.Itoa(lines), p.containers[container]).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// podman runs it, and gives what it prints. Some machines may not raise limits, which podman does unless it is told some.
func podman(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] == "run" {
		args = append([]string{"run", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=5000:5000"}, args[1:]...)
	}
	out, err := try("podman", append([]string{"--runtime", "runc"}, args...)...)
	if err != nil {
		t.Fatalf("podman %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// try runs a program and gives what it prints; an error has what it wrote to stderr.
func try(program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// until repeats f until it succeeds.
func until(ctx context.Context, t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}
