package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// picture is what both drawings of an archive show: a row for each timeline, from the left to the right by LSN. A timeline stands right below
// its parent and all that left the parent later, so that the lines to the children cross nothing.
type picture struct {
	title  string
	lo, hi wal.LSN
	rows   []timelineRow
	floors []wal.LSN
}

type timelineRow struct {
	timeline   wal.Timeline
	parent     int     // row; -1 for none, or one that is not known
	fork       wal.LSN // 0 without a parent
	begin, end wal.LSN // of its WAL, from the fork on; equal when there is none
	marks      []holeMark
	onLine     bool
	newest     bool // the line ends here
	partial    bool
	notes      []string
}

// holeMark is where segments are missing.
type holeMark struct {
	from, to wal.LSN
	known    bool // acknowledged
}

// draw makes the picture of a report.
func draw(rep *archiver.Audit) picture {
	p := picture{title: rep.Archive, lo: wal.MaxLSN}
	byParent := map[wal.Timeline][]archiver.AuditTimeline{}
	known := map[wal.Timeline]bool{}
	for _, t := range rep.Timelines {
		known[t.Timeline] = true
	}
	for _, t := range rep.Timelines {
		parent := t.Parent
		if !known[parent] {
			parent = 0
		}
		byParent[parent] = append(byParent[parent], t)
	}
	orphans := orphansOf(rep)
	var add func(parent int, of wal.Timeline)
	add = func(parent int, of wal.Timeline) {
		children := byParent[of]
		slices.SortStableFunc(children, func(a, b archiver.AuditTimeline) int { return cmp.Compare(lsnOf(b.Fork), lsnOf(a.Fork)) })
		for _, t := range children {
			p.rows = append(p.rows, rowOf(rep, t, parent, orphans[t.Timeline]))
			add(len(p.rows)-1, t.Timeline)
		}
	}
	add(-1, 0)
	for i, f := range rep.Floors {
		if i == 0 || f.LSN != p.floors[len(p.floors)-1] {
			p.floors = append(p.floors, f.LSN)
		}
	}
	for _, r := range p.rows {
		if r.begin < r.end || r.fork > 0 {
			p.lo, p.hi = min(p.lo, r.begin), max(p.hi, r.end)
		}
	}
	for _, f := range p.floors {
		p.lo, p.hi = min(p.lo, f), max(p.hi, f)
	}
	if p.hi <= p.lo { // nothing at all
		p.hi = p.lo + wal.LSN(rep.SegmentSize)
	}
	return p
}

func rowOf(rep *archiver.Audit, t archiver.AuditTimeline, parent, orphans int) timelineRow {
	r := timelineRow{timeline: t.Timeline, parent: parent, fork: lsnOf(t.Fork), onLine: t.OnLine, partial: t.Partials > 0}
	r.newest = len(rep.Line) > 0 && rep.Line[len(rep.Line)-1] == t.Timeline
	r.begin, r.end = lsnOf(t.Begin), lsnOf(t.End)
	for _, h := range rep.Problems {
		if h.Timeline != t.Timeline || h.Kind != archiver.ProblemHole && h.Kind != archiver.ProblemForkHole {
			continue
		}
		first, err := wal.ParseName(h.From, rep.SegmentSize)
		last, err2 := wal.ParseName(h.To, rep.SegmentSize)
		if err != nil || err2 != nil {
			continue
		}
		m := holeMark{first.Segment.Start(), last.Segment.End(), h.Acknowledged != nil}
		r.marks = append(r.marks, m)
		if r.begin == r.end {
			r.begin, r.end = m.from, m.from
		}
		r.begin, r.end = min(r.begin, m.from), max(r.end, m.to)
	}
	if parent >= 0 {
		r.begin = max(r.begin, r.fork)
		r.end = max(r.end, r.begin)
	}
	if r.begin == r.end {
		r.begin, r.end = r.fork, r.fork
	}
	r.notes = timelineNotes(rep, t, orphans)
	return r
}

// timelineNotes are the words beside a row.
func timelineNotes(rep *archiver.Audit, t archiver.AuditTimeline, orphans int) []string {
	notes := []string{counted(t.Segments, "segment")}
	lost, known := 0, 0
	noHistory := false
	damaged := 0
	for _, p := range rep.Problems {
		switch {
		case p.Kind == archiver.ProblemMissingHistory:
			last := p.Timeline
			if n, err := wal.ParseName(p.To, rep.SegmentSize); err == nil {
				last = n.Segment.Timeline
			}
			noHistory = noHistory || p.Timeline <= t.Timeline && t.Timeline <= last
		case p.Timeline != t.Timeline:
		case p.Kind != archiver.ProblemHole && p.Kind != archiver.ProblemForkHole:
			damaged++
		case p.Acknowledged != nil:
			known += int(p.Count)
		default:
			lost += int(p.Count)
		}
	}
	for _, n := range []struct {
		n    int
		text string
	}{{lost, "missing"}, {known, "missing (acknowledged)"}, {damaged, "damaged"}} {
		if n.n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", n.n, n.text))
		}
	}
	if noHistory {
		notes = append(notes, "no history")
	}
	if t.Partials > 0 {
		notes = append(notes, counted(t.Partials, "partial"))
	}
	if t.Backups > 0 {
		notes = append(notes, counted(t.Backups, "backup"))
	}
	if orphans > 0 {
		notes = append(notes, counted(orphans, "orphan"))
	}
	return notes
}

// orphansOf counts them by timeline, as far as the report names them.
func orphansOf(rep *archiver.Audit) map[wal.Timeline]int {
	out := map[wal.Timeline]int{}
	for _, o := range rep.Orphans {
		_, base, _ := strings.Cut(o, "/")
		name, _, _ := strings.Cut(base, "-")
		if n, err := wal.ParseName(name, rep.SegmentSize); err == nil {
			out[n.Segment.Timeline]++
		}
	}
	return out
}

// lsnOf reads an LSN of the report; 0 for "".
func lsnOf(s string) wal.LSN {
	l, _ := wal.ParseLSN(s) // "" or what our own code wrote
	return l
}

// at gives where an LSN lies on a scale of n.
func (p picture) at(l wal.LSN, n int) int {
	if l <= p.lo {
		return 0
	}
	return int(float64(l-p.lo) / float64(p.hi-p.lo) * float64(n))
}

// sign is one of the signs that a drawing has, and what it means.
type sign struct{ class, text string }

// signs are those that occur.
func (p picture) signs() []sign {
	out := []sign{{"line", "the line"}}
	var branch, hole, known bool
	for _, r := range p.rows {
		branch = branch || !r.onLine
		for _, m := range r.marks {
			hole, known = hole || !m.known, known || m.known
		}
	}
	if branch {
		out = append(out, sign{"branch", "a branch"})
	}
	if hole {
		out = append(out, sign{"hole", "missing"})
	}
	if known {
		out = append(out, sign{"known", "missing, acknowledged"})
	}
	if len(p.floors) > 0 {
		out = append(out, sign{"floor", "floor: nothing is promised to the left of it"})
	}
	return out
}

// words say what the picture shows.
func (p picture) words() string {
	parts := []string{fmt.Sprintf("%s from %v to %v.", counted(len(p.rows), "timeline"), p.lo, p.hi)}
	for _, r := range p.rows {
		parts = append(parts, r.words()+".")
	}
	return strings.Join(parts, " ")
}

func (r timelineRow) words() string {
	s := fmt.Sprintf("Timeline %d", r.timeline)
	if !r.onLine {
		s += ", a branch"
	}
	if r.fork > 0 {
		s += fmt.Sprintf(", forked at %v", r.fork)
	}
	if r.begin < r.end {
		s += fmt.Sprintf(", up to %v", r.end)
	}
	return s + ": " + strings.Join(r.notes, ", ")
}
