package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is what an Archiver asks of "the archive" where that may be several. With one, each function is that one's request and nothing else.

// ask puts one question to several archives at the same time. It is an error when no required one answers.
func (a *Archiver) ask(ctx context.Context, targets []*target, f func(*target) error) error {
	errs := make([]error, len(targets))
	var all []func()
	for i, t := range targets {
		all = append(all, func() {
			errs[i] = f(t)
			a.noteOf(t, errs[i])
		})
	}
	a.o.Together(all...)
	var failed error
	for i, t := range targets {
		if errs[i] == nil && t.Required {
			return nil
		}
		if errs[i] != nil && failed == nil {
			failed = fmt.Errorf("archive %s: %w", t.Name, errs[i])
		}
	}
	if failed == nil {
		_, _, why := a.silent()
		failed = errors.New("no required archive answers: " + why)
	}
	return failed
}

// list reads the names of timeline tl from number `from` on: one request for each 1,000 of them.
func (a *Archiver) list(ctx context.Context, tl wal.Timeline, from uint64) error {
	if a.targets == nil {
		for o, err := range a.archive.List(ctx, tl, from) {
			if err != nil {
				return err
			}
			a.cover.add(o.Name)
		}
		a.cover.wantListing(tl, from)
		return nil
	}
	err := a.ask(ctx, a.reached(), func(t *target) error { return a.listOf(ctx, t, t.archive, tl, from) })
	if err == nil {
		a.cover.wantListing(tl, from) // also of those that come up only now
	}
	return err
}

// listHistories reads which histories the archive has.
func (a *Archiver) listHistories(ctx context.Context) error {
	if a.targets == nil {
		for o, err := range a.archive.Histories(ctx) {
			if err != nil {
				return err
			}
			a.cover.add(o.Name)
		}
		return nil
	}
	return a.ask(ctx, a.reached(), func(t *target) error {
		for o, err := range t.archive.Histories(ctx) {
			if err != nil {
				return err
			}
			a.cover.addTo(t.index, o.Name)
		}
		return nil
	})
}

// openedBy is Archive.Opened: some archive will do.
func (a *Archiver) openedBy(ctx context.Context, n wal.Name) (bool, error) {
	if a.targets == nil {
		open, err := a.archive.Opened(ctx, n)
		if open {
			a.cover.opened(n)
		}
		return open, err
	}
	found := make([]bool, len(a.targets))
	err := a.ask(ctx, a.reached(), func(t *target) (err error) {
		found[t.index], err = t.archive.Opened(ctx, n)
		switch {
		case !found[t.index]:
		case n.Kind == wal.KindHistory:
			a.cover.addTo(t.index, n)
		default:
			a.cover.opened(n)
		}
		return err
	})
	if slices.Contains(found, true) {
		return true, nil
	}
	return false, err
}

// open is Archive.Open: of the first archive that has it.
func (a *Archiver) open(ctx context.Context, key string) (seal.Header, io.ReadCloser, error) {
	if a.targets == nil {
		return a.archive.Open(ctx, key)
	}
	failed := error(fs.ErrNotExist)
	var head seal.Header
	for _, t := range a.reached() {
		h, r, err := t.archive.Open(ctx, key)
		if err == nil {
			return h, r, nil
		}
		a.noteOf(t, err)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(failed, seal.ErrEncrypted) {
			head, failed = h, err
		}
	}
	return head, nil, failed
}

// checkOther is Archive.Check of a copy of n that is another one than ours, if an archive has such a copy.
func (a *Archiver) checkOther(ctx context.Context, n wal.Name, ours seal.Digest) (seal.Header, error) {
	key := a.archive.Key(n)
	if t := a.differing(ctx, key, ours); t != nil {
		return t.archive.Check(ctx, key)
	}
	if a.targets == nil {
		return a.archive.Check(ctx, key)
	}
	for _, t := range a.reached() {
		if h, err := t.archive.Check(ctx, key); !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
	}
	return seal.Header{}, fs.ErrNotExist
}

// openOther is open for a copy of n that is another one than ours, if an archive has such a copy.
func (a *Archiver) openOther(ctx context.Context, n wal.Name, ours seal.Digest) (seal.Header, io.ReadCloser, error) {
	key := a.archive.Key(n)
	if t := a.differing(ctx, key, ours); t != nil {
		return t.archive.Open(ctx, key)
	}
	return a.open(ctx, key)
}

// differing gives the first of several archives whose object is another one, or damaged.
func (a *Archiver) differing(ctx context.Context, key string, ours seal.Digest) *target {
	if a.targets == nil {
		return nil
	}
	for _, t := range a.reached() {
		h, err := t.archive.Header(ctx, key)
		a.noteOf(t, err)
		if t.Required && (damaged(err) || err == nil && h.Digest != ours) {
			return t
		}
	}
	return nil
}

// theirs is Archive.Header of n: with several archives, of one whose object is not ours, else of one that has it; fs.ErrNotExist when a required one lacks it.
func (a *Archiver) theirs(ctx context.Context, n wal.Name, ours seal.Digest) (seal.Header, error) {
	key := a.archive.Key(n)
	if a.targets == nil {
		return a.archive.Header(ctx, key)
	}
	if t := a.differing(ctx, key, ours); t != nil {
		return t.archive.Header(ctx, key)
	}
	var got seal.Header
	lacks, silent := "", a.waitsFor(n)
	for _, t := range a.reached() {
		h, err := t.archive.Header(ctx, key)
		a.noteOf(t, err)
		switch {
		case err == nil:
			got = h
		case !t.Required || errors.Is(err, fs.ErrNotExist) && a.belowFloorOf(t, n):
		case errors.Is(err, fs.ErrNotExist):
			lacks = t.Name
		default:
			silent = t.Name + ": " + err.Error()
		}
	}
	switch {
	case lacks != "" && got.Name != "":
		return seal.Header{}, fmt.Errorf("%w: archive %s lacks it: %w", errOneLacks, lacks, fs.ErrNotExist)
	case lacks != "":
		return seal.Header{}, fs.ErrNotExist
	case silent != "":
		return seal.Header{}, errors.New(silent)
	}
	return got, nil
}

// keptIn says whether every required archive has n, by asking them.
func (a *Archiver) keptIn(ctx context.Context, n wal.Name) bool {
	if a.cover.has(n) {
		return true
	}
	if a.targets == nil {
		if _, err := a.archive.store.Head(ctx, a.archive.Key(n)); err != nil {
			return false
		}
		a.cover.add(n)
		return true
	}
	for _, t := range a.reached() {
		if _, err := t.archive.store.Head(ctx, t.archive.Key(n)); err == nil {
			a.cover.addTo(t.index, n)
		}
	}
	return a.cover.has(n)
}

// keys lists what lies below a folder of the archive, or of some archive, in the order of the keys.
func (a *Archiver) keys(ctx context.Context, folder string) ([]string, error) {
	prefix := a.archive.root + folder
	of := func(archive *Archive) (out []string, err error) {
		for info, err := range archive.store.List(ctx, prefix, "") {
			if err != nil {
				return nil, err
			}
			out = append(out, info.Key)
		}
		return out, nil
	}
	if a.targets == nil {
		return of(a.archive)
	}
	each := make([][]string, len(a.targets))
	err := a.ask(ctx, a.reached(), func(t *target) (err error) {
		each[t.index], err = of(t.archive)
		return err
	})
	all := slices.Concat(each...)
	slices.Sort(all)
	return slices.Compact(all), err
}

// resolutions is Archive.Resolutions of all archives that answer.
func (a *Archiver) resolutions(ctx context.Context) ([]Resolution, error) {
	if a.targets == nil {
		return a.archive.Resolutions(ctx)
	}
	keys, err := a.keys(ctx, "/resolved/")
	var out []Resolution
	for _, key := range keys {
		if r, ok := a.archive.parseResolutionKey(key); ok {
			out = append(out, r)
		}
	}
	return out, err
}

// resolution is Archive.Resolution of the first archive that has it.
func (a *Archiver) resolution(ctx context.Context, r Resolution) (Resolution, error) {
	if a.targets == nil {
		return a.archive.Resolution(ctx, r)
	}
	err := error(fs.ErrNotExist)
	for _, t := range a.reached() {
		var got Resolution
		if got, err = t.archive.Resolution(ctx, r); err == nil {
			return got, nil
		}
	}
	return r, err
}

// record is Archive.record in all archives that answer, one of which has to be required.
func (a *Archiver) record(ctx context.Context, r Resolution) error {
	if a.targets == nil {
		return a.archive.record(ctx, r)
	}
	return a.ask(ctx, a.reached(), func(t *target) error { return t.archive.record(ctx, r) })
}

// putOrphan puts a sealed object into orphans/: into every required archive, so that nothing is lost with one of them. fs.ErrExist: some had it.
func (a *Archiver) putOrphan(ctx context.Context, key string, body store.Body, d seal.Digest) error {
	put := func(archive *Archive, body store.Body) error {
		err := archive.Put(ctx, key, body)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		// The digest is part of the key; the header says whether the object is whole enough to be read.
		h, err := archive.Header(ctx, key)
		if err == nil && h.Digest != d {
			err = fmt.Errorf("%s holds other content", key)
		}
		return err
	}
	if a.targets == nil {
		return put(a.archive, body)
	}
	errs := make([]error, len(a.targets))
	var all []func()
	for _, t := range a.targets {
		if why := a.whySilent(t); why != "" {
			errs[t.index] = errors.New(why)
			continue
		}
		all = append(all, func() {
			errs[t.index] = put(t.archive, section(body))
			a.noteOf(t, errs[t.index])
		})
	}
	a.o.Together(all...)
	for _, t := range a.targets {
		if t.Required && errs[t.index] != nil {
			return fmt.Errorf("it has to be in every required archive, and %s: %w", t.Name, errs[t.index])
		}
	}
	return nil
}

// section is one more reader of a body.
func section(b store.Body) store.Body {
	if r, ok := b.(io.ReaderAt); ok {
		return io.NewSectionReader(r, 0, b.Size())
	}
	return b
}

// lacking gives the archives to which n is to be put now.
func (a *Archiver) lacking(n wal.Name) []*target {
	return slices.DeleteFunc(a.up(), func(t *target) bool { return t.behind || a.cover.hasOrBelow(t.index, n) })
}

// offer is Archive.Put under n's own key. With several archives the one sealed body goes to all that lack it at the same time, and it is stored when
// every required one has it. An optional one that takes longer than the others is filled later: nobody waits for it.
//
// fs.ErrExist: some archive has an object of that name, which is to be compared. So it is when some required archive did not take it from us just now.
func (a *Archiver) offer(ctx context.Context, n wal.Name, body store.Body) error {
	key := a.archive.Key(n)
	if a.targets == nil {
		return a.archive.Put(ctx, key, body)
	}
	targets := a.lacking(n)
	took := map[*target]bool{}
	errs := make([]error, len(targets))
	spare, cancel := context.WithCancel(ctx)
	defer cancel()
	left := a.newCountdown(targets, cancel)
	var all []func()
	for i, t := range targets {
		all = append(all, func() {
			within := ctx
			if t.Required {
				defer left.done()
			} else {
				within = spare
			}
			if p := mayPut(a.request(n, a.scope.Last())); i > 0 && !p.ok {
				errs[i] = fmt.Errorf("%w: %s", errNotOurs, p.why) // the one before may have taken a while
				return
			}
			errs[i] = t.archive.Put(within, key, section(body))
			a.tookOf(ctx, t, n, body, errs[i])
		})
	}
	if a.cover.open(n) {
		a.o.Together(all...)
	} else {
		// Whose the timeline is the first archive decides for the others.
		for i := 0; i < len(all) && (i == 0 || errs[i-1] == nil); i++ {
			all[i]()
		}
	}
	var failed []string
	exists := false
	for i, t := range targets {
		took[t] = errs[i] == nil
		switch {
		case errors.Is(errs[i], fs.ErrExist):
			exists = exists || t.Required
		case errs[i] != nil && t.Required:
			if ctx.Err() != nil {
				return errs[i]
			}
			failed = append(failed, "archive "+t.Name+": "+errs[i].Error())
		}
	}
	switch {
	case exists:
		return fs.ErrExist
	case len(failed) > 0:
		return fmt.Errorf("%w: %s", errOneLacks, strings.Join(failed, "; "))
	}
	if why := a.waitsFor(n); why != "" {
		return fmt.Errorf("%w: %s", errOneLacks, why)
	}
	for _, t := range a.targets {
		if t.Required && !took[t] && !a.belowFloorOf(t, n) {
			return fs.ErrExist // it had it already, or is up again since we looked
		}
	}
	return nil
}

// tookOf notes how a put of n into one of several archives ended.
func (a *Archiver) tookOf(ctx context.Context, t *target, n wal.Name, body store.Body, err error) {
	a.noteOf(t, err)
	switch {
	case err == nil:
		a.cover.addTo(t.index, n)
		a.mu.Lock()
		t.taken = a.o.Now()
		a.mu.Unlock()
	case t.Required || ctx.Err() != nil:
	case errors.Is(err, fs.ErrExist):
		a.cover.addTo(t.index, n)
		if same, err := t.sameObject(ctx, a.archive.Key(n), body); err == nil && !same {
			a.clash(t, n)
		}
	default:
		a.mu.Lock()
		t.behind = true
		a.mu.Unlock()
	}
}
