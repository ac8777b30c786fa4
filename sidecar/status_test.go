package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/window"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/sidecar/web"
)

// askedStatus runs `walbaton status` against a sidecar that knows st.
func askedStatus(t *testing.T, st Status, args ...string) (code int, out, errs string) {
	t.Helper()
	server := httptest.NewServer(web.Handler(web.Sources{Status: func() any { return st }, Gatherer: prometheus.NewRegistry()}, web.Options{}))
	defer server.Close()
	return run(t, append([]string{"status", "--address", strings.TrimPrefix(server.URL, "http://")}, args...)...)
}

// twoNodes is a cluster in order.
func twoNodes() Status {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return Status{
		Version: "v0.1.0", Time: now, Member: "n1", Scope: "shop", SystemID: testSystemID, Ready: true,
		DCS:   DCSStatus{Answers: true, ReadAt: now},
		Baton: BatonStatus{Holder: "n1", Term: 7, Rule: "policy", Why: "it is the leader", Since: now.Add(-time.Minute)},
		Archive: ArchiveStatus{URL: "s3://bucket/shop/7710542482846769188", Open: true, Answers: true, LastTaken: now.Add(-2 * time.Second), Floor: "0/1000000",
			Timeline: 2, From: "0/1000000", Frontier: "0/4000000", Segment: "000000020000000000000003"},
		Members: []MemberStatus{
			{Name: "n1", Role: "primary", State: "running", Timeline: 2, Leader: true, Baton: true, Sidecar: true, Store: true, ArchiveMode: "always", Has: 3},
			{Name: "n2", Role: "replica", State: "streaming", Timeline: 2, Sidecar: true, Store: true, ArchiveMode: "always", Has: 3},
		},
		Alarms: []archiver.Alarm{},
	}
}

func TestStatusText(t *testing.T) {
	code, out, errs := askedStatus(t, twoNodes())
	want := `cluster   shop, system identifier 7710542482846769188, timeline 2
baton     n1 holds it, term 7, for 1m0s (it is the leader)
archive   s3://bucket/shop/7710542482846769188
          whole from 0/1000000 to 0/4000000 (000000020000000000000003); nothing waits here; took a file from this node 2s ago
`
	if code != exitOK || errs != "" || !strings.HasPrefix(out, want) || strings.Contains(out, "!") {
		t.Errorf("in order: exit %d, %s\n%s", code, errs, out)
	}
	for _, row := range [][]string{{"n1", "primary", "running", "2", "holds", "it", "alive", "answers", "3", "0"}, {"n2", "replica", "streaming", "2", "alive", "answers", "3", "0"}} {
		if !line(out, row...) {
			t.Errorf("no row %v in\n%s", row, out)
		}
	}
	code, out, _ = askedStatus(t, twoNodes(), "--json")
	if code != exitOK || !strings.Contains(out, `"frontier_lsn": "0/4000000"`) || !strings.Contains(out, `"alarms": []`) {
		t.Errorf("json: exit %d\n%s", code, out)
	}
}

// Two primaries are said by every node's sidecar: the one of them that is not the leader need not have an alarm yet.
// A recovery reads the archive: status says how much of it was there in time. One that is over is in the JSON only.
func TestStatusOfRestore(t *testing.T) {
	st := twoNodes()
	st.Restore = restoreStatus(window.Tally{Window: 488, Waited: 9, Archive: 3, Ahead: 16, Ready: 12, Bytes: 12 << 24})
	_, out, _ := askedStatus(t, st)
	want := "\nrestore   PostgreSQL reads the archive: 500 segments given, 488 of them prefetched, 9 while prefetching was under way; 12 more are ready (192 MB), and it is to be 16 ahead\n"
	if !strings.Contains(out, want) {
		t.Errorf("no line %q in\n%s", want, out)
	}
	st.Restore.Ahead = 0
	if _, out, _ := askedStatus(t, st); strings.Contains(out, "restore ") {
		t.Errorf("a recovery that is over is still shown:\n%s", out)
	}
	if _, out, _ := askedStatus(t, st, "--json"); !strings.Contains(out, `"segments_prefetched": 488`) {
		t.Errorf("the JSON lacks it:\n%s", out)
	}
	if restoreStatus(window.Tally{}) != nil {
		t.Error("where nothing was restored there is something to say")
	}
}

func TestStatusTwoPrimaries(t *testing.T) {
	st := twoNodes()
	st.DCS.Paused = true
	st.Members[0].Primary, st.Members[1].Primary = true, true
	code, out, _ := askedStatus(t, st)
	if code != exitFound || !strings.Contains(out, "! n2 is a primary, and Patroni's leader is n1: ") || strings.Count(out, "!") != 1 || !strings.Contains(out, "timeline 2, Patroni is paused\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	st.Members[0].Leader = false // no leader is known: nobody can say which is which
	if code, out, _ := askedStatus(t, st); code != exitOK {
		t.Errorf("without a leader: exit %d\n%s", code, out)
	}
}

// What is not in order is said, worst first, and the exit code tells.
func TestStatusProblems(t *testing.T) {
	st := twoNodes()
	st.Ready, st.Why = false, "the archive does not answer: timeout"
	st.Archive.Answers, st.Archive.Why, st.Archive.Waiting, st.Archive.Oldest = false, "timeout", 12, "000000020000000000000004"
	st.Baton = BatonStatus{Why: "no store answers"}
	st.Members[1].Sidecar = false
	st.Alarms = []archiver.Alarm{{Row: "6c", Name: "000000020000000000000004", Why: "the archive has another segment of this name"}}
	code, out, _ := askedStatus(t, st)
	want := []string{
		"! 000000020000000000000004 needs a person: the archive has another segment of this name (row 6c; walbaton explain 000000020000000000000004)",
		"! the archive does not answer: timeout",
		"! nobody holds the baton: no store answers",
		"! no sidecar answers beside n2: what only it has is not protected",
	}
	_, problems, _ := strings.Cut(out, "\n!")
	if got := strings.TrimSpace("!" + problems); code != exitFound || got != strings.Join(want, "\n") {
		t.Errorf("exit %d, got\n%s\nwant\n%s", code, got, strings.Join(want, "\n"))
	}
	for _, part := range []string{"nobody holds it: no store answers", "12 segments wait here, from 000000020000000000000004 on", "absent"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
}

// One segment waits, whether its name is known or not yet.
func TestStatusOneWaits(t *testing.T) {
	for oldest, want := range map[string]string{"": "; 1 segment waits here", "000000020000000000000004": "; 1 segment waits here, 000000020000000000000004"} {
		st := twoNodes()
		st.Archive.Waiting, st.Archive.Oldest = 1, oldest
		if _, out, _ := askedStatus(t, st); !strings.Contains(out, want) || strings.Contains(out, "segments wait here") || strings.Contains(out, "here, \n") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// While the DCS does not answer, what it said of the baton is told as of then.
func TestStatusWithoutDCS(t *testing.T) {
	st := twoNodes()
	st.DCS = DCSStatus{Error: "timeout", ReadAt: st.Time.Add(-20 * time.Second)}
	st.Baton = BatonStatus{Holder: "n1", Term: 7, Why: "it is the leader", AsOf: st.DCS.ReadAt}
	_, out, _ := askedStatus(t, st)
	if !strings.Contains(out, "baton     n1 held it when the DCS answered last, 20s ago\n") || !line(out, "n1", "primary", "running", "2", "held", "it", "alive", "answers", "3", "0") {
		t.Errorf("got\n%s", out)
	}
	st.Baton, st.Members[0].Baton = BatonStatus{Why: "no leader is known", AsOf: st.DCS.ReadAt}, false
	if _, out, _ = askedStatus(t, st); !strings.Contains(out, "baton     nobody held it when the DCS answered last, 20s ago\n") || strings.Contains(out, "nobody holds") {
		t.Errorf("free then: got\n%s", out)
	}
}

// A node that is alone in the DCS, with nobody who may ship, is a problem; a PostgreSQL without Patroni has no baton.
func TestStatusAlone(t *testing.T) {
	st := twoNodes()
	st.Members, st.Baton = st.Members[:1], BatonStatus{Why: "the leader n1 has the tag walbaton: never"}
	if code, out, _ := askedStatus(t, st); code != exitFound || !strings.Contains(out, "! nobody holds the baton: the leader n1 has the tag walbaton: never\n") {
		t.Errorf("exit %d, got\n%s", code, out)
	}
	st.DCS.Static = true
	if code, out, _ := askedStatus(t, st); code != exitOK || strings.Contains(out, "!") {
		t.Errorf("static: exit %d, got\n%s", code, out)
	}
}

// Tags are shown, and what they cost; one that means nothing is named.
func TestStatusTags(t *testing.T) {
	st := twoNodes()
	st.Members[0].Tag, st.Members[1].Tag = "designated", "never"
	st.Members = append(st.Members, MemberStatus{Name: "n3", Role: "replica", State: "streaming", Timeline: 2, Sidecar: true, Store: true, ArchiveMode: "always", Has: 3, Tag: "nevr"})
	code, out, _ := askedStatus(t, st)
	_, notes, _ := strings.Cut(out, "\n\n- ")
	want := "n2 has the tag walbaton: never: what only it has waits until another node has it too, and is lost with its disk\n" +
		"- n3 has the tag walbaton: nevr, which means nothing: it is designated or never\n"
	if code != exitOK || notes != want {
		t.Errorf("exit %d, got\n%s\nwant\n%s", code, out, want)
	}
	for _, row := range [][]string{{"n1", "primary", "running", "2", "holds", "it", "alive", "answers", "3", "0"}, {"n2", "replica", "streaming", "2", "never", "alive", "answers", "3", "0"}} {
		if !line(out, row...) {
			t.Errorf("no row %v in\n%s", row, out)
		}
	}
}

// golden compares with a file of testdata; UPDATE_SCRIPTS=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_SCRIPTS") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// archive_mode=on is said, with what it costs and what to type; off is a problem.
func TestStatusArchiveMode(t *testing.T) {
	for _, tc := range []struct {
		name  string
		modes [2]string
		code  int
	}{
		{"always", [2]string{"always", "always"}, exitOK},
		{"on", [2]string{"on", "on"}, exitOK},
		{"on_one", [2]string{"always", "on"}, exitOK},
		{"off", [2]string{"off", "on"}, exitFound},
		{"unknown", [2]string{"", "always"}, exitOK},
	} {
		st := twoNodes()
		st.Members[0].ArchiveMode, st.Members[1].ArchiveMode = tc.modes[0], tc.modes[1]
		code, out, errs := askedStatus(t, st)
		if code != tc.code || errs != "" {
			t.Errorf("%s: exit %d, want %d; %s", tc.name, code, tc.code, errs)
		}
		golden(t, "status/archive_mode_"+tc.name+".txt", out)
	}
}

// Where there is no Patroni nothing is said of it, and what the server does is what the server says.
func TestStatusOfStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.scope = nil
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.until(10*time.Second, "the segments are in the archive", func() bool { return c.archived(w.Full()[1].String()) })
		show := func(name string) {
			t.Helper()
			time.Sleep(time.Minute - time.Duration(time.Now().Nanosecond()))
			var out strings.Builder
			if err := printStatus(&out, n1.Status()); err != nil {
				t.Fatal(err)
			}
			golden(t, "status/static_"+name+".txt", out.String())
		}
		show("runs")
		n1.stopped(w)
		show("stopped")
		n1.standby(w, "10.0.0.1")
		show("standby")
		off := n1.server.Server()
		off.State, off.ArchiveMode, off.Receiver = archiver.ServerPrimary, "off", archiver.Receiver{}
		n1.server.set(off)
		show("archive_mode_off")
		n1.stop()
		for _, l := range n1.log.lines() {
			if strings.Contains(l, "Patroni") {
				t.Errorf("the log speaks of Patroni: %s", l)
			}
		}
	})
}

// With dcs.kind rest nobody has a baton, and nothing is known of other sidecars: that is said, and is no problem.
func TestStatusOfREST(t *testing.T) {
	rest := func() Status {
		st := twoNodes()
		st.DCS.REST = true
		st.Members[1] = MemberStatus{Name: "n2", Role: "replica", State: "streaming", Timeline: 2}
		st.withoutBaton()
		return st
	}
	code, out, errs := askedStatus(t, rest())
	if code != exitOK || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	golden(t, "status/rest_runs.txt", out)
	st := rest()
	st.DCS.Answers, st.DCS.Error = false, "read scope: Get \"http://10.0.0.1:8008/patroni\": connection refused"
	code, out, _ = askedStatus(t, st)
	if code != exitFound {
		t.Errorf("silent: exit %d", code)
	}
	golden(t, "status/rest_silent.txt", out)
}

// A Patroni that is stopped has no key: what its server does its record says.
func TestStatusWithoutMemberKey(t *testing.T) {
	for role, want := range map[leader.Role][2]string{
		leader.RoleStopped: {"", "stopped"}, leader.RoleUnknown: {"", "unknown"}, leader.RolePrimary: {"primary", "no Patroni"},
	} {
		v := leader.View{Records: map[string]leader.Record{"n1": {Member: "n1", Role: role}}}
		if m := memberStatus(v, "n1"); m.Role != want[0] || m.State != want[1] {
			t.Errorf("%s: got role %q, state %q, want %q", role, m.Role, m.State, want)
		}
	}
}

func TestStatusWithoutSidecar(t *testing.T) {
	server := httptest.NewServer(nil)
	address := strings.TrimPrefix(server.URL, "http://")
	code, out, errs := run(t, "status", "--address", address)
	if code != exitFailed || out != "" || !strings.Contains(errs, "it answers 404") {
		t.Errorf("another server: exit %d, %s%s", code, out, errs)
	}
	server.Close()
	code, out, errs = run(t, "status", "--address", address)
	if code != exitFailed || out != "" || !strings.Contains(errs, "connection refused\n  is the sidecar running?") {
		t.Errorf("nobody: exit %d, %s%s", code, out, errs)
	}
}

// Every command says what to type.
func TestHelp(t *testing.T) {
	for _, c := range verbs(world{os.Getenv, os.Stdout, os.Stderr}) {
		if c.Short == "" || !strings.Contains(c.Example, "walbaton "+c.Name()) {
			t.Errorf("%s: short help %q, examples %q", c.Name(), c.Short, c.Example)
		}
		code, out, errs := run(t, c.Name(), "--help")
		if code != exitOK || errs != "" || !strings.Contains(out, "Examples:\n") {
			t.Errorf("%s --help: exit %d, %s\n%s", c.Name(), code, errs, out)
		}
	}
}

// TestStatusOfDisks: while the archive is away, status says which disk lasts how long.
func TestStatusOfDisks(t *testing.T) {
	const gb = 1 << 30
	for name, tc := range map[string]struct {
		m    MemberStatus
		pace uint64
		want string // "" is nothing
	}{
		"in order":             {MemberStatus{Store: true, Free: 5 * gb}, 1, ""},
		"a backlog that moves": {MemberStatus{Store: true, Misses: 40, Keeps: 640 << 20}, 1, ""},
		"silent":               {MemberStatus{Misses: 40, Keeps: 640 << 20, Free: 2 * gb}, 1 << 20, "n1 keeps 40 segments (640 MB) that the archive is not known to have; about 2.0 GB are left on its disk, which last 34 minutes at the present 1.0 MB of WAL a second"},
		"silent, and idle":     {MemberStatus{Misses: 1, Keeps: 16 << 20, Free: 2 * gb}, 0, "n1 keeps 1 segment (16.0 MB) that the archive is not known to have; about 2.0 GB are left on its disk"},
		"full of WAL":          {MemberStatus{Misses: 40, Keeps: 640 << 20, Free: 1, Full: true}, 0, "n1 keeps 40 segments (640 MB) that the archive is not known to have, and its disk is full: PostgreSQL stops there\n  bring the archive back, or make the disk larger; delete nothing in pg_wal"},
		"full of else":         {MemberStatus{Store: true, Free: 1, Full: true}, 0, "the disk of n1 is full: PostgreSQL stops there"},
	} {
		tc.m.Name = "n1"
		st := twoNodes()
		st.Members[0].Free, st.Members[0].Store, st.Members[0].Misses, st.Members[0].Keeps, st.Members[0].Full = tc.m.Free, tc.m.Store, tc.m.Misses, tc.m.Keeps, tc.m.Full
		st.Postgres.Pace = tc.pace
		code, out, _ := askedStatus(t, st)
		if tc.want == "" {
			if code != exitOK || strings.Contains(out, "!") {
				t.Errorf("%s: exit %d\n%s", name, code, out)
			}
			continue
		}
		if code != exitFound || !strings.Contains(out, "! "+tc.want+"\n") {
			t.Errorf("%s: exit %d, want %q in\n%s", name, code, tc.want, out)
		}
	}
}
