package archiver

import (
	"context"
	"errors"
	"io"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/wal"
)

// chainLength is how many segments one worker reads in a row, from a multiple of it on. Records run over the ends of segments, so each
// chain also reads the segment before its first: 3 % more, and no record stays unchecked.
const chainLength = 32

// readSegments opens every segment and .partial that is not older than the part that is looked at, a block of segments at a time.
func (x *auditor) readSegments(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(x.o.Workers)
	for pieces := range x.blocks() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return x.readBlock(ctx, pieces) })
	}
	for _, p := range x.inv.partials.Spans() {
		for no := max(p.First, x.since()); no <= p.Last && ctx.Err() == nil; no++ {
			n := wal.Name{Kind: wal.KindPartial, Segment: wal.Segment{Timeline: p.Timeline, Size: x.a.id.SegmentSize, No: no}}
			g.Go(func() error {
				_, opened, err := x.openWAL(ctx, n)
				x.looked(err == nil || opened)
				return x.judgeObject(n, err, opened)
			})
		}
	}
	return g.Wait()
}

// blocks gives the segments of each block: one span, or more where some are missing between.
func (x *auditor) blocks() iter.Seq[[]Span] {
	return func(yield func([]Span) bool) {
		var pieces []Span
		for _, p := range x.inv.segments.Spans() {
			for no := max(p.First, x.since()); no <= p.Last; {
				end := min(p.Last, no/chainLength*chainLength+chainLength-1)
				if k := len(pieces); k > 0 && (pieces[k-1].Timeline != p.Timeline || pieces[k-1].Last/chainLength != no/chainLength) {
					if !yield(pieces) {
						return
					}
					pieces = nil
				}
				pieces = append(pieces, Span{p.Timeline, no, end})
				no = end + 1
			}
		}
		if len(pieces) > 0 {
			yield(pieces)
		}
	}
}

// readBlock checks the segments of one block, unless they are known to be good.
func (x *auditor) readBlock(ctx context.Context, pieces []Span) error {
	segment := func(p Span) wal.Segment {
		return wal.Segment{Timeline: p.Timeline, Size: x.a.id.SegmentSize, No: p.First}
	}
	var b AuditBlock
	if x.o.Memory != nil {
		if b = x.print(segment(pieces[0])); x.o.Memory.Known(b) {
			for _, p := range pieces {
				x.remembered(int(p.Last - p.First + 1))
			}
			return nil
		}
	}
	good := true
	for _, p := range pieces {
		ok, err := x.readChain(ctx, segment(p), p.Last-p.First+1)
		if err != nil {
			return err
		}
		good = good && ok
	}
	if !good || x.o.Memory == nil {
		return nil
	}
	return x.o.Memory.Good(b)
}

// remembered counts objects that need not be opened again.
func (x *auditor) remembered(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all -= n
	x.rep.Count.Remembered += n
}

// readChain checks n segments in a row, and that each fits the one before it. It says whether all of that was good.
func (x *auditor) readChain(ctx context.Context, first wal.Segment, n uint64) (good bool, err error) {
	good = true
	before := x.readBefore(ctx, first)
	for s := first; s.No < first.No+n; s = s.Next() {
		name := wal.SegmentName(s)
		j, opened, err := x.openWAL(ctx, name)
		x.looked(err == nil || opened)
		if err == nil {
			before, err = joinWAL(before, j)
		} else {
			before = wal.Joint{}
		}
		good = good && err == nil
		if err := x.judgeObject(name, err, opened); err != nil {
			return false, err
		}
	}
	return good, nil
}

// readBefore reads what a chain needs of the segments before it: one, or more when a record runs through it. Their own
// chain reports what is wrong with them.
func (x *auditor) readBefore(ctx context.Context, first wal.Segment) (before wal.Joint) {
	for s := first; !before.Settled(); {
		p, ok := x.predecessor(s)
		if !ok {
			break
		}
		j, _, err := x.openWAL(ctx, wal.SegmentName(p))
		if err == nil && s != first {
			j, err = wal.Join(j, before)
		}
		if err != nil {
			break
		}
		before, s = j, p
	}
	return before
}

// joinWAL proves that j follows before, and returns what the two leave open.
func joinWAL(before, j wal.Joint) (wal.Joint, error) {
	both, err := wal.Join(before, j)
	switch {
	case errors.Is(err, wal.ErrApart):
		return j, nil
	case err != nil:
		return j, wrong(errBadWAL, "its WAL does not fit the segment before: %v", err)
	}
	return both, nil
}

// predecessor is the segment whose WAL runs on into s: on the same timeline, or on the one that s's began from.
func (x *auditor) predecessor(s wal.Segment) (wal.Segment, bool) {
	if s.No == 0 {
		return s, false
	}
	p := s.Prev()
	if x.inv.segments.Has(p) {
		return p, true
	}
	h, _ := x.ancestry(s.Timeline)
	if p = p.On(h.TimelineAt(p.End() - 1)); h.Holds(p) && x.inv.segments.Has(p) {
		return p, true
	}
	return s, false
}

// openWAL reads a segment or .partial to its end. opened is false when its header was not in order.
func (x *auditor) openWAL(ctx context.Context, n wal.Name) (j wal.Joint, opened bool, err error) {
	h, r, err := x.open(ctx, n)
	if err != nil {
		return j, h.Name != "", err
	}
	defer r.Close()
	if err := checkHeader(h, n, x.a.id.SystemID, x.a.id.SegmentSize); err != nil {
		return j, false, err
	}
	c := wal.NewChecker(n.Segment, x.a.id.SystemID)
	if _, err := io.CopyBuffer(c, struct{ io.Reader }{r}, make([]byte, 1<<17)); err != nil {
		return j, true, err
	}
	return c.Joint(), true, x.judgeWAL(n, c.Report())
}

// judgeWAL says what is wrong with WAL that is what was once sealed.
func (x *auditor) judgeWAL(n wal.Name, rep wal.Report) error {
	h, known := x.histories[n.Segment.Timeline]
	switch {
	case rep.State == wal.Foreign:
		return wrong(errOtherFile, "it is not that segment: %s", rep.Why)
	case n.Kind == wal.KindPartial:
		// Good up to where a child began; what follows is what the disk held.
		if end, ok := x.endOf(n.Segment); ok && rep.End < end && rep.State != wal.Complete {
			return wrong(errBadWAL, "its WAL ends at %v, before its timeline did, at %v: %s", rep.End, end, rep.Why)
		}
		return nil
	case rep.State != wal.Complete:
		return wrong(errBadWAL, "its WAL is %s, good up to %v: %s", rep.State, rep.End, rep.Why)
	case known && !h.Explains(n.Segment, rep):
		return wrong(errBadWAL, "the timelines on its pages (%d to %d) are not those of %s", rep.FirstTimeline, rep.LastTimeline, wal.HistoryName(n.Segment.Timeline))
	}
	return nil
}

// endOf gives the earliest place inside s where a history leaves its timeline.
func (x *auditor) endOf(s wal.Segment) (wal.LSN, bool) {
	at, ok := wal.MaxLSN, false
	for _, h := range x.histories {
		if end, has := h.End(s.Timeline); has && end > s.Start() && end < s.End() && end < at {
			at, ok = end, true
		}
	}
	return at, ok
}

// openLabel reads a .backup to its end.
func (x *auditor) openLabel(ctx context.Context, n wal.Name) error {
	opened := false
	err := func() error {
		h, r, err := x.open(ctx, n)
		if err != nil {
			return err
		}
		defer r.Close()
		opened = true
		if err := checkHeader(h, n, x.a.id.SystemID, x.a.id.SegmentSize); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}()
	x.looked(true)
	return x.judgeObject(n, err, opened)
}
