package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
)

// restore_from names archives of servers with our system identifier: a clone's origin, or the other site of a standby
// cluster. Since they parted, each of the two counts its timelines alone: timeline 7 of the one is another WAL than timeline
// 7 of the other, its twin. What is read from another archive must not be a twin's.

// with gives the archives that may be asked about timeline t: the own one, and those of restore_from whose timeline t is ours.
func (f *finder) with(ctx context.Context, t wal.Timeline) ([]*Archive, error) {
	if len(f.r.o.Others) == 0 || t <= 1 {
		return f.archives, nil // nobody is promoted to timeline 1
	}
	var out []*Archive
	for _, a := range f.archives {
		twin := false
		if a != f.w.own {
			h, _, err := f.rawHistory(ctx, a, t)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if err == nil {
				if twin, err = f.isTwin(ctx, a, h); err != nil {
					return nil, err
				}
			}
		}
		if !twin {
			out = append(out, a)
		}
	}
	return out, nil
}

// isTwin says whether h, from archive a, leads over a timeline of the same number as one of ours that is another one: it
// began elsewhere, or its first segment has another content.
func (f *finder) isTwin(ctx context.Context, a *Archive, h wal.History) (bool, error) {
	for i := 1; i <= len(h.Forks); i++ {
		t := h.Timeline
		if i < len(h.Forks) {
			t = h.Forks[i].Timeline
		}
		ours, err := f.ourHistory(ctx, t)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		same := slices.EqualFunc(ours.Forks, h.Forks[:i], func(x, y wal.Fork) bool { return x.Timeline == y.Timeline && x.End == y.End })
		if !same {
			return true, nil
		}
		// Two recoveries to one point in time begin their timelines at the same place.
		if same, err = f.sameStart(ctx, a, t, h.Forks[i-1].End); !same || err != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// ourHistory is that of our own archive, or else of this server's pg_wal, which knows it before the archive does.
func (f *finder) ourHistory(ctx context.Context, t wal.Timeline) (wal.History, error) {
	if f.w.own != nil {
		h, _, err := f.rawHistory(ctx, f.w.own, t)
		if !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
	}
	if f.r.o.DataDir == "" {
		return wal.History{}, fs.ErrNotExist
	}
	b, err := os.ReadFile(filepath.Join(f.r.o.DataDir, "pg_wal", wal.HistoryName(t).String()))
	if err != nil {
		return wal.History{}, err
	}
	h, err := historyOf(t, b)
	if err != nil {
		return wal.History{}, fs.ErrNotExist // half a file says nothing
	}
	return h, nil
}

// sameStart compares the first segments of timeline t, by the digests in their headers, where both archives have them.
func (f *finder) sameStart(ctx context.Context, a *Archive, t wal.Timeline, begin wal.LSN) (bool, error) {
	if f.w.own == nil {
		return true, nil
	}
	first := wal.SegmentName(f.w.size.At(t, begin))
	ours, err := f.w.own.Header(ctx, f.w.own.Key(first))
	if err == nil {
		theirs, err := a.Header(ctx, a.Key(first))
		if err == nil {
			return theirs.Digest == ours.Digest, nil
		}
		if !unusable(err) {
			return false, fmt.Errorf("compare timeline %d with that of %s: %w", t, a, err)
		}
		return true, nil
	}
	if !unusable(err) {
		return false, fmt.Errorf("compare timeline %d with that of %s: %w", t, a, err)
	}
	return true, nil
}
