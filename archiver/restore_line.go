package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// onTheLine gives an *absentError for a segment that the line left inside or before it. An old
// primary may have shipped it whole, and a standby that replays it is past the fork; by streaming
// it stops there.
func (f *finder) onTheLine(ctx context.Context) error {
	s := f.w.name.Segment
	if f.r.o.Oracle != nil {
		line := f.r.o.Oracle.Line()
		if end, ok := line.End(s.Timeline); ok && end != wal.MaxLSN {
			if s.End() > end {
				return leftError(s, line)
			}
			return nil
		}
	}
	// The leader may have changed since, or nobody knows the line: the archive has the histories.
	for t := s.Timeline + 1; ; t++ {
		h, err := f.lookHistory(ctx, t)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		end, ok := h.End(s.Timeline)
		if !ok || s.End() <= end || f.r.hidden(ctx, t) != "" {
			continue
		}
		return leftError(s, h)
	}
}

func leftError(s wal.Segment, line wal.History) error {
	end, _ := line.End(s.Timeline)
	return absent("timeline %d ended at %v, and timeline %d goes on; the standby streams from there", s.Timeline, end, line.Timeline)
}

// notExpired gives an error for a segment below a floor: its archive promises nothing about it, so that it is not there proves no end of the
// WAL. The floors are read anew: one may have been raised since.
func (f *finder) notExpired(ctx context.Context) error {
	archives, err := f.with(ctx, f.w.name.Segment.Timeline)
	if err != nil {
		return err
	}
	for _, a := range archives {
		if err := a.ReadFloors(ctx); err != nil {
			return err
		}
		if a.BelowFloor(f.w.name) {
			return hopelessError{fmt.Errorf("%s lies below the floor of %s: it was expired, or is older than the archive, so the backup that needs it is older than what was kept; "+
				"walbaton list shows from where on there is WAL", f.w.name.Segment, a)}
		}
	}
	return nil
}

// noHole gives an error when the archive has WAL after the segment on its timeline: then something is
// missing here, and it is not the end.
func (f *finder) noHole(ctx context.Context) error {
	s := f.w.name.Segment
	archives, err := f.with(ctx, s.Timeline)
	if err != nil {
		return err
	}
	for _, a := range archives {
		for o, err := range a.List(ctx, s.Timeline, s.No+1) {
			if err != nil {
				return err
			}
			if o.Name.Kind != wal.KindSegment && o.Name.Kind != wal.KindPartial {
				continue
			}
			return fmt.Errorf("%s has a hole: %s is missing, and %s is there", a, s, o.Name)
		}
	}
	return nil
}

// notPastFork gives an error for the first segment of a timeline, which is absent, when the parent's segment of the
// same number is there: PostgreSQL would take that one and replay what the timeline never had.
func (f *finder) notPastFork(ctx context.Context) error {
	s := f.w.name.Segment
	h, err := f.lookHistory(ctx, s.Timeline)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(h.Forks) == 0 {
		return nil
	}
	parent := h.Forks[len(h.Forks)-1]
	if s.Size.At(s.Timeline, parent.End) != s {
		return nil
	}
	theirs := s.On(parent.Timeline)
	archives, err := f.with(ctx, parent.Timeline)
	if err != nil {
		return err
	}
	for _, a := range archives {
		_, err := a.store.Head(ctx, a.Key(wal.SegmentName(theirs)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("timeline %d began at %v, its first segment %s is missing, and %s goes on past that point with what timeline %d never had; "+
			"to recover along timeline %d set recovery_target_timeline = '%d'", s.Timeline, parent.End, s, theirs, s.Timeline, parent.Timeline, parent.Timeline)
	}
	return nil
}

// ownOrphan writes what this node once had under the name and the line left; fs.ErrNotExist when there is
// none. It goes before the archive's file: pg_rewind reads the WAL that this very server wrote.
func (f *finder) ownOrphan(ctx context.Context) error {
	a := f.w.own
	if a == nil || f.r.o.Member == "" {
		return fs.ErrNotExist
	}
	prefix := a.OrphanKey(f.r.o.Member, f.w.name, seal.Digest{})
	prefix = prefix[:len(prefix)-len(seal.Digest{}.String())]
	var keys []string
	for info, err := range a.store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("look for orphans of %s: %w", f.w.name, err)
		}
		keys = append(keys, info.Key)
	}
	switch len(keys) {
	case 0:
		return fs.ErrNotExist
	case 1:
		_, err := f.takeFrom(ctx, a, keys[0], f.w.name, func(seal.Header) bool { return true })
		f.w.note = fmt.Sprintf("%s is this member's own copy, from %s", f.w.name, keys[0])
		return err
	}
	return hopelessError{fmt.Errorf("orphans/%s has %d different files of this name, and only this server's WAL will do", f.r.o.Member, len(keys))}
}

// leaderWait is how long the DCS may take to name the leader. A promotion waits for the answer.
const leaderWait = 2 * time.Second

// hidden says why the history of t is not to be seen, or "". Only a leader that is another live member
// and known to be on a lower timeline hides it: to hide a number from a promotion makes it be used twice.
func (r *Restorer) hidden(ctx context.Context, t wal.Timeline) string {
	if r.o.Oracle == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	l, err := r.o.Oracle.Leader(ctx)
	if err != nil || l.Name == "" || l.Self || !l.Live || l.Standby || l.Timeline == 0 || l.Timeline >= t {
		return ""
	}
	return fmt.Sprintf("%s leads on timeline %d, so timeline %d is not this cluster's", l.Name, l.Timeline, t)
}

// lookHistory finds a history for a decision.
func (f *finder) lookHistory(ctx context.Context, t wal.Timeline) (wal.History, error) {
	archives, err := f.with(ctx, t)
	if err != nil {
		return wal.History{}, err
	}
	for _, a := range archives {
		h, b, err := f.rawHistory(ctx, a, t)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if b != nil {
			f.r.keep(f.w.systemID, t, b, a == f.w.own)
		}
		return h, err
	}
	return wal.History{}, fs.ErrNotExist
}

// readHistory reads a history from one archive, checks it and keeps it.
func (f *finder) readHistory(ctx context.Context, a *Archive, t wal.Timeline) ([]byte, error) {
	h, b, err := a.checkedHistory(ctx, t)
	if err != nil {
		return nil, spoiled(err)
	}
	f.r.mu.Lock()
	f.r.histories[historyKey{a, t}] = h
	f.r.mu.Unlock()
	f.r.keep(f.w.systemID, t, b, a == f.w.own)
	return b, nil
}

// rawHistory is what one archive has of a history, whether it is ours or a twin's. It never changes, so it is read once; the
// bytes come with the first reading alone.
func (f *finder) rawHistory(ctx context.Context, a *Archive, t wal.Timeline) (wal.History, []byte, error) {
	k := historyKey{a, t}
	f.r.mu.Lock()
	h, ok := f.r.histories[k]
	f.r.mu.Unlock()
	if ok {
		return h, nil, nil
	}
	h, b, err := a.checkedHistory(ctx, t)
	if err != nil {
		return wal.History{}, nil, spoiled(err)
	}
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.histories[k] = h
	return h, b, nil
}

// checkedHistory reads a history that is what its name says, and parses. Where one of several archives has a broken one, another one's will do.
func (a *Archive) checkedHistory(ctx context.Context, t wal.Timeline) (wal.History, []byte, error) {
	h, b, err := a.oneHistory(ctx, t)
	if err == nil || !hopeless(spoiled(err)) {
		return h, b, err
	}
	for _, one := range a.each() {
		if h, b, err := one.oneHistory(ctx, t); err == nil {
			return h, b, nil
		}
	}
	return h, b, err
}

func (a *Archive) oneHistory(ctx context.Context, t wal.Timeline) (wal.History, []byte, error) {
	n := wal.HistoryName(t)
	header, r, err := a.Open(ctx, a.Key(n))
	if err != nil {
		return wal.History{}, nil, err
	}
	defer r.Close()
	if err := checkHeader(header, n, a.id.SystemID, a.id.SegmentSize); err != nil {
		return wal.History{}, nil, fmt.Errorf("%s: %w", a.Key(n), err)
	}
	h, b, err := parseHistory(t, r)
	if err != nil {
		return wal.History{}, nil, fmt.Errorf("%s: %w", a.Key(n), err)
	}
	return h, b, nil
}

// parseHistory reads r to its end first: a broken object is another thing than a file that says nonsense.
func parseHistory(t wal.Timeline, r io.Reader) (wal.History, []byte, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return wal.History{}, nil, err
	}
	h, err := historyOf(t, b)
	if err != nil {
		return wal.History{}, nil, wrong(errNoHistory, "%v", err)
	}
	return h, b, nil
}
