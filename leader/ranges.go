package leader

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Range is a run of segment numbers of one timeline, both ends included. The number of a
// segment is its start address divided by the segment size.
type Range struct {
	Timeline    uint32
	First, Last uint64
}

// Ranges is a set of segments: sorted by timeline and number, disjoint, and merged where
// runs touch. Nil is the empty set. Its methods change nothing; they return new sets.
//
// As text, and so in JSON, it is compact ASCII in hexadecimal: "1:3A-4F,51;2:50-52".
type Ranges []Range

// RangesOf makes a set of runs in any order, also overlapping ones. A run that ends before
// it begins is left out.
func RangesOf(list ...Range) Ranges {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, compareRange)
	var out Ranges
	for _, r := range sorted {
		if r.First > r.Last {
			continue
		}
		if n := len(out); n > 0 && out[n-1].touches(r) {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

func compareRange(a, b Range) int {
	switch {
	case a.Timeline < b.Timeline, a.Timeline == b.Timeline && a.First < b.First:
		return -1
	case a == b, a.Timeline == b.Timeline && a.First == b.First:
		return 0
	}
	return 1
}

// touches says whether b, which does not begin before r, overlaps r or follows it at once.
func (r Range) touches(b Range) bool {
	return r.Timeline == b.Timeline && (b.First <= r.Last || b.First-r.Last == 1)
}

// Add gives the set with the run r in it.
func (s Ranges) Add(r Range) Ranges { return RangesOf(append(slices.Clone(s), r)...) }

// Remove gives the set without the run r.
func (s Ranges) Remove(r Range) Ranges { return s.Subtract(RangesOf(r)) }

// Union gives what is in s or in o.
func (s Ranges) Union(o Ranges) Ranges { return RangesOf(append(slices.Clone(s), o...)...) }

// Intersect gives what is in both.
func (s Ranges) Intersect(o Ranges) Ranges {
	var out Ranges
	for i, j := 0, 0; i < len(s) && j < len(o); {
		a, b := s[i], o[j]
		if a.Timeline == b.Timeline {
			if first, last := max(a.First, b.First), min(a.Last, b.Last); first <= last {
				out = append(out, Range{a.Timeline, first, last})
			}
		}
		if a.Timeline < b.Timeline || a.Timeline == b.Timeline && a.Last <= b.Last {
			i++
		} else {
			j++
		}
	}
	return out
}

// Subtract gives what is in s and not in o.
func (s Ranges) Subtract(o Ranges) Ranges {
	var out Ranges
	j := 0
	for _, r := range s {
		for j < len(o) && (o[j].Timeline < r.Timeline || o[j].Timeline == r.Timeline && o[j].Last < r.First) {
			j++
		}
		rest := true
		for k := j; rest && k < len(o) && o[k].Timeline == r.Timeline && o[k].First <= r.Last; k++ {
			if o[k].First > r.First {
				out = append(out, Range{r.Timeline, r.First, o[k].First - 1})
			}
			if rest = o[k].Last < r.Last; rest {
				r.First = o[k].Last + 1
			}
		}
		if rest {
			out = append(out, r)
		}
	}
	return out
}

// Has says whether segment no of the timeline is in the set.
func (s Ranges) Has(timeline uint32, no uint64) bool {
	_, ok := slices.BinarySearchFunc(s, no, func(r Range, no uint64) int {
		switch {
		case r.Timeline < timeline, r.Timeline == timeline && r.Last < no:
			return -1
		case r.Timeline > timeline, r.First > no:
			return 1
		}
		return 0
	})
	return ok
}

// Empty says whether nothing is in the set.
func (s Ranges) Empty() bool { return len(s) == 0 }

// Count gives the number of segments.
func (s Ranges) Count() uint64 {
	var n uint64
	for _, r := range s {
		n += r.Last - r.First + 1
	}
	return n
}

// First gives the lowest segment of the lowest timeline; false when the set is empty.
func (s Ranges) First() (timeline uint32, no uint64, ok bool) {
	if len(s) == 0 {
		return 0, 0, false
	}
	return s[0].Timeline, s[0].First, true
}

// All gives each segment, in order.
func (s Ranges) All() iter.Seq2[uint32, uint64] {
	return func(yield func(uint32, uint64) bool) {
		for _, r := range s {
			for no := r.First; ; no++ {
				if !yield(r.Timeline, no) {
					return
				}
				if no == r.Last {
					break
				}
			}
		}
	}
}

// Equal says whether both hold the same segments.
func (s Ranges) Equal(o Ranges) bool { return slices.Equal(s, o) }

// String gives the text form, "" for the empty set.
func (s Ranges) String() string {
	var b []byte
	for i, r := range s {
		switch {
		case i == 0 || s[i-1].Timeline != r.Timeline:
			if i > 0 {
				b = append(b, ';')
			}
			b = append(hex(b, uint64(r.Timeline)), ':')
		default:
			b = append(b, ',')
		}
		b = hex(b, r.First)
		if r.Last > r.First {
			b = hex(append(b, '-'), r.Last)
		}
	}
	return string(b)
}

func hex(b []byte, v uint64) []byte {
	return append(b, strings.ToUpper(strconv.FormatUint(v, 16))...)
}

// ParseRanges reads the text form, in any order.
func ParseRanges(text string) (Ranges, error) {
	if text == "" {
		return nil, nil
	}
	var list []Range
	for part := range strings.SplitSeq(text, ";") {
		head, runs, ok := strings.Cut(part, ":")
		timeline, err := strconv.ParseUint(head, 16, 32)
		if !ok || err != nil || timeline == 0 {
			return nil, fmt.Errorf("parse ranges: %.40q does not begin with a timeline and a colon", part)
		}
		for run := range strings.SplitSeq(runs, ",") {
			from, to, ok := strings.Cut(run, "-")
			if !ok {
				to = from
			}
			first, err1 := strconv.ParseUint(from, 16, 64)
			last, err2 := strconv.ParseUint(to, 16, 64)
			if err1 != nil || err2 != nil || first > last {
				return nil, fmt.Errorf("parse ranges: %.40q is no run of segment numbers", run)
			}
			list = append(list, Range{uint32(timeline), first, last})
		}
	}
	return RangesOf(list...), nil
}

// MarshalText gives the text form.
func (s Ranges) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the text form.
func (s *Ranges) UnmarshalText(b []byte) error {
	parsed, err := ParseRanges(string(b))
	if err == nil {
		*s = parsed
	}
	return err
}
