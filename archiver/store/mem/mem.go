// Package mem is a store in memory: the reference that the other drivers are held to, and
// the archive of tests and simulations.
//
// [Store] is a real store: it passes storetest. [Faults] wraps any store and spoils chosen
// requests the way a network does: a request that is delayed, that hangs, that never
// arrives, that arrives after the caller has gone, or whose answer is lost.
//
// Nothing here starts a goroutine or reads a clock that the caller cannot replace, so both
// work under testing/synctest and in a simulation that owns its time.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// Store keeps objects in memory. Two handles on one memory are the same *Store.
type Store struct {
	name string
	now  func() time.Time

	mu      sync.Mutex
	gone    bool
	objects map[string]object
}

type object struct {
	data     []byte // never changed once stored
	modified time.Time
}

// New returns an empty store. Its String is mem://name.
func New(name string) *Store {
	return &Store{name: name, now: time.Now, objects: make(map[string]object)}
}

// SetClock replaces the clock that stamps objects. Call it before the store is used.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// Unmount takes the root away, or gives it back: until then every request is store.ErrNoRoot.
func (s *Store) Unmount(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = gone
}

// Len is the number of objects.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects)
}

func (s *Store) String() string { return "mem://" + s.name }

// enter locks the store for one request about key, which the caller ends by unlocking.
func (s *Store) enter(ctx context.Context, verb, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return s.lock(ctx, verb, key)
}

func (s *Store) lock(ctx context.Context, verb, key string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return fmt.Errorf("%s %s: %w", verb, key, store.ErrNoRoot)
	}
	return nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	r, err := store.Exact(ctx, b)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	data := bytes.NewBuffer(make([]byte, 0, b.Size()+bytes.MinRead))
	if _, err := io.Copy(data, r); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if err := s.enter(ctx, "put", key); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken {
		return fmt.Errorf("put %s: %w", key, fs.ErrExist)
	}
	s.objects[key] = object{data: data.Bytes(), modified: s.now()}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	if err := store.CheckRange(from); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if err := s.enter(ctx, "get", key); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, fs.ErrNotExist)
	}
	data := o.data[min(from, int64(len(o.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return &reader{ctx: ctx, r: bytes.NewReader(data)}, nil
}

// reader ends with its context, as a connection would.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *reader) Close() error { return nil }

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, key string) (store.Info, error) {
	if err := s.enter(ctx, "head", key); err != nil {
		return store.Info{}, err
	}
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return store.Info{}, fmt.Errorf("head %s: %w", key, fs.ErrNotExist)
	}
	return store.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}, nil
}

// List implements store.Store. It yields what was there when it began.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		infos, err := s.list(ctx, prefix, after)
		for _, info := range infos {
			if err = context.Cause(ctx); err != nil {
				err = fmt.Errorf("list %s: %w", prefix, err)
				break
			}
			if !yield(info, nil) {
				return
			}
		}
		if err != nil {
			yield(store.Info{}, err)
		}
	}
}

func (s *Store) list(ctx context.Context, prefix, after string) ([]store.Info, error) {
	if err := s.lock(ctx, "list", prefix); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var infos []store.Info
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			infos = append(infos, store.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	slices.SortFunc(infos, func(a, b store.Info) int { return strings.Compare(a.Key, b.Key) })
	return infos, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.enter(ctx, "delete", key); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}
