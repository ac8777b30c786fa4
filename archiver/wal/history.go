package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Fork is where the line left a timeline: Timeline ended at End, and the next one began there.
type Fork struct {
	Timeline Timeline
	End      LSN
	Reason   string // PostgreSQL's words, one line
}

// History is the line that leads to a timeline. The first timeline of a cluster has no forks and no file.
//
// A recovery to a time before the newest timeline began ends on an older one, and yet PostgreSQL writes the newest as the new
// one's parent (StartupXLOG gives writeTimeLineHistory the recovery target's timeline): forks that go back. By
// tliOfPointInHistory such a parent has no byte of the line, and it is left out here.
type History struct {
	Timeline Timeline
	Forks    []Fork // the ancestors, oldest first; their ends never go back
}

// maxHistory bounds what ParseHistory reads, in bytes: far above any real file (some 60 a timeline).
const maxHistory = 4 << 20

// ParseHistory reads <t>.history by the rules of timeline.c: blank lines and comments mean nothing,
// ancestors grow and are lower than t. An ancestor of which the line has nothing, since a later fork goes back behind its
// beginning, is left out.
func ParseHistory(t Timeline, r io.Reader) (History, error) {
	h, err := parseHistory(t, r)
	if err != nil {
		return History{}, fmt.Errorf("parse history of timeline %d: %w", t, err)
	}
	return h, nil
}

func parseHistory(t Timeline, r io.Reader) (History, error) {
	h := History{Timeline: t}
	b, err := io.ReadAll(io.LimitReader(r, maxHistory+1))
	switch {
	case err != nil:
		return h, err
	case len(b) > maxHistory:
		return h, errors.New("longer than 4 MiB")
	case t == 0:
		return h, errors.New("there is no timeline 0")
	}
	no, last := 0, Timeline(0)
	for line := range strings.Lines(string(b)) {
		no++
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), spaces)
		if line == "" || line[0] == '#' {
			continue
		}
		f, err := parseFork(line)
		if err != nil {
			return h, fmt.Errorf("line %d: %w", no, err)
		}
		if f.Timeline >= t {
			return h, fmt.Errorf("line %d: timeline %d is no ancestor of %d", no, f.Timeline, t)
		}
		if f.Timeline <= last {
			return h, fmt.Errorf("line %d: timeline %d comes after timeline %d", no, f.Timeline, last)
		}
		last = f.Timeline
		for n := len(h.Forks); n > 0 && f.End < h.Forks[n-1].End; n-- {
			f.Timeline = h.Forks[n-1].Timeline // the line left this one there already
			h.Forks = h.Forks[:n-1]
		}
		h.Forks = append(h.Forks, f)
	}
	return h, nil
}

// spaces are what C's isspace skips, line ends aside.
const spaces = " \t\v\f"

// parseFork reads "timeline LSN reason"; the reason may be absent.
func parseFork(line string) (Fork, error) {
	tli, rest := cutSpace(line)
	at, reason := cutSpace(rest)
	n, err := strconv.ParseUint(tli, 10, 32)
	if err != nil || n == 0 {
		return Fork{}, fmt.Errorf("%q is not a timeline", tli)
	}
	lsn, err := ParseLSN(at)
	if err != nil {
		return Fork{}, err
	}
	return Fork{Timeline: Timeline(n), End: lsn, Reason: reason}, nil
}

func cutSpace(s string) (first, rest string) {
	i := strings.IndexAny(s, spaces)
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], spaces)
}

// Bytes returns the file as PostgreSQL 12 to 18 writes it; nothing for a timeline without ancestors.
func (h History) Bytes() []byte {
	var b bytes.Buffer
	for i, f := range h.Forks {
		// A child's file is its parent's, a blank line, and the parent's own fork.
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d\t%v\t%s\n", uint32(f.Timeline), f.End, f.Reason)
	}
	return b.Bytes()
}

// WriteTo writes Bytes.
func (h History) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(h.Bytes())
	return int64(n), err
}

// index returns where t is among the forks, len(h.Forks) for h.Timeline itself, -1 for none.
func (h History) index(t Timeline) int {
	for i, f := range h.Forks {
		if f.Timeline == t {
			return i
		}
	}
	if t == h.Timeline && t != 0 {
		return len(h.Forks)
	}
	return -1
}

// Begin returns where the line came to t: 0 for its first timeline. It is false when t is not on the line.
func (h History) Begin(t Timeline) (LSN, bool) {
	switch i := h.index(t); i {
	case -1:
		return 0, false
	case 0:
		return 0, true
	default:
		return h.Forks[i-1].End, true
	}
}

// End returns where the line left t: MaxLSN for h.Timeline itself. It is false when t is not on the line.
func (h History) End(t Timeline) (LSN, bool) {
	switch i := h.index(t); i {
	case -1:
		return 0, false
	case len(h.Forks):
		return MaxLSN, true
	default:
		return h.Forks[i].End, true
	}
}

// Holds reports whether s, as a whole, is a segment of the line: its timeline is on it, began before
// the segment's end, and was not left inside or before the segment. The opposite is a branch, or a
// segment that only its .partial and the child's first segment stand for.
func (h History) Holds(s Segment) bool {
	begin, ok := h.Begin(s.Timeline)
	end, _ := h.End(s.Timeline)
	return ok && begin < s.End() && s.End() <= end
}

// TimelineAt returns the timeline on which the line has the byte at l.
func (h History) TimelineAt(l LSN) Timeline {
	for _, f := range h.Forks {
		if l < f.End {
			return f.Timeline
		}
	}
	return h.Timeline
}

// Explains reports whether the timelines on the pages of s, as r tells them, are those of h, the history of
// s.Timeline or of a descendant. It is false for a segment of the parent timeline that was recycled
// under this name and looks whole: a page belongs to the timeline that its first byte is on.
func (h History) Explains(s Segment, r Report) bool {
	on := func(l LSN) Timeline { return min(h.TimelineAt(l-l%pageSize), s.Timeline) }
	if h.index(s.Timeline) < 0 || r.FirstTimeline != on(s.Start()) {
		return false
	}
	switch {
	case r.State != Complete:
		return true // the last page that was read may lie behind the end
	case r.Switch:
		// It is a header alone, which may run on to the next page, or have begun in the segment before.
		return r.LastTimeline == on(min(max(r.Last+recordHeader-1, s.Start()), s.End()-1))
	}
	return r.LastTimeline == on(s.End()-1)
}
