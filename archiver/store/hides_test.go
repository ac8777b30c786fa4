package store_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

type hider struct {
	*mem.Store
	hides bool
	err   error
}

func (h hider) Hides(context.Context) (bool, error) { return h.hides, h.err }

// The driver is asked, whatever stands around it; one that cannot be asked keeps nothing.
func TestHides(t *testing.T) {
	for _, test := range []struct {
		name   string
		driver store.Store
		hides  bool
		err    error
	}{
		{"no Hider", mem.New("plain"), false, nil},
		{"keeps nothing", hider{mem.New("honest"), false, nil}, false, nil},
		{"keeps versions", hider{mem.New("versions"), true, nil}, true, nil},
		{"may not ask", hider{mem.New("secretive"), true, fs.ErrPermission}, false, fs.ErrPermission},
	} {
		for _, s := range []store.Store{
			test.driver,
			store.Retry(store.Meter(store.Stall(test.driver, time.Minute), store.NewMetrics(nil)), store.Backoff{}),
		} {
			hides, err := store.Hides(t.Context(), s)
			if hides != test.hides || !errors.Is(err, test.err) {
				t.Errorf("%s: got %v, %v, want %v, %v", test.name, hides, err, test.hides, test.err)
			}
		}
	}
}

// An answer that got lost is asked for again: nobody else would.
func TestHidesAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &forgetful{Store: mem.New("forgetful")}
		if hides, err := store.Hides(t.Context(), h); !hides || err != nil || h.asked != 3 {
			t.Errorf("got %v, %v after %d questions", hides, err, h.asked)
		}
	})
}

type forgetful struct {
	*mem.Store
	asked int
}

func (f *forgetful) Hides(context.Context) (bool, error) {
	if f.asked++; f.asked < 3 {
		return false, errors.New("connection reset")
	}
	return true, nil
}
