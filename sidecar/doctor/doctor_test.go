package doctor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

const systemID = 7710542482846769188

// healthy is a cluster of three in which all is well, seen from n1.
func healthy() Facts {
	f := Facts{Now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Version: "v1.2.3", ConfigFile: "/etc/walbaton/walbaton.yml", PatroniConfig: "/etc/patroni/config.yml",
		Scope: "shop", Member: "n1", Cluster: "shop", User: "postgres", UID: 101,
		Local: &Local{DataDir: "/data", Owner: 101, OwnerIs: "postgres", SystemID: systemID, Socket: DefaultSocket, SidecarUID: 101, SidecarIs: "postgres",
			Client: "/usr/local/bin/walbaton-wal", ClientIs: "v1.2.3", KeepDir: "/data-walbaton"},
		DCS: DCS{Name: "etcd at 10.0.0.1:2379", SystemID: systemID, Leader: "n1", Holder: "n1", Timeline: 3, SegmentSize: 16 << 20},
		Patroni: Patroni{Dynamic: map[string]any{"postgresql": map[string]any{"parameters": map[string]any{
			"archive_mode": "always", "archive_command": pushes, "restore_command": fetches}}}},
		Archives: []Archive{{Required: true, URL: "s3://bucket", Proof: Proven, Begun: true, SystemID: systemID, FirstFloor: 1, Histories: []uint32{2, 3}, Exact: time.Second}},
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		n := Node{Name: name, Leader: name == "n1", Here: name == "n1", State: "running", Host: "10.0.0." + name[1:], Port: 5432,
			SQL: SQL{Version: 150015, InRecovery: name != "n1", SystemID: systemID, Exact: time.Millisecond, Settings: map[string]Setting{
				"archive_mode": {Value: "always", File: "/data/postgresql.conf"}, "archive_command": {Value: pushes, File: "/data/postgresql.conf"},
				"archive_library": {}, "restore_command": {Value: fetches, File: "/data/postgresql.conf"}}},
			REST: NodeREST{Version: "4.1.4"},
			Sidecar: Sidecar{Live: true, Readable: true, Record: 1, Version: "v1.2.3", SystemID: systemID, Ready: true, Open: true, Store: true, Socket: DefaultSocket,
				Free: 100 << 30, Pace: 1 << 20, Exact: time.Millisecond, ArchiveMode: "always", ArchiveCommand: pushes, RestoreCommand: fetches},
		}
		if n.Leader {
			n.Sidecar.Verify = &Verify{At: f.Now.Add(-20 * time.Minute)}
			n.Sidecar.Window = "You can restore to any moment from yesterday to now"
		} else {
			n.State = "streaming"
		}
		f.Nodes = append(f.Nodes, n)
	}
	return f
}

const (
	pushes  = "/usr/local/bin/walbaton-wal push %p"
	fetches = "/usr/local/bin/walbaton-wal fetch %f %p"
)

// set changes a setting of some nodes; none means all.
func set(f *Facts, name string, s Setting, nodes ...string) {
	for i := range f.Nodes {
		if len(nodes) == 0 || slices.Contains(nodes, f.Nodes[i].Name) {
			f.Nodes[i].SQL.Settings[name] = s
		}
	}
}

// ranges are segments of timeline 3.
func ranges(first, last uint64) leader.Ranges {
	return leader.RangesOf(leader.Range{Timeline: 3, First: first, Last: last})
}

func TestHealthy(t *testing.T) {
	found := Examine(healthy())
	for _, x := range found {
		if x.Level != OK || x.Text == "" || x.Group == "" || x.Fix != "" {
			t.Errorf("got %+v, want ok", x)
		}
	}
	if got := Worst(found); got != OK {
		t.Errorf("got %s, want ok", got)
	}
	seen := map[string]bool{}
	for _, x := range found {
		seen[x.Check] = true
	}
	for _, c := range checks() {
		if !seen[c.name] {
			t.Errorf("nothing is said about %s", c.name)
		}
	}
}

// Each case spoils one thing of a healthy cluster, and names what is then said of one check: level, text and fix, of which all parts
// between the stars must be there, in that order. Other checks may have something to say, too.
func TestChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		check string
		spoil func(*Facts)
		level Level
		text  string
		fix   string
	}{
		"no configuration": {"configuration", func(f *Facts) { f.ConfigurationErr, f.ConfigurationHint = "unknown key", "did you mean" }, Broken, "unknown key", "did you mean"},
		"administrator":    {"data directory", func(f *Facts) { f.Local, f.NotLocal = nil, "there is no data directory /data here" }, Unexamined, "not on a member: there is no data directory /data here", ""},
		"closed":           {"data directory", func(f *Facts) { f.Local.DataErr = "PG_VERSION is closed to this user" }, Broken, "/data: PG_VERSION is closed to this user", "run them as postgres"},
		"closed, whose":    {"data directory", func(f *Facts) { f.Local.DataErr, f.Local.OwnerIs = "PG_VERSION is not there", "" }, Broken, "PG_VERSION is not there", "as the user that runs PostgreSQL"},
		"pg_wal":           {"pg_wal", func(f *Facts) { f.Local.WALErr = "/data/pg_wal is closed" }, Broken, "closed", "as postgres, or as root"},
		"other user":       {"user", func(f *Facts) { f.Local.SidecarUID, f.Local.SidecarIs = 33, "www" }, Broken, "runs as www*belongs to postgres", "User=postgres"},
		"no sidecar, ours": {"user", func(f *Facts) { f.Local.SidecarUID = -1 }, OK, "postgres, to whom the data directory belongs", ""},
		"no sidecar":       {"user", func(f *Facts) { f.Local.SidecarUID, f.UID, f.User = -1, 33, "www" }, Warning, "this is www*belongs to postgres", "as postgres"},
		"nobody's":         {"user", func(f *Facts) { f.Local.Owner = -1 }, Warning, "nobody knows", "above"},
		"shut socket":      {"socket", func(f *Facts) { f.Local.SocketShut, f.Local.SidecarUID = true, -1 }, Warning, "walbaton.sock is closed to postgres", "ask again as the user that runs PostgreSQL"},
		"silent socket":    {"socket", func(f *Facts) { f.Local.SocketErr = "nobody listens" }, Broken, "walbaton.sock: nobody listens", "systemctl start walbaton"},
		"no client":        {"walbaton-wal", func(f *Facts) { f.Local.ClientErr = "it is not there" }, Broken, "/usr/local/bin/walbaton-wal: it is not there", "one folder"},
		"other client":     {"walbaton-wal", func(f *Facts) { f.Local.ClientIs = "v1.0.0" }, Warning, "version v1.0.0*v1.2.3", "one version"},
		"client by PATH":   {"walbaton-wal", func(f *Facts) { f.Local.Client = "" }, Unexamined, "no path", ""},
		"client elsewhere": {"walbaton-wal", func(f *Facts) { f.Local.Apart = true }, Unexamined, "another container", ""},
		"keep_dir":         {"keep_dir", func(f *Facts) { f.Local.KeepErr = "it is not there" }, Broken, "/data-walbaton: it is not there", "install -d -o postgres -m 700 /data-walbaton"},

		"refused, known": {"connections", func(f *Facts) { f.Nodes[1].SQL = SQL{Err: "no pg_hba.conf entry"} }, OK, "n2 did not (no pg_hba.conf entry); sidecar and Patroni say", ""},
		"refused":        {"connections", func(f *Facts) { f.Nodes[1].SQL, f.Nodes[1].REST.Err = SQL{Err: "no pg_hba.conf entry"}, "no" }, Warning, "n2: no pg_hba.conf entry", "pg_hba"},
		"stopped": {"connections", func(f *Facts) {
			f.Nodes[1].SQL, f.Nodes[1].State = SQL{Err: "connection refused"}, "stopped"
			f.Nodes[1].Sidecar.ArchiveCommand = ""
		}, Warning, "n2 is stopped", "patronictl"},
		"two refused": {"connections", func(f *Facts) {
			f.Nodes[1].SQL.Err, f.Nodes[2].SQL.Err, f.Nodes[1].Sidecar.ArchiveCommand = "no", "no", ""
		}, Warning, "n2: no", "on n2 itself"},
		"by sidecar":    {"archive_mode", func(f *Facts) { f.Nodes[1].SQL = SQL{Err: "no"} }, OK, "always on n1, n2 and n3", ""},
		"mode on":       {"archive_mode", func(f *Facts) { set(f, "archive_mode", Setting{Value: "on"}) }, Warning, "on on n1, n2 and n3: best effort", "edit-config shop --force -p archive_mode=always*shows a pending restart*restart shop n2 --force\n*restart shop n3 --force\n*restart shop n1 --force"},
		"mode on one":   {"archive_mode", func(f *Facts) { set(f, "archive_mode", Setting{Value: "on"}, "n2") }, Warning, "on on n2: best effort", "restart shop n2 --force"},
		"mode pending":  {"archive_mode", func(f *Facts) { set(f, "archive_mode", Setting{Value: "on", Pending: true}, "n2") }, Warning, "on on n2", "the cluster has always, and waits for a restart:*restart shop n2 --force"},
		"mode off":      {"archive_mode", func(f *Facts) { set(f, "archive_mode", Setting{Value: "off"}, "n3") }, Broken, "off on n3", "archive_mode=always"},
		"mode, static":  {"archive_mode", func(f *Facts) { f.Static = true; set(f, "archive_mode", Setting{Value: "on"}) }, OK, "no standby", ""},
		"off, static":   {"archive_mode", func(f *Facts) { f.Static = true; set(f, "archive_mode", Setting{Value: "off"}) }, Broken, "off", "alter system set archive_mode"},
		"mode unknown":  {"archive_mode", func(f *Facts) { f.Nodes[1].SQL, f.Nodes[1].Sidecar = SQL{Err: "no"}, Sidecar{} }, Warning, `not known on n2; the dynamic configuration has "always"`, "on that node"},
		"nobody to ask": {"archive_mode", func(f *Facts) { f.Nodes = nil }, Unexamined, "no member is known", ""},

		"command of others": {"archive_command", func(f *Facts) {
			set(f, "archive_command", Setting{Value: "pgbackrest archive-push --key=secret %p", File: "/data/postgresql.conf"}, "n2")
		}, Broken, "'pgbackrest ...' of n2: it does not call walbaton-wal", "own file on n2*/usr/local/bin/walbaton-wal push %p*reload shop n2"},
		"command altered": {"archive_command", func(f *Facts) {
			set(f, "archive_command", Setting{Value: "/bin/true", File: "/data/postgresql.auto.conf"}, "n2")
		}, Broken, "/bin/true*of n2", `psql -h 10.0.0.2 -p 5432 -U postgres -c "alter system reset archive_command" -c "select pg_reload_conf()"`},
		"command, cluster": {"archive_command", func(f *Facts) {
			set(f, "archive_command", Setting{Value: "/bin/true", File: "/data/postgresql.conf"})
			f.Patroni.Dynamic["postgresql"].(map[string]any)["parameters"].(map[string]any)["archive_command"] = "/bin/true"
		}, Broken, "'/bin/true' of n1, n2 and n3", "edit-config shop --force -p 'archive_command=/usr/local/bin/walbaton-wal push %p'"},
		"command, own file": {"archive_command", func(f *Facts) {
			set(f, "archive_command", Setting{Value: "/bin/true", File: "/data/postgresql.conf"}, "n3")
			delete(f.Patroni.Dynamic["postgresql"].(map[string]any)["parameters"].(map[string]any), "archive_command")
		}, Broken, "of n3", "stands in Patroni's own file on n3"},
		"command, static": {"archive_command", func(f *Facts) { f.Static = true; set(f, "archive_command", Setting{Value: "/bin/true"}) }, Broken, "/bin/true", "alter system set archive_command = "},
		"no command":      {"archive_command", func(f *Facts) { set(f, "archive_command", Setting{}, "n1") }, Broken, "the one of n1: it is empty", "edit-config"},
		"disabled":        {"archive_command", func(f *Facts) { set(f, "archive_command", Setting{Value: "(disabled)"}, "n1") }, Unexamined, "disabled by archive_mode on n1", ""},
		"wrong socket": {"archive_command", func(f *Facts) {
			set(f, "archive_command", Setting{Value: "walbaton-wal push --socket /run/other %p"}, "n1")
		}, Broken, "calls another socket than /run/walbaton/walbaton.sock", "walbaton-wal push %p"},
		"own socket": {"archive_command", func(f *Facts) {
			f.Nodes[1].Sidecar.Socket = "/n2/sock"
			set(f, "archive_command", Setting{Value: "walbaton-wal push --socket /n2/sock %p"}, "n2")
		}, OK, "walbaton-wal push %p on n1, n2 and n3", ""},
		"path":             {"archive_command", func(f *Facts) { set(f, "archive_command", Setting{Value: "walbaton-wal push %f"}) }, Broken, `it gives "%f" to push, not %p`, "push %p"},
		"or true":          {"archive_command", func(f *Facts) { set(f, "archive_command", Setting{Value: pushes + " || true"}) }, Broken, "can answer 0 where walbaton-wal does not", ""},
		"side by side":     {"archive_command", func(f *Facts) { set(f, "archive_command", Setting{Value: "pgbackrest archive-push %p && " + pushes}) }, Warning, "joined to it by &&", "once the move is over"},
		"library":          {"archive_command", func(f *Facts) { set(f, "archive_library", Setting{Value: "basic_archive"}, "n2") }, Broken, `n2 has archive_library = "basic_archive"`, "take it out*archive_library=null"},
		"command, sidecar": {"archive_command", func(f *Facts) { f.Nodes[1].SQL = SQL{Err: "no"}; f.Nodes[1].Sidecar.ArchiveCommand = "cp ..." }, Broken, "'cp ...' of n2", "push %p"},

		"no restore_command":   {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{}, "n2") }, Warning, "none on n2", "fetch %f %p"},
		"restore of a primary": {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{}, "n1") }, OK, "walbaton-wal fetch %f %p on n1, n2 and n3", ""},
		"restore of one by its sidecar": {"restore_command", func(f *Facts) {
			f.Patroni.Dynamic = nil
			f.Nodes[0].SQL, f.Nodes[0].Sidecar.RestoreCommand = SQL{Err: "no"}, ""
		}, OK, "on n2 and n3", ""},
		"restore of the others":      {"restore_command", func(f *Facts) { f.Patroni.Dynamic = nil; set(f, "restore_command", Setting{}, "n1") }, OK, "walbaton-wal fetch %f %p on n2 and n3", ""},
		"restore of a primary alone": {"restore_command", func(f *Facts) { f.Patroni.Dynamic, f.Nodes = nil, f.Nodes[:1]; set(f, "restore_command", Setting{}) }, Unexamined, "a primary has none", ""},
		"restore of one unknown":     {"restore_command", func(f *Facts) { f.Nodes[0].SQL, f.Nodes[0].Sidecar = SQL{Err: "no"}, Sidecar{} }, Warning, "not known on n1", "on that node"},
		"restore of others":          {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: "cp /a/%f %p"}) }, Broken, "'cp ...'", "fetch %f %p"},
		"restore by others":          {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: fetches + " || cp /a/%f %p"}) }, Warning, `"cannot say" into "not there"`, ""},
		"restore by socket":          {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: "walbaton-wal fetch --socket /x %f %p"}) }, Warning, "another socket", "fetch"},
		"restore by wrapper":         {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: "/usr/bin/timeout 60 " + fetches}) }, Warning, "called through timeout", "once the move"},
		"restore by walbaton":        {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: "walbaton fetch %f %p"}, "n1") }, OK, "walbaton fetch %f %p on n1", ""},
		"restore of a server":        {"restore_command", func(f *Facts) { f.Static = true }, Unexamined, "a single PostgreSQL", ""},
		"restore order":              {"restore_command", func(f *Facts) { set(f, "restore_command", Setting{Value: "walbaton-wal fetch %p %f"}) }, Broken, `it gives "%p %f" to fetch, not %f %p`, ""},
		"pending":                    {"pending restart", func(f *Facts) { set(f, "max_connections", Setting{Value: "50", Pending: true}, "n1", "n3") }, Warning, "a restart of n1 and n3 is pending for max_connections", "replicas first:*shop n3*shop n1"},
		"pending, by Patroni":        {"pending restart", func(f *Facts) { f.Nodes[1].REST.Pending = true }, Warning, "a restart of n2 is pending", "restart"},
		"pending, reason":            {"pending restart", func(f *Facts) { f.Nodes[1].SQL.Err, f.Nodes[1].REST.Reasons = "no", []string{"wal_level"} }, Warning, "n2 is pending for wal_level", "restart"},
		"pending, nobody says":       {"pending restart", func(f *Facts) { f.Nodes[1].SQL.Err, f.Nodes[1].REST.Err = "no", "no" }, Warning, "not known on n2", "that node"},
		"old minor":                  {"version", func(f *Facts) { f.Nodes[1].SQL.Version = 150010 }, Warning, "15.10 on n2: a crash while a segment is recycled*fixed in 15.11", "update PostgreSQL*15.11"},
		"old major":                  {"version", func(f *Facts) { f.Nodes[1].SQL.Version = 110022 }, Broken, "11.22 on n2 is too old", "12 to 18"},
		"new major":                  {"version", func(f *Facts) { f.Nodes[1].SQL.Version = 190000 }, Warning, "19.0 on n2 is newer", "release notes"},
		"version unknown":            {"version", func(f *Facts) { f.Nodes[1].SQL = SQL{Err: "no"} }, Warning, "not known on n2", "that node"},
		"version by Patroni":         {"version", func(f *Facts) { f.Nodes[1].SQL, f.Nodes[1].REST.Server = SQL{Err: "no"}, 170002 }, OK, "17.2 on n2", ""},

		"DCS away": {"DCS", func(f *Facts) { f.DCS.Err = "no answer"; f.quiet() }, Broken, "does not answer: no answer", "patronictl"},
		"DCS away, all say": {"DCS", func(f *Facts) {
			f.DCS.Err = "no answer"
			for i := range f.Nodes {
				f.Nodes[i].Sidecar.DCSErr = "no answer"
			}
		}, Broken, "does not answer: no answer", "patronictl"},
		"DCS away here":    {"DCS", func(f *Facts) { f.DCS.Err = "no answer" }, Warning, "this machine, but sidecars do", "on a member"},
		"DCS refuses":      {"DCS", func(f *Facts) { f.DCS.Err, f.DCS.Refused = "permission denied", true }, Broken, "refuses: permission denied", "docs/dcs.md"},
		"DCS warns":        {"DCS", func(f *Facts) { f.DCS.Warnings = []string{"record of n2: version 9"} }, Warning, "record of n2: version 9", "versions"},
		"no DCS":           {"DCS", func(f *Facts) { f.Static = true }, Unexamined, "a single PostgreSQL", ""},
		"may not write":    {"DCS permissions", func(f *Facts) { f.Nodes[1].Sidecar.DCSErr = "the DCS refuses a request" }, Broken, "n2: the DCS refuses a request", "docs/dcs.md"},
		"nobody wrote":     {"DCS permissions", func(f *Facts) { f.quiet() }, Warning, "nobody has written", "start the sidecars"},
		"nothing written":  {"DCS permissions", func(f *Facts) { f.REST = true }, Unexamined, "nothing is written", ""},
		"REST silent":      {"REST API", func(f *Facts) { f.Nodes[2].REST = NodeREST{Err: "connection refused"} }, Warning, "n3 does not answer: connection refused", "Patroni runs"},
		"REST all silent":  {"REST API", func(f *Facts) { f.Nodes, f.Patroni.Err = nil, "no answer" }, Warning, "no answer", "Patroni runs"},
		"no REST":          {"REST API", func(f *Facts) { f.Static = true }, Unexamined, "no Patroni", ""},
		"no leader":        {"leader", func(f *Facts) { f.Nodes[0].Leader = false }, Broken, "nobody leads", "patronictl -c /etc/patroni/config.yml list"},
		"empty scope":      {"leader", func(f *Facts) { f.Nodes = nil }, Broken, "no member in cluster shop", "scope and namespace"},
		"paused":           {"leader", func(f *Facts) { f.DCS.Paused = true }, Warning, "n1 leads, and Patroni is paused", "resume shop"},
		"standby cluster":  {"leader", func(f *Facts) { f.StandbyCluster = true }, OK, "a standby cluster", ""},
		"alone":            {"leader", func(f *Facts) { f.Static = true }, Unexamined, "no Patroni", ""},
		"other identity":   {"system identifier", func(f *Facts) { f.Nodes[1].SQL.SystemID = 5 }, Broken, "Patroni has 77*, and n2 5", "another cluster"},
		"no identity":      {"system identifier", func(f *Facts) { f.DCS.SystemID, f.Nodes, f.Local = 0, nil, nil }, Warning, "nobody says it", "on a member"},
		"skew":             {"clocks", func(f *Facts) { f.Nodes[1].SQL.Offset = 5 * time.Second }, Warning, "n2 is 5 s ahead of n1", "time server"},
		"skew, by sidecar": {"clocks", func(f *Facts) { f.Nodes[1].SQL.Err, f.Nodes[1].Sidecar.Offset = "no", -5*time.Second }, Warning, "5 s ahead of n2", "time server"},
		"skew, breaks":     {"clocks", func(f *Facts) { f.Nodes[1].SQL.Offset = -15 * time.Minute }, Broken, "15 minutes ahead of n2", "time server"},
		"skew, unsure":     {"clocks", func(f *Facts) { f.Nodes[1].SQL.Offset, f.Nodes[1].SQL.Exact = 3*time.Second, 2*time.Second }, OK, "3 nodes agree", ""},
		"all off from here": {"clocks", func(f *Facts) {
			for i := range f.Nodes {
				f.Nodes[i].SQL.Offset = time.Hour
			}
		}, OK, "3 nodes agree", ""},
		"one clock":        {"clocks", func(f *Facts) { f.Nodes = f.Nodes[:1]; f.Nodes[0].SQL.Offset = time.Minute }, Warning, "n1 and this machine are 60 s apart", "time server"},
		"one clock agrees": {"clocks", func(f *Facts) { f.Nodes = f.Nodes[:1] }, OK, "n1 and this machine agree", ""},
		"no clock":         {"clocks", func(f *Facts) { f.Nodes = nil }, Unexamined, "no node told the time", ""},

		"sidecar down":     {"sidecars", func(f *Facts) { f.Nodes[1].Sidecar = Sidecar{Err: "connection refused"} }, Broken, "none is alive beside n2", "systemctl start walbaton"},
		"sidecar of a Pod": {"sidecars", func(f *Facts) { f.Pods = true; f.Nodes[1].Sidecar = Sidecar{Err: "refused"} }, Broken, "none is alive beside n2", "kubectl logs n2 -c walbaton"},
		"sidecars down":    {"sidecars", func(f *Facts) { f.quiet() }, Broken, "none is alive beside n1, n2 and n3", "start walbaton"},
		"page silent":      {"sidecars", func(f *Facts) { f.Nodes[1].Sidecar.Err = "connection refused" }, Warning, "alive beside n2, but its page does not answer here: connection refused", "on the node itself"},
		"no record":        {"sidecars", func(f *Facts) { f.Nodes[1].Sidecar.Live = false }, Broken, "that of n2 answers, and has no record in the DCS", "journalctl"},
		"rest, silent":     {"sidecars", func(f *Facts) { f.REST = true; f.Nodes[1].Sidecar = Sidecar{Err: "refused"} }, Warning, "that of n2 does not answer here: refused", "on the node itself"},
		"rest": {"sidecars", func(f *Facts) {
			f.REST = true
			for i := range f.Nodes {
				f.Nodes[i].Sidecar.Live = false
			}
		}, OK, "alive beside n1, n2 and n3", ""},
		"static, silent": {"sidecars", func(f *Facts) { f.Static = true; f.quiet() }, Broken, "none answers", "start walbaton"},
		"upgrade":        {"versions", func(f *Facts) { f.Nodes[1].Sidecar.Version = "v1.3.0" }, Warning, "n1 and n3 have v1.2.3", "upgrade"},
		"other program":  {"versions", func(f *Facts) { f.Version = "v1.3.0" }, Warning, "all sidecars have v1.2.3, and this is v1.3.0", "that the sidecars run"},
		"unreadable":     {"versions", func(f *Facts) { f.Nodes[1].Sidecar.Readable, f.Nodes[1].Sidecar.Record = false, 2 }, Broken, "the record of n2 has version 2", "same version"},
		"no version":     {"versions", func(f *Facts) { f.quiet() }, Unexamined, "no sidecar is alive", ""},
		"not ready": {"readiness", func(f *Facts) {
			f.Nodes[1].Sidecar.Ready, f.Nodes[1].Sidecar.Why = false, "the archive does not answer"
		}, Broken, "n2 would not answer a push well: the archive does not answer", ""},
		"not asked":           {"readiness", func(f *Facts) { f.quiet() }, Unexamined, "no sidecar's page", ""},
		"retention":           {"readiness", func(f *Facts) { f.Nodes[0].Sidecar.Retention = "a base backup is missing" }, Warning, "retention expires nothing: a base backup is missing", "expire"},
		"free baton":          {"baton", func(f *Facts) { f.DCS.Holder = "" }, Broken, "nobody holds it: nothing is shipped", "walbaton status"},
		"free baton, nobody":  {"baton", func(f *Facts) { f.DCS.Holder = ""; f.quiet() }, Broken, "no sidecar is alive", "start the sidecars"},
		"no baton":            {"baton", func(f *Facts) { f.REST = true }, Unexamined, "there is none", ""},
		"baton unknown":       {"baton", func(f *Facts) { f.DCS.Err = "no" }, Unexamined, "does not answer here", ""},
		"tag never":           {"tags", func(f *Facts) { f.Nodes[1].Tag = "never" }, Warning, "n2 has the tag walbaton: never", "take the tag out"},
		"tag unknown":         {"tags", func(f *Facts) { f.Nodes[1].Tag = "designatd" }, Warning, "means nothing", "designated or never"},
		"tag designated":      {"tags", func(f *Facts) { f.Nodes[1].Tag = "designated" }, OK, "none keeps", ""},
		"tags without baton":  {"tags", func(f *Facts) { f.Static = true }, Unexamined, "there is none", ""},
		"alarm":               {"alarms", func(f *Facts) { f.Nodes[1].Sidecar.Alarms = []Alarm{{"00000003.history", "it differs"}} }, Broken, "00000003.history of n2 needs a person: it differs", "walbaton explain 00000003.history"},
		"alarms, nobody asks": {"alarms", func(f *Facts) { f.quiet() }, Unexamined, "no sidecar's page", ""},

		"no archive":        {"store", func(f *Facts) { f.Archives = nil }, Broken, "no archive is configured", "archive: {url:"},
		"store away":        {"store", func(f *Facts) { f.Archives[0].Err, f.Archives[0].Hint = "s3://bucket is not there", "mount it" }, Broken, "s3://bucket: is not there", "mount it"},
		"store away there":  {"store", func(f *Facts) { f.Nodes[1].Sidecar.Store = false }, Broken, "it does not answer the sidecar of n2", "credentials"},
		"second store away": {"store", func(f *Facts) { f.second().Err = "refused" }, Warning, "far: s3://far: refused (it is not required)", "every node keeps its WAL"},
		"refuted": {"put if absent", func(f *Facts) {
			f.Archives[0].Proof, f.Archives[0].ProofErr = Refuted, "2 of 4 writers got the same key"
		}, Broken, "2 of 4 writers", "If-None-Match"},
		"may not put": {"put if absent", func(f *Facts) {
			f.Archives[0].Proof, f.Archives[0].Refused, f.Archives[0].ProofErr = NoProof, true, "denied"
			f.quiet()
		}, Broken, "denied", "write"},
		"reader only": {"put if absent", func(f *Facts) {
			f.Archives[0].Proof, f.Archives[0].Refused, f.Archives[0].ProofErr = NoProof, true, "denied"
		}, OK, "not tried from here (denied); the sidecar of n", ""},
		"root":               {"put if absent", func(f *Facts) { f.Archives[0].Proof, f.Archives[0].ProofErr = NotTried, "this is root"; f.quiet() }, Warning, "not tried: this is root", "as the user"},
		"proof fails":        {"put if absent", func(f *Facts) { f.Archives[0].Proof, f.Archives[0].ProofErr = NoProof, "503" }, Broken, "could not be shown: 503", "reached"},
		"proof, store away":  {"put if absent", func(f *Facts) { f.Archives[0].Err = "no" }, Unexamined, "does not answer", ""},
		"strange archive":    {"identity", func(f *Facts) { f.Archives[0].IdentityErr = "format 9" }, Broken, "format 9", "--scope"},
		"not begun":          {"identity", func(f *Facts) { f.Archives[0].Begun = false }, Warning, "has none there yet", "leader begins it when its sidecar runs"},
		"not begun, nobody":  {"identity", func(f *Facts) { f.Archives[0].Begun = false; f.quiet() }, Warning, "has none there yet", "start the sidecars"},
		"others":             {"identity", func(f *Facts) { f.Archives[0].Others = []uint64{5} }, OK, "1 other one beside it", ""},
		"store's clock":      {"store's clock", func(f *Facts) { f.Archives[0].Offset = -10 * time.Second }, Warning, "10 s from that of n1", "timedatectl"},
		"store's clock bad":  {"store's clock", func(f *Facts) { f.Archives[0].Offset = time.Hour }, Broken, "60 minutes from", "timedatectl"},
		"store's clock, off": {"store's clock", func(f *Facts) { f.Archives[0].Exact = 0 }, Unexamined, "did not tell", ""},
		"store's, this":      {"store's clock", func(f *Facts) { f.Nodes = nil }, OK, "agrees with that of this machine", ""},
		"history missing":    {"history files", func(f *Facts) { f.Archives[0].Histories = []uint32{3} }, Broken, "00000002.history is missing", "walbaton explain 00000002.history"},
		"histories missing":  {"history files", func(f *Facts) { f.Archives[0].Histories = nil }, Broken, "00000002.history and 00000003.history are missing", "explain"},
		"first timeline":     {"history files", func(f *Facts) { f.DCS.Timeline = 1 }, OK, "timeline 1 needs none", ""},
		"timeline unknown":   {"history files", func(f *Facts) { f.DCS.Timeline = 0 }, Unexamined, "nobody says", ""},
		"hole": {"holes", func(f *Facts) {
			f.Nodes[0].Sidecar.Verify.Problems = []string{"a hole"}
			f.Nodes[0].Sidecar.Verify.More = 2
		}, Broken, "a hole", "walbaton verify"},
		"known hole":     {"holes", func(f *Facts) { f.Nodes[0].Sidecar.Verify.Acknowledged = 1 }, OK, "none but 1 acknowledged one, as n1 found 20 minutes ago", ""},
		"not looked":     {"holes", func(f *Facts) { f.Nodes[0].Sidecar.Verify = &Verify{} }, Unexamined, "half a minute", ""},
		"look failed":    {"holes", func(f *Facts) { f.Nodes[0].Sidecar.Verify.Failed = "no answer" }, Warning, "n1 could not look: no answer", "by itself"},
		"holes unknown":  {"holes", func(f *Facts) { f.Nodes[0].Sidecar.Verify = nil }, Unexamined, "did not tell", ""},
		"window unknown": {"restore", func(f *Facts) { f.Nodes[0].Sidecar.Window = "" }, Unexamined, "not known yet", ""},

		"under way": {"missing segments", func(f *Facts) { f.Nodes[0].Sidecar.Misses = ranges(18, 19) }, OK, "2 segments under way, the oldest 000000030000000000000012 of n1", ""},
		"many": {"missing segments", func(f *Facts) {
			f.Nodes[0].Sidecar.Misses, f.Nodes[1].Sidecar.Misses = ranges(18, 57), ranges(17, 57)
		}, Warning, "41 segments, the oldest 000000030000000000000011 of n2", "explain"},
		"long": {"missing segments", func(f *Facts) { f.Nodes[0].Sidecar.Misses, f.Nodes[0].Sidecar.Since = ranges(18, 18), time.Hour }, Warning, "waiting for 60 minutes", "explain"},
		"by page": {"missing segments", func(f *Facts) {
			f.REST = true
			f.Nodes[1].Sidecar.Waiting, f.Nodes[1].Sidecar.Oldest = 30, "000000030000000000000011"
		}, Warning, "30 segments, the oldest 000000030000000000000011 of n2", "explain"},
		"size unknown":      {"missing segments", func(f *Facts) { f.DCS.SegmentSize = 0; f.Nodes[0].Sidecar.Misses = ranges(18, 18) }, OK, "number 18 of timeline 3", ""},
		"missing, unknown":  {"missing segments", func(f *Facts) { f.quiet() }, Warning, "not known", "start"},
		"nobody has":        {"nobody has", func(f *Facts) { f.DCS.Nobody = ranges(5, 7) }, Broken, "3 segments, from 000000030000000000000005 on", "keep_dir"},
		"nobody, no holder": {"nobody has", func(f *Facts) { f.DCS.Holder = "" }, Unexamined, "the holder of the baton says it", ""},
		"n2 alone": {"one node alone", func(f *Facts) {
			f.Nodes[1].Sidecar.Has, f.Nodes[1].Sidecar.Misses, f.Nodes[0].Sidecar.Has = ranges(1, 50), ranges(1, 50), ranges(41, 60)
		}, Warning, "n2 alone has 40 segments, from 000000030000000000000001 on: do not reinit it", "let n2 ship"},
		"two have it": {"one node alone", func(f *Facts) {
			f.Nodes[1].Sidecar.Has, f.Nodes[1].Sidecar.Misses, f.Nodes[0].Sidecar.Has = ranges(1, 50), ranges(1, 50), ranges(1, 60)
		}, OK, "no node has WAL", ""},
		"alone, unknown":    {"one node alone", func(f *Facts) { f.Nodes[1].Sidecar.Live = false }, Warning, "what n2 has alone is not known, for its sidecar is down: do not reinit it", "before you reinit"},
		"alone, rest":       {"one node alone", func(f *Facts) { f.REST = true }, Unexamined, "only the DCS", ""},
		"alone, static":     {"one node alone", func(f *Facts) { f.Static = true }, Unexamined, "one node", ""},
		"disk small":        {"disk of pg_wal", func(f *Facts) { f.Nodes[1].Sidecar.Free = 1 << 30 }, Warning, "1.0 GB free on n2, 1.0 MB of WAL a second: full within 17 minutes", "larger disk"},
		"disk fills":        {"disk of pg_wal", func(f *Facts) { f.Nodes[1].Sidecar.Free, f.Nodes[1].Sidecar.Store = 40<<30, false }, Warning, "full in 11 hours, and the archive takes nothing", "bring the archive back"},
		"disk fills soon":   {"disk of pg_wal", func(f *Facts) { f.Nodes[1].Sidecar.Free, f.Nodes[1].Sidecar.Store = 1<<30, false }, Broken, "full in 17 minutes", "delete nothing"},
		"disk full":         {"disk of pg_wal", func(f *Facts) { f.Nodes[1].Sidecar.Free = 1 << 20 }, Broken, "the disk of n2 is full", "larger"},
		"disk, idle":        {"disk of pg_wal", func(f *Facts) { f.Nodes = f.Nodes[:1]; f.Nodes[0].Sidecar.Pace = 0 }, OK, "100 GB free on n1", ""},
		"disk, nearly idle": {"disk of pg_wal", func(f *Facts) { f.Nodes = f.Nodes[:1]; f.Nodes[0].Sidecar.Pace = 4 }, OK, "100 GB free on n1, which last years at 4 B of WAL a second", ""},
		"disk, nobody told": {"disk of pg_wal", func(f *Facts) { f.quiet() }, Unexamined, "no sidecar told", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tc.spoil(&f)
			var said []string
			for _, x := range Examine(f) {
				if x.Check != tc.check {
					continue
				}
				if x.Level == tc.level && inOrder(x.Text, tc.text) && inOrder(x.Fix, tc.fix) {
					if bad := x.Level == Warning || x.Level == Broken; bad != (x.Fix != "") {
						t.Errorf("%s has the fix %q", x.Level, x.Fix)
					}
					return
				}
				said = append(said, string(x.Level)+": "+x.Text+"\n  fix: "+x.Fix)
			}
			t.Errorf("got\n%s\nwant %s: %s\n  fix: %s", strings.Join(said, "\n"), tc.level, tc.text, tc.fix)
		})
	}
}

// inOrder says whether all parts between stars are in s, one after the other.
func inOrder(s, parts string) bool {
	for _, p := range strings.Split(parts, "*") {
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return true
}

// quiet ends all sidecars.
func (f *Facts) quiet() {
	for i := range f.Nodes {
		f.Nodes[i].Sidecar = Sidecar{Err: "connection refused"}
	}
	if f.Local != nil {
		f.Local.SidecarUID, f.Local.SocketErr = -1, "nobody listens"
	}
}

// second adds an archive that is not required.
func (f *Facts) second() *Archive {
	a := f.Archives[0]
	a.Name, a.URL, a.Required = "far", "s3://far", false
	f.Archives[0].Name = "near"
	f.Archives = append(f.Archives, a)
	return &f.Archives[1]
}

// Nothing that is said has a nodes' placeholder left in it, and nothing panics on facts that are empty.
func TestExamineAnything(t *testing.T) {
	empty := Facts{}
	alone := Facts{Nodes: []Node{{Name: "n1"}}, Local: &Local{}, Archives: []Archive{{}}}
	off := healthy()
	for i := range off.Nodes {
		off.Nodes[i].SQL, off.Nodes[i].REST, off.Nodes[i].Sidecar = SQL{Err: "x"}, NodeREST{Err: "x"}, Sidecar{Err: "x"}
	}
	for _, f := range []Facts{empty, alone, off} {
		for _, x := range Examine(f) {
			if strings.ContainsAny(x.Text+x.Fix, nodesHere+restartsHere) || x.Text == "" {
				t.Errorf("%s: %q, %q", x.Check, x.Text, x.Fix)
			}
			if (x.Level == Warning || x.Level == Broken) && x.Fix == "" {
				t.Errorf("%s: %q has no fix", x.Check, x.Text)
			}
		}
	}
}

func TestParameter(t *testing.T) {
	p := Patroni{Dynamic: map[string]any{"postgresql": map[string]any{"parameters": map[string]any{"archive_mode": true, "wal_keep_size": 16, "x": nil},
		"recovery_conf": map[string]any{"restore_command": "y"}}}}
	for name, want := range map[string]string{"archive_mode": "on", "wal_keep_size": "16", "restore_command": "y", "x": "", "none": ""} {
		if got, is := p.Parameter(name); got != want || is != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", name, got, is, want)
		}
	}
}

func TestBugs(t *testing.T) {
	for _, b := range Bugs() {
		if b.Does == "" || b.Source == "" || len(b.Fixed) == 0 {
			t.Errorf("%+v: say what it does, and who says so", b)
		}
		for major, minor := range b.Fixed {
			v := major * 10000
			if !b.Has(v) && minor > 0 {
				t.Errorf("%s: %d.0 has it", b.Does, major)
			}
			if minor != noFix && (b.Has(v+minor) || !b.Has(v+minor-1)) {
				t.Errorf("%s: fixed in %d.%d", b.Does, major, minor)
			}
		}
	}
	for v, want := range map[int]int{120002: 7, 120022: 3, 130022: 2, 140016: 0, 150020: 0, 150000: 2, 160005: 1, 170001: 1, 170002: 0, 180000: 0} {
		got := 0
		for _, b := range Bugs() {
			if b.Has(v) {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: got %d bugs, want %d", versionText(v), got, want)
		}
	}
}

func TestSegmentName(t *testing.T) {
	f := Facts{DCS: DCS{SegmentSize: wal.SegmentSize(1 << 20)}}
	if got, want := f.segment(2, 0x1001), "000000020000000100000001"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
