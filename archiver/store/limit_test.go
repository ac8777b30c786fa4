package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

// What all stores send together takes the time that the limit says, and so does what they receive.
func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, size = 1 << 20, 5 << 20
		b := store.NewBandwidth(perSecond)
		near, far := store.Limit(mem.New("near"), b), store.Limit(mem.New("far"), b)
		content := bytes.Repeat([]byte("x"), size)
		began := time.Now()
		var g sync.WaitGroup
		for _, s := range []store.Store{near, far} {
			g.Go(func() {
				if err := s.Put(t.Context(), "k", bytes.NewReader(content)); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
		if took := time.Since(began).Seconds(); took < 9.5 || took > 10.5 {
			t.Errorf("10 MB to two stores at 1 MB/s took %.1f s", took)
		}
		began = time.Now()
		r, err := near.Get(t.Context(), "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("read %d bytes (%v)", len(got), err)
		}
		if took := time.Since(began).Seconds(); took < 4.5 || took > 5.5 {
			t.Errorf("reading 5 MB at 1 MB/s took %.1f s", took)
		}
	})
}

// twice reads a body two times, as drivers do that need a checksum first.
type twice struct{ store.Store }

func (s twice) Put(ctx context.Context, key string, b store.Body) error {
	for range 2 {
		if _, err := b.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, b); err != nil {
			return err
		}
	}
	return s.Store.Put(ctx, key, b)
}

func TestBandwidthCountsABodyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.Limit(twice{mem.New("x")}, store.NewBandwidth(1<<20))
		began := time.Now()
		if err := s.Put(t.Context(), "k", bytes.NewReader(make([]byte, 4<<20))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began).Seconds(); took < 3.5 || took > 4.5 {
			t.Errorf("4 MB at 1 MB/s took %.1f s", took)
		}
	})
}

// A wait is progress: a slow line is no stalled one. It ends with its context.
func TestBandwidthAndStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.Stall(store.Limit(mem.New("x"), store.NewBandwidth(64<<10)), time.Second)
		var g sync.WaitGroup
		for _, key := range []string{"a", "b", "c", "d"} {
			g.Go(func() {
				if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, 1<<20))); err != nil {
					t.Errorf("put %s: %v", key, err)
				}
			})
		}
		g.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, "e", bytes.NewReader(make([]byte, 1<<20))); err == nil || errors.Is(err, store.ErrStalled) {
			t.Errorf("put whose context ends: got %v", err)
		}
	})
}
