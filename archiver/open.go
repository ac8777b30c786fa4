package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// ErrNoArchive means that the store answered and has no archive of this cluster yet, and this node
// is not the one to begin it.
var ErrNoArchive = errors.New("the archive has not been begun yet; Patroni's leader does that")

// Prepare opens the archive of the cluster that this server belongs to, or begins it when this node
// is Patroni's leader by a fresh read. Nothing is ever put before it succeeds. The keys are those of OpenArchive.
func Prepare(ctx context.Context, s store.Store, id Identity, srv Server, q *queue.Queue, scope Scope, keys ...seal.Identity) (*Archive, error) {
	a, err := OpenArchive(ctx, s, id.Scope, srv.SystemID, keys...)
	if err == nil && a.SegmentSize() != srv.SegmentSize {
		return nil, fmt.Errorf("open %s: %w: its segments have %d bytes, and this server's %d", a, ErrFormat, a.SegmentSize(), srv.SegmentSize)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	c, err := scope.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin the archive: the DCS does not answer: %w", err)
	}
	if !c.CountsAsLeader(srv) && (c.NoDCS || !c.IsLeader()) {
		return nil, ErrNoArchive
	}
	// While initdb runs, or a server only starts, its position is not where archiving begins: a floor from there would
	// promise WAL that is gone, for ever.
	if srv.State != ServerPrimary && srv.State != ServerStandby || srv.Timeline == 0 || srv.Flush == 0 {
		return nil, errors.New("begin the archive: the timeline of this server is not known yet")
	}
	if id.Floor, err = firstFloor(q, srv); err != nil {
		return nil, err
	}
	id.SystemID, id.SegmentSize, id.Created = srv.SystemID, srv.SegmentSize, time.Now().UTC().Truncate(time.Second)
	err = CreateArchive(ctx, s, id)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	begun := err == nil
	if a, err = OpenArchive(ctx, s, id.Scope, srv.SystemID, keys...); err == nil {
		a.begun = begun
	}
	return a, err
}

// firstFloor is where the archive begins: with the oldest segment that PostgreSQL still wants
// archived, or else with the one that it is writing. In a standby cluster it begins with the oldest before those without which
// pg_wal has a gap: a base backup of a standby begins at its last restartpoint, not at a checkpoint of its own, and
// the WAL from there on came with its clone, as .done.
func firstFloor(q *queue.Queue, srv Server) (Floor, error) {
	own := wal.History{Timeline: srv.Timeline}
	if srv.Timeline > 1 {
		h, _, err := q.History(srv.Timeline)
		if err != nil {
			return Floor{}, fmt.Errorf("begin the archive: read the history of timeline %v: %w", srv.Timeline, err)
		}
		own = h
	}
	first := srv.SegmentSize.At(srv.Timeline, srv.Flush)
	files, err := q.Scan()
	if err != nil {
		return Floor{}, fmt.Errorf("begin the archive: %w", err)
	}
	for f := range files.All() {
		if f.Name.Kind == wal.KindSegment && f.Status == queue.Ready && !f.Gone && own.Holds(f.Name.Segment) && f.Name.Segment.No < first.No {
			first = f.Name.Segment
		}
	}
	if srv.State == ServerStandby {
		for first.No > 1 {
			before := first.Prev().On(own.TimelineAt(first.Start() - 1))
			if f, ok := files.Find(wal.SegmentName(before)); !ok || f.Gone || !own.Holds(before) {
				break
			}
			first = before
		}
	}
	fl := Floor{Timeline: first.Timeline, LSN: first.Start()}
	for _, fork := range own.Forks {
		if fork.Timeline < first.Timeline {
			fl.Ancestors = append(fl.Ancestors, fork.Timeline)
		}
	}
	return fl, nil
}
