package patroni_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
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

var update = flag.Bool("update", false, "write the summaries of all dumps anew")

// load reads a dump of a scope; testdata/README.md says where each comes from.
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

// Each dump has its summary beside it; read what -update wrote there before you commit it.
// The keys of Citus groups below a scope are not that scope's.
func TestGroupsAreNotOurs(t *testing.T) {
	c, err := patroni.Parse(map[string]dcs.Node{
		"leader": {Value: "n1"}, "0/leader": {Value: "c1"}, "0/members/c1": {Value: `{"role":"primary"}`}, "1/members/w1": {Value: "{}"},
		"members/n1": {Value: `{"role":"primary"}`}, "1/initialize": {Value: "7"}, "0/config": {Value: `{"pause":true}`},
	})
	if err != nil || c.Leader != "n1" || len(c.Members) != 1 || c.SystemID != 0 || c.Paused || len(c.Warnings) != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := patroni.Parse(map[string]dcs.Node{"0/leader": {Value: "c1"}, "0/members/c1": {Value: "{}"}}); !errors.Is(err, patroni.ErrNoCluster) {
		t.Errorf("groups only: %v", err)
	}
}

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
			golden := strings.TrimSuffix(path, ".json") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(summary(c)), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(c); got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// outline is what a situation looks like in every version: who leads, and each member's
// role, state and timeline; an asterisk marks one that waits for a restart.
func outline(c patroni.Cluster) string {
	words := []string{cmp.Or(c.Leader, "nobody") + " leads"}
	for _, name := range slices.Sorted(maps.Keys(c.Members)) {
		m := c.Members[name]
		mark := ""
		if m.PendingRestart {
			mark = "*"
		}
		words = append(words, fmt.Sprintf("%s %s %s %d%s", name, m.Role, m.State, m.Timeline, mark))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"paused", c.Paused}, {"failsafe", c.Failsafe}, {"standby cluster", c.StandbyCluster}} {
		if f.set {
			words = append(words, f.name)
		}
	}
	for _, h := range c.History {
		words = append(words, fmt.Sprintf("%d ended", h.Timeline))
	}
	return strings.Join(words, ", ")
}

// What was captured reads the same whatever version wrote it, and nothing in it is strange.
func TestParseCaptured(t *testing.T) {
	const (
		calm     = "n1 leads, n1 primary running 1, n2 replica running 1, n3 replica running 1"
		marked   = "n1 leads, n1 primary running 1*, n2 replica running 1*, n3 replica running 1*"
		standing = ", n2 replica running 1*, n3 replica running 1*"
		moved    = "n2 leads, n1 replica running 2, n2 primary running 2, n3 replica running 2, 1 ended"
		cloneN2  = "n1 leads, n1 primary running 1, n2 uninitialized creating replica 0, n3 uninitialized stopped 0"
		cloneN3  = "n1 leads, n1 primary running 1, n2 uninitialized stopped 0, n3 uninitialized creating replica 0"
	)
	situations := map[string]string{
		"bootstrap":             "nobody leads, n1 uninitialized stopped 0",
		"creating-replica":      cloneN3,
		"normal":                calm,
		"sync":                  calm,
		"failsafe":              marked + ", failsafe",
		"pause":                 marked + ", paused, failsafe",
		"switchover-scheduled":  marked,
		"switchover-requested":  marked,
		"switchover-leaderless": "nobody leads, n1 demoted stopping 0*" + standing,
		"switchover-key-passed": "n2 leads, n1 demoted stopping 0*" + standing,
		"switchover":            "n2 leads, n1 replica running 2, n2 primary running 2*, n3 replica running 2*, 1 ended",
		"stopped":               "n2 leads, n1 replica running 2, n2 primary running 2*, n3 replica stopped 0*, 1 ended",
		"killed-stale":          "n2 leads, n1 replica running 2, n2 primary running 2*, n3 replica running 2, 1 ended",
		"killed-leaderless":     "nobody leads, n1 replica running 2, n3 replica running 2, 1 ended",
		"killed-key-passed":     "n1 leads, n1 replica running 2, n3 replica running 2, 1 ended",
		"killed":                "n1 leads, n1 primary running 3, n3 replica running 3, 1 ended, 2 ended",
		"standby":               "n1 leads, n1 standby_leader running 3, n3 replica running 3, standby cluster, 1 ended, 2 ended",
	}
	differs := map[string]string{ // by chance of the moment, by version, or because only this version has it
		"2.1.0/creating-replica":      cloneN2,
		"2.1.0/switchover-leaderless": "nobody leads, n1 demoted stopped 0*" + standing,
		"2.1.0/switchover-key-passed": "n2 leads, n1 demoted stopped 0*" + standing,
		"2.1.7/creating-replica":      "n1 leads, n1 primary running 1, n3 uninitialized creating replica 0",
		"2.1.7/switchover-leaderless": "nobody leads, n1 primary running 0*" + standing,
		"2.1.7/switchover-key-passed": "n2 leads, n1 primary running 0*" + standing,
		"2.1.7/upgrade-old-leads":     calm,
		"2.1.7/upgrade-new-leads":     moved,
		"3.0.2/creating-replica":      cloneN2,
		"4.0.10/quorum":               calm,
		"4.0.10/upgrade-old-leads":    calm,
		"4.0.10/upgrade-new-leads":    moved,
		"4.1.4/quorum":                calm,
	}
	want := map[string]string{}
	for _, version := range []string{"2.1.0", "2.1.7", "3.0.2", "3.3.11", "4.0.10", "4.1.4"} {
		for situation, o := range situations {
			want[version+"/"+situation] = o
		}
	}
	maps.Copy(want, differs)

	dumps, err := filepath.Glob("testdata/[0-9]*/*.json")
	if err != nil || len(dumps) != len(want) {
		t.Errorf("%d dumps, %d outlines, %v", len(dumps), len(want), err)
	}
	for name, want := range want {
		c, err := patroni.Parse(load(t, "testdata/"+name+".json"))
		if err != nil || len(c.Warnings) > 0 {
			t.Errorf("%s: %v, %q", name, err, c.Warnings)
		}
		if got := outline(c); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		tags := c.Members["n3"].Tags
		if _, ok := c.Members["n3"]; ok && (tags["nofailover"] != true || tags["walbaton"] != "designated" || tags["weight"] != json.Number("3")) {
			t.Errorf("%s: n3 has tags %v", name, tags)
		}
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
