package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// env makes a getenv of pairs.
func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The defaults of DESIGN section 9.
func TestDefaults(t *testing.T) {
	got, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull}})
	if err != nil {
		t.Fatal(err)
	}
	got.noPatroni = nil
	want := Config{
		Archive: ArchiveConfig{Codec: "zstd"},
		Socket:  "/run/walbaton/walbaton.sock", Listen: ":9847",
		Policy: "primary", MaxLag: 128 << 20,
		Restore:  RestoreConfig{Patience: 10 * time.Minute, Prefetch: 1 << 30},
		PushWait: time.Minute, ShutdownWait: 5 * time.Second, StoppedWait: 30 * time.Second, StallTimeout: time.Minute, VerifyEvery: time.Hour,
		Workers: 4, TTL: 15 * time.Second, Renewal: 5 * time.Second, Margin: 3 * time.Second,
		Retention: RetentionConfig{Mode: "off"},
		Log:       "info",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What lies in prefetch_dir is removed: it is never PostgreSQL's, whatever links lead there.
func TestPrefetchDir(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"data", "wal/pg_wal"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"data/pg_wal": "wal/pg_wal", "innocent": "data", "wal2": "wal"} {
		if err := os.Symlink(filepath.Join(dir, to), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, good := range map[string]bool{
		"": true, "prefetch": true, "data-walbaton/prefetch": true, "wal/prefetch": true, "wal/pg_wal-prefetch": true,
		"data/pg_wal": false, "data/prefetch": false, "wal/pg_wal": false, "wal/pg_wal/prefetch": false, "innocent/new/prefetch": false, "wal2/pg_wal": false, "wal2/../data": false,
	} {
		flags := map[string]string{"config": os.DevNull, "postgres-data-dir": filepath.Join(dir, "data")}
		want := filepath.Join(dir, "data-walbaton/prefetch")
		if path != "" {
			want = filepath.Join(dir, path)
			flags["restore-prefetch-dir"] = want
		}
		c, err := loadConfig(sources{env(), flags})
		if (err == nil) != good || good && c.Restore.PrefetchDir != want {
			t.Errorf("%q: got %q, %v", path, c.Restore.PrefetchDir, err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, dir, "w.yml", "push_wait: 1s\nshutdown_wait: 1s\nstopped_wait: 1s\n")
	c, err := loadConfig(sources{
		env("WALBATON_CONFIG", file, "WALBATON_PUSH_WAIT", "2s", "WALBATON_SHUTDOWN_WAIT", "2s", "WALBATON_WORKERS", "8"),
		map[string]string{"push-wait": "3s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []time.Duration{c.PushWait, c.ShutdownWait, c.StoppedWait, c.StallTimeout}
	want := []time.Duration{3 * time.Second, 2 * time.Second, time.Second, time.Minute} // flag, environment, file, default
	if !reflect.DeepEqual(got, want) || c.Workers != 8 {
		t.Errorf("got %v and %d workers, want %v and 8", got, c.Workers, want)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "secret", "s3cr$et{}\n")
	pg := writeFile(t, dir, "patroni.yml", "scope: shop\nname: n1\nnamespace: /ns/\netcd3: {hosts: '127.0.0.1:2379'}\npostgresql: {data_dir: /data/pg/}\n")
	file := writeFile(t, dir, "w.yml", `
archive: &main
  url: s3://${BUCKET}/a$$b${TAIL}
  access_key_id: $${literal}
  secret_access_key_file: secret
restore_from: ["s3://one/p", "${OTHER}"]
patroni_config: `+pg+`
max_lag: 1GB
workers: 2
`)
	c, err := loadConfig(sources{env("BUCKET", "b: {x", "TAIL", "${BUCKET}", "OTHER", "file:///o"), map[string]string{"config": file}})
	if err != nil {
		t.Fatal(err)
	}
	archive := ArchiveConfig{URL: "s3://b: {x/a$$b${BUCKET}", Codec: "zstd", AccessKeyID: "${literal}", SecretAccessKey: "s3cr$et{}"}
	if c.Archive != archive {
		t.Errorf("archive: got %+v, want %+v", c.Archive, archive)
	}
	if want := []string{"s3://one/p", "file:///o"}; !reflect.DeepEqual(c.RestoreFrom, want) {
		t.Errorf("restore_from: got %v, want %v", c.RestoreFrom, want)
	}
	if c.MaxLag != 1<<30 || c.Workers != 2 {
		t.Errorf("got max_lag %d and %d workers", c.MaxLag, c.Workers)
	}
	got := []string{c.Scope, c.Name, c.Postgres.DataDir, c.KeepDir, c.Patroni.Path()}
	if want := []string{"shop", "n1", "/data/pg", "/data/pg-walbaton", "/ns/shop/"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := c.needServer(); err != nil {
		t.Errorf("need server: %v", err)
	}
}

// What is wrong is named with its place, and what to type next stands below it. Config errors that a user
// meets at the command line are in testdata/script/config.txtar.
func TestFileErrors(t *testing.T) {
	for file, want := range map[string]string{
		"archive: {url: a}\narchive: {url: b}": "w.yml:2: archive comes twice",
		"archive:\n  url: a\n  url: b":         "w.yml:3: archive.url comes twice",
		"archive: file:///x":                   "w.yml:1: archive must hold keys, not a value",
		"archive: {url: [a, b]}":               "w.yml:1: archive.url must have one value",
		"\nsocket:\n":                          "w.yml:2: socket must have one value",
		"push_wait: 60":                        `w.yml:1: push_wait: "60" is not a time`,
		"push_wait: -1s":                       `"-1s" is not a time`,
		"max_lag: 1 XB":                        `w.yml:1: max_lag: "1 XB" is not a size`,
		"max_lag: 99999999TB":                  "is not a size",
		"workers: 0":                           "is not a number from 1 to 1000",
		"policy: both":                         `w.yml:1: policy: "both" is none of primary, replica`,
		"- a":                                  "the file must hold keys, not a value",
		"a: b: c":                              "mapping values are not allowed",
		"a: 1\n---\nb: 2":                      "more than one YAML document",
		"\n\nsocket: ${HOME/x}":                "w.yml:3: socket: ${ without a name and } after it",
		"archive: {url: '${NOPE}'}":            "w.yml:1: archive.url: ${NOPE}: the environment variable NOPE is not set",
		"archive: {secret_access_key_file: /nowhere}": "w.yml:1: archive.secret_access_key_file: /nowhere: no such file",
		"ttl: 8s":       "renewal 5s and margin 3s leave no time within ttl 8s",
		"margin: 1s":    "margin: 1s is not above 1s",
		"listen: 9847":  `listen: "9847" is not an address with a port`,
		"socket: run/s": `socket: "run/s" is relative`,
		"postgres: {data_dir: /d}\nkeep_dir: /d/keep":  "/d/keep lies in the data directory /d",
		"postgres: {data_dir: /d}\nkeep_dir: /d/../d/": "lies in the data directory",
		"patroni_config: /nowhere":                     "/nowhere",
		"x: &x {url: a}\narchive: *x":                  `w.yml:1: unknown key "x"`,
	} {
		path := writeFile(t, t.TempDir(), "w.yml", file)
		_, err := loadConfig(sources{env(), map[string]string{"config": path}})
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%q: got %v (exit %d), want %q and exit 2", file, err, exitCode(err), want)
		}
	}
}

func TestScopeIsOne(t *testing.T) {
	dir := t.TempDir()
	pg := writeFile(t, dir, "patroni.yml", "scope: shop\netcd3: {hosts: '127.0.0.1:2379'}\n")
	_, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull, "patroni-config": pg, "scope": "other"}})
	if err == nil || !strings.Contains(err.Error(), `"other" here and "shop" by Patroni's`) {
		t.Errorf("got %v", err)
	}
}

// Every setting has a name of its own in the file, as a flag and in the environment, and a secret has no flag.
func TestSettings(t *testing.T) {
	seen := map[string]string{}
	for _, s := range settings() {
		for _, name := range []string{s.key, "--" + s.flagName(), s.envName()} {
			if seen[name] != "" {
				t.Errorf("%s is %s and %s", name, seen[name], s.key)
			}
			seen[name] = s.key
		}
		if !s.secret && s.help == "" {
			t.Errorf("%s has no help", s.key)
		}
	}
	for name, want := range map[string]string{"--archive": "archive.url", "WALBATON_PUSH_WAIT": "push_wait", "WALBATON_PATRONI_CONFIG": "patroni_config"} {
		if seen[name] != want {
			t.Errorf("%s is %q, want %q", name, seen[name], want)
		}
	}
}

func TestOpenDCS(t *testing.T) {
	for file, want := range map[string]string{
		"scope: s\nconsul: {host: 'c:8500'}":   "",
		"scope: s\netcd: {host: 'c:2379'}":     "section etcd",
		"scope: s":                             "names no DCS",
		"scope: s\netcd3: {hosts: 'a:1, b:2'}": "",
		"scope: s\nzookeeper: {hosts: 'a:1'}":  "",
	} {
		pg := writeFile(t, t.TempDir(), "patroni.yml", file)
		c, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull, "patroni-config": pg}})
		if err != nil {
			t.Fatalf("%q: %v", file, err)
		}
		d, err := openDCS(c)
		switch {
		case want == "" && (err != nil || !strings.HasSuffix(d.String(), "/service/s/")):
			t.Errorf("%q: got %v, %v", file, d, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(explainError(err), "etcd3")):
			t.Errorf("%q: got %v, want %q", file, err, want)
		}
	}
}

// Where only Patroni can read its DCS, the message names the way out, and the way works.
func TestREST(t *testing.T) {
	for file, want := range map[string]string{
		"etcd: {host: 'c:2379'}":      "--dcs-kind rest",
		"raft: {self_addr: 'c:2222'}": "--dcs-kind rest",
		"consul: {host: 'c:8500'}":    "",
		"postgresql: {data_dir: /pg}": "--dcs-kind rest",
	} {
		pg := writeFile(t, t.TempDir(), "patroni.yml", "scope: s\nname: n1\nrestapi: {listen: '0.0.0.0:8008', connect_address: '10.0.0.1:8008'}\n"+file)
		c, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull, "patroni-config": pg}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openDCS(c); want != "" && !strings.Contains(explainError(err), want) {
			t.Errorf("%s: %v", file, explainError(err))
		}
		c.DCS.Kind = "rest"
		if d, err := openDCS(c); err != nil || d.String() != "Patroni's REST API at http://10.0.0.1:8008, scope s" {
			t.Errorf("%s: %v, %v", file, d, err)
		}
	}
	for file, want := range map[string]string{
		"scope: s": "no restapi.listen",
		"scope: s\nrestapi: {listen: ':8008', certfile: /no/crt}":              "/no/crt",
		"scope: s\nrestapi: {listen: ':8008'}\nctl: {cacert: /no/ca}":          "/no/ca",
		"scope: s\nrestapi: {listen: ':8008', cafile: /no/ca, keyfile: /no/k}": "/no/ca",
	} {
		pg := writeFile(t, t.TempDir(), "patroni.yml", file)
		c, err := loadConfig(sources{env(), map[string]string{"config": os.DevNull, "patroni-config": pg, "dcs-kind": "rest"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openDCS(c); err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}

// A Citus group has a folder of its own in the archive, like a cluster.
func TestCitusScope(t *testing.T) {
	pg := writeFile(t, t.TempDir(), "patroni.yml", "scope: demo\nname: n1\netcd3: {hosts: 'a:1'}\ncitus: {database: app, group: 1}\n")
	load := func(flags map[string]string) (Config, error) {
		flags["config"], flags["patroni-config"] = os.DevNull, pg
		return loadConfig(sources{env(), flags})
	}
	c, err := load(map[string]string{})
	if err != nil || c.Scope != "demo-1" || c.Patroni.Path() != "/service/demo/1/" {
		t.Errorf("scope %q, %v", c.Scope, err)
	}
	if _, err := load(map[string]string{"scope": "demo-1"}); err != nil {
		t.Error(err)
	}
	if _, err := load(map[string]string{"scope": "demo"}); err == nil || !strings.Contains(err.Error(), `"demo-1"`) {
		t.Errorf("the scope without its group: %v", err)
	}
	group := 1
	if got := (Status{Scope: "demo-1", Group: &group}).howAlways(); !strings.Contains(got, "patronictl restart demo --group 1 MEMBER") {
		t.Errorf("got %s", got)
	}
}

func TestWithRights(t *testing.T) {
	const denied = `read scope: permission denied: the token lacks key_prefix "service/s/" { policy = "read" }`
	if got := withRights(denied); !strings.HasPrefix(got, denied) || !strings.Contains(got, "docs/dcs.md") {
		t.Errorf("got %s", got)
	}
	if got := withRights("read scope: connection refused"); got != "read scope: connection refused" {
		t.Errorf("got %s", got)
	}
}

func TestOpenStore(t *testing.T) {
	for url, want := range map[string]string{
		"file:///mnt/archive":                    "",
		"/mnt/archive":                           "",
		"s3://bucket/prefix?region=eu-central-1": "",
		"mnt/archive":                            "not absolute",
		"sftp://host/x":                          "names no user",
		"gs://Bucket":                            `"Bucket" cannot be the name of a bucket`,
		"azure://account/container":              "",
		"azure://account":                        "is not like azure://account/container/prefix",
		"ftp://host":                             `nothing is known of "ftp:"`,
		"file://host/mnt":                        "it is not like file:///absolute/folder",
	} {
		s, err := openStore(t.Context(), url, Config{StallTimeout: time.Second}, nil, nil, discard())
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want == "" && s.String() == "":
			t.Errorf("%s: no name", url)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage):
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}
