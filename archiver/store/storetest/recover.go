package storetest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// Recovers puts, reads, lists and deletes an object of size bytes through a proxy that spoils the first request of each sort, with
// store.Retry around the driver.
func Recovers(t *testing.T, proxy *Proxy, driver store.Store, size int, spoil Spoil, sort func(Request) string) {
	t.Helper()
	seen := make(map[string]bool)
	proxy.Spoil(func(r Request) Spoil { // the proxy asks one at a time
		if seen[sort(r)] {
			return Spoil{}
		}
		seen[sort(r)] = true
		return spoil
	})
	s := store.Retry(store.Stall(driver, 20*time.Second), store.Backoff{First: time.Millisecond, Tries: 20})
	want := bytes.Repeat([]byte("0123456789"), size/10)
	// fs.ErrExist is right as well when the first answer was lost and its look too.
	if err := s.Put(t.Context(), "key", bytes.NewReader(want)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	info, err := s.Head(t.Context(), "key")
	if err != nil || info.Size != int64(len(want)) {
		t.Errorf("head: got %+v, %v", info, err)
	}
	clear(seen)
	r, err := s.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("get: got %d bytes, %v, want %d", len(got), err, len(want))
	}
	wantKeys(t, s, "", "", []string{"key"})
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	wantAbsent(t, s, "key")
}
