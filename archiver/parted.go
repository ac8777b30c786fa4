package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is about two servers that write one timeline: what the archive has of it is to be one server's. A server that a person
// started as a primary without a promotion shares the beginning with the first one, so equal segments prove nothing about later ones.

// parted says whether an earlier segment of n's timeline is whole here, is another one than the archive's, and nobody
// decided about that: n follows on ours, and the archive has theirs.
func (a *Archiver) parted(n wal.Name) bool {
	if n.Kind != wal.KindSegment {
		return false
	}
	a.mu.Lock()
	var earlier []copyOf
	for m, d := range a.differ {
		if m.Segment.Timeline == n.Segment.Timeline && m.Segment.No < n.Segment.No {
			earlier = append(earlier, copyOf{m.String(), d})
		}
	}
	a.mu.Unlock()
	for _, e := range earlier {
		m, err := wal.ParseName(e.name, n.Segment.Size)
		if err != nil || a.decisions.of(e).KeepArchive {
			continue
		}
		id, err := a.local.q.Ident(m)
		if c, _ := a.local.recall(m, id); err == nil && c != nil && c.digest == e.digest {
			return true
		}
	}
	return false
}

// parts notes that our copy of n, which is whole, is another one than the archive's.
func (a *Archiver) parts(n wal.Name, c *content) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.differ[n] = c.digest
}

// follows compares the segment before n, when the archive has one of its name and ours was never held against it: what the
// archive gets is to go on with what it has.
func (a *Archiver) follows(ctx context.Context, n wal.Name) error {
	if n.Kind != wal.KindSegment || n.Segment.No == 0 || a.source(n) != a.local || !mayPut(a.request(n, a.scope.Last())).ok {
		return nil
	}
	m := wal.SegmentName(n.Segment.Prev())
	if !a.cover.has(m) {
		return nil
	}
	id, err := a.local.q.Ident(m)
	if err != nil {
		return nil // it is not here
	}
	if _, sealed := a.local.recall(m, id); sealed {
		return nil
	}
	c, err := a.local.check(m)
	if err != nil || !c.good {
		return nil
	}
	same, err := a.compare(ctx, a.local, m, c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || same {
		return err
	}
	contrast, err := a.contrast(ctx, m, c)
	if err != nil || contrast != BothWhole || a.decisions.of(copyOf{m.String(), c.digest}).KeepArchive {
		return err
	}
	a.parts(m, c)
	a.alarm("6c", m, "the archive has another segment of this name, and what follows on ours is not shipped")
	return fmt.Errorf("%w: %v of ours is another one than the archive's (row 6c)", errNotOurs, m)
}
