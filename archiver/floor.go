package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver/wal"
)

// aloneSuffix ends the key of a floor that carries no ancestors.
const aloneSuffix = "-alone"

// floorKey names a later floor by what it says, so that two who raise the same one meet.
func (a *Archive) floorKey(f Floor) string {
	key := fmt.Sprintf("%s/floor/%v%016X", a.root, f.Timeline, uint64(f.LSN))
	if f.Alone {
		key += aloneSuffix
	}
	return key
}

// keyedFloor is what the key of a floor says of it: all but its ancestors. Other keys say nothing.
func keyedFloor(key string) (Floor, bool) {
	name, isAlone := strings.CutSuffix(path.Base(key), aloneSuffix)
	if len(name) != 24 {
		return Floor{}, false
	}
	t, err := wal.ParseTimeline(name[:8])
	lsn, err2 := wal.ParseLSN(name[8:16] + "/" + name[16:])
	return Floor{Timeline: t, LSN: lsn, Alone: isAlone}, err == nil && err2 == nil
}

// covers says whether o says nothing that f does not say. The ancestors of o need not be known: those of an ancestor, and of the timeline itself, are f's
// too, unless f is alone.
func (f Floor) covers(o Floor) bool {
	return o.LSN <= f.LSN && (slices.Contains(f.Ancestors, o.Timeline) || f.Timeline == o.Timeline && (o.Alone || !f.Alone))
}

// same says whether two floors say the same.
func (f Floor) same(o Floor) bool {
	return f.Timeline == o.Timeline && f.LSN == o.LSN && f.Alone == o.Alone
}

// ReadFloors reads the later floors anew; expire may have raised one since the last time. One that another covers is not read: expire raises one a day, for years.
func (a *Archive) ReadFloors(ctx context.Context) error {
	floors := []Floor{a.id.Floor}
	var keys []string
	for info, err := range a.store.List(ctx, a.root+"/floor/", "") {
		if err != nil {
			return fmt.Errorf("read the floors: %w", err)
		}
		keys = append(keys, info.Key)
	}
	for _, key := range slices.Backward(keys) { // the highest of a timeline first, and the newest timeline
		said, ok := keyedFloor(key)
		if ok && slices.ContainsFunc(floors[1:], func(f Floor) bool { return f.covers(said) }) {
			continue
		}
		b, err := a.read(ctx, key)
		if err != nil {
			return fmt.Errorf("read floor: %w", err)
		}
		var f Floor
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("read floor %s: %w", key, err)
		}
		floors = append(floors, f)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.floors = floors
	return nil
}

// raise writes a floor, unless somebody has, and reads the floors back: from then on it counts.
func (a *Archive) raise(ctx context.Context, floors []Floor) error {
	for _, f := range floors {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if err := a.store.Put(ctx, a.floorKey(f), Bytes(append(b, '\n'))); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("raise the floor: %w", err)
		}
	}
	if err := a.ReadFloors(ctx); err != nil {
		return err
	}
	for _, f := range floors {
		// Also when somebody else was faster: what lies below ours is deleted only if the archive says so.
		if below := belowAny(a.Floors()); slices.ContainsFunc(append(slices.Clone(f.Ancestors), f.Timeline), func(t wal.Timeline) bool {
			return !below(wal.SegmentName(a.id.SegmentSize.Before(t, f.LSN)))
		}) {
			return fmt.Errorf("raise the floor: %s was put, and the archive does not give it back", a.floorKey(f))
		}
	}
	return nil
}
