package archiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// contrast fetches the archive's copy of a segment that has another digest than ours.
func (a *Archiver) contrast(ctx context.Context, n wal.Name, ours *content) (Contrast, error) {
	ours, err := a.prove(ctx, a.local, n, ours)
	if err != nil {
		return NotCompared, err
	}
	_, r, err := a.openOther(ctx, n, ours.digest)
	if errors.Is(err, seal.ErrEncrypted) {
		return a.contrastSealed(ctx, n, ours)
	}
	var theirs wal.Report
	if err == nil {
		defer r.Close()
		theirs, err = wal.Check(r, n.Segment, a.local.systemID)
	}
	if err != nil && !damaged(err) {
		a.note(err)
		return NotCompared, err
	}
	whole := ours.good || ours.disputed
	switch {
	case damaged(err) || theirs.State != wal.Complete:
		if whole {
			return TheirsDamaged, nil
		}
		return NotCompared, nil // neither is known to hold: not for us to let go of ours (P1)
	case ours.state == wal.Damaged && ours.report.State == wal.Damaged:
		return TheirsHolds, nil
	case whole:
		return BothWhole, nil
	case ours.state == wal.Damaged:
		same, err := a.sameRecords(ctx, n, ours)
		switch {
		case err != nil:
			return NotCompared, err
		case same:
			return TheirsHolds, nil
		}
		return BothWhole, nil
	}
	same, err := a.sameBetween(ctx, n, ours.digest, n.Segment.Start(), ours.end)
	if err != nil || !same {
		return NotCompared, err
	}
	return TheirsHolds, nil
}

// sameRecords says whether the archive's copy has the records that lie wholly in ours, which is complete and does not fit the segment beside it: if
// so a record that lies in both is damaged, else ours is another server's.
func (a *Archiver) sameRecords(ctx context.Context, n wal.Name, c *content) (bool, error) {
	ours := c.report
	from, to := ours.First, ours.End
	if ours.Continues {
		to = ours.Last
	}
	if from == 0 || from >= to {
		return false, nil
	}
	return a.sameBetween(ctx, n, c.digest, from, to)
}

// sameBetween says whether our copy of n and the archive's are the same bytes from one LSN to another.
func (a *Archiver) sameBetween(ctx context.Context, n wal.Name, ours seal.Digest, from, to wal.LSN) (bool, error) {
	f, _, err := a.local.q.Open(n)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, r, err := a.openOther(ctx, n, ours)
	if err != nil {
		return false, err
	}
	defer r.Close()
	for _, r := range []io.Reader{f, r} {
		if _, err := io.CopyN(io.Discard, r, int64(from-n.Segment.Start())); err != nil && err != io.EOF {
			return false, fmt.Errorf("compare %v: %w", n, err)
		}
	}
	return equalUpTo(f, r, int64(to-from))
}

// freshen reads the leader for this call, at most once a second, and places the file on the line.
func (c *Call) freshen(ctx context.Context, f *Facts) {
	a := c.a
	if now := a.o.Now(); now.Sub(c.fresh) >= time.Second {
		c.fresh = now
		got, err := a.scope.Read(ctx)
		c.cluster, c.isFresh = got, err == nil && got.Leader != "" && got.Line.Timeline != 0
	}
	if !c.isFresh {
		f.Place = PlaceUnknown
		return
	}
	t := c.n.Segment.Timeline
	f.Fresh, f.Place = true, c.cluster.PlaceOf(c.n.Segment)
	if f.Place == OnBranch && a.ahead(c.cluster, t, f.Waited) && !a.isApart(t) {
		f.Fresh, f.Place = false, PlaceUnknown
		return
	}
	if fork, ok := c.cluster.Line.End(t); ok {
		f.OnHistory = c.n.Kind != wal.KindHistory || a.ledHere(t, c.cluster.Line)
		if fork != wal.MaxLSN {
			f.Fork = fork
			f.ChildKept = a.childKept(ctx, c.n.Segment, c.cluster.Line, fork)
		}
	}
}

// ledHere says whether our history of t is the one that the line has: two servers can have been promoted to one number,
// and the dead one's history tells of another fork. What cannot be read counts as the line's: a person is to look at it.
func (a *Archiver) ledHere(t wal.Timeline, line wal.History) bool {
	ours, err := a.local.history(t)
	if err != nil {
		return true
	}
	for _, f := range ours.Forks {
		if end, ok := line.End(f.Timeline); !ok || end != f.End {
			return false
		}
	}
	return true
}

// ahead says whether t may be the timeline that the leader has just begun: it is above the last one
// known of the leader, whose record and member key come a moment after its promotion. To a server
// that is on t now it may be so for as long as it is; to others only for the first while of a call.
func (a *Archiver) ahead(c Cluster, t wal.Timeline, waited time.Duration) bool {
	if t <= c.Line.Timeline {
		return false
	}
	srv := a.server()
	return srv.State.Running() && srv.Timeline == t || waited < promotionLag
}

// childKept says whether what s holds up to the fork is in the archive under another name: its
// .partial, or the first segment of the timeline that forked off inside it.
func (a *Archiver) childKept(ctx context.Context, s wal.Segment, line wal.History, fork wal.LSN) bool {
	if fork < s.Start() || fork > s.End() {
		return fork < s.Start() // it lies behind the fork, nothing of it is on the line
	}
	child := s.On(line.TimelineAt(fork))
	for _, n := range []wal.Name{{Kind: wal.KindPartial, Segment: s}, wal.SegmentName(child)} {
		if a.keptIn(ctx, n) {
			return true
		}
	}
	return false
}

// equalUpTo compares the first n bytes of two readers.
func equalUpTo(x, y io.Reader, n int64) (bool, error) {
	bx, by := bufio.NewReaderSize(io.LimitReader(x, n), 1<<16), bufio.NewReaderSize(io.LimitReader(y, n), 1<<16)
	var cx, cy [1 << 14]byte
	for {
		kx, ex := io.ReadFull(bx, cx[:])
		ky, ey := io.ReadFull(by, cy[:])
		if !bytes.Equal(cx[:kx], cy[:ky]) {
			return false, nil
		}
		if ex != nil || ey != nil {
			for _, err := range []error{ex, ey} {
				if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
					return false, err
				}
			}
			return kx == ky, nil
		}
	}
}
