package archiver

import (
	"fmt"
	"maps"
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
)

// ancestry is the history of t: its own, or what a descendant's says of it.
func (x *auditor) ancestry(t wal.Timeline) (wal.History, bool) {
	if h, ok := x.histories[t]; ok {
		return h, true
	}
	for _, u := range slices.Sorted(maps.Keys(x.histories)) {
		if h, ok := upTo(x.histories[u], t); ok {
			return h, true
		}
	}
	return wal.History{Timeline: t}, t == x.a.id.Floor.Timeline
}

// upTo cuts a history at one of its timelines.
func upTo(h wal.History, t wal.Timeline) (wal.History, bool) {
	if h.Timeline == t {
		return h, true
	}
	for i, f := range h.Forks {
		if f.Timeline == t {
			return wal.History{Timeline: t, Forks: h.Forks[:i]}, true
		}
	}
	return wal.History{}, false
}

// sameForks compares what happened; the reasons are people's words.
func sameForks(a, b []wal.Fork) bool {
	return slices.EqualFunc(a, b, func(x, y wal.Fork) bool { return x.Timeline == y.Timeline && x.End == y.End })
}

// dropForeign takes out histories that the others, or the segments, contradict. A history repeats that of its
// parent (timeline.c), so two that name the same timeline must agree on how the line came to it.
func (x *auditor) dropForeign() {
	for {
		bad, why := x.mostContradicted()
		if bad == 0 {
			break
		}
		x.fault(ProblemForeignHistory, wal.HistoryName(bad), why)
		delete(x.histories, bad)
	}
	for _, t := range slices.Sorted(maps.Keys(x.histories)) {
		if first, begin, ok := x.early(x.histories[t]); ok {
			x.fault(ProblemForeignHistory, wal.HistoryName(t), fmt.Sprintf("it says that timeline %d began at %v, and the archive has its segment %s from before", t, begin, first))
			delete(x.histories, t)
		}
	}
}

// early gives a segment that lies wholly before the beginning of its timeline, as h says it.
func (x *auditor) early(h wal.History) (wal.Segment, wal.LSN, bool) {
	begin, _ := h.Begin(h.Timeline)
	t := x.inv.timelines[h.Timeline]
	if t == nil || t.segments == 0 || t.first.End() > begin {
		return wal.Segment{}, 0, false
	}
	return t.first, begin, true
}

// mostContradicted gives the history that disagrees with most others; among equals one that the segments
// contradict too, then the later one. 0 when all agree.
func (x *auditor) mostContradicted() (wal.Timeline, string) {
	against := map[wal.Timeline]int{}
	why := map[wal.Timeline]string{}
	all := slices.Sorted(maps.Keys(x.histories))
	for i, t := range all {
		for _, u := range all[i+1:] {
			shared, ok := contradict(x.histories[t], x.histories[u])
			if !ok {
				continue
			}
			for _, pair := range [][2]wal.Timeline{{t, u}, {u, t}} {
				against[pair[0]] += 2
				if why[pair[0]] == "" {
					why[pair[0]] = fmt.Sprintf("it and %s disagree on how timeline %d began", wal.HistoryName(pair[1]), shared)
				}
			}
			// One vote is the segments': where the timeline in question really began.
			for _, v := range []wal.Timeline{t, u} {
				if h, _ := upTo(x.histories[v], shared); x.offBeginning(h) {
					against[v]++
				}
			}
		}
	}
	worst := wal.Timeline(0)
	for _, t := range all {
		if against[t] > 0 && (worst == 0 || against[t] >= against[worst]) {
			worst = t
		}
	}
	return worst, why[worst]
}

// offBeginning says whether the first segment of a timeline is not where h says that it began.
func (x *auditor) offBeginning(h wal.History) bool {
	t := x.inv.timelines[h.Timeline]
	if t == nil || t.segments == 0 || len(h.Forks) == 0 {
		return false
	}
	return x.a.id.SegmentSize.At(h.Timeline, h.Forks[len(h.Forks)-1].End) != t.first
}

// contradict gives the first timeline that both name and to which they come by different ways.
func contradict(a, b wal.History) (wal.Timeline, bool) {
	// Where they agree on a timeline they agree on all before it, so mostly one look is enough.
	var differ wal.Timeline
	for i := len(a.Forks); i >= 0; i-- {
		t := a.Timeline
		if i < len(a.Forks) {
			t = a.Forks[i].Timeline
		}
		h, ok := upTo(b, t)
		if ok && sameForks(a.Forks[:i], h.Forks) {
			break
		}
		if ok {
			differ = t
		}
	}
	return differ, differ != 0
}

// chooseLine gives the line: the newest timeline that has WAL and is known to descend from somewhere. A history
// alone makes no line, a test restore may have written it.
func (x *auditor) chooseLine() wal.History {
	switch {
	case x.o.History.Timeline != 0:
		return x.o.History
	case x.o.Line != 0:
		h, _ := x.ancestry(x.o.Line)
		return h
	}
	line, _ := x.ancestry(x.a.id.Floor.Timeline)
	for _, t := range x.timelines() {
		if h, ok := x.ancestry(t); ok && t > line.Timeline && x.inv.hasWAL(t) {
			line = h
		}
	}
	return line
}

// timelines are all that have files or are named by a history that is believed.
func (x *auditor) timelines() []wal.Timeline {
	all := map[wal.Timeline]bool{}
	for t := range x.inv.timelines {
		all[t] = true
	}
	for t, h := range x.histories {
		all[t] = true
		for _, f := range h.Forks {
			all[f.Timeline] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// floorOn gives the number of the first segment of t that a floor promises, and whether one does.
func (x *auditor) floorOn(t wal.Timeline) (uint64, bool) {
	no, ok := uint64(0), false
	for _, f := range x.a.Floors() {
		if f.Timeline == t || slices.Contains(f.Ancestors, t) {
			no, ok = max(no, uint64(f.LSN)/uint64(x.a.id.SegmentSize)), true
		}
	}
	return no, ok
}

// expected gives the segments that t must have: [lo, hi). It begins where the timeline or the floor does, and
// goes to the last one that is there, or to the last full one before a fork that a history tells of.
func (x *auditor) expected(t wal.Timeline) (lo, hi uint64) {
	size := uint64(x.a.id.SegmentSize)
	has := x.inv.timelines[t]
	h, _ := x.ancestry(t)
	floor, floored := x.floorOn(t)
	switch {
	case len(h.Forks) > 0:
		lo = uint64(h.Forks[len(h.Forks)-1].End) / size
	case !floored && has != nil && has.segments > 0:
		lo = has.first.No // nothing says where it began
	}
	lo = max(lo, floor, x.since())
	if has != nil && has.segments > 0 {
		hi = has.last.No + 1
	}
	if !floored && len(h.Forks) == 0 {
		return lo, max(lo, hi)
	}
	for _, u := range x.histories {
		if end, ok := u.End(t); ok && end != wal.MaxLSN {
			hi = max(hi, uint64(end)/size)
		}
	}
	for _, p := range x.inv.partials.Spans() {
		if p.Timeline == t {
			hi = max(hi, p.Last)
		}
	}
	return lo, max(lo, hi)
}

// holes gives the runs of segments that are missing, by timeline and number. What lies below a floor is none, nor is what the line left and
// orphans/ has: a primary that died had shipped what lies behind it before anybody knew that the line would go elsewhere.
func (x *auditor) holes() []Span {
	var out []Span
	for _, t := range x.timelines() {
		lo, hi := x.expected(t)
		if lo == hi {
			continue
		}
		all := SetOf(Span{t, lo, hi - 1})
		all = all.Minus(x.inv.segments)
		for _, p := range slices.Clone(all.Spans()) {
			for no := p.First; no <= p.Last; no++ {
				if s := (wal.Segment{Timeline: t, Size: x.a.id.SegmentSize, No: no}); !x.line.Holds(s) && x.orphaned.Has(s) {
					all.Remove(s)
				}
			}
		}
		out = append(out, all.Spans()...)
	}
	return out
}

func (x *auditor) describeHole(p Span) Problem {
	size := x.a.id.SegmentSize
	first, last := wal.Segment{Timeline: p.Timeline, Size: size, No: p.First}, wal.Segment{Timeline: p.Timeline, Size: size, No: p.Last}
	n := p.Last - p.First + 1
	out := Problem{Kind: ProblemHole, Name: first.String(), Timeline: p.Timeline, From: first.String(), To: last.String(), Count: n, Hint: faultHint(ProblemHole)}
	files := first.String() + " is missing"
	if n > 1 {
		files = fmt.Sprintf("%d segments are missing, %s to %s", n, first, last)
	}
	h, _ := x.ancestry(p.Timeline)
	if k := len(h.Forks); k > 0 && uint64(h.Forks[k-1].End)/uint64(size) == p.First {
		out.Kind = ProblemForkHole
		out.Why = fmt.Sprintf("%s: timeline %d left timeline %d there, at %v", files, p.Timeline, h.Forks[k-1].Timeline, h.Forks[k-1].End)
		return x.offLine(out, first, last)
	}
	for _, u := range slices.Sorted(maps.Keys(x.histories)) {
		if end, ok := x.histories[u].End(p.Timeline); ok && end != wal.MaxLSN && uint64(end)/uint64(size) == p.Last+1 {
			out.Kind = ProblemForkHole
			out.Why = fmt.Sprintf("%s: they are the last before timeline %d ended, at %v, on the way to timeline %d", files, p.Timeline, end, u)
			return x.offLine(out, first, last)
		}
	}
	out.Why = files
	return x.offLine(out, first, last)
}

func (x *auditor) offLine(p Problem, first, last wal.Segment) Problem {
	if !x.line.Holds(first) && !x.line.Holds(last) {
		p.Why += " (not on the line)"
	}
	return p
}

// missingHistories names timeline numbers that have no history, and says of which somebody knows.
func (x *auditor) missingHistories() {
	for _, r := range x.missingRanges() {
		for _, part := range x.acks.splitHistories(r[0], r[1]) {
			p := x.describeMissing(wal.Timeline(part.First), wal.Timeline(part.Last))
			p.Acknowledged = part.by
			x.problem(p)
		}
	}
}

// lacksHistory says whether any is missing.
func (x *auditor) lacksHistory() bool { return len(x.missingRanges()) > 0 }

// missingRanges gives the runs of timeline numbers above the first floor's and up to the highest known one that have no history:
// recovery looks for one number after the other, and stops at the first that is absent (xlogrecovery.c).
func (x *auditor) missingRanges() (out [][2]wal.Timeline) {
	known := slices.Sorted(maps.Keys(x.present))
	all := append(x.timelines(), known...)
	if len(all) == 0 {
		return nil
	}
	next := uint64(x.a.id.Floor.Timeline) + 1
	for _, t := range known {
		if uint64(t) > next {
			out = append(out, [2]wal.Timeline{wal.Timeline(next), t - 1})
		}
		next = max(next, uint64(t)+1)
	}
	if highest := slices.Max(all); uint64(highest) >= next {
		out = append(out, [2]wal.Timeline{wal.Timeline(next), highest})
	}
	return out
}

func (x *auditor) describeMissing(from, to wal.Timeline) Problem {
	p := Problem{Kind: ProblemMissingHistory, Name: wal.HistoryName(from).String(), Timeline: from, Hint: faultHint(ProblemMissingHistory)}
	why := "is missing"
	if to > from {
		p.From, p.To, p.Count = p.Name, wal.HistoryName(to).String(), uint64(to-from)+1
		why = fmt.Sprintf("and those up to %s are missing", p.To)
	}
	p.Why = why + ": recovery that follows the newest timeline stops looking there"
	if x.inv.hasWAL(from) {
		p.Why = why + ", and the timeline has segments: recovery that follows the newest timeline does not find them"
	}
	return p
}

// noteIdleHistories tells of histories that recovery would follow although the archive has no WAL of them.
func (x *auditor) noteIdleHistories() {
	for _, t := range slices.Sorted(maps.Keys(x.histories)) {
		if t > x.line.Timeline && !x.inv.hasWAL(t) {
			x.rep.Notes = append(x.rep.Notes, fmt.Sprintf("timeline %d has a history and no WAL yet: recovery to the newest timeline follows it; "+
				"if a test restore wrote it, set recovery_target_timeline = '%d'", t, x.line.Timeline))
		}
	}
}

// frontier follows the line from its floor until the first segment that is missing or cannot be used.
func (x *auditor) frontier() wal.LSN {
	size := x.a.id.SegmentSize
	from := x.a.FloorOn(x.line)
	good := x.inv.segments.Minus(x.bad)
	s := size.At(x.line.TimelineAt(from), from)
	for {
		if !x.line.Holds(s) {
			// The line leaves this timeline inside the segment; the whole of it is on a later one.
			t := x.line.TimelineAt(s.End() - 1)
			if t == s.Timeline {
				return max(from, s.Start())
			}
			s = s.On(t)
			continue
		}
		next := good.Next(s.Timeline, s.No)
		if end, _ := x.line.End(s.Timeline); end != wal.MaxLSN {
			next = min(next, uint64(end)/uint64(size))
		}
		if next <= s.No {
			return max(from, s.Start())
		}
		s.No = next
	}
}

func (x *auditor) describe(t wal.Timeline, missing int) AuditTimeline {
	out := AuditTimeline{Timeline: t, History: x.present[t], Missing: missing}
	h, _ := x.ancestry(t)
	if k := len(h.Forks); k > 0 {
		out.Parent, out.Fork = h.Forks[k-1].Timeline, h.Forks[k-1].End.String()
	}
	_, out.OnLine = x.line.End(t)
	has := x.inv.timelines[t]
	if has == nil {
		return out
	}
	out.Segments, out.Partials, out.Backups, out.Bytes = has.segments, has.partials, has.backups, has.bytes
	if has.segments > 0 {
		out.First, out.Last = has.first.String(), has.last.String()
		out.Begin, out.End = has.first.Start().String(), has.last.End().String()
	}
	return out
}
