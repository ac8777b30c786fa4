package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// batch is how many files are dispatched before the work is looked at anew: a history that
// appears waits for this many segments at most, and a long backlog is not sorted for every one.
const batch = 64

// errBadCopy means that our copy is not what its name says, so it is not shipped (P3).
var errBadCopy = errors.New("our copy is not good")

// errNotWhole is errBadCopy for a file that is being written, was made for later, or was cut off: every
// pg_wal has such files, and nothing is wrong with them.
var errNotWhole = fmt.Errorf("%w for shipping yet", errBadCopy)

// errNotOurs means that this node may not put the file now.
var errNotOurs = errors.New("not ours to put now")

// errNoWitness is errNotOurs where another segment would have to tell whose the file is, or the leader to open its timeline.
var errNoWitness = fmt.Errorf("%w", errNotOurs)

// errDiffers means that the archive has other content under this name.
var errDiffers = errors.New("the archive has other content under this name")

// Lead ships inside a term, until ctx ends; all uploads have ended when it returns. The errand are
// the segments this node took the baton for.
func (a *Archiver) Lead(ctx context.Context, term uint64, errand Set) error {
	a.BeginTerm(ctx, term, errand)
	defer a.EndTerm()
	// What others shipped in their terms is not shipped again. A store that does not answer makes
	// this term useless; the elector hears so from the record, and gives the baton away.
	for first := true; ; first = false {
		err := a.Rescan()
		if err == nil {
			err = a.List(ctx)
		}
		if err == nil {
			break
		}
		if answers, _ := a.StoreAnswers(); first && answers {
			a.log.Warn("the term waits for a look at pg_wal and the archive", "why", err)
		}
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
	if err := a.ReadDecisions(ctx); err != nil {
		a.log.Warn("administrators' decisions not read", "why", err)
	}
	failing := false
	var fills sync.WaitGroup
	defer fills.Wait()
	slots := make(chan struct{}, a.o.Workers)
	for _, t := range a.targets {
		fills.Go(func() { a.fillUntil(ctx, t, slots) })
	}
	return a.shipUntil(ctx, func() []wal.Name {
		err := a.AdoptOrphans(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			a.log.Warn("orphans not read", "why", err)
		}
		failing = err != nil
		return a.Shippable()
	})
}

// BeginTerm says that this node has the baton from now on, until ctx ends. It is a step of Lead.
func (a *Archiver) BeginTerm(ctx context.Context, term uint64, errand Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.term, a.errand, a.over = term, errand.Clone(), ctx.Done()
}

// EndTerm says that its last upload has ended, too. It is a step of Lead.
func (a *Archiver) EndTerm() {
	a.mu.Lock()
	a.term, a.errand, a.lacks, a.over = 0, Set{}, Set{}, nil
	a.mu.Unlock()
	a.bell.ring()
}

// hasBaton says whether the term goes on, for a caller that holds mu: in the grace of its uploads nothing new is put.
func (a *Archiver) hasBaton() bool {
	select {
	case <-a.over:
		return false
	default:
		return a.term != 0
	}
}

// shipUntil hands the files that next gives to the workers, until ctx ends. Uploads that run then
// get the grace, and are cancelled after it.
func (a *Archiver) shipUntil(ctx context.Context, next func() []wal.Name) error {
	uploads, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	// Taken back only after the wait below: the end of ctx is seen here before it has called this.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(a.o.Grace, cancel) })()
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		woken := a.bell.wait()
		for _, n := range next() {
			if ctx.Err() != nil {
				return nil // select does not prefer it to a free slot
			}
			if n.Kind == wal.KindHistory {
				a.Ship(uploads, n) // the segments of its timeline wait for it anyway
				continue
			}
			select {
			case a.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			workers.Go(func() {
				defer func() { <-a.slots }()
				a.Ship(uploads, n)
			})
		}
		select {
		case <-woken:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// Shippable gives the next files this node has and the archive lacks, that belong to the line and
// are not below the floor: histories first, then the oldest. Segments of a timeline that is not open wait
// for its history. Whether a file may be put is asked for each by Ship.
func (a *Archiver) Shippable() []wal.Name {
	var out []wal.Name
	waits := map[wal.Timeline]bool{} // for its history
	line := a.line(a.scope.Last())
	below := a.completeBelow()
	for k := range a.names() {
		if len(out) == batch {
			break
		}
		t := k.name.Segment.Timeline
		if k.name.Kind == wal.KindHistory && (k.read == nil || k.read.good) {
			waits[t] = !a.cover.open(k.name)
		}
		switch {
		case k.sealed || a.cover.has(k.name) || a.belowFloor(k.name) || a.resting(k.name) || !a.wanted(k.name):
			continue
		case k.name.Kind == wal.KindSegment && (waits[t] || !line.Holds(k.name.Segment) || !k.kept && !below(k)):
			continue
		case k.name.Kind == wal.KindHistory && t > line.Timeline:
			continue
		}
		out = append(out, k.name)
	}
	return out
}

// completeBelow says which segments may be complete: PostgreSQL said so by a status file, or its
// flushed WAL is past them. Others are being written, or were made for later. When PostgreSQL
// itself cannot be asked, after a crash say, every file is looked at: its content decides.
func (a *Archiver) completeBelow() func(known) bool {
	srv := a.server()
	return func(k known) bool {
		return !srv.SQL || k.status != queue.None || k.name.Segment.End() <= srv.Flush
	}
}

// Ship puts n, if this node may: one read of the file, one PUT. What it finds out is kept for the
// pushes that wait; the error is kept too.
func (a *Archiver) Ship(ctx context.Context, n wal.Name) error {
	if !a.claim(n) {
		return nil
	}
	defer a.unclaim(n)
	if a.cover.has(n) {
		return nil // another loop was faster: it chose the same file before this one was in the archive
	}
	if !a.wanted(n) {
		return fmt.Errorf("%w: %s", errOneLacks, a.waitsFor(n))
	}
	p, err := a.leave(ctx, n)
	if err != nil {
		a.fail(n, err)
		return err
	}
	if p.ok && p.opens && n.Kind == wal.KindSegment {
		// Without the baton only the first segment of a timeline is ours to put, not the first four.
		if !a.opening.TryLock() {
			return fmt.Errorf("%w: another segment opens its timeline just now", errNotOurs) // which rings when it is done
		}
		defer a.opening.Unlock()
		p = a.permit(ctx, n)
	}
	if !p.ok {
		err := errNotOurs
		if p.vouch || p.opens {
			err = errNoWitness
		}
		err = fmt.Errorf("%w: %s", err, p.why)
		a.fail(n, err)
		return err
	}
	err = a.putFile(ctx, a.source(n), n)
	if err == nil && p.opens && n.Kind == wal.KindHistory {
		a.cover.lead(n.Segment.Timeline) // its segments are ours to put while the DCS is silent, too
	}
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, fs.ErrNotExist):
		return err
	}
	a.fail(n, err)
	a.bell.ring()
	return err
}

// leave asks whether this node may put n now, and holds what is before it, and where it is needed what vouches for it, against the archive.
func (a *Archiver) leave(ctx context.Context, n wal.Name) (permit, error) {
	if err := a.follows(ctx, n); err != nil {
		return permit{}, err
	}
	p := a.permit(ctx, n)
	if !p.vouch || !a.vouchFor(ctx, n) {
		return p, nil
	}
	if err := a.follows(ctx, n); err != nil { // before, it was not ours to put
		return permit{}, err
	}
	return a.permit(ctx, n), nil
}

// putFile reads, checks, seals and puts n from l, and compares when the archive has the name.
func (a *Archiver) putFile(ctx context.Context, l *local, n wal.Name) error {
	c, packed, err := l.load(n, a.sealerOf(n))
	for try := 0; errors.Is(err, errRecycled) && try < 3; try++ {
		c, packed, err = l.load(n, a.sealerOf(n))
	}
	if err != nil {
		return err
	}
	defer packed.Close()
	if c, err = a.prove(ctx, l, n, c); err != nil {
		return err
	}
	if !a.shippable(n, c) {
		if c.state == wal.Cut || c.state == wal.Foreign {
			return fmt.Errorf("%w: %s", errNotWhole, c.why)
		}
		return fmt.Errorf("%w: %s", errBadCopy, c.why)
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return fmt.Errorf("seal %v: %w", n, err)
	}
	defer sealed.Close()
	if a.clashes(ctx, n, c) {
		return a.differs(ctx, l, n, c)
	}
	// What proves it may have taken a while. That nobody has opened the timeline was read just before.
	if p := mayPut(a.request(n, a.scope.Last())); !p.ok {
		return fmt.Errorf("%w: %s", errNotOurs, p.why)
	}
	start := a.o.Now()
	err = a.offer(ctx, n, sealed)
	a.m.put(n.Kind, err, a.o.Now().Sub(start), sealed.Size())
	if errors.Is(err, fs.ErrExist) {
		same, err := a.compare(ctx, l, n, c)
		if err == nil && !same {
			err = a.differs(ctx, l, n, c)
		}
		return err
	}
	if err != nil {
		a.note(err)
		return err
	}
	a.log.Debug("shipped", "file", n.String(), "bytes", sealed.Size())
	a.shipped.add(n, sealed.Size())
	a.stored(l, n, c, true)
	return nil
}

// compare asks the archive for the digest of its copy: one small ranged read.
func (a *Archiver) compare(ctx context.Context, l *local, n wal.Name, c *content) (same bool, err error) {
	if a.targets != nil {
		return a.compareAll(ctx, l, n, c)
	}
	h, err := a.archive.Header(ctx, a.archive.Key(n))
	a.note(err)
	switch {
	case damaged(err):
		a.cover.add(n)
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		a.cover.forget(n)
		return false, err
	case err != nil:
		return false, err
	}
	a.cover.add(n)
	if h.Digest != c.digest || h.Size != c.size {
		return false, nil
	}
	a.stored(l, n, c, false)
	return true, nil
}

// vouchFor compares the newest segment that the archive has a name of, on the timeline of n and from the
// same folder, so that we know that our timeline is the archive's. If no such name is known the archive is listed: the
// timeline may have been opened after the last listing. With nothing to compare, it is enough that n itself fits the
// archive's segment beside it; of what was set aside, also when the comparison tells that some of it is another server's.
// Of what a standby may have got from another server than the leader, only the segment next to n tells.
func (a *Archiver) vouchFor(ctx context.Context, n wal.Name) bool {
	l, t, kept := a.local, n.Segment.Timeline, a.isKept(n)
	if a.request(n, a.scope.Last()).strays(t) {
		told, err := a.goesOn(ctx, n)
		return err == nil && (told || a.fits(ctx, l, n))
	}
	if kept {
		l = a.keep
	}
	first, found, there := a.archivedOf(l, t)
	if found && len(there) == 0 && a.due(question{timeline: t, vouch: true}) {
		if err := a.list(ctx, t, first.Segment.No); err != nil {
			a.note(err)
			return false
		}
		_, _, there = a.archivedOf(l, t)
	}
	for i := len(there) - 1; i >= 0 && !(kept && a.cover.isParted(t)); i-- {
		m := there[i]
		c, err := l.check(m)
		if err != nil || !c.good {
			continue
		}
		same, err := a.matches(ctx, l, m, c)
		if err != nil || same || !kept {
			return err == nil && same
		}
		a.cover.part(t)
	}
	return a.fits(ctx, l, n)
}

// archivedOf gives the first segment of a timeline in a folder, if there is one, and those of which the archive has the name.
func (a *Archiver) archivedOf(l *local, t wal.Timeline) (first wal.Name, found bool, there []wal.Name) {
	for k := range l.names() {
		if k.name.Kind != wal.KindSegment || k.name.Segment.Timeline != t {
			continue
		}
		if !found {
			first, found = k.name, true
		}
		if a.cover.hasAny(k.name) {
			there = append(there, k.name)
		}
	}
	return first, found, there
}

// fits says whether our copy of n joins what the archive has of the line, where that is known to go past n: our server has
// come there, or the holder asked for it. To fit is much, but two idle servers with one timeline number write alike.
func (a *Archiver) fits(ctx context.Context, l *local, n wal.Name) bool {
	cluster, s, srv := a.scope.Last(), n.Segment, a.server()
	line := a.line(cluster)
	a.mu.Lock()
	reached := a.errand.Has(s) || s.End() <= srv.Flush
	a.mu.Unlock()
	if !reached || !cluster.Answered || !line.Holds(s) {
		return false
	}
	c, err := l.check(n)
	if err == nil && c.good {
		err = a.joined(ctx, s, line, c.joint)
	}
	switch {
	case errors.Is(err, errMisfit) && l == a.keep:
		a.cover.fit(n, false)
		return false
	case err != nil || !c.good:
		return false
	}
	a.cover.fit(n, true)
	return true
}

func (a *Archiver) header(n wal.Name, c *content) seal.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return seal.Header{
		Name: n.String(), SystemID: a.archive.id.SystemID, Member: a.o.Member, Term: a.term,
		FirstCommit: c.report.FirstCommit, LastCommit: c.report.LastCommit,
	}
}

// sleep waits, and says whether ctx still runs.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
