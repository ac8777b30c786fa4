package archiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// orphan keeps the copy of n that l has in orphans/, whatever it is: WAL that the line left is somebody's
// committed data until a person says otherwise.
func (a *Archiver) orphan(ctx context.Context, l *local, n wal.Name) error {
	c, packed, err := l.load(n, a.sealer)
	if err != nil {
		return err
	}
	defer packed.Close()
	a.mu.Lock()
	done := a.orphaned[n] == c.digest
	a.mu.Unlock()
	if done {
		return nil
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return fmt.Errorf("seal %v: %w", n, err)
	}
	defer sealed.Close()
	key := a.archive.OrphanKey(a.o.Member, n, c.digest)
	err = a.archive.Put(ctx, key, sealed)
	if errors.Is(err, fs.ErrExist) {
		// The digest is part of the key; the header says whether the object is whole enough to be read.
		var h seal.Header
		if h, err = a.archive.Header(ctx, key); err == nil && h.Digest != c.digest {
			err = fmt.Errorf("%s holds other content", key)
		}
	}
	if err != nil {
		a.note(err)
		return err
	}
	a.mu.Lock()
	a.orphaned[n] = c.digest
	a.mu.Unlock()
	a.m.orphans.Inc()
	a.log.Warn("kept in orphans", "file", n.String(), "digest", c.digest.String())
	return nil
}

// adoption is when orphans/ was looked through: since then nothing may have become adoptable.
type adoption struct {
	term uint64
	line wal.Timeline
	news int // of coverage
}

// AdoptOrphans puts under its own name what lies in orphans/ and is on the line now: it was put
// there while another line was the cluster's. It is a step of Lead, and looks once a term, and again when the line has
// changed, or when the archive got the first segment of a timeline.
func (a *Archiver) AdoptOrphans(ctx context.Context) error {
	line := a.line(a.scope.Last())
	now := adoption{a.Term(), line.Timeline, a.cover.changes()}
	a.mu.Lock()
	done := a.adopted == now
	a.mu.Unlock()
	if done {
		return nil
	}
	waiting, err := a.adoptable(ctx, line)
	if err != nil {
		return err
	}
	// A run of orphans is joined to the archive's WAL at its beginning, or at its end.
	why := map[string]error{}
	for range 2 {
		waiting = slices.DeleteFunc(waiting, func(o orphaned) bool {
			why[o.key] = a.adopt(ctx, o.key, o.name, line)
			return why[o.key] == nil
		})
		slices.Reverse(waiting)
	}
	if len(waiting) > 0 {
		a.log.Warn("orphans are not adopted", "orphans", len(waiting), "first", waiting[0].key, "why", why[waiting[0].key])
	}
	a.mu.Lock()
	a.adopted = now
	a.mu.Unlock()
	return ctx.Err()
}

// orphaned is a segment in orphans/.
type orphaned struct {
	key  string
	name wal.Name
}

// adoptable lists the orphans that the archive lacks and that would be on the line by their names, in the order of their keys.
func (a *Archiver) adoptable(ctx context.Context, line wal.History) (out []orphaned, err error) {
	srv := a.server()
	for info, err := range a.archive.store.List(ctx, a.archive.root+"/orphans/", "") {
		if err != nil {
			return nil, fmt.Errorf("look for orphans: %w", err)
		}
		name, _, ok := strings.Cut(path.Base(info.Key), "-")
		if !ok {
			continue
		}
		n, err := wal.ParseName(name, a.archive.SegmentSize())
		if err != nil || n.Kind != wal.KindSegment || !line.Holds(n.Segment) || a.cover.has(n) || a.archive.BelowFloor(n) || a.setAsideFor(info.Key, n) {
			continue
		}
		if n.Segment.End() > srv.Flush {
			continue // the line has not come there yet: it is of another server that took the same number
		}
		if !a.permit(ctx, n).ok {
			continue
		}
		if _, err := a.local.q.Ident(n); err == nil {
			continue // our own copy goes first
		}
		out = append(out, orphaned{info.Key, n})
	}
	return out, nil
}

// adopt puts one orphan under its name, if it fits what the archive has beside it.
func (a *Archiver) adopt(ctx context.Context, key string, n wal.Name, line wal.History) error {
	h, r, err := a.archive.Open(ctx, key)
	if err != nil {
		return err
	}
	defer r.Close()
	checker := wal.NewChecker(n.Segment, a.local.systemID)
	packed, err := a.sealer.Pack(io.TeeReader(r, checker), h.Size)
	if err != nil {
		return err
	}
	defer packed.Close()
	report := checker.Report()
	if report.State != wal.Complete {
		return fmt.Errorf("%w: %s", errBadCopy, report.Why)
	}
	c, err := a.prove(ctx, a.local, n, &content{report: report, joint: checker.Joint()})
	if err != nil {
		return err
	}
	if !c.good {
		return fmt.Errorf("%w: %s", errBadCopy, c.why)
	}
	if err := a.joined(ctx, n.Segment, line, checker.Joint()); err != nil {
		return err
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return err
	}
	defer sealed.Close()
	if err := a.archive.Put(ctx, a.archive.Key(n), sealed); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	a.cover.add(n)
	a.log.Info("adopted from orphans", "file", n.String())
	return nil
}

// errMisfit is the error of joined when one contradicts.
var errMisfit = errors.New("it does not fit")

// joined is nil when a stretch of WAL that is said to be s fits a segment of the line beside it, and none contradicts. That no
// segment contradicts is not enough: two servers can have been promoted to one number, and the good WAL of the
// wrong one would take the name for ever. For the same reason it is not enough to go on with the timeline before.
func (a *Archiver) joined(ctx context.Context, s wal.Segment, line wal.History, j wal.Joint) error {
	fits := false
	for _, beside := range []wal.Segment{s.Prev(), s.Next()} {
		beside = beside.On(line.TimelineAt(beside.End() - 1))
		theirs, err := a.lineJoint(ctx, beside)
		if err != nil {
			return err
		}
		if beside.No < s.No {
			_, err = wal.Join(theirs, j)
		} else {
			_, err = wal.Join(j, theirs)
		}
		if err != nil && !errors.Is(err, wal.ErrApart) {
			return fmt.Errorf("%w %v: %w", errMisfit, beside, err)
		}
		fits = fits || err == nil && beside.Timeline >= s.Timeline
	}
	if !fits {
		return errors.New("there is no segment beside it that would tell whether it is the line's")
	}
	return nil
}

// lineJoint is the joint of the archive's copy of s, else of ours if we may put it; else it is zero, as it is where the archive's copy is
// damaged: that tells nothing.
func (a *Archiver) lineJoint(ctx context.Context, s wal.Segment) (wal.Joint, error) {
	n := wal.SegmentName(s)
	_, r, err := a.archive.Open(ctx, a.archive.Key(n))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !a.permit(ctx, n).ok {
			return wal.Joint{}, nil
		}
		ours, err := a.neighbour(ctx, s, true)
		return ours.joint, err
	case err == nil:
		defer r.Close()
		k := wal.NewChecker(s, a.local.systemID)
		if _, err = io.Copy(k, r); err == nil {
			return k.Joint(), nil
		}
	}
	if damaged(err) {
		return wal.Joint{}, nil
	}
	return wal.Joint{}, err
}

// samePrefix says whether our copy of n and the archive's are the same bytes up to end.
func (a *Archiver) samePrefix(ctx context.Context, n wal.Name, end wal.LSN) (bool, error) {
	f, _, err := a.local.q.Open(n)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, r, err := a.archive.Open(ctx, a.archive.Key(n))
	if err != nil {
		return false, err
	}
	defer r.Close()
	return equalUpTo(f, r, int64(end-n.Segment.Start()))
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
