package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/sidecar/rehearsal"
	"github.com/walbaton/walbaton/sidecar/web"
)

// drillable is a cluster as a drill sees it, in order: Patroni's REST API, a sidecar and an archive. What was posted is kept.
type drillable struct {
	cluster, node, config string
	status                Status
	posted                []string
}

func newDrillable() *drillable {
	return &drillable{
		cluster: `{"members": [
			{"name": "n1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:1/patroni", "host": "127.0.0.1", "port": 1, "timeline": 2},
			{"name": "n2", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:1/patroni", "host": "127.0.0.1", "port": 1, "timeline": 2, "lag": 0}]}`,
		node:   fmt.Sprintf(`{"state": "running", "role": "master", "timeline": 2, "database_system_identifier": "%d", "patroni": {"version": "3.0.2", "scope": "shop"}}`, uint64(testSystemID)),
		config: `{"ttl": 30}`,
		status: twoNodes(),
	}
}

func (d *drillable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		b, _ := io.ReadAll(r.Body)
		d.posted = append(d.posted, r.URL.Path+" "+string(b))
		return
	}
	answer, ok := map[string]string{"/cluster": d.cluster, "/patroni": d.node, "/config": d.config}[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = io.WriteString(w, strings.ReplaceAll(answer, "http://127.0.0.1:1", "http://"+r.Host))
}

// drill types `walbaton drill switchover` at it.
func (d *drillable) drill(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	patroni := httptest.NewServer(d)
	defer patroni.Close()
	sidecar := httptest.NewServer(web.Handler(web.Sources{Status: func() any { return d.status }, Gatherer: prometheus.NewRegistry()}, web.Options{}))
	defer sidecar.Close()
	dir := t.TempDir()
	if err := makeTimelines(filepath.Join(dir, "archive"), nil); err != nil {
		t.Fatal(err)
	}
	return run(t, append([]string{"drill", "switchover", "--patroni-url", patroni.URL, "--address", strings.TrimPrefix(sidecar.URL, "http://"),
		"--archive", "file://" + dir + "/archive", "--scope", "shop", "--dsn", "user=postgres", "--log", "error"}, args...)...)
}

// TestDrillRefuses: what is not fit is left alone, with the reason, on a real connection.
func TestDrillRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*drillable)
		args   []string
		want   string
	}{
		"paused":          {func(d *drillable) { d.cluster = strings.Replace(d.cluster, "]}", `], "pause": true}`, 1) }, nil, "! Patroni is paused"},
		"a stopped node":  {func(d *drillable) { d.cluster = strings.Replace(d.cluster, "streaming", "stopped", 1) }, nil, "! n2 is stopped: all members must run and follow"},
		"no candidate":    {func(d *drillable) { d.cluster = strings.Replace(d.cluster, `"lag": 0`, `"lag": 99999999`, 1) }, nil, "! no replica could take over (n2: it lags 99999999 bytes behind"},
		"synchronous":     {func(d *drillable) { d.config = `{"synchronous_mode": true}` }, nil, "it is no synchronous standby"},
		"another cluster": {func(d *drillable) { d.node = strings.Replace(d.node, fmt.Sprint(uint64(testSystemID)), "99", 1) }, nil, "! the cluster's system identifier is 99"},
		"no sidecar":      {func(d *drillable) { d.status.Members[1].Sidecar = false }, nil, "! no sidecar answers beside n2"},
		"not that one":    {func(*drillable) {}, []string{"--candidate", "n9"}, "! there is no member n9: --candidate takes one of n2"},
		"no PostgreSQL":   {func(*drillable) {}, nil, "drill: connect to the primary n1: 127.0.0.1:1: connection refused\n  nothing was done"},
		"no API":          {func(*drillable) {}, []string{"--patroni-url", "http://127.0.0.1:1"}, "drill: ask for the members: 127.0.0.1:1: connection refused\n  nothing was done"},
		"no such host":    {func(*drillable) {}, []string{"--dsn", "host=db.invalid user=postgres"}, "drill: connect to the primary n1: lookup db.invalid"},
		"no such sidecar": {func(*drillable) {}, []string{"--address", "127.0.0.1:1"}, "drill: ask the sidecar at 127.0.0.1:1: "},
	} {
		d := newDrillable()
		tc.change(d)
		code, out, errs := d.drill(t, append(tc.args, "--yes")...)
		if code != exitFailed || out != "" || !strings.Contains(errs, tc.want) || !strings.Contains(errs, "nothing was done") || len(d.posted) > 0 {
			t.Errorf("%s: exit %d, %q, %q, posted %q; want 1 and %q", name, code, out, errs, d.posted, tc.want)
		}
	}
}

// TestDrillHangs: a Patroni that takes connections and answers none is not waited for without end.
func TestDrillHangs(t *testing.T) {
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hangs.Close()
	code, _, errs := newDrillable().drill(t, "--patroni-url", hangs.URL, "--wait", "1s", "--yes")
	if want := strings.TrimPrefix(hangs.URL, "http://") + ": no answer in time\n  nothing was done"; code != exitFailed || !strings.Contains(errs, want) {
		t.Errorf("exit %d, %q, want 1 and %q", code, errs, want)
	}
}

// TestDrillRefusalIsReported: who reads the report of a drill that runs by itself is to see that it was not run.
func TestDrillRefusalIsReported(t *testing.T) {
	d, dir := newDrillable(), filepath.Join(t.TempDir(), "out")
	d.status.Alarms = append(d.status.Alarms, d.status.Alarms...)
	d.status.Baton.Holder = ""
	code, out, _ := d.drill(t, "--json", "--report", dir)
	var res rehearsal.Result
	if err := json.Unmarshal([]byte(out), &res); err != nil || code != exitFailed || res.Verdict != rehearsal.NotRun || len(res.Why) != 1 || res.Cluster != "shop" {
		t.Errorf("exit %d, %v: %+v", code, err, res)
	}
	for _, name := range []string{"report.html", "report.md", "report.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), "not run") || !strings.Contains(string(b), "nobody holds the baton") {
			t.Errorf("%s: %v: %s", name, err, b)
		}
	}
}

// TestDrillUsage: mistakes on the command line exit with 2 and say what to type.
func TestDrillUsage(t *testing.T) {
	base := []string{"drill", "switchover", "--patroni-url", "http://127.0.0.1:1", "--dsn", "user=x"}
	for want, args := range map[string][]string{
		"drill takes switchover, and got nothing":          {"drill"},
		`drill takes switchover, and got "failover"`:       {"drill", "failover"},
		"it is not known where Patroni's REST API answers": {"drill", "switchover"},
		"it is not known how PostgreSQL is reached":        {"drill", "switchover", "--patroni-url", "http://n1:8008"},
		`--patroni-url "n1:8008" is no address`:            {"drill", "switchover", "--patroni-url", "n1:8008"},
		`--address: "n1" is not host:port`:                 append(base, "--address", "n1"),
		"--dsn is no connection string":                    append(base, "--dsn", "password=secret nonsense"),
		"--repeat 0":                                       append(base, "--repeat", "0"),
		"--rate 5000":                                      append(base, "--rate", "5000"),
		"--write 1ms and --wait 5m0s":                      append(base, "--write", "1ms"),
		"after a --kill-command nobody can choose":         append(base, "--kill-command", "true", "--candidate", "n2"),
		"one --candidate cannot take over 3 times":         append(base, "--repeat", "3", "--candidate", "n2"),
		"there is no Patroni here (dcs.kind static)":       append(base, "--config", writeFile(t, t.TempDir(), "walbaton.yml", "dcs: {kind: static}\n")),
		"the segments are encrypted, and no private key":   append(base, "--restore", "--config", writeFile(t, t.TempDir(), "walbaton.yml", "encrypt_to: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]\n")),
		"no archive is configured":                         base,
	} {
		code, _, errs := run(t, args...)
		if code != exitUsage || !strings.Contains(errs, want) || strings.Contains(errs, "secret") {
			t.Errorf("%q: exit %d, %q, want 2 and %q", args, code, errs, want)
		}
	}
}

// TestDrillConnection: a connection string without a host goes to the primary; one with a host stays as it is. Passwords are in no argument.
func TestDrillConnection(t *testing.T) {
	var cfg Config
	cfg.Patroni.PostgreSQL.Superuser.Username, cfg.Patroni.PostgreSQL.Superuser.Password = "admin", "it's"
	cfg.Patroni.PostgreSQL.Replication.Username, cfg.Patroni.PostgreSQL.Replication.Password = "repl", "secret"
	for dsn, want := range map[string]string{
		"":                                "admin it's@10.0.0.7:5433/postgres",
		"user=app password=p":             "app p@10.0.0.7:5433/postgres",
		"user=app password=p dbname=shop": "app p@10.0.0.7:5433/shop",
		"host=pooler port=6432 user=app password=p dbname=x": "app p@pooler:6432/x",
		"postgres://app:p@/shop":                             "app p@10.0.0.7:5433/shop",
		"postgres://app:p@pooler:6432/shop":                  "app p@pooler:6432/shop",
	} {
		f := drillFlags{dsn: dsn}
		c, err := f.connector(cfg)("10.0.0.7", 5433)
		if err != nil {
			t.Fatalf("%s: %v", dsn, err)
		}
		if got := fmt.Sprintf("%s %s@%s:%d/%s", c.User, c.Password, c.Host, c.Port, c.Database); got != want {
			t.Errorf("%q: got %s, want %s", dsn, got, want)
		}
	}
	f := drillFlags{}
	conninfo, env := f.backup(cfg)("10.0.0.7", 5433)
	if want := "host='10.0.0.7' port='5433' user='repl'"; conninfo != want || len(env) != 1 || env[0] != "PGPASSWORD=secret" {
		t.Errorf("got %q, %q, want %q", conninfo, env, want)
	}
}
