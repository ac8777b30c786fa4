package drill

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSegmentName(t *testing.T) {
	for _, test := range []struct {
		timeline, no, size uint64
		name               string
	}{
		{1, 1, 16 << 20, "000000010000000000000001"},
		{1, 0x1FF, 16 << 20, "0000000100000001000000FF"},
		{0x2A, 0x1FF, 1 << 20, "0000002A00000000000001FF"},
		{2, 5, 1 << 30, "000000020000000100000001"},
	} {
		if got := segmentName(test.timeline, test.no, test.size); got != test.name {
			t.Errorf("segmentName(%d, %d, %d): got %s, want %s", test.timeline, test.no, test.size, got, test.name)
		}
		timeline, no, err := parseSegment(test.name, test.size)
		if err != nil || timeline != test.timeline || no != test.no {
			t.Errorf("parseSegment(%s): got %d, %d, %v", test.name, timeline, no, err)
		}
	}
	for _, bad := range []string{"", "00000001.history", "000000010000000000000001.partial", "00000001000000000000000G"} {
		if _, _, err := parseSegment(bad, 16<<20); err == nil {
			t.Errorf("parseSegment(%q): got no error", bad)
		}
	}
}

func TestNeeded(t *testing.T) {
	dir := t.TempDir()
	history := "1\t0/3000000\tno recovery target specified\n\n# a comment\n2\t0/4800028\tno recovery target specified\n"
	if err := os.WriteFile(filepath.Join(dir, "00000003.history"), []byte(history), 0o644); err != nil {
		t.Fatal(err)
	}
	at, err := line(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	// Timeline 2 began exactly with segment 3, timeline 3 inside segment 4: its own file has both.
	want := []string{"00000003.history", "000000010000000000000002", "000000020000000000000003", "000000030000000000000004", "000000030000000000000005"}
	if got := needed(at, 2, 5, 16<<20); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDifference(t *testing.T) {
	want := map[int64]string{1: "a", 2: "b", 3: "c"}
	if err := Difference(want, want); err != nil {
		t.Errorf("the same rows: %v", err)
	}
	err := Difference(map[int64]string{2: "x", 3: "c", 4: "d"}, want)
	d, ok := err.(*RowsDiffer)
	if !ok || !slices.Equal(d.Missing, []int64{1}) || !slices.Equal(d.Changed, []int64{2}) || !slices.Equal(d.Extra, []int64{4}) {
		t.Errorf("got %v", err)
	}
}

func TestInventory(t *testing.T) {
	root := t.TempDir()
	key := filepath.Join(root, "drill/1/wal/00000001/000000010000000000000001")
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(key), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(key, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func(v *Inventory, thorough bool) *Rewritten {
		t.Helper()
		err := v.Look(t.Context(), thorough)
		r, ok := err.(*Rewritten)
		if err != nil && !ok {
			t.Fatal(err)
		}
		return r
	}
	v := NewInventory(&folderStore{root: root})
	write("one")
	for _, thorough := range []bool{false, true} {
		if r := look(v, thorough); r != nil || v.Len() != 1 {
			t.Fatalf("got %v and %d objects, want one", r, v.Len())
		}
	}
	info, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	write("two") // in place, of the same size
	if err := os.Chtimes(key, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if r := look(v, true); r == nil {
		t.Error("another content: got nothing")
	}
	write("three")
	if r := look(v, false); r == nil {
		t.Error("another size: got nothing")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if r := look(v, false); r == nil {
		t.Error("removed: got nothing")
	}
}
