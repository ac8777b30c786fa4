package archiver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestExpire: the archive is whole after it, has what it kept and nothing else, and a second run has nothing to do.
func TestExpire(t *testing.T) {
	p, _ := restored(t)
	for _, n := range []wal.Name{segName(1, 6), segName(3, 16), wal.HistoryName(2)} {
		p.set(p.a.OrphanKey("n1", n, seal.DigestOf([]byte("x"))), p.object(seal.Header{Name: n.String()}, []byte("x")))
	}
	pl := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}})
	done, err := p.a.Expire(t.Context(), pl, held)
	if err != nil || done.Deleted != pl.Objects || done.Bytes != pl.Bytes || len(done.Raised) != 2 || done.Hidden {
		t.Fatalf("got %+v, %v; planned %d objects", done, err, pl.Objects)
	}
	rep := audit(t, p, archiver.AuditOptions{Deep: true})
	if !rep.Whole || rep.Count.Segments != 4 || rep.Count.Histories != 2 || rep.Count.Orphans != 2 || rep.Frontier != "0/1100000" {
		t.Errorf("afterwards: %s, counted %+v, frontier %s", found(rep), rep.Count, rep.Frontier)
	}
	if rep.Count.Segments+rep.Count.Backups != pl.Stays {
		t.Errorf("%d files stay, planned were %d", rep.Count.Segments+rep.Count.Backups, pl.Stays)
	}
	if again := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}}); !again.Empty() || again.From != pl.From {
		t.Errorf("once more: %s, from %s", outline(again), again.From)
	}
	for _, f := range p.a.Floors()[1:] {
		if f.By != "n1" || time.Since(f.Raised) > time.Minute {
			t.Errorf("the floor says %+v", f)
		}
	}
}

// TestExpireInterrupted: whichever request is the last one that gets through, the archive is whole above its floor, nothing was deleted that
// does not lie below it, and the next run finishes.
func TestExpireInterrupted(t *testing.T) {
	p, _ := restored(t)
	o := archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}}
	want, rounds := plan(t, p, o).Stays, 0
	for _, lost := range []bool{false, true} { // the store does the last one, and nobody hears of it
		for last, over := 1, false; !over; last++ {
			p.begin(t)
			changes := 0
			a := p.through(func(c mem.Call) mem.Fault {
				if c.Op == mem.OpPut || c.Op == mem.OpDelete {
					if changes++; changes >= last {
						return mem.Fault{Drop: !lost || changes > last, Lost: lost}
					}
				}
				return mem.Fault{}
			})
			pl, err := a.PlanExpire(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			e := held
			e.Workers = 1
			_, err = a.Expire(t.Context(), pl, e)
			rounds++
			if over = err == nil; over && changes >= last {
				t.Fatalf("change %d failed, and expire says that it is done", last)
			}
			p.open()
			if rep := audit(t, p, archiver.AuditOptions{}); !rep.Whole {
				t.Errorf("ended at change %d, lost %v: %s", last, lost, found(rep))
			}
			again := p.through(func(mem.Call) mem.Fault { return mem.Fault{} })
			if pl, err = again.PlanExpire(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if _, err := again.Expire(t.Context(), pl, held); err != nil {
				t.Fatal(err)
			}
			p.open()
			rep := audit(t, p, archiver.AuditOptions{})
			if got := rep.Count.Segments + rep.Count.Backups + rep.Count.Partials; !rep.Whole || got != want {
				t.Errorf("ended at change %d, lost %v, and run once more: %d files, want %d; %s", last, lost, got, want, found(rep))
			}
			p.undo()
		}
	}
	if all := plan(t, p, o); rounds != 2*(len(all.Raise)+all.Objects+1) {
		t.Errorf("%d rounds for %d floors and %d objects", rounds, len(all.Raise), all.Objects)
	}
}

// rememberDeletes lets a prepared archive undo what is put and deleted through it.
type rememberDeletes struct {
	*prepared
	mu sync.Mutex
}

// through opens the archive through it.
func (p *prepared) through(spoil func(mem.Call) mem.Fault) *archiver.Archive {
	p.t.Helper()
	a, err := archiver.OpenArchive(p.t.Context(), mem.NewFaults(&rememberDeletes{prepared: p}, spoil), "main", systemID)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (r *rememberDeletes) String() string { return r.store.String() }

func (r *rememberDeletes) Put(ctx context.Context, key string, b store.Body) error {
	r.mu.Lock()
	r.remember(key)
	r.mu.Unlock()
	return r.store.Put(ctx, key, b)
}

func (r *rememberDeletes) Delete(ctx context.Context, key string) error {
	r.mu.Lock()
	r.remember(key)
	r.mu.Unlock()
	return r.store.Delete(ctx, key)
}

func (r *rememberDeletes) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	return r.store.Get(ctx, key, from, n)
}

func (r *rememberDeletes) Head(ctx context.Context, key string) (store.Info, error) {
	return r.store.Head(ctx, key)
}

func (r *rememberDeletes) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return r.store.List(ctx, prefix, after)
}

// TestExpireFloorFirst: nothing is deleted before the archive gives back the floor, and nothing at all when it does not.
func TestExpireFloorFirst(t *testing.T) {
	p, _ := restored(t)
	swallow := false
	var order []string
	a, err := archiver.OpenArchive(t.Context(), mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		if c.Op == mem.OpPut || c.Op == mem.OpDelete {
			order = append(order, string(c.Op)+" "+strings.Split(c.Key, "/")[2])
		}
		return mem.Fault{Drop: swallow && c.Op == mem.OpPut, Err: fs.ErrExist}
	}), "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	pl, err := a.PlanExpire(t.Context(), archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}})
	if err != nil {
		t.Fatal(err)
	}
	swallow = true // a floor of this name is said to be there, and is not
	if done, err := a.Expire(t.Context(), pl, held); err == nil || done.Deleted != 0 || !strings.Contains(err.Error(), "does not give it back") {
		t.Errorf("got %+v, %v", done, err)
	}
	swallow, order = false, nil
	if _, err := a.Expire(t.Context(), pl, held); err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(order, "delete wal"); i != len(pl.Raise) {
		t.Errorf("the first delete was change %d of %q", i, order)
	}
}

// TestExpireOldestFirst: one worker deletes along the line, so what is left of it is whole at any moment.
func TestExpireOldestFirst(t *testing.T) {
	p, _ := restored(t)
	var deleted []string
	a, err := archiver.OpenArchive(t.Context(), mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		if c.Op == mem.OpDelete {
			deleted = append(deleted, c.Key)
		}
		return mem.Fault{}
	}), "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	pl, err := a.PlanExpire(t.Context(), archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}})
	if err != nil {
		t.Fatal(err)
	}
	e := held
	e.Workers = 1
	if _, err := a.Expire(t.Context(), pl, e); err != nil || !slices.IsSorted(deleted) || len(deleted) < 20 {
		t.Errorf("%v; deleted %q", err, deleted)
	}
}

// TestExpireOutsideATerm: a holder whose term has ended raises no floor and deletes nothing, and one that loses it on the way stops at the next batch.
func TestExpireOutsideATerm(t *testing.T) {
	p, _ := restored(t)
	lost := errors.New("n2 has the baton")
	pl := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}})
	n := p.store.Len()
	e := archiver.Expirer{Held: func(context.Context) error { return lost }}
	if done, err := p.a.Expire(t.Context(), pl, e); !errors.Is(err, lost) || p.store.Len() != n {
		t.Errorf("without the baton: %+v, %v; %d objects, had %d", done, err, p.store.Len(), n)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	e.Held = func(context.Context) error { cancel(lost); return nil } // the answer came, and the term ended meanwhile
	if done, err := p.a.Expire(ctx, pl, e); !errors.Is(err, lost) || p.store.Len() != n {
		t.Errorf("the term ended: %+v, %v; %d objects, had %d", done, err, p.store.Len(), n)
	}
	asked := 0
	e.Held = func(context.Context) error {
		if asked++; asked > 1 {
			return lost
		}
		return nil
	}
	if done, err := p.a.Expire(t.Context(), pl, e); !errors.Is(err, lost) || p.store.Len() != n+len(pl.Raise) || done.Deleted != 0 || len(done.Raised) != 2 {
		t.Errorf("lost before the first batch: %+v, %v; %d objects, had %d", done, err, p.store.Len(), n)
	}
}

// TestExpireByTwo: two who raise the same floor meet, and both may go on.
func TestExpireByTwo(t *testing.T) {
	p, _ := restored(t)
	other, err := archiver.OpenArchive(t.Context(), p.store, "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	o := archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}}
	first, second := plan(t, p, o), plan(t, p, o)
	if _, err := p.a.Expire(t.Context(), first, held); err != nil {
		t.Fatal(err)
	}
	if done, err := other.Expire(t.Context(), second, held); err != nil || len(done.Raised) != 2 {
		t.Errorf("the second: %+v, %v", done, err)
	}
	if rep := audit(t, p, archiver.AuditOptions{}); !rep.Whole {
		t.Error(found(rep))
	}
}

// TestExpireRefused: a store that lets us write and not delete. The floor counts, and the error says what it is about.
func TestExpireRefused(t *testing.T) {
	p, _ := restored(t)
	a, err := archiver.OpenArchive(t.Context(), mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		return mem.Fault{Drop: c.Op == mem.OpDelete, Err: fs.ErrPermission}
	}), "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	o := archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}}
	pl, err := a.PlanExpire(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	done, err := a.Expire(t.Context(), pl, held)
	if !errors.Is(err, archiver.ErrMayNotDelete) || done.Deleted != 0 || len(done.Raised) != 2 || !a.BelowFloor(segName(1, 3)) {
		t.Errorf("got %+v, %v", done, err)
	}
	if again := plan(t, p, o); len(again.Raise) != 0 || again.Objects != pl.Objects {
		t.Errorf("afterwards: %s", outline(again))
	}
}

// TestFetchExpired: a recovery that needs what was expired stops with a clear line, also when nothing at all is left of its timeline, and when
// the one who asks has not heard of the floor.
func TestFetchExpired(t *testing.T) {
	p, _ := restored(t)
	for _, late := range []bool{false, true} {
		p.begin(t)
		r, err := archiver.NewRestorer(archiver.RestoreOptions{Own: archiver.Source{Store: p.store, Scope: "main"}, DataDir: dataDir(t, systemID, "recovery.signal"), Recovery: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		dst := t.TempDir() + "/RECOVERYXLOG"
		if o := r.Fetch(t.Context(), segName(1, 2).String(), dst); late && o.Code != archiver.Restored {
			t.Fatalf("before: %+v", o)
		}
		a := p.through(func(mem.Call) mem.Fault { return mem.Fault{} })
		if _, err := a.Expire(t.Context(), plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(12)}}), held); err != nil {
			t.Fatal(err)
		}
		for _, n := range []wal.Name{segName(1, 3), segName(2, 6), segName(3, 12)} {
			if o := r.Fetch(t.Context(), n.String(), dst); o.Code != archiver.CannotSay || !strings.Contains(o.Why, "it was expired") {
				t.Errorf("%v: %+v", n, o)
			}
		}
		if o := r.Fetch(t.Context(), segName(3, 13).String(), dst); o.Code != archiver.Restored {
			t.Errorf("what was kept: %+v", o)
		}
		p.undo()
	}
}

// TestReadFloors: of thousands of floors only those are read that say something the others do not; a branch's floor counts for that branch alone.
func TestReadFloors(t *testing.T) {
	p := prepare(t, seg(1, 1))
	put := func(name string, f archiver.Floor) {
		b, err := f.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		p.write("main/7710542482846769188/floor/"+name, b)
	}
	for i := range uint64(500) {
		put(fmt.Sprintf("00000001%016X", i<<20), archiver.Floor{Timeline: 1, LSN: wal.LSN(i << 20)})
	}
	put("000000020000000000A00000", archiver.Floor{Timeline: 2, LSN: 10 << 20, Ancestors: []wal.Timeline{1}})
	put("000000030000000000900000", archiver.Floor{Timeline: 3, LSN: 9 << 20, Ancestors: []wal.Timeline{1, 2}})
	put("000000040000000025800000-alone", archiver.Floor{Timeline: 4, LSN: 600 << 20, Alone: true})
	put("000000040000000000500000", archiver.Floor{Timeline: 4, LSN: 5 << 20, Ancestors: []wal.Timeline{1}})
	gets := 0
	a, err := archiver.OpenArchive(t.Context(), mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		if c.Op == mem.OpGet && strings.Contains(c.Key, "/floor/") {
			gets++
		}
		return mem.Fault{}
	}), "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	if gets != 5 {
		t.Errorf("%d floors were read, want 5", gets)
	}
	for g, want := range map[wal.Segment]bool{
		seg(1, 498): true, seg(1, 499): false, seg(2, 9): true, seg(2, 10): false, seg(3, 8): true, seg(3, 9): false, seg(4, 599): true, seg(4, 600): false, seg(5, 1): false,
	} {
		if got := a.BelowFloor(wal.SegmentName(g)); got != want {
			t.Errorf("%v below a floor: %v, want %v", g, got, want)
		}
	}
	// Where the line is timeline 2, what was expired of a branch is no floor of it.
	if got := a.FloorOn(wal.History{Timeline: 2, Forks: []wal.Fork{{Timeline: 1, End: 8 << 20}}}); got != 10<<20 {
		t.Errorf("the floor of the line is %v", got)
	}
}
