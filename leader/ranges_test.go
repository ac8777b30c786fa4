package leader

import (
	"math"
	"math/rand/v2"
	"testing"
)

func ranges(t testing.TB, text string) Ranges {
	t.Helper()
	r, err := ParseRanges(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRangesText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"1:3A-4F,51;2:50-52", "1:3A-4F,51;2:50-52"},
		{"2:1;1:5", "1:5;2:1"},
		{"1:5,4,3", "1:3-5"},
		{"1:1-4,2-3;1:5", "1:1-5"},
		{"1:0", "1:0"},
		{"FFFFFFFF:FFFFFFFFFFFFFFFF", "FFFFFFFF:FFFFFFFFFFFFFFFF"},
		{"1:FFFFFFFFFFFFFFFE-FFFFFFFFFFFFFFFF,0-FFFFFFFFFFFFFFFE", "1:0-FFFFFFFFFFFFFFFF"},
		{"a:b-c", "A:B-C"},
	} {
		got, err := ParseRanges(c.in)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseRanges(%q) = %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"1", "1:", ":1", "0:1", "1:2-1", "1:1-", "1:-1", "1:x", "1:1;", "100000000:1", "1:+1", " 1:1"} {
		if got, err := ParseRanges(bad); err == nil {
			t.Errorf("ParseRanges(%q) = %q, want an error", bad, got)
		}
	}
}

// TestRangesAgainstMap compares every operation with the same one on a plain map.
func TestRangesAgainstMap(t *testing.T) {
	type key struct {
		tl uint32
		no uint64
	}
	random := rand.New(rand.NewPCG(1, 2))
	make1 := func() (Ranges, map[key]bool) {
		var r Ranges
		m := map[key]bool{}
		for range random.IntN(8) {
			x := Range{uint32(1 + random.IntN(3)), uint64(random.IntN(20)), 0}
			x.Last = x.First + uint64(random.IntN(6))
			add := random.IntN(4) > 0
			if add {
				r = r.Add(x)
			} else {
				r = r.Remove(x)
			}
			for no := x.First; no <= x.Last; no++ {
				if add {
					m[key{x.Timeline, no}] = true
				} else {
					delete(m, key{x.Timeline, no})
				}
			}
		}
		return r, m
	}
	same := func(what string, got Ranges, want func(key) bool) {
		t.Helper()
		n := uint64(0)
		for tl := uint32(1); tl <= 3; tl++ {
			for no := range uint64(30) {
				w := want(key{tl, no})
				if got.Has(tl, no) != w {
					t.Fatalf("%s: %q: Has(%d, %X) = %v, want %v", what, got, tl, no, !w, w)
				}
				if w {
					n++
				}
			}
		}
		if got.Count() != n || got.Empty() != (n == 0) {
			t.Fatalf("%s: %q: Count %d, want %d", what, got, got.Count(), n)
		}
		for i := 1; i < len(got); i++ {
			if a, b := got[i-1], got[i]; a.Timeline > b.Timeline || a.Timeline == b.Timeline && a.Last+1 >= b.First {
				t.Fatalf("%s: %q is not sorted and merged", what, got)
			}
		}
		for tl, no := range got.All() {
			if !want(key{tl, no}) {
				t.Fatalf("%s: %q: All gives %d:%X", what, got, tl, no)
			}
			n--
		}
		if again := ranges(t, got.String()); n != 0 || !again.Equal(got) {
			t.Fatalf("%s: %q reads back as %q", what, got, again)
		}
	}
	for range 3000 {
		a, ma := make1()
		b, mb := make1()
		before := a.String() + b.String()
		same("set", a, func(k key) bool { return ma[k] })
		same("union", a.Union(b), func(k key) bool { return ma[k] || mb[k] })
		same("intersect", a.Intersect(b), func(k key) bool { return ma[k] && mb[k] })
		same("subtract", a.Subtract(b), func(k key) bool { return ma[k] && !mb[k] })
		if a.String()+b.String() != before {
			t.Fatal("an operation changed its operands")
		}
	}
}

func TestRangesEdges(t *testing.T) {
	all := Ranges{{1, 0, math.MaxUint64}}
	if got := all.Remove(Range{1, math.MaxUint64, math.MaxUint64}).String(); got != "1:0-FFFFFFFFFFFFFFFE" {
		t.Errorf("without the last: %s", got)
	}
	if got := all.Remove(Range{1, 0, 0}).String(); got != "1:1-FFFFFFFFFFFFFFFF" {
		t.Errorf("without the first: %s", got)
	}
	if tl, no, ok := ranges(t, "3:9;2:7-8").First(); tl != 2 || no != 7 || !ok {
		t.Errorf("First: %d %d %v", tl, no, ok)
	}
	if _, _, ok := Ranges(nil).First(); ok {
		t.Error("the empty set has a first segment")
	}
	if got := RangesOf(Range{1, 5, 4}); !got.Empty() {
		t.Errorf("a run that ends before it begins: %s", got)
	}
}

func FuzzParseRanges(f *testing.F) {
	f.Add("1:3A-4F,51;2:50-52")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRanges(text)
		if err != nil {
			return
		}
		again, err := ParseRanges(r.String())
		if err != nil || !again.Equal(r) {
			t.Errorf("%q reads as %q, and that as %q, %v", text, r, again, err)
		}
	})
}
