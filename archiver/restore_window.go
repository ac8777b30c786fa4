package archiver

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/window"
)

// Prefetch fetches the segments that a recovery will ask for next, until ctx ends. It returns at once when
// RestoreOptions.Ahead is nil.
func (r *Restorer) Prefetch(ctx context.Context) error {
	if r.window == nil {
		return nil
	}
	return r.window.Run(ctx)
}

// Prefetched says what prefetching did; all zero where there is none.
func (r *Restorer) Prefetched() window.Tally {
	if r.window == nil {
		return window.Tally{}
	}
	return r.window.Tally()
}

func (w *wanted) key() window.Key {
	return window.Key{SystemID: w.systemID, Segment: w.name.Segment}
}

// mayPrefetch says whether the call is one of a server that replays: pg_rewind asks backwards, and people for one file.
func (f *finder) mayPrefetch() bool {
	return f.r.window != nil && (f.w.mode == inRecovery || f.w.mode == onStandby)
}

// fromWindow gives the segment from the window. false: the archives are asked, as if there were none. What
// hides a segment was asked already, for this call.
func (f *finder) fromWindow(ctx context.Context) bool {
	if !f.mayPrefetch() {
		return false
	}
	got := f.r.window.Ask(ctx, f.w.key(), f.moves)
	if got == nil || !f.stillOurs(ctx, got) {
		return false
	}
	f.moves()
	dir, base := filepath.Split(f.w.dst)
	root, err := os.OpenRoot(filepath.Clean(dir))
	if err != nil {
		return false // the way without a window says why
	}
	defer root.Close()
	if err := got.Move(root, base); err != nil {
		f.r.log.Debug("prefetched segment not given", "file", f.w.text, "why", err)
		return false
	}
	return true
}

// stillOurs says whether the archive that the file came from may be asked about its timeline now: since then our own cluster may
// have begun a timeline of that number.
func (f *finder) stillOurs(ctx context.Context, got *window.File) bool {
	archives, err := f.with(ctx, f.w.name.Segment.Timeline)
	return err == nil && slices.ContainsFunc(archives, func(a *Archive) bool { return a == got.From() })
}

// follow tells the window which line the recovery takes.
func (f *finder) follow(t wal.Timeline, history []byte) {
	if !f.mayPrefetch() {
		return
	}
	if h, err := historyOf(t, history); err == nil {
		f.r.window.Follow(h)
	}
}

// fetchAhead writes a segment for the window, by the rules of a call.
func (r *Restorer) fetchAhead(ctx context.Context, k window.Key, path string, moves func()) (from any, err error) {
	n := wal.SegmentName(k.Segment)
	w := &wanted{text: n.String(), dst: path, mode: inRecovery, name: n, systemID: k.SystemID, size: k.Segment.Size}
	archives, err := r.open(ctx, w)
	if err != nil {
		return nil, err
	}
	f := &finder{r: r, w: w, archives: archives, moves: moves}
	if err := f.take(ctx, n); err != nil {
		return nil, err
	}
	return w.from, nil
}
