package rest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// store is the DCS behind the Patronis of a test: keys as Patroni writes them.
type store struct {
	mu   sync.Mutex
	keys map[string]string
	away bool // no Patroni reaches it
}

func newStore() *store { return &store{keys: map[string]string{}} }

func (s *store) put(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = value
}

func (s *store) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
}

// patroni plays the REST API of one member, as patroni/api.py of 2.1 to 4.1 answers.
type patroni struct {
	*store
	name   string
	scope  string
	url    string
	old    bool          // before 3.2 it does not say its name
	modern bool          // 4.1: LSNs in /cluster, replication_state for state
	unseen time.Duration // how long ago it saw the DCS
}

func newPatroni(t *testing.T, s *store, name string) *patroni {
	p := &patroni{store: s, name: name, scope: "batman"}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *patroni) reader(t *testing.T) *DCS {
	t.Helper()
	d, err := New(Config{Member: p.name, Scope: "batman", URL: p.url, Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (p *patroni) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := func(v any) {
		b, _ := json.Marshal(v)
		w.Write(b)
	}
	switch r.URL.Path {
	case "/patroni":
		answer(p.status())
	case "/cluster":
		if !p.away { // else: an empty body
			answer(p.cluster())
		}
	case "/history":
		if h := p.keys["history"]; h != "" {
			w.Write([]byte(h))
			return
		}
		w.Write([]byte("[]"))
	case "/config":
		if p.keys["config"] == "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Write([]byte(p.keys["config"]))
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (p *patroni) member(name string) map[string]any {
	m := map[string]any{}
	json.Unmarshal([]byte(p.keys["members/"+name]), &m)
	return m
}

func (p *patroni) status() map[string]any {
	m := p.member(p.name)
	inner := map[string]any{"version": "3.0.2", "scope": p.scope}
	if !p.old {
		inner["name"] = p.name
	}
	out := map[string]any{"patroni": inner, "state": "running", "dcs_last_seen": time.Now().Add(-p.unseen).Unix()}
	for _, k := range []string{"state", "role", "timeline", "replication_state", "tags", "pending_restart"} {
		if v, ok := m[k]; ok {
			out[k] = v
		}
	}
	if lsn, ok := m["xlog_location"]; ok && m["role"] == "replica" {
		out["xlog"] = map[string]any{"received_location": lsn, "replayed_location": lsn}
	} else if ok {
		out["xlog"] = map[string]any{"location": lsn}
	}
	if id := p.keys["initialize"]; id != "" {
		out["database_system_identifier"] = id
	}
	if p.keys["leader"] == "" {
		out["cluster_unlocked"] = true
	}
	return out
}

// cluster is Patroni's cluster_as_json (patroni/utils.py).
func (p *patroni) cluster() map[string]any {
	var names []string
	for key := range p.keys {
		if name, ok := strings.CutPrefix(key, "members/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	members := []any{}
	for _, name := range names {
		m := p.member(name)
		out := map[string]any{"name": name, "role": "replica", "state": "", "api_url": ""}
		for _, k := range []string{"state", "api_url", "timeline", "pending_restart", "tags"} {
			if v, ok := m[k]; ok {
				out[k] = v
			}
		}
		if host, port, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(text(m["conn_url"]), "postgres://"), "/postgres"), ":"); ok {
			out["host"] = host
			out["port"], _ = strconv.Atoi(port)
		}
		leads := name == p.keys["leader"]
		switch {
		case leads && strings.Contains(p.keys["config"], `"standby_cluster"`):
			out["role"] = "standby_leader"
		case leads:
			out["role"] = "leader"
		default:
			out["lag"] = 0
		}
		if p.modern && !leads {
			out["lsn"] = "0/4000060"
			if s := text(m["replication_state"]); s != "" {
				out["state"] = s
			}
		}
		members = append(members, out)
	}
	c := map[string]any{"members": members}
	if strings.Contains(p.keys["config"], `"pause":true`) {
		c["pause"] = true
	}
	return c
}

func text(v any) string { s, _ := v.(string); return s }

// key is a member's key that names p as its REST API.
func (p *patroni) key(role string, timeline int) string {
	b, _ := json.Marshal(map[string]any{"conn_url": "postgres://10.0.0.1:5433/postgres", "api_url": p.url + "/patroni",
		"state": "running", "role": role, "timeline": timeline, "xlog_location": 67108960})
	return string(b)
}

func read(t *testing.T, d *DCS) dcs.Reading {
	t.Helper()
	r, err := d.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
