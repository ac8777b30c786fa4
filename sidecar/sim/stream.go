package sim

import (
	"bytes"
	"slices"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

const (
	segmentSize = wal.SegmentSize(1 << 20)
	systemID    = 7710524633316114262
)

// stream is the WAL of one timeline as one server wrote it. Two servers promoted to the same number make two
// streams. Its bytes are made once and shared by all who receive them.
type stream struct {
	tli    wal.Timeline
	owner  string // who wrote it
	parent *stream
	begin  wal.LSN // where it left its parent
	salt   uint64  // makes its records differ from those of other servers

	w     *waltest.Writer
	ops   []func(*waltest.Writer)
	ends  []wal.LSN // where the WAL ended after each op
	snaps []snap

	images map[wal.Segment]image
}

// snap is the writer as it was before op number next, and what made its records differ from another server's.
type snap struct {
	w    *waltest.Writer
	salt uint64
	next int
}

// replay gives a writer that has written the stream up to l, where a record ends, and how many ops that are.
func (s *stream) replay(l wal.LSN) (w *waltest.Writer, next, from int) {
	from = len(s.snaps) - 1
	for from > 0 && s.snaps[from].w.Pos() > l {
		from--
	}
	x := s.snaps[from]
	w = x.w.Clone(x.salt)
	for next = x.next; next < len(s.ops) && w.Pos() < l; next++ {
		s.ops[next](w)
	}
	if w.Pos() != l {
		panic("replay to the middle of a record")
	}
	return w, next, from
}

// image is a segment's bytes without the zeros at its end, as far as they were written.
type image struct {
	bytes []byte
	upTo  wal.LSN
}

func newStream(w *waltest.Writer, salt uint64, owner string, parent *stream) *stream {
	s := &stream{salt: salt, tli: w.History().Timeline, owner: owner, parent: parent, begin: w.Pos(), w: w, images: map[wal.Segment]image{}}
	s.snaps = []snap{{w.Clone(salt), salt, 0}}
	return s
}

func (s *stream) history() wal.History { return s.w.History() }

// write does one op at the end of the WAL.
func (s *stream) write(op func(*waltest.Writer)) {
	before := s.w.Current()
	op(s.w)
	s.ops = append(s.ops, op)
	s.ends = append(s.ends, s.w.Pos())
	if s.w.Current() != before {
		s.snaps = append(s.snaps, snap{s.w.Clone(s.salt), s.salt, len(s.ops)})
	}
}

// end is the last place, at or before l, where a record ends.
func (s *stream) end(l wal.LSN) wal.LSN {
	i, ok := slices.BinarySearch(s.ends, l)
	switch {
	case ok:
		return l
	case i == 0:
		return min(l, s.begin)
	}
	return s.ends[i-1]
}

// fork makes the stream of a server that is promoted at l to timeline t. The salt makes it differ from
// that of another server that is promoted there.
func (s *stream) fork(owner string, l wal.LSN, t wal.Timeline, salt uint64) *stream {
	w, _, _ := s.replay(l)
	return newStream(w.Clone(salt).Fork(t), salt, owner, s)
}

// twin makes the stream of a server that is started as a primary at l without a promotion: it writes the same timeline.
func (s *stream) twin(owner string, l wal.LSN, salt uint64) *stream {
	w, n, from := s.replay(l)
	w = w.Clone(salt)
	return &stream{tli: s.tli, owner: owner, parent: s.parent, begin: s.begin, salt: salt, w: w, ops: slices.Clone(s.ops[:n]), ends: slices.Clone(s.ends[:n]),
		snaps: append(slices.Clone(s.snaps[:from+1]), snap{w.Clone(salt), salt, n}), images: map[wal.Segment]image{}}
}

// owns gives the stream on this one's line that wrote segment g, nil when it is not on the line.
func (s *stream) owns(g wal.Segment) *stream {
	for x := s; x != nil; x = x.parent {
		if x.tli == g.Timeline {
			return x
		}
	}
	return nil
}

// image gives what is written of g, which is on this very timeline.
func (s *stream) image(g wal.Segment) []byte {
	end := min(s.w.Pos(), g.End())
	im, ok := s.images[g]
	if !ok || im.upTo < end {
		file := s.w.Peek(g) // nil where this timeline has no such segment
		im = image{trim(file[:min(len(file), int(end-min(end, g.Start())))]), end}
		s.images[g] = im
	}
	return im.bytes
}

// trim cuts the zeros off the end, a page at a time.
func trim(b []byte) []byte {
	const page = 8192
	n := len(b)
	for n >= page && allZero(b[n-page:n]) {
		n -= page
	}
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return b[:n:n]
}

// padded is a segment's file again.
func padded(b []byte) []byte {
	return append(slices.Clone(b), make([]byte, int(segmentSize)-len(b))...)
}

func allZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

var zeros [8192]byte // never written

// descends says whether s is o or grew from it, and where the line of s left o.
func (s *stream) descends(o *stream) (left wal.LSN, ok bool) {
	left = wal.MaxLSN
	for x := s; x != nil; x = x.parent {
		if x == o {
			return left, true
		}
		left = x.begin
	}
	return 0, false
}

// child gives the stream on the line of s that follows o.
func (s *stream) child(o *stream) *stream {
	for x := s; x != nil; x = x.parent {
		if x.parent == o {
			return x
		}
	}
	return nil
}
