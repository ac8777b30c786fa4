// Package storetest holds every driver, and every decorator, to the contract of store.Store.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) (a, b store.Store) {
//			dir := t.TempDir()
//			return open(t, dir), open(t, dir)
//		}, storetest.Options{})
//	}
//
// A driver that passes may keep an archive: the promises of package archiver rest on nothing else.
// [Proxy] spoils the connection between an HTTP driver and its server; package servers, below,
// starts real ones.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// Options fit the suite to a store. The zero value is right for most.
type Options struct {
	// Large is the size in bytes of a body that the driver puts in another way than a small one
	// (an S3 multipart upload). 0 means that there is only one way.
	Large int64
	// Rounds of each race, at most 3 with large bodies; 0 means 10.
	Rounds int
	// Broken opens stores with which every request must fail in one way: wrong credentials
	// (fs.ErrPermission), a bucket or a root that is not there (store.ErrNoRoot).
	Broken map[string]Broken
}

// Broken is a store of which nothing may be believed.
type Broken struct {
	Open func(t *testing.T) store.Store
	Want error // what errors.Is must find in the answer to every request
}

const (
	small   = 64 << 10
	writers = 20
)

// Run tests a store. Each call of open makes an empty one and returns two handles on it, as two
// machines would have them.
func Run(t *testing.T, open func(t *testing.T) (a, b store.Store), o Options) {
	if o.Rounds == 0 {
		o.Rounds = 10
	}
	type test struct {
		name string
		run  func(t *testing.T, a, b store.Store)
	}
	tests := []test{
		{"round trip", func(t *testing.T, a, b store.Store) { testRoundTrip(t, a, b, o.Large) }},
		{"a taken key stays", testTaken},
		{"race", func(t *testing.T, a, b store.Store) { testRace(t, a, b, small, o.Rounds) }},
		{"cancelled put", func(t *testing.T, a, b store.Store) { testCancelledPut(t, a, b, small) }},
		{"wrong size", func(t *testing.T, a, b store.Store) { testWrongSize(t, a, b, small) }},
		{"no half objects", func(t *testing.T, a, b store.Store) { testNoHalves(t, a, b, 8*small) }},
		{"ranges", testRanges},
		{"odd keys", testOddKeys},
		{"bad keys", testBadKeys},
		{"listing", testListing},
		{"delete", testDelete},
		{"cancelled context", testCancelled},
		{"proof", func(t *testing.T, a, _ store.Store) {
			if err := store.Prove(t.Context(), a, "scope/1", o.Large); err != nil {
				t.Error(err)
			}
			wantKeys(t, a, "", "", nil)
		}},
	}
	if o.Large > 0 {
		tests = append(tests,
			test{"race of large bodies", func(t *testing.T, a, b store.Store) { testRace(t, a, b, o.Large, min(o.Rounds, 3)) }},
			test{"race of large and small bodies", func(t *testing.T, a, b store.Store) { testMixedRace(t, a, b, o.Large, min(o.Rounds, 3)) }},
			test{"cancelled large put", func(t *testing.T, a, b store.Store) { testCancelledPut(t, a, b, o.Large) }},
			test{"wrong size of a large body", func(t *testing.T, a, b store.Store) { testWrongSize(t, a, b, o.Large) }},
			test{"no half large objects", func(t *testing.T, a, b store.Store) { testNoHalves(t, a, b, o.Large) }},
		)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := open(t)
			test.run(t, a, b)
		})
	}
	for name, broken := range o.Broken {
		t.Run(name, func(t *testing.T) { testBroken(t, broken.Open(t), broken.Want) })
	}
}

// content is n bytes that differ from those of any other writer in the first ones already.
func content(writer int, n int64) []byte {
	line := fmt.Appendf(nil, "writer %d was here; ", writer)
	return bytes.Repeat(line, int(n)/len(line)+1)[:n]
}

func put(t *testing.T, s store.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, s store.Store, key string, from, n int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, from, n)
	if err != nil {
		t.Fatalf("get %s from %d, %d bytes: %v", key, from, n, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("get %s from %d, %d bytes: read: %v", key, from, n, err)
	}
	return data
}

func wantContent(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	if got := get(t, s, key, 0, -1); !bytes.Equal(got, want) {
		t.Errorf("content of %s: got %d bytes %.40q, want %d bytes %.40q", key, len(got), got, len(want), want)
	}
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatalf("head %s: %v", key, err)
	}
	if info.Key != key || info.Size != int64(len(want)) {
		t.Errorf("head %s: got key %q, size %d, want size %d", key, info.Key, info.Size, len(want))
	}
	if age := time.Since(info.Modified); age < -time.Hour || age > time.Hour {
		t.Errorf("head %s: modified at %v, %v ago", key, info.Modified, age)
	}
}

func wantAbsent(t *testing.T, s store.Store, key string) {
	t.Helper()
	if _, err := s.Head(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head %s: got %v, want fs.ErrNotExist", key, err)
	}
	if r, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get %s: got %v, want fs.ErrNotExist", key, err)
		if err == nil {
			r.Close()
		}
	}
}

func testRoundTrip(t *testing.T, a, b store.Store, large int64) {
	for i, size := range []int64{0, 1, 4095, small, 1 << 20, large} {
		key := fmt.Sprintf("scope/1/wal/00000001/%d", i)
		wantAbsent(t, b, key)
		want := content(i, size)
		put(t, a, key, want)
		wantContent(t, b, key, want)
	}
	// A body may stand anywhere when it is put.
	body := bytes.NewReader([]byte("read before"))
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(t.Context(), "at-its-end", body); err != nil {
		t.Fatal(err)
	}
	wantContent(t, b, "at-its-end", []byte("read before"))
}

func testTaken(t *testing.T, a, b store.Store) {
	first := content(1, small)
	put(t, a, "key", first)
	for _, s := range []store.Store{a, b} {
		for _, second := range [][]byte{content(2, small), first, nil, content(3, 3*small)} {
			if err := s.Put(t.Context(), "key", bytes.NewReader(second)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("put of %d bytes on a taken key: got %v, want fs.ErrExist", len(second), err)
			}
		}
	}
	wantContent(t, b, "key", first)
}

// testRace lets many writers on two handles put different bodies under one key at once. P2.
func testRace(t *testing.T, a, b store.Store, size int64, rounds int) {
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		bodies := make([][]byte, writers)
		for i := range bodies {
			bodies[i] = content(i, size)
		}
		raceOnce(t, []store.Store{a, b}, key, bodies)
	}
}

// testMixedRace is testRace between single puts and multipart uploads, which are different
// code in a server.
func testMixedRace(t *testing.T, a, b store.Store, large int64, rounds int) {
	for round := range rounds {
		key := fmt.Sprintf("mixed/%d", round)
		bodies := make([][]byte, 8)
		for i := range bodies {
			size := int64(small)
			if i%2 == 1 {
				size = large
			}
			bodies[i] = content(i, size)
		}
		raceOnce(t, []store.Store{a, b}, key, bodies)
	}
}

func raceOnce(t *testing.T, handles []store.Store, key string, bodies [][]byte) {
	t.Helper()
	errs := make([]error, len(bodies))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, body := range bodies {
		wg.Go(func() {
			<-start
			errs[i] = handles[i%len(handles)].Put(t.Context(), key, bytes.NewReader(body))
		})
	}
	close(start)
	wg.Wait()
	winner, winners := -1, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("%s: loser %d: got %v, want fs.ErrExist", key, i, err)
		}
	}
	if winners != 1 {
		t.Fatalf("%s: got %d winners, want 1", key, winners)
	}
	for _, s := range handles {
		wantContent(t, s, key, bodies[winner])
	}
}

// cancelBody cancels its Put once so many bytes of it were read, in all passes together.
type cancelBody struct {
	*bytes.Reader
	left   int64
	cancel context.CancelFunc
	ended  *atomic.Bool // its Put has returned: the memory may be another's now
	t      *testing.T
}

func (c *cancelBody) Read(p []byte) (int, error) {
	if c.ended.Load() {
		c.t.Error("the body was read after Put had returned")
	}
	n, err := c.Reader.Read(p[:min(len(p), 8<<10)])
	if c.left -= int64(n); c.left <= 0 {
		c.cancel()
	}
	return n, err
}

func testCancelledPut(t *testing.T, a, b store.Store, size int64) {
	// A driver may read a body more than once: to sum it, to sign it, to send it.
	for i, after := range []int64{1, size / 2, size + size/2, 2*size + size/2} {
		key := fmt.Sprintf("cancelled/%d", i)
		ctx, cancel := context.WithCancel(t.Context())
		var ended atomic.Bool
		err := a.Put(ctx, key, &cancelBody{bytes.NewReader(content(1, size)), after, cancel, &ended, t})
		ended.Store(true)
		cancel()
		if err == nil {
			wantContent(t, b, key, content(1, size)) // it never came that far
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("put cancelled after %d bytes: got %v, want context.Canceled", after, err)
		}
		wantAbsent(t, b, key)
		wantKeys(t, b, key, "", nil)
		put(t, b, key, content(2, size)) // and the key is free
	}
}

// wrongBody says that it has another size than it has.
type wrongBody struct {
	io.ReadSeeker
	size int64
}

func (w *wrongBody) Size() int64 { return w.size }

func testWrongSize(t *testing.T, a, b store.Store, size int64) {
	for i, says := range []int64{size + 1, size * 2, size - 1, size / 2, 0} {
		key := fmt.Sprintf("wrong/%d", i)
		err := a.Put(t.Context(), key, &wrongBody{bytes.NewReader(content(1, size)), says})
		if err == nil || errors.Is(err, fs.ErrExist) {
			t.Errorf("put of %d bytes that say they are %d: got %v, want an error", size, says, err)
		}
		wantAbsent(t, b, key)
	}
	wantKeys(t, b, "", "", nil)
}

// testNoHalves reads while it is being written: there is nothing, or all of it.
func testNoHalves(t *testing.T, a, b store.Store, size int64) {
	want := content(1, size)
	for round := range 5 {
		key := fmt.Sprintf("whole/%d", round)
		done := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { done <- a.Put(t.Context(), key, bytes.NewReader(want)) })
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				running = false
			default:
			}
			r, err := b.Get(t.Context(), key, 0, -1)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatalf("get while it is put: %v", err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("get while it is put: got %d bytes and %v, want nothing or all %d", len(got), err, size)
			}
		}
		wg.Wait()
	}
}

func testRanges(t *testing.T, a, b store.Store) {
	want := content(1, 10_000)
	put(t, a, "key", want)
	put(t, a, "empty", nil)
	for _, r := range []struct{ from, n int64 }{
		{0, 0}, {0, 1}, {0, 4096}, {0, 10_000}, {0, 10_001}, {0, 1 << 40}, {0, -1}, {1, 2}, {4095, 4097},
		{5000, -1}, {9_999, 1}, {9_999, -1}, {9_999, 5}, {10_000, -1}, {10_000, 1}, {10_000, 0}, {20_000, -1}, {20_000, 7},
	} {
		end := int64(len(want))
		if r.n >= 0 {
			end = min(end, r.from+r.n)
		}
		if got, want := get(t, b, "key", r.from, r.n), want[min(r.from, end):end]; !bytes.Equal(got, want) {
			t.Errorf("from %d, %d bytes: got %d bytes %.20q, want %d bytes %.20q", r.from, r.n, len(got), got, len(want), want)
		}
		if got := get(t, b, "empty", r.from, r.n); len(got) != 0 {
			t.Errorf("empty object, from %d, %d bytes: got %q", r.from, r.n, got)
		}
	}
	if _, err := b.Get(t.Context(), "key", -1, 1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("from -1: got %v, want fs.ErrInvalid", err)
	}
	for _, n := range []int64{-1, 0, 1} {
		if _, err := b.Get(t.Context(), "absent", 0, n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d bytes of an absent key: got %v, want fs.ErrNotExist", n, err)
		}
	}
	// A reader may be closed before its end.
	r, err := b.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close before the end: %v", err)
	}
}

func testDelete(t *testing.T, a, b store.Store) {
	for _, key := range []string{"absent", "no/such/folder/absent"} {
		if err := a.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	put(t, a, "wal/1", []byte("one"))
	put(t, a, "wal/2", []byte("two"))
	if err := b.Delete(t.Context(), "wal/1"); err != nil {
		t.Error(err)
	}
	wantAbsent(t, a, "wal/1")
	wantKeys(t, a, "", "", []string{"wal/2"})
	put(t, b, "wal/1", []byte("again"))
	wantContent(t, a, "wal/1", []byte("again"))
}

// testCancelled asks with a context that has ended: no answer may look like a fact.
func testCancelled(t *testing.T, a, _ store.Store) {
	put(t, a, "key", []byte("data"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	eachRequest(ctx, a, func(request string, err error) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", request, err)
		}
	})
	wantKeys(t, a, "", "", []string{"key"})

	// And in the middle of a body: all of it is there already, or the reader fails.
	want := content(1, 4<<20)
	put(t, a, "large", want)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	r, err := a.Get(ctx, "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 1000)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	cancel()
	rest, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(append(got, rest...), want) || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("get cancelled in the middle: got %d of %d bytes and %v", 1000+len(rest), len(want), err)
	}
}

func testBroken(t *testing.T, s store.Store, want error) {
	eachRequest(t.Context(), s, func(request string, err error) {
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", request, err, want)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v reads like an answer about the key", request, err)
		}
	})
	if err := store.Prove(t.Context(), s, "scope", 0); !errors.Is(err, want) {
		t.Errorf("proof: got %v, want %v", err, want)
	}
}

func eachRequest(ctx context.Context, s store.Store, check func(request string, err error)) {
	check("put", s.Put(ctx, "new", bytes.NewReader([]byte("data"))))
	r, err := s.Get(ctx, "key", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		r.Close()
	}
	check("get", err)
	_, err = s.Head(ctx, "key")
	check("head", err)
	err = nil
	for _, err = range s.List(ctx, "", "") {
	}
	check("list", err)
	check("delete", s.Delete(ctx, "key"))
}
