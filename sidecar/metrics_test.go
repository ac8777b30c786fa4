package main

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/walbaton/walbaton/archiver"
	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/window"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

// labelled is the value of a metric for one value of a label.
func (s *sidecar) labelled(name, label, value string) float64 {
	s.t.Helper()
	families, err := s.gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == label && l.GetValue() == value }) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	s.t.Fatalf("no metric %s of %s", name, value)
	return 0
}

// now gives all files of pg_wal the time that the clock of the test shows: they were written by the machine's.
func (s *sidecar) now() {
	s.t.Helper()
	all, err := filepath.Glob(filepath.Join(s.pgWAL(), "0*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range all {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(time.Now().Add(24*time.Hour)) {
			if err := os.Chtimes(f, time.Now(), time.Now()); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.look(nil)
}

// TestMissingAge: how long WAL has waited for the archive is known on the holder and on others; it is 0 when nothing waits. A node that alone does not
// reach the archive believes the holder. A sidecar that never reached the archive goes by what PostgreSQL wants archived.
func TestMissingAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		var cut bool // n2 from the archive
		n2.app.stores[0].store = surround(storemem.NewFaults(c.store, func(call storemem.Call) storemem.Fault {
			if cut {
				return storemem.Fault{Drop: true}
			}
			return (*c.spoil.Load())(call)
		}), n2.cfg, nil, n2.app.log)
		write := func(segments int) {
			w.Fill(segments)
			n1.primary(w)
			n2.standby(w, "n1")
			n1.now()
			n2.now()
		}
		write(0)
		n1.start()
		n2.start()
		archivedSoon(c, n1, w)
		nothing := func() bool {
			return n1.metric("walbaton_oldest_missing_age_seconds")+n2.metric("walbaton_oldest_missing_age_seconds")+n1.metric("walbaton_pinned_bytes")+n2.metric("walbaton_pinned_bytes") == 0
		}
		n2.later(time.Minute, "nothing waits", nothing)

		c.spoils(storemem.Fault{Drop: true})
		write(2)
		time.Sleep(10 * time.Minute)
		for _, n := range []*sidecar{n1, n2} {
			if age, bytes := n.metric("walbaton_oldest_missing_age_seconds"), n.metric("walbaton_pinned_bytes"); math.Abs(age-600) > 30 || bytes != 2<<20 {
				t.Errorf("%s: the oldest is %v seconds old and %v bytes are pinned, want 600 and %d", n.cfg.Name, age, bytes, 2<<20)
			}
		}
		c.heal()
		n1.later(time.Minute, "all is in the archive", nothing)

		cut = true
		write(1)
		archivedSoon(c, n1, w)
		time.Sleep(10 * time.Minute)
		if age, bytes, up := n2.metric("walbaton_oldest_missing_age_seconds"), n2.metric("walbaton_pinned_bytes"), n2.metric("walbaton_store_up"); age != 0 || bytes != 1<<20 || up != 0 {
			t.Errorf("n2, which is cut off: age %v, pinned %v, store up %v; want 0, %d, 0", age, bytes, up, 1<<20)
		}
		n2.stop()
		n1.stop()

		c.spoils(storemem.Fault{Drop: true}) // and the sidecar is started anew
		n3 := c.newSidecar("n1")
		w.Fill(3)
		n3.primary(w)
		n3.now()
		n3.start()
		time.Sleep(20 * time.Minute)
		waits := float64(len(w.Full()))
		if open, age, missing := n3.metric("walbaton_archive_open"), n3.metric("walbaton_oldest_missing_age_seconds"), n3.metric("walbaton_missing_segments"); open != 0 || math.Abs(age-1200) > 30 || missing != waits {
			t.Errorf("without an archive: open %v, age %v, missing %v; want 0, 1200, %v", open, age, missing, waits)
		}
		n3.stop()
	})
}

// TestClusterMetrics: each node says who holds the baton, which members have a sidecar, and what its server does.
func TestClusterMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2", "n3")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		archivedSoon(c, n1, w)
		time.Sleep(10 * time.Second)
		for _, n := range []*sidecar{n1, n2} {
			holds := 0.0
			if n == n1 {
				holds = 1
			}
			for name, want := range map[string]float64{"baton_held": holds, "postgres_primary": holds, "members": 3, "members_with_sidecar": 2, "store_up": 1, "line_timeline": 1, "flush_lsn_bytes": float64(w.Pos())} {
				if got := n.metric("walbaton_" + name); got != want {
					t.Errorf("%s: walbaton_%s %v, want %v", n.cfg.Name, name, got, want)
				}
			}
			if n.metric("walbaton_baton_term") < 1 {
				t.Errorf("%s: term %v", n.cfg.Name, n.metric("walbaton_baton_term"))
			}
			for value, want := range map[string]float64{"n1": 1, "n2": 0, "n3": 0} {
				if got := n.labelled("walbaton_baton_holder", "holder", value); got != want {
					t.Errorf("%s: %s holds it: %v, want %v", n.cfg.Name, value, got, want)
				}
			}
			if n.labelled("walbaton_archive_mode", "mode", "always") != 1 || n.labelled("walbaton_archive_mode", "mode", "on") != 0 || n.labelled("walbaton_alarms", "row", "6c") != 0 {
				t.Errorf("%s: archive_mode or alarms", n.cfg.Name)
			}
		}
		n2.cut.Store(int32(dcsmem.Drop))
		time.Sleep(30 * time.Second)
		if got := n2.names("members", "members_with_sidecar", "baton_term", "baton_holder", "baton_held"); !slices.Equal(got, []string{"baton_held"}) {
			t.Errorf("without the DCS n2 has %v", got)
		}
		n2.stop()
		n1.stop()
	})
}

// TestRESTMetrics: where Patroni is read through its REST API nobody has a baton, and the primary ships; of other sidecars nothing is said.
func TestRESTMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.rest = true
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		n1.until(time.Minute, "all is in the archive", func() bool { return c.archived(w.Full()[1].String()) })
		time.Sleep(10 * time.Second)
		for n, holds := range map[*sidecar]float64{n1: 1, n2: 0} {
			if got := n.metric("walbaton_baton_held"); got != holds {
				t.Errorf("%s: walbaton_baton_held %v, want %v", n.cfg.Name, got, holds)
			}
			if got := n.names("members", "members_with_sidecar", "baton_term", "baton_holder"); !slices.Equal(got, []string{"members"}) || n.metric("walbaton_members") != 2 {
				t.Errorf("%s has %v", n.cfg.Name, got)
			}
		}
		n2.stop()
		n1.stop()
	})
}

// names are those of some metrics that there are.
func (s *sidecar) names(some ...string) (there []string) {
	s.t.Helper()
	families, err := s.gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range some {
		if slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "walbaton_"+name }) {
			there = append(there, name)
		}
	}
	return there
}

func TestLastsSeconds(t *testing.T) {
	for _, tc := range []struct {
		free      uint64
		perSecond float64
		want      float64
	}{{100 << 20, 1 << 20, 100}, {100 << 20, 0, math.Inf(1)}, {15 << 20, 1 << 20, 0}, {15 << 20, 0, 0}} {
		if got := lastsSeconds(tc.free, tc.perSecond, 16<<20); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
}

// everyMetric are the metrics of a sidecar with all that one can have, of our own.
func everyMetric(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	c := newFarCluster(t, true)
	c.scope.Put("leader", "n1")
	n := c.newSidecar("n1")
	if _, err := window.New(window.Options{Dir: t.TempDir(), Bytes: 1, Workers: 1, Metrics: n.metrics,
		Fetch: func(context.Context, window.Key, string, func()) (any, error) { return nil, fs.ErrNotExist }}); err != nil {
		t.Fatal(err)
	}
	w := newTestWriter(2)
	c.patroni("n1", 1, "n1")
	n.primary(w)
	var all []*dto.MetricFamily
	n.start()
	n.until(time.Minute, "all is in the archive", func() bool { return n.holds() && c.archived(w.Full()[1].String()) })
	all, err := n.gather()
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	for _, f := range all {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["scope"] != "shop" || labels["member"] != "n1" {
				t.Errorf("%s has the labels %v, want scope and member", f.GetName(), labels)
			}
		}
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "walbaton_") })
}

// metricRow are the cells of a metric in docs/metrics.md that the code knows: all but who has it.
func metricRow(f *dto.MetricFamily) []string {
	var labels []string
	for _, l := range f.GetMetric()[0].GetLabel() {
		if n := l.GetName(); n != "scope" && n != "member" {
			labels = append(labels, "`"+n+"`")
		}
	}
	unit := ""
	name := strings.TrimSuffix(f.GetName(), "_total")
	for _, u := range []struct{ suffix, unit string }{{"_timestamp_seconds", "seconds since 1970"}, {"_seconds", "seconds"}, {"_bytes", "bytes"}, {"_segments", "segments"}, {"_files", "files"}} {
		if unit == "" && strings.HasSuffix(name, u.suffix) {
			unit = u.unit
		}
	}
	return []string{"`" + f.GetName() + "`", strings.ToLower(f.GetType().String()), unit, strings.Join(labels, ", "), strings.TrimSuffix(f.GetHelp(), ".")}
}

// docs/metrics.md has every metric with its type, unit, labels and meaning, as the code has them, and says who has it.
func TestMetricsPage(t *testing.T) {
	var all []*dto.MetricFamily
	synctest.Test(t, func(t *testing.T) { all = everyMetric(t) })
	rows := map[string][]string{}
	for _, cells := range tableRows(page(t, "docs/metrics.md")) {
		if strings.HasPrefix(cells[0], "`walbaton_") {
			rows[cells[0]] = cells
		}
	}
	for _, f := range all {
		want := metricRow(f)
		got := rows[want[0]]
		delete(rows, want[0])
		if len(got) != 6 || !slices.Equal(got[:5], want) || got[5] == "" {
			t.Errorf("got %q, want, and who has it:\n| %s | ? |", got, strings.Join(want, " | "))
		}
		if f.GetType() == dto.MetricType_COUNTER != strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("%s is a %v", f.GetName(), f.GetType())
		}
	}
	for name := range rows {
		t.Errorf("%s is on the page, and no sidecar has it", name)
	}
}

// Rows that can raise an alarm have a series from the beginning.
func TestAlarmRows(t *testing.T) {
	for _, row := range archiver.AlarmRows() {
		if !slices.Contains(archiverRows(t), row) {
			t.Errorf("there is no row %s", row)
		}
	}
}

// docs/runbooks/WalbatonHole.md and WalbatonHistoryMissing.md: a sidecar that starts lists the archive anew, and ships what somebody deleted there and the node still has.
func TestRestartFillsHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(1)
		w.Fill(2)
		w = w.Fork(2)
		w.Fill(3)
		c.patroni("n1", 2, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		archivedSoon(c, n1, w)
		lost := w.Full()[len(w.Full())-2]
		c.remove(t, lost)
		if err := c.store.Delete(t.Context(), "shop/7710542482846769188/history/00000002.history"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c.archived(lost.String()) {
			t.Error("it came back by itself: say so in the pages")
		}
		n1.stop()
		again := c.newSidecar("n1")
		again.primary(w)
		again.start()
		again.until(time.Minute, "the archive is whole", func() bool { return c.archived(lost.String()) && c.archived("00000002.history") })
		again.stop()
	})
}
