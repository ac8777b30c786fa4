//go:build servers

package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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
	"k8s.io/apimachinery/pkg/util/intstr"

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

	p.prepare()
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

// prepare gives the pod its network and its volumes. hosts are NAME:IP that its containers find in /etc/hosts.
func (p *pod) prepare(hosts ...string) {
	p.k.t.Helper()
	args := []string{"--network", "podman", "--hostname", p.name}
	for _, h := range hosts {
		args = append(args, "--add-host", h)
	}
	// What a pause container is elsewhere: it holds the pod's network.
	p.start("pause", append(args, "localhost/debian:bookworm", "sleep", "infinity")...)
	p.ip = strings.TrimSpace(podman(p.k.t, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", p.containers["pause"]))
	p.report(core.PodPending, false)
	p.volumes()
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

// started waits for what the startup probe of a container asks for.
func (p *pod) started(ctx context.Context, c core.Container) {
	t := p.k.t
	t.Helper()
	if c.StartupProbe == nil || c.StartupProbe.HTTPGet == nil {
		return
	}
	get := c.StartupProbe.HTTPGet
	port := number(get.Port, c)
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

// number is a port as a number; it may be named by a container.
func number(port intstr.IntOrString, containers ...core.Container) string {
	for _, c := range containers {
		for _, named := range c.Ports {
			if port.Type == intstr.String && named.Name == port.StrVal {
				return strconv.Itoa(int(named.ContainerPort))
			}
		}
	}
	return port.String()
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
	p.remove()
	p.k.do(http.MethodDelete, p.k.path("pods/"+p.name), map[string]any{"gracePeriodSeconds": 0}, nil)
}

// remove removes the containers.
func (p *pod) remove() {
	p.k.t.Helper()
	for _, c := range slices.Backward(p.order) { // that with the network last
		podman(p.k.t, "rm", "--force", "--time", "0", p.containers[c])
	}
}

// exec runs a program in a container and gives what it prints.
func (p *pod) exec(container string, args ...string) (string, error) {
	return tryPodman(append([]string{"exec", p.containers[container]}, args...)...)
}

// logs are the last lines of a container.
func (p *pod) logs(container string, lines int) string {
	out, err := exec.Command("podman", "logs", "--tail", strconv.Itoa(lines), p.containers[container]).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// podman runs it, which must succeed, and gives what it prints.
func podman(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryPodman(args...)
	if err != nil {
		t.Fatalf("podman %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// tryPodman runs it. Some machines may not raise limits, which podman does unless it is told some.
func tryPodman(args ...string) (string, error) {
	if args[0] == "run" {
		args = append([]string{"run", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=5000:5000"}, args[1:]...)
	}
	return try("podman", append([]string{"--runtime", "runc"}, args...)...)
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
