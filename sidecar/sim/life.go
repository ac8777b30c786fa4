package sim

import (
	"os"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// This file is how a server starts and stops, and what Patroni does to its files while it is stopped.

// start starts a server: as a primary on its old timeline, or as a standby.
func (s *server) start(primary bool, up *server) {
	s.host = newHost(s.w)
	s.crashed, s.cloned, s.up, s.told = false, false, up, false
	if !primary && s.timeline() < s.stream.tli {
		s.c.fault("pg_control behind the timeline")
	}
	s.state, s.stuck = archiver.ServerStarting, time.Time{}
	s.w.say(s.name, "postgresql starts, primary %v", primary)
	s.host.spawn(func(p *proc) {
		p.sleep(s.w.between(200*time.Millisecond, time.Second))
		s.state, s.wrote = archiver.ServerStandby, primary
		if primary {
			s.state, s.up = archiver.ServerPrimary, nil
		} else {
			s.restart()
		}
		s.startArchiver()
		s.restartpoints(p)
	})
}

func (s *server) restartpoints(p *proc) {
	for {
		p.sleep(s.w.between(8*time.Second, 25*time.Second))
		if s.state == archiver.ServerPrimary || s.state == archiver.ServerStandby {
			s.checkpoint()
		}
	}
}

// crash is kill -9 of the postmaster and all its children, or an immediate shutdown.
func (s *server) crash() {
	if s.state == archiver.ServerStopped {
		return
	}
	s.crashed = s.crashed || s.state == archiver.ServerPrimary || s.state == archiver.ServerStopping && s.up == nil
	s.state, s.streaming, s.arch = archiver.ServerStopped, false, nil
	s.host.kill()
	s.w.say(s.name, "postgresql crashed")
}

// stop is a fast shutdown. It waits for the archiver's last cycle; released is called when pg_control says "shut down".
func (s *server) stop(p *proc, released func()) {
	was := s.state
	if was == archiver.ServerStopped {
		return
	}
	if was != archiver.ServerPrimary {
		s.state, s.streaming, s.arch = archiver.ServerStopped, false, nil
		s.host.kill()
		s.w.say(s.name, "postgresql stopped")
		return
	}
	s.state, s.up = archiver.ServerStopping, nil
	s.w.say(s.name, "postgresql stops")
	s.append(func(w *waltest.Writer) { w.Switch() })
	s.append(func(w *waltest.Writer) { w.Record(100) }) // the shutdown checkpoint, in the next segment
	if s.arch != nil {
		s.arch.kill()
		s.arch = nil
	}
	h := s.host
	finished := false
	s.arch = h.spawn(func(q *proc) {
		s.archiveCycle(q)
		finished = true
	})
	if released != nil {
		released()
	}
	for !finished && !h.dead {
		p.sleep(200 * time.Millisecond)
	}
	if h.dead {
		return
	}
	s.state, s.arch = archiver.ServerStopped, nil
	h.kill()
	s.w.say(s.name, "postgresql stopped")
}

// append writes WAL as a primary.
func (s *server) append(op func(*waltest.Writer)) {
	s.stream.write(op)
	s.write(s.stream.w.Pos())
}

// archiveReady is Patroni's _archive_ready_wals: it calls archive_command itself for a stopped server.
func (s *server) archiveReady(p *proc) {
	for _, n := range s.readyFiles() {
		if n.Kind != wal.KindSegment && n.Kind != wal.KindPartial {
			continue
		}
		if !there(s.path(n.String())) || !there(s.status(n.String(), ".ready")) {
			continue
		}
		if s.c.nodes[s.name].archiveCommand(p, n) == 0 {
			s.done(n.String())
		}
	}
}

// wipeStatus is Patroni's cleanup_archive_status.
func (s *server) wipeStatus() {
	must(os.RemoveAll(filepath.Join(s.dir, "archive_status")))
	must(os.Mkdir(filepath.Join(s.dir, "archive_status"), 0o700))
	s.dirty = true
}

// singleUser is the recovery after a crash that Patroni runs: it completes the last segment with WAL of its own, and makes
// .ready of what has no status and could go.
func (s *server) singleUser(p *proc) {
	s.w.say(s.name, "single-user recovery")
	s.archiveReady(p)
	s.wipeStatus()
	s.state = archiver.ServerStarting
	p.sleep(s.w.between(300*time.Millisecond, 2*time.Second))
	s.append(func(w *waltest.Writer) { w.Record(200) })
	s.append(func(w *waltest.Writer) { w.Switch() })
	s.checkpointStatus()
	s.state, s.crashed, s.control = archiver.ServerStopped, false, s.stream.tli
}

// checkpointStatus makes .ready of old segments without status: archive_command is `false` there, and nothing is removed.
func (s *server) checkpointStatus() {
	redo := segmentSize.At(s.stream.tli, s.flush).No
	for _, n := range s.names() {
		if (n.Kind == wal.KindSegment || n.Kind == wal.KindPartial) && n.Segment.No+s.keep < redo &&
			!there(s.status(n.String(), ".done")) && !there(s.status(n.String(), ".ready")) {
			s.notify(n.String())
		}
	}
}

// rewind is pg_rewind: pg_wal and archive_status become copies of the source's; what only the target has is deleted
// (postgres-wal.md 1.8).
func (s *server) rewind(p *proc, source *server) bool {
	s.archiveReady(p)
	for range 30 {
		if source.state == archiver.ServerPrimary && s.c.connected(s, source) {
			break
		}
		p.sleep(time.Second)
	}
	if source.state != archiver.ServerPrimary || !s.c.connected(s, source) {
		return false
	}
	s.c.check.rewound(s, source)
	s.copyFrom(source)
	s.stream, s.flush, s.crashed, s.wrote, s.control = source.stream, source.flush, false, false, source.stream.tli
	s.w.say(s.name, "pg_rewind from %s, timeline %d up to %v", source.name, s.stream.tli, s.flush)
	s.c.count("rewind")
	s.c.rewound(s)
	return true
}

func (s *server) copyFrom(source *server) {
	theirs := map[string]bool{}
	for _, n := range source.names() {
		theirs[n.String()] = true
	}
	for _, n := range s.names() {
		if !theirs[n.String()] {
			must(os.Remove(s.path(n.String())))
		}
	}
	for _, n := range source.names() {
		s.copyFile(source, n)
	}
	s.wipeStatus()
	entries, err := os.ReadDir(filepath.Join(source.dir, "archive_status"))
	must(err)
	for _, e := range entries {
		must(os.WriteFile(filepath.Join(s.dir, "archive_status", e.Name()), nil, 0o600))
	}
}

// copyFile copies a file in place, without its zeros.
func (s *server) copyFile(source *server, n wal.Name) {
	had, err := s.c.content(source.path(n.String()))
	must(err)
	if n.Kind == wal.KindSegment || n.Kind == wal.KindPartial {
		f, err := os.OpenFile(s.path(n.String()), os.O_RDWR|os.O_CREATE, 0o600)
		must(err)
		defer f.Close()
		must(f.Truncate(0))
		_, err = f.WriteAt(had.plain, 0)
		must(err)
		must(f.Truncate(int64(segmentSize)))
		s.touch(s.path(n.String()))
		return
	}
	s.file(n.String(), had.plain)
}

// clone is a base backup of the source: its WAL since the last checkpoint arrives as .done.
func (s *server) clone(p *proc, source *server) bool {
	if !s.c.leads(source) || !s.c.connected(s, source) {
		return false
	}
	s.c.check.lost(s)
	s.wipe()
	p.sleep(s.w.between(time.Second, 4*time.Second))
	if !s.c.leads(source) || !s.c.connected(s, source) {
		return false
	}
	s.initdb()
	s.stream, s.flush, s.crashed, s.cloned, s.wrote, s.control = source.stream, source.flush, false, true, source.wrote, source.stream.tli
	first := segmentSize.At(s.stream.tli, s.flush).No
	first -= min(first, uint64(s.w.rng.IntN(6)))
	done := 0
	for _, n := range source.names() {
		switch {
		case n.Kind == wal.KindHistory && n.Segment.Timeline == s.stream.tli:
			s.copyFile(source, n)
			s.forceDone(n.String())
		case n.Kind == wal.KindSegment && n.Segment.Timeline == s.stream.tli && n.Segment.No >= first && n.Segment.Start() < s.flush:
			s.copyFile(source, n)
			if n.Segment.End() <= s.flush && n.Segment.No+1 < segmentSize.At(s.stream.tli, s.flush).No {
				s.forceDone(n.String())
				done++
			}
		}
	}
	s.w.say(s.name, "cloned from %s, %d segments arrive as done", source.name, done)
	s.c.count("clone")
	if done > 0 {
		s.c.fault("clone all done")
	}
	return true
}

// timeline is what the sidecar knows of the timeline: the higher of what was received and what pg_control says.
func (s *server) timeline() wal.Timeline {
	runs := s.state == archiver.ServerPrimary || s.state == archiver.ServerStandby
	s.told = runs && (s.told || s.streaming)
	if s.wrote || s.told || s.control == 0 {
		return s.stream.tli
	}
	return min(s.control, s.stream.tli)
}

// reading gives what the sidecar sees of it: SQL while it runs, else the files.
func (s *server) reading() archiver.Server {
	if s.gone || s.stream == nil {
		return archiver.Server{State: archiver.ServerUnknown}
	}
	r := archiver.Server{State: s.state, SystemID: systemID, Major: 15, SegmentSize: segmentSize, Timeline: s.timeline(), Flush: s.flush, ArchiveMode: s.mode, WasPrimary: s.wrote}
	switch s.state {
	case archiver.ServerPrimary:
		r.SQL = true
	case archiver.ServerStandby:
		r.SQL = true
		if s.streaming && s.up != nil {
			r.Receiver = archiver.Receiver{Streaming: true, Timeline: s.stream.tli, Host: s.up.name, Port: 5432}
		}
	}
	return r
}

// rewound counts what the rewinds of a term of the leader have in common.
func (c *cluster) rewound(s *server) {
	for _, name := range c.names {
		if o := c.srv[name]; o != s && o.rewoundTo == s.stream {
			c.fault("both nodes rewound")
		}
	}
	s.rewoundTo = s.stream
	if c.slowStore || c.storeDown {
		c.fault("slow store at the rewind")
	}
}
