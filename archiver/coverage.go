package archiver

import (
	"maps"
	"sync"

	"github.com/walbaton/walbaton/archiver/wal"
)

// coverage is which names the archive has, as far as this node listed it, wrote it, or compared
// with it; of several archives, what every required one has. It only ever grows, for nothing but expire deletes, and that below the floor; but a name
// that the archive itself says it has not is forgotten: a person removed a damaged object.
type coverage struct {
	mu       sync.Mutex
	size     wal.SegmentSize
	each     []*holdings                  // what each of several archives has; nil when there is one
	below    func(*target, wal.Name) bool // whether one of several promises nothing about a name
	segments Set
	small    map[wal.Name]bool       // histories, backup labels, partial segments
	from     map[wal.Timeline]uint64 // a listing of the timeline reached down to this number
	begun    map[wal.Timeline]bool   // one of its segments is there
	news     int                     // grows when begun or vouched do
	vouched  map[vouch]bool          // the archive's timeline is ours: a segment compared equal, or we opened it
	led      map[wal.Timeline]bool   // we put its history, as its leader: that counts until somebody has put a segment of it
	fits     map[wal.Name]bool       // whether our copy, or the one set aside, goes on with the archive's segment beside it; absent: nobody knows
	parted   map[wal.Timeline]bool   // of what was set aside one segment is another than the archive's: equal ones prove nothing of those behind them
}

// vouch is for the segments of a timeline in pg_wal, or for those set aside. A rewind between the two
// may have brought another server's timeline of the same number.
type vouch struct {
	timeline wal.Timeline
	kept     bool
}

func newCoverage(size wal.SegmentSize) *coverage {
	return &coverage{
		size:    size,
		small:   map[wal.Name]bool{},
		from:    map[wal.Timeline]uint64{},
		begun:   map[wal.Timeline]bool{},
		vouched: map[vouch]bool{},
		led:     map[wal.Timeline]bool{},
		fits:    map[wal.Name]bool{},
		parted:  map[wal.Timeline]bool{},
	}
}

// add notes that the archive has n.
func (c *coverage) add(n wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n.Kind {
	case wal.KindSegment:
		c.segments.Add(n.Segment)
		c.begin(n.Segment.Timeline)
	default:
		c.small[n] = true
	}
}

// begin is for a caller that holds mu.
func (c *coverage) begin(t wal.Timeline) {
	if !c.begun[t] {
		c.begun[t] = true
		c.news++
	}
}

// changes grows when there is something new about whose timelines the archive's are.
func (c *coverage) changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.news
}

// forget notes that the archive has not n any more.
func (c *coverage) forget(n wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Kind == wal.KindSegment {
		c.segments.Remove(n.Segment)
	}
	delete(c.small, n)
}

// vouch notes that one of our segments is the archive's.
func (c *coverage) vouch(v vouch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.vouched[v] {
		c.vouched[v] = true
		c.news++
	}
}

// doubt forgets who vouched for pg_wal: it may be another server's copy now.
func (c *coverage) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.vouched, func(v vouch, _ bool) bool { return !v.kept })
	clear(c.led)
	maps.DeleteFunc(c.fits, func(_ wal.Name, fits bool) bool { return fits }) // what does not fit was set aside
}

// lead notes that we put the history of t, as its leader.
func (c *coverage) lead(t wal.Timeline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.led[t] = true
}

// fit notes whether our copy of n fits the archive's segment beside it.
func (c *coverage) fit(n wal.Name, fits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fits[n] = fits
}

// isFit says whether our copy of n is known to fit the archive's segment beside it.
func (c *coverage) isFit(n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fits[n]
}

// belongs says whether n, which was set aside, counts as what this node has: it is not known to be another server's; where some of its
// timeline is, it is known to fit; and somebody has opened a timeline that there could be two of, which nobody does with files set aside.
func (c *coverage) belongs(n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := n.Segment.Timeline
	fits, told := c.fits[n]
	return (fits || !told && !c.parted[t]) && (t == 1 || c.begun[t])
}

// untell forgets whether n fits: the file set aside is gone, and another one may come.
func (c *coverage) untell(n wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fits, n)
}

// told says whether it is known if n fits.
func (c *coverage) told(n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, told := c.fits[n]
	return told
}

// like notes that n is of the same server's WAL as m.
func (c *coverage) like(n, m wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fits, told := c.fits[m]; told {
		c.fits[n] = fits
	}
}

// part notes that a segment of t that was set aside is another one than the archive's.
func (c *coverage) part(t wal.Timeline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parted[t] = true
}

func (c *coverage) isParted(t wal.Timeline) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parted[t]
}

// has says whether the archive is known to have the name n.
func (c *coverage) has(n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Kind == wal.KindSegment {
		return c.segments.Has(n.Segment)
	}
	return c.small[n]
}

// before gives the last segment of its timeline below s that the archive is known to have; with several, one of those to ask.
func (c *coverage) before(s wal.Segment, ask []*target) (wal.Segment, bool) {
	return c.beside(s, ask, (*Set).Before, func(x, y uint64) bool { return x > y })
}

// after gives the first segment of its timeline above s that the archive is known to have; with several, one of those to ask.
func (c *coverage) after(s wal.Segment, ask []*target) (wal.Segment, bool) {
	return c.beside(s, ask, (*Set).After, func(x, y uint64) bool { return x < y })
}

// open says whether somebody opened the timeline of n for files of its kind: a history may be put once it or a segment
// is there, which changes nothing; the first segment is the one that decides whose timeline the archive's is.
func (c *coverage) open(n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := n.Segment.Timeline
	return c.begun[t] || n.Kind == wal.KindHistory && c.anySmall(wal.HistoryName(t))
}

// anySmall says whether some archive has that history, for a caller that holds mu.
func (c *coverage) anySmall(n wal.Name) bool {
	for _, h := range c.each {
		if h.small[n] {
			return true
		}
	}
	return c.small[n]
}

// opened notes that somebody opened the timeline of n for files of its kind.
func (c *coverage) opened(n wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n.Kind != wal.KindHistory:
		c.begin(n.Segment.Timeline)
	case c.each == nil:
		c.small[n] = true
	}
}

// isVouched says whether our copy of n, or the one that was set aside, is known to be of the archive's timeline.
func (c *coverage) isVouched(n wal.Name, kept bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := n.Segment.Timeline
	return !kept && c.led[t] && !c.begun[t] || c.fits[n] || c.vouched[vouch{t, kept}] && !(kept && c.parted[t])
}

// archived gives the segments the archive is known to have.
func (c *coverage) archived() Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments.Clone()
}

// listed says whether a listing of t reached down to number no.
func (c *coverage) listed(t wal.Timeline, no uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok := c.from[t]
	return ok && from <= no
}

// anyListing says whether the archive was listed since the start: before that nothing is known
// to be missing from it.
func (c *coverage) anyListing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.from) > 0
}

// listedAbove gives the first LSN, not below from, from which on every timeline of the line that
// reaches above it was listed.
func (c *coverage) listedAbove(line wal.History, z wal.SegmentSize, from wal.LSN) wal.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	timelines := []wal.Timeline{line.Timeline}
	for _, f := range line.Forks {
		timelines = append(timelines, f.Timeline)
	}
	for _, t := range timelines {
		end, _ := line.End(t)
		begin, _ := line.Begin(t)
		if end <= from {
			continue
		}
		no, ok := c.from[t]
		switch start := (wal.Segment{Timeline: t, Size: z, No: no}).Start(); {
		case !ok && end != wal.MaxLSN:
			from = max(from, end)
		case ok && start > max(begin, from):
			from = start
		}
	}
	return from
}
