package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/window"
)

func newFetchCommand(w world) *cobra.Command {
	c := &cobra.Command{
		Use:   "fetch %f %p",
		Short: "Restore one WAL file from the archive (restore_command)",
		Long: `Put the WAL file called %f at the path %p, read from the archive without a sidecar.
PostgreSQL calls it where none runs: at a bootstrap, for a clone, on another machine.
walbaton-wal fetch executes it by itself in that case.

The file is written whole or not at all, and only when digest, size and system
identifier are right. restore_from names further archives, which are asked for what
the own one has not; an address that ends in #scope is that of another scope.

Exit code 0: restored. 1: proven not to be in the archive; on a standby, which streams
and asks again, also when nobody can say. 200: nobody can say, after ten minutes
of asking (restore.patience); recovery stops then, and goes on when PostgreSQL is
started again.`,
		Example: `  restore_command = 'walbaton-wal fetch %f %p'
  restore_command = 'walbaton fetch --archive s3://bucket/prefix --scope shop %f %p'
  walbaton fetch --archive file:///backup --scope shop 000000010000000000000007 /tmp/000000010000000000000007`,
		Args: takes(cobra.ExactArgs(2)),
	}
	addSettings(c, readingSettings("restore_from", "restore.patience", "name", "postgres.data_dir", "stall_timeout", "log")...)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if err := cfg.needArchive(); err != nil {
			return err
		}
		dst, err := filepath.Abs(args[1])
		if err != nil {
			return fmt.Errorf("fetch %s: %w", args[0], err)
		}
		r, err := newDirectRestorer(c.Context(), cfg, dst, cfg.logger(w))
		if err != nil {
			return err
		}
		out := r.Fetch(c.Context(), args[0], dst)
		switch {
		case out.Code != archiver.Restored && c.Context().Err() != nil:
			return c.Context().Err() // PostgreSQL stops: it takes SIGTERM's code for that, and another one for a broken recovery
		case out.Code != archiver.Restored:
			return withCode(out.Code, errors.New(out.Why))
		case out.Why != "":
			_, err = io.WriteString(w.stderr, "walbaton: "+out.Why+"\n")
		}
		return err
	}
	return c
}

// newRestorer makes the Restorer of a sidecar: for the data directory beside it, with the cluster to ask. It prefetches while that server reads
// the archive: one that streams, or is a primary, does not.
func (a *app) newRestorer(ctx context.Context) (*archiver.Restorer, error) {
	o, err := restoreOptions(ctx, a.cfg, a.log)
	if err != nil {
		return nil, err
	}
	o.DataDir, o.Oracle, o.Kept = a.cfg.Postgres.DataDir, a.scope, filepath.Join(a.cfg.KeepDir, "histories")
	if a.cfg.Restore.Prefetch > 0 {
		o.Ahead = &window.Options{Dir: a.cfg.Restore.PrefetchDir, Bytes: a.cfg.Restore.Prefetch, Workers: a.cfg.Workers, Log: a.log, Metrics: a.metrics,
			Wanted: func() bool {
				srv := a.pg.Server()
				return srv.State != archiver.ServerPrimary && !srv.Receiver.Streaming
			}}
	}
	return archiver.NewRestorer(o)
}

// newDirectRestorer makes a Restorer that asks no DCS, for the file at dst.
func newDirectRestorer(ctx context.Context, cfg Config, dst string, log *slog.Logger) (*archiver.Restorer, error) {
	o, err := restoreOptions(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	o.DataDir = dataDirOf(dst, cfg)
	if o.DataDir != "" {
		cfg.warnOfOpenKeys(log)
	} else {
		// A person without a data directory: any archive that there is no doubt about will do.
		a, err := openArchive(ctx, cfg, 0, log)
		for i := 1; err != nil && i < len(cfg.Archives); i++ {
			if next, nextErr := openArchive(ctx, cfg.ofArchive(cfg.Archives[i]), 0, log); nextErr == nil {
				a, err = next, nil
			}
		}
		if err != nil {
			return nil, err
		}
		o.SystemID, o.SegmentSize = a.Identity().SystemID, a.SegmentSize()
	}
	return archiver.NewRestorer(o)
}

func restoreOptions(ctx context.Context, cfg Config, log *slog.Logger) (archiver.RestoreOptions, error) {
	// The Restorer knows how patient to be; below it, a second try is for a broken connection.
	quick := store.Backoff{First: 100 * time.Millisecond, Tries: 2, Log: log}
	cfg.StallTimeout = min(cfg.StallTimeout, 10*time.Second) // a promotion may be waiting
	own, err := openOwn(ctx, cfg, quick)
	if err != nil {
		return archiver.RestoreOptions{}, err
	}
	o := archiver.RestoreOptions{Own: own, Member: cfg.Name, Recovery: cfg.Restore.Patience, Log: log}
	for _, u := range cfg.RestoreFrom {
		src, err := openSource(ctx, u, cfg, quick)
		if err != nil {
			return archiver.RestoreOptions{}, fmt.Errorf("restore_from: %w", err)
		}
		o.Others = append(o.Others, src)
	}
	return o, nil
}

// openOwn opens the archive that is read first: the only one, or several as one.
func openOwn(ctx context.Context, cfg Config, b store.Backoff) (archiver.Source, error) {
	if cfg.Archives == nil {
		return openSource(ctx, cfg.Archive.URL, cfg, b)
	}
	var all []archiver.Replica
	var own archiver.Source
	for _, a := range cfg.Archives {
		src, err := openSource(ctx, a.URL, cfg.ofArchive(a), b)
		if err != nil {
			return archiver.Source{}, fmt.Errorf("archive %s: %w", a.Name, err)
		}
		all, own = append(all, archiver.Replica{Name: a.Name, Required: a.Required, Store: src.Store}), src
	}
	own.Store = archiver.Replicas(all)
	return own, nil
}

// dataDirOf finds the data directory that a file is fetched for: the one around %p (pg_rewind may be started anywhere), the
// working directory (PostgreSQL's own), or the configured one. "" when there is none.
func dataDirOf(dst string, cfg Config) string {
	candidates := []string{filepath.Dir(filepath.Dir(dst)), "", cfg.Postgres.DataDir}
	if filepath.Base(filepath.Dir(dst)) != "pg_wal" {
		candidates[0] = ""
	}
	if wd, err := os.Getwd(); err == nil {
		candidates[1] = wd
	}
	for _, dir := range candidates {
		for _, mark := range []string{"global/pg_control", "recovery.signal", "standby.signal"} {
			if dir != "" && exists(filepath.Join(dir, mark)) {
				return dir
			}
		}
	}
	return ""
}
