package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

const size = wal.SegmentSize(16 << 20)

// put makes empty files below dir, and the folders they need.
func put(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, dir string) *Queue {
	t.Helper()
	q, err := Open(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func name(t testing.TB, s string) wal.Name {
	t.Helper()
	n, err := wal.ParseName(s, size)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// scan returns "name status" or "name status gone" of each file.
func scan(t testing.TB, q *Queue) []string {
	t.Helper()
	files, err := q.Scan()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for f := range files.All() {
		s := f.Name.String() + " " + f.Status.String()
		if f.Gone {
			s += " gone"
		}
		all = append(all, s)
	}
	return all
}

const (
	seg1    = "000000010000000000000001"
	seg2    = "000000010000000000000002"
	seg3    = "000000010000000000000003"
	partial = "000000010000000000000003.partial"
	backup  = "000000010000000000000002.00000028.backup"
	newSeg3 = "000000020000000000000003"
	history = "00000002.history"
)

func TestScan(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	if got := scan(t, q); len(got) != 0 {
		t.Errorf("empty, without archive_status: got %q", got)
	}
	put(t, dir, newSeg3, partial, seg3, seg1, backup, seg2, history, "00000003.history",
		"archive_status/"+seg1+".done", "archive_status/"+seg1+".ready", // .done wins
		"archive_status/"+seg2+".ready", "archive_status/"+backup+".ready",
		"archive_status/"+partial+".ready", "archive_status/"+history+".done",
		"archive_status/000000010000000000000000.done", // its segment is gone
		// All this is not there.
		"xlogtemp.123", "RECOVERYXLOG", "RECOVERYHISTORY", "00000004.history.tmp", seg1+".deleted", seg1+".gz",
		"0000000100000000000000FG", "000000010000000000000100", "00000000.history", "archive_status.old",
		"summaries/0000000100000000010000280000000001000120.summary", "000000010000000000000009/x",
		"archive_status/"+seg3, "archive_status/"+seg3+".READY", "archive_status/"+seg3+".ready.done",
		"archive_status/xlogtemp.1.ready", "archive_status/000000010000000000000009.ready/x")
	if err := os.Symlink(seg1, filepath.Join(dir, "000000010000000000000008")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		history + " done",
		"00000003.history none",
		"000000010000000000000000 done gone",
		seg1 + " done",
		seg2 + " ready",
		backup + " ready",
		seg3 + " none",
		partial + " ready",
		newSeg3 + " none",
	}
	if got := scan(t, q); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := os.RemoveAll(filepath.Join(dir, statusDir)); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, q); len(got) != 8 || slices.ContainsFunc(got, func(s string) bool { return !strings.HasSuffix(s, " none") }) {
		t.Errorf("archive_status removed: got %q", got)
	}
	// The path of archive_status must not lead out of pg_wal.
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, statusDir)); err != nil {
		t.Fatal(err)
	}
	if got, err := q.Scan(); err == nil {
		t.Errorf("archive_status leads elsewhere: got %v", got)
	}
}

// TestScanOfQuietFolders: what has not changed for a while is not read again; any change is seen, also one right after the scan.
func TestScanOfQuietFolders(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, seg1, "archive_status/x")
	q := open(t, dir)
	age := func(by time.Duration) {
		t.Helper()
		for _, folder := range []string{dir, filepath.Join(dir, "archive_status")} {
			then := time.Now().Add(-by)
			if err := os.Chtimes(folder, then, then); err != nil {
				t.Fatal(err)
			}
		}
	}
	once := func() *Listing {
		t.Helper()
		l, err := q.Scan()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if first, second := once(), once(); first == second {
		t.Error("folders that changed just now were not read again")
	}
	age(time.Hour)
	first := once()
	if once() != first {
		t.Error("quiet folders were read again")
	}
	put(t, dir, seg2)
	if got := scan(t, q); len(got) != 2 {
		t.Errorf("a new file: got %v", got)
	}
	age(time.Hour)
	once()
	put(t, dir, "archive_status/"+seg1+".ready")
	if got := scan(t, q); got[0] != seg1+" ready" {
		t.Errorf("a new status: got %v", got)
	}
	age(time.Hour)
	second := once()
	age(2 * time.Hour)
	if once() == second {
		t.Error("another time, be it an older one, is a change")
	}
	if err := os.RemoveAll(filepath.Join(dir, "archive_status")); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, q); got[0] != seg1+" none" {
		t.Errorf("without archive_status: got %v", got)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "pg_wal"), size); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
	put(t, dir, "file", "other/wal/"+seg1, "data/PG_VERSION")
	if _, err := Open(filepath.Join(dir, "file"), size); err == nil {
		t.Error("a file: got no error")
	}
	if _, err := Open(dir, 12345); err == nil {
		t.Error("a wrong segment size: got no error")
	}
	for _, target := range []string{"../other/wal", filepath.Join(dir, "other/wal")} {
		link := filepath.Join(dir, "data/pg_wal")
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if got := scan(t, open(t, link)); !slices.Equal(got, []string{seg1 + " none"}) {
			t.Errorf("a symlink to %s: got %q", target, got)
		}
	}
}

// What has a WAL name but is no regular file is never opened, and never waited for.
func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	put(t, dir, seg1, "secret")
	if err := errors.Join(
		os.Symlink(seg1, filepath.Join(dir, seg2)),
		syscall.Mkfifo(filepath.Join(dir, seg3), 0o600),
		os.Mkdir(filepath.Join(dir, newSeg3), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{seg2, seg3, newSeg3} {
		if f, _, err := q.Open(name(t, s)); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %s: got %v, %v", s, f, err)
		}
		if id, err := q.Ident(name(t, s)); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ident %s: got %v, %v", s, id, err)
		}
	}
}

// Some file systems do not tell the type with the name.
func TestRegularLooksItself(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, seg1, statusDir+"/"+seg1+".ready")
	q := open(t, dir)
	for _, tt := range []struct {
		dir, base string
		want      bool
	}{{".", seg1, true}, {statusDir, seg1 + ".ready", true}, {".", statusDir, false}, {".", seg2, false}} {
		if got := regular(q.root, tt.dir, tt.base, 0); got != tt.want {
			t.Errorf("%s/%s: got %v, want %v", tt.dir, tt.base, got, tt.want)
		}
	}
}

// PostgreSQL recycles a segment by giving its file a later name. An open file shows the new content; the
// name shows another Ident or nothing.
func TestIdent(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	if _, err := q.Ident(name(t, seg1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
	if _, _, err := q.Open(name(t, seg1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(filepath.Join(dir, seg1), []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, opened, err := q.Open(name(t, seg1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "first" || err != nil || opened.Size != 5 {
		t.Errorf("got %q, %v, size %d", b, err, opened.Size)
	}
	if now, err := q.Ident(name(t, seg1)); now != opened || err != nil {
		t.Errorf("untouched: got %+v, %v, want %+v", now, err, opened)
	}
	if err := os.Rename(filepath.Join(dir, seg1), filepath.Join(dir, seg3)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Ident(name(t, seg1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("recycled: got %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(filepath.Join(dir, seg1), []byte("again"), 0o600); err != nil {
		t.Fatal(err)
	}
	if now, err := q.Ident(name(t, seg1)); now.Inode == opened.Inode || err != nil {
		t.Errorf("restored: got %+v, %v, want another inode than %+v", now, err, opened)
	}
}

func TestMark(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	n := name(t, seg1)
	ready, done := statusDir+"/"+seg1+".ready", statusDir+"/"+seg1+".done"
	have := func() (names string) {
		for _, s := range []string{ready, done} {
			if _, err := os.Lstat(filepath.Join(dir, s)); err == nil {
				names += filepath.Ext(s)
			}
		}
		return names
	}
	if err := q.MarkDone(n); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without archive_status: got %v, want fs.ErrNotExist", err)
	}
	put(t, dir, statusDir+"/x")
	for _, tt := range []struct {
		before []string
		mark   func(wal.Name) error
		want   error
		after  string
	}{
		{nil, q.MarkDone, fs.ErrNotExist, ""},
		{nil, q.MarkReady, fs.ErrNotExist, ""},
		{[]string{ready}, q.MarkDone, nil, ".done"},
		{[]string{ready}, q.MarkReady, fs.ErrNotExist, ".ready"},
		{[]string{done}, q.MarkReady, nil, ".ready"},
		{[]string{done}, q.MarkDone, fs.ErrNotExist, ".done"},
		{[]string{ready, done}, q.MarkDone, nil, ".done"},
		{[]string{ready, done}, q.MarkReady, nil, ".ready"},
	} {
		os.Remove(filepath.Join(dir, ready))
		os.Remove(filepath.Join(dir, done))
		put(t, dir, tt.before...)
		err := tt.mark(n)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("with %q: got error %v, want %v", tt.before, err, tt.want)
		}
		if got := have(); got != tt.after {
			t.Errorf("with %q: got %q afterwards, want %q", tt.before, got, tt.after)
		}
	}
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	raw := "1\t0/3000060\tno recovery target specified\n"
	if _, _, err := q.History(2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(filepath.Join(dir, history), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	h, got, err := q.History(2)
	if err != nil || string(got) != raw {
		t.Errorf("got %q, %v, want %q", got, err, raw)
	}
	if end, ok := h.End(1); !ok || end != 0x3000060 || h.Timeline != 2 {
		t.Errorf("got %+v", h)
	}
	for what, bad := range map[string]string{"nonsense": "x\n", "too large": strings.Repeat(raw, historyMax/len(raw)+1)} {
		if err := os.WriteFile(filepath.Join(dir, history), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := q.History(2); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
}

// Whatever happens to pg_wal, nothing is called missing that is only no longer looked at.
func TestReplaced(t *testing.T) {
	for what, replace := range map[string]func(t *testing.T, dir string) error{
		"removed": func(_ *testing.T, dir string) error { return os.RemoveAll(dir) },
		"removed and made anew": func(t *testing.T, dir string) error {
			defer put(t, dir, seg1)
			return os.RemoveAll(dir)
		},
		"moved away": func(t *testing.T, dir string) error {
			defer put(t, dir, seg1)
			return os.Rename(dir, dir+".old")
		},
		"a symlink to another one": func(t *testing.T, dir string) error {
			put(t, dir+".new", seg1)
			return errors.Join(os.RemoveAll(dir), os.Symlink("pg_wal.new", dir))
		},
	} {
		dir := filepath.Join(t.TempDir(), "pg_wal")
		put(t, dir, seg1, statusDir+"/"+seg1+".ready")
		q := open(t, dir)
		if err := q.Check(); err != nil {
			t.Errorf("%s: before: %v", what, err)
		}
		if err := replace(t, dir); err != nil {
			t.Fatal(err)
		}
		_, err1 := q.Scan()
		_, err2 := q.Ident(name(t, seg2))
		_, _, err3 := q.Open(name(t, seg2))
		_, _, err4 := q.History(2)
		for i, err := range []error{q.Check(), err1, err2, err3, err4, q.MarkDone(name(t, seg2))} {
			if !errors.Is(err, ErrReplaced) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, call %d: got %v, want ErrReplaced", what, i, err)
			}
		}
	}
}

// 100,000 waiting files are one scan and little memory. (The segments themselves are left out here, to save the
// time to make them; BenchmarkScan has both.)
func TestLargeBacklog(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	dir := t.TempDir()
	makeBacklog(t, dir, n, "%s/archive_status/%s.ready")
	q := open(t, dir)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	files, err := q.Scan()
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	i := 0
	for f := range files.All() {
		if f.Name != backlogName(i) || f.Status != Ready || !f.Gone {
			t.Fatalf("file %d: got %+v", i, f)
		}
		i++
	}
	if i != n {
		t.Errorf("got %d files, want %d", i, n)
	}
	kept := int(after.HeapAlloc) - int(before.HeapAlloc)
	if perFile := kept / n; perFile > 2 {
		t.Errorf("got %d bytes for each file, want at most 2", perFile)
	}
	t.Logf("kept %d bytes, allocated %d bytes for each file", kept/n, int(after.TotalAlloc-before.TotalAlloc)/n)
	runtime.KeepAlive(files)
}

func backlogName(i int) wal.Name {
	return wal.SegmentName(wal.Segment{Timeline: 1, Size: size, No: uint64(i)})
}

// makeBacklog makes n files in each of the given patterns of folder and segment. They are links to a few empty files, which is three times as fast
// as making files and looks the same to a Scan.
func makeBacklog(t testing.TB, dir string, n int, patterns ...string) {
	t.Helper()
	put(t, dir, statusDir+"/x")
	for i := range n {
		source := filepath.Join(dir, fmt.Sprint("source", i/10_000))
		if i%10_000 == 0 {
			put(t, dir, filepath.Base(source))
		}
		for _, path := range patterns {
			if err := syscall.Link(source, fmt.Sprintf(path, dir, backlogName(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			makeBacklog(b, dir, n, "%s/%s", "%s/archive_status/%s.ready")
			q := open(b, dir)
			b.ReportAllocs()
			for b.Loop() {
				files, err := q.Scan()
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := files.Find(backlogName(n - 1)); !ok {
					b.Fatal("the last file was not found")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/file")
		})
	}
}
