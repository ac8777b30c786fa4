package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func open(t *testing.T, url string) *file.Store {
	t.Helper()
	s, err := file.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		dir := t.TempDir()
		return open(t, dir), open(t, "file://"+dir)
	}, storetest.Options{
		Broken: map[string]storetest.Broken{
			"unmounted root": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
				return open(t, filepath.Join(t.TempDir(), "mnt"))
			}},
		},
	})
}

func TestOpenURL(t *testing.T) {
	for url, want := range map[string]string{
		"/backup/wal":             "file:///backup/wal",
		"/backup//wal/":           "file:///backup/wal",
		"file:///backup/wal":      "file:///backup/wal",
		"file:///a%20b":           "file:///a%20b",
		"/a b":                    "file:///a%20b",
		"file://localhost/backup": "file:///backup",
		"":                        "", "backup": "", "./backup": "", "file:backup": "", "file://backup/wal": "", "file:///a?b=c": "",
	} {
		s, err := file.Open(url)
		switch {
		case want == "" && err == nil:
			t.Errorf("open %q: got %s, want an error", url, s)
		case want != "" && err != nil:
			t.Errorf("open %q: %v", url, err)
		case want != "" && s.String() != want:
			t.Errorf("open %q: got %s, want %s", url, s, want)
		}
	}
}

// The root may come and go, and is never created.
func TestRootComesAndGoes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "mnt")
	s := open(t, root)
	put := func(key string) error { return s.Put(t.Context(), key, strings.NewReader("data")) }
	if err := put("wal/1"); !errors.Is(err, store.ErrNoRoot) {
		t.Errorf("before the mount: got %v, want ErrNoRoot", err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the root was created: %v", err)
	}
	for range 2 {
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := put("wal/1"); err != nil {
			t.Errorf("mounted: %v", err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Head(t.Context(), "wal/1"); !errors.Is(err, store.ErrNoRoot) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after the unmount: got %v, want ErrNoRoot alone", err)
		}
	}
}

// What else lies in the root is neither shown nor taken for an object.
func TestStrangers(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if err := s.Put(t.Context(), "wal/1", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(root, "wal", ".walbaton-"+strings.Repeat("A", 26)+".tmp")
	young := filepath.Join(root, "wal", ".walbaton-"+strings.Repeat("B", 26)+".tmp")
	outside := filepath.Join(t.TempDir(), "outside")
	for _, name := range []string{old, young, outside} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	for _, err := range []error{
		os.Chtimes(old, yesterday, yesterday),
		os.Symlink(outside, filepath.Join(root, "wal", "link")),
		syscall.Mkfifo(filepath.Join(root, "wal", "pipe"), 0o600),
		os.WriteFile(filepath.Join(root, "wal", "bad\nname"), nil, 0o600),
		os.Mkdir(filepath.Join(root, "lost+found"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if want := []string{"wal/1"}; !slices.Equal(got, want) {
		t.Errorf("list: got %q, want %q", got, want)
	}
	for _, key := range []string{"wal/link", "wal/pipe"} {
		if r, err := s.Get(t.Context(), key, 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get %s: got %v, %v, want an error that does not say absent", key, r, err)
		}
		if err := s.Put(t.Context(), key, strings.NewReader("data")); err == nil || errors.Is(err, fs.ErrExist) {
			t.Errorf("put %s: got %v, want an error that does not say exists", key, err)
		}
	}
	// A folder is no object, and not a free name either.
	if _, err := s.Head(t.Context(), "wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head of a folder: got %v, want fs.ErrNotExist", err)
	}
	if err := s.Put(t.Context(), "wal", strings.NewReader("data")); err == nil || errors.Is(err, fs.ErrExist) {
		t.Errorf("put on a folder: got %v, want an error that does not say exists", err)
	}
	if err := s.Delete(t.Context(), "wal"); err != nil {
		t.Errorf("delete of a folder: %v", err)
	}
	// A new process sweeps what died long ago, when it first puts something there.
	if err := open(t, root).Put(t.Context(), "wal/2", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a temp file of yesterday: got %v, want it swept", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a temp file of now: %v", err)
	}
}

// A listing narrowed by its prefix does not read the rest of the tree.
func TestListReadsOnlyWhatIsAsked(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	for i := range 3 {
		for j := range 5 {
			if err := s.Put(t.Context(), fmt.Sprintf("wal/%d/%d", i, j), strings.NewReader("data")); err != nil {
				t.Fatal(err)
			}
		}
	}
	atime := func(dir string) syscall.Timespec {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(root, dir), &st); err != nil {
			t.Fatal(err)
		}
		return st.Atim
	}
	past := time.Now().Add(-48 * time.Hour)
	for _, dir := range []string{"wal", "wal/1", "wal/2"} {
		if err := os.Chtimes(filepath.Join(root, dir), past, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	before := []syscall.Timespec{atime("wal"), atime("wal/1")}
	n := 0
	for _, err := range s.List(t.Context(), "wal/2/", "wal/2/1") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("got %d keys, want 3", n)
	}
	if after := []syscall.Timespec{atime("wal"), atime("wal/1")}; !slices.Equal(before, after) {
		t.Error("folders outside of the prefix were read")
	}
	if atime("wal/2") == before[0] {
		t.Log("this file system keeps no access times: the check above shows nothing")
	}
}
