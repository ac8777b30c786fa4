package archiver

import (
	"maps"

	"github.com/walbaton/walbaton/archiver/wal"
)

// holdings is what one of several archives is known to have. What coverage itself counts as the archive's is then what every required one has: a push waits
// for all of them. Whose a timeline is any of them tells.
type holdings struct {
	target   *target
	segments Set
	small    map[wal.Name]bool
}

func (h *holdings) has(n wal.Name) bool {
	if n.Kind == wal.KindSegment {
		return h.segments.Has(n.Segment)
	}
	return h.small[n]
}

// several makes c tell the archives apart. below says whether one promises nothing about a name; it is called with c locked.
func (c *coverage) several(targets []*target, below func(*target, wal.Name) bool) {
	c.below = below
	for _, t := range targets {
		c.each = append(c.each, &holdings{target: t, small: map[wal.Name]bool{}})
	}
}

// addTo notes that one of several archives has n.
func (c *coverage) addTo(i int, n wal.Name) {
	if c.each == nil {
		c.add(n)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.each[i]
	if h.has(n) {
		return
	}
	if n.Kind == wal.KindSegment {
		h.segments.Add(n.Segment)
		c.begin(n.Segment.Timeline)
	} else {
		h.small[n] = true
	}
	c.count(n)
}

// count notes that the archive has n if every required one has it, for a caller that holds mu.
func (c *coverage) count(n wal.Name) {
	for _, h := range c.each {
		if h.target.Required && !h.has(n) && !c.below(h.target, n) {
			return
		}
	}
	if n.Kind == wal.KindSegment {
		c.segments.Add(n.Segment)
	} else {
		c.small[n] = true
	}
}

// recount does that for all names, once more is known of the floors: what lies below an archive's own floor it need not have.
func (c *coverage) recount() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.each {
		for _, p := range h.segments.Spans() {
			for no := p.First; no <= p.Last; no++ {
				s := wal.Segment{Timeline: p.Timeline, Size: c.size, No: no}
				if !c.segments.Has(s) {
					c.count(wal.SegmentName(s))
				}
			}
		}
		for n := range h.small {
			c.count(n)
		}
	}
}

// forgetIn notes that one of several archives has not n any more.
func (c *coverage) forgetIn(i int, n wal.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Kind == wal.KindSegment {
		c.each[i].segments.Remove(n.Segment)
	}
	delete(c.each[i].small, n)
	if !c.each[i].target.Required {
		return
	}
	if n.Kind == wal.KindSegment {
		c.segments.Remove(n.Segment)
	}
	delete(c.small, n)
}

// hasIn says whether one of several archives is known to have n.
func (c *coverage) hasIn(i int, n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.each[i].has(n)
}

// hasOrBelow says whether nothing is left to do for n in one of several archives.
func (c *coverage) hasOrBelow(i int, n wal.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.each[i].has(n) || c.below(c.each[i].target, n)
}

// hasAny says whether some archive is known to have n.
func (c *coverage) hasAny(n wal.Name) bool {
	if c.each == nil {
		return c.has(n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.each {
		if h.has(n) {
			return true
		}
	}
	return false
}

// archivedIn gives the segments that one of several archives is known to have.
func (c *coverage) archivedIn(i int) Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.each[i].segments.Clone()
}

// smallIn gives the other files that one of several archives is known to have.
func (c *coverage) smallIn(i int) map[wal.Name]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.each[i].small)
}

// ends gives the last number of each timeline in one of several archives.
func (c *coverage) ends(i int) map[wal.Timeline]uint64 {
	out := map[wal.Timeline]uint64{}
	set := c.archivedIn(i)
	for _, p := range set.Spans() {
		out[p.Timeline] = p.Last
	}
	return out
}

// anywhere gives the segments that some archive is known to have.
func (c *coverage) anywhere() Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.segments.Clone()
	for _, h := range c.each {
		out.Union(h.segments)
	}
	return out
}

// beside gives the last number below s that some archive is known to have, or the first above it. With several archives only those count that are in ask:
// the comparison that follows needs an answer.
func (c *coverage) beside(s wal.Segment, ask []*target, find func(*Set, wal.Segment) (uint64, bool), better func(x, y uint64) bool) (wal.Segment, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	no, ok := uint64(0), false
	if c.each == nil {
		no, ok = find(&c.segments, s)
	}
	for _, t := range ask {
		if at, in := find(&c.each[t.index].segments, s); in && (!ok || better(at, no)) {
			no, ok = at, true
		}
	}
	return wal.Segment{Timeline: s.Timeline, Size: s.Size, No: no}, ok
}

// listings gives down to which number each timeline was listed.
func (c *coverage) listings() map[wal.Timeline]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.from)
}

// wantListing notes that a listing of t is to reach down to number no.
func (c *coverage) wantListing(t wal.Timeline, no uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.from[t]; !ok || no < old {
		c.from[t] = no
	}
}
