package archiver

import (
	"strings"

	"github.com/walbaton/walbaton/archiver/wal"
)

// inventory is what one listing of wal/ says. Its memory grows with the number of holes.
type inventory struct {
	segments  Set
	partials  Set
	timelines map[wal.Timeline]*tally
}

// tally counts the files of one timeline.
type tally struct {
	first, last                 wal.Segment // with a full segment; valid when segments > 0
	segments, partials, backups int
	bytes                       int64 // sealed
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
		v.segments.Add(s)
	case wal.KindPartial:
		t.partials++
		v.partials.Add(s)
	case wal.KindBackup:
		t.backups++
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
