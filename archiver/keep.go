package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// observe notes that a push found PostgreSQL in this state.
func (a *Archiver) observe(s ServerState) {
	now := a.o.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if s != ServerStopped {
		a.stoppedSince = time.Time{}
	} else if a.stoppedSince.IsZero() {
		a.stoppedSince = now
	}
	if s != ServerStopping {
		a.stoppingSince = time.Time{}
	} else if a.stoppingSince.IsZero() {
		a.stoppingSince = now
	}
}

// patience says how long PostgreSQL has been stopping without the archive taking a file, and how
// long pushes have found it stopped (rows 10 and 7). Both count across calls.
func (a *Archiver) patience() (storeIdle, stopped time.Duration) {
	now := a.o.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stoppingSince.IsZero() {
		from := a.stoppingSince
		if a.put.taken.After(from) {
			from = a.put.taken
		}
		storeIdle = now.Sub(from)
	}
	if !a.stoppedSince.IsZero() {
		stopped = now.Sub(a.stoppedSince)
	}
	return storeIdle, stopped
}

// setAside copies a file of a stopped PostgreSQL out of PGDATA (row 7): what comes next may be
// pg_rewind, which deletes what only this node has. The leader's live record is believed when it
// lists the segment as good.
func (a *Archiver) setAside(ctx context.Context, n wal.Name, c *content) error {
	last := a.scope.Last()
	if n.Kind == wal.KindSegment && last.LeaderLive && !last.IsLeader() && last.LeaderHas.Has(n.Segment) {
		return nil
	}
	if a.o.KeepDir == "" {
		return errors.New("no keep_dir is configured")
	}
	if c != nil && c.state == wal.Foreign {
		return nil // not WAL of this name at all
	}
	expected := func(s wal.Segment) bool {
		return a.cover.has(wal.SegmentName(s)) || last.LeaderLive && last.LeaderHas.Has(s)
	}
	if err := SetAside(a.local.q, a.o.KeepDir, n, expected); err != nil {
		return err
	}
	a.log.Debug("set aside in keep_dir", "file", n.String(), "keep_dir", a.o.KeepDir)
	a.o.Aside(n)
	return nil
}

// SetAside copies a file of a pg_wal to keep_dir, durably, unless keep_dir has one of that name. It needs no archive: it
// is all that can be done for a stopped server before the archive could be opened.
//
// With a segment goes a witness: the newest segment of its timeline that is expected to be in the archive some day: it has it, or the
// leader does. Two servers can have been promoted to one number, or have written one timeline; once the witness compares equal with the
// archive's, the others are known to be of the archive's timeline, too. Of a timeline that was promoted to, the oldest segment will do as well.
func SetAside(q *queue.Queue, keepDir string, n wal.Name, expected func(wal.Segment) bool) error {
	root, err := os.OpenRoot(keepDir)
	if err != nil {
		return fmt.Errorf("keep_dir: %w", err)
	}
	defer root.Close()
	if err := copyAside(root, q, n); err != nil {
		return err
	}
	if n.Kind != wal.KindSegment {
		return nil
	}
	files, err := q.Scan()
	if err != nil {
		return fmt.Errorf("look for a witness of timeline %v: %w", n.Segment.Timeline, err)
	}
	var oldest, newest wal.Name
	for f := range files.All() { // oldest first
		if f.Name.Kind != wal.KindSegment || f.Name.Segment.Timeline != n.Segment.Timeline || f.Gone {
			continue
		}
		if oldest == (wal.Name{}) && n.Segment.Timeline > 1 {
			oldest = f.Name
		}
		if expected(f.Name.Segment) {
			newest = f.Name
		}
	}
	for _, witness := range []wal.Name{oldest, newest} {
		if witness == (wal.Name{}) || witness == n {
			continue
		}
		if err := copyAside(root, q, witness); err != nil {
			return err
		}
	}
	return nil
}

func copyAside(root *os.Root, q *queue.Queue, n wal.Name) error {
	f, _, err := q.Open(n)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.Create(root, n.String(), f, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("copy %v to keep_dir: %w", n, err)
	}
	return nil
}

// openKeep makes the files set aside known, if there are any.
func (a *Archiver) openKeep() error {
	if a.o.KeepDir == "" {
		return nil
	}
	if err := os.MkdirAll(a.o.KeepDir, 0o700); err != nil {
		return fmt.Errorf("make keep_dir: %w", err)
	}
	q, err := queue.Open(a.o.KeepDir, a.archive.SegmentSize())
	if err != nil {
		return fmt.Errorf("keep_dir: %w", err)
	}
	keep := newLocal(q, a.archive.SegmentSize(), a.archive.id.SystemID)
	if err := keep.scan(); err != nil {
		return errors.Join(fmt.Errorf("read keep_dir: %w", err), q.Close())
	}
	a.keep = keep
	return nil
}

// folder is the one that has n: pg_wal, else the files set aside.
func (a *Archiver) folder(n wal.Name) *local {
	if a.keep == nil {
		return a.local
	}
	if _, err := a.local.q.Ident(n); err == nil {
		return a.local
	}
	if _, err := a.keep.q.Ident(n); err == nil {
		return a.keep
	}
	return a.local
}

// source is the folder whose copy of n counts: that of pg_wal, unless it is damaged or not there, and one was set aside that is not
// known to be bad: pg_rewind may have put the leader's damaged copy in the place of a good one.
func (a *Archiver) source(n wal.Name) *local {
	l := a.folder(n)
	if a.keep == nil || l == a.keep || !l.damaged(n) {
		return l
	}
	if _, err := a.keep.q.Ident(n); err != nil || a.keep.damaged(n) {
		return l
	}
	return a.keep
}

// damaged says whether n was read and found to be so; one that only does not fit its neighbour may be good.
func (l *local) damaged(n wal.Name) bool {
	id, err := l.q.Ident(n)
	if err != nil {
		return false
	}
	c, _ := l.recall(n, id)
	return c != nil && !c.good && !c.disputed && c.state == wal.Damaged
}

// names gives the files of pg_wal and those set aside, of two with one name that which counts.
func (a *Archiver) names() iter.Seq[known] {
	if a.keep == nil {
		return a.local.names()
	}
	return func(yield func(known) bool) {
		kept := map[wal.Name]bool{}
		for k := range a.keep.names() {
			kept[k.name] = true
		}
		for k := range a.local.names() {
			if kept[k.name] && a.source(k.name) == a.keep {
				k = a.keep.know(k.name, queue.None)
				k.kept = true
			}
			delete(kept, k.name)
			if !yield(k) {
				return
			}
		}
		for k := range a.keep.names() {
			if k.kept = true; kept[k.name] && !yield(k) {
				return
			}
		}
	}
}

// ReleaseKept removes what was set aside and is safe now: the archive has the same content, or
// it lies on a branch, or is another one than the archive's, and a copy is in orphans/. While another segment of its timeline waits, the newest that the
// archive has stays as the witness, and the newest that differs: what they proved would be forgotten at the next start.
func (a *Archiver) ReleaseKept(ctx context.Context) {
	if a.keep == nil {
		return
	}
	if err := a.keep.scan(); err != nil {
		a.log.Warn("keep_dir not read", "why", err)
		return
	}
	safe, waits := map[wal.Name]bool{}, map[wal.Timeline]bool{}
	for k := range a.keep.names() {
		switch n := k.name; {
		case a.safeKept(ctx, k):
			safe[n] = true
		case n.Kind == wal.KindSegment:
			waits[n.Segment.Timeline] = true
			if (k.read == nil || k.read.unproven()) && !a.resting(n) {
				// It has to be in our record: the holder can ask only for what somebody lists.
				if err := a.look(ctx, a.keep, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
					a.fail(n, err)
				}
			}
		}
	}
	a.sortKept(ctx, safe)
	type witness struct {
		timeline wal.Timeline
		equal    bool
	}
	stays := map[witness]bool{}
	for _, k := range slices.Backward(slices.Collect(a.keep.names())) {
		switch w := (witness{k.name.Segment.Timeline, k.sealed}); {
		case !safe[k.name]:
		case waits[w.timeline] && k.name.Kind == wal.KindSegment && a.cover.has(k.name) && !stays[w]:
			stays[w] = true
		default:
			a.dropKept(k.name)
		}
	}
	a.tellReleased()
}

// sortKept finds out whose the waiting files of a timeline are, where what was set aside of it is not all the archive's server's: they are its when they fit what
// it has beside them, and so are those that go on with them. The others are not ours to tell of: the leader's list is believed, and another
// node would let its own copy go.
func (a *Archiver) sortKept(ctx context.Context, safe map[wal.Name]bool) {
	var waiting []wal.Name
	for k := range a.keep.names() {
		if n := k.name; n.Kind == wal.KindSegment && !safe[n] && a.cover.isParted(n.Segment.Timeline) && k.read != nil {
			waiting = append(waiting, n)
		}
	}
	if !slices.ContainsFunc(waiting, func(n wal.Name) bool { return !a.cover.told(n) }) || !a.due(question{kept: true}) {
		return
	}
	for _, n := range waiting {
		if !a.cover.told(n) && (a.cover.has(wal.SegmentName(n.Segment.Prev())) || a.cover.has(wal.SegmentName(n.Segment.Next()))) {
			a.fits(ctx, a.keep, n)
		}
	}
	for range 2 { // upwards, and downwards
		for i := 1; i < len(waiting); i++ {
			n, m := waiting[i], waiting[i-1]
			if !a.cover.told(n) && a.cover.told(m) && a.keep.fit(m, n) {
				a.cover.like(n, m)
			}
		}
		slices.Reverse(waiting)
	}
}

// fit says whether two segments go on with one another, in whatever order.
func (l *local) fit(n, m wal.Name) bool {
	if n.Segment.No > m.Segment.No {
		n, m = m, n
	}
	x, err := l.check(n)
	if err != nil {
		return false
	}
	y, err := l.check(m)
	if err != nil {
		return false
	}
	_, err = wal.Join(x.joint, y.joint)
	return err == nil
}

// tellReleased says once that nothing is left in keep_dir.
func (a *Archiver) tellReleased() {
	left := len(slices.Collect(a.keep.names()))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released > 0 && left == 0 {
		a.log.Info("keep_dir is empty again: the archive has what was set aside", "files", a.released)
		a.released = 0
	}
}

// safeKept says whether nothing is lost with a file that was set aside.
func (a *Archiver) safeKept(ctx context.Context, k known) bool {
	n := k.name
	switch {
	case k.sealed || a.belowFloor(n):
		return true
	case a.resting(n):
		return false
	case a.cover.has(n):
		c, err := a.keep.check(n)
		if err != nil {
			return false
		}
		same, err := a.compare(ctx, a.keep, n, c)
		if err == nil && !same && c.good && n.Kind == wal.KindSegment {
			a.cover.part(n.Segment.Timeline)
		}
		return err == nil && (same || a.orphan(ctx, a.keep, n) == nil)
	case n.Kind == wal.KindSegment && a.scope.Last().PlaceOf(n.Segment) == OnBranch:
		c, err := a.scope.Read(ctx)
		return err == nil && c.LeaderLive && c.PlaceOf(n.Segment) == OnBranch && a.orphan(ctx, a.keep, n) == nil
	}
	return false
}

func (a *Archiver) dropKept(n wal.Name) {
	root, err := os.OpenRoot(a.o.KeepDir)
	if err != nil {
		return
	}
	defer root.Close()
	if err := root.Remove(n.String()); err == nil {
		a.log.Debug("released from keep_dir", "file", n.String())
		a.cover.untell(n)
		a.mu.Lock()
		a.released++
		a.mu.Unlock()
	}
}
