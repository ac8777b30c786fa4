//go:build drills

package drill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/sidecar/monitoring"
)

var alertsRecord = flag.String("alerts.record", "", "write what TestDrillAlerts records to this `file`: sidecar/monitoring/testdata/drill.txt")

// recorder is the Prometheus of a drill.
type recorder struct {
	*scenario
	mu   sync.Mutex
	r    *monitoring.Recording
	last map[string]string
}

// What Prometheus would see of a cluster through two switchovers and the restart of a sidecar, and then through one failure after the other. promtool
// replays it with the rules: nothing fires in the first part, and then those alerts that say what is wrong, and no others. Every query of the dashboard
// finds its metrics and labels in what the sidecars say.
func TestDrillAlerts(t *testing.T) {
	s := prepare(t, Options{DiskMB: map[string]int{"n3": 400}, Settings: "verify_every: 3s\n"}, drillLimit)
	n3 := s.Nodes[2]
	s.detour(n3)
	s.do("three nodes start", s.Start)
	s.inventory = NewInventory(s.Store) // objects will disappear, and nobody is to complain
	s.populate(drillRate / 2)
	s.do("all are in order", s.inOrder)
	p := s.record()

	p.step(monitoring.StepOrder)
	p.until("the archive was looked at", func() bool { return p.most("walbaton_verify_last_timestamp_seconds", "") > 0 })
	s.dashboardFinds(p.last)
	p.step(monitoring.StepSwitch)
	for _, to := range []int{1, 0} {
		s.do("switchover", s.switchover(s.Nodes[to]))
		s.do("all stream", s.AllStreaming)
		s.do("two segments are finished", s.finish(2))
	}
	p.until("the archive was looked at in a new term", func() bool {
		return p.most("walbaton_verify_last_timestamp_seconds", "") > float64(p.r.Begin.Unix()) && p.most("walbaton_leader_changes_total", "") >= 2
	})
	p.step(monitoring.StepRestart)
	s.do("the sidecar of the primary is killed", s.Nodes[0].KillSidecar)
	p.until("Prometheus sees that", func() bool { return p.last["n1"] == "" })
	s.do("it starts again", s.Nodes[0].StartSidecar)
	p.until("all is in order again", func() bool {
		return p.most("walbaton_verify_last_timestamp_seconds", "") > 0 && p.least("walbaton_store_up") == 1 && p.least("walbaton_members_with_sidecar") == nodes
	})

	p.step(monitoring.StepHole)
	s.loseObjects()
	s.do("n3 does not reach the archive, and has a small disk", func(ctx context.Context) error {
		return errors.Join(os.Remove(filepath.Join(n3.Dir, "archive")), n3.FillDisk(ctx, 40<<20))
	})
	p.until("it is known", func() bool {
		return p.most("walbaton_verify_missing_segments", "") == 1 && p.most("walbaton_verify_missing_histories", "") == 1 && p.of(n3, "walbaton_store_up") == 0 &&
			p.of(n3, "walbaton_pinned_bytes") > 12<<20
	})
	p.step(monitoring.StepReached)
	s.do("n3 reaches it again, and has a large disk", func(ctx context.Context) error {
		return errors.Join(n3.FreeDisk(ctx), n3.GrowDisk(ctx, 4000), s.link(n3))
	})
	p.until("n3 has compared", func() bool { return p.of(n3, "walbaton_store_up") == 1 && p.of(n3, "walbaton_pinned_bytes") < 4<<20 })

	p.step(monitoring.StepConflict)
	s.do("a damaged object has a name that comes", s.damage)
	p.until("it needs a person", func() bool { return p.most("walbaton_alarms", `row="6b"`) > 0 })
	p.step(monitoring.StepMode)
	s.do("archive_mode becomes on at n3", func(ctx context.Context) error {
		return errors.Join(s.Configure(ctx, `{"postgresql": {"parameters": {"archive_mode": "on"}}}`), pass(2*time.Second)(ctx), n3.ask(ctx, http.MethodPost, "/restart", "{}"))
	})
	p.until("it is known", func() bool { v, _ := value(p.last["n3"], "walbaton_archive_mode", `mode="on"`); return v == 1 })
	p.step(monitoring.StepStore)
	s.do("the archive goes away", s.StopStore)
	p.until("all know, and WAL waits", func() bool {
		return p.most("walbaton_store_up", "") == 0 && p.least("walbaton_oldest_missing_age_seconds") > 8
	})
	p.step(monitoring.StepSidecar)
	s.do("the sidecar of n3 is killed", n3.KillSidecar)
	p.until("the others know", func() bool { return p.of(s.Nodes[0], "walbaton_members_with_sidecar") == 2 })
	p.step(monitoring.StepDown)
	for _, n := range s.Nodes {
		s.do("the sidecar of "+n.Name+" is killed", n.KillSidecar)
	}
	p.until("nobody answers", func() bool { return p.last["n1"]+p.last["n2"]+p.last["n3"] == "" })
	p.end()
	p.replay()
}

// inOrder waits until every sidecar reaches the archive, and knows the others.
func (s *scenario) inOrder(ctx context.Context) error {
	return until(ctx, clusterLimit, "all are in order", func(ctx context.Context) error {
		for _, n := range s.Nodes {
			text, err := n.Scrape(ctx)
			if err != nil {
				return err
			}
			up, _ := value(text, "walbaton_store_up", "")
			if with, _ := value(text, "walbaton_members_with_sidecar", ""); up != 1 || with != nodes {
				return fmt.Errorf("%s: the store answers: %v, members with a sidecar: %v", n.Name, up, with)
			}
		}
		return nil
	})
}

// detour gives a node a path of its own to the archive: a link that can be taken away.
func (s *scenario) detour(n *Node) {
	s.t.Helper()
	folder := s.Store.(*folderStore).root
	text, err := os.ReadFile(n.config())
	if err == nil {
		err = errors.Join(s.link(n), os.WriteFile(n.config(), []byte(strings.ReplaceAll(string(text), folder, filepath.Join(n.Dir, "archive"))), 0o644))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scenario) link(n *Node) error {
	return os.Symlink(s.Store.(*folderStore).root, filepath.Join(n.Dir, "archive"))
}

// loseObjects takes a segment out of the middle of the archive, and the history of timeline 2.
func (s *scenario) loseObjects() {
	s.t.Helper()
	s.do("a segment and a history disappear from the archive", func(ctx context.Context) error {
		all, err := s.Store.Objects(ctx)
		if err != nil {
			return err
		}
		var segments []string
		for _, o := range all {
			if strings.Contains(o.Key, "/wal/00000001/") && len(filepath.Base(o.Key)) == 24 {
				segments = append(segments, o.Key)
			}
		}
		slices.Sort(segments)
		if len(segments) < 5 {
			return fmt.Errorf("only %d segments", len(segments))
		}
		lost, root := segments[len(segments)-3], s.Store.(*folderStore).root
		for _, n := range s.Nodes {
			if err := n.LoseWAL(filepath.Base(lost)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return errors.Join(os.Remove(filepath.Join(root, lost)), os.Remove(filepath.Join(root, s.base.Folder(), "history", "00000002.history")))
	})
}

// damage puts an object that is no WAL where a segment will be that the primary finishes in a moment.
func (s *scenario) damage(ctx context.Context) error {
	name, err := query[string](ctx, s.primary().DSN(), "select pg_walfile_name(pg_current_wal_lsn() + 3 * 1024 * 1024)")
	if err != nil {
		return err
	}
	path := filepath.Join(s.Store.(*folderStore).root, s.base.key(name))
	return errors.Join(os.WriteFile(path, []byte("half a segment"), 0o644), s.own(path))
}

// record begins to scrape.
func (s *scenario) record() *recorder {
	s.t.Helper()
	rules, err := monitoring.Rules(checkout(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	named := map[string]bool{}
	for _, rule := range rules {
		for _, m := range monitoring.Selectors(rule.Expr) {
			named[m.Metric] = true
		}
	}
	const every = 2 * time.Second
	p := &recorder{scenario: s, r: monitoring.NewRecording(time.Now(), every)}
	s.watching = s.Scrapes(s.ctx, every, func(texts map[string]string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = texts
		return p.r.Add(texts, func(metric string) bool { return named[metric] })
	})
	s.t.Cleanup(func() { s.watching() })
	return p
}

func (p *recorder) step(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.r.Step(name)
}

// until waits until what was scraped is so.
func (p *recorder) until(words string, ok func() bool) {
	p.t.Helper()
	p.do(words, func(ctx context.Context) error {
		return until(ctx, clusterLimit, words, func(context.Context) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !ok() {
				return errors.New("not yet")
			}
			return nil
		})
	})
}

// of is the value of a node's metric in the last scrape; -1 when there is none.
func (p *recorder) of(n *Node, name string) float64 {
	if v, ok := value(p.last[n.Name], name, ""); ok {
		return v
	}
	return -1
}

// most is the largest value of the cluster.
func (p *recorder) most(name, label string) float64 {
	most := -1.0
	for _, text := range p.last {
		if v, ok := value(text, name, label); ok {
			most = max(most, v)
		}
	}
	return most
}

// least is the smallest.
func (p *recorder) least(name string) float64 {
	least := p.most(name, "")
	for _, n := range p.Nodes {
		least = min(least, p.of(n, name))
	}
	return least
}

// end stops scraping, and writes the recording where it was asked for.
func (p *recorder) end() {
	p.t.Helper()
	if err := p.watching(); err != nil {
		p.t.Fatal(err)
	}
	if *alertsRecord == "" {
		return
	}
	f, err := os.Create(*alertsRecord)
	if err == nil {
		_, err = p.r.WriteTo(f)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		p.t.Error(err)
	}
}

// replay has promtool say which alerts would have fired.
func (p *recorder) replay() {
	p.t.Helper()
	var wg sync.WaitGroup
	for _, one := range monitoring.Replays() {
		wg.Go(func() {
			if err := p.r.Check(p.ctx, checkout(p.t), one); err != nil {
				p.t.Errorf("%s: %v", one.Step, err)
			}
		})
	}
	wg.Wait()
}

// dashboardFinds looks for every metric of the dashboard, and every label that a query chooses by, in what the sidecars say. What there is of several archives
// only is asked for where there are several. The label namespace is Prometheus' own.
func (s *scenario) dashboardFinds(texts map[string]string) {
	s.t.Helper()
	d, err := monitoring.ReadDashboard(checkout(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, q := range d.Queries() {
		grouped := monitoring.Grouped(q)
		for _, m := range monitoring.Selectors(q) {
			several := slices.Contains(grouped, "archive")
			if several && s.Second == nil {
				continue
			}
			line := series(texts, m.Metric)
			if line == "" {
				s.t.Errorf("no sidecar has %s: %s", m.Metric, q)
				continue
			}
			for _, label := range append(grouped, m.Labels...) {
				if label != "namespace" && !strings.Contains(line, label+`="`) {
					s.t.Errorf("%s has no label %s, for which the dashboard asks: %s", m.Metric, label, line)
				}
			}
		}
	}
}

// series is the first line of a metric in the text of any node.
func series(texts map[string]string, metric string) string {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, metric+"{") {
				return line
			}
		}
	}
	return ""
}
