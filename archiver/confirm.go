package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// lookAfter is how long a file may wait for the holder's mark before the archive is asked directly.
const lookAfter = 5 * time.Second

// Tend does all that needs no term, until ctx ends: it reads pg_wal, checks what is new, compares
// with the archive what the holder has shipped, puts the files that only this node has, ships
// where DESIGN section 6 lets a node without the baton ship, and keeps the status files right.
func (a *Archiver) Tend(ctx context.Context) error {
	// Not the group's own context: requests cut short by the end of one loop would end with its error, as if the archive had
	// answered with that.
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	loop := func(f func() error) {
		g.Go(func() error { defer cancel(); return f() })
	}
	loop(func() error { return a.watch(ctx) })
	loop(func() error { return a.confirmUntil(ctx) })
	for _, t := range a.targets {
		loop(func() error { return a.liftUntil(ctx, t) })
	}
	loop(func() error { return a.shipUntil(ctx, func() []wal.Name { return a.NextAlone(ctx) }) })
	return g.Wait()
}

// watch reads pg_wal when it changes, and every ten seconds anyway: an event may be lost, and a folder may be replaced.
func (a *Archiver) watch(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		wake := func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		err := a.o.Watch(ctx, wake)
		if errors.Is(err, queue.ErrNoInotify) {
			a.log.Warn("pg_wal is looked at once a second", "why", err)
			return a.local.q.Poll(ctx, wake)
		}
		return err
	})
	g.Go(func() error {
		for {
			began := time.Now()
			if err := a.Rescan(); err != nil {
				return err
			}
			a.bell.ring()
			if !sleep(ctx, restAfter(time.Since(began))) {
				return nil
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// restAfter is how long pg_wal is left alone after it was read, in which changes gather: ten times as long as that took, so that a large folder
// keeps nobody busy, and at most 200 ms. A promotion makes its files within some milliseconds of each other, and the last of them is the one to ship.
func restAfter(took time.Duration) time.Duration {
	return min(max(10*took, 20*time.Millisecond), 200*time.Millisecond)
}

// confirmUntil runs passes, woken by the bell, until ctx ends.
func (a *Archiver) confirmUntil(ctx context.Context) error {
	var listed, followed time.Time
	for {
		woken := a.bell.wait()
		if ok, _ := a.StoreAnswers(); !ok {
			if err := a.Probe(ctx); err != nil {
				a.note(err)
			}
		}
		if ok, _ := a.StoreAnswers(); ok && (listed.IsZero() || a.Unlisted() && time.Since(listed) > time.Second) {
			if err := a.List(ctx); err == nil {
				if listed.IsZero() {
					_ = a.ReadDecisions(ctx) // a push that is refused reads them again
				}
				listed, followed = time.Now(), time.Now()
			}
		}
		if ok, _ := a.StoreAnswers(); ok && !listed.IsZero() && time.Since(followed) > lookAfter {
			if err := a.Follow(ctx); err != nil {
				a.log.Debug("what others shipped is not known", "why", err)
			}
			followed = time.Now()
		}
		if !listed.IsZero() {
			a.Confirm(ctx)
			if err := a.CheckLacks(ctx); err != nil {
				a.log.Debug("what the archive lacks is not known", "why", err)
			}
			a.ReleaseKept(ctx)
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return nil
		}
		select {
		case <-woken:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// Unlisted says whether pg_wal has a timeline, or WAL older than any, that no listing reached.
func (a *Archiver) Unlisted() bool {
	for k := range a.local.names() {
		if k.name.Kind == wal.KindSegment && !k.sealed && !a.cover.listed(k.name.Segment.Timeline, k.name.Segment.No) {
			return true
		}
	}
	return false
}

// Follow lists what others have shipped, where nobody's marks tell: each timeline from the oldest of our segments on
// that the archive is not known to have. Else each push would wait for a look of its own, and PostgreSQL asks for one file at a time.
func (a *Archiver) Follow(ctx context.Context) error {
	if !a.unheard() {
		return nil
	}
	below := a.completeBelow()
	oldest := map[wal.Timeline]uint64{}
	for k := range a.local.names() {
		n := k.name
		if n.Kind != wal.KindSegment || k.sealed || a.cover.has(n) || a.belowFloor(n) || !below(k) {
			continue
		}
		if old, ok := oldest[n.Segment.Timeline]; !ok || n.Segment.No < old {
			oldest[n.Segment.Timeline] = n.Segment.No
		}
	}
	for _, t := range slices.Sorted(maps.Keys(oldest)) {
		if err := a.list(ctx, t, oldest[t]); err != nil {
			a.note(err)
			return err
		}
	}
	if len(oldest) > 0 {
		a.bell.ring()
	}
	return nil
}

// unheard says whether no marks reach this node: nobody has any (rest), or the DCS does not answer.
func (a *Archiver) unheard() bool {
	c := a.scope.Last()
	if c.NoDCS {
		return !c.Alone && !c.CountsAsLeader(a.server())
	}
	return !c.Answered && a.Term() == 0
}

// Confirm is one pass over the files of pg_wal.
func (a *Archiver) Confirm(ctx context.Context) {
	c := a.scope.Last()
	line := a.line(c)
	srv := a.server()
	below := a.completeBelow()
	answers, _ := a.StoreAnswers()
	shipping := a.Term() != 0 && answers
	for k := range a.local.names() {
		if ctx.Err() != nil {
			return
		}
		n := k.name
		if k.sealed {
			a.settle(srv, k)
			continue
		}
		if n.Kind != wal.KindSegment {
			a.confirmSmall(ctx, k)
			continue
		}
		if !line.Holds(n.Segment) || a.belowFloor(n) || !below(k) {
			continue
		}
		if k.read != nil && k.read.unproven() { // read for a push, a comparison or as a neighbour
			if err := a.look(ctx, a.local, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.fail(n, err)
			}
		}
		shipped := a.cover.has(n) || n.Segment.No < c.Marks[n.Segment.Timeline]
		switch {
		case shipped && (k.status == queue.Ready || !a.cover.has(n)) && !a.resting(n):
			if a.confirm(ctx, n) {
				// The mark passed a segment that the holder never had: it is ours to tell of, and to keep.
				_ = a.look(ctx, a.local, n)
				a.protect(ctx, srv, k)
			}
		case shipped, shipping:
			// Nobody waits for it, or the shipper reads it anyway.
		default:
			if (k.read == nil || k.read.disputed) && !a.resting(n) {
				if err := a.look(ctx, a.local, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
					a.fail(n, err)
				}
			}
			a.protect(ctx, srv, k)
		}
	}
}

// look reads a segment, unless memory has it, and holds it against those beside it.
func (a *Archiver) look(ctx context.Context, l *local, n wal.Name) error {
	c, err := l.check(n)
	if err == nil {
		c, err = a.prove(ctx, l, n, c)
	}
	if err == nil && c.disputed {
		err = fmt.Errorf("%w: %s", errBadCopy, c.why) // and is looked at again
	}
	return err
}

// confirm compares one segment with the archive's. absent says that the archive answered, and has none.
func (a *Archiver) confirm(ctx context.Context, n wal.Name) (absent bool) {
	if !a.claim(n) {
		return false
	}
	defer a.unclaim(n)
	content, err := a.local.check(n)
	if err != nil {
		return false
	}
	same, err := a.compare(ctx, a.local, n, content)
	switch {
	case err == nil && !same && (content.state == wal.Cut || content.state == wal.Foreign):
		// A standby that was stopped inside of it, or has a recycled file of that name. Should PostgreSQL ask, the table answers.
		err = fmt.Errorf("%w: %s", errNotWhole, content.why)
	case err == nil && !same:
		err = a.differs(ctx, a.local, n, content)
	}
	if err != nil {
		a.fail(n, err)
	}
	a.bell.ring()
	return errors.Is(err, fs.ErrNotExist)
}

// confirmSmall puts or compares histories, backup labels and partial segments.
func (a *Archiver) confirmSmall(ctx context.Context, k known) {
	if a.cover.has(k.name) && k.status != queue.Ready || a.resting(k.name) {
		return
	}
	if k.name.Kind != wal.KindHistory && a.belowFloor(k.name) {
		return
	}
	if a.cover.has(k.name) {
		a.confirm(ctx, k.name)
		return
	}
	if c, err := a.local.check(k.name); k.name.Kind == wal.KindBackup && k.status == queue.None && err == nil && !c.good {
		return // PostgreSQL is just writing it, and makes the .ready after that
	}
	a.Ship(ctx, k.name)
}

// protect keeps a segment that the archive lacks. PostgreSQL is asked to: a status .done, which a standby
// and a clone get without any archive, goes back to .ready. In recovery the server ignores it; the
// end of recovery honours it, so there is no race with the promotion checkpoint. Without a status, which a crash of the machine may have
// lost, nobody pushes it from a stopped server: it is set aside before pg_rewind deletes it.
func (a *Archiver) protect(ctx context.Context, srv Server, k known) {
	c, _ := a.local.check(k.name)
	if c == nil || !a.shippable(k.name, c) && !c.disputed {
		return
	}
	switch {
	case k.status == queue.Done:
		if err := a.local.q.MarkReady(k.name); err == nil {
			a.m.protected.Inc()
		}
	case k.status == queue.None && srv.State == ServerStopped && a.keep != nil:
		if _, err := a.keep.q.Ident(k.name); err == nil {
			return // it is there
		}
		if err := a.setAside(ctx, k.name, c); err != nil {
			a.log.Warn("not set aside", "file", k.name.String(), "why", err)
		}
	}
}

// settle lets go, on a standby whose archiver does not run, of what the archive has.
func (a *Archiver) settle(srv Server, k known) {
	if k.status != queue.Ready || srv.State != ServerStandby || srv.ArchiveMode == "always" {
		return
	}
	if err := a.local.q.MarkDone(k.name); err == nil {
		a.m.settled.Inc()
	}
}

// NextAlone is ShippableAlone for a loop that ships. While the DCS does not answer somebody else may have the baton, and ship too: what they have put is
// listed first, so that nothing goes behind another server's segment.
func (a *Archiver) NextAlone(ctx context.Context) []wal.Name {
	names := a.ShippableAlone()
	c := a.scope.Last()
	if len(names) == 0 || c.NoDCS || c.Answered || a.server().State != ServerPrimary && !c.IsLeader() {
		return names
	}
	if err := a.Follow(ctx); err != nil {
		return nil // the store does not answer
	}
	return a.ShippableAlone()
}

// ShippableAlone gives what this node may ship without the baton: the first segment of a timeline
// that it leads, everything where there is no DCS, and what it can while the DCS does not answer.
func (a *Archiver) ShippableAlone() []wal.Name {
	c, srv := a.scope.Last(), a.server()
	if a.Term() != 0 || !a.cover.anyListing() {
		return nil
	}
	var out []wal.Name
	opening := map[wal.Timeline]bool{}
	for _, n := range a.Shippable() {
		if n.Kind != wal.KindSegment && n.Kind != wal.KindHistory {
			continue
		}
		if c.CountsAsLeader(srv) || !c.NoDCS && !c.Answered || !a.cover.open(n) && c.IsLeader() && !opening[n.Segment.Timeline] {
			out = append(out, n)
			opening[n.Segment.Timeline] = true
		}
	}
	return out
}

// Term is the number of the term this node is in, 0 when it is in none.
func (a *Archiver) Term() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.term
}
