package rest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	patronipkg "github.com/walbaton/walbaton/leader/patroni"
)

func parse(t *testing.T, r dcs.Reading) patronipkg.Cluster {
	t.Helper()
	c, err := patronipkg.Parse(r.Nodes)
	if err != nil || len(c.Warnings) > 0 {
		t.Fatalf("parse %v: %v, warnings %v", r.Nodes, err, c.Warnings)
	}
	return c
}

// The driver's keys are its own work, so only what is said of Wait fits it.
func TestWaiter(t *testing.T) {
	dcstest.Waiter(t, func(t *testing.T, test func(*testing.T, dcstest.Scope)) {
		p := newPatroni(t, newStore(), "n1")
		p.put("members/n1", p.key("replica", 1)) // /cluster shows a leader only if it is a member
		p.put("members/n2", `{"role":"replica","state":"running"}`)
		test(t, dcstest.Scope{
			Client: func(t *testing.T) dcs.DCS { return p.reader(t) },
			Put: func(t *testing.T, key, value string) {
				if key == "status" { // what it says comes with the LSNs of /patroni
					key, value = "members/n1", strings.Replace(p.key("replica", 1), "67108960", fmt.Sprint(67108960+time.Now().UnixNano()%1000), 1)
				}
				p.put(key, value)
			},
			Delete: func(t *testing.T, key string) { p.remove(key) },
			TTL:    time.Second,
		})
	})
}

// What a Patroni of each age says becomes what it wrote.
func TestRead(t *testing.T) {
	for _, tc := range []struct {
		name         string
		old, modern  bool
		primary      string
		replicaState string
	}{
		{"2.1", true, false, "master", ""},
		{"3.0.2", true, false, "master", ""},
		{"3.2", false, false, "master", ""},
		{"4.1", false, true, "primary", "streaming"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore()
			n1, n2 := newPatroni(t, s, "n1"), newPatroni(t, s, "n2")
			n1.old, n2.old, n1.modern, n2.modern = tc.old, tc.old, tc.modern, tc.modern
			s.put("initialize", "7710524633316114262")
			s.put("config", `{"ttl":20,"loop_wait":2,"retry_timeout":9}`)
			s.put("leader", "n1")
			s.put("members/n1", n1.key(tc.primary, 2))
			replica := strings.Replace(n2.key("replica", 2), "{", `{"tags":{"nofailover":true},"pending_restart":true,`, 1)
			if tc.replicaState != "" {
				replica = strings.Replace(replica, "{", `{"replication_state":"`+tc.replicaState+`",`, 1)
			}
			s.put("members/n2", replica)
			s.put("history", `[[1, 117440672, "no recovery target specified", "2026-11-21T07:34:52.716949+00:00", "n1"]]`)
			for _, p := range []*patroni{n1, n2} {
				c := parse(t, read(t, p.reader(t)))
				m1, m2 := c.Members["n1"], c.Members["n2"]
				if c.Leader != "n1" || c.SystemID != 7710524633316114262 || c.TTL != 20*time.Second || len(c.History) != 1 || c.StandbyCluster || c.Paused {
					t.Errorf("asked %s: %+v", p.name, c)
				}
				if m1.Role != "primary" || m1.State != "running" || m1.Timeline != 2 || m1.Host != "10.0.0.1" || m1.Port != 5433 || m1.APIURL != n1.url+"/patroni" {
					t.Errorf("asked %s: %+v", p.name, m1)
				}
				if m2.Role != "replica" || m2.State != "running" || m2.Timeline != 2 || m2.ReplicationState != tc.replicaState || !m2.PendingRestart || m2.Tags["nofailover"] != true {
					t.Errorf("asked %s: %+v", p.name, m2)
				}
				if own := c.Members[p.name]; own.LSN != 67108960 || own.Version != "3.0.2" {
					t.Errorf("asked %s of itself: %+v", p.name, own)
				}
				if tc.modern && p == n1 && m2.LSN != 0x4000060 {
					t.Errorf("n2 is at %x", m2.LSN)
				}
			}
		})
	}
}

// Answers of a real Patroni 3.0.2 in a lab, as they came.
func TestReal302(t *testing.T) {
	answers := map[string]string{
		"/patroni": `{"state": "running", "postmaster_start_time": "2026-11-21 07:33:34.099241+00:00", "role": "replica", "server_version": 150020, "xlog": {"received_location": 67108960, "replayed_location": 67108960, "replayed_timestamp": null, "paused": false}, "timeline": 1, "dcs_last_seen": ` + fmt.Sprint(time.Now().Unix()) + `, "database_system_identifier": "7710524633316114262", "patroni": {"version": "3.0.2", "scope": "lab"}}`,
		"/cluster": `{"members": [{"name": "n1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:8041/patroni", "host": "127.0.0.1", "port": 5541, "timeline": 3}, {"name": "n2", "role": "replica", "state": "running", "api_url": "http://127.0.0.1:8042/patroni", "host": "127.0.0.1", "port": 5542, "timeline": 2, "lag": 95992}, {"name": "n3", "role": "replica", "state": "stopped", "api_url": "http://127.0.0.1:8043/patroni", "host": "127.0.0.1", "port": 5543, "lag": "unknown"}]}`,
		"/history": `[[1, 117440672, "no recovery target specified", "2026-11-21T07:34:52.716949+00:00", "n2"], [2, 186996152, "no recovery target specified", "2026-11-21T07:35:54.488952+00:00", "n1"]]`,
		"/config":  `{"ttl": 20, "loop_wait": 2, "retry_timeout": 9, "maximum_lag_on_failover": 1048576, "postgresql": {"use_pg_rewind": true}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answers[r.URL.Path])) }))
	defer server.Close()
	d, err := New(Config{Member: "n2", Scope: "lab", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, read(t, d))
	if c.Leader != "n1" || len(c.Members) != 3 || len(c.History) != 2 || c.Members["n1"].Role != "primary" || c.Members["n3"].State != "stopped" || c.Members["n2"].Timeline != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestStates(t *testing.T) {
	s := newStore()
	p := newPatroni(t, s, "n1")
	d := p.reader(t)
	if r := read(t, d); len(r.Nodes) != 0 {
		t.Errorf("before the bootstrap: %v", r.Nodes)
	}
	s.put("members/n1", p.key("replica", 1))
	s.put("leader", "n1")
	if m := parse(t, read(t, d)).Members["n1"]; m.Role != "replica" {
		t.Errorf("a leader that is not promoted yet says so itself: %+v", m)
	}
	s.put("config", `{"pause":true}`)
	if c := parse(t, read(t, d)); !c.Paused || !c.Members["n1"].Paused {
		t.Errorf("paused: %+v", c)
	}
	s.put("config", `{"standby_cluster":{"host":"10.1.1.1"}}`)
	s.put("members/n1", p.key("standby_leader", 1))
	if c := parse(t, read(t, d)); c.Leader != "n1" || !c.StandbyCluster || c.Members["n1"].Role != "standby_leader" {
		t.Errorf("a standby cluster: %+v", c)
	}
	s.remove("leader")
	if c := parse(t, read(t, d)); c.Leader != "" {
		t.Errorf("unlocked: %+v", c)
	}
}

// Versions and tokens are as good as readings can tell.
func TestVersions(t *testing.T) {
	s := newStore()
	n1, n2 := newPatroni(t, s, "n1"), newPatroni(t, s, "n2")
	s.put("members/n1", n1.key("primary", 1))
	s.put("members/n2", n2.key("replica", 1))
	s.put("leader", "n1")
	d := n1.reader(t)
	first := read(t, d)
	if again := read(t, d); again.Nodes["leader"] != first.Nodes["leader"] || again.Revision != first.Revision {
		t.Errorf("nothing changed: %+v, %+v", again, first)
	}
	s.put("members/n1", strings.Replace(n1.key("primary", 1), "67108960", "67109999", 1))
	grown := read(t, d)
	if a, b := grown.Nodes["members/n1"], first.Nodes["members/n1"]; a.Version <= b.Version || a.Token != b.Token || grown.Revision != first.Revision {
		t.Errorf("an LSN: %+v, before %+v; revision %s, before %s", a, b, grown.Revision, first.Revision)
	}
	s.put("leader", "n2")
	moved := read(t, d)
	if a, b := moved.Nodes["leader"], first.Nodes["leader"]; a.Version <= b.Version || a.Token == b.Token || moved.Revision == first.Revision {
		t.Errorf("another leader: %+v, before %+v", a, b)
	}
}

// When our own Patroni is gone, hangs, cannot read the DCS or has not seen it, the others are asked.
func TestOthers(t *testing.T) {
	for name, fail := range map[string]func(p *patroni, d *DCS, hang chan struct{}){
		"it is gone": func(_ *patroni, d *DCS, _ chan struct{}) { d.c.URL = "http://127.0.0.1:1" },
		"it hangs": func(_ *patroni, d *DCS, hang chan struct{}) {
			l, _ := net.Listen("tcp", "127.0.0.1:0")
			go func() { <-hang; l.Close() }()
			d.c.URL = "http://" + l.Addr().String()
		},
		"it cannot read the DCS": func(p *patroni, _ *DCS, _ chan struct{}) {
			p.store = &store{keys: p.keys, away: true}
		},
		"it has not seen the DCS": func(p *patroni, _ *DCS, _ chan struct{}) { p.unseen = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			n1, n2 := newPatroni(t, s, "n1"), newPatroni(t, s, "n2")
			s.put("initialize", "7")
			s.put("members/n1", n1.key("primary", 1))
			s.put("members/n2", n2.key("replica", 1))
			s.put("leader", "n1")
			d := n1.reader(t)
			read(t, d) // which is how the others are known
			hang := make(chan struct{})
			defer close(hang)
			fail(n1, d, hang)
			s.put("leader", "n2")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r, err := d.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if c := parse(t, r); c.Leader != "n2" || c.SystemID != 7 {
				t.Errorf("got %+v", c)
			}
			if err := d.Wait(ctx, dcs.Reading{Revision: "another"}); err != nil {
				t.Errorf("wait: %v", err)
			}
			n2.store = &store{keys: map[string]string{}, away: true}
			if r, err := d.Read(ctx); err == nil {
				t.Errorf("nobody can read the DCS: %+v", r)
			}
		})
	}
}

func TestOtherCluster(t *testing.T) {
	p := newPatroni(t, newStore(), "n1")
	p.scope = "robin"
	if _, err := p.reader(t).Read(t.Context()); !errors.Is(err, errOtherCluster) || !strings.Contains(err.Error(), `"robin", not "batman"`) {
		t.Errorf("got %v", err)
	}
}

func TestJunk(t *testing.T) {
	for answer, code := range map[string]int{"": 200, "<html>a proxy's page": 200, "{}": 503, `{"members":1}`: 200, `[]`: 200} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			w.Write([]byte(answer))
		}))
		d, err := New(Config{Member: "n1", Scope: "batman", URL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := d.Read(t.Context()); err == nil {
			t.Errorf("%d %q: %+v", code, answer, r)
		}
		server.Close()
	}
	for _, bad := range []string{"", "10.0.0.1:8008", "ftp://x", "http://"} {
		if _, err := New(Config{URL: bad}); err == nil {
			t.Errorf("%q is no URL", bad)
		}
	}
}

// There is no baton: the claim of the own member always succeeds, and its record stays here.
func TestOwnBaton(t *testing.T) {
	s := newStore()
	p := newPatroni(t, s, "n1")
	d := p.reader(t)
	l, err := d.Claim(t.Context(), dcs.Lease{Holder: "n1", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(t.Context(), "n1", "{}", time.Second); err != nil {
		t.Fatal(err)
	}
	if r := read(t, d); r.Baton.Holder != "n1" || r.Baton.Epoch != l.Epoch || len(r.Records) != 1 {
		t.Errorf("got %+v", r)
	}
	if r := read(t, p.reader(t)); len(r.Records) != 0 {
		t.Errorf("another process: %+v", r)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Read(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("read on an ended context: %v", err)
	}
	if err := d.Wait(ended, dcs.Reading{Revision: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("wait on an ended context: %v", err)
	}
}
