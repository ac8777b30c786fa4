package archiver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/wal"
)

// KeepHistories reads every history of the archives that is not kept here yet. Called at each change of leader,
// it lets a promotion see the numbers that are taken also when the store is silent. It needs the folder RestoreOptions.Kept.
func (r *Restorer) KeepHistories(ctx context.Context) error {
	w := &wanted{text: wal.HistoryName(1).String()}
	if err := r.identify(w); err != nil {
		return fmt.Errorf("keep histories: %w", err)
	}
	archives, err := r.open(ctx, w)
	if err != nil {
		return fmt.Errorf("keep histories: %w", err)
	}
	f := &finder{r: r, w: w, archives: archives}
	seen := map[wal.Timeline]bool{}
	for _, a := range archives {
		for o, err := range a.Histories(ctx) {
			if err != nil {
				return fmt.Errorf("keep histories: %w", err)
			}
			t := o.Name.Segment.Timeline
			if seen[t] || (a != w.own || len(r.o.Others) == 0) && r.isKept(w.systemID, t) {
				continue
			}
			ours, err := f.with(ctx, t)
			if err != nil {
				return fmt.Errorf("keep histories: %w", err)
			}
			if !slices.Contains(ours, a) {
				continue
			}
			seen[t] = true
			if _, err := f.readHistory(ctx, a, t); err != nil {
				return fmt.Errorf("keep histories: %w", err)
			}
		}
	}
	return nil
}

// Keeps says whether the history of t is kept; timeline 1 has none.
func (r *Restorer) Keeps(systemID uint64, t wal.Timeline) bool {
	return t <= 1 || r.isKept(systemID, t)
}

// keptDir is the folder of one cluster: two that follow one another in a place never mix.
func keptDir(systemID uint64) string { return strconv.FormatUint(systemID, 10) }

// keep writes a history into the folder. The archive's answer does not wait on that working. What the own archive has goes
// before what another one had: at the time nobody knew that it is a twin's.
func (r *Restorer) keep(systemID uint64, t wal.Timeline, b []byte, own bool) {
	if r.o.Kept == "" || !own && r.isKept(systemID, t) {
		return
	}
	if was, err := os.ReadFile(filepath.Join(r.o.Kept, keptDir(systemID), wal.HistoryName(t).String())); err == nil && bytes.Equal(was, b) {
		return
	}
	if err := r.keepFile(filepath.Join(keptDir(systemID), wal.HistoryName(t).String()), b); err != nil {
		r.log.Warn("history not kept", "file", wal.HistoryName(t).String(), "why", err)
	}
}

func (r *Restorer) keepFile(name string, b []byte) error {
	if err := os.MkdirAll(r.o.Kept, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.o.Kept)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.MkdirAll(root, filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return durable.Replace(root, name, bytes.NewReader(b), 0o600)
}

func (r *Restorer) isKept(systemID uint64, t wal.Timeline) bool {
	if r.o.Kept == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(r.o.Kept, keptDir(systemID), wal.HistoryName(t).String()))
	if err != nil {
		return false
	}
	_, err = historyOf(t, b)
	return err == nil
}

// fromKept answers a history without the archive: from the folder, or from pg_wal.
func (r *Restorer) fromKept(ctx context.Context, w *wanted) bool {
	t := w.name.Segment.Timeline
	if w.name.Kind != wal.KindHistory || t == 0 {
		return false
	}
	var places []string
	if r.o.Kept != "" {
		places = append(places, filepath.Join(r.o.Kept, keptDir(w.systemID), w.name.String()))
	}
	if r.o.DataDir != "" {
		places = append(places, filepath.Join(r.o.DataDir, "pg_wal", w.name.String()))
	}
	for _, path := range places {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if _, err := historyOf(t, b); err != nil {
			r.log.Warn("kept history not used", "file", path, "why", err)
			continue
		}
		if w.mode == onStandby && r.hidden(ctx, t) != "" {
			return false
		}
		f := &finder{r: r, w: w}
		if err := f.write(bytes.NewReader(b)); err != nil {
			r.log.Warn("kept history not written", "file", w.dst, "why", err)
			continue
		}
		return true
	}
	return false
}

// historyOf parses a history file. An empty one is no history of any timeline that has a file.
func historyOf(t wal.Timeline, b []byte) (wal.History, error) {
	h, err := wal.ParseHistory(t, bytes.NewReader(b))
	if err == nil && len(h.Forks) == 0 {
		err = fmt.Errorf("parse history of timeline %d: it names no ancestor", t)
	}
	return h, err
}
