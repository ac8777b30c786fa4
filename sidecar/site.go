package main

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/leader"
)

// site is one data directory and its archive. A re-clone, or another cluster in the same place,
// makes a new one.
type site struct {
	archiver *archiver.Archiver
	registry *prometheus.Registry
	others   []uint64        // system identifiers of other clusters that the scope has archives of
	ctx      context.Context // ends with the site
}

// bound gives a context that ends with the site too.
func (s *site) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// answers says whether the archive took the last put.
func (s *site) answers() bool {
	ok, _ := s.archiver.StoreAnswers()
	return ok
}

// tendSites opens the archive and works on it, again and again: a data directory may not be there
// yet, be replaced, or belong to another cluster tomorrow.
func (a *app) tendSites(ctx context.Context) error {
	a.pg.Read(ctx) // so that the first try knows the server
	for {
		err := a.tendSite(ctx)
		if ctx.Err() != nil {
			a.leaveSite("the sidecar stops")
			return nil
		}
		why := "the data directory was replaced"
		if err != nil {
			why = archiver.Reason(a.main(), err)
		}
		if _, was := a.current(); was != why {
			a.log.Warn("the archive is not open", "why", why)
		}
		a.leaveSite(why)
		if sleep(ctx, time.Second) != nil {
			return nil
		}
	}
}

// pinEvery is how often a standby without an open archive is looked at; no restartpoint comes sooner after a start.
const pinEvery = 10 * time.Second

// pinClones keeps what came with a clone from being recycled, as long as the archive is not open.
func (a *app) pinClones(ctx context.Context) error {
	for sleep(ctx, pinEvery) == nil {
		srv := a.pg.Server()
		if s, _ := a.current(); s != nil || srv.State != archiver.ServerStandby || !srv.SegmentSize.Valid() {
			continue
		}
		if err := a.keeper.pin(a.pgWAL(), srv); err != nil {
			a.log.Debug("pg_wal of a standby not read", "why", err)
		}
	}
	return nil
}

func (a *app) leaveSite(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.site != nil || a.waiting != why {
		a.site, a.waiting = nil, why
		a.ring()
	}
}

// tendSite works on one site until it is another one, or ctx ends.
func (a *app) tendSite(ctx context.Context) error {
	srv := a.pg.Server()
	if srv.SystemID == 0 || !srv.SegmentSize.Valid() {
		return whyUnreadable(a.cfg.Postgres.DataDir)
	}
	q, err := queue.Open(a.pgWAL(), srv.SegmentSize)
	if err != nil {
		return err
	}
	defer q.Close()
	s := &site{registry: prometheus.NewRegistry()}
	s.archiver, err = a.newArchiver(ctx, srv, q, archiver.Options{
		Read:   a.pg.Read,
		Member: a.cfg.Name, Workers: a.cfg.Workers, Codec: seal.Codec(a.cfg.Archive.Codec), EncryptTo: a.cfg.encryptTo(),
		Limits:       archiver.Limits{PushWait: a.cfg.PushWait, ShutdownWait: a.cfg.ShutdownWait, StoppedWait: a.cfg.StoppedWait},
		StallTimeout: a.cfg.StallTimeout, Grace: leader.UploadGrace, KeepDir: keepDir(a.cfg.KeepDir, srv.SystemID), Aside: a.keeper.noted, Log: a.log, Metrics: labelled(a.cfg, s.registry), Watch: a.watch,
	})
	if err != nil {
		return err
	}
	defer s.archiver.Close()
	opened := s.archiver.Archive()
	if s.others, err = a.otherArchives(ctx, opened); err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = within
	a.mu.Lock()
	a.site, a.waiting = s, ""
	a.ring()
	a.mu.Unlock()
	a.keeper.strangers(srv.SystemID)
	a.log.Info("the archive is open", "archive", opened.String(), "floor", opened.Identity().Floor.LSN.String())
	guard := make(chan error, 1)
	go func() {
		defer cancel()
		guard <- a.guardSite(within, srv.SystemID)
	}()
	err = s.archiver.Tend(within)
	cancel()
	if other := <-guard; other != nil {
		return other
	}
	return err
}

// otherArchives finds what else is under our scope: another cluster had this name, or has it still. They never touch each
// other's folders, and who begins one beside another says so.
func (a *app) otherArchives(ctx context.Context, opened *archiver.Archive) ([]uint64, error) {
	others, err := opened.Others(ctx)
	if err == nil && opened.Begun() && len(others) > 0 {
		a.log.Warn("this scope has the archive of another cluster already: this one begins a folder of its own beside it, which is right after pg_upgrade, "+
			"or when the cluster was built anew; otherwise two clusters have the same scope", "archive", opened.String(), "others", identifiers(others))
	}
	return others, err
}

// steady leaves out the random part of a probe's key, so that the same trouble reads the same at every try and is
// logged once.
func steady(err error) error {
	random := regexp.MustCompile(`/[A-Z2-7]{26}\b`) // crypto/rand.Text
	return &steadyError{random.ReplaceAllString(err.Error(), ""), err}
}

// steadyError reads otherwise than the error that it is.
type steadyError struct {
	text string
	error
}

func (e *steadyError) Error() string { return e.text }
func (e *steadyError) Unwrap() error { return e.error }

var errOtherCluster = errors.New("the data directory belongs to another cluster now")

// guardSite returns when the server's system identifier is another one, or ctx ends.
func (a *app) guardSite(ctx context.Context, systemID uint64) error {
	for {
		changed := a.wait()
		if srv := a.pg.Server(); srv.SystemID != 0 && srv.SystemID != systemID {
			return errOtherCluster
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
