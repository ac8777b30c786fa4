package patroni_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/patroni"
)

// load reads a dump of a scope: 3.0.2/ is what a real cluster of three nodes wrote to etcd,
// written/ is made by hand after Patroni's sources and issues.
func load(t testing.TB, path string) map[string]dcs.Node {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var dump map[string]struct {
		Create, Mod uint64
		Value       string
	}
	if err := json.Unmarshal(b, &dump); err != nil {
		t.Fatal(path, err)
	}
	nodes := map[string]dcs.Node{}
	for k, v := range dump {
		nodes[k] = dcs.Node{Value: v.Value, Version: v.Mod, Token: v.Create}
	}
	return nodes
}

// summary is a cluster in a few lines; what is zero is left out.
func summary(c patroni.Cluster) string {
	var b strings.Builder
	fmt.Fprintf(&b, "system %d leader %q token %d optime %d\n", c.SystemID, c.Leader, c.LeaderToken, c.Optime)
	fmt.Fprintf(&b, "ttl %v loop %v retry %v paused %t standby %t failsafe %t\n",
		c.TTL, c.LoopWait, c.RetryTimeout, c.Paused, c.StandbyCluster, c.Failsafe)
	for _, name := range slices.Sorted(maps.Keys(c.Members)) {
		m := c.Members[name]
		fmt.Fprintf(&b, "member %s %q %q timeline %d lsn %d at %s:%d", name, m.Role, m.State, m.Timeline, m.LSN, m.Host, m.Port)
		for _, f := range []struct {
			name string
			set  bool
			v    any
		}{
			{"conn", m.ConnURL != "", m.ConnURL}, {"api", m.APIURL != "", m.APIURL}, {"version", m.Version != "", m.Version},
			{"receive", m.ReceiveLSN != 0, m.ReceiveLSN}, {"replay", m.ReplayLSN != 0, m.ReplayLSN},
			{"replication", m.ReplicationState != "", m.ReplicationState}, {"tags", len(m.Tags) > 0, m.Tags},
			{"paused", m.Paused, true}, {"restart", m.PendingRestart, true},
		} {
			if f.set {
				fmt.Fprintf(&b, " %s %v", f.name, f.v)
			}
		}
		b.WriteByte('\n')
	}
	for _, h := range c.History {
		at := "-"
		if !h.Time.IsZero() {
			at = h.Time.UTC().Format(time.RFC3339Nano)
		}
		fmt.Fprintf(&b, "history %d ended at %d %q %s %q\n", h.Timeline, h.LSN, h.Reason, at, h.Leader)
	}
	for _, w := range c.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	return b.String()
}

// Each dump has its summary beside it.
func TestParse(t *testing.T) {
	dumps, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(dumps) < 15 {
		t.Fatal(dumps, err)
	}
	for _, path := range dumps {
		t.Run(strings.TrimPrefix(path, "testdata/"), func(t *testing.T) {
			c, err := patroni.Parse(load(t, path))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(c); got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestParseNothing(t *testing.T) {
	for _, nodes := range []map[string]dcs.Node{nil, {"other": {Value: "x"}}, {"members/a/b": {Value: "x"}}} {
		c, err := patroni.Parse(nodes)
		if !errors.Is(err, patroni.ErrNoCluster) || c.Members == nil || c.TTL != 30*time.Second {
			t.Errorf("%v: %+v, %v; want ErrNoCluster and the defaults", nodes, c, err)
		}
	}
}

// A scope that says nothing about an error is an empty one; whatever is in its values.
func FuzzParse(f *testing.F) {
	for _, v := range []string{"", "n1", "{}", "[]", `[[1,2,"r"]]`, `{"role":"master","tags":{"a":1}}`, "postgres://h:1/d?application_name=x", "\xff", `{"ttl":1e9}`} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		nodes := map[string]dcs.Node{}
		for _, k := range []string{"initialize", "leader", "config", "status", "history", "sync", "failover", "failsafe", "members/a", "optime/leader"} {
			nodes[k] = dcs.Node{Value: v, Version: 1, Token: 1}
		}
		c, err := patroni.Parse(nodes)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Members) != 1 || c.TTL <= 0 || c.LoopWait <= 0 || c.RetryTimeout <= 0 || (c.Leader == "") != (c.LeaderToken == 0) {
			t.Errorf("%+v", c)
		}
	})
}
