//go:build servers

package pods

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	core "k8s.io/api/core/v1"
)

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
func (p *pod) volumes() {
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
	p.account()
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
	files := map[string][]byte{}
	var items []core.KeyToPath
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
func (p *pod) account() {
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
