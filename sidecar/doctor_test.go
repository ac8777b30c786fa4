package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/patroni"
	"github.com/walbaton/walbaton/sidecar/doctor"
)

// scopeOf is a Patroni's REST API and a sidecar's page on one address, with the answers of Patroni 4.1.
func scopeOf(t *testing.T, st Status) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for path, body := range map[string]string{
		"/cluster": fmt.Sprintf(`{"members": [
			{"name": "n1", "role": "leader", "state": "running", "api_url": "%[1]s/patroni", "host": "127.0.0.1", "port": 1, "timeline": 2},
			{"name": "n2", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:1/patroni", "host": "127.0.0.1", "port": 1, "timeline": 2, "lag": 0}], "scope": "shop"}`, server.URL),
		"/patroni": `{"state": "running", "role": "primary", "server_version": 170002, "timeline": 2, "database_system_identifier": "7710542482846769188", "pending_restart": true,
			"pending_restart_reason": {"archive_mode": {"old_value": "on", "new_value": "always"}}, "xlog": {"location": 1000}, "patroni": {"version": "4.1.4", "scope": "shop", "name": "n1"}}`,
		"/config":  `{"postgresql": {"parameters": {"archive_mode": "always"}}}`,
		"/history": `[[1, 100, "no recovery target specified", "2026-11-28T10:00:00+00:00", "n1"]]`,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	mux.HandleFunc("/status.json", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(st) })
	return server
}

// Without a DCS, a server or a sidecar that can be reached, doctor still says what Patroni's REST API and the archive say.
func TestDoctorWithoutDCS(t *testing.T) {
	dir := t.TempDir()
	st := Status{Version: "v1", Time: time.Now(), Member: "n1", Scope: "shop", Ready: true, Socket: "/run/n1", SystemID: testSystemID,
		Postgres: PostgresStatus{ArchiveMode: "on", Archive: "walbaton-wal push --socket /run/n1 %p", Restore: "cp ..."},
		DCS:      DCSStatus{Answers: true}, Archive: ArchiveStatus{Open: true, Answers: true, Waiting: 3, Oldest: "000000010000000000000007"}}
	server := scopeOf(t, st)
	address := strings.TrimPrefix(server.URL, "http://")
	for kind, want := range map[string]string{"": "connection refused", "rest": ""} {
		file := writeFile(t, dir, "patroni.yml", fmt.Sprintf("scope: shop\nname: n9\nrestapi: {listen: %[1]s, connect_address: %[1]s}\netcd3: {hosts: [127.0.0.1:1]}\npostgresql: {data_dir: /nowhere/data}\n", address))
		flags := map[string]string{"patroni-config": file, "archive": "file://" + dir, "socket": "/nowhere/socket", "listen": address}
		if kind != "" {
			flags["dcs-kind"] = kind
		}
		cfg, err := loadConfig(sources{func(string) string { return "" }, flags})
		if err != nil {
			t.Fatal(err)
		}
		f := gatherFacts(t.Context(), cfg, "")
		if f.Local != nil || !strings.Contains(f.NotLocal, "/nowhere/data") {
			t.Errorf("local: %+v, %s", f.Local, f.NotLocal)
		}
		if (f.DCS.Err == "") != (want == "") {
			t.Errorf("%q: DCS: %q, want %q", kind, f.DCS.Err, want)
		}
		if len(f.Nodes) != 2 || f.Nodes[0].Name != "n1" || !f.Nodes[0].Leader || f.Nodes[1].Leader || f.DCS.Timeline != 2 {
			t.Fatalf("%q: nodes %+v, timeline %d", kind, f.Nodes, f.DCS.Timeline)
		}
		n1, n2 := f.Nodes[0], f.Nodes[1]
		if r := n1.REST; r.Err != "" || r.Version != "4.1.4" || r.Server != 170002 || !r.Pending || !slices.Equal(r.Reasons, []string{"archive_mode"}) {
			t.Errorf("%q: REST of n1: %+v", kind, r)
		}
		if n2.REST.Err != "127.0.0.1:1/patroni: connection refused" || n1.SQL.Err != "connection refused" {
			t.Errorf("%q: REST of n2: %q, SQL of n1: %q", kind, n2.REST.Err, n1.SQL.Err)
		}
		if s := n1.Sidecar; s.Err != "" || s.Version != "v1" || !s.Ready || s.Socket != "/run/n1" || s.ArchiveCommand != st.Postgres.Archive || s.Waiting != 3 || s.Exact <= 0 || s.Offset.Abs() > time.Minute {
			t.Errorf("%q: sidecar of n1: %+v", kind, s)
		}
		if n2.Sidecar.Err != address+" is the sidecar of n1 of cluster shop" {
			t.Errorf("%q: sidecar of n2: %+v", kind, n2.Sidecar)
		}
		if v, _ := f.Patroni.Parameter("archive_mode"); v != "always" || f.Patroni.Err != "" {
			t.Errorf("%q: Patroni: %+v", kind, f.Patroni)
		}
		if a := f.Archives; len(a) != 1 || a[0].Err != "" || a[0].Proof != doctor.Proven || a[0].Begun || a[0].Exact <= 0 || a[0].Offset.Abs() > 5*time.Second {
			t.Errorf("%q: archive: %+v", kind, a)
		}
		if found := doctor.Examine(f); doctor.Worst(found) != doctor.Broken {
			t.Errorf("%q: %+v", kind, found)
		}
	}
	left, err := filepath.Glob(dir + "/shop/probe/n9/*/*")
	if err != nil || len(left) > 0 {
		t.Errorf("probes that are left: %v, %v", left, err)
	}
}

// What the DCS says of a member, and where its sidecar's page is.
func TestDoctorUsesView(t *testing.T) {
	v := leader.View{Cluster: patroni.Cluster{SystemID: testSystemID, Leader: "n1", Members: map[string]patroni.Member{
		"n1": {Name: "n1", Host: "10.0.0.1", Port: 5433, State: "running", Timeline: 4, APIURL: "https://10.0.0.1:8008/patroni"},
		"n2": {Name: "n2", Host: "10.0.0.2", State: "stopped", Tags: map[string]any{"walbaton": "never"}},
		"n3": {Name: "n3", Host: "10.0.0.3"}}},
		Records: map[string]leader.Record{
			"n1": {Version: leader.RecordVersion, Member: "n1", Software: "v1", Address: "[::]:9000", SystemID: testSystemID, SegmentSize: 16 << 20, Role: leader.RolePrimary, Timeline: 4,
				Misses: leader.RangesOf(leader.Range{Timeline: 4, First: 7, Last: 8})},
			"n2": {Version: 9, Member: "n2"},
		}}
	v.Baton.Holder = "n1"
	f := &doctor.Facts{}
	g := &gatherer{cfg: Config{Name: "n3", Listen: ":9847", Socket: "/run/s"}, here: true, facts: f, apis: map[string]string{}, page: map[string]string{}}
	g.useView(v)
	if f.DCS.Leader != "n1" || f.DCS.Holder != "n1" || f.DCS.Timeline != 4 || f.DCS.SegmentSize != 16<<20 || f.DCS.SystemID != testSystemID || len(f.Nodes) != 3 {
		t.Fatalf("got %+v", f)
	}
	n1, n2, n3 := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	if !n1.Leader || !n1.Sidecar.Live || !n1.Sidecar.Readable || n1.Sidecar.Misses.Count() != 2 || n1.Port != 5433 || g.page["n1"] != "10.0.0.1:9000" || g.apis["n1"] != "https://10.0.0.1:8008" {
		t.Errorf("n1: %+v, page %s, api %s", n1, g.page["n1"], g.apis["n1"])
	}
	if !n2.Sidecar.Live || n2.Sidecar.Readable || n2.Tag != "never" || n2.State != "stopped" || g.page["n2"] != "10.0.0.2:9847" {
		t.Errorf("n2: %+v, page %s", n2, g.page["n2"])
	}
	if !n3.Here || n3.Sidecar.Live || g.page["n3"] != "127.0.0.1:9847" || n3.Sidecar.Socket != "/run/s" {
		t.Errorf("n3: %+v, page %s", n3, g.page["n3"])
	}
}

// A segment that was finished just now is in the record of whoever wrote it last, and so seems to be that node's alone.
func TestDoctorLooksTwice(t *testing.T) {
	missed := func(first, last uint64) leader.Ranges {
		return leader.RangesOf(leader.Range{Timeline: 4, First: first, Last: last})
	}
	f := &doctor.Facts{Nodes: []doctor.Node{
		{Name: "n1", Sidecar: doctor.Sidecar{Live: true, Has: missed(1, 7), Misses: missed(7, 7)}},
		{Name: "n2", Sidecar: doctor.Sidecar{Live: true, Has: missed(1, 9), Misses: missed(6, 9)}}}}
	g := &gatherer{facts: f}
	if got := f.Alone(f.Nodes[1]); !got.Equal(missed(8, 9)) {
		t.Fatalf("at first n2 alone has %v", got)
	}
	g.agree(leader.View{Records: map[string]leader.Record{"n1": {Has: missed(3, 8)}, "n2": {Has: missed(3, 12), Misses: missed(8, 12)}}})
	if got := f.Alone(f.Nodes[1]); !got.Equal(missed(9, 9)) {
		t.Errorf("n2 alone has %v", got)
	}
	g.agree(leader.View{}) // both sidecars are gone: what was known before stands
	if got := f.Alone(f.Nodes[1]); !got.Equal(missed(9, 9)) {
		t.Errorf("n2 alone has %v", got)
	}
}

func TestDoctorLooksHere(t *testing.T) {
	dir, away := t.TempDir(), t.TempDir()
	socket := filepath.Join(away, "sock")
	cfg := Config{Socket: socket, KeepDir: filepath.Join(away, "none", "keep")}
	if l, why := lookHere(cfg); l != nil || why == "" {
		t.Errorf("no member: %+v, %q", l, why)
	}
	cfg.Postgres.DataDir = dir
	l, _ := lookHere(cfg)
	if l == nil || l.DataErr != "PG_VERSION is not there" || !strings.HasSuffix(l.WALErr, "/pg_wal is not there") || l.SocketErr != "there is no socket" || l.SidecarUID != -1 ||
		!strings.Contains(l.KeepErr, "may not make it") || l.Owner != os.Geteuid() {
		t.Errorf("an empty folder: %+v", l)
	}
	for _, sub := range []string{"global", "pg_wal/archive_status"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir, "PG_VERSION", "15\n")
	writeFile(t, dir, "global/pg_control", "short")
	if l, _ := lookHere(cfg); !strings.HasPrefix(l.DataErr, "global/pg_control is") || l.WALErr != "" {
		t.Errorf("a damaged one: %+v", l)
	}
	writeFile(t, dir, "global/pg_control", string(controlFile(1<<20)))
	cfg.KeepDir = filepath.Join(away, "keep")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l, _ = lookHere(cfg)
	if l.DataErr != "" || l.SystemID != testSystemID || l.SocketErr != "" || l.SidecarUID != os.Geteuid() || l.SidecarIs == "" || l.KeepErr != "" {
		t.Errorf("a member: %+v", l)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	if l, _ := lookHere(cfg); l.SocketErr != "nobody listens" {
		t.Errorf("a socket that is left: %+v", l)
	}
}

// The client that archive_command names is executed, as with an empty environment.
func TestDoctorLooksAtClient(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, dir, "walbaton-wal", "#!/bin/sh\necho walbaton-wal v7\n")
	if err := os.Chmod(good, 0o755); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	bad := writeFile(t, other, "walbaton-wal", "#!/bin/sh\nexit 1\n")
	if err := os.Chmod(bad, 0o755); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]doctor.Local{
		good + " push %p":                      {Client: good, ClientIs: "v7"},
		bad + " push %p":                       {Client: bad, ClientErr: "it does not run: exit status 1"},
		"/nowhere/walbaton-wal push %p":        {Client: "/nowhere/walbaton-wal", ClientErr: "it is not there"},
		"walbaton-wal push %p":                 {},
		"/bin/sh -c '" + good + " push $0' %p": {Client: good, ClientIs: "v7"},
		"/bin/dash -c '" + good + " push %p'":  {},
		"":                                     {},
	} {
		l := doctor.Local{DataErr: "not looked at"}
		want.DataErr = l.DataErr
		lookAtClient(t.Context(), &l, doctor.Node{Sidecar: doctor.Sidecar{ArchiveCommand: command}})
		if l != want {
			t.Errorf("%s: got %+v, want %+v", command, l, want)
		}
	}
	writeFile(t, dir, "postmaster.pid", fmt.Sprintf("%d\n", os.Getpid())) // that is no server which works there
	apart := doctor.Local{DataDir: dir}
	lookAtClient(t.Context(), &apart, doctor.Node{Sidecar: doctor.Sidecar{ArchiveCommand: good + " push %p"}})
	if !apart.Apart || apart.ClientIs != "" {
		t.Errorf("in another container: got %+v", apart)
	}
}

// The page of a sidecar says what its server calls, and of another program's command nothing that could be a secret.
func TestStatusShowsCommands(t *testing.T) {
	s := newTestCluster(t).newSidecar("n1")
	st := s.Status()
	if st.Socket != s.cfg.Socket || st.Postgres.Archive != "/usr/local/bin/walbaton-wal push %p" || st.Postgres.Restore != "/usr/local/bin/walbaton-wal fetch %f %p" {
		t.Errorf("got %q, %+v", st.Socket, st.Postgres)
	}
}
