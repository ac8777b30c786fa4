package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is how one of several archives catches up: it was down, or slow, or is a new one. The holder of the baton copies what it lacks from another
// archive, the sealed object as it is. What is still in pg_wal for it is shipped from there.

// fillUntil fills one archive, until ctx ends. It is a part of Lead.
func (a *Archiver) fillUntil(ctx context.Context, t *target, slots chan struct{}) {
	why := ""
	for {
		woken := a.bell.wait()
		more, err := a.fill(ctx, t, slots)
		if err != nil && ctx.Err() == nil && err.Error() != why {
			why = err.Error()
			a.log.Warn("an archive is not filled", "archive", t.Name, "why", why)
		}
		if err == nil && more {
			continue
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return
		}
		select {
		case <-woken:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// FillAll is one pass over all archives, inside a term. It is a step of Lead, which does it for each on its own.
func (a *Archiver) FillAll(ctx context.Context) error {
	slots := make(chan struct{}, a.o.Workers)
	var errs []error
	for _, t := range a.targets {
		for more := true; more; {
			var err error
			if more, err = a.fill(ctx, t, slots); err != nil {
				errs, more = append(errs, err), false
			}
		}
	}
	return errors.Join(errs...)
}

// fill copies the next files that t lacks, in the order of the WAL, and says whether there are more. The first time in a term, and when t answers
// again, the archives are listed for that, from where t was whole the last time, or its floor.
func (a *Archiver) fill(ctx context.Context, t *target, slots chan struct{}) (more bool, err error) {
	term := a.Term()
	a.mu.Lock()
	up, looked := t.isUp(), t.looked
	a.mu.Unlock()
	if !up || term == 0 {
		return false, nil
	}
	if looked != term {
		if err := a.compareWith(ctx, t); err != nil {
			return false, err
		}
		a.mu.Lock()
		if t.isUp() {
			t.looked = term
		}
		a.mu.Unlock()
	}
	names := a.fillable(t)
	a.mu.Lock()
	t.left = len(names)
	if len(names) == 0 {
		t.behind = false
	}
	a.mu.Unlock()
	if len(names) == 0 {
		t.whole = a.cover.ends(t.index)
		return false, nil
	}
	some := names[:min(len(names), batch)]
	var mu sync.Mutex
	done := 0
	var all []func()
	for _, n := range some {
		all = append(all, func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			ok, ferr := a.fillOne(ctx, t, n)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				done++
			}
			if ferr != nil && err == nil {
				err = ferr
			}
		})
	}
	a.o.Together(all...)
	if done > 0 {
		a.bell.ring()
	}
	return done > 0 && ctx.Err() == nil, err
}

// compareWith lists t and the others, as far as t may lack something, and copies the small things beside the WAL: floors and decisions.
func (a *Archiver) compareWith(ctx context.Context, t *target) error {
	first := t.archive.Identity().Floor
	from := map[wal.Timeline]uint64{}
	timelines := append(slices.Clone(first.Ancestors), first.Timeline)
	for _, other := range a.reached() {
		for n := range a.cover.smallIn(other.index) {
			timelines = append(timelines, n.Segment.Timeline)
		}
	}
	for tl := range a.cover.listings() {
		timelines = append(timelines, tl)
	}
	z := a.archive.SegmentSize()
	for _, tl := range timelines {
		from[tl] = max(z.At(tl, first.LSN).No, t.whole[tl])
	}
	for _, other := range a.reached() {
		for _, tl := range slices.Sorted(maps.Keys(from)) {
			if err := a.listOf(ctx, other, other.archive, tl, from[tl]); err != nil {
				a.noteOf(other, err)
				if other == t {
					return fmt.Errorf("list archive %s: %w", t.Name, err)
				}
				break // it is no source just now
			}
		}
	}
	for _, folder := range []string{"/floor/", "/resolved/"} {
		if err := a.copyFolder(ctx, t, folder); err != nil {
			return fmt.Errorf("copy %s to archive %s: %w", folder, t.Name, err)
		}
	}
	a.cover.recount()
	return nil
}

// copyFolder copies small objects that are not sealed.
func (a *Archiver) copyFolder(ctx context.Context, t *target, folder string) error {
	has := map[string]bool{}
	for info, err := range t.archive.store.List(ctx, t.archive.root+folder, "") {
		if err != nil {
			a.noteOf(t, err)
			return err
		}
		has[info.Key] = true
	}
	copied := false
	for _, other := range a.reached() {
		if other == t {
			continue
		}
		for info, err := range other.archive.store.List(ctx, other.archive.root+folder, "") {
			if err != nil {
				a.noteOf(other, err)
				break
			}
			if has[info.Key] || path.Dir(info.Key)+"/" != other.archive.root+folder {
				continue
			}
			b, err := other.archive.read(ctx, info.Key)
			if err != nil {
				a.noteOf(other, err)
				break
			}
			if err := t.archive.store.Put(ctx, info.Key, Bytes(bytes.Clone(b))); err != nil && !errors.Is(err, fs.ErrExist) {
				a.noteOf(t, err)
				return err
			}
			has[info.Key], copied = true, true
		}
	}
	if copied && folder == "/floor/" {
		return t.archive.ReadFloors(ctx)
	}
	return nil
}

// fillable gives what t lacks and another archive has, in the order of the WAL. What pg_wal still has for a required archive is left to the shipper.
func (a *Archiver) fillable(t *target) []wal.Name {
	has := a.cover.archivedIn(t.index)
	var lacks Set
	small := map[wal.Name]bool{}
	for _, other := range a.reached() {
		if other == t {
			continue
		}
		theirs := a.cover.archivedIn(other.index)
		lacks.Union(theirs.Minus(has))
		for n := range a.cover.smallIn(other.index) {
			if !a.cover.hasIn(t.index, n) {
				small[n] = true
			}
		}
	}
	pending := a.pending(t)
	var out []wal.Name
	add := func(n wal.Name) {
		if !pending[n] && !a.belowFloorOf(t, n) && !a.unfillable(t, n) {
			out = append(out, n)
		}
	}
	for n := range small {
		add(n)
	}
	z := a.archive.SegmentSize()
	for _, p := range lacks.Spans() {
		for no := p.First; no <= p.Last; no++ {
			add(wal.SegmentName(wal.Segment{Timeline: p.Timeline, Size: z, No: no}))
		}
	}
	slices.SortFunc(out, queue.Order)
	return out
}

// pending gives the files of pg_wal that the shipper is to put into t.
func (a *Archiver) pending(t *target) map[wal.Name]bool {
	out := map[wal.Name]bool{}
	if !t.Required {
		return out
	}
	line := a.line(a.scope.Last())
	below := a.completeBelow()
	for k := range a.names() {
		n := k.name
		if n.Kind != wal.KindSegment || !line.Holds(n.Segment) || !k.kept && !below(k) || k.read != nil && !a.shippable(n, k.read) {
			continue
		}
		if why, failed := a.whyFailed(n); failed && !errors.Is(why, errOneLacks) {
			continue
		}
		out[n] = true
	}
	return out
}

// whyFailed is whyNot with all reasons.
func (a *Archiver) whyFailed(n wal.Name) (error, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.failed[n]
	return f.err, ok
}

// unfillable says whether nobody has a good object for t.
func (a *Archiver) unfillable(t *target, n wal.Name) bool {
	for _, other := range a.reached() {
		if other == t || !a.cover.hasIn(other.index, n) {
			continue
		}
		a.mu.Lock()
		spoiled := other.spoiled[n]
		a.mu.Unlock()
		if !spoiled {
			return false
		}
	}
	return true
}

// fillOne copies n to t from the first archive that has a good object, and says whether t has it now.
func (a *Archiver) fillOne(ctx context.Context, t *target, n wal.Name) (done bool, err error) {
	if !a.claim(n) {
		return false, nil // it is being shipped just now
	}
	defer a.unclaim(n)
	for _, other := range a.reached() {
		if other == t || !a.cover.hasIn(other.index, n) || a.cover.hasIn(t.index, n) {
			continue
		}
		kept, err := a.keepObject(ctx, other, n)
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist):
			a.cover.forgetIn(other.index, n)
			continue
		case hopeless(spoiled(err)):
			a.mu.Lock()
			known := other.spoiled[n]
			other.spoiled[n] = true
			a.mu.Unlock()
			if !known {
				a.log.Error("an object is damaged, and is not copied to another archive", "archive", other.Name, "file", n.String(), "why", err)
			}
			continue
		default:
			a.noteOf(other, err)
			continue
		}
		return a.putKept(ctx, t, n, kept)
	}
	return a.cover.hasIn(t.index, n), nil
}

// putKept puts a sealed object of another archive into t.
func (a *Archiver) putKept(ctx context.Context, t *target, n wal.Name, kept *seal.Kept) (done bool, err error) {
	defer kept.Close()
	a.mu.Lock()
	ours := a.hasBaton()
	a.mu.Unlock()
	if !ours {
		return false, nil // reading it may have taken a while
	}
	key := t.archive.Key(n)
	err = t.archive.Put(ctx, key, kept)
	a.noteOf(t, err)
	switch {
	case errors.Is(err, fs.ErrExist):
		same, err := t.sameObject(ctx, key, kept)
		if err != nil {
			a.noteOf(t, err)
			return false, err
		}
		if !same {
			a.clash(t, n)
		}
	case err != nil:
		return false, fmt.Errorf("copy %v to archive %s: %w", n, t.Name, err)
	default:
		a.mu.Lock()
		t.filled++
		t.taken = a.o.Now()
		a.mu.Unlock()
	}
	a.cover.addTo(t.index, n)
	return true, nil
}

// keepObject reads the sealed object of n from an archive, whole, and holds it against its name.
func (a *Archiver) keepObject(ctx context.Context, t *target, n wal.Name) (*seal.Kept, error) {
	r, err := t.archive.store.Get(ctx, t.archive.Key(n), 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	size := int64(a.archive.SegmentSize())
	kept, err := a.sealer.Keep(r, size+size/8+seal.HeaderRange)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(kept.Header, n, a.archive.id.SystemID, a.archive.SegmentSize()); err != nil {
		return nil, errors.Join(hopelessError{err}, kept.Close())
	}
	return kept, nil
}
