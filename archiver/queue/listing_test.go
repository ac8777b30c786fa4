package queue

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
)

// TestListing makes listings of random names in random order: what they give is what a sorted list has. Some names are on both sides of a
// page's border, and on several timelines.
func TestListing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		l := &Listing{size: size, pages: map[place]*page{}}
		want := map[wal.Name]File{}
		for range r.IntN(60) {
			n := wal.SegmentName(wal.Segment{Timeline: wal.Timeline(1 + r.IntN(3)), Size: size, No: uint64(pageSegments - 3 + r.IntN(6))})
			switch r.IntN(8) {
			case 0:
				n.Kind = wal.KindPartial
			case 1:
				n.Kind, n.Offset = wal.KindBackup, uint32(r.IntN(3))
			case 2:
				n = wal.HistoryName(n.Segment.Timeline)
			case 3:
				n.Segment.No = r.Uint64N(1 << 40)
			}
			status, gone := Status(r.IntN(3)), r.IntN(2) == 0
			if status == None && gone {
				continue // no scan says that
			}
			l.note(n, status, gone)
			f, twice := want[n]
			if !twice {
				f = File{Name: n, Gone: true}
			}
			want[n] = File{Name: n, Status: max(f.Status, status), Gone: f.Gone && gone}
		}
		l.sorted()
		sorted := slices.SortedFunc(maps.Values(want), func(a, b File) int { return Order(a.Name, b.Name) })
		if got := slices.Collect(l.All()); !slices.Equal(got, sorted) {
			t.Fatalf("got\n%v\nwant\n%v", got, sorted)
		}
		for range l.All() {
			break // it may be left
		}
		for _, f := range sorted {
			if got, ok := l.Find(f.Name); !ok || got != f {
				t.Errorf("find %v: got %+v, %v, want %+v", f.Name, got, ok, f)
			}
			f.Name.Segment.Timeline = 9
			if got, ok := l.Find(f.Name); ok {
				t.Errorf("find %v: got %+v", f.Name, got)
			}
		}
		for no := uint64(pageSegments - 4); no < pageSegments+4; no++ {
			var numbered []File
			for _, f := range sorted {
				if f.Name.Kind == wal.KindSegment && f.Name.Segment.No == no {
					numbered = append(numbered, f)
				}
			}
			if got := slices.Collect(l.Numbered(no)); !slices.Equal(got, numbered) {
				t.Errorf("numbered %d: got %v, want %v", no, got, numbered)
			}
		}
	}
}

// TestOrder: what opens a timeline is first, and then the oldest WAL of any.
func TestOrder(t *testing.T) {
	segment := func(t wal.Timeline, no uint64) wal.Name {
		return wal.SegmentName(wal.Segment{Timeline: t, Size: size, No: no})
	}
	partial := segment(1, 5)
	partial.Kind = wal.KindPartial
	want := []wal.Name{wal.HistoryName(2), wal.HistoryName(3), segment(3, 4), segment(1, 5), partial, segment(2, 5), segment(1, 6)}
	for i, a := range want {
		for j, b := range want {
			if got := Order(a, b); got != cmp.Compare(i, j) {
				t.Errorf("order of %v and %v: got %d, want %d", a, b, got, cmp.Compare(i, j))
			}
		}
	}
	var zero Listing
	if got := slices.Collect(zero.All()); len(got) != 0 {
		t.Errorf("an empty listing has %v", got)
	}
}
