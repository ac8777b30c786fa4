package mem_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

// Without faults nothing changes.
func TestNoFaults(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		s := mem.New(t.Name())
		none := func(mem.Call) mem.Fault { return mem.Fault{} }
		return mem.NewFaults(s, none), mem.NewFaults(s, none)
	}, storetest.Options{})
}

// A request whose caller gave up may arrive at any later time: as if recalled, before or after another's.
func TestLateRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("late")
		spoil := true
		s := mem.NewFaults(inner, func(mem.Call) mem.Fault { return mem.Fault{Hang: spoil, Late: true} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		body := []byte("the old primary's")
		if err := s.Put(ctx, "key", strings.NewReader(string(body))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		if inner.Len() != 0 || s.Late() != 1 {
			t.Errorf("got %d objects, %d late requests, want 0 and 1", inner.Len(), s.Late())
		}
		spoil = false
		if err := s.Put(t.Context(), "key", strings.NewReader("the new one's")); err != nil {
			t.Fatal(err)
		}
		answers := s.Arrive()
		if len(answers) != 1 || !errors.Is(answers[0], fs.ErrExist) {
			t.Errorf("late put: got %v, want fs.ErrExist", answers)
		}
		// A late delete is another matter: it does take effect.
		spoil = true
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = s.Delete(ctx, "key")
		if s.Arrive(); inner.Len() != 0 {
			t.Error("a late delete did not arrive")
		}
	})
}

func TestLostAndDropped(t *testing.T) {
	inner := mem.New("lost")
	fault := mem.Fault{Lost: true}
	s := mem.NewFaults(inner, func(mem.Call) mem.Fault { return fault })
	if err := s.Put(t.Context(), "key", strings.NewReader("x")); !errors.Is(err, mem.ErrFault) || inner.Len() != 1 {
		t.Errorf("lost answer: got %v and %d objects, want ErrFault and 1", err, inner.Len())
	}
	fault = mem.Fault{Drop: true, Err: fs.ErrPermission}
	if err := s.Put(t.Context(), "key2", strings.NewReader("x")); !errors.Is(err, fs.ErrPermission) || inner.Len() != 1 {
		t.Errorf("dropped request: got %v and %d objects, want fs.ErrPermission and 1", err, inner.Len())
	}
}
