package wal

import (
	"encoding/binary"
	"fmt"
)

// Checker checks one segment as its bytes are written to it. Its memory does not depend on the
// segment's size, and whole pages are checked where they lie.
type Checker struct {
	seg      Segment
	systemID uint64

	pages uint32 // whole pages so far
	fill  int    // bytes of the next one in buf
	extra bool   // there were bytes after the last page

	phase    phase
	broken   string // why the records end
	worse    string // why that is damage
	prev     LSN    // start of the last good record; 0 when it is before this segment and not known
	open     bool   // rec is being read
	rec      partial
	replaced bool // the next record must be the one that overwrites an abandoned one

	rest     partial // all of the record that began before this segment
	lost     bool    // which was abandoned here
	skipped  bool    // which was the end of an XLOG_SWITCH
	replaces bool    // page 0 abandons that record
	link     link    // of the first record that starts here

	commits  bool
	earliest int64
	latest   int64
	rep      Report

	buf [pageSize]byte
}

// phase is what the Checker expects of the next page.
type phase uint8

const (
	following phase = iota // the next page of this segment
	switched               // zeros
	ended                  // nothing of this segment: the records have ended
	astray                 // the same, but the first page could not be read at all
	foreign                // nothing: the file is another
)

// NewChecker checks what is written to it as the segment s of the cluster systemID.
func NewChecker(s Segment, systemID uint64) *Checker {
	return &Checker{seg: s, systemID: systemID, rep: Report{End: s.Start()}}
}

// Write takes the next bytes of the segment, in chunks of any size; it never fails.
func (c *Checker) Write(p []byte) (int, error) {
	n := len(p)
	if c.fill > 0 {
		k := copy(c.buf[c.fill:], p)
		c.fill += k
		p = p[k:]
		if c.fill < pageSize {
			return n, nil
		}
		c.page(c.buf[:])
		c.fill = 0
	}
	for ; len(p) >= pageSize; p = p[pageSize:] {
		c.page(p[:pageSize:pageSize])
	}
	c.fill = copy(c.buf[:], p)
	return n, nil
}

// page takes the next whole page.
func (c *Checker) page(p []byte) {
	if c.pages == uint32(c.seg.Size)/pageSize {
		c.extra = true
		return
	}
	switch {
	case c.pages == 0:
		c.first(p)
	case c.phase == following:
		c.next(p)
	case c.phase == switched:
		if !zero(p) {
			c.stop(c.rep.End, "the zeros after the switch end")
			c.behind(p)
		}
	case c.phase != foreign:
		c.behind(p)
	}
	c.pages++
}

// at returns the address of the page that is being checked.
func (c *Checker) at() LSN { return c.seg.Start() + LSN(c.pages)*pageSize }

// first checks page 0, which says whose segment the file is.
func (c *Checker) first(p []byte) {
	h, l := readPage(p), readLong(p)
	c.rep.Magic, c.rep.Major = h.magic, Major(h.magic)
	other := ""
	switch {
	case zero(p):
		c.phase, c.broken = astray, "the first page is zero"
		return
	case c.rep.Major == 0:
		c.phase, c.broken = astray, fmt.Sprintf("its first page begins with %04X, which no PostgreSQL from 12 to 18 writes", h.magic)
		return
	case h.info&^pageInfoAllowed != 0 || h.info&pageLong == 0:
		c.phase, c.broken = astray, fmt.Sprintf("its first page has the flags %04X", h.info)
		return
	case l.systemID != c.systemID:
		other = fmt.Sprintf("it is of cluster %d, not %d", l.systemID, c.systemID)
	case l.segmentSize != uint32(c.seg.Size):
		other = fmt.Sprintf("it is of a cluster with segments of %d bytes, not %d", l.segmentSize, uint32(c.seg.Size))
	case l.blocks != pageSize:
		other = fmt.Sprintf("its pages have %d bytes, not %d", l.blocks, pageSize)
	case h.at != c.seg.Start():
		other = fmt.Sprintf("it holds the WAL of %v", h.at)
	case h.timeline > c.seg.Timeline || h.timeline == 0:
		other = fmt.Sprintf("it holds timeline %d", uint32(h.timeline))
	}
	if other != "" {
		c.phase, c.broken = foreign, other
		return
	}
	c.rep.FirstTimeline = h.timeline
	if h.info&pageContinues != 0 && h.rest != 0 {
		// The rest of a record of which nothing is known.
		c.open, c.rec = true, partial{total: h.rest, left: h.rest}
	}
	c.enter(h, p, longHeader)
}

// next checks a page that should follow the last.
func (c *Checker) next(p []byte) {
	if h := readPage(p); c.own(h) {
		c.enter(h, p, shortHeader)
		return
	}
	why := "the file's pages turn zero"
	if !zero(p) {
		why = "a page of something else follows"
	}
	c.stop(c.before(), why)
	c.behind(p)
}

// own reports whether h is the header of the page that belongs here.
func (c *Checker) own(h page) bool {
	return h.magic == c.rep.Magic && h.info&^pageInfoAllowed == 0 && h.info&pageLong == 0 &&
		h.at == c.at() && h.timeline >= c.rep.LastTimeline && h.timeline <= c.seg.Timeline
}

// before returns the end of the good records at the beginning of this page.
func (c *Checker) before() LSN {
	switch {
	case !c.open:
		return c.at()
	case c.rec.start != 0:
		return c.rec.start
	}
	return c.seg.Start() // it began in another segment
}

// enter checks that a page of this segment continues what the last page left, and then its records.
func (c *Checker) enter(h page, p []byte, off int) {
	c.rep.LastTimeline = h.timeline
	why := ""
	switch {
	case h.info&pageOverwrites != 0:
		if h.info&pageContinues != 0 || h.rest != 0 || !c.open && c.pages > 0 {
			why = "a page overwrites a record that was not there"
			break
		}
		if c.open && c.rec.start == 0 {
			c.rest, c.lost = c.rec, true
		}
		c.open, c.replaced = false, true
		c.replaces = c.replaces || c.pages == 0
	case (h.info&pageContinues != 0) != c.open || c.open && h.rest != c.rec.left || !c.open && h.rest != 0:
		why = "a page does not continue the record before it"
	}
	if why != "" {
		// It is a page of this segment, behind the place where the records end.
		c.stop(c.before(), why)
		c.worse = why
		return
	}
	if c.open {
		c.resume(p, off)
	} else {
		c.records(p, off)
	}
}

// resume takes what a page has of the record that is open, and then its other records.
func (c *Checker) resume(p []byte, off int) {
	n := min(len(p)-off, int(c.rec.left))
	headless := len(c.rec.seen()) < recordHeader
	c.rec.add(p[off : off+n])
	if c.rec.start != 0 {
		if headless && !c.linked(c.rec.start, c.rec.seen()) {
			c.stop(c.before(), "a record does not follow the one before it")
			c.search(p, off+n)
			return
		}
		if c.rec.left == 0 && !c.rec.good() {
			c.stop(c.before(), "a record's checksum is wrong")
			c.search(p, align(off+n))
			return
		}
	}
	if c.rec.left > 0 {
		return
	}
	c.open = false
	off = align(off + n)
	last := false
	if c.rec.start == 0 {
		last = switchRest(p[off-align(n):off], c.rec.total) && zero(p[off:])
		c.rest, c.skipped = c.rec, last
	} else {
		c.accept(c.rec.start, c.rec.seen())
		c.prev = c.rec.start
		last = c.rec.seen().isSwitch()
	}
	if last {
		c.switchAt(p, off)
		return
	}
	c.records(p, off)
}

// switchRest reports whether rest, all that page 0 has of a record of which nothing is known, can be the end of
// an XLOG_SWITCH that began in the last 16 bytes of the segment before. Then this segment is skipped too.
func switchRest(rest []byte, total uint32) bool {
	if total != 8 && total != 16 {
		return false
	}
	h := make(head, recordHeader)
	copy(h[recordHeader-total:], rest)
	return h.isSwitch()
}

// records checks the records that start in the rest of a page.
func (c *Checker) records(p []byte, off int) {
	at := c.at()
	for off < pageSize {
		lsn := at + LSN(off)
		total := binary.LittleEndian.Uint32(p[off:])
		room := p[off:]
		if uint64(total) > uint64(len(room)) && total >= recordHeader {
			c.rec.begin(lsn, total, room)
			if h := c.rec.seen(); len(h) >= recordHeader && !c.linked(lsn, h) {
				c.stop(lsn, "a record does not follow the one before it")
				c.search(p, off)
				return
			}
			c.open = true
			return
		}
		why := ""
		switch {
		case total == 0:
			why = "the records end"
		case total < recordHeader:
			why = "a record has no length"
		case !c.linked(lsn, head(room)):
			why = "a record does not follow the one before it"
		case sum(room[:total]) != head(room).crc():
			why = "a record's checksum is wrong"
		}
		if why != "" {
			c.stop(lsn, why)
			c.search(p, off)
			return
		}
		c.accept(lsn, head(room[:total]))
		c.prev = lsn
		off = align(off + int(total))
		if head(room).isSwitch() {
			c.switchAt(p, off)
			return
		}
	}
}

// linked reports whether the record at lsn can follow the one before it. Recycled files are full of
// old records with good checksums; their links lead elsewhere.
func (c *Checker) linked(lsn LSN, h head) bool {
	if c.replaced {
		if !h.isOverwrite() {
			return false
		}
		c.replaced = false
	}
	switch {
	case c.prev != 0:
		return h.prev() == c.prev
	case c.link.at != 0: // the first record was abandoned; the one that replaces it has the same link
		return h.prev() == c.link.to
	}
	c.link = link{lsn, h.prev()}
	return h.prev() < lsn
}

// accept counts a good record that starts in this segment.
func (c *Checker) accept(lsn LSN, h head) {
	if c.rep.First == 0 {
		c.rep.First = lsn
	}
	c.rep.Last = lsn
	c.rep.Records++
	if h.rmid() > rmXact {
		return
	}
	if t, ok := h.commit(); ok {
		if !c.commits || t < c.earliest {
			c.earliest = t
		}
		if !c.commits || t > c.latest {
			c.latest = t
		}
		c.commits = true
	}
}

// switchAt is told that an XLOG_SWITCH ended at off: the rest of the segment is zero.
func (c *Checker) switchAt(p []byte, off int) {
	c.rep.Switch = true
	c.rep.End = c.at() + LSN(off)
	c.phase = switched
	if !zero(p[off:]) {
		c.stop(c.rep.End, "the zeros after the switch end")
		c.search(p, off)
	}
}

// stop notes that the good WAL ends here.
func (c *Checker) stop(end LSN, why string) {
	c.phase, c.rep.End, c.broken = ended, end, why
	c.open, c.replaced = false, false
}

// behind looks at a page after the end of the records. Zeros may be there, and the pages of a recycled
// file: WAL of another address, or of the timeline that was left. All else is damage.
func (c *Checker) behind(p []byte) {
	if c.worse != "" || zero(p) {
		return
	}
	h := readPage(p)
	legal := Major(h.magic) != 0 && h.info&^pageInfoAllowed == 0 && h.timeline != 0 && h.at%pageSize == 0
	here := h.at == c.at()
	switch {
	case c.phase == astray && !(legal && here && h.timeline <= c.seg.Timeline):
		// Nothing here is this segment's so far.
	case !legal:
		c.worse = fmt.Sprintf("the page at %v is none of this server's", c.at())
	case here && h.timeline > c.seg.Timeline:
		c.worse = fmt.Sprintf("the page at %v is of timeline %d", c.at(), uint32(h.timeline))
	case here && h.timeline >= c.rep.LastTimeline:
		c.worse = fmt.Sprintf("WAL of this segment goes on at %v", c.at())
	case !here:
		// Or it is a page of this segment, and only its address is damaged.
		c.search(p, shortHeader)
	}
}

// search looks in the rest of a page for a record that follows one of this segment, behind the end of
// the good ones: then that end is damage. Old records in a recycled file link to other segments.
func (c *Checker) search(p []byte, off int) {
	if c.worse != "" || c.phase == astray {
		return
	}
	at := c.at()
	for off = align(off); off+recordHeader <= pageSize; off += 8 {
		r := p[off:]
		total := binary.LittleEndian.Uint32(r)
		prev := head(r).prev()
		if total < recordHeader || uint64(total) > uint64(len(r)) || prev < c.rep.End || prev >= at+LSN(off) {
			continue
		}
		if sum(r[:total]) == head(r).crc() {
			c.worse = fmt.Sprintf("WAL of this segment goes on at %v", at+LSN(off))
			return
		}
	}
}

// Report tells what the bytes so far are, as if they were all. It can be asked more than once.
func (c *Checker) Report() Report {
	d := *c
	return d.finish()
}

// finish takes what there is of the last page and gives the verdict.
func (c *Checker) finish() Report {
	size := int64(c.seg.Size)
	have := int64(c.pages)*pageSize + int64(c.fill)
	if c.fill > 0 && have > size {
		c.extra = true
	} else if c.fill >= longHeader {
		clear(c.buf[c.fill:])
		c.page(c.buf[:])
	}
	short := fmt.Sprintf("the file has %d bytes of %d", have, size)
	if have < size && c.phase == following {
		c.stop(c.before(), short)
	}
	r := c.rep
	if c.commits {
		r.FirstCommit, r.LastCommit = postgresTime(c.earliest), postgresTime(c.latest)
	}
	if r.End > c.seg.Start()+LSN(have) {
		r.End = c.seg.Start() // the rest of a record, which the file does not even have
	}
	switch {
	case have < longHeader:
		r.State, r.Why = Foreign, short
	case c.worse != "":
		r.State, r.Why = Damaged, c.worse
	case c.phase == foreign || c.phase == astray:
		r.State, r.Why = Foreign, c.broken
	case c.extra:
		r.State, r.Why = Damaged, fmt.Sprintf("the file is longer than %d bytes", size)
	case have < size:
		r.State, r.Why = Cut, short
	case c.phase == ended:
		r.State, r.Why = Cut, c.broken
	default:
		r.State, r.End = Complete, c.seg.End()
		r.Continues = c.open
		if c.open && c.rec.start != 0 {
			r.Last = c.rec.start
			r.Records++
			if r.First == 0 {
				r.First = r.Last
			}
		}
	}
	return r
}
