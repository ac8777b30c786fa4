package archiver

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// State is what this node knows at one moment: for its record in the DCS, for status and metrics.
type State struct {
	Has    Set // good complete segments of the line here
	Misses Set // of those, the ones the archive is not known to have
	Held   Set // of those, the ones that wait for an administrator: they follow on a segment that differs from the archive's
	Marks  map[wal.Timeline]uint64
	Lacks  Set // holder only: what the archive lacks, and we have no good copy of
	Errand Set
	// Refused, of the errand, is what was tried and may not be shipped: nothing tells that it is of the archive's timeline, or that is not open.
	Refused Set
	Term    uint64

	StoreAnswers bool
	StoreWhy     string
	Silent       int           // of several archives, how many required ones do not answer; the holder says so only after a while
	Archives     []TargetState // nil when there is one
	LastTaken    time.Time     // when the archive last took a file of ours

	Frontier     wal.LSN // 0 when no line is known
	FrontierFrom wal.LSN // from where on the frontier was followed
	Waiting      int     // files with .ready, or missing
	Oldest       string  // the first of Misses, "" when none
	Kept         int     // files set aside
	KeptBytes    int64   // of those of them that were read
	// MissingSince is when PostgreSQL wrote last to that segment of Misses which it finished first; zero when there is none. What the
	// holder says that the archive has does not count, though this node may not have seen it there yet.
	MissingSince time.Time
	Shipped      uint64 // segments that this node put into the archive, since this Archiver was made; each once, however many archives there are
	ShippedBytes uint64 // sealed, and of files of every kind
	Alarms       []Alarm
	Failed       map[string]string // file to the reason it was not shipped the last time
}

// State looks at everything once, without any request.
func (a *Archiver) State() State {
	cluster := a.scope.Last()
	line := a.line(cluster)
	archived := a.cover.archived()
	below := a.completeBelow()
	s := State{Marks: map[wal.Timeline]uint64{}, Alarms: a.Alarms(), Failed: map[string]string{}}
	pending := map[wal.Timeline]uint64{}
	held := a.heldBack()
	for k := range a.names() {
		n := k.name
		if k.kept {
			s.Kept++
			if k.read != nil {
				s.KeptBytes += k.read.size
			}
		}
		if n.Kind != wal.KindSegment || !line.Holds(n.Segment) || !k.kept && !below(k) || k.kept && !a.cover.belongs(n) {
			continue
		}
		good := k.read != nil && a.shippable(n, k.read) && !k.read.unproven() || k.sealed || k.read == nil && archived.Has(n.Segment)
		if good {
			s.Has.Add(n.Segment)
		}
		if archived.Has(n.Segment) || a.belowFloor(n) || k.read != nil && !a.shippable(n, k.read) {
			continue
		}
		if good || k.status == queue.Ready {
			s.Waiting++
		}
		if good {
			s.Misses.Add(n.Segment)
			if k.read != nil && !cluster.Shipped(n.Segment) {
				s.MissingSince = earlier(s.MissingSince, time.Unix(0, k.read.ident.Mtime))
			}
			if !k.kept && held(n.Segment) {
				s.Held.Add(n.Segment)
			}
			if s.Oldest == "" {
				s.Oldest = n.String()
			}
		}
		if no, ok := pending[n.Segment.Timeline]; !ok || n.Segment.No < no {
			pending[n.Segment.Timeline] = n.Segment.No
		}
	}
	for _, p := range archived.Spans() {
		s.Marks[p.Timeline] = p.Last + 1 // spans ascend, the last one stays
	}
	for t, no := range pending {
		// What waits may lie far above what was shipped: a segment that was made for later, as long as nobody has read it.
		if m, ok := s.Marks[t]; !ok || no < m {
			s.Marks[t] = no
		}
	}
	s.Frontier, s.FrontierFrom = a.frontier(line, archived)
	s.Shipped, s.ShippedBytes = a.shipped.segments.Load(), a.shipped.bytes.Load()
	s.Archives = a.targetStates(line, s.Misses)
	anywhere := a.cover.anywhere() // the holder fills one archive from another, so nobody is sent for that
	answers, why := a.StoreAnswers()
	s.Silent = a.published()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Term, s.Errand = a.term, a.errand.Minus(anywhere)
	s.Lacks = a.lacks.Minus(anywhere)
	s.StoreAnswers, s.StoreWhy, s.LastTaken = answers, why, a.put.taken
	for n, f := range a.failed {
		s.Failed[n.String()] = f.why
		if errors.Is(f.err, errNoWitness) && s.Errand.Has(n.Segment) {
			s.Refused.Add(n.Segment)
		}
	}
	return s
}

// earlier gives the earlier one of two times, of which the first may be zero: none yet.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// shipped counts what this node put into the archive.
type shipped struct{ segments, bytes atomic.Uint64 }

func (s *shipped) add(n wal.Name, size int64) {
	if n.Kind == wal.KindSegment {
		s.segments.Add(1)
	}
	s.bytes.Add(uint64(size))
}

// heldBack is parted for one look at everything: what follows on a segment of ours that is another one than the archive's, and, where our server does not
// speak for the timeline, what comes before it as well.
func (a *Archiver) heldBack() func(wal.Segment) bool {
	type part struct {
		first  uint64
		ok     bool
		speaks bool
	}
	known := map[wal.Timeline]part{}
	return func(s wal.Segment) bool {
		p, asked := known[s.Timeline]
		if !asked {
			if p.first, p.ok = a.partedAt(s.Timeline); p.ok {
				p.speaks = a.request(wal.SegmentName(s), a.scope.Last()).speaksFor(s.Timeline)
			}
			known[s.Timeline] = p
		}
		return p.ok && (p.first < s.No || !p.speaks)
	}
}

// frontier follows the line from the highest floor that was listed to the first hole. Only what
// was listed or written in this run of the sidecar is known, so it may begin above the floor.
func (a *Archiver) frontier(line wal.History, archived Set) (end, from wal.LSN) {
	if line.Timeline == 0 {
		return 0, 0
	}
	z := a.archive.SegmentSize()
	from = a.archive.FloorOn(line)
	if a.cover.listedAbove(line, z, from) > from {
		from = a.cover.listedAbove(line, z, from)
	}
	end = from
	for {
		s := z.At(1, end)
		s = s.On(line.TimelineAt(s.End() - 1))
		next := archived.Next(s.Timeline, s.No)
		if next == s.No {
			return end, from
		}
		// A run of the parent may go past the fork; the line does not.
		for s.No < next && line.Holds(s) {
			s = s.Next()
		}
		if s.Start() == end {
			return end, from
		}
		end = s.Start()
	}
}

// CheckLacks finds, inside a term, the segments of the line that other live nodes have, the
// archive lacks, and of which this node has no good copy. A listing made now confirms them.
func (a *Archiver) CheckLacks(ctx context.Context) error {
	if a.Term() == 0 {
		a.setLacks(Set{})
		return nil
	}
	c := a.scope.Last()
	candidates := a.lackCandidates(c)
	a.mu.Lock()
	fresh := candidates.Minus(a.lacks)
	a.mu.Unlock()
	if fresh.Empty() {
		a.setLacks(candidates)
		return nil
	}
	for _, p := range fresh.Spans() {
		if err := a.list(ctx, p.Timeline, p.First); err != nil {
			a.note(err)
			return err
		}
	}
	a.setLacks(a.lackCandidates(c))
	return nil
}

func (a *Archiver) lackCandidates(c Cluster) Set {
	line := a.line(c)
	flush := a.server().Flush
	rest := c.Others.Minus(a.cover.anywhere())
	var ours Set
	for k := range a.names() {
		if k.name.Kind == wal.KindSegment && (k.read == nil || a.shippable(k.name, k.read)) && (!k.kept || a.cover.belongs(k.name)) {
			ours.Add(k.name.Segment)
		}
	}
	rest = rest.Minus(ours)
	var out Set
	for _, p := range rest.Spans() {
		for no := p.First; no <= p.Last; no++ {
			s := wal.Segment{Timeline: p.Timeline, Size: a.archive.SegmentSize(), No: no}
			if line.Holds(s) && s.End() <= flush && !a.belowFloor(wal.SegmentName(s)) {
				out.Add(s)
			}
		}
	}
	return out
}

func (a *Archiver) setLacks(s Set) {
	a.mu.Lock()
	changed := !a.lacks.equal(s)
	a.lacks = s
	a.mu.Unlock()
	if changed {
		a.bell.ring()
	}
}

// whyNot gives why n was not shipped the last time it was tried.
func (a *Archiver) whyNot(n wal.Name) (error, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.failed[n]
	return f.err, ok && !errors.Is(f.err, errNotOurs)
}
