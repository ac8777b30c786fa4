package queue

import (
	"cmp"
	"iter"
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Listing is what a Scan found. PostgreSQL numbers segments one after the other, so each of them takes three bits: a backlog of a million
// takes half a megabyte. It does not change, and may be read concurrently.
type Listing struct {
	size  wal.SegmentSize
	pages map[place]*page
	order []place // sorted by number, then by timeline
	rest  []File  // what is no segment, sorted by Order
}

// page is what there is of 512 segments that follow each other on one timeline.
type page struct{ wal, ready, done [pageSegments / 64]uint64 }

const pageSegments = 512

// place is where a page belongs: its first segment's number is a multiple of pageSegments.
type place struct {
	no       uint64
	timeline wal.Timeline
}

// note puts a file into a Listing that is being made, or a status file with gone.
func (l *Listing) note(n wal.Name, s Status, gone bool) {
	if n.Kind != wal.KindSegment {
		l.rest = append(l.rest, File{n, s, gone})
		return
	}
	at := place{n.Segment.No / pageSegments, n.Segment.Timeline}
	p := l.pages[at]
	if p == nil {
		p = &page{}
		l.pages[at] = p
		l.order = append(l.order, at)
	}
	i, bit := n.Segment.No%pageSegments/64, uint64(1)<<(n.Segment.No%64)
	if !gone {
		p.wal[i] |= bit
	}
	switch s {
	case Ready:
		p.ready[i] |= bit
	case Done:
		p.done[i] |= bit
	}
}

// sorted ends the making.
func (l *Listing) sorted() {
	slices.SortFunc(l.order, func(a, b place) int { return cmp.Or(cmp.Compare(a.no, b.no), cmp.Compare(a.timeline, b.timeline)) })
	slices.SortFunc(l.rest, func(a, b File) int { return Order(a.Name, b.Name) })
	l.rest = merge(l.rest)
}

// merge makes one of all neighbours with the same name, in place.
func merge(files []File) []File {
	out := files[:0]
	for _, f := range files {
		if n := len(out); n > 0 && out[n-1].Name == f.Name {
			out[n-1].Status = max(out[n-1].Status, f.Status)
			out[n-1].Gone = out[n-1].Gone && f.Gone
			continue
		}
		out = append(out, f)
	}
	return out
}

// Order is the order in which things are shipped: histories, then the oldest WAL, and of one segment number the lower timeline first.
func Order(a, b wal.Name) int {
	if x, y := a.Kind == wal.KindHistory, b.Kind == wal.KindHistory; x == y && a.Segment.No != b.Segment.No {
		return cmp.Compare(a.Segment.No, b.Segment.No)
	}
	return a.Compare(b)
}

// All gives every file, sorted by Order.
func (l *Listing) All() iter.Seq[File] {
	return func(yield func(File) bool) {
		rest := l.rest
		for f := range l.segments() {
			for len(rest) > 0 && Order(rest[0].Name, f.Name) < 0 {
				if !yield(rest[0]) {
					return
				}
				rest = rest[1:]
			}
			if !yield(f) {
				return
			}
		}
		for _, f := range rest {
			if !yield(f) {
				return
			}
		}
	}
}

// segments gives those in the order of their numbers: page by page, where several timelines may have one of the same numbers.
func (l *Listing) segments() iter.Seq[File] {
	return func(yield func(File) bool) {
		for begin := 0; begin < len(l.order); {
			no := l.order[begin].no
			end := begin + 1
			for end < len(l.order) && l.order[end].no == no {
				end++
			}
			for i := range uint64(pageSegments) {
				for _, at := range l.order[begin:end] {
					if f, ok := l.file(at, no*pageSegments+i); ok && !yield(f) {
						return
					}
				}
			}
			begin = end
		}
	}
}

// file is a segment of a page.
func (l *Listing) file(at place, no uint64) (File, bool) {
	p := l.pages[at]
	if p == nil {
		return File{}, false
	}
	i, bit := no%pageSegments/64, uint64(1)<<(no%64)
	f := File{Name: wal.SegmentName(wal.Segment{Timeline: at.timeline, Size: l.size, No: no}), Gone: p.wal[i]&bit == 0}
	switch {
	case p.done[i]&bit != 0:
		f.Status = Done
	case p.ready[i]&bit != 0:
		f.Status = Ready
	case f.Gone:
		return File{}, false
	}
	return f, true
}

// Find gives one file.
func (l *Listing) Find(n wal.Name) (File, bool) {
	if n.Kind == wal.KindSegment {
		return l.file(place{n.Segment.No / pageSegments, n.Segment.Timeline}, n.Segment.No)
	}
	i, ok := slices.BinarySearchFunc(l.rest, n, func(f File, n wal.Name) int { return Order(f.Name, n) })
	if !ok {
		return File{}, false
	}
	return l.rest[i], true
}

// Numbered gives the segments with a number, the lowest timeline first.
func (l *Listing) Numbered(no uint64) iter.Seq[File] {
	return func(yield func(File) bool) {
		begin, _ := slices.BinarySearchFunc(l.order, no/pageSegments, func(at place, no uint64) int { return cmp.Compare(at.no, no) })
		for _, at := range l.order[begin:] {
			if at.no != no/pageSegments {
				return
			}
			if f, ok := l.file(at, no); ok && !yield(f) {
				return
			}
		}
	}
}
