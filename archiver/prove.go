package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// prove completes promise P3 for c, which was read of n and is good in itself: its history explains the timelines on
// its pages, and it fits the segments beside it, so that the CRC of a record that began in the one before is checked too. It
// returns what c is in this light, and l remembers that.
//
// What is joined is what this node has, in pg_wal or set aside. The segment before is read if it never was. One that
// another worker is reading is waited for, but never its upload. One that was archived from here and then recycled
// is remembered, since the archive has the same bytes for ever. Where there is none at all, after a clone say,
// the segment is shipped without: P5 does not wait for proofs that nobody can give, and the deep verify
// joins across the archive. The segment after is joined only if it was read already.
//
// When two segments do not fit, either may be the damaged one: each is complete alone, but a record that lies in both has
// one CRC, and no half of it has its own. If the archive has one of them, it decides, since that content will be
// restored: the other fits it or is damaged. Until then both are held back as damaged and disputed (row
// 9): to ship the wrong one would take its name for ever (P2), while another node's good copy can still take it. That
// is found out again at every try, so what other nodes ship ends the dispute.
func (a *Archiver) prove(ctx context.Context, l *local, n wal.Name, c *content) (*content, error) {
	if n.Kind != wal.KindSegment || c.report.State != wal.Complete || c.proven {
		return c, nil
	}
	d := *c
	d.good, d.state, d.why, d.disputed = true, wal.Complete, "", false
	if err := a.refute(ctx, n.Segment, &d); err != nil {
		return nil, err
	}
	d.proven = d.good
	l.amend(n, c, &d)
	return &d, nil
}

// refute looks for a reason why c is not s.
func (a *Archiver) refute(ctx context.Context, s wal.Segment, c *content) error {
	h, known := a.historyOf(s.Timeline)
	if known && !h.Explains(s, c.report) {
		c.refuse(wal.Foreign, fmt.Sprintf("the timelines on its pages (%d to %d) are not those of %v",
			uint32(c.report.FirstTimeline), uint32(c.report.LastTimeline), wal.HistoryName(s.Timeline)))
		return nil
	}
	joined := c.joint
	for at := s; at.No > 0; {
		at = at.Prev()
		if known {
			at = at.On(h.TimelineAt(at.End() - 1))
		}
		before, err := a.neighbour(ctx, at, true)
		if err != nil {
			return err
		}
		both, err := wal.Join(before.joint, joined)
		if errors.Is(err, wal.ErrApart) {
			break // it is not here, or not whole
		}
		if err != nil {
			fits := func(theirs wal.Joint) error { _, err := wal.Join(theirs, joined); return err }
			if err := a.arbitrate(ctx, before, c, err, fits); err != nil || !c.good {
				return err
			}
			break
		}
		if before.joint.Settled() {
			break
		}
		joined = both
	}
	return a.refuteAfter(ctx, s, c)
}

// refuteAfter joins c with the segment after it, on the timeline that our server has there.
func (a *Archiver) refuteAfter(ctx context.Context, s wal.Segment, c *content) error {
	next := s.Next()
	if own := a.own(a.server()); own.Holds(s) {
		next = next.On(own.TimelineAt(next.End() - 1))
	}
	after, err := a.neighbour(ctx, next, false)
	if err != nil {
		return err
	}
	_, err = wal.Join(c.joint, after.joint)
	if err == nil || errors.Is(err, wal.ErrApart) {
		return nil
	}
	fits := func(theirs wal.Joint) error { _, err := wal.Join(c.joint, theirs); return err }
	return a.arbitrate(ctx, after, c, err, fits)
}

// arbitrate asks the archive which of two segments that do not fit is damaged: c, or its neighbour here.
func (a *Archiver) arbitrate(ctx context.Context, here neighbour, c *content, why error, fits func(wal.Joint) error) error {
	n := wal.SegmentName(here.segment)
	c.refuse(wal.Damaged, fmt.Sprintf("it and %v do not fit: %v", n, why))
	if here.sealed {
		return nil
	}
	if !a.cover.hasAny(n) {
		c.disputed = true
		return nil
	}
	h, r, err := a.open(ctx, a.archive.Key(n))
	if err == nil {
		defer r.Close()
		if h.Digest == here.digest {
			return nil
		}
		k := wal.NewChecker(n.Segment, a.local.systemID)
		if _, err = io.Copy(k, r); err == nil {
			err = fits(k.Joint())
		}
	}
	sealed := errors.Is(err, seal.ErrEncrypted)
	if sealed && h.Digest == here.digest {
		return nil
	}
	var b *wal.Break
	switch {
	case err == nil:
		c.good, c.state, c.why = true, wal.Complete, ""
	case errors.As(err, &b):
	case errors.Is(err, wal.ErrApart), damaged(err): // not whole: an administrator accepted it
		c.disputed = true
	case sealed:
		c.disputed, c.why = true, c.why+fmt.Sprintf("; the archive has another %v, encrypted, so nobody here can tell which of the two is right", n)
	default:
		a.note(err)
		return err
	}
	return nil
}

// unproven says whether a segment is good in itself, and was not held against those beside it.
func (c *content) unproven() bool { return c.good && !c.proven }

// refuse makes c one that is not shipped.
func (c *content) refuse(s wal.State, why string) { c.good, c.state, c.why = false, s, why }

// neighbour is what this node knows of a segment that another is to fit; its joint is zero when that is nothing.
type neighbour struct {
	segment wal.Segment
	joint   wal.Joint
	digest  seal.Digest
	sealed  bool // the archive has this content
}

// neighbour gives what was read of s; with read it is read when it was not. The error is that of ctx: a file that cannot be
// read is as good as gone here, and its own shipping says so.
func (a *Archiver) neighbour(ctx context.Context, s wal.Segment, read bool) (neighbour, error) {
	n := wal.SegmentName(s)
	l := a.source(n)
	for try := 0; try < 3; try++ {
		id, err := l.q.Ident(n)
		if err != nil {
			break
		}
		if c, sealed := l.recall(n, id); c != nil {
			return neighbour{s, c.joint, c.digest, sealed}, nil
		}
		if !read {
			return neighbour{segment: s}, nil
		}
		waited, err := l.awaitRead(ctx, n)
		if err != nil {
			return neighbour{}, err
		}
		if waited {
			continue
		}
		if c, err := l.check(n); err == nil {
			return neighbour{s, c.joint, c.digest, false}, nil
		}
	}
	return neighbour{segment: s, joint: l.archivedJoint(s), sealed: true}, nil
}

// historyOf gives the history of t as pg_wal has it.
func (a *Archiver) historyOf(t wal.Timeline) (wal.History, bool) {
	if t == 1 {
		return wal.History{Timeline: 1}, true
	}
	h, err := a.local.history(t)
	return h, err == nil
}

// amend replaces what was read of n, unless it was read anew.
func (l *local) amend(n wal.Name, old, c *content) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[n]; f != nil && f.read != nil && f.read.ident == old.ident {
		f.read = c
	}
}

// beginRead says that n is being read, until the function it returns is called.
func (l *local) beginRead(n wal.Name) (done func()) {
	ch := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading[n] = ch
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(ch)
		if l.reading[n] == ch {
			delete(l.reading, n)
		}
	}
}

// awaitRead waits while n is being read, and says whether it was.
func (l *local) awaitRead(ctx context.Context, n wal.Name) (bool, error) {
	l.mu.Lock()
	ch := l.reading[n]
	l.mu.Unlock()
	if ch == nil {
		return false, nil
	}
	select {
	case <-ch:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// forget drops a file that is gone. Of one that the archive has, its joint stays for the segment after it: what
// the archive has does not change.
func (l *local) forget(n wal.Name) {
	if f := l.files[n]; f.sealed && f.read != nil && n.Kind == wal.KindSegment {
		l.archived[n.Segment] = f.read.joint
	}
	delete(l.files, n)
}

// tidy drops the joints whose segments after are gone or archived too.
func (l *local) tidy() {
	if len(l.archived) == 0 {
		return
	}
	for s := range l.archived {
		if !l.waits(s.No + 1) {
			delete(l.archived, s)
		}
	}
}

// waits says whether there is a segment with that number that the archive is not known to have. The caller holds mu.
func (l *local) waits(no uint64) bool {
	for f := range l.found.Numbered(no) {
		if e := l.files[f.Name]; !f.Gone && (e == nil || !e.sealed) {
			return true
		}
	}
	return false
}

func (l *local) archivedJoint(s wal.Segment) wal.Joint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.archived[s]
}
