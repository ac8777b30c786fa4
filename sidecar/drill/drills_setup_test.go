//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A cluster that archives with cp comes to archive with walbaton, by `walbaton setup` alone: it shows the difference, and what two nodes have of their
// own; it makes the change, restarts one node after the other, and then has nothing to do. What is written all the while is in the new archive, also when
// the primary dies.
func TestDrillSetup(t *testing.T) {
	s := prepare(t, Options{Bare: true, ArchiveMode: "on"}, 5*time.Minute)
	s.do("three nodes start", s.Start)
	old, err := s.folder("old")
	if err != nil {
		t.Fatal(err)
	}
	copies := fmt.Sprintf("cp %%p %s/%%f", old)
	s.do("they archive with cp", func(ctx context.Context) error {
		return s.Configure(ctx, fmt.Sprintf(`{"postgresql": {"parameters": {"archive_command": %q}}}`, copies))
	})
	s.populate(drillRate)
	s.do("n2 has a command of its own by ALTER SYSTEM", func(ctx context.Context) error {
		return errors.Join(s.Nodes[1].Exec(ctx, "alter system set archive_command = '"+copies+"'"), s.Nodes[1].Exec(ctx, "select pg_reload_conf()"))
	})
	const before = "    unix_socket_directories:"
	mine := fmt.Sprintf("    archive_command: %q\n", "test ! -f %p.no && "+copies)
	s.do("n3 in its Patroni configuration", func(ctx context.Context) error {
		return errors.Join(s.Nodes[2].Edit("patroni.yml", before, mine+before), s.Nodes[2].reload(ctx))
	})

	// The sockets of three nodes on one machine differ; in the commands there is none, since Patroni's environment names it.
	setup := func(code int, words []string, args ...string) {
		t.Helper()
		n := s.primary()
		args = append([]string{"--socket", "/run/walbaton/walbaton.sock", "--client", s.Bin("walbaton-wal"), "--restore-command", s.Bin("walbaton-wal") + " fetch %f %p"}, args...)
		s.exits(n, code, words, "setup", args...)
	}
	push := s.Bin("walbaton-wal") + " push %p"
	s.do("n3's Patroni has noticed", func(ctx context.Context) error {
		return until(ctx, 20*time.Second, "it is in effect", func(ctx context.Context) error {
			got, err := query[string](ctx, s.Nodes[2].DSN(), "show archive_command")
			if err == nil && !strings.HasPrefix(got, "test") {
				err = errors.New(got)
			}
			return err
		})
	})
	begun := s.dynamic()
	setup(3, []string{"now       " + copies, "wanted    " + push, "restart   afterwards n2, n3, then n1", "! n2 has archive_command of its own", `alter system reset archive_command`,
		"! n3 has archive_command of its own", "on n3: remove archive_command from section postgresql of Patroni's file", "ends here, and the new one begins: " + copies})
	if got := s.dynamic(); !reflect.DeepEqual(got, begun) {
		t.Errorf("it has changed %v to %v, unasked", begun, got)
	}
	setup(3, []string{"is changed", "! n2 has archive_command of its own", "A restart is left for n2, n3, then n1"}, "--apply", "--yes")
	s.do("n2 and n3 do what it says", func(ctx context.Context) error {
		return errors.Join(s.Nodes[1].Exec(ctx, "alter system reset archive_command"), s.Nodes[1].Exec(ctx, "select pg_reload_conf()"),
			s.Nodes[2].Edit("patroni.yml", mine, ""), s.Nodes[2].reload(ctx))
	})
	s.do("the other node's Patroni has noticed", pass(3*time.Second))
	setup(0, []string{"n1: restarts in place, as the primary", "Done: nothing is left to do."}, "--apply", "--restart", "--yes")
	s.restartedInOrder("n2", "n3", "n1")
	made := s.dynamic()
	setup(0, []string{"Nothing is to do."})
	setup(0, []string{"Nothing is to do."}, "--apply", "--restart")
	if got := s.dynamic(); !reflect.DeepEqual(got, made) {
		t.Errorf("the second run has changed %v to %v", made, got)
	}
	s.restartedInOrder("n2", "n3", "n1")
	s.inEffect("archive_mode", "always", s.Nodes...)
	s.inEffect("archive_command", push, s.Nodes...)
	s.inEffect("restore_command", s.Bin("walbaton-wal")+" fetch %f %p", s.Standbys(s.primary())...)

	acked := s.writer.Acked()
	rows, err := Rows(s.ctx, s.primary().DSN())
	if err != nil {
		t.Fatal(err)
	}
	for id := range acked {
		if _, ok := rows[id]; !ok {
			t.Fatalf("row %d was acknowledged and is lost, and no primary has died", id)
		}
	}
	s.line(1)
	s.killPrimaryWhileStoreIsDown()
	s.wholeTruth()
}

// reload is POST /reload: Patroni reads its file again.
func (n *Node) reload(ctx context.Context) error {
	err := n.ask(ctx, "POST", "/reload", "")
	if err != nil && strings.HasPrefix(err.Error(), "202") {
		return nil // scheduled
	}
	return err
}

// dynamic is the dynamic configuration.
func (s *scenario) dynamic() (d map[string]any) {
	s.t.Helper()
	_, body, err := get(s.ctx, s.Nodes[0].rest()+"/config")
	if err == nil {
		err = json.Unmarshal(body, &d)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// inEffect fails the drill unless nodes have a setting.
func (s *scenario) inEffect(name, want string, nodes ...*Node) {
	s.t.Helper()
	for _, n := range nodes {
		if got, err := query[string](s.ctx, n.DSN(), "show "+name); err != nil || got != want {
			s.t.Errorf("%s has %s = %q (%v), want %q", n.Name, name, got, err, want)
		}
	}
}

// restartedInOrder fails the drill unless the nodes' PostgreSQLs were started last in this order.
func (s *scenario) restartedInOrder(names ...string) {
	s.t.Helper()
	started := map[string]time.Time{}
	for _, n := range s.Nodes {
		at, err := query[time.Time](s.ctx, n.DSN(), "select pg_postmaster_start_time()")
		if err != nil {
			s.t.Fatal(err)
		}
		started[n.Name] = at
	}
	got := slices.SortedFunc(slices.Values(names), func(a, b string) int { return started[a].Compare(started[b]) })
	if !slices.Equal(got, names) {
		s.t.Errorf("started in the order %v, want %v: %v", got, names, started)
	}
}
