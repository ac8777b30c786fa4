package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

func TestStallEndsWhatHangs(t *testing.T) {
	for _, op := range []string{"put", "get", "head", "delete"} {
		synctest.Test(t, func(t *testing.T) {
			inner, outer, _ := faulty(mem.Fault{Hang: true})
			if op != "put" {
				if err := put(t.Context(), inner, "key", "data"); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			err := request(t.Context(), store.Stall(outer, 30*time.Second), op)
			if took := time.Since(began); !errors.Is(err, store.ErrStalled) || errors.Is(err, context.Canceled) || took != 30*time.Second {
				t.Errorf("%s: got %v after %v, want ErrStalled after 30s", op, err, took)
			}
			// It is worth another try, unlike a cancelled context.
			inner, outer, calls := faulty(mem.Fault{Hang: true})
			err = put(t.Context(), store.Retry(store.Stall(outer, 30*time.Second), store.Backoff{}), "key", "data")
			if err != nil || *calls != 2 || inner.Len() != 1 {
				t.Errorf("with Retry: got %v, %d requests, %d objects", err, *calls, inner.Len())
			}
		})
	}
}

func TestStallLeavesCallersContextAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, outer, _ := faulty(mem.Fault{Hang: true}, mem.Fault{Drop: true, Err: fs.ErrPermission})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := store.Stall(outer, 30*time.Second)
		if err := put(ctx, s, "key", "data"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrStalled) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		if err := put(t.Context(), s, "key", "data"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v, want fs.ErrPermission", err)
		}
	})
}

// slow gives one byte a Read, after a while.
type slow struct {
	*strings.Reader
	wait time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(s.wait)
	return s.Reader.Read(p[:min(1, len(p))])
}

// A transfer that moves is not stalled, however long it takes; nor is one whose reader pauses.
func TestStallLetsSlowOnesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("slow")
		s := store.Stall(inner, 10*time.Second)
		if err := s.Put(t.Context(), "key", slow{strings.NewReader("a long body"), 9 * time.Second}); err != nil {
			t.Errorf("slow put: %v", err)
		}
		if err := put(t.Context(), inner, "key2", "x"); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for {
			time.Sleep(time.Minute)
			if _, err := io.CopyN(&got, r, 3); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("paused get: %v", err)
			}
		}
		if err := r.Close(); err != nil || got.String() != "a long body" {
			t.Errorf("paused get: got %q, %v", got.String(), err)
		}
		n := 0
		for _, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Errorf("paused list: %v", err)
			}
			n++
			time.Sleep(time.Minute)
		}
		if n != 2 {
			t.Errorf("paused list: got %d keys, want 2", n)
		}
	})
}
