package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

// Decorators keep the contract of what they decorate.
func TestDecorated(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		s := mem.New(t.Name())
		decorate := func() store.Store {
			return store.Retry(store.Stall(store.Meter(store.Limit(s, store.NewBandwidth(1<<40)), store.NewMetrics(nil)), time.Minute), store.Backoff{})
		}
		return decorate(), decorate()
	}, storetest.Options{Broken: map[string]storetest.Broken{
		"unmounted": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
			s := mem.New(t.Name())
			s.Unmount(true)
			return store.Retry(store.Stall(s, time.Minute), store.Backoff{})
		}},
	}})
}

// faulty is a store in memory whose requests meet the given faults, one after the other, and then none.
func faulty(faults ...mem.Fault) (inner *mem.Store, outer *mem.Faults, calls *int) {
	inner, calls = mem.New("faulty"), new(int)
	return inner, mem.NewFaults(inner, func(c mem.Call) mem.Fault {
		*calls = c.No
		if c.No <= len(faults) {
			return faults[c.No-1]
		}
		return mem.Fault{}
	}), calls
}

func put(ctx context.Context, s store.Store, key, data string) error {
	return s.Put(ctx, key, strings.NewReader(data))
}

func TestRetryTriesAgain(t *testing.T) {
	drop := mem.Fault{Drop: true}
	for _, test := range []struct {
		name   string
		faults []mem.Fault
		tries  int
		want   error
		calls  int
	}{
		{"works at once", nil, 0, nil, 1},
		{"works at last", []mem.Fault{drop, drop, drop, drop}, 0, nil, 5},
		{"never works", []mem.Fault{drop, drop, drop, drop, drop}, 0, mem.ErrFault, 5},
		{"works late", make10(drop), -1, nil, 11},
		{"once only", []mem.Fault{drop}, 1, mem.ErrFault, 1},
		{"a timeout of its own", []mem.Fault{{Drop: true, Err: context.DeadlineExceeded}}, 0, nil, 2},
		{"refused", []mem.Fault{{Drop: true, Err: fs.ErrPermission}}, 0, fs.ErrPermission, 1},
		{"exists", []mem.Fault{{Drop: true, Err: fs.ErrExist}}, 0, fs.ErrExist, 1},
		{"absent", []mem.Fault{{Drop: true, Err: fs.ErrNotExist}}, 0, fs.ErrNotExist, 1},
		{"no root", []mem.Fault{{Drop: true, Err: store.ErrNoRoot}}, 0, store.ErrNoRoot, 1},
		{"cancelled", []mem.Fault{{Drop: true, Err: context.Canceled}}, 0, context.Canceled, 1},
	} {
		for _, op := range []string{"put", "get", "head", "delete"} {
			t.Run(test.name+" "+op, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					inner, outer, calls := faulty(test.faults...)
					if op != "put" {
						if err := put(t.Context(), inner, "key", "data"); err != nil {
							t.Fatal(err)
						}
					}
					err := request(t.Context(), store.Retry(outer, store.Backoff{Tries: test.tries}), op)
					if !errors.Is(err, test.want) {
						t.Errorf("got %v, want %v", err, test.want)
					}
					if *calls != test.calls {
						t.Errorf("got %d requests, want %d", *calls, test.calls)
					}
				})
			})
		}
	}
}

func make10(f mem.Fault) (faults []mem.Fault) {
	for range 10 {
		faults = append(faults, f)
	}
	return faults
}

func request(ctx context.Context, s store.Store, op string) error {
	switch op {
	case "put":
		return put(ctx, s, "key", "data")
	case "get":
		r, err := s.Get(ctx, "key", 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.ReadAll(r)
		return err
	case "head":
		_, err := s.Head(ctx, "key")
		return err
	case "delete":
		return s.Delete(ctx, "key")
	}
	panic(op)
}

// A lost answer must neither become a plain success nor be forgotten.
func TestRetryTellsOfLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, outer, _ := faulty(mem.Fault{Lost: true})
		err := put(t.Context(), store.Retry(outer, store.Backoff{}), "key", "data")
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), mem.ErrFault.Error()) {
			t.Errorf("got %v, want fs.ErrExist with %q", err, mem.ErrFault)
		}
		if inner.Len() != 1 {
			t.Errorf("got %d objects, want 1", inner.Len())
		}
	})
}

// The waits grow, are drawn between half and all of their length, and end with the context.
func TestRetryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		last := time.Now()
		s := mem.NewFaults(mem.New("down"), func(mem.Call) mem.Fault {
			waits = append(waits, time.Since(last))
			last = time.Now()
			return mem.Fault{Drop: true}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := put(ctx, store.Retry(s, store.Backoff{First: time.Second, Max: 8 * time.Second, Tries: -1}), "key", "data")
		if !errors.Is(err, mem.ErrFault) {
			t.Errorf("got %v, want the store's error", err)
		}
		if took := time.Since(began); took < 52*time.Second || took >= time.Minute {
			t.Errorf("gave up after %v, want it just before the deadline of 1m", took)
		}
		for i, wait := range waits[1:] {
			full := min(8*time.Second, time.Second<<i)
			if wait < full/2 || wait > full {
				t.Errorf("wait %d: got %v, want %v to %v", i, wait, full/2, full)
			}
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		began = time.Now()
		err = put(ctx, store.Retry(s, store.Backoff{First: time.Hour, Max: time.Hour}), "key", "data")
		if took := time.Since(began); took != 10*time.Second || !errors.Is(err, context.Canceled) || !errors.Is(err, mem.ErrFault) {
			t.Errorf("cancelled while it waits: got %v after %v, want both reasons after 10s", err, took)
		}
	})
}

// A broken Get goes on where it broke, a broken List after its last key.
func TestRetryResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("cut")
		want := bytes.Repeat([]byte("0123456789"), 10)
		if err := inner.Put(t.Context(), "key", bytes.NewReader(want)); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if err := put(t.Context(), inner, fmt.Sprintf("list/%02d", i), "x"); err != nil {
				t.Fatal(err)
			}
		}
		calls := 0
		s := store.Retry(mem.NewFaults(inner, func(c mem.Call) mem.Fault {
			calls = c.No
			if c.No%2 == 0 {
				return mem.Fault{Drop: true}
			}
			return mem.Fault{Cut: 7}
		}), store.Backoff{Tries: 3}) // fewer tries than breaks: progress begins the count anew
		for _, r := range []struct{ from, n int64 }{{0, -1}, {3, 50}, {93, -1}, {0, 7}, {0, 14}} {
			end := int64(100)
			if r.n >= 0 {
				end = r.from + r.n
			}
			body, err := s.Get(t.Context(), "key", r.from, r.n)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want[r.from:end]) {
				t.Errorf("from %d, %d bytes: got %q, %v, want %q", r.from, r.n, got, err, want[r.from:end])
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			if _, err := body.Read(make([]byte, 1)); err == nil {
				t.Error("read after close: got no error")
			}
		}
		before, keys := calls, ""
		for info, err := range s.List(t.Context(), "list/", "list/01") {
			if err != nil {
				t.Fatal(err)
			}
			keys += strings.TrimPrefix(info.Key, "list/") + " "
		}
		if want := "02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 "; keys != want {
			t.Errorf("list: got %s, want %s", keys, want)
		}
		if calls-before < 4 {
			t.Errorf("list: got %d requests, want the listing to be cut twice", calls-before)
		}
	})
}

// What never makes progress ends with the error.
func TestRetryGivesUpReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drop := mem.Fault{Drop: true}
		inner, outer, calls := faulty(mem.Fault{Cut: 2}, drop, drop, drop, drop)
		if err := put(t.Context(), inner, "key", "data"); err != nil {
			t.Fatal(err)
		}
		r, err := store.Retry(outer, store.Backoff{Tries: 3}).Get(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if string(got) != "da" || !errors.Is(err, mem.ErrFault) {
			t.Errorf("got %q, %v, want the first two bytes and the error", got, err)
		}
		if *calls != 3 {
			t.Errorf("got %d requests, want 3", *calls)
		}
	})
}
