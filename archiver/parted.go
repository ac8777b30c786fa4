package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is about two servers that write one timeline: what the archive has of it is to be one server's. A server that a person
// started as a primary without a promotion shares the beginning with the first one, so equal segments prove nothing about later ones.

// parted says whether some segment of n's timeline is whole here, is another one than the archive's, and nobody decided about that. Where that is an
// earlier one, n follows on ours, and the archive has theirs.
func (a *Archiver) parted(n wal.Name) (earlier, some bool) {
	if n.Kind != wal.KindSegment {
		return false, false
	}
	first, ok := a.partedAt(n.Segment.Timeline)
	return ok && first < n.Segment.No, ok
}

// partedAt gives the number of the first such segment of t.
func (a *Archiver) partedAt(t wal.Timeline) (first uint64, ok bool) {
	type part struct {
		name wal.Name
		copy copyOf
	}
	var parts []part
	a.mu.Lock()
	for m, d := range a.differ {
		if m.Segment.Timeline == t {
			parts = append(parts, part{m, copyOf{m.String(), d.digest}})
		}
	}
	a.mu.Unlock()
	for _, p := range parts {
		if ok && p.name.Segment.No > first || a.decisions.of(p.copy).KeepArchive {
			continue
		}
		id, err := a.local.q.Ident(p.name)
		if c, _ := a.local.recall(p.name, id); err == nil && c != nil && c.digest == p.copy.digest {
			first, ok = p.name.Segment.No, true
		}
	}
	return first, ok
}

// difference is a segment of ours that is another one than the archive's.
type difference struct {
	digest seal.Digest // of ours
	sure   bool        // both are whole; else the archive's was not looked at yet
}

// parts notes that our copy of n, which is whole, is another one than the archive's.
func (a *Archiver) parts(n wal.Name, d difference) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.differ[n] = d
}

// differs looks at once at the archive's copy of n, which is another one than ours: what follows on ours is not to be put meanwhile.
func (a *Archiver) differs(ctx context.Context, l *local, n wal.Name, c *content) error {
	if l != a.local || n.Kind != wal.KindSegment || !c.good {
		return errDiffers
	}
	d := difference{digest: c.digest, sure: true}
	a.mu.Lock()
	known := a.differ[n] == d
	a.mu.Unlock()
	if known {
		return errDiffers
	}
	a.parts(n, difference{digest: c.digest})
	contrast, err := a.contrast(ctx, n, c)
	switch {
	case err != nil:
		return err
	case contrast == BothWhole:
		a.parts(n, d)
	default:
		a.mu.Lock()
		delete(a.differ, n)
		a.mu.Unlock()
	}
	return errDiffers
}

// follows compares the last segment before n that the archive has a name of, when ours was never held against it: what the archive gets is to
// go on with what it has. That need not be the one next to n, for the workers put several at a time. Where our server does not speak for the timeline, the
// first one after n is compared as well: n may be the place where two servers part.
func (a *Archiver) follows(ctx context.Context, n wal.Name) error {
	if n.Kind != wal.KindSegment || a.source(n) != a.local {
		return nil
	}
	r := a.request(n, a.scope.Last())
	if !mayPut(r).ok {
		return nil
	}
	if _, err := a.goesOn(ctx, n); err != nil || r.speaksFor(n.Segment.Timeline) {
		return err
	}
	m, sealed := a.held(a.cover.after(n.Segment, a.reached()))
	if sealed || m == (wal.Name{}) {
		return nil
	}
	_, err := a.holdAgainst(ctx, m)
	return err
}

// goesOn makes that comparison, and says whether it told that they are equal: nothing is told where the archive has no such
// segment, or ours is not here or not good.
func (a *Archiver) goesOn(ctx context.Context, n wal.Name) (told bool, err error) {
	m, sealed := a.heldBefore(n)
	if sealed || m == (wal.Name{}) {
		return sealed, nil
	}
	return a.holdAgainst(ctx, m)
}

// holdAgainst compares our copy of m with the archive's, and says whether it told that they are equal.
func (a *Archiver) holdAgainst(ctx context.Context, m wal.Name) (told bool, err error) {
	c, err := a.local.check(m)
	if err != nil || !c.good {
		return false, nil
	}
	same, err := a.matches(ctx, a.local, m, c)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || same {
		return same, err
	}
	contrast, err := a.contrast(ctx, m, c)
	if err != nil || contrast != BothWhole || a.decisions.of(copyOf{m.String(), c.digest}).KeepArchive {
		return false, err
	}
	a.parts(m, difference{c.digest, true})
	a.alarm("6c", m, "the archive has another segment of this name, and ours beside it are not shipped")
	return false, fmt.Errorf("%w: %v of ours is another one than the archive's (row 6c)", errNotOurs, m)
}

// heldBefore gives the last segment before n that the archive has a name of, or none when that is not in pg_wal; sealed says
// that ours is known to be equal.
func (a *Archiver) heldBefore(n wal.Name) (m wal.Name, sealed bool) {
	return a.held(a.cover.before(n.Segment, a.reached()))
}

// held gives the name of a segment that the archive has, if there is one, or none when it is not in pg_wal.
func (a *Archiver) held(s wal.Segment, ok bool) (m wal.Name, sealed bool) {
	if !ok {
		return wal.Name{}, false
	}
	m = wal.SegmentName(s)
	id, err := a.local.q.Ident(m)
	if err != nil {
		return wal.Name{}, false
	}
	_, sealed = a.local.recall(m, id)
	return m, sealed
}
