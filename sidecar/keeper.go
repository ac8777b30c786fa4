package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// keeper is row 7 of DESIGN section 7 while the archive is not open: a machine that comes back in the store's outage has
// a sidecar that never reached the store, and a Patroni that archives once and rewinds whatever the answer.
type keeper struct {
	dir  string        // keep_dir
	wait time.Duration // stopped_wait
	log  *slog.Logger
	now  func() time.Time

	mu    sync.Mutex
	since time.Time         // the first push of this series that found PostgreSQL stopped
	aside map[wal.Name]bool // files set aside since PostgreSQL stopped
}

// noted is told of each file that was set aside, here or by the archiver. The first of a series is a line of the log.
func (k *keeper) noted(n wal.Name) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.aside) == 0 {
		k.aside = map[wal.Name]bool{}
		k.log.Warn("PostgreSQL is stopped: what is not known to be stored is set aside in keep_dir", "first", n.String(), "keep_dir", k.dir)
	}
	k.aside[n] = true
}

// over ends a series: PostgreSQL runs again, or the sidecar stops.
func (k *keeper) over() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.aside) > 0 {
		k.log.Info("files were set aside in keep_dir while PostgreSQL was stopped", "files", len(k.aside), "keep_dir", k.dir)
	}
	k.aside = nil
}

// due notes what a push found, and says whether this series of pushes has waited long enough for the archive.
func (k *keeper) due(s archiver.ServerState) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case s != archiver.ServerStopped:
		k.since = time.Time{}
		return false
	case k.since.IsZero():
		k.since = k.now()
	}
	return k.now().Sub(k.since) >= k.wait
}

// setAside copies a file of the stopped server to keep_dir, unless the live leader's record lists it as good.
func (k *keeper) setAside(pgWAL, file string, srv archiver.Server, c archiver.Cluster) error {
	n, err := wal.ParseName(filepath.Base(file), srv.SegmentSize)
	if err != nil {
		return err
	}
	if n.Kind == wal.KindSegment && c.LeaderLive && c.LeaderHas.Has(n.Segment) {
		return nil
	}
	q, err := queue.Open(pgWAL, srv.SegmentSize)
	if err != nil {
		return err
	}
	defer q.Close()
	dir := keepDir(k.dir, srv.SystemID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make keep_dir: %w", err)
	}
	if err := archiver.SetAside(q, dir, n, c.LeaderHas.Has); err != nil {
		return err
	}
	k.log.Debug("set aside in keep_dir", "file", n.String(), "keep_dir", k.dir)
	k.noted(n)
	return nil
}

// pin asks PostgreSQL of a standby to keep what it takes for archived, while the archive cannot be asked: what came with a clone is .done, and a
// restartpoint recycles that, though the archive may lack it. What it has is answered, or settled, when it is open.
func (k *keeper) pin(pgWAL string, srv archiver.Server) error {
	q, err := queue.Open(pgWAL, srv.SegmentSize)
	if err != nil {
		return err
	}
	defer q.Close()
	files, err := q.Scan()
	if err != nil {
		return err
	}
	pinned := 0
	for f := range files.All() {
		if f.Name.Kind == wal.KindSegment && f.Status == queue.Done && !f.Gone && q.MarkReady(f.Name) == nil {
			pinned++
		}
	}
	if pinned > 0 {
		k.log.Info("PostgreSQL is asked to keep WAL that it takes for archived: the archive was not asked yet", "segments", pinned)
	}
	return nil
}

// strangers warns of what another cluster in the same place has left: nobody ships that any more.
func (k *keeper) strangers(systemID uint64) {
	dirs, _ := os.ReadDir(k.dir) // none, before anything was set aside
	for _, d := range dirs {
		id, err := strconv.ParseUint(d.Name(), 10, 64)
		if err != nil || id == systemID {
			continue
		}
		if files, err := os.ReadDir(filepath.Join(k.dir, d.Name())); err == nil && len(files) > 0 {
			k.log.Warn("keep_dir has files of another cluster that were never shipped; its archive may lack them", "system_identifier", id, "files", len(files), "folder", filepath.Join(k.dir, d.Name()))
		}
	}
}

// keepDir is the part of keep_dir for one cluster: another one in the same place has files of the same names.
func keepDir(dir string, systemID uint64) string {
	return filepath.Join(dir, strconv.FormatUint(systemID, 10))
}
