package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

const (
	postgresPoll = time.Second     // between readings
	postgresSQL  = time.Second     // for one answer, connecting included
	postgresRest = 5 * time.Second // before SQL is tried again after it failed
)

// postgres reads the state of the local PostgreSQL: its files every time, SQL when the files say that
// it accepts connections. The files never hang and say first that the server stops; SQL
// knows the timeline right after a promotion, which pg_control learns with the next checkpoint.
type postgres struct {
	dir    string
	sql    *sqlReader
	log    *slog.Logger
	now    func() time.Time
	change func() // called after a reading that differs from the one before

	one     chan struct{} // holds a token while a reading is under way; guards sql, retry and reached
	retry   time.Time     // SQL is not tried before
	reached reached

	mu       sync.Mutex
	last     archiver.Server
	lastAt   time.Time
	commands commands
}

// commands are what the server calls, as it said itself when it was asked last; for people who look whether they are right.
type commands struct{ Archive, Restore string }

// newPostgres does not read yet. change may be nil.
func newPostgres(cfg Config, log *slog.Logger, change func()) *postgres {
	if change == nil {
		change = func() {}
	}
	return &postgres{
		dir:    cfg.Postgres.DataDir,
		sql:    newSQLReader(cfg),
		log:    log,
		now:    time.Now,
		change: change,
		one:    make(chan struct{}, 1),
		last:   archiver.Server{State: archiver.ServerUnknown},
	}
}

// Server gives the last reading, at most a second or two old while Run runs.
func (p *postgres) Server() archiver.Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Commands gives what SQL said last of archive_command and restore_command; empty before.
func (p *postgres) Commands() commands {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commands
}

// Run reads every second until ctx ends, and closes the connection.
func (p *postgres) Run(ctx context.Context) {
	t := time.NewTicker(postgresPoll)
	defer t.Stop()
	defer p.close()
	for {
		p.Read(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (p *postgres) close() {
	p.one <- struct{}{}
	defer func() { <-p.one }()
	p.sql.close()
}

// Read takes a reading now; a call that waited for another one's reading gets that. It takes at most
// postgresSQL, and gives the last reading when ctx ends before.
func (p *postgres) Read(ctx context.Context) archiver.Server {
	asked := p.now()
	select {
	case p.one <- struct{}{}:
		defer func() { <-p.one }()
	case <-ctx.Done():
		return p.Server()
	}
	p.mu.Lock()
	last, at := p.last, p.lastAt
	p.mu.Unlock()
	if at.After(asked) {
		return last
	}
	if ctx.Err() != nil {
		return last
	}
	began := p.now()
	f := readServerFiles(p.dir)
	s := p.reached.by(f, p.read(ctx, f, last))
	p.mu.Lock()
	p.last, p.lastAt = s, began
	p.mu.Unlock()
	if s != last {
		p.tell(last, s)
		p.change()
	}
	return s
}

// read looks at the files, and asks SQL if they say that somebody would answer. A connection
// is not kept any longer than that: it would hold up a smart shutdown.
func (p *postgres) read(ctx context.Context, f serverFiles, last archiver.Server) archiver.Server {
	s := f.server()
	if last.SystemID == s.SystemID {
		s.ArchiveMode = last.ArchiveMode // what SQL said; a restart can change it, and SQL will say so
	}
	if !f.connects() {
		p.sql.close()
		p.retry = time.Time{}
		return s
	}
	if p.now().Before(p.retry) {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, postgresSQL)
	defer cancel()
	a, err := p.sql.read(ctx, f.postmaster)
	if err == nil {
		err = f.same(a)
	}
	if err != nil {
		p.sql.close()
		p.retry = p.now().Add(postgresRest)
		p.log.Warn("postgresql does not answer, its files do", "error", err)
		return s
	}
	p.mu.Lock()
	p.commands = a.commands
	p.mu.Unlock()
	return a.server(s)
}

// reached is the highest timeline that a server which still runs was seen on: it never goes back. A standby that receives nothing
// knows its timeline from pg_control alone, which may say that of the last restartpoint; taken for a rewind, that would make
// the archiver doubt all that vouched for the timeline, and the leader of a standby cluster would lead the line back.
type reached struct {
	postmaster int // its process number
	started    time.Time
	systemID   uint64
	timeline   wal.Timeline
}

// by corrects a reading of a server.
func (r *reached) by(f serverFiles, s archiver.Server) archiver.Server {
	switch m := f.postmaster; {
	case f.err != nil: // pg_control could not be read just now
		return s
	case !f.running || r.postmaster != m.pid || !r.started.Equal(m.started) || r.systemID != s.SystemID:
		*r = reached{postmaster: m.pid, started: m.started, systemID: s.SystemID}
	}
	if f.running {
		r.timeline = max(r.timeline, s.Timeline)
		s.Timeline = r.timeline
	}
	return s
}

// tell logs what changed, but for the LSNs.
func (p *postgres) tell(before, now archiver.Server) {
	before.Flush, before.Redo = now.Flush, now.Redo
	if before == now {
		return
	}
	log := p.log
	if now.Receiver.Streaming {
		log = log.With("sender", net.JoinHostPort(now.Receiver.Host, strconv.Itoa(now.Receiver.Port)))
	}
	log.Info("postgresql is "+string(now.State), "sql", now.SQL, "timeline", uint32(now.Timeline),
		"flush", now.Flush.String(), "system", now.SystemID, "archive_mode", now.ArchiveMode)
}

// server fills in what SQL said over what the files said.
func (a sqlAnswer) server(s archiver.Server) archiver.Server {
	s.SQL = true
	s.Version, s.Major = a.version, a.version/10000
	s.ArchiveMode = a.archiveMode
	s.Flush = a.flush
	s.Receiver = a.receiver
	if a.timeline != 0 {
		s.State, s.Timeline, s.WasPrimary = archiver.ServerPrimary, a.timeline, true
		s.Receiver = archiver.Receiver{}
		return s
	}
	s.State, s.WasPrimary = archiver.ServerStandby, false
	// Without a receiver the files know the timeline that is replayed. With one, what is received
	// is the newer of the two, but for the moment before it has received anything.
	s.Timeline = max(s.Timeline, a.receiver.Timeline)
	return s
}

// sqlAnswer is what one query says.
type sqlAnswer struct {
	systemID    uint64
	started     time.Time // of the postmaster
	version     int
	archiveMode string
	timeline    wal.Timeline // 0 in recovery
	flush       wal.LSN
	receiver    archiver.Receiver
	commands    commands
}
