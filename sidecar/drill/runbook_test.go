//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// The headings of docs/restore.md.
const (
	runbookSet     = "1. Set these first"
	runbookLook    = "2. Look"
	runbookRecover = "3. Recover a server"
	runbookTable   = "4. A table is lost"
	runbookCluster = "5. The cluster is lost"
	runbookStandby = "6. A standby is lost"
	runbookHole    = "7. WAL is missing"
	runbookByHand  = "8. Without walbaton"
	runbookWords   = "9. What the messages mean"
)

// runbook gives the page, and the values of its variables: those that a drill does not use are as on the page.
func runbook(t *testing.T, mine map[string]string) (*guide, string) {
	t.Helper()
	g := readGuide(t, "restore.md")
	values := map[string]string{}
	for _, m := range assignment.FindAllStringSubmatch(g.blocks(t, g.Sections[0], "sh")[0].Text, -1) {
		values[m[1]] = strings.Trim(m[2], `'"`)
	}
	for name := range mine {
		if _, ok := values[name]; !ok {
			t.Fatalf("docs/restore.md has no variable %s", name)
		}
	}
	maps.Copy(values, mine)
	return g, g.variables(t, values)
}

// docs/restore.md on a cluster of three: a table is lost and put back, a standby is lost, and the cluster as a whole goes back to an earlier moment.
func TestDrillRunbook(t *testing.T) {
	s := beginFor(t, Options{}, 2*time.Minute, drillRate)
	s.do("three segments are finished", s.finish(3))
	r := &incident{scenario: s}
	s.do("the writer stops", func(context.Context) error { s.writer.Stop(); return nil })
	early, earlyRows := r.moment()
	r.change("delete from ledger where id % 2 = 0")
	late, lateRows := r.moment()
	r.change("drop table ledger")
	r.change("create table something_else ()")
	r.settle()

	n := s.Standbys(s.primary())[0]
	values := map[string]string{"TARGET": early, "NEW": filepath.Join(n.Dir, "beside")}
	g, first := runbook(t, r.values(n, values))
	sh := r.shell(n, first)
	sh.section(g, runbookLook)
	for _, b := range g.blocks(t, runbookRecover, "sh") {
		if strings.Contains(b.Text, "pg_ctl restart") {
			r.has(sh, earlyRows)
			sh.do("TARGET='" + late + "'")
			// The table is locked by the statement that drops it, which had begun.
			if out := sh.do(b.Text, "psql: 1"); !strings.Contains(out, "canceling statement due to lock timeout") {
				t.Errorf("nothing is locked:\n%s", out)
			}
			continue
		}
		sh.do(b.Text)
	}
	table := g.blocks(t, runbookTable, "sh")
	sh.do(table[0].Text)
	r.has(sh, lateRows)
	for _, b := range table[1:] {
		sh.do(b.Text)
	}
	r.rows(s.primary(), lateRows)

	lost := s.Standbys(s.primary())[1]
	s.do("a standby loses what it cannot live without", func(ctx context.Context) error {
		return errors.Join(lost.KillPostgres(ctx), os.Remove(filepath.Join(lost.PGData(), "global/pg_control")))
	})
	g, first = runbook(t, r.values(n, map[string]string{"MEMBER": lost.Name}))
	sh = r.shell(n, first)
	sh.section(g, runbookStandby)
	s.do("it streams again", s.AllStreaming)

	r.goBack()
	r.customBootstrap(g)
	r.everyBlock(t, "docs/restore.md")
}

// incident is a cluster to which something happens.
type incident struct {
	*scenario
	shells int
}

// moment is the time on the primary's clock, and its rows.
func (r *incident) moment() (at string, rows map[int64]string) {
	r.t.Helper()
	r.step = "look at the primary's rows"
	rows, err := Rows(r.ctx, r.primary().DSN())
	if err != nil || len(rows) == 0 {
		r.t.Fatalf("%d rows: %v", len(rows), err)
	}
	at, err = query[string](r.ctx, r.primary().DSN(), "select clock_timestamp()::text")
	if err != nil {
		r.t.Fatal(err)
	}
	return at, rows
}

// change is an accident.
func (r *incident) change(sql string) {
	r.t.Helper()
	r.do(sql, func(ctx context.Context) error { return r.primary().Exec(ctx, sql) })
}

// settle waits until the archive is whole.
func (r *incident) settle() {
	r.t.Helper()
	missing, err := r.Settle(r.ctx, r.base, clusterLimit)
	if err != nil || len(missing) > 0 {
		r.t.Fatalf("the archive lacks %d files: %v, %v", len(missing), missing, err)
	}
}

// values are those of the page's variables on a node.
func (r *incident) values(n *Node, more map[string]string) map[string]string {
	r.t.Helper()
	p := r.primary()
	v := map[string]string{
		"SCOPE": r.o.Scope, "ARCHIVE": r.Store.URL(), "BACKUP": r.base.dir, "NEWPORT": fmt.Sprint(r.port(portSolos)), "SOCKETS": n.Dir, "PGBIN": pgBin,
		"DATABASE": dbName, "TABLE": "ledger", "PATRONI": filepath.Join(n.Dir, "patroni.yml"), "PGDATA": n.PGData(),
		"LEADER": fmt.Sprintf("host=%s port=%d", p.host(), p.port()), "STOP": filepath.Join(n.Dir, "stop.sh"), "START": filepath.Join(n.Dir, "start.sh"),
	}
	maps.Copy(v, more)
	return v
}

// shell is a person's on a node, with the page's variables set.
func (r *incident) shell(n *Node, first string) *shell {
	r.t.Helper()
	// systemctl stop waits for the service; systemctl start does not.
	scripts := map[string]string{
		"stop.sh":  "pid=$(pgrep -f 'bin/patroni '%[1]s/patroni.yml) && kill $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done\n",
		"start.sh": "cd %[1]s && setsid patroni %[1]s/patroni.yml >>log/patroni-again.log 2>&1 </dev/null &\n",
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(n.Dir, name), fmt.Appendf([]byte("#!/bin/sh\n"), text, n.Dir), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	r.shells++
	env := append(r.dcs.env(n), "WALBATON_CONFIG="+n.config(), "WALBATON_SOCKET="+n.Socket())
	sh := r.newShell(r.ctx, r.t, fmt.Sprint("shell", r.shells), env...)
	sh.do(first)
	return sh
}

// has fails the drill unless the restored server has these rows.
func (r *incident) has(sh *shell, want map[int64]string) {
	r.t.Helper()
	got := map[int64]string{}
	out := sh.do("restored -At -F ' ' -c 'select id, md5(pad) from ledger' \"$DATABASE\" >rows\n")
	text, err := os.ReadFile(filepath.Join(sh.dir, "rows"))
	if err != nil {
		r.t.Fatal(err, out)
	}
	for line := range strings.Lines(string(text)) {
		var id int64
		var digest string
		if _, err := fmt.Sscan(line, &id, &digest); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		got[id] = digest
	}
	if err := Difference(got, want); err != nil {
		r.t.Fatalf("restored: %v", err)
	}
}

// rows fails the drill unless a node has these.
func (r *incident) rows(n *Node, want map[int64]string) {
	r.t.Helper()
	got, err := Rows(r.ctx, n.DSN())
	if err := errors.Join(err, Difference(got, want)); err != nil {
		r.t.Fatalf("%s: %v", n.Name, err)
	}
}

// goBack is the section about a cluster that is lost, on all nodes.
func (r *incident) goBack() {
	r.t.Helper()
	r.do("a few more rows are written", func(ctx context.Context) error {
		return r.primary().Exec(ctx, "insert into ledger select -i, convert_to('row ' || i, 'UTF8') from generate_series(1, 50) i")
	})
	at, want := r.moment()
	r.change("delete from ledger")
	r.settle()
	g, _ := runbook(r.t, nil)
	var shells []*shell
	primary := r.primary()
	for _, n := range append(r.Standbys(primary), primary) { // who restores first is not who was the primary
		_, first := runbook(r.t, r.values(n, map[string]string{"TARGET": at}))
		shells = append(shells, r.shell(n, first))
	}
	for _, b := range g.blocks(r.t, runbookCluster, "sh") {
		on := map[string][]*shell{"every node": shells, "first node": shells[:1], "other nodes": shells[1:], "look": shells[:1]}[b.Where]
		if b.Where == "look" {
			r.do("all stream", r.AllStreaming)
			r.do("a segment is finished", func(ctx context.Context) error { r.settle(); return nil })
		}
		if len(on) == 0 {
			r.t.Fatalf("docs/restore.md does not say on which node: %s", b.Text)
		}
		for _, sh := range on {
			sh.do(b.Text)
		}
		if strings.Contains(b.Text, "NEW=$PGDATA") {
			for _, b := range g.blocks(r.t, runbookRecover, "sh") {
				if !strings.Contains(b.Text, "pg_ctl restart") { // it was not too early
					shells[0].do(b.Text)
				}
			}
			r.has(shells[0], want)
		}
	}
	for _, n := range r.Nodes {
		r.rows(n, want)
	}
	r.line(1, 2, 3) // one for the opening by hand, one for Patroni
}

// customBootstrap proves that the section of Patroni's configuration on the page is the one with which TestDrillRestoredInPlace starts a cluster.
func (r *incident) customBootstrap(g *guide) {
	r.t.Helper()
	var page, drill struct {
		Bootstrap struct {
			Method  string
			Restore map[string]any
		}
	}
	n := r.Nodes[0]
	if err := n.BootstrapFrom(r.base, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(n.Dir, "patroni.yml"))
	err = errors.Join(err, yaml.Unmarshal(text, &drill), yaml.Unmarshal([]byte(g.blocks(r.t, runbookCluster, "yaml")[0].Text), &page))
	if err != nil {
		r.t.Fatal(err)
	}
	if page.Bootstrap.Method != drill.Bootstrap.Method || !slices.Equal(keys(page.Bootstrap.Restore), keys(drill.Bootstrap.Restore)) {
		r.t.Errorf("docs/restore.md has %v, the drill uses %v", page.Bootstrap, drill.Bootstrap)
	}
}

// keys are those of a map and of the maps in it, in order.
func keys(m map[string]any) (all []string) {
	for k, v := range m {
		all = append(all, k)
		if inner, ok := v.(map[string]any); ok {
			all = append(all, keys(inner)...)
		}
	}
	slices.Sort(all)
	return all
}
