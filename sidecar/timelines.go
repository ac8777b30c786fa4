package main

import (
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// maxTimelines bounds what is shown at once; `walbaton verify` shows all.
const maxTimelines = 24

// TimelinesStatus is the tree of timelines. A timeline stands right below its parent and all that left the parent later.
type TimelinesStatus struct {
	At    time.Time        `json:"at,omitzero"` // when the archive was looked at; zero: not by this node, and this is the line alone
	Rows  []TimelineStatus `json:"rows"`
	Older int              `json:"older,omitempty"` // rows that were left out
}

// TimelineStatus is one timeline.
type TimelineStatus struct {
	Timeline uint32       `json:"timeline"`
	Parent   uint32       `json:"parent,omitempty"`
	Fork     string       `json:"fork_lsn,omitempty"` // where it left its parent
	Begin    string       `json:"begin_lsn"`          // of its WAL in the archive
	End      string       `json:"end_lsn"`
	OnLine   bool         `json:"on_line"`
	Newest   bool         `json:"newest,omitempty"` // the line ends here
	Holes    []HoleStatus `json:"holes,omitempty"`
	Notes    []string     `json:"notes,omitempty"`
}

// HoleStatus is where segments are missing.
type HoleStatus struct {
	From         string `json:"from_lsn"`
	To           string `json:"to_lsn"`
	Acknowledged bool   `json:"acknowledged,omitempty"`
}

// reportTimelines puts the tree into the status: of the last look at the first archive where this node holds the baton, with what the line went on since.
func (a *app) reportTimelines(st *Status, s *site, got archiver.State) {
	line := a.scope.Last().Line
	var rep *archiver.Audit
	var at time.Time
	if owner, _ := a.inTerm(); owner == s {
		if looks, when, _, _, _ := a.verified.of(s); len(looks) > 0 {
			rep, at = looks[0].rep, when
		}
	}
	st.Archive.Timelines = timelinesOf(rep, line, got.FrontierFrom, got.Frontier)
	if st.Archive.Timelines != nil {
		st.Archive.Timelines.At = at
	}
}

// timelinesOf makes the tree of a look at an archive (nil: none) and of the line up to the frontier. It is nil when neither is known.
func timelinesOf(rep *archiver.Audit, line wal.History, from, frontier wal.LSN) *TimelinesStatus {
	t := &TimelinesStatus{}
	if rep != nil {
		t.Rows = rowsOf(draw(rep))
	}
	if line.Timeline != 0 {
		t.followLine(line, from, frontier)
	}
	if len(t.Rows) == 0 {
		return nil
	}
	if n := len(t.Rows); n > maxTimelines {
		var numbers []uint32
		for _, r := range t.Rows {
			numbers = append(numbers, r.Timeline)
		}
		slices.Sort(numbers)
		t.Rows = slices.DeleteFunc(t.Rows, func(r TimelineStatus) bool { return r.Timeline < numbers[n-maxTimelines] })
		t.Older = n - maxTimelines
	}
	return t
}

// rowsOf says what a picture shows.
func rowsOf(p picture) (out []TimelineStatus) {
	for _, r := range p.rows {
		row := TimelineStatus{Timeline: uint32(r.timeline), Begin: r.begin.String(), End: r.end.String(), OnLine: r.onLine, Newest: r.newest, Notes: r.notes}
		if r.parent >= 0 {
			row.Parent, row.Fork = uint32(p.rows[r.parent].timeline), r.fork.String()
		}
		for _, m := range r.marks {
			row.Holes = append(row.Holes, HoleStatus{m.from.String(), m.to.String(), m.known})
		}
		out = append(out, row)
	}
	return out
}

// followLine adds the timelines that the line went on to since the archive was looked at, and lets the newest one end at the frontier.
func (t *TimelinesStatus) followLine(line wal.History, from, frontier wal.LSN) {
	parent := uint32(0)
	for i := 0; i <= len(line.Forks); i++ {
		no, end := line.Timeline, max(frontier, from)
		if i < len(line.Forks) {
			no, end = line.Forks[i].Timeline, line.Forks[i].End
		}
		begin, _ := line.Begin(no)
		at := slices.IndexFunc(t.Rows, func(r TimelineStatus) bool { return r.Timeline == uint32(no) })
		if at < 0 {
			if end <= from && i < len(line.Forks) && parent == 0 {
				continue // of before the floor
			}
			row := TimelineStatus{Timeline: uint32(no), Begin: max(begin, from).String(), Parent: parent}
			if parent != 0 {
				row.Begin, row.Fork = begin.String(), begin.String()
			}
			row.End = max(end, begin, lsnOf(row.Begin)).String()
			at = 1 + slices.IndexFunc(t.Rows, func(r TimelineStatus) bool { return r.Timeline == parent })
			t.Rows = slices.Insert(t.Rows, at, row)
		}
		row := &t.Rows[at]
		row.OnLine, row.Newest = true, no == line.Timeline
		if row.Newest && end > lsnOf(row.End) {
			row.End = end.String()
		}
		parent = uint32(no)
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		if _, ok := line.Begin(wal.Timeline(r.Timeline)); !ok {
			r.OnLine, r.Newest = false, false
		}
	}
}
