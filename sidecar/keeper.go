package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("make keep_dir: %w", err)
	}
	if err := archiver.SetAside(q, k.dir, n, c.LeaderHas.Has); err != nil {
		return err
	}
	k.log.Debug("set aside in keep_dir", "file", n.String(), "keep_dir", k.dir)
	k.noted(n)
	return nil
}
