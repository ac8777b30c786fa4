package window

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/wal"
)

// File is a segment that the window has.
type File struct {
	w *Window
	f *file
}

// From is what Fetch said of it.
func (f *File) From() any { return f.f.from }

// Move gives the file the name base in the folder root, in place of what is there. On another file system it is copied. After an error that name holds what it held before, and the caller asks the archive.
func (f *File) Move(root *os.Root, base string) error {
	err := f.unchanged()
	if err == nil {
		err = durable.Move(f.f.path, root, base)
	}
	if errors.Is(err, syscall.EXDEV) {
		err = f.copy(root, base)
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if err != nil {
		f.w.alone(f.f.key)
		return err
	}
	if f.w.files[f.f.key] == f.f {
		delete(f.w.files, f.f.key)
	}
	return nil
}

// unchanged says whether the file is still the one that was checked.
func (f *File) unchanged() error {
	now, err := os.Lstat(f.f.path)
	if err != nil {
		return err
	}
	if was := f.f.info; !os.SameFile(was, now) || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime()) {
		return errors.New("the prefetched file " + f.f.path + " is another one now")
	}
	return nil
}

func (f *File) copy(root *os.Root, base string) error {
	src, err := os.Open(f.f.path)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := durable.Give(root, base, src, 0o600); err != nil {
		return err
	}
	if err := os.Remove(f.f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.w.log.Warn("prefetched file not removed", "file", f.f.path, "why", err)
	}
	return nil
}

// Ask tells the window that PostgreSQL asks for k, and gives the file if it is there, or after waiting for it if it is under
// way. nil: the caller asks the archive. It calls moves when bytes have begun to come, and does not wait beyond ctx.
func (w *Window) Ask(ctx context.Context, k Key, moves func()) *File {
	w.mu.Lock()
	w.asked, w.asks = time.Now(), Key{}
	f := w.files[k]
	switch {
	case f == nil, f.is() && f.err != nil:
		delete(w.files, k)
		if k == w.next {
			w.further()
		}
		w.alone(k)
		w.mu.Unlock()
		return nil
	case f.is():
		w.nearer(f)
		w.how = "window"
		w.mu.Unlock()
		return &File{w, f}
	}
	w.further()
	w.mu.Unlock()
	w.ring()
	coming := f.moves
	for {
		select {
		case <-coming:
			moves()
			coming = nil
		case <-f.done:
			w.mu.Lock()
			defer w.mu.Unlock()
			if f.err != nil {
				if w.files[k] == f {
					delete(w.files, k)
				}
				w.alone(k)
				return nil
			}
			w.how = "waited"
			return &File{w, f}
		case <-ctx.Done():
			return nil
		}
	}
}

// alone notes that the call for k asks the archive by itself. The caller holds mu.
func (w *Window) alone(k Key) {
	w.asks, w.how = k, "archive"
}

// answered counts a call. The caller holds mu.
func (w *Window) answered() {
	switch w.how {
	case "window":
		w.tally.Window++
	case "waited":
		w.tally.Waited++
	case "archive":
		w.tally.Archive++
	default:
		return
	}
	w.m.calls.WithLabelValues(w.how).Inc()
	w.how = ""
}

// further: a segment was not ready. nearer: one was. The caller holds mu.
func (w *Window) further() {
	if w.ahead > 0 {
		w.ahead = min(2*w.ahead, max(w.most(w.next.Segment.Size), least))
	}
}

func (w *Window) nearer(f *file) {
	if lay, took := time.Since(f.ended), f.ended.Sub(f.begun); lay > tooEarly+4*took {
		w.ahead = max(w.ahead-1, least)
	}
}

// Given tells the window that PostgreSQL has k, from wherever. What comes after it is fetched from now on.
func (w *Window) Given(k Key) {
	defer w.ring()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.asks = time.Now(), Key{}
	if w.how == "archive" {
		w.forget(0) // it has come, or the archive answers again: so may others
	}
	w.answered()
	w.told = false
	if !w.runs || k == w.last { // the end of a recovery asks once more
		return
	}
	if k != w.next {
		w.ahead = max(w.o.Workers, least)
	}
	if w.line.Timeline != 0 && w.on(k.Segment) != k.Segment.Timeline {
		w.line = wal.History{} // it follows another one
	}
	w.last, w.next = k, w.after(k)
	w.tidy()
}

// Follow tells the window that the recovery was given a history. Before the first segment it asks for those of higher and higher
// timelines, or for that of its target, and then for those of all lower numbers, ancestors or not (restoreTimeLineHistoryFiles of
// timeline.c): the highest is its target's.
func (w *Window) Follow(h wal.History) {
	defer w.ring()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.runs {
		return
	}
	w.asked = time.Now()
	if w.told && h.Timeline <= w.line.Timeline {
		return
	}
	w.line, w.told = h, true
	if w.last != (Key{}) {
		w.next = w.after(w.last)
		w.tidy()
	}
}

// after is what PostgreSQL asks for when it has replayed k: the next number, on the newest timeline of the line that has begun
// there (XLogFileReadAnyTLI of xlogrecovery.c). The caller holds mu.
func (w *Window) after(k Key) Key {
	k.Segment = k.Segment.Next()
	if _, ok := w.line.End(k.Segment.Timeline); ok {
		k.Segment = k.Segment.On(max(k.Segment.Timeline, w.on(k.Segment)))
	}
	return k
}

// on is the newest timeline of the line that has begun by the end of the segment, 0 without a line. The caller holds mu.
func (w *Window) on(s wal.Segment) (t wal.Timeline) {
	for _, f := range w.line.Forks {
		if t = f.Timeline; f.End >= s.End() {
			return t
		}
	}
	return w.line.Timeline
}

// tidy throws away what is off the plan. The caller holds mu.
func (w *Window) tidy() {
	planned := map[Key]bool{}
	k := w.next
	for range w.most(k.Segment.Size) {
		planned[k] = true
		k = w.after(k)
	}
	for _, f := range w.files {
		if !planned[f.key] {
			w.drop(f)
		}
	}
}
