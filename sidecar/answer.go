package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Push answers archive_command.
func (a *app) Push(ctx context.Context, file string) Answer {
	deadline := time.Now().Add(a.cfg.PushWait)
	for {
		changed := a.wait()
		s, why := a.current()
		if s != nil {
			return a.pushTo(ctx, s, file)
		}
		srv := a.pg.Server()
		if a.keeper.due(srv.State) {
			if err := a.keeper.setAside(a.pgWAL(), file, srv, a.scope.Last()); err != nil {
				why += "; it could not be set aside: " + err.Error()
			}
			return notYet(file, "7", why)
		}
		left := time.Until(deadline)
		if left <= 0 || srv.State == archiver.ServerStopping {
			return notYet(file, "13", why)
		}
		select {
		case <-changed:
		case <-time.After(min(left, time.Second)):
		case <-ctx.Done():
			return notYet(file, "13", "the sidecar stops")
		}
	}
}

// notYet answers a push that no file's facts were looked at for.
func notYet(file, row, why string) Answer {
	return Answer{1, archiver.Reply{Code: 1, Row: row, Why: why}.Line(filepath.Base(file))}
}

func (a *app) pushTo(ctx context.Context, s *site, file string) Answer {
	n, err := wal.ParseName(filepath.Base(file), s.archiver.Archive().SegmentSize())
	if err != nil {
		return notYet(file, "13", err.Error())
	}
	if err := a.checkPath(file); err != nil {
		return notYet(file, "13", err.Error())
	}
	within, cancel := s.bound(ctx)
	defer cancel()
	r := s.archiver.Push(within, n)
	return Answer{r.Code, r.Line(n.String())}
}

// checkPath refuses a file of another PostgreSQL: with several clusters on one host a wrong
// --socket would ask the wrong sidecar.
func (a *app) checkPath(file string) error {
	theirs, err := os.Stat(file)
	if err != nil {
		return nil // another mount namespace may see it under another path; the name decides
	}
	ours, err := os.Stat(filepath.Join(a.pgWAL(), filepath.Base(file)))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(theirs, ours) {
		return fmt.Errorf("%s is not in %s, which this sidecar looks after: check --socket in archive_command", file, a.pgWAL())
	}
	return nil
}

// Fetch answers restore_command for our own server. Another data directory on this machine, a restore
// beside it say, is none of this sidecar's: walbaton-wal then runs walbaton fetch.
func (a *app) Fetch(ctx context.Context, name, dest string) Answer {
	if !within(a.cfg.Postgres.DataDir, dest) {
		return Answer{Code: -1}
	}
	out := a.restorer.Fetch(ctx, name, dest)
	a.fetches.WithLabelValues(fetchAnswer(out.Code)).Inc()
	return Answer{out.Code, out.Why}
}

// keepHistories keeps the histories with their content, at every change of the line: a promotion must
// know which numbers are taken also while the archive is silent. The archive may get the newest a while after that.
func (a *app) keepHistories(ctx context.Context) error {
	const again = 10 * time.Second
	var kept, tried wal.Timeline
	var next time.Time
	for {
		changed := a.elector.Changed()
		if t := a.scope.Line().Timeline; t != kept && (t != tried || !time.Now().Before(next)) {
			err := a.restorer.KeepHistories(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Debug("histories not kept", "error", err)
			}
			if err == nil && a.restorer.Keeps(a.pg.Server().SystemID, t) {
				kept = t
			}
			tried, next = t, time.Now().Add(again)
		}
		select {
		case <-changed:
		case <-time.After(again):
		case <-ctx.Done():
			return nil
		}
	}
}
