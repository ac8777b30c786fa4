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
	since time.Time // the first push of this series that found PostgreSQL stopped
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
	k.log.Warn("set aside in keep_dir", "file", n.String(), "keep_dir", k.dir)
	return nil
}
