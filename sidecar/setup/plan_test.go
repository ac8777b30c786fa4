package setup

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const (
	push  = "/usr/bin/walbaton-wal push %p"
	fetch = "/usr/bin/walbaton-wal fetch %f %p"
	right = `{"postgresql": {"parameters": {"archive_mode": "always", "archive_command": "/usr/bin/walbaton-wal push %p", "restore_command": "/usr/bin/walbaton-wal fetch %f %p"}}}`
)

// cluster is one of three nodes, n2 the leader, whose PostgreSQL has in effect what the dynamic configuration says.
func cluster(t *testing.T, dynamic string, change ...func(*Facts)) Facts {
	t.Helper()
	f := Facts{Scope: "shop", Want: Want{"always", push, fetch}}
	if err := json.Unmarshal([]byte(dynamic), &f.Dynamic); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n := Node{Name: fmt.Sprint("n", i+1), Leads: i == 1, State: "running", Running: true, Streams: i != 1, Patroni: "4.0.4", Version: 150015, Sidecar: SidecarAlive, Has: map[string]Value{}}
		for _, name := range Names() {
			v := told(f, name)
			value := Value{InEffect: v, InFile: v, File: "/pg/postgresql.conf"}
			if name == archiveMode && v == "" {
				value = Value{InEffect: "off"}
			}
			if v == "" {
				value.File = ""
			}
			n.Has[name] = value
		}
		f.Nodes = append(f.Nodes, n)
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func has(node int, name string, v Value) func(*Facts) {
	return func(f *Facts) { f.Nodes[node-1].Has[name] = v }
}

func TestPlan(t *testing.T) {
	wants := func(w Want) func(*Facts) { return func(f *Facts) { f.Want = w } }
	for name, tc := range map[string]struct {
		f       Facts
		patch   string
		restart string
		own     string // node:setting:where, of those that beat
		warn    string // a piece of what is warned of
	}{
		"nothing to do":     {f: cluster(t, right)},
		"nothing is set":    {f: cluster(t, `{}`), patch: right, restart: "n1 n3 n2"},
		"YAML's booleans":   {f: cluster(t, `{"postgresql": {"parameters": {"archive_mode": true}}}`), patch: right, restart: "n1 n3 n2"},
		"only what differs": {f: cluster(t, strings.Replace(right, "always", "on", 1)), patch: `{"postgresql": {"parameters": {"archive_mode": "always"}}}`, restart: "n1 n3 n2"},
		"on is wanted":      {f: cluster(t, strings.Replace(right, `"always"`, "true", 1), wants(Want{"on", push, fetch})), warn: "best effort"},
		"another archive": {f: cluster(t, strings.Replace(right, push, "cp %p /mnt/%f", 1)), patch: `{"postgresql": {"parameters": {"archive_command": "` + push + `"}}}`,
			warn: "ends here, and the new one begins: cp %p /mnt/%f"},
		"no archive": {f: cluster(t, strings.Replace(right, push, "/bin/true", 1)), patch: `{"postgresql": {"parameters": {"archive_command": "` + push + `"}}}`,
			warn: "archive_command is /bin/true: what it was called for is in no archive"},
		"both archives": {f: cluster(t, strings.Replace(right, push, "cp %p /mnt/%f", 1), wants(Want{"always", "sh -c 'walbaton-wal push %p && cp %p /mnt/%f'", fetch})),
			patch: `{"postgresql": {"parameters": {"archive_command": "sh -c 'walbaton-wal push %p && cp %p /mnt/%f'"}}}`},
		"back to one": {f: cluster(t, strings.Replace(right, push, "sh -c 'walbaton-wal push %p && cp %p /mnt/%f'", 1)), patch: `{"postgresql": {"parameters": {"archive_command": "` + push + `"}}}`,
			warn: "ends here"},
		"a shell, and an old Patroni": {f: cluster(t, right, wants(Want{"always", "walbaton-wal push %p && cp %p /mnt/%f", fetch}), func(f *Facts) { f.Nodes[2].Patroni = "3.0.2" }),
			patch: `{"postgresql": {"parameters": {"archive_command": "walbaton-wal push %p && cp %p /mnt/%f"}}}`, warn: "Patroni 3.0.2 runs archive_command on a former primary without a shell"},
		"a library": {f: cluster(t, strings.Replace(right, `"archive_mode"`, `"archive_library": "basic_archive", "archive_mode"`, 1)), patch: `{"postgresql": {"parameters": {"archive_library": null}}}`},

		"recovery_conf is there": {f: cluster(t, `{"postgresql": {"parameters": {"archive_mode": "always", "archive_command": "`+push+`"}, "recovery_conf": {"recovery_min_apply_delay": "1h"}}}`),
			patch: `{"postgresql": {"recovery_conf": {"restore_command": "` + fetch + `"}}}`},
		"recovery_conf is there, and ignored": {f: cluster(t, `{"postgresql": {"parameters": {"archive_mode": "always", "archive_command": "`+push+`", "Recovery_Min_Apply_Delay": "1h"}, "recovery_conf": {"restore_command": "x"}}}`),
			patch: `{"postgresql": {"parameters": {"restore_command": "` + fetch + `"}}}`},
		"a node's recovery_conf": {f: cluster(t, `{"postgresql": {"parameters": {"archive_mode": "always", "archive_command": "`+push+`"}}}`, func(f *Facts) {
			f.Nodes[0].Local = &Local{File: "patroni.yml", RecoveryConf: map[string]string{"archive_cleanup_command": "x"}}
		}), patch: `{"postgresql": {"recovery_conf": {"restore_command": "` + fetch + `"}}}`},
		"a standby cluster": {f: cluster(t, strings.Replace(right, `{"postgresql"`, `{"standby_cluster": {"host": "a", "restore_command": "scp a:%f %p"}, "postgresql"`, 1), func(f *Facts) {
			f.Nodes[1].Standby = true
		}), patch: `{"standby_cluster": {"restore_command": "` + fetch + `"}}`},
		"a standby cluster without one": {f: cluster(t, strings.Replace(right, `{"postgresql"`, `{"standby_cluster": {"host": "a"}, "postgresql"`, 1))},
		"PostgreSQL 13": {f: cluster(t, strings.Replace(right, fetch, "cp /mnt/%f %p", 1), func(f *Facts) { f.Nodes[0].Version = 130020 }),
			patch: `{"postgresql": {"parameters": {"restore_command": "` + fetch + `"}}}`, warn: "Patroni restarts every standby by itself"},

		"ALTER SYSTEM": {f: cluster(t, right, has(1, archiveCommand, Value{"cp %p /old/%f", "/pg/postgresql.auto.conf", "cp %p /old/%f"})), own: "n1:archive_command:ALTER SYSTEM",
			warn: "ends here, and the new one begins: cp %p /old/%f"},
		"ALTER SYSTEM that is right": {f: cluster(t, right, has(1, archiveMode, Value{"always", "/pg/postgresql.auto.conf", "always"}))},
		"a node's file, read": {f: cluster(t, right, func(f *Facts) {
			f.Nodes[2].Local = &Local{File: "/etc/patroni/config.yml", Parameters: map[string]string{"archive_mode": "on", "archive_command": push}}
			f.Nodes[2].Has[archiveMode] = Value{"on", "/pg/postgresql.conf", "on"}
		}), own: "n3:archive_mode:/etc/patroni/config.yml"},
		"a node's file, from afar": {f: cluster(t, right, has(3, archiveCommand, Value{"cp %p /old/%f", "/pg/postgresql.conf", "cp %p /old/%f"})),
			own: "n3:archive_command:its own Patroni configuration, as it seems", warn: "ends here"},
		"a node's file with another walbaton-wal": {f: cluster(t, right, has(3, archiveCommand, Value{"/opt/walbaton-wal push %p", "/pg/postgresql.conf", "/opt/walbaton-wal push %p"}))},
		"a file that Patroni's beats": {f: cluster(t, `{"postgresql": {"parameters": {"archive_mode": "always", "restore_command": "`+fetch+`"}}}`, has(3, archiveCommand, Value{"/bin/true", "/pg/postgresql.base.conf", "/bin/true"})),
			patch: `{"postgresql": {"parameters": {"archive_command": "` + push + `"}}}`},
		"the primary has no restore_command": {f: cluster(t, right, has(2, restoreCommand, Value{}))},

		"one needs a restart":  {f: cluster(t, right, has(3, archiveMode, Value{"on", "/pg/postgresql.conf", "always"})), restart: "n3"},
		"a restart for others": {f: cluster(t, right, func(f *Facts) { f.Nodes[0].Restart, f.Nodes[0].Others = true, []string{"max_connections"} })},
		"nobody could ask": {f: cluster(t, right, func(f *Facts) {
			f.Nodes[0].Has, f.Nodes[0].Unasked, f.Nodes[0].Restart = nil, "no pg_hba.conf entry", true
		}), restart: "n1"},
		"a sidecar is absent": {f: cluster(t, right, func(f *Facts) { f.Nodes[0].Sidecar = SidecarAbsent }), warn: "no sidecar is alive beside n1"},
		"sidecars unknown":    {f: cluster(t, right, func(f *Facts) { f.Unwatched = "none answers" }), warn: "not known: none answers"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Plan(tc.f)
			var patch map[string]any
			if tc.patch != "" {
				if err := json.Unmarshal([]byte(tc.patch), &patch); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(c.Patch, patch) {
				t.Errorf("got patch %v, want %v", c.Patch, patch)
			}
			if got := strings.Join(c.Restart, " "); got != tc.restart {
				t.Errorf("got restarts of %q, want %q", got, tc.restart)
			}
			var own []string
			for _, o := range c.Beaten() {
				own = append(own, o.Node+":"+o.Name+":"+o.Where)
				if o.Fix == "" || !strings.Contains(o.Fix, o.Node) {
					t.Errorf("%+v does not say what to do", o)
				}
			}
			if got := strings.Join(own, " "); got != tc.own {
				t.Errorf("got %q of nodes' own, want %q", got, tc.own)
			}
			warned := strings.Join(c.Warnings, "\n")
			if !strings.Contains(warned, tc.warn) || tc.warn == "" && warned != "" {
				t.Errorf("got warnings %q, want %q", warned, tc.warn)
			}
			if got, want := c.Done(), tc.patch == "" && tc.restart == "" && tc.own == ""; got != want {
				t.Errorf("done: got %v, want %v", got, want)
			}
		})
	}
}

// What was made is not planned again, wherever it was.
func TestPlanAgain(t *testing.T) {
	for _, dynamic := range []string{`{}`, `{"postgresql": {"recovery_conf": {"restore_command": "x"}}}`, `{"postgresql": {"parameters": {"archive_library": "x", "ARCHIVE_MODE": "on"}}}`,
		`{"standby_cluster": {"host": "a", "restore_command": "x"}}`} {
		f := cluster(t, dynamic)
		merge(f.Dynamic, Plan(f).Patch)
		if got := Plan(f).Patch; got != nil {
			t.Errorf("%s: planned again: %v", dynamic, got)
		}
		if p := section(f.Dynamic, "postgresql", "parameters"); p["ARCHIVE_MODE"] != nil && p["archive_mode"] != nil {
			t.Errorf("%s: archive_mode is there twice: %v", dynamic, p)
		}
	}
}

// merge is what Patroni does with a change (patch_config in patroni/utils.py).
func merge(into, change map[string]any) {
	for k, v := range change {
		old, isMap := into[k].(map[string]any)
		sub, subIsMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap && subIsMap:
			merge(old, sub)
		default:
			into[k] = v
		}
	}
}

func TestWaits(t *testing.T) {
	f := cluster(t, right, has(1, archiveCommand, Value{"cp %p /x", "/pg/postgresql.conf", "cp %p /x"}), // has not noticed yet
		has(2, archiveCommand, Value{"cp %p /x", "/pg/postgresql.auto.conf", "cp %p /x"}), // never will
		has(3, archiveMode, Value{"on", "/pg/postgresql.conf", "always"}))                 // does at its restart
	if got, want := Plan(f).Waits(), []string{"n1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUnhealthy(t *testing.T) {
	for want, change := range map[string]func(*Facts){
		"":                               func(*Facts) {},
		"Patroni is paused":              func(f *Facts) { f.Paused = true },
		"no member is the leader":        func(f *Facts) { f.Nodes[1].Leads, f.Nodes[1].Streams = false, true },
		"n1 does not stream":             func(f *Facts) { f.Nodes[0].Streams = false },
		"PostgreSQL of n3 does not run":  func(f *Facts) { f.Nodes[2].Running = false },
		"no sidecar is alive beside n2":  func(f *Facts) { f.Nodes[1].Sidecar = SidecarAbsent },
		"alive is not known: it is deaf": func(f *Facts) { f.Unwatched = "it is deaf" },
	} {
		got := Unhealthy(cluster(t, right, change))
		if want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Unhealthy(cluster(t, right, func(f *Facts) {
		for i := range f.Nodes {
			f.Nodes[i].Sidecar = SidecarUnknown // dcs.kind rest
		}
	})); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}
