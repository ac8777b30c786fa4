package archiver

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
)

func seg(t wal.Timeline, no uint64) wal.Segment {
	return wal.Segment{Timeline: t, Size: 1 << 20, No: no}
}

// TestSetAgainstMap compares the spans with a plain map over random operations.
func TestSetAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s Set
		m := map[wal.Segment]bool{}
		var other Set
		om := map[wal.Segment]bool{}
		for range 120 {
			g := seg(wal.Timeline(1+r.IntN(3)), uint64(r.IntN(40)))
			switch r.IntN(4) {
			case 0, 1:
				s.Add(g)
				m[g] = true
			case 2:
				s.Remove(g)
				delete(m, g)
			case 3:
				other.Add(g)
				om[g] = true
			}
		}
		minus := s.Minus(other)
		union := s.Clone()
		union.Union(other)
		if got, want := s.Len(), len(m); got != want {
			t.Fatalf("Len: got %d, want %d", got, want)
		}
		for tl := wal.Timeline(1); tl <= 3; tl++ {
			for no := uint64(0); no < 42; no++ {
				g := seg(tl, no)
				if got, want := s.Has(g), m[g]; got != want {
					t.Fatalf("Has(%v): got %v, want %v in %v", g, got, want, s.Spans())
				}
				if got, want := minus.Has(g), m[g] && !om[g]; got != want {
					t.Fatalf("Minus.Has(%v): got %v, want %v", g, got, want)
				}
				if got, want := union.Has(g), m[g] || om[g]; got != want {
					t.Fatalf("Union.Has(%v): got %v, want %v", g, got, want)
				}
				want := no
				for m[seg(tl, want)] {
					want++
				}
				if got := s.Next(tl, no); got != want {
					t.Fatalf("Next(%d,%d): got %d, want %d in %v", tl, no, got, want, s.Spans())
				}
				below, some := no, false
				for below > 0 && !some {
					below--
					some = m[seg(tl, below)]
				}
				if got, ok := s.Before(g); ok != some || ok && got != below {
					t.Fatalf("Before(%v): got %d, %v, want %d, %v in %v", g, got, ok, below, some, s.Spans())
				}
				above, some := no, false
				for above < 50 && !some {
					above++
					some = m[seg(tl, above)]
				}
				if got, ok := s.After(g); ok != some || ok && got != above {
					t.Fatalf("After(%v): got %d, %v, want %d, %v in %v", g, got, ok, above, some, s.Spans())
				}
			}
		}
		for i := 1; i < len(s.spans); i++ {
			a, b := s.spans[i-1], s.spans[i]
			if a.Timeline == b.Timeline && a.Last+1 >= b.First {
				t.Fatalf("spans touch: %v %v", a, b)
			}
		}
		if got, want := SetOf(slices.Clone(s.Spans())...), s; !slices.Equal(got.spans, want.spans) {
			t.Fatalf("SetOf: got %v, want %v", got.spans, want.spans)
		}
	}
}
