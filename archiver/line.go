package archiver

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/wal"
)

// stretch is a part of the line without a hole: pieces whose numbers follow each other, oldest first.
type stretch struct {
	pieces   []piece
	from, to wal.LSN // of its first byte, and after its last
}

// piece is a run of segments of one timeline, or the .partial that a timeline ends with.
type piece struct {
	Span
	partial bool
}

// stretches follows the line from its floor on. Segments that cannot be used count as missing. A .partial counts where nothing
// follows it: its timeline ended there, and the next one has not written a segment yet.
func (x *auditor) stretches() []stretch {
	size := uint64(x.a.id.SegmentSize)
	good := x.inv.segments.Minus(x.bad)
	var out []stretch
	open := false // the last stretch may go on
	add := func(p piece, to wal.LSN) {
		if last := len(out) - 1; open && out[last].to == wal.LSN(p.First*size) {
			out[last].pieces, out[last].to = append(out[last].pieces, p), to
		} else {
			out = append(out, stretch{[]piece{p}, wal.LSN(p.First * size), to})
		}
		open = !p.partial
	}
	floor := uint64(x.a.FloorOn(x.line)) / size
	for _, t := range x.rep.Line {
		begin, _ := x.line.Begin(t)
		end, _ := x.line.End(t)
		lo, hi := max(floor, uint64(begin)/size), uint64(end)/size // the segment with the fork inside is the next timeline's
		for _, p := range good.Spans() {
			if first, last := max(p.First, lo), min(p.Last, hi-1); p.Timeline == t && hi > 0 && first <= last {
				add(piece{Span: Span{t, first, last}}, wal.LSN((last+1)*size))
			}
		}
		x.addPartial(t, lo, hi, end, add)
	}
	return out
}

// addPartial adds the .partial that t ends with, unless the next timeline has the whole segment.
func (x *auditor) addPartial(t wal.Timeline, lo, hi uint64, end wal.LSN, add func(piece, wal.LSN)) {
	size := uint64(x.a.id.SegmentSize)
	for _, p := range x.inv.partials.Spans() {
		no := p.Last
		switch {
		case p.Timeline != t || no < lo:
			continue
		case end == wal.MaxLSN: // the newest timeline: its server is gone, and nobody was promoted after it
			if x.inv.segments.Has(wal.Segment{Timeline: t, Size: x.a.id.SegmentSize, No: no}) {
				continue
			}
			end = wal.LSN(no * size) // at least
		case hi < p.First || hi > p.Last || uint64(end)%size == 0:
			continue
		default:
			no = hi
			next := x.line.TimelineAt(end)
			if x.inv.segments.Has(wal.Segment{Timeline: next, Size: x.a.id.SegmentSize, No: no}) {
				continue
			}
		}
		add(piece{Span{t, no, no}, true}, end)
	}
}

// wholeLine counts the files of the line, so that one can search among them.
type wholeLine struct {
	a     *Archive
	parts []stretch
	times map[int][2]time.Time // commit times by place, of those whose header was asked

	encrypted, clear int // how many of these are encrypted, and are not
}

func (x *auditor) wholeLine() *wholeLine {
	return &wholeLine{a: x.a, parts: x.stretches(), times: map[int][2]time.Time{}}
}

// len counts the files.
func (l *wholeLine) len() (n int) {
	for _, s := range l.parts {
		n += s.len()
	}
	return n
}

func (s stretch) len() (n int) {
	for _, p := range s.pieces {
		n += int(p.Last-p.First) + 1
	}
	return n
}

// at gives the i-th file, and the stretch it is of.
func (l *wholeLine) at(i int) (n wal.Name, part int) {
	for part, s := range l.parts {
		for _, p := range s.pieces {
			k := int(p.Last-p.First) + 1
			if i >= k {
				i -= k
				continue
			}
			n.Segment = wal.Segment{Timeline: p.Timeline, Size: l.a.id.SegmentSize, No: p.First + uint64(i)}
			if p.partial {
				n.Kind = wal.KindPartial
			}
			return n, part
		}
	}
	return n, -1
}

// ask reads the headers of files that were not asked yet, some at the same time.
func (l *wholeLine) ask(ctx context.Context, files []int) error {
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	for _, i := range files {
		n, _ := l.at(i)
		g.Go(func() error {
			h, err := l.a.commits(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			l.times[i] = [2]time.Time{h.FirstCommit, h.LastCommit}
			switch {
			case h.Encryption != "":
				l.encrypted++
			case h.Name != "":
				l.clear++
			}
			return err
		})
	}
	return g.Wait()
}

// commits gives the time of the first and of the last commit in the i-th file: zero where it has none, or its header
// cannot be read.
func (l *wholeLine) commits(ctx context.Context, i int) (first, last time.Time, err error) {
	if _, asked := l.times[i]; !asked {
		err = l.ask(ctx, []int{i})
	}
	return l.times[i][0], l.times[i][1], err
}

// encryption says it in a word for the files whose headers were asked: age, mixed or nothing.
func (l *wholeLine) encryption() string {
	switch {
	case l.encrypted == 0:
		return ""
	case l.clear > 0:
		return "mixed"
	}
	return "age"
}

// farthest is how many headers are asked, one after the other, for a commit near the end of a run of segments.
const farthest = 64

// firstCommit looks for the first commit from the i-th file on, not behind the last-th; zero when none of the first 64 has one.
func (l *wholeLine) firstCommit(ctx context.Context, i, last int) (time.Time, error) {
	for k := i; k <= min(last, i+farthest-1); k++ {
		if t, _, err := l.commits(ctx, k); err != nil || !t.IsZero() {
			return t, err
		}
	}
	return time.Time{}, nil
}

// lastCommit is its mirror image.
func (l *wholeLine) lastCommit(ctx context.Context, first, i int) (time.Time, error) {
	for k := i; k >= max(first, i-farthest+1); k-- {
		if _, t, err := l.commits(ctx, k); err != nil || !t.IsZero() {
			return t, err
		}
	}
	return time.Time{}, nil
}

// mostHeaders bounds the headers that one seek asks for.
const mostHeaders = 1000

// seek gives the first file that has a commit after t, as headers tell it, and the last one before it that has one: -1 where there is
// none. What lies between has no commit, or was not asked. It takes log2(n) requests where most files have commits; where a header has
// none those around it are asked.
func (l *wholeLine) seek(ctx context.Context, t time.Time) (before, after int, err error) {
	lo, hi := 0, l.len()
	before, after = -1, -1
	for lo < hi {
		i, err := l.near(ctx, lo, hi)
		if err != nil || i < 0 {
			return before, after, err
		}
		if l.times[i][1].After(t) {
			after, hi = i, i
		} else {
			before, lo = i, i+1
		}
	}
	return before, after, nil
}

// near gives a file with a commit in the middle of [lo, hi), -1 when none was found.
func (l *wholeLine) near(ctx context.Context, lo, hi int) (int, error) {
	var batch []int
	size := 1 // mostly the one in the middle has commits
	for i := range around(lo, hi) {
		t, asked := l.times[i]
		if asked && !t[1].IsZero() {
			batch = append(batch, i)
			size = len(batch)
		} else if !asked && len(l.times)+len(batch) < mostHeaders {
			batch = append(batch, i)
		}
		if len(batch) < size {
			continue
		}
		if i, err := l.hit(ctx, batch); err != nil || i >= 0 {
			return i, err
		}
		batch, size = nil, 16
	}
	return l.hit(ctx, batch)
}

// hit gives the first of some files that has a commit.
func (l *wholeLine) hit(ctx context.Context, batch []int) (int, error) {
	if err := l.ask(ctx, slices.DeleteFunc(slices.Clone(batch), func(i int) bool { _, asked := l.times[i]; return asked })); err != nil {
		return -1, err
	}
	for _, i := range batch {
		if !l.times[i][1].IsZero() {
			return i, nil
		}
	}
	return -1, nil
}

// around gives all of [lo, hi), some twice: first the middle and its neighbours, then some spread over all of it, and then what is left.
func around(lo, hi int) iter.Seq[int] {
	const close = 8
	middle, most := lo+(hi-lo)/2, hi-lo
	return func(yield func(int) bool) {
		try := func(d int) bool {
			for _, i := range []int{middle + d, middle - d} {
				if i >= lo && i < hi && (d > 0 || i == middle) && !yield(i) {
					return false
				}
				if d == 0 {
					break
				}
			}
			return true
		}
		for d := 0; d <= min(close, most); d++ {
			if !try(d) {
				return
			}
		}
		for k := 1; k <= close; k++ {
			if !try(k * most / (2 * close)) {
				return
			}
		}
		for d := close + 1; d <= most; d++ {
			if !try(d) {
				return
			}
		}
	}
}
