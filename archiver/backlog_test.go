package archiver

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// backlog gives n1 that many segments with .ready, behind its first ones. They are links to a few empty files: nobody reads them here.
func backlog(t testing.TB, files int) *testNode {
	t.Helper()
	w := newWriter()
	w.Fill(1)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	for i := range files {
		source := filepath.Join(n.dir, fmt.Sprint("source", i/30_000))
		if i%30_000 == 0 {
			if err := os.WriteFile(source, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		name := seg2(1, uint64(1000+i)).String()
		for _, path := range []string{name, "archive_status/" + name + ".ready"} {
			if err := os.Link(source, filepath.Join(n.dir, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// TestBacklogMemory: what waits in pg_wal costs next to nothing until it is read: the goal is 48 bytes a file.
func TestBacklogMemory(t *testing.T) {
	files := 100_000
	if testing.Short() {
		files = 20_000
	}
	n := backlog(t, files)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if s := n.State(); s.Waiting != files {
		t.Errorf("%d files wait, want %d", s.Waiting, files)
	}
	if got := n.Shippable(); len(got) != batch || got[0] != wal.SegmentName(seg2(1, 1000)) {
		t.Errorf("shippable: %d files, first %v", len(got), got[0])
	}
	runtime.ReadMemStats(&after)
	if each := int(after.TotalAlloc-before.TotalAlloc) / files; each > 64 { // the names, as strings, in reading the folders
		t.Errorf("%d bytes were allocated for each file", each)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int(after.HeapAlloc) - int(before.HeapAlloc)) / files; each > 2 {
		t.Errorf("%d bytes are held for each file", each)
	}
}

// TestNamesMeanwhile: who goes through the names sees what comes up meanwhile when its turn comes, and each name once.
func TestNamesMeanwhile(t *testing.T) {
	n := backlog(t, 3)
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	early, late := wal.SegmentName(seg2(1, 999)), wal.SegmentName(seg2(1, 1003))
	for _, name := range []wal.Name{late, early} {
		n.write(name.String(), nil, "")
		if _, err := n.local.touch(name); err != nil {
			t.Fatal(err)
		}
	}
	list := func() (got []string) {
		for k := range n.local.names() {
			if k.name.Segment.No >= 999 {
				got = append(got, fmt.Sprint(k.name.Segment.No, " ", k.status))
			}
		}
		return got
	}
	want := "[999 none 1000 ready 1001 ready 1002 ready 1003 none]"
	if got := fmt.Sprint(list()); got != want {
		t.Errorf("before the scan: %s, want %s", got, want)
	}
	if err := os.Remove(filepath.Join(n.dir, seg2(1, 1001).String())); err != nil {
		t.Fatal(err)
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(list()), "[999 none 1000 ready 1002 ready 1003 none]"; got != want {
		t.Errorf("after the scan: %s, want %s", got, want)
	}
	if n.local.has(wal.SegmentName(seg2(1, 1001))) || !n.local.has(early) {
		t.Error("what is gone is still known, or what is there is not")
	}
}

// BenchmarkBacklog is each pass over a pg_wal where much waits.
func BenchmarkBacklog(b *testing.B) {
	n := backlog(b, 100_000)
	if err := n.Rescan(); err != nil {
		b.Fatal(err)
	}
	for _, pass := range []struct {
		name string
		run  func()
	}{
		{"rescan", func() { _ = n.Rescan() }},
		{"state", func() { n.State() }},
		{"shippable", func() { n.Shippable() }},
		{"confirm", func() { n.Confirm(b.Context()) }},
		{"unlisted", func() { n.Unlisted() }},
		{"lacks", func() { n.lackCandidates(n.Last()) }},
	} {
		b.Run(pass.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pass.run()
			}
		})
	}
}
