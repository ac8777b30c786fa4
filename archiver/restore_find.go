package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// finder is one attempt at one file.
type finder struct {
	r        *Restorer
	w        *wanted
	archives []*Archive // in the order in which they are asked
	moves    func()     // is called when bytes begin to move: no deadline ends the attempt from then on
}

// segment finds a segment, or proves that there is none.
func (f *finder) segment(ctx context.Context) error {
	switch f.w.mode {
	case onStandby:
		if err := f.onTheLine(ctx); err != nil {
			return err
		}
	case inRewind:
		if err := f.ownOrphan(ctx); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f.fromWindow(ctx) {
		return nil
	}
	err := f.take(ctx, f.w.name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A rewind needs all that this server wrote, which a .partial of another one is not.
	if f.w.mode == inRecovery || f.w.mode == byHand {
		if err := f.notExpired(ctx); err != nil {
			return err
		}
		if err := f.noHole(ctx); err != nil {
			return err
		}
		partial := wal.Name{Kind: wal.KindPartial, Segment: f.w.name.Segment}
		if err := f.take(ctx, partial); !errors.Is(err, fs.ErrNotExist) {
			f.w.note = fmt.Sprintf("%s is from %s: its timeline ended inside it", f.w.name, partial)
			return err
		}
		if err := f.notPastFork(ctx); err != nil {
			return err
		}
		return f.prove(ctx, "has neither it nor WAL after it")
	}
	return f.prove(ctx, "does not have it")
}

// exact finds a .partial or .backup file, for people.
func (f *finder) exact(ctx context.Context) error {
	if err := f.take(ctx, f.w.name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.prove(ctx, "does not have it")
}

// history finds a history. On a standby it may be hidden: one that a test restore or a dead
// incarnation wrote would lead the standby away from its leader.
func (f *finder) history(ctx context.Context) error {
	t := f.w.name.Segment.Timeline
	archives, err := f.with(ctx, t)
	if err != nil {
		return err
	}
	for _, a := range archives {
		b, err := f.readHistory(ctx, a, t)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		f.moves()
		if f.w.mode == onStandby {
			if why := f.r.hidden(ctx, t); why != "" {
				return absent("it is there, but %s", why)
			}
		}
		err = f.write(bytes.NewReader(b))
		if err == nil {
			f.follow(t, b)
		}
		return err
	}
	return f.prove(ctx, "does not have it")
}

// prove ends a search that found nothing. The archives are looked at once more, after they answered:
// a disk that was unmounted meanwhile has no file either. found says what was looked for.
func (f *finder) prove(ctx context.Context, found string) error {
	for _, a := range f.archives {
		if _, err := a.store.Head(ctx, a.root+"/archive.json"); err != nil {
			return fmt.Errorf("look at %s again: %w", a, err)
		}
	}
	return absent("%s answered, and %s", names(f.archives), found)
}

func names(archives []*Archive) string {
	s := ""
	for i, a := range archives {
		if i > 0 {
			s += " and "
		}
		s += a.String()
	}
	return s
}

// take writes n from the first archive that has it; fs.ErrNotExist when all answered and none has. An archive
// that cannot be asked is not passed over: what it has goes before the next one's. A damaged copy is replaced by the next archive's only if that has the same digest.
func (f *finder) take(ctx context.Context, n wal.Name) error {
	var broken error
	var digest seal.Digest
	archives, err := f.with(ctx, n.Segment.Timeline)
	if err != nil {
		return err
	}
	for _, a := range archives {
		same := func(h seal.Header) bool { return broken == nil || h.Digest == digest }
		h, err := f.takeFrom(ctx, a, a.Key(n), n, same)
		if hopeless(err) {
			h, err = f.takeWhole(ctx, a, n, h, err, same)
		}
		switch {
		case err == nil:
			f.w.from = a
			return nil
		case errors.Is(err, fs.ErrNotExist):
		case hopeless(err) && h.Name != "" && broken == nil:
			broken, digest = err, h.Digest
		case broken != nil:
			return broken
		default:
			return err
		}
	}
	if broken != nil {
		return broken
	}
	return fs.ErrNotExist
}

// takeWhole is for an object that cannot be used in one of several archives that have the same WAL: another one may have it whole. What the header
// says is believed, so that the content is that which the broken one had.
func (f *finder) takeWhole(ctx context.Context, a *Archive, n wal.Name, broken seal.Header, why error, same func(seal.Header) bool) (seal.Header, error) {
	for _, one := range a.each() {
		h, err := f.takeFrom(ctx, one, a.Key(n), n, func(h seal.Header) bool { return same(h) && (broken.Name == "" || h.Digest == broken.Digest) })
		if err == nil {
			return h, nil
		}
	}
	return broken, why
}

// takeFrom writes the object under key if it is n of this cluster. An object that cannot be used is hopeless; its
// header comes with the error if that much was in order.
func (f *finder) takeFrom(ctx context.Context, a *Archive, key string, n wal.Name, accept func(seal.Header) bool) (seal.Header, error) {
	h, body, err := a.Open(ctx, key)
	if errors.Is(err, seal.ErrEncrypted) && checkHeader(h, n, f.w.systemID, f.w.size) == nil {
		return h, hopelessError{a.locked(err)}
	}
	if err != nil {
		return seal.Header{}, spoiled(err)
	}
	defer body.Close()
	if err := checkHeader(h, n, f.w.systemID, f.w.size); err != nil {
		return seal.Header{}, hopelessError{fmt.Errorf("%s: %w", key, err)}
	}
	if !accept(h) {
		return seal.Header{}, hopelessError{fmt.Errorf("%s: its content is another one", key)}
	}
	f.moves()
	src := io.Reader(body)
	if n.Kind == wal.KindSegment || n.Kind == wal.KindPartial {
		src = &ownPages{r: body, c: wal.NewChecker(n.Segment, f.w.systemID)}
	}
	from := &source{r: src}
	if err := f.write(from); err != nil {
		if from.err != nil {
			err = from.err // it is not the place that is wrong
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New(err.Error()) // the object was there: a folder that is not proves nothing about it
		}
		return h, spoiled(fmt.Errorf("restore %s: %w", key, err))
	}
	return h, nil
}

// source remembers what went wrong with reading.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// checkHeader says what is wrong with an object that is to be n, by its header.
func checkHeader(h seal.Header, n wal.Name, systemID uint64, size wal.SegmentSize) error {
	switch {
	case h.SystemID != systemID:
		return wrong(errOtherSystem, "it is of system identifier %d, not %d", h.SystemID, systemID)
	case h.Name != n.String():
		return wrong(errOtherFile, "it holds %s", h.Name)
	case (n.Kind == wal.KindSegment || n.Kind == wal.KindPartial) && h.Size != int64(size):
		return wrong(errOtherSize, "it holds %d bytes, a segment has %d", h.Size, size)
	}
	return nil
}

// What can be wrong with an object that is whole.
var (
	errOtherSystem = errors.New("object of another cluster")
	errOtherFile   = errors.New("object of another file")
	errOtherSize   = errors.New("object of another size")
	errBadWAL      = errors.New("no good WAL")
	errNoHistory   = errors.New("no history")
)

// wrongObject says it in words; the kind is for errors.Is.
type wrongObject struct {
	kind error
	why  string
}

func wrong(kind error, format string, args ...any) error {
	return &wrongObject{kind, fmt.Sprintf(format, args...)}
}

func (e *wrongObject) Error() string { return e.why }
func (e *wrongObject) Unwrap() error { return e.kind }

// damaged says whether err is of an object that the archive has and nobody can use: it is not one of ours, or not whole any more.
func damaged(err error) bool {
	return errors.Is(err, seal.ErrDamaged) || errors.Is(err, seal.ErrFormat)
}

// spoiled marks as hopeless what is wrong with an object, not with the way to it.
func spoiled(err error) error {
	var w *wrongObject
	if errors.As(err, &w) || damaged(err) || errors.Is(err, seal.ErrEncrypted) {
		return hopelessError{err}
	}
	return err
}

// ownPages fails at the end when what it read is another segment. WAL that is broken further in passes:
// an administrator may have accepted it, and PostgreSQL sees where it ends.
type ownPages struct {
	r io.Reader
	c *wal.Checker
}

func (o *ownPages) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	_, _ = o.c.Write(p[:n]) // never fails
	if err == io.EOF {
		if rep := o.c.Report(); rep.State == wal.Foreign {
			return n, wrong(errOtherFile, "it is not that segment: %s", rep.Why)
		}
	}
	return n, err
}

// write puts src at its place, whole and fsynced, or leaves the place alone.
func (f *finder) write(src io.Reader) error {
	dir, base := filepath.Split(f.w.dst)
	root, err := os.OpenRoot(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	f.r.sweep(root, dir)
	return durable.Give(root, base, src, 0o600)
}

// sweep removes, once, what processes that were killed have left in a folder.
func (r *Restorer) sweep(root *os.Root, dir string) {
	r.mu.Lock()
	done := r.swept[dir]
	r.swept[dir] = true
	r.mu.Unlock()
	if done {
		return
	}
	if _, err := durable.Sweep(root, ".", time.Now().Add(-time.Hour)); err != nil {
		r.log.Debug("leftover files not removed", "folder", dir, "why", err)
	}
}
