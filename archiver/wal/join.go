package wal

import (
	"errors"
	"fmt"
)

// Joint is what a complete segment, or several in a row, leave open at both ends: the rest of a record that
// began before, and the beginning of one that runs on. It is small and comparable, and all that Join needs, so
// segments can be read in any order, at the same time, and proven to fit afterwards.
type Joint struct {
	first, last Segment
	systemID    uint64
	complete    bool     // else it says nothing
	from, to    Timeline // of the first and the last page

	rest     partial // of a record that began before; total is 0 when there is none
	lost     bool    // that record was abandoned, behind this beginning
	skipped  bool    // the rest was taken for the end of an XLOG_SWITCH: all after it is zero
	replaces bool    // it begins with the page that abandons the record before it
	link     link    // of the first record that starts here
	prev     LSN     // start of the last whole record; 0 when none starts here
	open     partial // the record that starts here and runs on; total is 0 when none does
}

// link is where a record says that the one before it starts.
type link struct{ at, to LSN }

// ErrApart means that two stretches of WAL say nothing about each other: one is not complete, or they do
// not follow each other.
var ErrApart = errors.New("not two complete segments in a row")

// Break is the error of segments that are complete, each alone, and do not fit together. Which of them is
// wrong cannot be told from them: the CRC of a record that lies in both covers both halves.
type Break struct {
	State State // Foreign when the later one's timeline is lower, Damaged otherwise
	Why   string
}

func (b *Break) Error() string { return b.Why }

// Inside reports whether the stretch holds nothing but the middle of one record.
func (j Joint) Inside() bool { return j.rest.left > 0 && !j.lost }

// Settled reports whether a whole record starts in the stretch: then Join with it proves all there is to prove
// about the beginning of the stretch after it. Otherwise Join first joins it with the one before.
func (j Joint) Settled() bool { return j.prev != 0 }

// Segments returns the first and the last segment of the stretch.
func (j Joint) Segments() (first, last Segment) { return j.first, j.last }

// Joint returns what Join needs of this segment. Like Report, it can be asked more than once.
func (c *Checker) Joint() Joint {
	d := *c
	if d.finish().State != Complete {
		return Joint{}
	}
	j := Joint{
		first: d.seg, last: d.seg, systemID: d.systemID, complete: true, from: d.rep.FirstTimeline, to: d.rep.LastTimeline,
		rest: d.rest, lost: d.lost, skipped: d.skipped, replaces: d.replaces, link: d.link, prev: d.prev,
	}
	switch {
	case d.open && d.rec.start == 0:
		j.rest = d.rec
	case d.open:
		j.open = d.rec
	}
	return j
}

// Join proves that after follows before: timelines do not go back, the record that lies in both is whole (length,
// link, CRC-32C), and the first record that starts in after links to the last one of before. It returns what both
// leave open together, so a record over many segments is proven by joining them one by one, in any
// grouping. The error is a *Break, or ErrApart. The cost is O(log n) in the record's length.
func Join(before, after Joint) (Joint, error) {
	a, b := &before, &after
	if !a.complete || !b.complete || a.systemID != b.systemID || a.last.Timeline > b.first.Timeline ||
		a.last.Next().On(b.first.Timeline) != b.first {
		return Joint{}, ErrApart
	}
	if b.from < a.to {
		return Joint{}, &Break{Foreign, fmt.Sprintf("it holds timeline %d, and the segment before is on %d", uint32(b.from), uint32(a.to))}
	}
	j := before
	j.last, j.to = b.last, b.to
	j.prev, j.open = b.prev, b.open
	prev, err := j.cross(a, b)
	if err != nil {
		return Joint{}, err
	}
	switch {
	case b.link.at == 0:
	case prev == 0 && j.link.at == 0:
		j.link = b.link
	case prev == 0 && b.link.to != j.link.to, prev != 0 && b.link.to != prev:
		// Without a prev the first record was abandoned; the one that replaces it has the same link.
		return Joint{}, unlinked()
	}
	if j.prev == 0 {
		j.prev = prev
	}
	return j, nil
}

// cross joins the record that lies in a and b, if there is one, and returns where the record before the first
// one that starts in b begins, 0 when that is not known.
func (j *Joint) cross(a, b *Joint) (prev LSN, err error) {
	r := a.open
	if a.Inside() {
		r = a.rest
	}
	if b.replaces {
		j.lost = j.lost || a.Inside()
		return a.prev, nil
	}
	if r.left != b.rest.total {
		return 0, &Break{Damaged, "its first page does not continue the record before it"}
	}
	if r.left == 0 {
		return a.prev, nil
	}
	headless := len(r.seen()) < recordHeader
	r.join(&b.rest)
	if r.start == 0 {
		if j.rest, j.lost = r, b.lost; b.skipped {
			return 0, notSwitch()
		}
		return 0, nil
	}
	h := r.seen()
	if headless {
		switch {
		case a.prev != 0 && h.prev() != a.prev, h.prev() >= r.start:
			return 0, unlinked()
		case a.prev == 0:
			j.link = link{r.start, h.prev()}
		}
	}
	switch {
	case b.lost:
		return a.prev, nil
	case r.left > 0:
		j.open = r
		return a.prev, nil
	case !r.good():
		return 0, &Break{Damaged, fmt.Sprintf("the checksum of the record that runs into it from %v is wrong", r.start)}
	case h.isSwitch() != b.skipped:
		return 0, notSwitch()
	}
	return r.start, nil
}

func unlinked() error {
	return &Break{Damaged, "its first record does not follow the last one of the segment before"}
}

func notSwitch() error {
	return &Break{Damaged, "a switch at the end of the segment before and the zeros after it do not fit"}
}

// join adds the bytes of rest, which continues r.
func (r *partial) join(rest *partial) {
	done, n := r.total-r.left, rest.total-rest.left
	lead := rest.head[:min(n, leadKept)] // in rest's head alone; its CRC begins behind them
	if done < headKept {
		copy(r.head[done:], rest.head[:min(n, headKept)])
	}
	if own := r.own(); done < own {
		lead = lead[min(own-done, uint32(len(lead))):]
	}
	r.crc = sumMore(r.crc, lead)
	if n > leadKept {
		r.crc = combine(r.crc, rest.crc, n-leadKept)
	}
	r.left -= n
}
