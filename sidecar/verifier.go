package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// The holder of the baton looks at the archive by itself: names and histories, no object's header or content. It does so in the beginning of a term, every
// verify_every, and sooner where something is wrong. It uses one connection at a time, a request for a thousand files and one for each history, and nothing
// waits for it.

const (
	verifyAfter = 30 * time.Second // from the beginning of a term, or verify_every: a failover leaves gaps that are filled at once
	verifyAgain = time.Minute      // after a look that found something new; doubled each time until verify_every
	verifyTip   = 10 * time.Second // how often the time of the last commit is asked for, where the frontier has moved
)

// verified is the last look at the archives of one site, in one term.
type verified struct {
	mu      sync.Mutex
	site    *site
	looks   []look // none: not yet
	at      time.Time
	took    time.Duration
	failed  string    // why the last try was none, or not of all archives
	tip     wal.LSN   // the frontier whose last commit is known
	tipTime time.Time // of that commit, or of the last one before it that is known
}

// look is what was found in one archive. Its name is "" where there is only one.
type look struct {
	name string
	rep  *archiver.Audit
}

// of gives the last looks at the archives of s.
func (v *verified) of(s *site) (looks []look, at time.Time, took time.Duration, failed string, tip time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s == nil || v.site != s {
		return nil, time.Time{}, 0, "", time.Time{}
	}
	return v.looks, v.at, v.took, v.failed, v.tipTime
}

// begin forgets what was known of another site or term.
func (v *verified) begin(s *site) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.site, v.looks, v.at, v.took, v.failed, v.tip, v.tipTime = s, nil, time.Time{}, 0, "", 0, time.Time{}
}

// keep takes what was found. What is known of an archive that could not be looked at stays.
func (v *verified) keep(found []look, begin time.Time, failed string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = failed
	if len(found) == 0 {
		return
	}
	v.at, v.took = begin.UTC(), time.Since(begin)
	for _, l := range v.looks {
		if !slices.ContainsFunc(found, func(f look) bool { return f.name == l.name }) {
			found = append(found, l)
		}
	}
	v.looks = found
}

// inTerm gives the site that is ours to look at, and the number of the term; nil when there is none.
func (a *app) inTerm() (*site, uint64) {
	s, _ := a.current()
	es := a.elector.Status()
	if s == nil || !es.Holding || !a.ships() {
		return nil, 0
	}
	return s, es.Epoch
}

// verifySites looks at the archive again and again while we hold the baton.
func (a *app) verifySites(ctx context.Context) error {
	var of *site
	var term uint64
	var next, tip time.Time
	wait := verifyAgain
	for {
		changed, elected := a.wait(), a.elector.Changed()
		s, epoch := a.inTerm()
		now := time.Now()
		switch {
		case s != of || epoch != term:
			of, term, wait = s, epoch, verifyAgain
			next, tip = now.Add(min(verifyAfter, a.cfg.VerifyEvery)), now.Add(verifyTip)
			a.verified.begin(s)
		case s != nil && !now.Before(next):
			before := a.verified.open(s)
			if a.verifyOnce(ctx, s) {
				after := a.verified.open(s)
				if after == "" {
					next, wait = time.Now().Add(a.cfg.VerifyEvery), verifyAgain
				} else {
					if after != before {
						wait = verifyAgain
					}
					wait = min(wait, a.cfg.VerifyEvery)
					next, wait = time.Now().Add(wait), 2*wait
				}
			} else {
				next = time.Now().Add(min(wait, a.cfg.VerifyEvery))
			}
		case s != nil && !now.Before(tip):
			a.askTip(ctx, s)
			tip = time.Now().Add(verifyTip)
		}
		idle := time.Hour // a change wakes us
		if of != nil {
			idle = max(min(time.Until(next), time.Until(tip)), time.Millisecond)
		}
		timer := time.NewTimer(idle)
		select {
		case <-changed:
		case <-elected:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// whileInTerm gives a context that ends with the site, and within a moment of the term.
func (a *app) whileInTerm(ctx context.Context, s *site) (context.Context, func()) {
	ctx, cancel := s.bound(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			changed, elected := a.wait(), a.elector.Changed()
			if now, _ := a.inTerm(); now != s {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-elected:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() { cancel(); watch.Wait() }
}

// verifyOnce looks at the archive, and says whether that worked.
func (a *app) verifyOnce(ctx context.Context, s *site) bool {
	ctx, end := a.whileInTerm(ctx, s)
	defer end()
	begin, before := time.Now(), a.verified.open(s)
	var found []look
	failed := ""
	for _, o := range s.archiver.Opened() {
		rep, err := o.Archive.Audit(ctx, archiver.AuditOptions{Names: true, Windows: true, Workers: 1, History: a.scope.Last().Line})
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			failed = archiver.Reason(o.Archive.Store(), err)
			a.log.Debug("an archive was not verified", "archive", o.Archive.String(), "why", err)
		default:
			found = append(found, look{o.Name, rep})
		}
	}
	a.verified.keep(found, begin, failed)
	switch after := a.verified.open(s); {
	case after == before:
	case after == "":
		a.log.Info("verify finds nothing in the archive that nobody knows of any more")
	default:
		a.log.Warn("verify finds what a recovery would stop at", "first", after, "see", "walbaton verify")
	}
	return len(found) > 0
}

// open names what is wrong and not acknowledged, "" for nothing. It is the same as long as that is.
func (v *verified) open(s *site) string {
	looks, _, _, _, _ := v.of(s)
	first, n := "", 0
	for _, l := range looks {
		n += l.rep.Open()
		for _, p := range l.rep.Problems {
			if p.Acknowledged == nil && first == "" {
				first = strings.TrimSpace(l.name + " " + p.Name + " (" + p.Kind + ")")
			}
		}
	}
	if n > 1 {
		first += fmt.Sprintf(" and %d more", n-1)
	}
	return first
}

// askTip asks for the time of the last commit, where the frontier is another one: a small request.
func (a *app) askTip(ctx context.Context, s *site) {
	frontier, line := s.archiver.State().Frontier, a.scope.Last().Line
	a.verified.mu.Lock()
	known := a.verified.tip
	a.verified.mu.Unlock()
	if frontier == 0 || frontier == known || line.Timeline == 0 {
		return
	}
	ctx, end := a.whileInTerm(ctx, s)
	defer end()
	ar := s.archiver.Archive()
	t, err := ar.CommitIn(ctx, ar.SegmentSize().Before(line.TimelineAt(frontier-1), frontier))
	if err != nil {
		return // the next try is soon
	}
	a.verified.mu.Lock()
	defer a.verified.mu.Unlock()
	if a.verified.tip = frontier; !t.IsZero() {
		a.verified.tipTime = t
	}
}

// WindowStatus is a part of the line without a hole: one can restore to any moment in it, from a base backup that ended before that moment and began
// in it.
type WindowStatus struct {
	FromLSN string    `json:"from_lsn"`
	ToLSN   string    `json:"to_lsn"`
	From    time.Time `json:"from,omitzero"` // of the first and of the last commit; zero when none was found
	To      time.Time `json:"to,omitzero"`
}

// VerifyStatus is what the holder of the baton found when it looked at names and histories in the archive, or in all of several.
type VerifyStatus struct {
	At           time.Time       `json:"at,omitzero"` // zero: not yet
	Seconds      float64         `json:"seconds"`
	Failed       string          `json:"failed,omitempty"` // why the last try was none, or not of all archives
	Missing      int             `json:"missing_segments"` // that nobody acknowledged
	Acknowledged int             `json:"acknowledged_segments"`
	Histories    int             `json:"missing_histories"` // not acknowledged
	Holes        int             `json:"holes"`             // runs of segments or histories that nobody acknowledged
	KnownHoles   int             `json:"acknowledged_holes"`
	Problems     int             `json:"problems"`       // of all kinds, that nobody acknowledged
	List         []VerifyProblem `json:"list,omitempty"` // the first ten, acknowledged ones too
}

// VerifyProblem is a problem and the name of the archive that has it, of several.
type VerifyProblem struct {
	Archive string `json:"archive,omitempty"`
	archiver.Problem
}

// add counts what was found in one archive.
func (v *VerifyStatus) add(l look) {
	c := l.rep.Count
	v.Missing += c.Missing - c.Known
	v.Acknowledged += c.Known
	v.Problems += l.rep.Open()
	for _, p := range l.rep.Problems {
		if len(v.List) < 10 {
			v.List = append(v.List, VerifyProblem{l.name, p})
		}
		switch history := p.Kind == archiver.ProblemMissingHistory; {
		case !history && p.Kind != archiver.ProblemHole && p.Kind != archiver.ProblemForkHole:
		case p.Acknowledged != nil:
			v.KnownHoles++
		default:
			v.Holes++
			if history {
				v.Histories += int(max(p.Count, 1))
			}
		}
	}
}

// reportVerify puts the last look at the archive into the status, with the part of the line that was shipped since. Of several archives
// it is the first that says what can be restored.
func (a *app) reportVerify(st *Status, s *site, got archiver.State) {
	looks, at, took, failed, tip := a.verified.of(s)
	if owner, _ := a.inTerm(); owner != s {
		return
	}
	v := &VerifyStatus{Failed: failed}
	st.Archive.Verify = v
	if len(looks) == 0 {
		return
	}
	v.At, v.Seconds = at, took.Seconds()
	for _, l := range looks {
		v.add(l)
	}
	windows := looks[0].rep.Windows
	for i, w := range windows {
		if last := i == len(windows)-1; last && got.FrontierFrom <= w.To && got.Frontier > w.To {
			w.To = got.Frontier
			if tip.After(w.Last) {
				w.Last = tip
			}
		}
		st.Archive.Windows = append(st.Archive.Windows, WindowStatus{w.From.String(), w.To.String(), w.First.UTC(), w.Last.UTC()})
	}
}

// verifyCollector turns the last look into metrics. A node without the baton has none, and says 0.
type verifyCollector struct {
	a *app

	last, seconds, holes, known, missing, acknowledged, histories, problems, from, to *prometheus.Desc
}

func newVerifyCollector(a *app) *verifyCollector {
	d := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("walbaton_"+name, help, nil, nil) }
	return &verifyCollector{
		a:            a,
		last:         d("verify_last_timestamp_seconds", "When this node looked at names and histories in the archive; 0 without the baton."),
		seconds:      d("verify_duration_seconds", "How long the last look at the archive took; 0 without the baton."),
		holes:        d("verify_holes", "Runs of segments or histories that the archive lacks and that nobody acknowledged."),
		known:        d("verify_acknowledged_holes", "Runs of segments or histories that the archive lacks and that somebody acknowledged."),
		missing:      d("verify_missing_segments", "Segments that the archive lacks and nobody acknowledged."),
		acknowledged: d("verify_acknowledged_segments", "Segments that the archive lacks and somebody acknowledged."),
		histories:    d("verify_missing_histories", "Timelines without a history in the archive that nobody acknowledged."),
		problems:     d("verify_problems", "All that the last look at the archive found and nobody acknowledged."),
		from:         d("restore_from_timestamp_seconds", "First commit of the part of the line without a hole that ends now; 0 when it is not known."),
		to:           d("restore_to_timestamp_seconds", "Last commit of the part of the line without a hole that ends now: one can restore to any moment before it; 0 when it is not known."),
	}
}

// Describe implements prometheus.Collector.
func (c *verifyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.last, c.seconds, c.holes, c.known, c.missing, c.acknowledged, c.histories, c.problems, c.from, c.to} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *verifyCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	var st Status
	if s, _ := c.a.inTerm(); s != nil {
		c.a.reportVerify(&st, s, s.archiver.State())
	}
	v := st.Archive.Verify
	if v == nil {
		v = &VerifyStatus{}
	}
	var w WindowStatus
	if k := len(st.Archive.Windows); k > 0 {
		w = st.Archive.Windows[k-1]
	}
	gauge(c.last, unixSeconds(v.At))
	gauge(c.seconds, v.Seconds)
	gauge(c.holes, float64(v.Holes))
	gauge(c.known, float64(v.KnownHoles))
	gauge(c.missing, float64(v.Missing))
	gauge(c.acknowledged, float64(v.Acknowledged))
	gauge(c.histories, float64(v.Histories))
	gauge(c.problems, float64(v.Problems))
	gauge(c.from, unixSeconds(w.From))
	gauge(c.to, unixSeconds(w.To))
}
