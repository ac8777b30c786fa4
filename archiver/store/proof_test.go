package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

// broken is a store whose Put is spoiled.
type broken struct {
	*mem.Store
	put func(inner *mem.Store, ctx context.Context, key string, b store.Body) error
}

func (s broken) Put(ctx context.Context, key string, b store.Body) error {
	return s.put(s.Store, ctx, key, b)
}

func overwrite(s *mem.Store, ctx context.Context, key string, b store.Body) error {
	for {
		if err := s.Put(ctx, key, b); !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
	}
}

func TestProve(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]int) // puts, by key
	for _, test := range []struct {
		name string
		put  func(s *mem.Store, ctx context.Context, key string, b store.Body) error
		want error // nil: proven; errUnclear: neither proven nor refuted
	}{
		{"honest", (*mem.Store).Put, nil},
		{"overwrites", overwrite, store.ErrNotExclusive},
		{"stat, then rename", func(s *mem.Store, ctx context.Context, key string, b store.Body) error {
			if _, err := s.Head(ctx, key); err == nil {
				return fs.ErrExist
			}
			mu.Lock()
			seen[key]++ // wait until all have looked
			mu.Unlock()
			for n := 0; n < 4; {
				mu.Lock()
				n = seen[key]
				mu.Unlock()
			}
			return overwrite(s, ctx, key, b)
		}, store.ErrNotExclusive},
		{"honest to racers, not to latecomers", func(s *mem.Store, ctx context.Context, key string, b store.Body) error {
			mu.Lock()
			seen["late "+key]++
			late := seen["late "+key] > 4
			mu.Unlock()
			if late {
				return overwrite(s, ctx, key, b)
			}
			return s.Put(ctx, key, b)
		}, store.ErrNotExclusive},
		{"says taken and takes it", func(s *mem.Store, ctx context.Context, key string, b store.Body) error {
			err := s.Put(ctx, key, b)
			if errors.Is(err, fs.ErrExist) {
				_ = overwrite(s, ctx, key, b)
			}
			return err
		}, store.ErrNotExclusive},
		{"always says taken", func(*mem.Store, context.Context, string, store.Body) error { return fs.ErrExist }, errUnclear},
		{"down", func(*mem.Store, context.Context, string, store.Body) error { return mem.ErrFault }, mem.ErrFault},
		{"refuses", func(*mem.Store, context.Context, string, store.Body) error { return fs.ErrPermission }, fs.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			inner := mem.New("probed")
			err := store.Prove(t.Context(), broken{inner, test.put}, "scope/1", 0)
			switch {
			case test.want == errUnclear:
				if err == nil || errors.Is(err, store.ErrNotExclusive) {
					t.Errorf("got %v, want neither proof nor refutation", err)
				}
			case !errors.Is(err, test.want):
				t.Errorf("got %v, want %v", err, test.want)
			}
			if inner.Len() != 0 {
				t.Errorf("%d probes are left", inner.Len())
			}
		})
	}
}

var errUnclear = errors.New("unclear")

// Sidecars start together, and again; deletes may be denied.
func TestProveTogetherAndAgain(t *testing.T) {
	inner := mem.New("probed")
	s := mem.NewFaults(inner, func(c mem.Call) mem.Fault {
		if !strings.HasPrefix(c.Key, "scope/1/probe/") {
			t.Errorf("%s %s: not below the prefix", c.Op, c.Key)
		}
		return mem.Fault{Drop: c.Op == mem.OpDelete, Err: fs.ErrPermission}
	})
	for range 3 {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := store.Prove(t.Context(), s, "scope/1", 0); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if inner.Len() == 0 {
		t.Error("no probe is left, although deletes were denied")
	}
}

// varied puts large bodies in a way that overwrites.
type varied struct{ *mem.Store }

func (v varied) Variants(largest int64) []store.Variant {
	all := []store.Variant{{Name: "small", Store: v.Store}, {Name: "large", Store: broken{v.Store, overwrite}}}
	if largest > 100 {
		return all
	}
	return all[:1]
}

func TestProveEachWay(t *testing.T) {
	s := store.Retry(store.Meter(varied{mem.New("varied")}, store.NewMetrics(nil)), store.Backoff{})
	if err := store.Prove(t.Context(), s, "", 100); err != nil {
		t.Errorf("small bodies only: %v", err)
	}
	err := store.Prove(t.Context(), s, "", 101)
	if !errors.Is(err, store.ErrNotExclusive) || !strings.Contains(err.Error(), "large") {
		t.Errorf("large bodies: got %v, want ErrNotExclusive that names the way", err)
	}
}

func TestExact(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := bytes.NewReader([]byte("0123456789"))
	r, err := store.Exact(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("read of a cancelled body: got %v, want context.Canceled", err)
	}
}
