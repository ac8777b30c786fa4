package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var errInjected = errors.New("injected failure")

// faulty is a real folder that records every operation and fails the one with number failAt (from 1),
// before doing it. Writes and fsyncs of files count too.
type faulty struct {
	disk
	failAt int
	log    []string
}

func (v *faulty) step(op string) error {
	v.log = append(v.log, op)
	if len(v.log) == v.failAt {
		return errInjected
	}
	return nil
}

func (v *faulty) exists(name string) (bool, error) {
	if err := v.step("exists"); err != nil {
		return false, err
	}
	return v.disk.exists(name)
}

func (v *faulty) create(name string, perm fs.FileMode) (file, error) {
	if err := v.step("create"); err != nil {
		return nil, err
	}
	f, err := v.disk.create(name, perm)
	return &faultyFile{file: f, v: v}, err
}

func (v *faulty) mkdir(name string, perm fs.FileMode) error {
	if err := v.step("mkdir " + name); err != nil {
		return err
	}
	return v.disk.mkdir(name, perm)
}

func (v *faulty) link(from, to string) error {
	if err := v.step("link"); err != nil {
		return err
	}
	return v.disk.link(from, to)
}

func (v *faulty) rename(from, to string) error {
	if err := v.step("rename"); err != nil {
		return err
	}
	return v.disk.rename(from, to)
}

func (v *faulty) remove(name string) error {
	if err := v.step("remove"); err != nil {
		return err
	}
	return v.disk.remove(name)
}

func (v *faulty) syncDir(dir string) error {
	if err := v.step("sync " + dir); err != nil {
		return err
	}
	return v.disk.syncDir(dir)
}

type faultyFile struct {
	file
	v *faulty
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.v.step("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2]) // as a full disk does
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.v.step("fsync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultyFile) Close() error {
	err := f.v.step("close")
	return errors.Join(err, f.file.Close())
}

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// names lists the folder, temp files as "TEMP".
func names(t *testing.T, root *os.Root) []string {
	t.Helper()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if IsTemp(e.Name()) {
			all = append(all, "TEMP")
		} else {
			all = append(all, e.Name())
		}
	}
	return all
}

func content(t *testing.T, root *os.Root, name string) string {
	t.Helper()
	b, err := root.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOrderOfSteps(t *testing.T) {
	tests := []struct {
		what string
		do   func(v volume) error
		want string
		err  error
	}{
		{"create", func(v volume) error { return create(v, "a", strings.NewReader("x"), 0o600) },
			"exists, create, write, fsync, close, link, remove, sync .", nil},
		{"create again", func(v volume) error { return create(v, "a", strings.NewReader("y"), 0o600) },
			"exists, sync .", fs.ErrExist},
		{"replace", func(v volume) error { return replace(v, "a", strings.NewReader("z"), 0o600) },
			"create, write, fsync, close, rename, sync .", nil},
		{"give", func(v volume) error { return give(v, "a", strings.NewReader("z"), 0o600) },
			"create, write, fsync, close, rename", nil},
		{"mkdirAll", func(v volume) error { return mkdirAll(v, "d/e", 0o700) },
			"mkdir d, sync ., mkdir d/e, sync d", nil},
		{"mkdirAll again", func(v volume) error { return mkdirAll(v, "d/e/", 0o700) },
			"mkdir d, sync ., mkdir d/e, sync d", nil},
	}
	root := openRoot(t)
	for _, tt := range tests {
		v := &faulty{disk: disk{root}}
		if err := tt.do(v); !errors.Is(err, tt.err) {
			t.Errorf("%s: got error %v, want %v", tt.what, err, tt.err)
		}
		if got := strings.Join(v.log, ", "); got != tt.want {
			t.Errorf("%s: got steps %q, want %q", tt.what, got, tt.want)
		}
	}
}

// Every single operation of every sequence fails once. Afterwards the name holds the old or the whole
// new content, no temp file is there unless its removal is what failed, and success was not reported
// for anything but a failed removal of the second name.
func TestEveryOperationFailsOnce(t *testing.T) {
	const old, fresh = "old", "the new content"
	type sequence struct {
		name  string
		taken bool
		do    func(v volume, name string, src io.Reader, perm fs.FileMode) error
	}
	for _, s := range []sequence{{"create", false, create}, {"create", true, create}, {"replace", false, replace}, {"replace", true, replace}, {"give", false, give}, {"give", true, give}} {
		for failAt := 1; ; failAt++ {
			root := openRoot(t)
			if s.taken {
				if err := Create(root, "f", strings.NewReader(old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v := &faulty{disk: disk{root}, failAt: failAt}
			err := s.do(v, "f", strings.NewReader(fresh), 0o600)
			if len(v.log) < failAt {
				break // nothing failed: the sequence is through
			}
			failed := v.log[failAt-1]
			what := fmt.Sprintf("%s, name taken %v, %s fails", s.name, s.taken, failed)

			left := names(t, root)
			if slices.Contains(left, "TEMP") != (failed == "remove") {
				t.Errorf("%s: left %q", what, left)
			}
			if failed == "remove" {
				if err != nil {
					t.Errorf("%s: got error %v, want none", what, err)
				}
				continue
			}
			if !errors.Is(err, errInjected) || errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: got error %v, want only the injected one", what, err)
			}
			want := "" // nothing
			switch {
			case failed == "sync ." && !(s.name == "create" && s.taken):
				want = fresh
			case s.taken:
				want = old
			}
			got := ""
			if slices.Contains(left, "f") {
				got = content(t, root, "f")
			}
			if got != want {
				t.Errorf("%s: got content %q, want %q", what, got, want)
			}
		}
	}
}

// A source that breaks off leaves nothing, and its error comes back. When the removal of the temp file
// fails as well, both errors are told on one line.
func TestSourceFails(t *testing.T) {
	broken := errors.New("connection reset")
	src := func() io.Reader { return io.MultiReader(strings.NewReader("half"), errReader{broken}) }
	for _, do := range []func(*os.Root, string, io.Reader, fs.FileMode) error{Create, Replace, Give} {
		root := openRoot(t)
		if err := do(root, "f", src(), 0o600); !errors.Is(err, broken) {
			t.Errorf("got error %v, want %v", err, broken)
		}
		if left := names(t, root); len(left) != 0 {
			t.Errorf("left %q", left)
		}
	}

	v := &faulty{disk: disk{openRoot(t)}, failAt: 5} // exists, create, write, close, remove
	err := create(v, "f", src(), 0o600)
	if !errors.Is(err, broken) || !errors.Is(err, errInjected) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got error %q, want both on one line", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestCreateAndReplace(t *testing.T) {
	root := openRoot(t)
	if err := MkdirAll(root, "a/b", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := Create(root, "a/b/f", strings.NewReader("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Create(root, "a/b/f", strings.NewReader("two"), 0o640); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	if got := content(t, root, "a/b/f"); got != "one" {
		t.Errorf("got %q, want the first content", got)
	}
	if err := Replace(root, "a/b/f", strings.NewReader("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := content(t, root, "a/b/f"); got != "two" {
		t.Errorf("got %q, want the second content", got)
	}
	info, err := root.Stat("a/b/f")
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("got mode %v, want 0600", got)
	}
	if err := SyncDir(root, "."); err != nil {
		t.Error(err)
	}

	for what, tt := range map[string]struct {
		err  error
		want error
	}{
		"a missing folder":        {Create(root, "c/f", strings.NewReader(""), 0o600), fs.ErrNotExist},
		"a missing folder, twice": {Replace(root, "c/f", strings.NewReader(""), 0o600), fs.ErrNotExist},
		"a folder has the name":   {Create(root, "a", strings.NewReader(""), 0o600), fs.ErrExist},
		"an absolute folder":      {MkdirAll(root, "/a", 0o700), fs.ErrInvalid},
		"a folder outside":        {MkdirAll(root, "../x", 0o700), fs.ErrInvalid},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: got error %v, want %v", what, tt.err, tt.want)
		}
	}
	if err := Create(root, "../f", strings.NewReader(""), 0o600); err == nil {
		t.Error("a name outside the root: got no error")
	}
	if got := names(t, root); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q, want only the folder", got)
	}
}

// Move takes a durable file from elsewhere, in place of what has the name; from another file system it does not.
func TestMove(t *testing.T) {
	root, from := openRoot(t), filepath.Join(t.TempDir(), "x")
	elsewhere, err := os.CreateTemp("/dev/shm", "walbaton-durable-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(elsewhere.Name()); elsewhere.Close() })
	for name, text := range map[string]string{from: "new", filepath.Join(root.Name(), "f"): "old"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		elsewhere.Name(): syscall.EXDEV,
		filepath.Join(filepath.Dir(from), "none"): fs.ErrNotExist,
	} {
		if err := Move(path, root, "f"); !errors.Is(err, want) || content(t, root, "f") != "old" {
			t.Errorf("from %s: got %v, want %v, and f as it was", path, err, want)
		}
	}
	if err := Move(from, root, "f"); err != nil || content(t, root, "f") != "new" {
		t.Errorf("got %v, and f is %q", err, content(t, root, "f"))
	}
	if _, err := os.Lstat(from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is where it was, too: %v", err)
	}
	if err := Move(from, root, "none/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a folder that is not there: got %v", err)
	}
}

// Sixteen writers with a root of their own race for each of fifty names: one wins, and its content
// is what stays.
func TestCreateHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	const writers, files = 16, 50
	var winners [files]atomic.Int32
	var content [files]atomic.Value
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer root.Close()
			for i := range files {
				body := fmt.Sprintf("writer %d", w)
				err := Create(root, fmt.Sprint(i), strings.NewReader(body), 0o600)
				switch {
				case err == nil:
					winners[i].Add(1)
					content[i].Store(body)
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range files {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if n := winners[i].Load(); n != 1 || string(got) != content[i].Load() {
			t.Errorf("file %d: %d winners, content %q, the winner wrote %q", i, n, got, content[i].Load())
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != files {
		t.Errorf("got %d names, want %d", len(entries), files)
	}
}

func TestIsTemp(t *testing.T) {
	for range 100 {
		if name := NewTemp(); !IsTemp(name) {
			t.Errorf("IsTemp(%q): got false", name)
		}
	}
	for _, name := range []string{
		"", "000000010000000000000001", ".walbaton-.tmp", ".walbaton-x.tmp", ".tmp", ".walbaton-",
		".walbaton-abcdefghijklmnopqrstuvwxyz.tmp", ".walbaton-ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp2",
	} {
		if IsTemp(name) {
			t.Errorf("IsTemp(%q): got true", name)
		}
	}
}

func TestSweep(t *testing.T) {
	root := openRoot(t)
	now := time.Now()
	for name, age := range map[string]time.Duration{"f": 2 * time.Hour, NewTemp(): 2 * time.Hour, NewTemp(): time.Minute} {
		if err := root.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := root.Chtimes(name, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := root.Mkdir(NewTemp(), 0o700); err != nil { // not ours: we make no such folder
		t.Fatal(err)
	}
	n, err := Sweep(root, ".", now.Add(-time.Hour))
	if n != 1 || err != nil {
		t.Errorf("got %d, %v, want 1 removed", n, err)
	}
	if got := names(t, root); !slices.Equal(got, []string{"TEMP", "TEMP", "f"}) {
		t.Errorf("got %q, want the file, the young temp file and the folder", got)
	}
	if n, err := Sweep(root, "missing", now); n != 0 || err != nil {
		t.Errorf("missing folder: got %d, %v, want nothing", n, err)
	}
}
