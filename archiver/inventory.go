package archiver

import (
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// inventory is what one listing of wal/ says. Its memory grows with the number of holes and of base backups.
type inventory struct {
	segments  Set
	partials  Set
	labels    []wal.Name // of base backups
	timelines map[wal.Timeline]*tally
}

// tally counts the files of one timeline.
type tally struct {
	first, last                 wal.Segment // with a full segment; valid when segments > 0
	segments, partials, backups int
	bytes                       int64 // sealed
	sealed                      int64 // of those, full segments
}

func newInventory() *inventory { return &inventory{timelines: map[wal.Timeline]*tally{}} }

func (v *inventory) add(o Object) {
	s := o.Name.Segment
	t := v.timelines[s.Timeline]
	if t == nil {
		t = &tally{}
		v.timelines[s.Timeline] = t
	}
	t.bytes += o.Size
	switch o.Name.Kind {
	case wal.KindSegment:
		if t.segments == 0 || s.No < t.first.No {
			t.first = s
		}
		if t.segments == 0 || s.No > t.last.No {
			t.last = s
		}
		t.segments++
		t.sealed += o.Size
		v.segments.Add(s)
	case wal.KindPartial:
		t.partials++
		v.partials.Add(s)
	case wal.KindBackup:
		t.backups++
		v.labels = append(v.labels, o.Name)
	}
}

func (v *inventory) count(c *AuditCount) {
	for _, t := range v.timelines {
		c.Segments += t.segments
		c.Partials += t.partials
		c.Backups += t.backups
		c.Bytes += t.bytes
	}
}

// files gives all of t that has WAL, in the order of their numbers, whatever is missing between.
func (v *inventory) files(a *Archive, t wal.Timeline) *wholeLine {
	var s stretch
	for _, p := range v.segments.Spans() {
		if p.Timeline == t {
			s.pieces = append(s.pieces, piece{Span: p})
		}
	}
	for _, p := range v.partials.Spans() {
		if k := len(s.pieces); p.Timeline == t && (k == 0 || s.pieces[k-1].Last < p.Last) {
			s.pieces = append(s.pieces, piece{Span{t, p.Last, p.Last}, true})
		}
	}
	return &wholeLine{a: a, parts: []stretch{s}, times: map[int][2]time.Time{}}
}

// hasWAL says whether anything of t but histories is there that can be replayed.
func (v *inventory) hasWAL(t wal.Timeline) bool {
	return v.segments.HasTimeline(t) || v.partials.HasTimeline(t)
}

// afterLast gives what follows the last sep in s, without a colon in between; s itself when there is nothing.
func afterLast(s, sep string) string {
	if i := strings.LastIndex(s, sep+": "); i >= 0 {
		return s[i+len(sep)+2:]
	}
	return s
}
