//go:build servers

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// namespace is one with a service account that has exactly the Role of docs/dcs.md, and one Patroni
// scope, batman, which the test plays.
type namespace struct {
	*server
	name      string
	endpoints bool
	group     *int
	tokenFile string
	ttl       string // what Patroni writes
}

func (s *server) namespace(t *testing.T, endpoints bool) *namespace {
	t.Helper()
	n := &namespace{server: s, name: fmt.Sprintf("test-%d", s.scopes.Add(1)), endpoints: endpoints, ttl: "30"}
	s.do(t, "POST", "/api/v1/namespaces", object{"metadata": object{"name": n.name}})
	s.do(t, "POST", n.path("serviceaccounts"), object{"metadata": object{"name": "walbaton"}})
	s.do(t, "POST", n.rbac("roles"), n.role(t, "", ""))
	s.do(t, "POST", n.rbac("rolebindings"), object{
		"metadata": object{"name": "walbaton"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "walbaton"},
		"subjects": []object{{"kind": "ServiceAccount", "name": "walbaton", "namespace": n.name}},
	})
	n.tokenFile = filepath.Join(t.TempDir(), "token")
	token := n.token(t, nil)
	writeFile(t, n.tokenFile, token)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the server learns of a Role by a watch
		code, answer, err := s.As(token, "GET", n.leasePath(""), nil)
		if err == nil && code == http.StatusOK {
			return n
		}
		if time.Now().After(end) {
			t.Fatalf("the Role has no effect: %d %s %v", code, answer, err)
		}
	}
}

func (n *namespace) path(resource string) string {
	return "/api/v1/namespaces/" + n.name + "/" + resource
}
func (n *namespace) rbac(resource string) string {
	return "/apis/rbac.authorization.k8s.io/v1/namespaces/" + n.name + "/" + resource
}
func (n *namespace) leasePath(name string) string {
	return strings.TrimSuffix("/apis/coordination.k8s.io/v1/namespaces/"+n.name+"/leases/"+name, "/")
}

// role is the one of docs/dcs.md, without one verb on one resource.
func (n *namespace) role(t *testing.T, verb, resource string) object {
	t.Helper()
	text, err := os.ReadFile("../../../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "kind: Role\n")
	body, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("docs/dcs.md has no Role")
	}
	if !n.endpoints {
		body = strings.ReplaceAll(body, "endpoints", "configmaps")
	}
	var role struct {
		Rules []struct {
			APIGroups []string `yaml:"apiGroups"`
			Resources []string `yaml:"resources"`
			Verbs     []string `yaml:"verbs"`
		} `yaml:"rules"`
	}
	if err := yaml.Unmarshal([]byte(body), &role); err != nil {
		t.Fatal(err)
	}
	var rules []object
	for _, r := range role.Rules {
		for _, res := range r.Resources {
			verbs := []string{}
			for _, v := range r.Verbs {
				if v != verb || res != resource {
					verbs = append(verbs, v)
				}
			}
			rules = append(rules, object{"apiGroups": r.APIGroups, "resources": []string{res}, "verbs": verbs})
		}
	}
	return object{"metadata": object{"name": "walbaton"}, "rules": rules}
}

// token asks for one of the service account, that lives as long as the object it is bound to.
func (n *namespace) token(t *testing.T, boundTo object) string {
	t.Helper()
	spec := object{"expirationSeconds": 3600}
	if boundTo != nil {
		spec["boundObjectRef"] = boundTo
	}
	answer := n.do(t, "POST", n.path("serviceaccounts/walbaton/token"), object{"spec": spec})
	return answer["status"].(map[string]any)["token"].(string)
}

func (n *namespace) config() Config {
	return Config{
		Access:    Access{Server: n.URL, CACert: n.Authority, TokenFile: n.tokenFile},
		Namespace: n.name, Scope: "batman", Group: n.group,
		Labels: map[string]string{"application": "patroni"}, ScopeLabel: "cluster-name", Endpoints: n.endpoints,
	}
}

func (n *namespace) client(t *testing.T) *Client {
	t.Helper()
	return open(t, n.config())
}

// open makes a client of ours that is closed at the end.
func open(t *testing.T, c Config) *Client {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (n *namespace) labels() object {
	l := object{"application": "patroni", "cluster-name": "batman"}
	if n.group != nil {
		l["citus-group"] = strconv.Itoa(*n.group)
	}
	return l
}

// object is where Patroni keeps a key.
func (n *namespace) object(key string) (path, name string) {
	kind, base := "configmaps", "batman"
	if n.endpoints {
		kind = "endpoints"
	}
	if n.group != nil {
		base += "-" + strconv.Itoa(*n.group)
	}
	switch key {
	case "leader", "status", "failsafe":
		if !n.endpoints {
			base += "-leader"
		}
	case "config", "initialize", "history":
		base += "-config"
	default:
		base += "-" + key
	}
	return n.path(kind), base
}

// patch writes annotations as Patroni does: into the object, or a new one; nil removes one.
func (n *namespace) patch(t *testing.T, path, name string, annotations object, spec object) {
	t.Helper()
	code, answer, err := n.try("PATCH", path+"/"+name, object{"metadata": object{"annotations": annotations}})
	if err == nil && code == http.StatusNotFound {
		o := object{"metadata": object{"name": name, "labels": n.labels(), "annotations": annotations}}
		if spec != nil {
			o["spec"] = spec
		}
		n.do(t, "POST", path, o)
		return
	}
	if err != nil || code != http.StatusOK {
		t.Fatalf("patch %s: %d %s %v", name, code, answer, err)
	}
}

// put writes a key of Patroni's where Patroni has it on Kubernetes.
func (n *namespace) put(t *testing.T, key, value string) {
	t.Helper()
	if pod, ok := strings.CutPrefix(key, "members/"); ok {
		spec := object{"containers": []object{{"name": "postgres", "image": "none"}}}
		n.patch(t, n.path("pods"), pod, object{"status": value}, spec)
		return
	}
	path, name := n.object(key)
	annotations := object{key: value}
	switch key {
	case "leader":
		annotations = n.leading(t, path+"/"+name, value)
	case "status":
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(value), &fields); err != nil {
			t.Fatal(err)
		}
		annotations = object{}
		for k, v := range fields {
			annotations[k] = string(v)
		}
	case "sync", "failover":
		annotations = object{}
		if err := json.Unmarshal([]byte(value), &annotations); err != nil {
			t.Fatal(err)
		}
	}
	n.patch(t, path, name, annotations, nil)
}

// leading are the annotations with which Patroni takes or renews the leader lock.
func (n *namespace) leading(t *testing.T, path, leader string) object {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000+00:00")
	a := object{"leader": leader, "ttl": n.ttl, "renewTime": now, "acquireTime": now, "transitions": "0"}
	code, answer, err := n.try("GET", path, nil)
	if err != nil || code != http.StatusOK {
		return a
	}
	var o struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(answer, &o); err != nil {
		t.Fatal(err)
	}
	was := o.Metadata.Annotations
	if was["transitions"] == "" {
		return a
	}
	transitions, _ := strconv.Atoi(was["transitions"])
	if was["leader"] == leader {
		a["acquireTime"] = was["acquireTime"]
	} else {
		transitions++
	}
	a["transitions"] = strconv.Itoa(transitions)
	return a
}

func (n *namespace) delete(t *testing.T, key string) {
	t.Helper()
	path, name := n.object(key)
	n.patch(t, path, name, object{key: nil}, nil)
}

func (n *namespace) scope() dcstest.Scope {
	return dcstest.Scope{
		Client: func(t *testing.T) dcs.DCS { return n.client(t) },
		Put:    n.put,
		Delete: n.delete,
		TTL:    2 * time.Second,
		Slack:  2 * time.Second, // clocks are our own, but the machine is busy
		Server: n.server,
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
