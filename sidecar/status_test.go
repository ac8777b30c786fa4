package main

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
)

// askedStatus runs `walbaton status` against a sidecar that knows st.
func askedStatus(t *testing.T, st Status, args ...string) (code int, out, errs string) {
	t.Helper()
	server := httptest.NewServer(webHandler(webSources{Status: func() any { return st }}))
	defer server.Close()
	return run(t, append([]string{"status", "--address", strings.TrimPrefix(server.URL, "http://")}, args...)...)
}

// twoNodes is a cluster in order.
func twoNodes() Status {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return Status{
		Version: "v0.1.0", Time: now, Member: "n1", Scope: "shop", SystemID: testSystemID, Ready: true,
		DCS:   DCSStatus{Answers: true, ReadAt: now},
		Baton: BatonStatus{Holder: "n1", Term: 7, Rule: "policy", Why: "it is Patroni's leader", Since: now.Add(-time.Minute)},
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
baton     n1 holds it, term 7, for 1m0s (it is Patroni's leader)
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
