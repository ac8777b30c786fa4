package archiver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// This file finds places on the line for a planner: by commit time, up to the next hole, and where branches left it.

// FloorOn gives the LSN from which on the archive promises the line.
func (a *Archive) FloorOn(line wal.History) wal.LSN {
	var at wal.LSN
	for _, f := range a.Floors() {
		if end, ok := line.End(f.Timeline); ok {
			at = max(at, min(f.LSN, end)) // a floor of what the line left of a timeline may lie higher
		}
	}
	return at
}

// reach gives the end of the last segment up to which the line has no hole, from the one that holds `from` on.
func (p *planner) reach(from wal.LSN) wal.LSN {
	size := p.a.id.SegmentSize
	for s := size.At(p.line.TimelineAt(from), from); ; {
		// The line may leave this timeline inside the segment; the whole of it is on a later one.
		s = s.On(p.line.TimelineAt(s.End() - 1))
		next := p.inv.segments.Next(s.Timeline, s.No)
		if end, _ := p.line.End(s.Timeline); end != wal.MaxLSN {
			next = min(next, uint64(end)/uint64(size))
		}
		if next <= s.No {
			return s.Start()
		}
		s.No = next
	}
}

// lineRun is a run of segments of the line that the archive has.
type lineRun struct {
	first wal.Segment
	n     uint64
}

// runs gives the segments of the line above its floor, oldest first.
func (p *planner) runs() (out []lineRun) {
	size, floor := uint64(p.a.id.SegmentSize), p.a.FloorOn(p.line)
	for _, t := range p.plan.Line {
		begin, _ := p.line.Begin(t)
		end, _ := p.line.End(t)
		lo, hi := uint64(max(begin, floor))/size, uint64(end)/size // [lo, hi): the segment of the fork is the next timeline's
		for _, s := range p.inv.segments.Spans() {
			if s.Timeline != t {
				continue
			}
			if first, last := max(s.First, lo), min(s.Last+1, hi); first < last {
				out = append(out, lineRun{wal.Segment{Timeline: t, Size: p.a.id.SegmentSize, No: first}, last - first})
			}
		}
	}
	return out
}

// lineEnd is the end of the last segment of the line that the archive has, whatever is missing before it.
func (p *planner) lineEnd() wal.LSN {
	end := p.a.FloorOn(p.line)
	for _, s := range p.runs() {
		end = max(end, s.first.Start()+wal.LSN(s.n)*wal.LSN(s.first.Size))
	}
	return end
}

// firstNeeded gives the start of the first segment of the line that has a commit at or after t, else of the last one. Commit times grow along
// the line as the clocks of its primaries did.
func (p *planner) firstNeeded(ctx context.Context, t time.Time) (wal.LSN, error) {
	var at []lineRun
	n := uint64(0)
	for _, s := range p.runs() {
		at = append(at, s)
		n += s.n
	}
	if n == 0 {
		return p.a.FloorOn(p.line), nil
	}
	segment := func(i uint64) wal.Segment {
		for _, s := range at {
			if i < s.n {
				s.first.No += i
				return s.first
			}
			i -= s.n
		}
		return wal.Segment{}
	}
	lo, hi := uint64(0), n-1 // the answer is in [lo, hi]
	for lo < hi {
		mid := lo + (hi-lo)/2
		i := mid
		for ; i < hi; i++ { // a segment without a commit tells nothing
			c, err := p.commitsOf(ctx, segment(i))
			if err != nil {
				return 0, err
			}
			if !c.last.IsZero() {
				if c.last.Before(t) {
					lo = i + 1
				} else {
					hi = mid
				}
				break
			}
		}
		if i == hi && hi != mid { // none between them has one
			hi = mid
		}
	}
	return segment(lo).Start(), nil
}

// looked bounds how far one looks for a commit where nothing depends on finding the very first.
const looked = 32

// commitFrom gives the time of a commit at or soon after an LSN of the line; zero when there is none.
func (p *planner) commitFrom(ctx context.Context, at wal.LSN) (time.Time, error) {
	left := looked
	for _, s := range p.runs() {
		for i := range s.n {
			g := s.first
			if g.No += i; g.Start() < at || left == 0 {
				continue
			}
			left--
			c, err := p.commitsOf(ctx, g)
			if err != nil || !c.first.IsZero() {
				return c.first, err
			}
		}
	}
	return time.Time{}, nil
}

// lastCommit gives the last commit of a timeline, from its newest segments; zero when they have none.
func (p *planner) lastCommit(ctx context.Context, t wal.Timeline) (time.Time, error) {
	left := looked
	spans := p.inv.segments.Spans()
	for _, s := range slices.Backward(spans) {
		if s.Timeline != t {
			continue
		}
		for no := s.Last; no >= s.First && left > 0; no-- {
			left--
			c, err := p.commitsOf(ctx, wal.Segment{Timeline: t, Size: p.a.id.SegmentSize, No: no})
			if err != nil || !c.last.IsZero() || no == 0 {
				return c.last, err
			}
		}
	}
	return time.Time{}, nil
}

// commitsOf reads a segment's header, once.
func (p *planner) commitsOf(ctx context.Context, s wal.Segment) (commitSpan, error) {
	if c, ok := p.commits[s]; ok {
		return c, nil
	}
	h, err := p.a.commits(ctx, wal.SegmentName(s))
	if err != nil {
		return commitSpan{}, err
	}
	c := commitSpan{h.FirstCommit, h.LastCommit}
	p.commits[s] = c
	return c, nil
}

// branches adds the floors of what left the line below `at`: nothing that is kept leads there. ref is a time from which on the line is kept; what
// somebody wrote on a branch after that is no remainder of an earlier life of this cluster, and stays.
func (p *planner) branches(ctx context.Context, at wal.LSN, ref time.Time) error {
	for _, t := range p.timelines() {
		last, ok := p.lastOf(t)
		if !ok || t == p.line.Timeline {
			continue
		}
		left, known := p.departs(t)
		if !known {
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("timeline %d stays as it is: no history says where it comes from", t))
			continue
		}
		f := Floor{Timeline: t, LSN: last, Alone: true}
		if left >= at || belowAny(p.plan.floors)(wal.SegmentName(p.a.id.SegmentSize.Before(t, last))) {
			continue
		}
		c, err := p.lastCommit(ctx, t)
		if err != nil {
			return err
		}
		if !c.IsZero() && !ref.IsZero() && !c.Before(ref) {
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("timeline %d stays as it is: it left the line at %v, below what is kept, and yet has commits up to %s",
				t, left, c.UTC().Format("2006-01-02 15:04:05Z")))
			continue
		}
		p.plan.Raise = append(p.plan.Raise, f)
		p.plan.floors = append(p.plan.floors, f)
	}
	return nil
}

// lastOf gives the end of the last segment that the archive has a file of, on timeline t.
func (p *planner) lastOf(t wal.Timeline) (end wal.LSN, ok bool) {
	for _, set := range []*Set{&p.inv.segments, &p.inv.partials} {
		for _, s := range set.Spans() {
			if s.Timeline == t {
				end, ok = max(end, wal.Segment{Timeline: t, Size: p.a.id.SegmentSize, No: s.Last}.End()), true
			}
		}
	}
	return end, ok
}

// departs gives where timeline t, or the timelines that lead to it, left the line: for one of the line itself that is where the line left it.
func (p *planner) departs(t wal.Timeline) (wal.LSN, bool) {
	if end, ok := p.line.End(t); ok {
		return end, true
	}
	h, ok := p.ancestry(t)
	if !ok {
		return 0, false
	}
	for _, f := range slices.Backward(h.Forks) {
		end, on := p.line.End(f.Timeline)
		if up, ok := upTo(p.line, f.Timeline); on && ok && sameForks(up.Forks, mustUpTo(h, f.Timeline).Forks) {
			return min(end, f.End), true
		}
	}
	return 0, false
}

func mustUpTo(h wal.History, t wal.Timeline) wal.History {
	up, _ := upTo(h, t)
	return up
}

// noteHole tells of a hole of the line above what is kept: moments behind it need a backup from behind it.
func (p *planner) noteHole(at wal.LSN) {
	if got, end := p.reach(at), p.lineEnd(); got < end && at < end {
		p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("the line has a hole at %v: nothing behind it can be restored from a backup before it", got))
	}
}
