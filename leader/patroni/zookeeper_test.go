package patroni_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/leader/patroni"
)

func TestZooKeeperHosts(t *testing.T) {
	for text, want := range map[string]string{
		"hosts: h1":                             "h1:2181",
		"hosts: 'h1:1, h2,[fd00::1]:3'":         "h1:1 h2:2181 [fd00::1]:3",
		"hosts: [h1, 'h2:7']":                   "h1:2181 h2:7",
		"hosts: ['h1:1', 'h2:2/prod/db/']":      "h1:1 h2:2 /prod/db",
		"hosts: 'h1,h2:2181/prod'":              "h1:2181 h2:2181 /prod",
		"hosts: 'h1/'":                          "h1:2181",
		"{hosts: h1, host: h2, port: 5}":        "h1:2181", // Patroni reads neither host nor port
		"exhibitor: {hosts: [e1, e2], port: 8}": "ask e1:8 e2:8",
	} {
		z := must(t, "scope: a\nzookeeper:\n  "+text+"\n", nil).DCS.ZooKeeper
		got := strings.TrimSpace(strings.Join(z.Hosts, " ") + " " + z.Chroot)
		if len(z.Exhibitors) > 0 {
			got = "ask " + strings.Join(z.Exhibitors, " ")
		}
		if got != want || !z.Verify {
			t.Errorf("%s: %q, want %q; %+v", text, got, want, z)
		}
	}
	for _, text := range []string{"zookeeper: {}", "zookeeper: {hosts: []}", "zookeeper: {hosts: ''}", "zookeeper: text",
		"exhibitor: {hosts: [a]}", "exhibitor: {port: 1}", "exhibitor: {hosts: [], port: 1}"} {
		if c, err := read(t, "scope: a\n"+text, nil); err == nil {
			t.Errorf("%s: %+v", text, c.DCS)
		}
	}
}

func TestZooKeeper(t *testing.T) {
	want := patroni.ZooKeeper{
		Hosts: []string{"z1:2281", "z2:2281"}, UseSSL: true,
		CACert: "/ca", Cert: "/c", Key: "/k", KeyPassword: "p$1",
		ACLs: []patroni.ZooKeeperACL{
			{Scheme: "x509", ID: "CN=patroni,O=a", Permissions: []string{"CREATE", "READ"}},
			{Scheme: "digest", ID: "u:aGFzaA==", Permissions: []string{"ALL"}},
		},
		Auth: []patroni.ZooKeeperAuth{{Scheme: "digest", Credential: "u:s3:cret"}},
	}
	file := must(t, `
scope: a
zookeeper:
  hosts: z1:2281,z2:2281
  use_ssl: true
  cacert: /ca
  cert: /c
  key: /k
  key_password: p$1
  verify: false
  set_acls: {'CN=patroni,O=a': [create, READ], 'digest:u:aGFzaA==': [ALL]}
  auth_data: {digest: 'u:s3:cret'}
`, nil)
	variables, err := patroni.ReadConfig("", env(map[string]string{
		"PATRONI_SCOPE": "a", "PATRONI_ZOOKEEPER_HOSTS": "'z1:2281','z2:2281'", "PATRONI_ZOOKEEPER_USE_SSL": "true",
		"PATRONI_ZOOKEEPER_CACERT": "/ca", "PATRONI_ZOOKEEPER_CERT": "/c", "PATRONI_ZOOKEEPER_KEY": "/k",
		"PATRONI_ZOOKEEPER_KEY_PASSWORD": "p$1", "PATRONI_ZOOKEEPER_VERIFY": "false",
		"PATRONI_ZOOKEEPER_SET_ACLS":  "{'CN=patroni,O=a': [create, READ], 'digest:u:aGFzaA==': [ALL]}",
		"PATRONI_ZOOKEEPER_AUTH_DATA": "'digest': 'u:s3:cret'",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]patroni.Config{"file": file, "variables": variables} {
		if c.DCS.Kind != "zookeeper" || !reflect.DeepEqual(c.DCS.ZooKeeper, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, c.DCS.ZooKeeper, want)
		}
	}
}
