package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
)

func keys(t *testing.T, s store.Store, prefix, after string) []string {
	t.Helper()
	var got []string
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		got = append(got, info.Key)
	}
	return got
}

func wantKeys(t *testing.T, s store.Store, prefix, after string, want []string) {
	t.Helper()
	got := keys(t, s, prefix, after)
	if slices.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("list %q after %q: got %d keys, want %d; from the first difference on got %.5q, want %.5q",
		prefix, after, len(got), len(want), head(got[i:]), head(want[i:]))
}

func head(keys []string) []string { return keys[:min(3, len(keys))] }

// oddKeys are allowed, whatever a URL, a shell or a file system thinks of them.
func oddKeys() []string {
	return []string{
		"A", "a b", " leading", "trailing ", "a/b c/d", "plus+plus", "percent%41", "percent%", "hash#tag", "query?x=1&y=2",
		"semi;colon", "at@sign", "equals=", "quote'", `double"quote`, "less<than>", "amp&amp;", "tilde~", "star*", "[set]",
		"brace{}", "comma,", "pipe|", "dollar$HOME", "caret^", "back`tick", "ümlaut", "日本", "😀", "e\u0301", ".hidden", "...", "a.", "-dash",
		"wal/00000001/000000010000000000000001", "wal/00000001/000000010000000000000001.partial",
		"wal/00000001/000000010000000000000001.00000028.backup", "history/00000002.history",
		"orphans/node 1/000000010000000000000001-0123456789abcdef",
		// Neighbours of the slash in byte order: a folder's place is that of its name and a slash.
		"n/x", "n-x", "n.x", "n0x", "n x", "nn", "m",
		strings.Repeat("l", 250) + "/" + strings.Repeat("m", 250), "deep/" + strings.Repeat("d/", 40) + "d",
	}
}

func testOddKeys(t *testing.T, a, b store.Store) {
	odd := oddKeys()
	for i, key := range odd {
		put(t, a, key, content(i, 100))
	}
	for i, key := range odd {
		wantContent(t, b, key, content(i, 100))
		if err := b.Put(t.Context(), key, bytes.NewReader(nil)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second put of %q: got %v, want fs.ErrExist", key, err)
		}
	}
	slices.Sort(odd)
	wantKeys(t, b, "", "", odd)
	for i, key := range odd {
		wantKeys(t, b, "", key, odd[i+1:])
	}
	for _, key := range odd {
		if err := a.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %q: %v", key, err)
		}
	}
	wantKeys(t, b, "", "", nil)
}

func testBadKeys(t *testing.T, a, _ store.Store) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "a\x00b", "a\nb", `a\b`, "a\x7fb", "\xff",
		strings.Repeat("k", 256), strings.Repeat("k/", store.MaxKey/2) + "k",
	} {
		if err := a.Put(t.Context(), key, bytes.NewReader(nil)); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("put %.20q: got %v, want fs.ErrInvalid", key, err)
		}
		if _, err := a.Get(t.Context(), key, 0, -1); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("get %.20q: got %v, want fs.ErrInvalid", key, err)
		}
		if _, err := a.Head(t.Context(), key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("head %.20q: got %v, want fs.ErrInvalid", key, err)
		}
		if err := a.Delete(t.Context(), key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("delete %.20q: got %v, want fs.ErrInvalid", key, err)
		}
	}
	wantKeys(t, a, "", "", nil)
}

func everyThird(all []string) (some []string) {
	for i := 0; i < len(all); i += 3 {
		some = append(some, all[i])
	}
	return some
}

// testListing lists over 2,500 keys, more than two pages of any store, from many places.
func testListing(t *testing.T, a, b store.Store) {
	var all []string
	for i := range 2300 {
		all = append(all, fmt.Sprintf("s/1/wal/00000001/%024X", i*7))
	}
	for i := range 205 {
		all = append(all, fmt.Sprintf("s/1/wal/00000002/%024X", i))
	}
	all = append(all, "s/1/archive.json", "s/1/history/00000002.history", "s/1/wal-2/x", "s/1/wal.x", "s/1/wal0", "s/10/archive.json", "t/1")
	putAll(t, []store.Store{a, b}, all)
	slices.Sort(all)

	prefixes := []string{"", "s", "s/", "s/1", "s/1/", "s/1/wal", "s/1/wal/", "s/1/wal/00000001/", "s/1/wal/0000000",
		"s/1/wal/00000002", "s/1/wal/00000002/", "s/1/wal/00000001/0000000000000000000003", "s/1/wal/00000003/", "s/2/", "t/1", "t/1/", "zz", "\u00ff"}
	afters := []string{"", "a", "s/1/wal", "s/1/wal/00000001", "s/1/wal/00000001/", all[5], all[999], all[1000], all[1001],
		all[2299], all[2307] + "x", "s/1/wal/00000001/000000000000000000000005", "s/1/wal/00000001~", "s/1/wal/00000002/", all[len(all)-1], "zzz"}
	check := func(prefix, after string) {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) && key > after {
				want = append(want, key)
			}
		}
		wantKeys(t, b, prefix, after, want)
	}
	if testing.Short() { // half a million keys, as XML under the race detector, are for make test
		prefixes, afters = everyThird(prefixes), everyThird(afters)
	}
	for _, prefix := range prefixes {
		check(prefix, "")
		check(prefix, all[1000])
	}
	for _, after := range afters {
		check("", after)
		check("s/1/wal/00000001/", after)
	}
	for info, err := range b.List(t.Context(), "s/1/wal/", "") {
		if err != nil || info.Size != int64(len(info.Key)) || info.Modified.IsZero() {
			t.Errorf("got %+v, %v", info, err)
		}
		break // a caller may stop at any time
	}
	listing := b.List(t.Context(), "t/", "")
	for range 2 { // and may range over one listing twice
		n := 0
		for range listing {
			n++
		}
		if n != 1 {
			t.Errorf("listing of t/: got %d keys, want 1", n)
		}
	}
}

func putAll(t *testing.T, handles []store.Store, keys []string) {
	t.Helper()
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(keys); i += workers {
				body := strings.NewReader(keys[i])
				if err := handles[w%len(handles)].Put(t.Context(), keys[i], body); err != nil {
					t.Errorf("put %s: %v", keys[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
