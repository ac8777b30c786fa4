package sim

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// server is a model of one PostgreSQL: what it does to pg_wal and to archive_status, and when its archiver calls
// archive_command (reference: postgres-wal.md 1 to 3, patroni.md 5).
type server struct {
	w    *world
	c    *cluster
	name string
	dir  string // pg_wal; a real folder
	mode string // archive_mode

	state   archiver.ServerState
	crashed bool // it stopped without a shutdown
	cloned  bool // the data directory was made anew since it last ran
	wrote   bool // by pg_control it was a primary when it last ran
	gone    bool // there is no data directory

	stream    *stream
	flush     wal.LSN // end of the WAL that is in pg_wal
	from      wal.LSN // what is written next: a receiver begins at a segment's start
	up        *server
	streaming bool
	held      bool // replication stands still, by a fault
	stuck     time.Time
	cascade   string // Patroni's tag replicatefrom
	nostream  bool   // Patroni's tag nostream

	host   *host // of the postmaster; a new one at each start
	arch   *proc // its archiver
	kick   bool  // a .ready was made since the archiver looked
	dirty  bool  // pg_wal changed since the sidecar looked
	keep   uint64
	maxRec int

	rewoundTo *stream // by its last pg_rewind

	control wal.Timeline // by pg_control, which learns of a timeline that is replayed with the next restartpoint
	told    bool         // it has received WAL since it started: its sidecar has seen the timeline
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) status(name, suffix string) string {
	return filepath.Join(s.dir, "archive_status", name+suffix)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// initdb makes an empty data directory.
func (s *server) initdb() {
	must(os.MkdirAll(filepath.Join(s.dir, "archive_status"), 0o700))
	s.gone, s.dirty = false, true
}

// wipe removes it.
func (s *server) wipe() {
	must(os.RemoveAll(s.dir))
	s.gone, s.dirty, s.stream, s.flush = true, true, nil, 0
}

func (s *server) touch(path string) {
	s.c.stamp++
	at := time.Unix(1_700_000_000, s.c.stamp*1000)
	must(os.Chtimes(path, at, at))
	s.dirty = true
}

// put writes bytes [from, to) of a segment, and zeros after to when it is complete.
func (s *server) put(g wal.Segment, b []byte, from, to int, complete bool) {
	f, err := os.OpenFile(s.path(g.String()), os.O_RDWR|os.O_CREATE, 0o600)
	must(err)
	defer f.Close()
	if to > len(b) && !complete {
		b = append(slices.Clone(b), make([]byte, to-len(b))...) // zeros that were written, over what was there
	}
	from, to = min(from, len(b)), min(to, len(b))
	if info, err := f.Stat(); err == nil && info.Size() != int64(segmentSize) {
		must(f.Truncate(int64(segmentSize)))
	}
	_, err = f.WriteAt(b[from:to], int64(from))
	must(err)
	if complete {
		must(f.Truncate(int64(to)))
		must(f.Truncate(int64(segmentSize)))
	}
	s.touch(s.path(g.String()))
}

func (s *server) file(name string, b []byte) {
	must(os.WriteFile(s.path(name), b, 0o600))
	s.touch(s.path(name))
}

// notify is XLogArchiveNotify: it does not look at .done.
func (s *server) notify(name string) {
	must(os.WriteFile(s.status(name, ".ready"), nil, 0o600))
	s.dirty, s.kick = true, true
	if s.arch != nil {
		s.arch.wake(10 * time.Millisecond)
	}
}

// forceDone is XLogArchiveForceDone.
func (s *server) forceDone(name string) {
	s.dirty = true
	if there(s.status(name, ".done")) {
		return
	}
	if os.Rename(s.status(name, ".ready"), s.status(name, ".done")) == nil {
		return
	}
	must(os.WriteFile(s.status(name, ".done"), nil, 0o600))
}

// received is what a walreceiver, or the startup process that restored a file, does to its status.
func (s *server) received(name string) {
	if s.mode == "always" {
		s.notify(name)
	} else {
		s.forceDone(name)
	}
}

// write puts all WAL of the stream up to `to` into pg_wal; what is complete gets its status file.
func (s *server) write(to wal.LSN) {
	if s == s.c.far {
		s.flush = to // its files are in another place
		return
	}
	for s.from < to {
		g := segmentSize.At(s.stream.tli, s.from)
		end := min(to, g.End())
		s.put(g, s.stream.image(g), int(s.from-g.Start()), int(end-g.Start()), end == g.End())
		s.from = end
		s.flush = max(s.flush, end)
		if end < g.End() {
			return
		}
		if s.state == archiver.ServerPrimary || s.state == archiver.ServerStopping && s.up == nil {
			s.notify(g.String())
		} else {
			s.received(g.String())
		}
		s.c.check.owned(s, g)
	}
}

// restart has a receiver begin at the start of its segment.
func (s *server) restart() {
	s.from = segmentSize.At(s.stream.tli, s.flush).Start()
	if s.from < s.stream.begin {
		s.from = segmentSize.At(s.stream.tli, s.stream.begin).Start()
	}
}

// follow receives WAL from the server upstream, if it has it.
func (s *server) follow() {
	s.streaming = false
	if s.nostream && s.state == archiver.ServerStandby && !s.held && !s.c.leads(s) {
		s.restoreNext()
		return
	}
	if s.state != archiver.ServerStandby || s.up == nil || s.held || !s.c.connected(s, s.up) {
		return
	}
	up := s.up
	if up.stream == nil || up.state != archiver.ServerPrimary && up.state != archiver.ServerStandby && up.state != archiver.ServerStopping {
		return
	}
	left, ok := up.stream.descends(s.stream)
	if !ok || s.flush > left {
		return // diverged: Patroni has to rewind it
	}
	target := up.flush
	if left != wal.MaxLSN {
		target = left
	}
	if s.flush < target || s.from < target {
		to := s.stream.end(min(target, s.from+wal.LSN(s.w.rng.IntN(3)+1)*wal.LSN(segmentSize)))
		if to < s.from {
			to = target
		}
		if !s.available(up, to) {
			return
		}
		s.streaming = true
		s.stuck = time.Time{}
		s.write(to)
	}
	s.streaming = s.flush >= target || s.streaming
	if left != wal.MaxLSN && s.flush >= left {
		s.switchTimeline(up, left)
	}
}

// available says whether upstream still has all segments from ours on; else they come from the archive, if it has them.
func (s *server) available(up *server, to wal.LSN) bool {
	if up == s.c.far {
		return true // it keeps all
	}
	for at := s.from; at < to; at = segmentSize.At(s.stream.tli, at).End() {
		g := segmentSize.At(s.stream.tli, at)
		if there(up.path(g.String())) {
			continue
		}
		// A standby on the timeline that upstream is promoted from: the .partial is the same bytes up to the fork.
		if there(up.path(g.String() + ".partial")) {
			continue
		}
		if at == g.Start() && g.End() <= to && s.c.truth.holds(s.stream, g) && s.c.storeUp(s.name) {
			s.w.say(s.name, "restores %v from the archive", g)
			continue
		}
		if s.stuck.IsZero() {
			s.stuck = s.w.now
			s.w.say(s.name, "cannot stream: %s no longer has %v", up.name, g)
		}
		return false
	}
	return true
}

// switchTimeline goes on with the next timeline of upstream's line. What was received of the segment with the fork is
// marked as if it were whole (postgres-wal.md 1.5).
func (s *server) switchTimeline(up *server, left wal.LSN) {
	next := up.stream.child(s.stream)
	g := segmentSize.At(s.stream.tli, left)
	if left != g.Start() && there(s.path(g.String())) {
		s.received(g.String())
	}
	h := next.history()
	name := wal.HistoryName(next.tli).String()
	if !there(s.path(name)) {
		s.file(name, h.Bytes())
		s.received(name)
	}
	s.w.say(s.name, "follows to timeline %d at %v", next.tli, left)
	if up == s.c.far {
		s.c.fault("the standby leader follows a timeline")
	}
	s.stream = next
	s.from = segmentSize.At(next.tli, left).Start()
}

// promote ends recovery: a new timeline (postgres-wal.md 1.4).
func (s *server) promote() {
	old, at := s.stream, s.stream.end(s.flush)
	t := old.tli + 1
	for there(s.path(wal.HistoryName(t).String())) || s.c.historyForPromotion(s, t) {
		t++
	}
	next := old.fork(s.name, at, t, s.w.rng.Uint64()|1)
	for _, o := range s.c.streams {
		if o.tli == t {
			s.c.fault("double promotion to one number")
			break
		}
	}
	s.c.streams = append(s.c.streams, next)
	last := segmentSize.At(old.tli, at)
	first := last.On(t)
	s.stream, s.up, s.streaming, s.state, s.wrote, s.control = next, nil, false, archiver.ServerPrimary, true, t
	for _, suffix := range []string{".ready", ".done"} {
		os.Remove(s.status(first.String(), suffix))
	}
	s.flush, s.from = at, first.Start()
	s.write(at)
	s.file(wal.HistoryName(t).String(), next.history().Bytes())
	s.notify(wal.HistoryName(t).String())
	s.removeNonParent(old.tli, at)
	if at != last.Start() {
		name := last.String()
		if !there(s.status(name, ".ready")) && !there(s.status(name, ".done")) && there(s.path(name)) {
			must(os.Rename(s.path(name), s.path(name+".partial")))
			s.notify(name + ".partial")
		}
	}
	s.w.say(s.name, "promoted to timeline %d at %v", t, at)
	s.c.count("role change")
	s.startArchiver()
	s.w.in(s.w.between(50*time.Millisecond, 3*time.Second), func() {
		if s.stream == next && s.state == archiver.ServerPrimary {
			s.checkpoint()
		}
	})
}

// removeNonParent is RemoveNonParentXlogFiles: files of lower timelines behind the fork, unless they are .ready.
func (s *server) removeNonParent(old wal.Timeline, at wal.LSN) {
	behind := segmentSize.Before(old, at).No
	for _, n := range s.names() {
		if n.Kind == wal.KindSegment && n.Segment.Timeline <= old && n.Segment.No > behind &&
			!there(s.status(n.String(), ".ready")) && n.Segment.No > segmentSize.At(old, at).No {
			s.remove(n, false)
		}
	}
}

// names gives what is in pg_wal, in the order of the names.
func (s *server) names() []wal.Name {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil
	}
	var out []wal.Name
	for _, e := range entries {
		if n, err := wal.ParseName(e.Name(), segmentSize); err == nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b wal.Name) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

// checkpoint is the end of a checkpoint or a restartpoint: it removes or recycles (postgres-wal.md 2).
func (s *server) checkpoint() {
	if s.stream == nil || s.gone {
		return
	}
	s.control = s.stream.tli
	redo := segmentSize.At(s.stream.tli, s.flush).No
	cut := redo - min(redo, s.keep)
	if s.c.slots {
		cut = min(cut, s.c.neededBy(s))
	}
	removed, recycled := 0, 0
	for _, n := range s.names() {
		if n.Kind != wal.KindSegment && n.Kind != wal.KindPartial || n.Segment.No >= cut || !s.removable(n.String()) {
			continue
		}
		recycle := n.Kind == wal.KindSegment && recycled < s.maxRec
		if recycle {
			recycled++
		}
		removed++
		s.remove(n, recycle)
	}
	if removed > 0 {
		s.w.say(s.name, "checkpoint below %X: %d removed, %d of them recycled", cut, removed, recycled)
	}
}

// removable is XLogArchiveCheckDone.
func (s *server) removable(name string) bool {
	switch {
	case s.state == archiver.ServerStandby && s.mode != "always":
		return true
	case there(s.status(name, ".done")):
		return true
	case there(s.status(name, ".ready")):
		return false
	}
	s.notify(name)
	return false
}

// remove deletes a file, or gives it a name in the future, and its status files go.
func (s *server) remove(n wal.Name, recycle bool) {
	s.c.check.removed(s, n)
	future := segmentSize.At(s.stream.tli, s.flush)
	for recycle && there(s.path(future.String())) {
		future = future.Next()
	}
	if recycle {
		must(os.Rename(s.path(n.String()), s.path(future.String())))
	} else {
		must(os.Remove(s.path(n.String())))
	}
	os.Remove(s.status(n.String(), ".done"))
	os.Remove(s.status(n.String(), ".ready"))
	s.dirty = true
}

// readyFiles gives what archive_status wants archived, in the archiver's order.
func (s *server) readyFiles() []wal.Name {
	entries, err := os.ReadDir(filepath.Join(s.dir, "archive_status"))
	if err != nil {
		return nil
	}
	var out []wal.Name
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".ready")
		if n, err := wal.ParseName(base, segmentSize); ok && err == nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, wal.Name.Compare)
	return out
}

// done is what the archiver does after archive_command answered 0.
func (s *server) done(name string) {
	os.Rename(s.status(name, ".ready"), s.status(name, ".done"))
	s.dirty = true
}

// startArchiver starts the archiver process where this server has one.
func (s *server) startArchiver() {
	if s.arch != nil && !s.arch.over || s.state == archiver.ServerStandby && s.mode != "always" {
		return
	}
	s.arch = s.host.spawn(func(p *proc) {
		for {
			s.archiveCycle(p)
			if s.kick {
				s.kick = false
				p.sleep(10 * time.Millisecond)
				continue
			}
			p.sleep(time.Minute) // notify wakes it
			s.kick = false
		}
	})
}

// archiveCycle tries all that is .ready: a file three times a second apart, then the cycle is over.
func (s *server) archiveCycle(p *proc) bool {
	for {
		s.kick = false
		names := s.readyFiles()
		if len(names) == 0 {
			return true
		}
		for _, n := range names {
			name := n.String()
			if !there(s.status(name, ".ready")) {
				continue
			}
			if !there(s.path(name)) {
				os.Remove(s.status(name, ".ready")) // orphan status
				continue
			}
			ok := false
			for try := 0; try < 3 && !ok; try++ {
				if try > 0 {
					until := s.w.now.Add(time.Second)
					for s.w.now.Before(until) {
						p.sleep(until.Sub(s.w.now))
					}
				}
				ok = s.c.nodes[s.name].archiveCommand(p, n) == 0
			}
			if !ok {
				return false
			}
			s.done(name)
		}
	}
}
