package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

var update = flag.Bool("update", false, "write what the program says into testdata/*.golden")

// compareGolden holds text against testdata/<name>.golden, a page for reviewers; with -update it writes the page.
func compareGolden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		writeFile(t, "testdata", name+".golden", text)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not what the program says now; look at it, and write it with -update. Got\n%s", path, text)
	}
}

// badValues has wrong values, as YAML, for every key of walbaton.yml. A key alone has one that is refused whatever the
// others are; "also" adds keys to make that so.
var badValues = map[string][]string{
	"archive.url":               {"''", "archive", "file://mnt/archive", "s3:///bucket", "{}"},
	"archive.codec":             {"gzip"},
	"archive.access_key_id":     {"AKIA"},
	"archive.secret_access_key": {"'${NOPE}'", "[a, b]"},
	"archive.account_key":       {"not base64, url: 'azure://account/wal'", "a2V5, sas_token: sig=x"},
	"archive.sas_token":         {"'https://account.blob.core.windows.net/wal?sig=x', url: 'azure://account/wal'"},
	"restore_from":              {"ftp://host", "[file:///a, 'file:///b#c/d']", "{a: b}"},
	"encrypt_to":                {"age1wrong"},
	"encrypt_to_file":           {"/nowhere/recipients"},
	"identities":                {"/nowhere/identity"},
	"restore.patience":          {"10"},
	"restore.prefetch":          {"lots"},
	"restore.prefetch_dir":      {"prefetch", "/data/pg_wal", "/data/prefetch"},
	"patroni_config":            {"/nowhere/patroni.yml"},
	"scope":                     {"a/b", "..", "[a]"},
	"name":                      {"a/b"},
	"socket":                    {"run/s", "/" + strings.Repeat("long", 30)},
	"listen":                    {"9847", "localhost", ":port", ":98470"},
	"web.username":              {"dba", "'a:b', password: secret"},
	"web.password":              {"secret"},
	"web.cert":                  {"/etc/walbaton/tls.crt"},
	"web.key":                   {"/etc/walbaton/tls.key"},
	"web.ca":                    {"/nowhere/ca.crt", "/dev/null"},
	"policy":                    {"both"},
	"max_lag":                   {"128XB", "-1", "99999999999TB"},
	"push_wait":                 {"60", "-1s", "soon"},
	"shutdown_wait":             {"0s"},
	"stopped_wait":              {"0.5"},
	"stall_timeout":             {"1 minute"},
	"verify_every":              {"daily", "0s"},
	"keep_dir":                  {"keep", "/data/keep"},
	"bandwidth_limit":           {"10", "fast", "1 Gbit"},
	"workers":                   {"0", "many", "2.5"},
	"ttl":                       {"8s"},
	"renewal":                   {"15s"},
	"margin":                    {"1s"},
	"dcs.kind":                  {"consul"},
	"retention.mode":            {"14d", "on", "[off]"},
	"retention.keep":            {"14", "0d", "-1h", "forever", "99999999w"},
	"retention.without_backups": {"yes", "true"},
	"retention.every":           {"daily", "10ms"},
	"postgres.dsn":              {"'host=/tmp port=x'"},
	"postgres.data_dir":         {"data", "null"},
	"log":                       {"loud"},
}

// TestConfigMessages writes down what is said of each key of walbaton.yml that has a wrong value, and of other wrong files:
// testdata/config.golden. All of it exits with 2.
func TestConfigMessages(t *testing.T) {
	var page strings.Builder
	page.WriteString("What is said of wrong values in walbaton.yml, key by key. The exit code is 2 each time.\n")
	dir := t.TempDir()
	show := func(file string) {
		path := writeFile(t, dir, "walbaton.yml", file+"\n")
		err := startUpTo(t.Context(), path)
		if err == nil || exitCode(err) != exitUsage {
			t.Errorf("%s: got %v (exit %d), want exit 2", file, err, exitCode(err))
			return
		}
		said := strings.ReplaceAll(explainError(err), dir, "/etc/walbaton")
		fmt.Fprintf(&page, "\n%s\n    %s", strings.ReplaceAll(file, "\n", "; "), strings.ReplaceAll(strings.TrimSpace(said), "\n", "\n    ")+"\n")
	}
	for _, s := range settings() {
		if len(badValues[s.key]) == 0 {
			t.Errorf("no wrong value is tried for %s", s.key)
		}
		for _, v := range badValues[s.key] {
			file := s.key + ": " + v
			if section, key, nested := strings.Cut(s.key, "."); nested {
				file = fmt.Sprintf("%s: {%s: %s}", section, key, v)
			}
			show(file)
		}
	}
	for _, file := range []string{
		"sockt: /run/s", "colour: red", "archive: {urls: x}", "archive: file:///a", "- archive", "socket: /a\nsocket: /b", "a: b: c", "socket: '${HOME/x}'",
		"archive: {secret_access_key_file: /nowhere/key}", "a: 1\n---\nb: 2", "dcs: {kind: rest}\npolicy: replica", "dcs: {kind: static}\nretention: standby-only", "retention: 14d", "retention: {days: 14}", "retention: {mode: standby-only, keep: 14d}",
		"archives: [file:///a]", "archives: [{name: a}]", "archives: [{url: file:///a}]", "archives: [{name: a, url: file:///a, required: maybe}]",
		"archives: [{name: a, url: file:///a, required: false}]", "archives: [{name: a, url: file:///a, codec: lz4}]", "archive: {url: file:///a}\narchives: [{name: b, url: file:///b}]",
	} {
		show(file)
	}
	compareGolden(t, "config", page.String())
}

// startUpTo does all of a sidecar's start that depends on the configuration alone.
func startUpTo(ctx context.Context, path string) error {
	flags := map[string]string{"config": path, "postgres-data-dir": "/data"}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.Contains(string(raw), "data_dir") {
		delete(flags, "postgres-data-dir")
	}
	cfg, err := loadConfig(sources{env(), flags})
	if err != nil {
		return err
	}
	if cfg.Scope == "" {
		cfg.Scope = "shop" // the keys that are not what this is about
	}
	if cfg.Archive.URL == "" && !strings.Contains(string(raw), "url") {
		cfg.Archive.URL = "file:///a"
	}
	cfg.Name, cfg.DCS.Kind = "n1", "static"
	if err := cfg.needServer(); err != nil {
		return err
	}
	if _, err := cfg.Web.asker(); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := openStore(ctx, cfg.Archive.URL, cfg, nil, nil, log); err != nil {
		return err
	}
	_, err = restoreOptions(ctx, cfg, log)
	return err
}

// The README's table of exit codes is what the code can exit with, and each code has its test: scripts show them.
func TestExitCodesAreShown(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	all := ""
	for _, s := range scripts {
		all += page(t, "sidecar/"+s)
	}
	for _, code := range []int{exitFailed, exitUsage, exitFound, exitSignal, exitCannotSay} {
		if !strings.Contains(all, fmt.Sprintf("test $? = %d", code)) && !strings.Contains(all, fmt.Sprintf("exit code %d", code)) {
			t.Errorf("no script shows exit code %d", code)
		}
	}
}

// generous lets everybody win.
type generous struct{ store.Store }

func (g generous) Put(ctx context.Context, key string, b store.Body) error {
	if err := g.Store.Put(ctx, key, b); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// What keeps the archive from being opened, as PostgreSQL's log and the sidecar's show it, stands in archive.golden: the errors
// are those of the store, the data directory and the DCS, and push says them as they are.
func TestWhyUnreadable(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"empty", "half/global", "broken/global"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "half"), "PG_VERSION", "15\n")
	writeFile(t, filepath.Join(dir, "broken"), "PG_VERSION", "15\n")
	writeFile(t, filepath.Join(dir, "broken/global"), "pg_control", strings.Repeat("x", 8192))
	var out strings.Builder
	out.WriteString("What push says while the archive is not open: the reasons that are found on this machine. /data is PostgreSQL's data directory.\n")
	say := func(what string, err error) {
		line := notYet("pg_wal/000000010000000000000007", "13", err.Error())
		fmt.Fprintf(&out, "\n%s: exit %d\n    walbaton-wal: %s\n", what, line.Code, line.Message)
		if strings.Contains(line.Message, "\n") {
			t.Errorf("%s: %q is not one line", what, line.Message)
		}
	}
	for _, sub := range []string{"none", "empty", "half", "broken"} {
		err := whyUnreadable(filepath.Join(dir, sub))
		say("data directory: "+sub, errors.New(strings.ReplaceAll(err.Error(), filepath.Join(dir, sub), "/data")))
	}
	s := mem.New("archive")
	say("nobody began the archive", archiver.ErrNoArchive)
	say("another cluster", errOtherCluster)
	s.Unmount(true)
	_, err := archiver.OpenArchive(t.Context(), s, "shop", testSystemID)
	say("not mounted", errors.New(archiver.Reason(s, err)))
	for _, size := range []string{"1000", "2097152"} {
		s := mem.New("archive")
		id := `{"format": 1, "scope": "shop", "system_identifier": "` + fmt.Sprint(testSystemID) + `", "segment_size": ` + size + `, "floor": {"timeline": 1, "lsn": "0/0"}}`
		if err := s.Put(t.Context(), fmt.Sprintf("shop/%d/archive.json", uint64(testSystemID)), archiver.Bytes([]byte(id))); err != nil {
			t.Fatal(err)
		}
		srv := archiver.Server{SystemID: testSystemID, SegmentSize: 1 << 20}
		_, err := archiver.Prepare(t.Context(), s, archiver.Identity{Scope: "shop"}, srv, nil, nil)
		say("an archive of segments of "+size+" bytes", err)
	}
	say("a store that lets several writers have one key", steady(store.Prove(t.Context(), generous{mem.New("archive")}, "shop/probe/n1", 1<<20)))
	denied := mem.NewFaults(mem.New("archive"), func(mem.Call) mem.Fault { return mem.Fault{Drop: true, Err: fs.ErrPermission} })
	say("a store that refuses", steady(store.Prove(t.Context(), denied, "shop/probe/n1", 1<<20)))
	silent := mem.NewFaults(mem.New("archive"), func(mem.Call) mem.Fault { return mem.Fault{Drop: true} })
	say("a store that does not answer", steady(store.Prove(t.Context(), silent, "shop/probe/n1", 1<<20)))
	compareGolden(t, "archive", out.String())
}

// TestExplainBeingWritten: the segment that PostgreSQL writes just now needs nobody, whatever our check would say of it.
func TestExplainBeingWritten(t *testing.T) {
	var e explanation
	e.Name, e.Kind, e.Timeline, e.Begin, e.End = "000000010000000000000007", "segment", 1, "0/700000", "0/800000"
	e.Place, e.Line, e.Member, e.Archive.State, e.WhyNot = "on the line", 1, "n1", "absent", "n2 has the baton"
	e.Here = []archiver.Copy{{Where: "pg_wal", Status: "none", Size: 1 << 20, State: "cut", Records: "0/740698", Writing: true, Problem: "the file's pages turn zero"}}
	e.Push = archiver.Told{Row: "8", Act: archiver.Wait, Code: 1, Why: "its records end early"}
	e.Next = e.steps()
	var b strings.Builder
	if err := printExplanation(&b, e); err != nil {
		t.Fatal(err)
	}
	want := `000000010000000000000007, a segment of timeline 1, 0/700000 to 0/800000

line     on the line; the cluster is on timeline 1
pg_wal   being written, 1.0 MB, so far up to 0/740698
archive  does not have it
ship     nobody yet
push     nobody asks yet: PostgreSQL has not finished it

next
  nothing: PostgreSQL has not finished it
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestExplainBesideTheLeader: on a timeline above the leader's, somebody may have promoted this node by hand.
func TestExplainBesideTheLeader(t *testing.T) {
	var e explanation
	e.Name, e.Timeline, e.Line, e.Member, e.Leader, e.Archive.State = "000000030000000000000007", 3, 2, "n3", "n2", "absent"
	e.Here = []archiver.Copy{{Where: "pg_wal", Status: "ready", Good: true}}
	e.Push = archiver.Told{Row: "12", Act: archiver.Wait, Code: 1, Why: "another node has to ship it"}
	if next := strings.Join(e.steps(), "; "); !strings.Contains(next, "promoted it beside Patroni's leader n2") || !strings.Contains(next, "walbaton resolve --member n3 --timeline 3 ") {
		t.Errorf("got %s", next)
	}
	e.Leader = "n3" // Patroni took the key for it, and then promoted it
	if next := strings.Join(e.steps(), "; "); strings.Contains(next, "resolve") {
		t.Errorf("the leader is told %s", next)
	}
}

// docs/push.md and the page with what PostgreSQL's log shows know the same rows, and what the one quotes stands in the other.
func TestPushPageQuotesTheLog(t *testing.T) {
	docs, said := page(t, "docs/push.md"), page(t, "archiver/testdata/push.golden")
	said += page(t, "sidecar/testdata/archive.golden") // row 13 while the archive is not open
	for _, row := range archiverRows(t) {
		if !strings.Contains(said, "\nrow "+row+" ") {
			t.Errorf("archiver/testdata/push.golden has no row %s", row)
		}
	}
	sections := regexp.MustCompile(`(?s)### Row (\w+)\n.*?\*\*What you see\.\*\*(.*?)\*\*What to do`).FindAllStringSubmatch(docs, -1)
	if len(sections) != len(archiverRows(t)) {
		t.Errorf("%d rows say what you see, want %d", len(sections), len(archiverRows(t)))
	}
	for _, s := range sections {
		text := strings.Join(strings.Fields(s[2]), " ")
		for _, q := range regexp.MustCompile(`"([^"]+)"( in the sidecar's log)?`).FindAllStringSubmatch(text, -1) {
			if q[2] == "" && !strings.Contains(said, strings.TrimPrefix(q[1], "and ")) {
				t.Errorf("row %s: nobody says %q", s[1], q[1])
			}
		}
	}
}
