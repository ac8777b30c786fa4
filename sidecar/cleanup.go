package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

func newCleanupCommand(w world) *cobra.Command {
	c := &cobra.Command{
		Use:   "cleanup %r",
		Short: "Answer archive_cleanup_command: tell the sidecar this node's restart point",
		Long: `Tell this node's sidecar from which segment on a restart would go on. Nothing is deleted:
the holder of the baton does that, once every member has told its restart point, and only
with retention: standby-only.

PostgreSQL runs it after each restartpoint, so walbaton-wal cleanup, which says the same
and starts ten times faster, is the better choice.

Exit code 0: told, or no sidecar answers, which is said. 2: it was called wrongly.`,
		Example: `  archive_cleanup_command = 'walbaton cleanup %r'
  walbaton cleanup 000000010000000000000007`,
		Args: takes(cobra.ExactArgs(1)),
	}
	addSettings(c, "socket")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		_, err = askSidecar(c.Context(), cfg.Socket, "cleanup", args[0], "")
		if err != nil && exitCode(err) != exitUsage {
			_, err = fmt.Fprint(w.stderr, explainLine(fmt.Errorf("cleanup %s: the restart point was not told: %w", args[0], err)))
		}
		return err
	}
	return c
}

// told is the restart point that archive_cleanup_command told last.
type told struct {
	systemID uint64
	segment  wal.Segment
}

// Cleanup answers archive_cleanup_command: name is its %r, the segment that the last restart point lies in.
func (a *app) Cleanup(ctx context.Context, name string) Answer {
	srv := a.pg.Server()
	if strings.Trim(name, "0") == "" && len(name) == 24 {
		return Answer{} // there is no restart point yet
	}
	if !srv.SegmentSize.Valid() {
		srv = a.pg.Read(ctx)
	}
	if !srv.SegmentSize.Valid() {
		return Answer{Message: "cleanup " + name + ": the restart point is not noted: the data directory cannot be read yet"}
	}
	n, err := wal.ParseName(name, srv.SegmentSize)
	if err == nil && n.Kind != wal.KindSegment {
		err = fmt.Errorf("%s is no segment", name)
	}
	if err != nil {
		return Answer{exitUsage, fmt.Sprintf("cleanup: %v (use archive_cleanup_command = 'walbaton-wal cleanup %%r')", err)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := (told{srv.SystemID, n.Segment}); a.told != t {
		a.told = t
		a.ring()
	}
	return Answer{}
}

// restartPoint is from where this node would go on: a primary from its last checkpoint, a standby from what it told; nil when that is not known.
func (a *app) restartPoint(srv archiver.Server) *leader.Place {
	if srv.State == archiver.ServerPrimary {
		if srv.Redo == 0 {
			return nil
		}
		g := srv.SegmentSize.At(srv.Timeline, srv.Redo)
		return &leader.Place{Timeline: uint32(g.Timeline), No: g.No}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told.systemID == 0 || a.told.systemID != srv.SystemID {
		return nil
	}
	return &leader.Place{Timeline: uint32(a.told.segment.Timeline), No: a.told.segment.No}
}
