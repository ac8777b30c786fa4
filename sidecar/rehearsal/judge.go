package rehearsal

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// needed are the files that a recovery from first to last needs along the line: segments, and the histories of the timelines that the
// line came to meanwhile. The segment in which the line left a timeline is the child's (PostgreSQL copies its beginning).
func needed(line wal.History, first, last wal.Segment) (names []wal.Name) {
	for _, f := range line.Forks {
		if f.Timeline > first.Timeline {
			names = append(names, wal.HistoryName(f.Timeline))
		}
	}
	if line.Timeline > first.Timeline {
		names = append(names, wal.HistoryName(line.Timeline))
	}
	for s := first; s.No <= last.No; s = s.Next() {
		names = append(names, wal.SegmentName(s.On(line.TimelineAt(s.End()-1))))
	}
	return names
}

// lines says of each timeline of the names what is there of it.
func lines(names []wal.Name, has func(wal.Name) bool) (out []Line) {
	for _, n := range names {
		t := n.Segment.Timeline
		i := slices.IndexFunc(out, func(l Line) bool { return l.Timeline == t })
		if i < 0 {
			i = len(out)
			out = append(out, Line{Timeline: t, Missing: []string{}})
		}
		l := &out[i]
		if n.Kind == wal.KindSegment {
			if l.First == "" {
				l.First = n.String()
			}
			l.Last = n.String()
			l.Segments++
		}
		if !has(n) {
			l.Missing = append(l.Missing, n.String())
		}
	}
	slices.SortFunc(out, func(a, b Line) int { return int(a.Timeline) - int(b.Timeline) })
	return out
}

// count compares the rows of a round, of which the first has the number after before, with those that the primary has.
func count(d written, before int, have map[int64]string, schema string, twice int) (r Rows) {
	r.Twice = twice
	for i, w := range d.rows {
		id := int64(before + i + 1)
		text, there := have[id]
		switch {
		case w.acked.IsZero():
			r.Doubtful++
			if there {
				r.DoubtfulKept++
			}
		case !there:
			r.Acknowledged++
			r.Lost++
		default:
			r.Acknowledged++
		}
		if there && text != note(schema, id) {
			r.Changed++
		}
	}
	return r
}

// judge gives a round its verdict, from all that is in it.
func (rd *Round) judge() {
	fail := func(format string, args ...any) { rd.Why = append(rd.Why, fmt.Sprintf(format, args...)) }
	remark := func(format string, args ...any) { rd.Notes = append(rd.Notes, fmt.Sprintf(format, args...)) }
	if n := rd.Rows.Lost; n > 0 {
		fail("%s acknowledged and then lost by PostgreSQL: the new primary %s does not have them%s", were(n, "row"), rd.To,
			map[bool]string{true: ". That is asynchronous replication, not the archive: synchronous_mode of Patroni prevents it", false: ""}[rd.ByCommand])
	}
	if n := rd.Rows.Changed; n > 0 {
		fail("%s with another content than was written", are(n, "row"))
	}
	if n := rd.Rows.Twice; n > 0 {
		fail("%s more than once", are(n, "row"))
	}
	for _, l := range rd.Timelines {
		if n := len(l.Missing); n > 0 {
			fail("the archive lacks %s of timeline %d: %s", counted(n, "file"), l.Timeline, some(l.Missing))
		}
	}
	if len(rd.Twice) > 0 {
		fail("in the archive nothing may ever change, and %s", some(rd.Twice))
	}
	if rd.Shipped == 0 {
		fail("no segment of timeline %d reached the archive", rd.NewTimeline)
	}
	switch {
	case rd.Back == 0 && !rd.ByCommand:
		fail("not all members followed %s again", rd.To)
	case rd.Back == 0:
		remark("not all members followed %s yet when this ended", rd.To)
	}
	if n := len(rd.Orphans); n > 0 {
		remark("%s came to orphans/: WAL that the line left, kept aside: %s", counted(n, "file"), some(rd.Orphans))
	}
	if n := rd.Rows.Doubtful; n > 0 {
		remark("%s sent and never acknowledged: PostgreSQL may have kept such a row or not, and kept %d", were(n, "row"), rd.Rows.DoubtfulKept)
	}
	if rd.ByCommand && rd.NewTimeline == rd.OldTimeline {
		remark("no member was promoted: Patroni started PostgreSQL of %s again, on the same timeline", rd.To)
	} else if rd.From == rd.To {
		remark("Patroni promoted %s again: no other member took over", rd.To)
	}
	if len(rd.Trace.Batons) == 0 {
		remark("nobody's sidecar told who holds the baton")
	}
	rd.Verdict = Passed
	if len(rd.Why) > 0 {
		rd.Verdict = Failed
	}
}

// judge gives the whole its verdict: a failure weighs most, then what was not run.
func (res *Result) judge() {
	run := 0
	for _, rd := range res.Rounds {
		switch rd.Verdict {
		case Failed:
			res.Verdict = Failed
			for _, w := range rd.Why {
				res.Why = append(res.Why, res.of(rd)+w)
			}
		case Passed:
			run++
		}
	}
	if s := res.Restore; s != nil {
		if why := s.wrong(); why != "" {
			res.Verdict = Failed
			res.Why = append(res.Why, why)
		}
	}
	for _, rd := range res.Rounds {
		if rd.Verdict == NotRun && res.Verdict != Failed {
			res.Verdict = NotRun
			for _, w := range rd.Why {
				res.Why = append(res.Why, res.of(rd)+w)
			}
		}
	}
	if res.Verdict == "" && run == res.Wanted {
		res.Verdict = Passed
	}
	if res.Verdict == "" {
		res.Verdict = NotRun
	}
}

func (res *Result) of(rd Round) string {
	if res.Wanted < 2 {
		return ""
	}
	return fmt.Sprintf("round %d: ", rd.No)
}

// wrong says what is not in order with a restored server, "" when all is.
func (s Restore) wrong() string {
	switch {
	case s.Failed != "":
		return "the restore did not come to its end: " + s.Failed
	case s.Rows == 0:
		return "no row was compared with the restored server"
	case s.Missing+s.Extra+s.Changed > 0:
		return fmt.Sprintf("the archive does not give back what the primary has: of %s, %d are missing, %d have another content, and %d are too many", counted(s.Rows, "row"), s.Missing, s.Changed, s.Extra)
	}
	return ""
}

// compare counts how the rows of a restored server differ from those of the primary.
func (s *Restore) compare(got, want map[int64]string) {
	s.Rows = len(want)
	for id, text := range want {
		if g, ok := got[id]; !ok {
			s.Missing++
		} else if g != text {
			s.Changed++
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			s.Extra++
		}
	}
}

// trace turns what was seen into seconds from a moment on.
func (w *watcher) trace(d written, at, begin, end time.Time) Trace {
	w.mu.Lock()
	defer w.mu.Unlock()
	since := func(t time.Time) Seconds { return seconds(t.Sub(at)) }
	tr := Trace{From: since(begin), To: since(end), Members: []string{}, Primaries: []Span{}, Batons: []Span{}, Files: []File{}, Writes: []Bucket{}, Failures: []Failure{}}
	for _, m := range w.members {
		tr.Members = append(tr.Members, m.name)
	}
	for _, p := range w.primaries {
		tr.Primaries = append(tr.Primaries, Span{Who: p.who, From: since(p.from), To: since(p.to), Timeline: p.timeline})
	}
	for _, b := range w.batons {
		tr.Batons = append(tr.Batons, Span{Who: b.who, From: since(b.from), To: since(b.to), Term: b.term})
	}
	ended := map[string]Seconds{}
	for _, e := range d.ends {
		ended[e.name] = since(e.at)
	}
	for n, s := range w.seen {
		if s.old {
			continue
		}
		f := File{Name: n.String(), Timeline: n.Segment.Timeline, Arrived: since(s.at)}
		if e, ok := ended[f.Name]; ok {
			f.Ended = &e
		}
		tr.Files = append(tr.Files, f)
	}
	slices.SortFunc(tr.Files, func(a, b File) int {
		if a.Arrived != b.Arrived {
			return map[bool]int{true: -1, false: 1}[a.Arrived < b.Arrived]
		}
		return strings.Compare(a.Name, b.Name)
	})
	tr.Writes, tr.Failures = d.buckets(at, begin, end), d.failures(at)
	return tr
}

// buckets counts rows and failures, a quarter of a second each.
func (d written) buckets(at, begin, end time.Time) (all []Bucket) {
	all = []Bucket{}
	for t := begin; t.Before(end); t = t.Add(bucket) {
		all = append(all, Bucket{At: seconds(t.Sub(at))})
	}
	in := func(t time.Time) *Bucket {
		i := int(t.Sub(begin) / bucket)
		if t.Before(begin) || i >= len(all) {
			return &Bucket{} // outside of what was watched
		}
		return &all[i]
	}
	for _, r := range d.rows {
		if !r.acked.IsZero() {
			in(r.sent).Acknowledged++
		}
	}
	for _, f := range d.failed {
		in(f.at).Failed++
	}
	return all
}

// failures joins like ones in a row.
func (d written) failures(at time.Time) (all []Failure) {
	all = []Failure{}
	for _, f := range d.failed {
		if n := len(all); n > 0 && all[n-1].Why == f.why {
			all[n-1].Count++
			continue
		}
		all = append(all, Failure{At: seconds(f.at.Sub(at)), Why: f.why, Count: 1})
	}
	return all
}

// counted writes "1 row", "2 rows".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func were(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return counted(n, noun) + " were"
}

func are(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is there"
	}
	return counted(n, noun) + " are there"
}

// some names the first three, or says that there are none.
func some(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case len(names) <= 3:
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}
