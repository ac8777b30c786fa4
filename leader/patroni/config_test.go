package patroni_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/patroni"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// read parses one text as if it were patroni.yml.
func read(t *testing.T, text string, vars map[string]string) (patroni.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return patroni.ReadConfig(path, env(vars))
}

func must(t *testing.T, text string, vars map[string]string) patroni.Config {
	t.Helper()
	c, err := read(t, text, vars)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func TestReadConfigFile(t *testing.T) {
	c, err := patroni.ReadConfig("testdata/config/patroni.yml", env(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := patroni.Config{
		Scope: "lab", Namespace: "service", Name: "n1",
		DCS: patroni.DCSConfig{
			Kind:    "etcd3",
			Etcd3:   patroni.Etcd3{Hosts: []string{"127.0.0.1:42379"}, Protocol: "http"},
			Options: map[string]any{"host": "127.0.0.1:42379"},
		},
		RestAPI: patroni.RestAPI{Listen: "127.0.0.1:8041", ConnectAddress: "127.0.0.1:8041"},
		PostgreSQL: patroni.PostgreSQL{
			DataDir: "/srv/n1/pgdata", ConfigDir: "/srv/n1/pgdata", BinDir: "/usr/lib/postgresql/15/bin",
			Listen: "127.0.0.1:5541", ConnectAddress: "127.0.0.1:5541", PgPass: "/srv/n1/pgpass",
			SocketDirs:  []string{"/srv/n1/sock"},
			Superuser:   patroni.Credentials{Username: "postgres", Password: "postgres"},
			Replication: patroni.Credentials{Username: "replicator", Password: "replicator"},
			Rewind:      patroni.Credentials{Username: "postgres", Password: "postgres"},
			Parameters:  map[string]string{"unix_socket_directories": "/srv/n1/sock"}, RecoveryConf: map[string]string{},
		},
		TTL: 20 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 9 * time.Second,
		Tags: map[string]any{"nofailover": false, "walbaton": "designated", "weight": 2},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if p := c.Path(); p != "/service/lab/" {
		t.Errorf("path %s", p)
	}
	if u := c.RestAPI.URL(); u != "http://127.0.0.1:8041" {
		t.Errorf("REST API at %s", u)
	}
}

func TestReadConfigDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-base.yml":   "scope: a\nname: n1\netcd3: {hosts: 'h1,h2'}\npostgresql: {data_dir: /d, parameters: {port: 5432, a: 1}}\nconsul: {host: c}",
		"20-site.yaml":  "scope: b\nconsul: null\npostgresql: {parameters: {a: null, b: 2}}",
		"30-empty.yml":  "# nothing\n",
		"99-notes.txt":  "scope: wrong",
		"40-dir.yml/x":  "",
		"05-early.yaml": "scope: first\nname: early",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := patroni.ReadConfig(dir, env(map[string]string{"PATRONI_NAME": "n9"}))
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]string{"port": "5432", "b": "2"}
	if c.Scope != "b" || c.Name != "n9" || c.DCS.Kind != "etcd3" || !reflect.DeepEqual(c.PostgreSQL.Parameters, params) || c.PostgreSQL.DataDir != "/d" {
		t.Errorf("got %+v", c)
	}
	if _, err := patroni.ReadConfig(t.TempDir(), env(nil)); err == nil {
		t.Error("an empty directory was accepted")
	}
}

func TestReadConfigVariables(t *testing.T) {
	vars := map[string]string{
		"PATRONI_SCOPE": "demo", "PATRONI_NAME": "pod-0", "PATRONI_NAMESPACE": "/db/",
		"PATRONI_ETCD3_HOSTS": "'10.0.0.1:2379', '10.0.0.2'", "PATRONI_ETCD3_PROTOCOL": "https",
		"PATRONI_ETCD3_USERNAME": "u", "PATRONI_ETCD3_PASSWORD": "p$1",
		"PATRONI_ETCD3_CACERT": "/ca", "PATRONI_ETCD3_CERT": "/c", "PATRONI_ETCD3_KEY": "/k",
		"PATRONI_CONSUL_PASSWORD":    "a database user named consul",
		"PATRONI_SUPERUSER_USERNAME": "admin", "PATRONI_SUPERUSER_PASSWORD": "s", "PATRONI_SUPERUSER_SSLMODE": "verify-full",
		"PATRONI_POSTGRESQL_DATA_DIR": "/pg", "PATRONI_POSTGRESQL_LISTEN": "*:5433",
		"PATRONI_RESTAPI_CONNECT_ADDRESS": "10.0.0.9:8008", "PATRONI_RESTAPI_CERTFILE": "/cert", "PATRONI_RESTAPI_USERNAME": "r",
		"PATRONI_CITUS_GROUP": "2", "PATRONI_CITUS_DATABASE": "citus",
	}
	c, err := patroni.ReadConfig("", env(vars))
	if err != nil {
		t.Fatal(err)
	}
	etcd := patroni.Etcd3{
		Hosts: []string{"10.0.0.1:2379", "10.0.0.2:2379"}, Protocol: "https",
		Username: "u", Password: "p$1", CACert: "/ca", Cert: "/c", Key: "/k",
	}
	if c.DCS.Kind != "etcd3" || !reflect.DeepEqual(c.DCS.Etcd3, etcd) {
		t.Errorf("DCS %+v", c.DCS)
	}
	if got := strings.Join(c.DCS.Etcd3.Endpoints(), " "); got != "https://10.0.0.1:2379 https://10.0.0.2:2379" {
		t.Errorf("endpoints %s", got)
	}
	if c.Path() != "/db/demo/2/" || c.Name != "pod-0" || c.RestAPI.URL() != "https://10.0.0.9:8008" || c.RestAPI.Username != "r" {
		t.Errorf("got %+v, path %s", c, c.Path())
	}
	if su := (patroni.Credentials{Username: "admin", Password: "s", SSLMode: "verify-full"}); c.PostgreSQL.Superuser != su || c.PostgreSQL.Rewind != su {
		t.Errorf("got %+v", c.PostgreSQL)
	}

	// A whole configuration in one variable makes the others count for nothing.
	vars["PATRONI_CONFIGURATION"] = "{scope: whole, zookeeper: {hosts: [z1, z2]}}"
	c, err = patroni.ReadConfig("", env(vars))
	if err != nil || c.Scope != "whole" || c.Name != "" || c.DCS.Kind != "zookeeper" || c.Namespace != "service" {
		t.Errorf("got %+v, %v", c, err)
	}
	// ... unless there is a file.
	c = must(t, "scope: file\nname: x\netcd: {host: h}", vars)
	if c.Scope != "demo" || c.Name != "pod-0" || c.DCS.Kind != "etcd" {
		t.Errorf("got %+v", c)
	}
}

func TestEtcd3Hosts(t *testing.T) {
	for text, want := range map[string]string{
		"host: h":            "http://h:2379",
		"host: h:1":          "http://h:1",
		"{host: h, port: 7}": "http://h:7",
		"hosts: h1:1,h2":     "http://h1:1 http://h2:2379",
		"hosts: [h1:1, ' h2 ', '[fd00::1]:3', 'fd00::2']": "http://h1:1 http://h2:2379 http://[fd00::1]:3 http://[fd00::2]:2379",
		"{hosts: h1, host: h2, protocol: https}":          "https://h1:2379",
		"{url: 'https://u:p@h:4', hosts: x}":              "https://h:4",
		"url: http://h":                                   "http://h:2379",
		"{proxy: 'http://p:5', url: 'http://h'}":          "http://p:5",
		"srv: example.org":                                "",
	} {
		c := must(t, "scope: a\netcd3:\n  "+text+"\n", nil)
		if got := strings.Join(c.DCS.Etcd3.Endpoints(), " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if e := must(t, "scope: a\netcd3: {url: 'https://u:p%24@h:4', username: x}", nil).DCS.Etcd3; e.Username != "u" || e.Password != "p$" {
		t.Errorf("user of the URL: %+v", e)
	}
	if e := must(t, "scope: a\netcd3: {discovery_srv: example.org, srv_suffix: blue}", nil).DCS.Etcd3; e.SRV != "example.org" || e.SRVSuffix != "blue" {
		t.Errorf("got %+v", e)
	}
	for _, text := range []string{"{}", "{hosts: []}", "{url: 'ftp://secret@h'}", "{url: 'http://secret@%zz'}", "{username: x}", "text"} {
		if c, err := read(t, "scope: a\netcd3: "+text, nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v; want an error without the secret", text, c.DCS, err)
		}
	}
}

func TestConsul(t *testing.T) {
	for text, want := range map[string]patroni.Consul{
		"{}":                           {Address: "127.0.0.1:8500"},
		"host: h":                      {Address: "h:8500"},
		"host: h:1":                    {Address: "h:1"},
		"{host: h, port: 7}":           {Address: "h:7"},
		"{host: 'h:1', port: 7}":       {Address: "h:7"}, // as Patroni: port was given
		"{host: '[fd00::1]:3'}":        {Address: "[fd00::1]:3"},
		"port: 7":                      {Address: "127.0.0.1:7"},
		"{host: h, scheme: https}":     {Address: "h:8500", Scheme: "https"},
		"{url: 'https://h', host: x}":  {Address: "h:8500", Scheme: "https"},
		"{url: 'http://h:4', port: 7}": {Address: "h:4"},
		"{token: t, dc: east, cacert: /ca, cert: /c, key: /k, verify: no}": {
			Address: "127.0.0.1:8500", Token: "t", Datacenter: "east", CACert: "/ca", Cert: "/c", Key: "/k"}, // an authority is for checking
		"{scheme: https, verify: false, cert: /both}":               {Address: "127.0.0.1:8500", Scheme: "https", Cert: "/both", Insecure: true},
		"{scheme: https, verify: 'off'}":                            {Address: "127.0.0.1:8500", Scheme: "https", Insecure: true},
		"{scheme: https, verify: true}":                             {Address: "127.0.0.1:8500", Scheme: "https"},
		"{checks: [a], consistency: stale, register_service: true}": {Address: "127.0.0.1:8500"},
		"text": {Address: "127.0.0.1:8500"},
	} {
		c := must(t, "scope: a\nconsul:\n  "+text+"\n", nil)
		if want.Scheme == "" {
			want.Scheme = "http"
		}
		if c.DCS.Kind != "consul" || c.DCS.Consul != want {
			t.Errorf("%s: %+v, want %+v", text, c.DCS.Consul, want)
		}
	}
	for _, text := range []string{"{url: 'ftp://secret@h'}", "{url: 'http://secret@%zz'}", "{url: ''}", "{url: h}"} {
		if c, err := read(t, "scope: a\nconsul: "+text, nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v; want an error without the secret", text, c.DCS, err)
		}
	}
	c, err := patroni.ReadConfig("", env(map[string]string{
		"PATRONI_SCOPE": "demo", "PATRONI_CONSUL_HOST": "h", "PATRONI_CONSUL_PORT": "7", "PATRONI_CONSUL_TOKEN": "t$", "PATRONI_CONSUL_DC": "east",
		"PATRONI_CONSUL_CACERT": "/ca", "PATRONI_CONSUL_CERT": "/c", "PATRONI_CONSUL_KEY": "/k", "PATRONI_CONSUL_VERIFY": "on",
		"PATRONI_CONSUL_CHECKS": "[]", "PATRONI_CONSUL_CONSISTENCY": "consistent", "PATRONI_CONSUL_SERVICE_TAGS": "a,b",
	}))
	want := patroni.Consul{Address: "h:7", Scheme: "http", Token: "t$", Datacenter: "east", CACert: "/ca", Cert: "/c", Key: "/k"}
	if err != nil || c.DCS.Kind != "consul" || c.DCS.Consul != want {
		t.Errorf("got %+v, %v; want %+v", c.DCS, err, want)
	}
	c, err = patroni.ReadConfig("", env(map[string]string{"PATRONI_SCOPE": "demo", "PATRONI_CONSUL_URL": "https://h:8501", "PATRONI_CONSUL_VERIFY": "off"}))
	want = patroni.Consul{Address: "h:8501", Scheme: "https", Insecure: true}
	if err != nil || c.DCS.Consul != want {
		t.Errorf("got %+v, %v; want %+v", c.DCS, err, want)
	}
	if c.Path() != "/service/demo/" {
		t.Errorf("path %s", c.Path())
	}
}

func TestDCSKind(t *testing.T) {
	for text, want := range map[string]string{
		"zookeeper: {hosts: a}\netcd3: {host: a}\nkubernetes: {}": "etcd3",
		"etcd3: {host: a}\netcd: {host: b}":                       "etcd",
		"raft: {self_addr: a}\nzookeeper: {hosts: a}":             "raft",
		"kubernetes: {use_endpoints: true}":                       "kubernetes",
		"zookeeper: {exhibitor: {hosts: [a], port: 1}}":           "exhibitor",
		"consul: {host: a}\nraft: {self_addr: a}":                 "consul",
		"postgresql: {data_dir: /d}":                              "",
	} {
		c := must(t, "scope: a\n"+text, nil)
		if c.DCS.Kind != want {
			t.Errorf("%s: %s, want %s", text, c.DCS.Kind, want)
		}
		direct := want != "" && want != "etcd" && want != "raft"
		if err := c.DCS.Direct(); (err == nil) != direct || (err != nil && !errors.Is(err, patroni.ErrNotDirect)) {
			t.Errorf("%s: direct: %v", want, err)
		}
	}
	k := must(t, "scope: a", map[string]string{"PATRONI_KUBERNETES_LABELS": "{application: patroni, cluster-name: demo}", "PATRONI_KUBERNETES_USE_ENDPOINTS": "true"})
	want := map[string]any{"labels": map[string]any{"application": "patroni", "cluster-name": "demo"}, "use_endpoints": "true"}
	if k.DCS.Kind != "kubernetes" || !reflect.DeepEqual(k.DCS.Options, want) {
		t.Errorf("got %+v", k.DCS)
	}
}

// Each group of a Citus cluster is a PostgreSQL cluster of its own (patroni/postgresql/mpp/citus.py, validate_config).
func TestCitus(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                                      {"/service/demo/", "demo"},
		"citus: {database: app, group: 0}":      {"/service/demo/0/", "demo-0"},
		"citus: {database: app, group: '12'}":   {"/service/demo/12/", "demo-12"},
		"citus: {group: 1}":                     {"/service/demo/", "demo"},
		"citus: {database: app}":                {"/service/demo/", "demo"},
		"citus: {database: app, group: worker}": {"/service/demo/", "demo"},
		"citus: {database: app, group: -1}":     {"/service/demo/", "demo"},
	} {
		c := must(t, "scope: demo\n"+text, nil)
		if got := [2]string{c.Path(), c.ClusterName()}; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	c := must(t, "scope: demo\ncitus: {database: app, group: 1}", map[string]string{"PATRONI_CITUS_GROUP": "2"})
	if c.ClusterName() != "demo-2" {
		t.Errorf("the variable counts: %s", c.ClusterName())
	}
}

func TestLocal(t *testing.T) {
	for text, want := range map[string]struct {
		host string
		port int
	}{
		"{listen: '127.0.0.1:5541'}":          {"127.0.0.1", 5541},
		"{listen: '*:5433'}":                  {"localhost", 5433},
		"{listen: '0.0.0.0:5433'}":            {"localhost", 5433},
		"{listen: '10.0.0.1,127.0.0.1:5433'}": {"127.0.0.1", 5433},
		"{listen: '10.0.0.1,10.0.0.2:5433'}":  {"10.0.0.1", 5433},
		"{listen: '10.0.0.1'}":                {"10.0.0.1", 5432},
		"{listen: '[fd00::1]:6000'}":          {"fd00::1", 6000},
		"{listen: '*:1', use_unix_socket: yes, parameters: {unix_socket_directories: ' /a, /b'}}": {"/a", 1},
		"{listen: '*:1', use_unix_socket: true}":                                                  {"", 1},
		"{}":                                                                                      {"localhost", 5432},
	} {
		c := must(t, "scope: a\npostgresql: "+text, nil)
		if host, port := c.PostgreSQL.Local(); host != want.host || port != want.port {
			t.Errorf("%s: %q %d, want %v", text, host, port, want)
		}
	}
}

// Patroni reads with PyYAML, so what PyYAML takes must not fail here.
func TestLenientYAML(t *testing.T) {
	c := must(t, `
scope: first
scope: second   # twice: the later one
1: a number as a key
name: 2026-01-02
unknown: [{a: !custom b}]
base: &base {data_dir: /base, bin_dir: /bin}
postgresql:
  data_dir: /own
  <<: *base
  parameters: {archive_timeout: 60, fsync: on, ratio: 0.5}
ttl: 45
tags: [not, a, map]
etcd3: {host: h}
`, nil)
	if c.Scope != "second" || c.Name != "2026-01-02" || c.PostgreSQL.DataDir != "/own" || c.PostgreSQL.BinDir != "/bin" || c.TTL != 45*time.Second {
		t.Errorf("got %+v", c)
	}
	want := map[string]string{"archive_timeout": "60", "fsync": "on", "ratio": "0.5"}
	if !reflect.DeepEqual(c.PostgreSQL.Parameters, want) {
		t.Errorf("parameters %v, want %v", c.PostgreSQL.Parameters, want)
	}
	for _, bad := range []string{"", "name: x", "just text", "- a list", "scope: [a", "scope: &a [*a]", "scope: {a: 1}"} {
		if c, err := read(t, bad, nil); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
	if _, err := patroni.ReadConfig("/does/not/exist", env(map[string]string{"PATRONI_SCOPE": "x"})); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
