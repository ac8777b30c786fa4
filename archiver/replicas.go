package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// Replica is one of several archives that have the same WAL.
type Replica struct {
	Name     string
	Required bool
	Store    store.Store
}

// Replicas makes one Store of several for a Restorer, to read from. They are asked in their order, and one that does not answer is passed over when
// another one gives the object. An object is absent (P6) only when every required one says so: each has all that was ever acknowledged. A listing
// is that of all of them together.
//
// That archive.json is there is said by Head only when every required one has it: a Restorer asks for that before it calls a file absent, since an
// archive that is not mounted lacks everything. Floors are read of those that answer.
func Replicas(all []Replica) store.Store {
	r := &replicas{}
	for _, one := range all {
		r.all = append(r.all, &replica{Replica: one})
	}
	return r
}

type replicas struct{ all []*replica }

type replica struct {
	Replica
	mu     sync.Mutex
	silent time.Time // when it did not answer; zero when it did
}

const (
	// answerWait is how long a replica is waited for before the next one is asked. A standby waits two seconds in all.
	answerWait = 800 * time.Millisecond
	// avoidFor is how long one that did not answer is asked last.
	avoidFor = 10 * time.Second
)

func (r *replicas) String() string {
	var names []string
	for _, one := range r.all {
		names = append(names, one.Store.String())
	}
	return strings.Join(names, ", ")
}

// order gives those that answer before those that did not a moment ago.
func (r *replicas) order() (out []*replica) {
	var late []*replica
	for _, one := range r.all {
		one.mu.Lock()
		avoid := !one.silent.IsZero() && time.Since(one.silent) < avoidFor
		one.mu.Unlock()
		if avoid {
			late = append(late, one)
		} else {
			out = append(out, one)
		}
	}
	return append(out, late...)
}

func (o *replica) heard(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silent = time.Time{}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.silent = time.Now()
	}
}

// askOne is a request to one replica. What it gives is read with the context it got, until done is called; after an error nobody calls it.
type askOne func(ctx context.Context, s store.Store, done func()) error

// first asks one after the other until one gives the object, each for a moment; those that were silent then once more, as long as ctx allows.
func (r *replicas) first(ctx context.Context, ask askOne) error {
	var silent []*replica
	for _, one := range r.order() {
		err := one.briefly(ctx, ask)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			silent = append(silent, one)
		}
	}
	for _, one := range silent {
		err := ask(ctx, one.Store, func() {})
		one.heard(err)
		switch {
		case err == nil:
			return nil
		case one.Required && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("archive %s: %w", one.Name, err)
		}
	}
	return fs.ErrNotExist
}

// briefly asks one, and gives up when the answer does not come soon.
func (o *replica) briefly(ctx context.Context, ask askOne) error {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(answerWait, func() { cancel(errSilent) })
	err := ask(ctx, o.Store, func() { cancel(nil) })
	if !late.Stop() && err == nil {
		err = errSilent // a body would end with the context
	}
	o.heard(err)
	if err != nil {
		cancel(nil)
	}
	return err
}

func (r *replicas) Get(ctx context.Context, key string, from, n int64) (body io.ReadCloser, err error) {
	err = r.first(ctx, func(ctx context.Context, s store.Store, done func()) error {
		got, err := s.Get(ctx, key, from, n)
		if err != nil {
			return err
		}
		if body != nil {
			body.Close() // it came too late
		}
		body = &lasting{got, done}
		return nil
	})
	if err != nil && body != nil {
		body.Close()
	}
	return body, err
}

// lasting is a body whose context ends when it is closed.
type lasting struct {
	io.ReadCloser
	done func()
}

func (l *lasting) Close() error {
	defer l.done()
	return l.ReadCloser.Close()
}

func (r *replicas) Head(ctx context.Context, key string) (info store.Info, err error) {
	if !strings.HasSuffix(key, "/archive.json") {
		err = r.first(ctx, func(ctx context.Context, s store.Store, done func()) (err error) {
			if info, err = s.Head(ctx, key); err == nil {
				done()
			}
			return err
		})
		return info, err
	}
	for _, one := range r.all {
		if !one.Required {
			continue
		}
		if info, err = one.Store.Head(ctx, key); err != nil {
			return store.Info{}, fmt.Errorf("archive %s: %w", one.Name, err)
		}
	}
	return info, nil
}

// List is the union. Only floors are read of those alone that answer soon.
func (r *replicas) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	floors := strings.HasSuffix(prefix, "/floor/")
	return func(yield func(store.Info, error) bool) {
		var all []*listing
		for _, one := range r.all {
			l := one.list(ctx, prefix, after, floors || !one.Required)
			defer l.stop()
			all = append(all, l)
		}
		for {
			var least *listing
			for _, l := range all {
				if !l.over && (least == nil || l.info.Key < least.info.Key) {
					least = l
				}
			}
			if least == nil {
				break
			}
			info := least.info
			if !yield(info, nil) {
				return
			}
			for _, l := range all {
				for !l.over && l.info.Key <= info.Key {
					l.step()
				}
			}
		}
		var failed error
		answered := false
		for _, l := range all {
			answered = answered || l.of.Required && l.err == nil
			if l.of.Required && l.err != nil && failed == nil {
				failed = fmt.Errorf("archive %s: %w", l.of.Name, l.err)
			}
		}
		if failed != nil && !(floors && answered) {
			yield(store.Info{}, failed)
		}
	}
}

// listing is that of one replica, on its way.
type listing struct {
	of   *replica
	next func() (store.Info, error, bool)
	stop func()
	info store.Info
	err  error
	over bool
}

// list begins a listing; briefly says that it is given up when nothing comes soon.
func (o *replica) list(ctx context.Context, prefix, after string, briefly bool) *listing {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.NewTimer(answerWait)
	if briefly {
		late = time.AfterFunc(answerWait, func() { cancel(errSilent) })
	}
	next, stop := iter.Pull2(o.Store.List(ctx, prefix, after))
	l := &listing{of: o, next: next, stop: func() { stop(); cancel(nil) }}
	l.step()
	if !late.Stop() && briefly && l.err == nil {
		l.err, l.over = errSilent, true
	}
	o.heard(l.err)
	return l
}

func (l *listing) step() {
	info, err, ok := l.next()
	l.info, l.err, l.over = info, err, !ok || err != nil
}

var errReadOnly = errors.New("several archives read as one take nothing")

func (r *replicas) Put(context.Context, string, store.Body) error { return errReadOnly }
func (r *replicas) Delete(context.Context, string) error          { return errReadOnly }

// each gives the archive as it is in each of several replicas; none when there is one.
func (a *Archive) each() (out []*Archive) {
	r, ok := a.store.(*replicas)
	if !ok {
		return nil
	}
	for _, one := range r.order() {
		out = append(out, &Archive{store: one.Store, root: a.root, id: a.id, keys: a.keys, floors: a.Floors()})
	}
	return out
}
