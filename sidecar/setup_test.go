package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/leader/patroni"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/setup"
)

const (
	pushCommand  = "/usr/bin/walbaton-wal push %p"
	fetchCommand = "/usr/bin/walbaton-wal fetch %f %p"
)

// fakeCluster is three Patronis, each behind an HTTP server of its own, which share a dynamic configuration as Patroni 3.0 does, with a PostgreSQL each,
// and the sidecar beside n1. n2 leads.
type fakeCluster struct {
	mu      sync.Mutex
	dynamic map[string]any
	nodes   []*fakeNode
	paused  bool
	old     map[string]any // what GET /config still shows, twice more, after a change
	stale   int
	told    []string // "PATCH /config", "n1 POST /restart"
	sidecar string   // address

	refuse map[string]int // code by what is asked: "PATCH /config"
}

type fakeNode struct {
	c       *fakeCluster
	name    string
	url     string
	mode    string // archive_mode in effect
	own     map[string]string
	down    bool // the next restart does not end well: it does not stream afterwards
	lost    bool // it does not stream
	slow    int  // so often one must look after a change until it has noticed
	deaf    int  // so often from now on
	sidecar bool
}

func newFakeCluster(t *testing.T, dynamic string) *fakeCluster {
	t.Helper()
	c := &fakeCluster{refuse: map[string]int{}}
	if err := json.Unmarshal([]byte(dynamic), &c.dynamic); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n := &fakeNode{c: c, name: fmt.Sprint("n", i+1), sidecar: true}
		n.mode = n.file("archive_mode")
		server := httptest.NewServer(n)
		t.Cleanup(server.Close)
		n.url = server.URL
		c.nodes = append(c.nodes, n)
	}
	status := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		var st Status
		for _, n := range c.nodes {
			st.Members = append(st.Members, MemberStatus{Name: n.name, Sidecar: n.sidecar})
		}
		_ = json.NewEncoder(w).Encode(st)
	}))
	t.Cleanup(status.Close)
	c.sidecar = strings.TrimPrefix(status.URL, "http://")
	return c
}

// file is what Patroni writes into postgresql.conf of a node.
func (n *fakeNode) file(name string) string {
	if v, ok := n.own[name]; ok {
		return v
	}
	p, _ := n.c.dynamic["postgresql"].(map[string]any)
	params, _ := p["parameters"].(map[string]any)
	v, _ := params[name].(string)
	if v == "" && name == "archive_mode" {
		v = "off"
	}
	return v
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	asked := r.Method + " " + r.URL.Path
	if r.Method != http.MethodGet {
		n.c.told = append(n.c.told, n.name+" "+asked)
	}
	if code := n.c.refuse[asked]; code != 0 {
		http.Error(w, "refused", code)
		return
	}
	switch asked {
	case "GET /config":
		if n.c.stale > 0 {
			n.c.stale--
			_ = json.NewEncoder(w).Encode(n.c.old)
			return
		}
		_ = json.NewEncoder(w).Encode(n.c.dynamic)
	case "PATCH /config":
		var change map[string]any
		if json.Unmarshal(body, &change) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		before, _ := json.Marshal(n.c.dynamic) // it came from JSON
		n.c.old, n.c.stale = nil, 2
		_ = json.Unmarshal(before, &n.c.old)
		mergeConfig(n.c.dynamic, change)
		for _, m := range n.c.nodes {
			m.deaf = m.slow
		}
		_ = json.NewEncoder(w).Encode(n.c.dynamic)
	case "GET /cluster":
		var members []map[string]any
		for _, m := range n.c.nodes {
			member := map[string]any{"name": m.name, "role": "replica", "state": "running", "api_url": m.url + "/patroni", "host": "127.0.0.1", "port": 5432}
			if m.name == "n2" {
				member["role"] = "leader"
			}
			members = append(members, member)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"members": members, "pause": n.c.paused})
	case "GET /patroni":
		_ = json.NewEncoder(w).Encode(n.status())
	case "POST /restart":
		n.mode, n.lost = n.file("archive_mode"), n.down
		_, _ = io.WriteString(w, "restarted successfully")
	default:
		http.NotFound(w, r)
	}
}

func (n *fakeNode) status() map[string]any {
	st := map[string]any{"state": "running", "role": "replica", "server_version": 150015, "patroni": map[string]any{"version": "3.0.2", "scope": "shop"},
		"pending_restart": n.mode != n.file("archive_mode")}
	if n.name == "n2" {
		st["role"] = "master"
		var streams []map[string]any
		for _, m := range n.c.nodes {
			if m != n && !m.lost {
				streams = append(streams, map[string]any{"application_name": m.name, "state": "streaming"})
			}
		}
		st["replication"] = streams
	}
	return st
}

// ask is the PostgreSQL of a member.
func (c *fakeCluster) ask(_ context.Context, m restapi.Member) (inForce, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[slices.IndexFunc(c.nodes, func(n *fakeNode) bool { return n.name == m.Name })]
	got := inForce{values: map[string]setup.Value{}}
	for _, name := range setup.Names() {
		v := n.file(name)
		if n.deaf > 0 {
			v = "old"
		}
		got.values[name] = setup.Value{InEffect: v, InFile: v, File: "/pg/postgresql.conf"}
	}
	if n.deaf > 0 {
		n.deaf--
	}
	v := got.values["archive_mode"]
	v.InEffect = n.mode
	got.values["archive_mode"] = v
	return got, nil
}

// mergeConfig is patch_config of patroni/utils.py.
func mergeConfig(into, change map[string]any) {
	for k, v := range change {
		old, isMap := into[k].(map[string]any)
		sub, subIsMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap && subIsMap:
			mergeConfig(old, sub)
		case subIsMap:
			into[k] = maps.Clone(sub)
		default:
			into[k] = v
		}
	}
}

// run is walbaton setup on n1.
func (c *fakeCluster) run(t *testing.T, f setupFlags, more ...func(*settingUp)) (out string, err error) {
	t.Helper()
	api, err := restapi.New(restapi.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	var b strings.Builder
	c.mu.Lock()
	cfg := Config{Name: "n1", PatroniConfig: "/etc/patroni/config.yml", Patroni: patroni.Config{Scope: "shop", Name: "n1", PostgreSQL: patroni.PostgreSQL{Parameters: c.nodes[0].own}}}
	c.mu.Unlock()
	cmd := &cobra.Command{}
	cmd.SetIn(strings.NewReader(""))
	s := &settingUp{setupFlags: f, c: cmd, w: world{stdout: &b, stderr: &b}, every: time.Millisecond, patience: time.Minute,
		lookout: &lookout{cfg: cfg, api: api, base: c.nodes[0].url, address: c.sidecar, want: setup.Want{Mode: "always", Archive: pushCommand, Restore: fetchCommand}, ask: c.ask}}
	for _, m := range more {
		m(s)
	}
	err = s.run(t.Context())
	return b.String(), err
}

func (c *fakeCluster) tells(t *testing.T, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.told, want) {
		t.Errorf("Patroni was told %q, want %q", c.told, want)
	}
	c.told = nil
}

func says(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// From another archive to walbaton: shown, applied, restarted, and then nothing is to do.
func TestSetup(t *testing.T) {
	c := newFakeCluster(t, `{"loop_wait": 1, "postgresql": {"use_slots": true, "parameters": {"archive_mode": "on", "archive_command": "cp %p /old/%f", "max_connections": 50}}}`)
	out, err := c.run(t, setupFlags{})
	if exitCode(err) != exitFound {
		t.Errorf("got %v, want exit code %d", err, exitFound)
	}
	says(t, out, "cluster   shop: n2 (leader, PostgreSQL 15.15, Patroni 3.0.2); n1 (", "~ archive_mode  (postgresql.parameters)\n    now       on\n    wanted    always\n",
		"    now       cp %p /old/%f\n    wanted    "+pushCommand+"\n", "    now       (not set)\n    wanted    "+fetchCommand+"\n",
		"! the archive that this fills ends here, and the new one begins: cp %p /old/%f", "restart   afterwards n1, n3, then n2", "Nothing was changed. walbaton setup --apply makes it.")
	c.tells(t)

	out, err = c.run(t, setupFlags{apply: true})
	if exitCode(err) != exitUsage || !strings.Contains(fmt.Sprint(err), "nobody can be asked here, and nothing was changed") {
		t.Errorf("got %v of\n%s", err, out)
	}
	c.tells(t)

	c.nodes[2].slow = 3
	out, err = c.run(t, setupFlags{apply: true, yes: true})
	if exitCode(err) != exitFound {
		t.Errorf("got %v, want exit code %d", err, exitFound)
	}
	says(t, out, "is changed", "A restart is left for n1, n3, then n2")
	c.tells(t, "n1 PATCH /config")
	if c.nodes[2].deaf != 0 {
		t.Error("it did not wait for n3")
	}
	want := map[string]any{"loop_wait": 1.0, "postgresql": map[string]any{"use_slots": true, "parameters": map[string]any{"archive_mode": "always", "archive_command": pushCommand, "restore_command": fetchCommand, "max_connections": 50.0}}}
	if !reflect.DeepEqual(c.dynamic, want) {
		t.Errorf("the dynamic configuration is %v, want %v", c.dynamic, want)
	}

	out, err = c.run(t, setupFlags{apply: true, yes: true, restart: true})
	if err != nil {
		t.Error(err)
	}
	says(t, out, "n1: restarts ... done after", "n2: restarts in place, as the primary", "Done: nothing is left to do.")
	c.tells(t, "n1 POST /restart", "n3 POST /restart", "n2 POST /restart")

	for _, f := range []setupFlags{{}, {apply: true}, {apply: true, restart: true}} {
		if out, err = c.run(t, f); err != nil {
			t.Error(err)
		}
		says(t, out, "= archive_mode  (postgresql.parameters)\n    is right  always\n", "Nothing is to do.")
	}
	c.tells(t)
}

// A change that takes no restart: the Patroni that is asked shows the old configuration for a while.
func TestSetupReload(t *testing.T) {
	c := newFakeCluster(t, `{"loop_wait": 1, "postgresql": {"parameters": {"archive_mode": "always", "archive_command": "cp %p /old/%f", "restore_command": "`+fetchCommand+`"}}}`)
	out, err := c.run(t, setupFlags{apply: true, yes: true})
	if err != nil {
		t.Error(err)
	}
	says(t, out, "Done: nothing is left to do.\nTake a base backup")
	c.tells(t, "n1 PATCH /config")
}

// Where nodes have settings of their own, Patroni's dynamic configuration is not all.
func TestSetupOwn(t *testing.T) {
	c := newFakeCluster(t, `{"loop_wait": 1, "postgresql": {"parameters": {"archive_mode": "always", "archive_command": "`+pushCommand+`", "restore_command": "`+fetchCommand+`"}}}`)
	c.nodes[0].own = map[string]string{"archive_command": "cp %p /n1/%f"}
	c.nodes[2].own = map[string]string{"archive_command": "cp %p /n3/%f"}
	out, err := c.run(t, setupFlags{apply: true, yes: true})
	if exitCode(err) != exitFound {
		t.Errorf("got %v, want exit code %d", err, exitFound)
	}
	says(t, out, "! n1 has archive_command of its own, and that beats Patroni's dynamic configuration: cp %p /n1/%f (/etc/patroni/config.yml)\n  on n1: remove archive_command from postgresql.parameters in /etc/patroni/config.yml, then: patronictl reload shop n1",
		"! n3 has archive_command of its own", "on n3: remove archive_command from section postgresql of Patroni's file, then: patronictl reload shop n3", "in effect n1: cp %p /n1/%f")
	c.tells(t)
}

// It restarts nothing that the cluster would not bear, and goes on where it ended.
func TestSetupRestartRefused(t *testing.T) {
	const dynamic = `{"loop_wait": 1, "postgresql": {"parameters": {"archive_mode": "always", "archive_command": "` + pushCommand + `", "restore_command": "` + fetchCommand + `"}}}`
	go2 := setupFlags{apply: true, yes: true, restart: true}
	for want, change := range map[string]func(*fakeCluster){
		"Patroni is paused":             func(c *fakeCluster) { c.paused = true },
		"n3 does not stream":            func(c *fakeCluster) { c.nodes[2].lost = true },
		"no sidecar is alive beside n2": func(c *fakeCluster) { c.nodes[1].sidecar = false },
		"whether sidecars are alive is not known: ask the sidecar at 127.0.0.1:1": func(c *fakeCluster) { c.sidecar = "127.0.0.1:1" },
	} {
		c := newFakeCluster(t, dynamic)
		for _, n := range c.nodes {
			n.mode = "on"
		}
		change(c)
		_, err := c.run(t, go2)
		if exitCode(err) != exitFailed || !strings.Contains(explainError(err), "restart nothing now: "+want) || !strings.Contains(explainError(err), "not restarted: n1, n3, n2") {
			t.Errorf("%s: got %v", want, explainError(err))
		}
		c.tells(t)
	}

	c := newFakeCluster(t, dynamic)
	for _, n := range c.nodes {
		n.mode = "on"
	}
	c.nodes[2].down = true
	_, err := c.run(t, go2, func(s *settingUp) { s.patience = 300 * time.Millisecond })
	said := explainError(err)
	if exitCode(err) != exitFailed || !strings.Contains(said, "n3: it was restarted, and 300ms later: n3 does not stream") || !strings.Contains(said, "not restarted: n2.") {
		t.Errorf("got %s", said)
	}
	c.tells(t, "n1 POST /restart", "n3 POST /restart")
	c.nodes[2].down, c.nodes[2].lost = false, false
	if _, err := c.run(t, go2); err != nil {
		t.Error(err)
	}
	c.tells(t, "n2 POST /restart")
}

// What Patroni refuses is told, with what to do.
func TestSetupRefused(t *testing.T) {
	for code, want := range map[int]string{
		http.StatusUnauthorized: "user name or password (restapi.authentication) refused",
		http.StatusConflict:     "somebody changed it at the same time",
	} {
		c := newFakeCluster(t, `{}`)
		c.refuse["PATCH /config"] = code
		_, err := c.run(t, setupFlags{apply: true, yes: true})
		if exitCode(err) != exitFailed || !strings.Contains(explainError(err), want) {
			t.Errorf("%d: got %s", code, explainError(err))
		}
	}
	c := newFakeCluster(t, `{}`)
	c.refuse["GET /config"] = http.StatusBadGateway
	if _, err := c.run(t, setupFlags{}); !errors.Is(err, restapi.ErrNoConfig) {
		t.Errorf("got %v, want %v", err, restapi.ErrNoConfig)
	}
}

func TestSetupJSON(t *testing.T) {
	c := newFakeCluster(t, `{"loop_wait": 1}`)
	out, err := c.run(t, setupFlags{json: true, apply: true, yes: true, restart: true})
	if err != nil {
		t.Error(err)
	}
	var got setupReport
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !got.Applied || !got.Done || !reflect.DeepEqual(got.Restarted, []string{"n1", "n3", "n2"}) || got.Cluster != "shop" || len(got.Settings) != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestSetupWant(t *testing.T) {
	dir := t.TempDir()
	program, client := filepath.Join(dir, "walbaton"), filepath.Join(dir, "walbaton-wal")
	for _, f := range []string{program, client} {
		if err := os.WriteFile(f, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	got, err := findClient(filepath.Join(link, "walbaton"))
	if want := filepath.Join(link, "walbaton-wal"); err != nil || got != want {
		t.Errorf("got %s, %v, want %s: the link stays when the version changes", got, err, want)
	}
	t.Setenv("PATH", dir)
	if got, err := findClient("walbaton"); err != nil || got != client {
		t.Errorf("got %s, %v, want %s", got, err, client)
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := findClient("/nowhere/walbaton"); err == nil || !strings.Contains(err.Error(), "neither beside") {
		t.Errorf("got %v", err)
	}
	w, err := setupFlags{mode: "on", client: "/opt/w"}.want(Config{Socket: "/run/shop.sock"}, "/etc/shop.yml", true)
	if want := (setup.Want{Mode: "on", Archive: "/opt/w push --socket /run/shop.sock %p", Restore: "/opt/w fetch --socket /run/shop.sock --config /etc/shop.yml %f %p"}); err != nil || w != want {
		t.Errorf("got %+v, %v, want %+v", w, err, want)
	}
	w, err = setupFlags{mode: "always", client: "/opt/w", archive: "both %p"}.want(Config{Socket: setup.DefaultSocket}, "", false)
	if want := (setup.Want{Mode: "always", Archive: "both %p", Restore: "/opt/w fetch %f %p"}); err != nil || w != want {
		t.Errorf("got %+v, %v, want %+v", w, err, want)
	}
}
