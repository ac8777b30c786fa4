// A little over 500 lines: what holds after each step and at the end is read in one place.

package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// checker holds the cluster to its promises. What is asked of a step and what is owed at the end stay in one file, though it is a little long: they are read together.
//
//   - P1 when a push answers 0: what the archive, orphans/ and the floors hold at that moment.
//   - P2 and P3 when an object arrives.
//   - P4 after every event: at most one term lives; and when a segment is sent: by whom.
//   - Peace at the end: when nothing happens any more the baton stays where it is.
//   - No push waits for ever: in the end nothing is .ready where an archiver runs, or an alarm tells a person. Where an
//     administrator looks after the alarms nothing is left at all.
//   - P5 at the end. Owed is, above the floor and on the line of the leader at the end:
//     (a) what a surviving disk has as a whole good segment when the last fault has ended, unless Patroni clones it anew
//     after that, and, where it was not protected by then (a status other than .ready, or archive_mode=on), still has at the very end;
//     (b) with archive_mode=always, also every segment that any server ever completed, by writing or by
//     streaming, unless every server that did lost it to a wiped data directory, to a rewind while its sidecar
//     was down, or to a rewind while the leader that was believed to have it lost it later.
//     What only members with the tag "never" have is not owed (DESIGN section 6, rule 1).
//     Owed segments must be in the archive with the right bytes, in the end, with no human step. Where a server was
//     promoted to a number that the archive already has of another server's timeline, because it could not ask the archive, no
//     segment of that number is owed: the first whose leader opened it keeps it (P2, row 6c), and a person has to act.
//     Nor is a segment that lies in a keep_dir while the archive has none of its timeline, or that only keep_dirs and servers have
//     which do not stream, while the archive has nothing beside it and nothing else of its timeline that they have: two servers may
//     have had that number, nothing can be compared, and the copy stays where it is.
type checker struct {
	c        *cluster
	errs     []string
	had      map[string]map[ownedKey]bool // by member: (b)
	epoch    uint64
	twoSince time.Time // when a second primary of one timeline was last started
	healedAt time.Time
	restless int                          // terms that began when nothing happened any more
	counted  uint64                       // the last of them
	atHeal   map[ownedKey]map[string]bool // (a)
	lines    []*stream                    // that Patroni's leaders were on
	spoiled  map[wal.Name]bool
	accepted map[seal.Digest]bool // by an administrator
}

type ownedKey struct {
	s *stream
	g wal.Segment
}

func newChecker(c *cluster) *checker {
	return &checker{c: c, had: map[string]map[ownedKey]bool{}, spoiled: map[wal.Name]bool{}, accepted: map[seal.Digest]bool{}}
}

func (k *checker) fail(promise, format string, args ...any) {
	e := promise + ": " + fmt.Sprintf(format, args...)
	k.c.say("!!", "%s", e)
	k.errs = append(k.errs, fmt.Sprintf("at %.3f: %s", k.c.now.Sub(k.c.start).Seconds(), e))
}

// step is P4: at most one term lives. A paused process does nothing, so it does not count until it has
// had the chance to look at its clock.
func (k *checker) step() {
	k.leads()
	var holder *node
	for _, name := range k.c.names {
		n := k.c.nodes[name]
		if k.c.leaderKey == name || n.pg.streaming && n.pg.up != nil && n.pg.up.name == k.c.leaderKey {
			n.spoke = k.c.now
		}
		if n.host.dead || n.host.asleep() || n.term == nil || n.term.ctx.Err() != nil {
			continue
		}
		if !k.c.now.Before(n.m.Deadline()) {
			continue // its timer fires now
		}
		if holder != nil {
			k.fail("P4", "%s and %s are in a term at the same time", holder.name, n.name)
		}
		holder = n
		n.inTerm = k.c.now
	}
}

// term holds the numbers of the terms to growing.
func (k *checker) term(n *node, epoch uint64) {
	if epoch <= k.epoch {
		k.fail("P4", "%s begins term %d after term %d", n.name, epoch, k.epoch)
	}
	k.epoch = epoch
	if k.c.quiet() && k.c.now.After(k.c.check.healedAt.Add(50*time.Second)) {
		k.counted = epoch
		if k.restless++; k.restless == 6 {
			k.fail("peace", "nothing happens, and the baton goes to and fro")
		}
	}
}

// vain takes back what term counted of an errand that is given up, and of the term after it: they come later and later.
func (k *checker) vain() { k.restless -= 2 }

// works takes back what term counted of a term that ships something, and of the term after it: a node that kept WAL of two servers apart has errands one after
// the other, as it finds out whose it is.
func (k *checker) works(n *node) {
	if n.term != nil && k.counted == k.epoch {
		k.counted = 0
		k.restless -= 2
	}
}

// raced is how long a leader that looked whether a timeline is open may not know that it has been: the answer can be stale.
const raced = time.Minute

// sends is P4's second half: who sends a segment without the baton. Patroni's leader sends the first one of a timeline.
func (k *checker) sends(n *node, object string) {
	if !strings.Contains(object, "/wal/") || strings.Contains(object, ".") {
		return
	}
	name, _ := wal.ParseName(object[strings.LastIndex(object, "/")+1:], segmentSize)
	t := name.Segment.Timeline
	// A timeline is open with its history, too: who put that as the leader, or found its own there, goes on by itself while its DCS is silent.
	history := k.c.truth.objects[key(wal.HistoryName(t))]
	ours, err := k.c.content(n.pg.path(wal.HistoryName(t).String()))
	began := history.from == n.name || err == nil && n.pg.stream != nil && n.pg.stream.owner == n.name && ours.digest == history.digest
	if k.c.mirror != nil && k.c.mirror.begun(t) {
		return // a copy of what is in the other archive opens nothing
	}
	if k.c.truth.opened[t] == nil && !began && k.c.now.Sub(n.spoke) > 10*time.Second {
		k.fail("P4", "%s opens timeline %d, and is not the leader's", n.name, t)
	}
	v, _ := n.m.View()
	// By what it knows: one that was the leader when its DCS fell silent goes on, as P4 lets it.
	knows := v.Cluster.Leader != "" && v.Cluster.Leader != n.name
	if l := k.c.srv[k.c.leaderKey]; knows && n.pg.state == archiver.ServerPrimary && l != nil && l != n.pg && l.state == archiver.ServerPrimary && l.stream != n.pg.stream &&
		l.stream.tli == t && n.pg.stream.tli == t && k.c.now.Sub(k.twoSince) > 15*time.Second {
		k.fail("P4", "%s sends %s, and is the second primary of its timeline", n.name, object)
	}
	grace := leader.UploadGrace + 500*time.Millisecond
	if n.term != nil && n.term.ctx.Err() == nil || k.c.now.Sub(n.inTerm) <= grace || k.c.now.Sub(n.resumed) <= grace {
		return
	}
	first, open := k.c.truth.first[t]
	switch {
	case v.Cluster.Leader == n.name && n.silent() || n.srv.State == archiver.ServerPrimary && n.silent():
		k.c.count("shipped without the DCS")
	case (k.c.leaderKey == n.name || v.Cluster.Leader == n.name) &&
		(!open || name == first.name || k.c.now.Sub(first.at) <= raced || k.c.truth.belowFloor(name.Segment)): // expire has removed all of it
		k.c.count("opened a timeline without the baton")
	default:
		k.fail("P4", "%s sends %s without the baton", n.name, object)
	}
}

// owned notes that a server completed a segment.
func (k *checker) owned(s *server, g wal.Segment) {
	m := k.had[s.name]
	if m == nil {
		m = map[ownedKey]bool{}
		k.had[s.name] = m
	}
	m[ownedKey{s.stream, g}] = true
}

// removed is called when PostgreSQL removes a file. With archive_mode=on it may take what nobody archived.
func (k *checker) removed(s *server, n wal.Name) {
	if s.mode == "on" && n.Kind == wal.KindSegment {
		k.forget(s, n.Segment)
	}
}

// forget is called when a server loses a segment, whoever of two servers that share its timeline wrote it.
func (k *checker) forget(s *server, g wal.Segment) {
	maps.DeleteFunc(k.had[s.name], func(o ownedKey, _ bool) bool { return o.g == g })
}

// lost is called when the data directory goes. A clone that Patroni decided on may wipe it after the last fault, too.
func (k *checker) lost(s *server) {
	delete(k.had, s.name)
	for _, who := range k.atHeal {
		delete(who, s.name)
	}
}

// mayShip says whether a member's WAL is owed: one that the administrator tagged "never" gets no baton to ship it with.
func (k *checker) mayShip(name string) bool { return k.c.nodes[name].tag != leader.TagNever }

// rewound is called when pg_rewind is about to delete what only this server has.
func (k *checker) rewound(s, source *server) {
	n := k.c.nodes[s.name]
	if s.mode == "on" || !n.alive() || n.host.asleep() || n.site == nil {
		delete(k.had, s.name)
		return
	}
	for o := range k.had[s.name] {
		if k.had[source.name][o] {
			delete(k.had[s.name], o) // the leader's record lists it, and that is believed
		}
	}
}

// acknowledged is P1.
func (k *checker) acknowledged(n *node, name wal.Name, r archiver.Reply) {
	had, err := k.c.content(n.pg.path(name.String()))
	if err != nil {
		return // it went while the answer was on its way
	}
	if name.Kind != wal.KindHistory && k.c.truth.belowFloor(name.Segment) {
		return
	}
	o, ok := k.c.truth.object(name)
	if ok && o.digest == had.digest {
		if k.c.mirror != nil && !k.c.mirror.has(name, o) {
			ok = false // then it is to be nothing that has to be kept, or be in orphans/ of both
		}
	}
	if ok && o.digest == had.digest {
		return // what a fault did to an object later, its header does not say: that is for verify to find
	}
	for key, x := range k.c.truth.objects {
		if strings.HasPrefix(key, root+"/orphans/") && strings.Contains(key, "/"+name.String()+"-") && x.digest == had.digest {
			if k.c.mirror == nil || k.c.mirror.objects[key].digest == had.digest {
				return
			}
		}
	}
	if name.Kind == wal.KindSegment {
		b := padded(had.plain)
		rep, err := wal.Check(bytes.NewReader(b), name.Segment, systemID)
		must(err)
		if ok && o.good && rep.State != wal.Complete {
			upTo := int(rep.End - name.Segment.Start())
			if rep.State != wal.Cut || upTo <= 0 || bytes.Equal(trim(b[:upTo]), trim(o.plain[:min(upTo, len(o.plain))])) {
				return // 6a
			}
		}
		if ok && o.good && rep.State == wal.Complete && !k.wrote(name.Segment, had.plain) {
			return // 6a: damaged where only the segment before it tells, in the half of a record that began there
		}
		if r.Row == "5" && k.forkKept(name.Segment, rep.End) {
			return
		}
	}
	k.fail("P1", "%s answered 0 for %v by row %s, and it is nowhere", n.name, name, r.Row)
}

// accept notes that an administrator wants a copy in the archive that is not good: nothing better can get there any more.
func (k *checker) accept(n wal.Name, d seal.Digest) {
	k.accepted[d] = true
	k.spoiled[n] = true
}

// stuck gives what PostgreSQL still waits for where nothing happens any more, nobody is asked for help, or nobody is there to be asked.
func (k *checker) stuck() []string {
	asked := slices.ContainsFunc(k.c.names, func(name string) bool {
		n := k.c.nodes[name]
		return n.site != nil && len(n.site.a.Alarms()) > 0
	})
	if asked && !k.c.admin {
		return nil // the others wait for the node that a person is asked about
	}
	var out []string
	has := k.survey()
	for _, name := range k.c.names {
		s, n := k.c.srv[name], k.c.nodes[name]
		if s.arch == nil || s.arch.over || n.site == nil || !k.mayShip(name) {
			continue
		}
		ready := s.readyFiles()
		if len(ready) == 0 || k.untoldFile(has, s, ready[0]) {
			continue
		}
		out = append(out, fmt.Sprintf("%s waits for %v, and %d more; alarms %v", name, ready[0], len(ready)-1, n.site.a.Alarms()))
	}
	return out
}

// wrote says whether a server wrote this.
func (k *checker) wrote(g wal.Segment, plain []byte) bool {
	return slices.ContainsFunc(k.c.streams, func(s *stream) bool {
		return s.tli == g.Timeline && g.End() <= s.w.Pos() && bytes.Equal(plain, s.image(g))
	})
}

// forkKept says whether a segment that some leader's line left inside is in the archive as its .partial or as the child's first segment.
func (k *checker) forkKept(g wal.Segment, end wal.LSN) bool {
	for _, s := range k.lines {
		left, ok := s.history().End(g.Timeline)
		if !ok || left > g.End() || end > left && left > g.Start() {
			continue
		}
		child := g.On(s.history().TimelineAt(left))
		_, partial := k.c.truth.object(wal.Name{Kind: wal.KindPartial, Segment: g})
		_, first := k.c.truth.object(wal.SegmentName(child))
		if partial || first {
			return true
		}
	}
	return false
}

// leads notes the lines of the leaders.
func (k *checker) leads() {
	s := k.c.srv[k.c.leaderKey]
	if s == nil || s.stream == nil || !k.c.leads(s) {
		return
	}
	if len(k.lines) == 0 || k.lines[len(k.lines)-1] != s.stream {
		k.lines = append(k.lines, s.stream)
	}
}

// survey gives what the disks have as whole good segments, and for each member whether it is protected: nothing but an
// error of ours can remove it.
func (k *checker) survey() map[ownedKey]map[string]bool {
	out := map[ownedKey]map[string]bool{}
	for _, name := range k.c.names {
		s := k.c.srv[name]
		if s.gone || s.stream == nil {
			continue
		}
		for _, n := range s.names() {
			if n.Kind != wal.KindSegment {
				continue
			}
			has, err := k.c.content(s.path(n.String()))
			must(err)
			for own := s.stream; own != nil; own = own.parent {
				if own.tli == n.Segment.Timeline && n.Segment.End() <= own.w.Pos() && bytes.Equal(has.plain, own.image(n.Segment)) {
					o := ownedKey{own, n.Segment}
					if out[o] == nil {
						out[o] = map[string]bool{}
					}
					out[o][name] = s.mode == "always" && !there(s.status(n.String(), ".done"))
				}
			}
		}
	}
	return out
}

// missing gives what is owed and not in the archive.
func (k *checker) missing() []string {
	line := k.c.srv[k.c.leaderKey]
	if line == nil || line.stream == nil {
		if !slices.ContainsFunc(k.c.names, func(name string) bool { return !k.c.srv[name].gone }) {
			return nil // every disk was lost
		}
		return []string{"there is no leader"}
	}
	h := line.stream.history()
	owed := map[ownedKey]string{}
	now := k.survey()
	for o, who := range k.atHeal {
		for _, name := range k.c.names {
			protected, surveyed := who[name]
			if _, still := now[o][name]; surveyed && (protected || still) && k.mayShip(name) {
				owed[o] += fmt.Sprintf(" on %s, protected %v", name, protected)
			}
		}
	}
	if k.c.mode == "always" {
		for _, name := range k.c.names {
			for o := range k.had[name] {
				if !k.mayShip(name) {
					continue
				}
				owed[o] += " completed by " + name
			}
		}
	}
	var out []string
	for g := segmentSize.At(1, 0); g.Start() < line.flush; g = g.Next() {
		s := g.On(h.TimelineAt(g.End() - 1))
		own := line.stream.owns(s)
		if own == nil || !h.Holds(s) || s.End() > line.flush {
			continue
		}
		who, ok := owed[ownedKey{own, s}]
		if k.c.truth.opened[s.Timeline] != nil && !slices.Contains(k.c.truth.writers[s.Timeline], own) {
			continue
		}
		if k.c.truth.opened[s.Timeline] == nil && len(k.aside(s)) > 0 || k.untold(now, ownedKey{own, s}) {
			continue
		}
		if len(now[ownedKey{own, s}]) == 0 && k.overtaken(line.stream, s) || k.heldUp(own, s) {
			continue
		}
		if !ok || k.c.truth.belowFloor(s) || k.spoiled[wal.SegmentName(s)] || k.c.truth.holds(line.stream, s) {
			continue
		}
		out = append(out, fmt.Sprintf("%v (%s)", s, who))
	}
	return out
}

// overtaken says whether the archive's timeline of the segment after s is another server's than the line's, of the same number: what is in orphans
// alone then does not fit, and stays there.
func (k *checker) overtaken(line *stream, s wal.Segment) bool {
	next := s.Next()
	next = next.On(line.history().TimelineAt(next.End() - 1))
	own := line.owns(next)
	return own != nil && k.c.truth.opened[next.Timeline] != nil && !slices.Contains(k.c.truth.writers[next.Timeline], own)
}

// heldUp says whether the archive has another server's segment before s on its timeline, which was the line's when it came: nothing is put behind that before an
// administrator has decided (row 6c).
func (k *checker) heldUp(own *stream, s wal.Segment) bool {
	for before := s; before.No > 0; {
		before = before.Prev()
		o, ok := k.c.truth.object(wal.SegmentName(before))
		if ok && o.good && !o.astray && before.End() <= own.w.Pos() && !bytes.Equal(o.plain, own.image(before)) {
			return true
		}
	}
	return false
}

// untold says whether nothing tells those who have a segment that their timeline is the archive's.
func (k *checker) untold(now map[ownedKey]map[string]bool, o ownedKey) bool {
	kept := k.aside(o.g)
	if len(now[o]) == 0 && len(kept) == 0 {
		return false
	}
	for _, beside := range []wal.Segment{o.g.Prev(), o.g.Next()} {
		if _, ok := k.c.truth.object(wal.SegmentName(beside)); ok {
			return false
		}
	}
	for name := range now[o] {
		if s := k.c.srv[name]; s.streaming || k.c.leads(s) {
			return false
		}
		for other, who := range now {
			if _, has := who[name]; has && other.s == o.s && k.c.truth.holds(o.s, other.g) {
				return false
			}
		}
	}
	for _, name := range kept {
		files, err := os.ReadDir(k.c.nodes[name].keep)
		must(err)
		for _, f := range files {
			if n, err := wal.ParseName(f.Name(), segmentSize); err == nil && n.Kind == wal.KindSegment && n.Segment.Timeline == o.s.tli && k.c.truth.holds(o.s, n.Segment) {
				return false
			}
		}
	}
	return true
}

// untoldFile is untold for a file in the pg_wal of s.
func (k *checker) untoldFile(now map[ownedKey]map[string]bool, s *server, n wal.Name) bool {
	if n.Kind != wal.KindSegment || s.stream == nil {
		return false
	}
	own := s.stream.owns(n.Segment)
	return own != nil && k.untold(now, ownedKey{own, n.Segment})
}

// aside gives the nodes that have the segment in their keep_dir.
func (k *checker) aside(s wal.Segment) (nodes []string) {
	for _, name := range k.c.names {
		if there(filepath.Join(k.c.nodes[name].keep, s.String())) {
			nodes = append(nodes, name)
		}
	}
	return nodes
}

// logger writes what the archiver logs into the event log.
func (n *node) logger() *slog.Logger { return slog.New(&logHandler{n: n}) }

type logHandler struct{ n *node }

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	h.n.say(h.n.name, "%s", h.n.cleanText(b.String()))
	return nil
}

func (h *logHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *logHandler) WithGroup(string) slog.Handler      { return h }

// clean makes an error the same on every machine.
func (c *cluster) clean(err error) string { return c.cleanText(err.Error()) }

func (c *cluster) cleanText(s string) string { return strings.ReplaceAll(s, c.dir, "") }
