package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// ErrMayNotDelete means that the store lets us write and not delete. The floor that was raised counts all the same.
var ErrMayNotDelete = errors.New("the store does not let this user delete")

// expireBatch is how many objects are deleted between two looks at the term: a page of a listing.
const expireBatch = 1000

// Expirer deletes what lies below the floor (P2: nothing else ever deletes). It works inside a term.
type Expirer struct {
	// Held reads the term back from the DCS, linearizably: nil says that it is still ours. It is asked before the floor is raised and before each batch.
	Held func(ctx context.Context) error
	// By is written into the floor.
	By       string
	Workers  int                            // that delete at the same time; 0 means 8
	Progress func(deleted int, bytes int64) // told after each object, from one goroutine at a time; nil: nobody
}

// Expired is what an expire did, also when it ended with an error.
type Expired struct {
	Raised  []Floor `json:"raised"`
	Deleted int     `json:"deleted"` // objects
	Bytes   int64   `json:"bytes"`
	// Hidden says that the store keeps what was deleted, out of sight, until a rule of its owner removes it (versions, object lock).
	Hidden bool `json:"hidden"`
}

// Expire carries out a plan: it raises the floor first, reads it back, and then deletes what lies below any floor, oldest first. A run that was interrupted leaves
// objects below the floor, where nothing is promised, and the next one deletes them.
func (a *Archive) Expire(ctx context.Context, p *ExpirePlan, e Expirer) (Expired, error) {
	done := Expired{Raised: []Floor{}}
	if err := e.held(ctx); err != nil {
		return done, err
	}
	floors := slices.Clone(p.Raise)
	for i := range floors {
		floors[i].Raised, floors[i].By = time.Now().UTC().Truncate(time.Second), e.By
	}
	if err := a.raise(ctx, floors); err != nil {
		return done, fmt.Errorf("expire: %w", err)
	}
	done.Raised = append(done.Raised, floors...)
	err := a.sweep(ctx, e, &done)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %w", ErrMayNotDelete, err)
	}
	if done.Deleted > 0 {
		done.Hidden, _ = store.Hides(ctx, a.store) // who may not ask is told nothing
	}
	return done, err
}

func (e Expirer) held(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("expire: %w", err)
	}
	if err := e.Held(ctx); err != nil {
		return fmt.Errorf("expire: %w", err)
	}
	// The end of a term may have come while the DCS was asked.
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("expire: %w", err)
	}
	return nil
}

// sweep deletes all that lies below the floors, ancestors first and each timeline in the order of its LSNs: what is left of the line is whole at any time.
func (a *Archive) sweep(ctx context.Context, e Expirer, done *Expired) error {
	floors := a.Floors()
	timelines := map[wal.Timeline]bool{}
	for _, f := range floors {
		timelines[f.Timeline] = true
		for _, t := range f.Ancestors {
			timelines[t] = true
		}
	}
	below := belowAny(floors)
	var full []store.Info
	flush := func() error {
		err := a.deleteAll(ctx, e, full, done)
		full = full[:0]
		return err
	}
	add := func(info store.Info) error {
		if full = append(full, info); len(full) < expireBatch {
			return nil
		}
		return flush()
	}
	for _, t := range slices.Sorted(maps.Keys(timelines)) {
		for o, err := range a.List(ctx, t, 0) {
			if err != nil {
				return fmt.Errorf("expire: list timeline %d: %w", t, err)
			}
			if !below(o.Name) {
				break // what comes after it lies higher
			}
			if err := add(store.Info{Key: a.Key(o.Name), Size: o.Size}); err != nil {
				return err
			}
		}
	}
	for info, err := range a.orphansBelow(ctx, below) {
		if err != nil {
			return fmt.Errorf("expire: %w", err)
		}
		if err := add(info); err != nil {
			return err
		}
	}
	return flush()
}

// deleteAll deletes one batch, the oldest first, after a look at the term.
func (a *Archive) deleteAll(ctx context.Context, e Expirer, batch []store.Info, done *Expired) error {
	if len(batch) == 0 {
		return nil
	}
	if err := e.held(ctx); err != nil {
		return err
	}
	workers := e.Workers
	if workers <= 0 {
		workers = 8
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, info := range batch {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := context.Cause(gctx); err != nil {
				return err
			}
			if err := a.store.Delete(gctx, info.Key); err != nil {
				return fmt.Errorf("expire: delete %s: %w", info.Key, err)
			}
			mu.Lock()
			defer mu.Unlock()
			done.Deleted++
			done.Bytes += info.Size
			if e.Progress != nil {
				e.Progress(done.Deleted, done.Bytes)
			}
			return nil
		})
	}
	err := g.Wait()
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = fmt.Errorf("expire: %w", cause)
	}
	return err
}

// orphansBelow lists the copies in orphans/ of files that lie below a floor: nobody adopts them any more.
func (a *Archive) orphansBelow(ctx context.Context, below func(wal.Name) bool) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for info, err := range a.store.List(ctx, a.root+"/orphans/", "") {
			if err != nil {
				yield(store.Info{}, fmt.Errorf("look for orphans: %w", err))
				return
			}
			if n, ok := a.orphanName(info.Key); ok && below(n) && !yield(info, nil) {
				return
			}
		}
	}
}
