package wal

import (
	"fmt"
	"io"
	"time"
)

// State is the verdict on a segment.
type State uint8

// The verdicts; the package comment says what they prove.
const (
	Foreign  State = iota // the file is not this segment: other cluster, other address, all zero, other format
	Damaged               // WAL of this segment lies after the place where it breaks, or a page that no server wrote
	Cut                   // good up to Report.End, and nothing of this segment after it
	Complete              // good to the segment's end, or to a switch and the zeros after it
)

func (s State) String() string {
	switch s {
	case Foreign:
		return "foreign"
	case Damaged:
		return "damaged"
	case Cut:
		return "cut"
	case Complete:
		return "complete"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Report is what one pass over a segment found. It is comparable.
type Report struct {
	State State
	Why   string // one clause; empty when complete

	// End is the position up to which the WAL is good: after the last whole record when it is cut or
	// damaged (never before the segment's start), the segment's end when it is complete.
	End LSN

	Switch      bool // the last record is an XLOG_SWITCH
	Continues   bool // complete, and the last record runs on into the next segment
	Records     int  // good records that start here, with the one that runs on
	First, Last LSN  // where the first and the last of them start; 0 when none does

	FirstTimeline, LastTimeline Timeline // of the first and the last good page

	// The earliest and the latest time of a commit in a whole record that starts here; zero when there
	// is none. UTC, in microseconds.
	FirstCommit, LastCommit time.Time

	Magic uint16 // of page 0, as read
	Major int    // the PostgreSQL version that writes this magic, 0 when unknown
}

// Check reads r to its end as the segment s of the cluster systemID. The error is one of reading.
func Check(r io.Reader, s Segment, systemID uint64) (Report, error) {
	c := NewChecker(s, systemID)
	// A Checker takes whole pages without a copy, and 16 of them stay in the processor's cache.
	if _, err := io.CopyBuffer(c, struct{ io.Reader }{r}, make([]byte, 16*pageSize)); err != nil {
		return Report{}, fmt.Errorf("check %v: %w", s, err)
	}
	return c.Report(), nil
}
