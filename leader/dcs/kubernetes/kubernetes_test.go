package kubernetes

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

func TestNames(t *testing.T) {
	group := 2
	n := namesOf(Config{Scope: "demo", ScopeLabel: "cluster-name", Group: &group, Labels: map[string]string{"application": "spilo"}, Endpoints: true})
	for got, want := range map[string]string{
		n.leader: "demo-2", n.config: "demo-2-config", n.baton: "demo-2-walbaton", n.kind: "endpoints",
		n.patroni: "application=spilo,citus-group=2,cluster-name=demo",
		n.ours:    "walbaton/group=2,walbaton/scope=demo",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	n = namesOf(Config{Scope: "demo", ScopeLabel: "version"})
	if n.leader != "demo-leader" || n.kind != "configmaps" || n.patroni != "version=demo" || n.ours != "walbaton/scope=demo,!walbaton/group" {
		t.Errorf("got %+v", n)
	}
	if got := n.record("demo-0.x"); got != "demo-walbaton-demo-0.x" {
		t.Errorf("got %s", got)
	}
	seen := map[string]string{}
	for _, odd := range []string{"N1", "n_1", "größe", "a/b", "-a", "a-", ".a", "a..b", "a b", strings.Repeat("a", 250)} {
		name := n.record(odd)
		if !strings.HasPrefix(name, "demo-walbaton.") || len(name) > 253 || !plain(name) || seen[name] != "" {
			t.Errorf("%q: %s, like that of %q", odd, name, seen[name])
		}
		seen[name] = odd
	}
}

func TestNew(t *testing.T) {
	good := Config{Access: Access{Server: "https://127.0.0.1:1"}, Namespace: "db", Scope: "demo", ScopeLabel: "cluster-name"}
	c, err := New(good)
	if err != nil || c.String() != "kubernetes https://127.0.0.1:1/db/demo" {
		t.Errorf("%v, %v", c, err)
	}
	for name, change := range map[string]func(c *Config){
		"no namespace":   func(c *Config) { c.Namespace = "" },
		"no scope":       func(c *Config) { c.Scope = "" },
		"no scope label": func(c *Config) { c.ScopeLabel = "" },
		"no CA":          func(c *Config) { c.Access.CACert = "/nowhere" },
		"no kubeconfig":  func(c *Config) { c.Access = Access{Kubeconfig: "/nowhere"} },
	} {
		bad := good
		change(&bad)
		if c, err := New(bad); err == nil {
			t.Errorf("%s: %v", name, c)
		}
	}
}

func TestFind(t *testing.T) {
	env := func(vars map[string]string) func(string) string {
		return func(name string) string { return vars[name] }
	}
	for want, vars := range map[Access]map[string]string{
		{Kubeconfig: "/home/p/.kube/config", Context: "lab"}: {"HOME": "/home/p", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
		{Kubeconfig: "/k", Context: "lab"}:                   {"HOME": "/home/p", "KUBECONFIG": "/k", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"},
	} {
		if got := Find(env(vars), filepath.Join(t.TempDir(), "no-ca"), "lab"); got != want {
			t.Errorf("%v: %+v, want %+v", vars, got, want)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if filled(empty) {
		t.Error("an empty file counts")
	}
}

func TestJSONOf(t *testing.T) {
	for want, a := range map[string]map[string]string{
		"":                                {"other": "x"},
		`{"optime":18446744073709551615}`: {"optime": "18446744073709551615"},
		`{"optime":"","slots":{"a":1}}`:   {"optime": "", "slots": `{"a":1}`},
		`{"slots":"{\"a\":"}`:             {"slots": `{"a":`},
	} {
		if got := jsonOf(a, "optime", "slots"); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
}

func TestRevisions(t *testing.T) {
	if r, ok := parseRevisions(revisions{1, 2, 18446744073709551615}.String()); !ok || r != (revisions{1, 2, 18446744073709551615}) {
		t.Error(r, ok)
	}
	for _, bad := range []string{"", "1", "1/2", "1/2/3/4", "1/2/x", "1/2/-3", "1//3"} {
		if r, ok := parseRevisions(bad); ok {
			t.Errorf("%q: %v", bad, r)
		}
	}
}

// What counts is how long we have seen no change.
func TestSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		look := func(mark string, want bool) {
			t.Helper()
			if got := s.look("k", mark, 10*time.Second); got != want {
				t.Errorf("%s at %v: %t", mark, time.Now(), got)
			}
		}
		look("a", true)
		time.Sleep(10*time.Second - time.Nanosecond)
		look("a", true)
		time.Sleep(time.Nanosecond)
		look("a", false)
		look("b", true)
		time.Sleep(9 * time.Second)
		look("a", true) // an old answer that comes late
		time.Sleep(9 * time.Second)
		look("b", true)
		if end, ok := s.end("k"); !ok || time.Until(end) != 10*time.Second {
			t.Error(end, ok)
		}
		s.keep(map[string]bool{})
		if _, ok := s.end("k"); ok {
			t.Error("it is remembered")
		}
	})
}

// A Lease that others have written in is read without harm.
func TestForeignLease(t *testing.T) {
	var c Client
	var l coordinationv1.Lease
	if got := c.holding(&l); got.Held() || epoch(&l) != 0 || duration(&l) != foreignDuration {
		t.Errorf("%+v", got)
	}
	if _, _, ok := c.recordOf(&l); ok {
		t.Error("a record without a value")
	}
}

// An answer that breaks off is an error of the reading. client-go wrote it to standard error as well, in its own form.
func TestNothingBesideTheLog(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("{"))
	}))
	defer server.Close()
	c, err := New(Config{Access: Access{Server: server.URL}, Namespace: "db", Scope: "demo", ScopeLabel: "cluster-name"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	real := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = real }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err = c.Read(ctx); err == nil {
		t.Error("half an answer was taken for a reading")
	}
	if _, _, err = c.writer.find(ctx, c.names.baton); err == nil {
		t.Error("half an answer was taken for a Lease")
	}
	if said, err := os.ReadFile(file.Name()); err != nil || len(said) > 0 {
		t.Errorf("%q, %v", said, err)
	}
}
