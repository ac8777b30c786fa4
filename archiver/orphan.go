package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// orphan keeps the copy of n that l has in orphans/, whatever it is: WAL that the line left is somebody's
// committed data until a person says otherwise.
func (a *Archiver) orphan(ctx context.Context, l *local, n wal.Name) error {
	c, packed, err := l.load(n, a.sealerOf(n))
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
	if err := a.putOrphan(ctx, key, sealed, c.digest); err != nil {
		a.note(err)
		return err
	}
	a.mu.Lock()
	a.orphaned[n] = c.digest
	a.mu.Unlock()
	a.remember(key, n, c)
	a.m.orphans.Inc()
	a.log.Warn("kept in orphans", "file", n.String(), "digest", c.digest.String())
	return nil
}

// adoption is when orphans/ was looked through: since then nothing may have become adoptable.
type adoption struct {
	term   uint64
	line   wal.Timeline
	news   int // of coverage
	beside int // how many segments the archive has beside the orphans that were left
}

// adopted is what came of it.
type adopted struct {
	when  adoption
	left  []wal.Segment // orphans that were not adopted
	err   error         // the archive did not answer
	again time.Time     // when to try once more, after err
}

// AdoptOrphans puts under its own name what lies in orphans/ and is on the line now: it was put
// there while another line was the cluster's. It is a step of Lead, and looks once a term, and again when the line has
// changed, when the archive got the first segment of a timeline or one beside an orphan, and a while after it did not answer.
func (a *Archiver) AdoptOrphans(ctx context.Context) error {
	line := a.line(a.scope.Last())
	a.mu.Lock()
	last := a.adopted
	a.mu.Unlock()
	now := adoption{a.Term(), line.Timeline, a.cover.changes(), a.beside(last.left, line)}
	if last.when == now && (last.err == nil || a.o.Now().Before(last.again)) {
		return last.err
	}
	left, err := a.lookForOrphans(ctx, line)
	now.beside = a.beside(left, line)
	a.mu.Lock()
	a.adopted = adopted{now, left, err, a.o.Now().Add(lookAfter)}
	a.mu.Unlock()
	return err
}

// lookForOrphans adopts what it can, and gives the others. It is an error when the archive does not answer.
func (a *Archiver) lookForOrphans(ctx context.Context, line wal.History) (left []wal.Segment, err error) {
	waiting, err := a.adoptable(ctx, line)
	if err != nil {
		return nil, err
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
	for _, o := range waiting {
		left = append(left, o.name.Segment)
		if !unfit(why[o.key]) {
			err = fmt.Errorf("adopt %s: %w", o.key, why[o.key])
		}
	}
	if len(waiting) > 0 && err == nil {
		a.log.Warn("orphans are not adopted", "orphans", len(waiting), "first", waiting[0].key, "why", why[waiting[0].key])
	}
	return left, err
}

// beside counts the segments that the archive has beside these, on the line.
func (a *Archiver) beside(left []wal.Segment, line wal.History) (count int) {
	for _, s := range left {
		for _, b := range neighbours(s, line) {
			if a.cover.hasAny(wal.SegmentName(b)) {
				count++
			}
		}
	}
	return count
}

// neighbours gives the segments before and after s on the line.
func neighbours(s wal.Segment, line wal.History) [2]wal.Segment {
	prev, next := s.Prev(), s.Next()
	return [2]wal.Segment{prev.On(line.TimelineAt(prev.End() - 1)), next.On(line.TimelineAt(next.End() - 1))}
}

// unfit says whether an orphan itself, and not the way to it, is why it was not adopted.
func unfit(err error) bool {
	return errors.Is(err, errBadCopy) || errors.Is(err, errMisfit) || errors.Is(err, errAlone) || errors.Is(err, fs.ErrNotExist) || damaged(err) || errors.Is(err, seal.ErrEncrypted)
}

// orphaned is a segment in orphans/.
type orphaned struct {
	key  string
	name wal.Name
}

// adoptable lists the orphans that the archive lacks and that would be on the line by their names, in the order of their keys.
func (a *Archiver) adoptable(ctx context.Context, line wal.History) (out []orphaned, err error) {
	srv := a.server()
	keys, err := a.keys(ctx, "/orphans/")
	if err != nil {
		return nil, fmt.Errorf("look for orphans: %w", err)
	}
	for _, key := range keys {
		name, _, ok := strings.Cut(path.Base(key), "-")
		if !ok {
			continue
		}
		n, err := wal.ParseName(name, a.archive.SegmentSize())
		if err != nil || n.Kind != wal.KindSegment || !line.Holds(n.Segment) || a.cover.hasAny(n) || a.belowFloor(n) || a.setAsideFor(key, n) {
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
		out = append(out, orphaned{key, n})
	}
	return out, nil
}

// adopt puts one orphan under its name, if it fits what the archive has beside it.
func (a *Archiver) adopt(ctx context.Context, key string, n wal.Name, line wal.History) error {
	h, r, err := a.open(ctx, key)
	if errors.Is(err, seal.ErrEncrypted) {
		return a.adoptSealed(ctx, key, n, line, err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	checker := wal.NewChecker(n.Segment, a.local.systemID)
	packed, err := a.sealerOf(n).Pack(io.TeeReader(r, checker), h.Size)
	if err != nil {
		return err
	}
	defer packed.Close()
	c := &content{report: checker.Report(), joint: checker.Joint()}
	if err := a.belongs(ctx, n, line, c); err != nil {
		return err
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return err
	}
	defer sealed.Close()
	return a.take(ctx, n, sealed)
}

// belongs says whether what an orphan holds is good WAL, and the line's.
func (a *Archiver) belongs(ctx context.Context, n wal.Name, line wal.History, c *content) error {
	if c.report.State != wal.Complete {
		return fmt.Errorf("%w: %s", errBadCopy, c.report.Why)
	}
	proven, err := a.prove(ctx, a.local, n, c)
	if err != nil {
		return err
	}
	if !proven.good {
		return fmt.Errorf("%w: %s", errBadCopy, proven.why)
	}
	return a.joined(ctx, n.Segment, line, c.joint)
}

// take puts what was an orphan under its name.
func (a *Archiver) take(ctx context.Context, n wal.Name, body store.Body) error {
	err := a.offer(ctx, n, body)
	if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, errOneLacks) {
		return err
	}
	if a.targets == nil {
		a.cover.add(n)
	}
	a.log.Info("adopted from orphans", "file", n.String())
	return nil
}

// errMisfit is the error of joined when one contradicts.
var errMisfit = errors.New("it does not fit")

// errAlone is the error of joined when none tells.
var errAlone = errors.New("there is no segment beside it that would tell whether it is the line's")

// joined is nil when a stretch of WAL that is said to be s fits a segment of the line beside it, and none contradicts. That no
// segment contradicts is not enough: two servers can have been promoted to one number, and the good WAL of the
// wrong one would take the name for ever. For the same reason it is not enough to go on with the timeline before.
func (a *Archiver) joined(ctx context.Context, s wal.Segment, line wal.History, j wal.Joint) error {
	fits := false
	for _, beside := range neighbours(s, line) {
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
		return errAlone
	}
	return nil
}

// lineJoint is the joint of the archive's copy of s, else of ours if we may put it; else it is zero, as it is where the archive's copy is
// damaged: that tells nothing.
func (a *Archiver) lineJoint(ctx context.Context, s wal.Segment) (wal.Joint, error) {
	n := wal.SegmentName(s)
	h, r, err := a.open(ctx, a.archive.Key(n))
	switch {
	case errors.Is(err, seal.ErrEncrypted):
		return a.sealedJoint(ctx, s, h.Digest)
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
