package main

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// labelled registers with r what then carries the names of the cluster and of this node, as Patroni's own metrics do: Prometheus can tell clusters
// apart however it was told where to scrape.
func labelled(cfg Config, r prometheus.Registerer) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"scope": cfg.Scope, "member": cfg.Name}, r)
}

// buildInfo is the usual metric that carries the version.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "walbaton_build_info", Help: "1, with the version.",
		ConstLabels: prometheus.Labels{"version": version()}}, func() float64 { return 1 })
}

// newFetches counts answers to restore_command.
func newFetches(r prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walbaton_fetch_answers_total",
		Help: "Answers to restore_command of the server beside this sidecar: restored, not_there (proven), cannot_say."}, []string{"answer"})
	for _, code := range []int{archiver.Restored, archiver.NotThere, archiver.CannotSay} {
		c.WithLabelValues(fetchAnswer(code))
	}
	r.MustRegister(c)
	return c
}

func fetchAnswer(code int) string {
	switch code {
	case archiver.Restored:
		return "restored"
	case archiver.NotThere:
		return "not_there"
	}
	return "cannot_say"
}

// stateCollector turns the state into metrics when they are asked for.
type stateCollector struct {
	a *app

	open, others, storeUp, lastTaken             *prometheus.Desc // the archive
	missing, age, pinned, lacks, kept, keptBytes *prometheus.Desc // what it is not known to have
	alarms, frontier, timeline                   *prometheus.Desc
	free, disk, lasts, flush, primary, mode      *prometheus.Desc // the server
	held, term, holder, members, sidecars        *prometheus.Desc // the cluster
}

func newStateCollector(a *app) *stateCollector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("walbaton_"+name, help, labels, nil)
	}
	return &stateCollector{
		a:         a,
		open:      d("archive_open", "1 when the archive is open: proven, identified, ready to take files."),
		others:    d("other_archives", "Archives of other system identifiers under this scope: of clusters that had its name."),
		storeUp:   d("store_up", "1 when the archive answers: the last put succeeded, or the store answered since. 0 also when it could not be opened yet; absent without a data directory."),
		lastTaken: d("archive_last_taken_timestamp_seconds", "When the archive last took a file from this node; 0: not since the sidecar was started."),
		missing:   d("missing_segments", "Segments of the line in this pg_wal that the archive is not known to have."),
		age:       d("oldest_missing_age_seconds", "Age of the oldest finished segment here that the archive is not known to have, also by what the holder of the baton says; 0 when there is none."),
		pinned:    d("pinned_bytes", "Bytes of the missing segments: PostgreSQL keeps them in pg_wal until the archive has them."),
		lacks:     d("lacking_segments", "Segments that the archive lacks and only other nodes have; 0 without the baton."),
		kept:      d("kept_files", "Files of a stopped PostgreSQL set aside in keep_dir."),
		keptBytes: d("kept_bytes", "Bytes of the files set aside in keep_dir."),
		alarms:    d("alarms", "Files that need a person, by the row of the table in docs/push.md.", "row"),
		frontier:  d("frontier_lsn_bytes", "End of the last segment up to which the line has no hole, as this node knows it; absent while nothing is known."),
		timeline:  d("line_timeline", "Timeline that the cluster is on; absent while it is not known."),
		free:      d("wal_disk_free_bytes", "Bytes that PostgreSQL may still write to the disk of pg_wal."),
		disk:      d("wal_disk_size_bytes", "Size of the disk of pg_wal."),
		lasts:     d("wal_disk_lasts_seconds", "How long until the disk of pg_wal is full, at the pace of WAL of the last five minutes and if nothing of it is removed; 0: full, +Inf: no WAL is written."),
		flush:     d("flush_lsn_bytes", "Up to where the PostgreSQL of this node has its WAL on disk; absent while that is not known."),
		primary:   d("postgres_primary", "1 when the PostgreSQL of this node is a running primary, whatever Patroni says."),
		mode:      d("archive_mode", "1 for the archive_mode that the PostgreSQL of this node runs with.", "mode"),
		held:      d("baton_held", "1 while this node holds the baton, and so ships; without a DCS: while it is a running primary."),
		term:      d("baton_term", "Number of the present term, as this node sees it; 0 while nobody holds the baton, absent while the DCS does not answer. It only grows."),
		holder:    d("baton_holder", "1 for the member that holds the baton, as this node sees it; absent while the DCS does not answer.", "holder"),
		members:   d("members", "Members of the cluster that Patroni knows, as this node sees them; absent while the DCS does not answer."),
		sidecars:  d("members_with_sidecar", "Members that Patroni knows and whose sidecar is alive, as this node sees them; absent while the DCS does not answer, and where Patroni is read through its REST API."),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.others, c.storeUp, c.lastTaken, c.missing, c.age, c.pinned, c.lacks, c.kept, c.keptBytes, c.alarms, c.frontier,
		c.timeline, c.free, c.disk, c.lasts, c.flush, c.primary, c.mode, c.held, c.term, c.holder, c.members, c.sidecars} {
		ch <- d
	}
}

// gauges are sent one by one.
type gauges chan<- prometheus.Metric

func (g gauges) send(d *prometheus.Desc, v float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (g gauges) yes(d *prometheus.Desc, v bool, labels ...string) {
	if v {
		g.send(d, 1, labels...)
	} else {
		g.send(d, 0, labels...)
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	c.archive(ch)
	c.server(ch)
	c.cluster(ch)
}

func (c *stateCollector) archive(g gauges) {
	s, _ := c.a.current()
	g.yes(c.open, s != nil)
	var st archiver.State
	var others, missing int
	var since time.Time
	if s != nil {
		st, others = s.archiver.State(), len(s.others)
		missing, since = st.Misses.Len(), st.MissingSince
		g.send(c.lastTaken, unixSeconds(st.LastTaken))
	} else {
		missing, since = c.a.unasked()
	}
	g.send(c.others, float64(others))
	if s != nil || c.a.pg.Server().SystemID != 0 { // a node that is just being cloned asks for no archive
		g.yes(c.storeUp, st.StoreAnswers)
	}
	g.send(c.missing, float64(missing))
	g.send(c.age, ageSeconds(time.Now(), since))
	g.send(c.pinned, float64(missing)*float64(c.a.pg.Server().SegmentSize))
	g.send(c.lacks, float64(st.Lacks.Len()))
	g.send(c.kept, float64(st.Kept))
	g.send(c.keptBytes, float64(st.KeptBytes))
	if st.Frontier != 0 {
		g.send(c.frontier, float64(st.Frontier))
	}
	alarms := map[string]int{}
	for _, row := range archiver.AlarmRows() {
		alarms[row] = 0
	}
	for _, al := range st.Alarms {
		alarms[al.Row]++
	}
	for row, n := range alarms {
		g.send(c.alarms, float64(n), row)
	}
}

func (c *stateCollector) server(g gauges) {
	srv := c.a.pg.Server()
	if free, size, err := diskSpace(c.a.pgWAL()); err == nil {
		g.send(c.free, float64(free))
		g.send(c.disk, float64(size))
		g.send(c.lasts, lastsSeconds(free, c.a.pace.perSecond(), srv.SegmentSize))
	}
	if srv.Flush != 0 {
		g.send(c.flush, float64(srv.Flush))
	}
	g.yes(c.primary, srv.State == archiver.ServerPrimary)
	for _, mode := range []string{"always", "on", "off"} {
		g.yes(c.mode, srv.ArchiveMode == mode, mode)
	}
}

func (c *stateCollector) cluster(g gauges) {
	es := c.a.elector.Status()
	g.yes(c.held, es.Holding && c.a.ships())
	if line := c.a.scope.Last().Line; line.Timeline != 0 {
		g.send(c.timeline, float64(line.Timeline))
	}
	v, ok := c.a.elector.View()
	if !ok || es.Silent && !c.a.scope.lens.Alone {
		return // what was true once would be taken for what is
	}
	members, sidecars := membersOf(v)
	g.send(c.members, float64(members))
	if !c.a.cfg.rest() { // which tells of no other node's sidecar
		g.send(c.sidecars, float64(sidecars))
	}
	if c.a.scope.lens.NoDCS {
		return // there is no baton
	}
	holder, term := v.Baton.Holder, v.Baton.Epoch
	if es.Holding {
		holder, term = c.a.cfg.Name, es.Epoch
	}
	g.send(c.term, float64(term))
	names := slices.Concat(slices.Collect(maps.Keys(v.Cluster.Members)), slices.Collect(maps.Keys(v.Records)), []string{holder})
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name != "" {
			g.yes(c.holder, name == holder, name)
		}
	}
}

// membersOf counts Patroni's members, and those of them whose sidecar is alive.
func membersOf(v leader.View) (members, sidecars int) {
	for name := range v.Cluster.Members {
		members++
		if _, live := v.Records[name]; live {
			sidecars++
		}
	}
	return members, sidecars
}

// unasked is what waits while the archive is not open, and nothing can be compared with it: the segments that PostgreSQL wants archived. Since when is
// by the oldest that the holder of the baton does not say the archive has.
func (a *app) unasked() (n int, since time.Time) {
	q, err := queue.Open(a.pgWAL(), a.pg.Server().SegmentSize)
	if err != nil {
		return 0, since
	}
	defer q.Close()
	files, err := q.Scan()
	if err != nil {
		return 0, since
	}
	cluster := a.scope.Last()
	for f := range files.All() {
		if f.Name.Kind != wal.KindSegment || f.Status != queue.Ready || f.Gone {
			continue
		}
		n++
		if id, err := q.Ident(f.Name); err == nil && !cluster.Shipped(f.Name.Segment) {
			if at := time.Unix(0, id.Mtime); since.IsZero() || at.Before(since) {
				since = at
			}
		}
	}
	return n, since
}

// ageSeconds is how long ago something was; 0 when it never was. A file's time may lie a little in the future.
func ageSeconds(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(now.Sub(since), 0).Seconds()
}

// unixSeconds is a time as Prometheus has it; 0 for the zero time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// lastsSeconds is lasts as a metric: where nobody can say it is far away.
func lastsSeconds(free uint64, perSecond float64, size wal.SegmentSize) float64 {
	if free < uint64(size) {
		return 0
	}
	if left := lasts(free, perSecond); left > 0 {
		return left.Seconds()
	}
	return math.Inf(1)
}
