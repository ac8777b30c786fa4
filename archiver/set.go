package archiver

import (
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Span is a run of segment numbers of one timeline, both ends included.
type Span struct {
	Timeline    wal.Timeline
	First, Last uint64
}

// Set is a set of segments of one size, kept as sorted, disjoint spans: a million segments in a
// row take the memory of one. The zero value is empty. It is not safe for concurrent use.
type Set struct {
	spans []Span
}

// SetOf makes a set of spans in any order, also overlapping ones.
func SetOf(spans ...Span) Set {
	var s Set
	for _, p := range spans {
		s.addSpan(p)
	}
	return s
}

func compareSpan(p Span, t wal.Timeline, no uint64) int {
	switch {
	case p.Timeline < t, p.Timeline == t && p.Last < no:
		return -1
	case p.Timeline > t, p.First > no:
		return 1
	}
	return 0
}

// find gives the index of the span that holds t/no, or where it would be inserted.
func (s *Set) find(t wal.Timeline, no uint64) (int, bool) {
	return slices.BinarySearchFunc(s.spans, no, func(p Span, no uint64) int { return compareSpan(p, t, no) })
}

// Has says whether the segment is in the set.
func (s *Set) Has(g wal.Segment) bool {
	_, ok := s.find(g.Timeline, g.No)
	return ok
}

// Add puts a segment into the set.
func (s *Set) Add(g wal.Segment) { s.addSpan(Span{g.Timeline, g.No, g.No}) }

func (s *Set) addSpan(p Span) {
	// Neighbours that touch are merged, so look one number to each side.
	lo := p.First
	if lo > 0 {
		lo--
	}
	i, _ := s.find(p.Timeline, lo)
	j := i
	for j < len(s.spans) && s.spans[j].Timeline == p.Timeline && s.spans[j].First <= p.Last+1 {
		p.First = min(p.First, s.spans[j].First)
		p.Last = max(p.Last, s.spans[j].Last)
		j++
	}
	s.spans = slices.Replace(s.spans, i, j, p)
}

// Remove takes a segment out of the set.
func (s *Set) Remove(g wal.Segment) {
	i, ok := s.find(g.Timeline, g.No)
	if !ok {
		return
	}
	p := s.spans[i]
	var rest []Span
	if p.First < g.No {
		rest = append(rest, Span{p.Timeline, p.First, g.No - 1})
	}
	if p.Last > g.No {
		rest = append(rest, Span{p.Timeline, g.No + 1, p.Last})
	}
	s.spans = slices.Replace(s.spans, i, i+1, rest...)
}

// Spans gives the content, by timeline and number. The caller must not change it.
func (s *Set) Spans() []Span { return s.spans }

// Clone gives a copy that shares nothing.
func (s *Set) Clone() Set { return Set{slices.Clone(s.spans)} }

// Empty says whether nothing is in the set.
func (s *Set) Empty() bool { return len(s.spans) == 0 }

// Len counts the segments.
func (s *Set) Len() int {
	n := 0
	for _, p := range s.spans {
		n += int(p.Last-p.First) + 1
	}
	return n
}

// HasTimeline says whether any segment of t is in the set.
func (s *Set) HasTimeline(t wal.Timeline) bool {
	i, _ := s.find(t, 0)
	return i < len(s.spans) && s.spans[i].Timeline == t
}

// Next gives the number after the run of t that holds no; no itself when it is not in the set.
func (s *Set) Next(t wal.Timeline, no uint64) uint64 {
	if i, ok := s.find(t, no); ok {
		return s.spans[i].Last + 1
	}
	return no
}

// Before gives the highest number of g's timeline below g that is in the set.
func (s *Set) Before(g wal.Segment) (no uint64, ok bool) {
	i, in := s.find(g.Timeline, g.No)
	if in && s.spans[i].First < g.No {
		return g.No - 1, true
	}
	if i == 0 || s.spans[i-1].Timeline != g.Timeline {
		return 0, false
	}
	return s.spans[i-1].Last, true
}

// After gives the lowest number of g's timeline above g that is in the set.
func (s *Set) After(g wal.Segment) (no uint64, ok bool) {
	i, in := s.find(g.Timeline, g.No+1)
	if in {
		return g.No + 1, true
	}
	if i == len(s.spans) || s.spans[i].Timeline != g.Timeline {
		return 0, false
	}
	return s.spans[i].First, true
}

// Minus gives what is in s and not in o.
func (s *Set) Minus(o Set) Set {
	var out Set
	for _, p := range s.spans {
		no := p.First
		for no <= p.Last {
			if next := o.Next(p.Timeline, no); next > no {
				no = next
				continue
			}
			end := p.Last
			if i, _ := o.find(p.Timeline, no); i < len(o.spans) && o.spans[i].Timeline == p.Timeline {
				end = min(end, o.spans[i].First-1)
			}
			out.spans = append(out.spans, Span{p.Timeline, no, end})
			no = end + 1
		}
	}
	return out
}

// Union adds all of o to s.
func (s *Set) Union(o Set) {
	for _, p := range o.spans {
		s.addSpan(p)
	}
}

func (s *Set) equal(o Set) bool { return slices.Equal(s.spans, o.spans) }
