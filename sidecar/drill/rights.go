package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

// The API server writes down what the nodes' service account does, so that a drill can tell which of its rights nobody needs.
const (
	auditLog    = "audit.log"
	auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:` + kubeNamespace + `:postgres"]}
- {level: None}
`
)

// rights renders the service account of the chart's own Patroni cluster, and the Roles that are bound to it: Patroni's and walbaton's.
func (k *kubernetesServer) rights(ctx context.Context) (objects []struct{ path, text string }, err error) {
	helm, err := toolPath("helm@v3.22.0")
	if err != nil {
		return nil, err
	}
	top, err := checkoutFolder()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, helm, "template", "drill", filepath.Join(top, "helm", "walbaton"), "--namespace", kubeNamespace, "--show-only", "templates/rbac.yaml",
		"--set", "patroni.enabled=true,serviceAccount.name=postgres,archive.url=file:///unused,patroni.kubernetes.useEndpoints="+fmt.Sprint(k.endpoints))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	manifest, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("helm template: %w: %s", err, complaints.String())
	}
	core, rbac := "/api/v1/namespaces/"+kubeNamespace+"/", "/apis/rbac.authorization.k8s.io/v1/namespaces/"+kubeNamespace+"/"
	paths := map[string]string{"ServiceAccount": core + "serviceaccounts", "Role": rbac + "roles", "RoleBinding": rbac + "rolebindings"}
	for d := yaml.NewDecoder(bytes.NewReader(manifest)); ; {
		var object map[string]any
		if err := d.Decode(&object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, fmt.Errorf("read what the chart renders: %w", err)
		}
		kind := fmt.Sprint(object["kind"])
		if kind == "Role" {
			k.allow(object)
		}
		text, err := json.Marshal(object)
		if err != nil || paths[kind] == "" {
			return nil, errors.Join(err, fmt.Errorf("the chart's rights have a %s", kind))
		}
		objects = append(objects, struct{ path, text string }{paths[kind], string(text)})
	}
}

// allow notes the rules of a Role.
func (k *kubernetesServer) allow(role map[string]any) {
	words := func(rule any, key string) []any {
		list, _ := rule.(map[string]any)[key].([]any)
		return list
	}
	for _, rule := range words(role, "rules") {
		for _, resource := range words(rule, "resources") {
			for _, verb := range words(rule, "verbs") {
				if right := fmt.Sprintf("%v %v", verb, resource); !slices.Contains(k.allowed, right) {
					k.allowed = append(k.allowed, right)
				}
			}
		}
	}
}

// UnusedRights lists what the chart's Roles let the nodes do and none has done yet, as "verb resource". It is for clusters on Kubernetes.
func (c *Cluster) UnusedRights() ([]string, error) {
	k, ok := c.dcs.(*kubernetesServer)
	if !ok {
		return nil, errors.New("the cluster is not on Kubernetes")
	}
	log, err := os.Open(k.in(auditLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if len(k.allowed) == 0 {
		return nil, errors.New("the chart gives no rights at all")
	}
	unused := slices.Clone(k.allowed)
	for d := json.NewDecoder(log); ; {
		var event struct {
			Verb           string
			ObjectRef      struct{ Resource string }
			ResponseStatus struct{ Code int }
		}
		if err := d.Decode(&event); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it is just being written
			return unused, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if event.ResponseStatus.Code < 400 {
			unused = slices.DeleteFunc(unused, func(right string) bool { return right == event.Verb+" "+event.ObjectRef.Resource })
		}
	}
}

// checkoutFolder is the checkout that the drill runs in.
func checkoutFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; !exists(filepath.Join(dir, "go.mod")); dir = filepath.Dir(dir) {
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is no checkout: no folder above has a go.mod")
		}
	}
	return dir, nil
}
