package doctor

import (
	"fmt"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// Checks of what would be lost, and how soon.

const (
	waitsMany = 16              // segments: more than are under way on a busy primary
	waitsLong = 5 * time.Minute // for one segment
)

func missingSegments(f Facts) []Finding {
	var oldest leader.Range
	var at string
	most, known := 0, false
	var longest time.Duration
	for _, n := range f.Nodes {
		if !n.alive() {
			continue
		}
		known = true
		most = max(most, n.Sidecar.Waiting, int(n.Sidecar.Misses.Count()))
		longest = max(longest, n.Sidecar.Since)
		t, no, some := n.Sidecar.Misses.First()
		if some && (at == "" || no < oldest.First) {
			oldest, at = leader.Range{Timeline: t, First: no}, n.Name
		}
	}
	const fix = "see the lines of the store, the baton and the sidecars; walbaton status and walbaton explain NAME say more"
	name := f.segment(oldest.Timeline, oldest.First)
	if at == "" { // no record says it
		for _, n := range f.Nodes {
			if n.Sidecar.Oldest != "" && (at == "" || n.Sidecar.Oldest < name) {
				name, at = n.Sidecar.Oldest, n.Name
			}
		}
	}
	switch {
	case !known:
		return one(warning("start the sidecars", "not known: no sidecar is alive"))
	case most == 0:
		return one(ok("none: the archive has all that any node has finished"))
	case longest > waitsLong:
		return one(warning(fix, "%s, the oldest %s of %s, waiting for %s", counted(most, "segment"), name, at, spanText(longest)).on(at))
	case most > waitsMany:
		return one(warning(fix, "%s, the oldest %s of %s", counted(most, "segment"), name, at).on(at))
	}
	return one(ok("%s under way, the oldest %s of %s", counted(most, "segment"), name, at).on(at))
}

// segment is the name of a segment; in words where its size is not known.
func (f Facts) segment(timeline uint32, no uint64) string {
	if !f.DCS.SegmentSize.Valid() {
		return fmt.Sprintf("number %d of timeline %d", no, timeline)
	}
	return wal.Segment{Timeline: wal.Timeline(timeline), Size: f.DCS.SegmentSize, No: no}.String()
}

func nobodyHas(f Facts) []Finding {
	t, no, some := f.DCS.Nobody.First()
	if !some && f.DCS.Holder == "" {
		return one(unexamined("the holder of the baton says it, and there is none that could be asked"))
	}
	if !some {
		return one(ok("every segment that the archive lacks is on a node that runs"))
	}
	return one(broken("start the sidecars that are down, and look for the files in backups and in the keep_dir of each node. If they are gone:\n  walbaton verify\nand then take a base backup",
		"%s, from %s on, are in the archive nowhere, and no live node lists them", counted(f.DCS.Nobody.Count(), "segment"), f.segment(t, no)))
}

// oneAlone finds what exists on one node only: the archive is not known to have it, and no other live node lists it.
func oneAlone(f Facts) []Finding {
	if f.Static {
		return one(unexamined("there is one node"))
	}
	if f.REST || f.DCS.Err != "" {
		return one(unexamined("only the DCS has what each node has, and it is not asked here"))
	}
	var all []Finding
	for _, n := range f.Nodes {
		if !n.Sidecar.Live {
			all = append(all, warning("start its sidecar before you reinit it or take its disk away", "what %s has alone is not known, for its sidecar is down: do not reinit it", n.Name).on(n.Name))
			continue
		}
		alone := f.Alone(n)
		if t, no, some := alone.First(); some {
			all = append(all, warning(fmt.Sprintf("bring the archive back, or let %s ship: its walbaton status says what keeps it", n.Name),
				"%s alone has %s, from %s on: do not reinit it", n.Name, counted(alone.Count(), "segment"), f.segment(t, no)).on(n.Name))
		}
	}
	if len(all) == 0 {
		return one(ok("no node has WAL that nobody else and no archive has"))
	}
	return all
}

// Alone gives what a node has, and no archive and no other node is known to have.
func (f Facts) Alone(n Node) leader.Ranges {
	alone := n.Sidecar.Misses
	for _, other := range f.Nodes {
		if other.Name != n.Name && other.Sidecar.Live {
			alone = alone.Subtract(other.Sidecar.Has)
		}
	}
	return alone
}

const (
	fullSoon  = time.Hour      // at this machine's pace, if the archive took nothing from now on
	fullAlarm = 24 * time.Hour // the same, while it takes nothing
)

// forYears is as long as anybody looks ahead: a large disk beside an idle server would last longer than a time.Duration can say.
const forYears = 100 * 365 * 24 * time.Hour

func diskOfWAL(f Facts) []Finding {
	var all []Finding
	shortest, who := time.Duration(0), ""
	for _, n := range f.Nodes {
		s := n.Sidecar
		if s.Err != "" || s.Free == 0 {
			continue
		}
		left := time.Duration(0)
		if s.Pace > 0 {
			left = time.Duration(min(float64(s.Free)/float64(s.Pace), forYears.Seconds()) * float64(time.Second))
		}
		pace := fmt.Sprintf("%s free on %s, %s of WAL a second", sizeText(s.Free), n.Name, sizeText(s.Pace))
		const fix = "make the disk larger, or bring the archive back; delete nothing in pg_wal"
		switch {
		case f.DCS.SegmentSize.Valid() && s.Free < uint64(f.DCS.SegmentSize):
			all = append(all, broken(fix, "the disk of %s is full: PostgreSQL stops there", n.Name).on(n.Name))
		case s.Pace == 0:
			all = append(all, ok("%s free on %s", sizeText(s.Free), n.Name).on(n.Name))
		case !s.Store && left < fullSoon:
			all = append(all, broken(fix, "%s: full in %s, and the archive takes nothing", pace, spanText(left)).on(n.Name))
		case !s.Store && left < fullAlarm:
			all = append(all, warning(fix, "%s: full in %s, and the archive takes nothing", pace, spanText(left)).on(n.Name))
		case left < fullSoon:
			all = append(all, warning("give pg_wal a larger disk: that is how long the archive may be away", "%s: full within %s of the archive's going away", pace, spanText(left)).on(n.Name))
		case who == "" || left < shortest:
			shortest, who = left, n.Name
		}
	}
	if who != "" {
		n, _ := f.node(who)
		all = append(all, ok("%s free on %s, which last %s at %s of WAL a second", sizeText(n.Sidecar.Free), who, spanText(shortest), sizeText(n.Sidecar.Pace)).on(who))
	}
	if len(all) == 0 {
		return one(unexamined("no sidecar told"))
	}
	return all
}

// sizeText writes bytes as people read them, in PostgreSQL's units.
func sizeText(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	if i == 0 || x >= 100 {
		return fmt.Sprintf("%.0f %s", x, units[i])
	}
	return fmt.Sprintf("%.1f %s", x, units[i])
}
