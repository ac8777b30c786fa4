package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/sidecar/web"
	"github.com/walbaton/walbaton/sidecar/wiring"
)

// app is the running sidecar: the only place that knows both leader and archiver.
//
//	postgres ─┐                          ┌─▶ elector.Announce (our record)
//	elector ──┴─▶ scope ─▶ archiver ─────┤
//	                 ▲                   └─▶ socket, web
//	elector.Run ── lead ── archiver.Lead
//	                 └──── tenure ◀── socket (expire), retain
type app struct {
	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry  // of what lives as long as the program
	metrics  prometheus.Registerer // puts there what has the labels scope and member
	fetches  *prometheus.CounterVec
	stores   []*oneStore // of the archives; usually there is one
	elector  *leader.Elector
	scope    *scope
	pg       localServer
	watch    func(ctx context.Context, wake func()) error // of pg_wal; nil: the kernel's
	web      *web.Server
	ask      asker // of the other sidecars
	socket   *socketServer
	restorer *archiver.Restorer
	keeper   *keeper
	pace     pace // of WAL
	rates    rates
	verified verified

	chronicle *chronicle
	peers     peers

	keys []seal.Identity // for what is encrypted; none as a rule

	tenure    tenure     // our term, for what is asked for from outside
	retention *retention // what is deleted without being asked for
	expiring  sync.Mutex // held by who deletes

	mu      sync.Mutex
	site    *site         // nil while the archive is not open
	waiting string        // why it is not
	changed chan struct{} // closed and replaced when the server or the site is another one
	told    told          // by archive_cleanup_command
}

// localServer is the PostgreSQL beside this sidecar: *postgres.
type localServer interface {
	Run(ctx context.Context) // reads again and again, until ctx ends
	Read(ctx context.Context) archiver.Server
	Server() archiver.Server // the last reading
	Commands() commands
}

func runSidecar(ctx context.Context, cfg Config, log *slog.Logger) error {
	a, closers, err := newApp(ctx, cfg, log)
	defer closeAll(closers, log)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// closeAll closes in the opposite order of opening.
func closeAll(closers []func() error, log *slog.Logger) {
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i](); err != nil {
			log.Debug("close", "error", err)
		}
	}
}

// newApp opens all that can fail at once: what does is wrong in the configuration, and fatal.
func newApp(ctx context.Context, cfg Config, log *slog.Logger) (a *app, closers []func() error, err error) {
	a = blankApp(cfg, log)
	if a.ask, err = cfg.Web.asker(); err != nil {
		return nil, closers, err
	}
	if a.web, err = listenWeb(ctx, cfg, log); err != nil {
		return nil, closers, err
	}
	closers = append(closers, a.web.Close)
	if a.socket, err = listenSocket(cfg.Socket, log); err != nil {
		return nil, closers, err
	}
	closers = append(closers, a.socket.Close)
	if err := a.openStores(ctx, store.NewMetrics(a.metrics)); err != nil {
		return nil, closers, err
	}
	d, err := openDCS(cfg)
	if err != nil {
		return nil, closers, err
	}
	if c, ok := d.(io.Closer); ok {
		closers = append(closers, c.Close)
	}
	if err := a.join(d); err != nil {
		return nil, closers, err
	}
	a.pg = newPostgres(cfg, log, a.serverChanged)
	if a.keys, err = cfg.keys(); err != nil {
		return nil, closers, err
	}
	cfg.warnOfOpenKeys(log)
	if a.restorer, err = a.newRestorer(ctx); err != nil {
		return nil, closers, err
	}
	return a, closers, nil
}

// blankApp is an app that nothing was opened for yet.
func blankApp(cfg Config, log *slog.Logger) *app {
	a := &app{cfg: cfg, log: log, registry: prometheus.NewRegistry(), waiting: "the sidecar has just started", changed: make(chan struct{})}
	a.metrics = labelled(cfg, a.registry)
	a.retention, a.fetches, a.chronicle = newRetention(a.metrics), newFetches(a.metrics), newChronicle(time.Now())
	a.keeper = &keeper{dir: cfg.KeepDir, wait: cfg.StoppedWait, log: log, now: time.Now}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(), newStateCollector(a), newArchivesCollector(a), newVerifyCollector(a))
	return a
}

// join makes this node's part in the election.
func (a *app) join(d dcs.DCS) (err error) {
	a.elector, err = leader.New(d, leader.Options{Self: a.cfg.Name, TTL: a.cfg.TTL, Every: a.cfg.Renewal, Margin: a.cfg.Margin,
		Policy: leader.Policy(a.cfg.Policy), MaxLag: uint64(a.cfg.MaxLag), Log: a.log, Metrics: a.metrics})
	a.scope = &scope{elector: a.elector, lens: &wiring.Lens{NoDCS: a.cfg.static() || a.cfg.rest(), Alone: a.cfg.static()},
		podsStay: a.cfg.Patroni.DCS.Kind == "kubernetes"}
	return err
}

// Run works until ctx ends; everything it started has returned then.
func (a *app) Run(ctx context.Context) error {
	n := notifier{a.log}
	a.log.Info("the sidecar runs", "member", a.cfg.Name, "scope", a.cfg.Scope, "archive", a.main().String(), "encrypted_to", len(a.cfg.encryptTo()), "socket", a.cfg.Socket, "listen", a.web.Address())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return a.web.Serve(ctx, web.Sources{Gatherer: prometheus.GathererFunc(a.gather), Ready: a.ready, Status: func() any { return a.Status() },
			Cluster: func(ctx context.Context) any { return a.clusterStatus(ctx) }, Changed: a.chronicle.wait})
	})
	g.Go(func() error { return a.socket.Serve(ctx, a) })
	g.Go(func() error { a.pg.Run(ctx); return nil })
	g.Go(func() error { return a.elector.Run(ctx, a.lead) })
	g.Go(func() error { return a.announce(ctx) })
	g.Go(func() error { return a.keepHistories(ctx) })
	g.Go(func() error { return a.restorer.Prefetch(ctx) })
	g.Go(func() error { return a.tendSites(ctx) })
	g.Go(func() error { return a.pinClones(ctx) })
	g.Go(func() error { return a.verifySites(ctx) })
	g.Go(func() error { n.Watch(ctx, a.alive); return nil })
	n.Ready()
	<-ctx.Done()
	n.Stopping()
	a.log.Info("the sidecar stops")
	defer a.keeper.over()
	return g.Wait()
}

// alive says that no lock is stuck: it returns at all.
func (a *app) alive() bool {
	a.current()
	return true
}

// current gives the site of the cluster this server belongs to, or why there is none.
func (a *app) current() (*site, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.site, a.waiting
}

// wait gives a channel that is closed at the next change of server or site.
func (a *app) wait() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// ring wakes those who wait. The caller holds mu.
func (a *app) ring() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// serverChanged is called after a reading of the local PostgreSQL that differs from the one before.
func (a *app) serverChanged() {
	if a.pg.Server().State != archiver.ServerStopped {
		a.keeper.over()
	}
	a.mu.Lock()
	a.ring()
	s := a.site
	a.mu.Unlock()
	if s != nil {
		s.archiver.Wake()
	}
}

// lead is the work of a term: the meeting point of leader and archiver.
func (a *app) lead(ctx context.Context, t leader.Term) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	within, end := a.tenure.begin(ctx, t.Epoch)
	defer end()
	tasks.Go(func() { a.retain(within) })
	for {
		changed := a.wait()
		if s, _ := a.current(); s != nil && a.ships() {
			within, cancel := s.bound(ctx)
			stop := a.whileShips(within, cancel)
			err := s.archiver.Lead(within, t.Epoch, wiring.SetOf(t.Choice.Errand))
			cancel()
			stop()
			if ctx.Err() != nil || err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// ships says whether a term is of use: where there is no baton every node is in one, and only a running primary ships. The
// others do what those without the baton do.
func (a *app) ships() bool {
	return !a.scope.lens.NoDCS || a.pg.Server().State == archiver.ServerPrimary
}

// whileShips calls cancel when the server is not a running primary any more, where that counts. The function it gives waits
// until it has looked for the last time.
func (a *app) whileShips(ctx context.Context, cancel func()) (wait func()) {
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			changed := a.wait()
			if !a.ships() {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return watch.Wait
}

// announce keeps our record true, looking at most five times a second.
func (a *app) announce(ctx context.Context) error {
	warner := diskWarner{log: a.log}
	for {
		a.lookAtDisk(&warner)
		a.lookAround(time.Now())
		changed, elected := a.wait(), a.elector.Changed()
		var moved <-chan struct{}
		if s, _ := a.current(); s != nil {
			moved = s.archiver.Changed()
		}
		a.elector.Announce(a.record())
		if sleep(ctx, 200*time.Millisecond) != nil {
			return nil
		}
		select {
		case <-changed:
		case <-elected:
			if s, _ := a.current(); s != nil {
				s.archiver.Wake()
			}
		case <-moved:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// record is what the others are told.
func (a *app) record() leader.Record {
	base := leader.Record{Member: a.cfg.Name, Policy: leader.Policy(a.cfg.Policy), MaxLag: uint64(a.cfg.MaxLag), Software: version(), Address: a.web.Address(),
		Tag: leader.TagOf(a.cfg.Patroni.Tags), Restart: a.restartPoint(a.pg.Server())}
	s, _ := a.current()
	if free, err := diskFree(a.pgWAL()); err == nil {
		if srv := a.pg.Server(); s == nil || !s.answers() || free < tight*uint64(srv.SegmentSize) {
			base.Free = roundFree(free)
		}
	}
	if s == nil {
		return wiring.Record(base, a.pg.Server(), wal.History{}, nil)
	}
	st := s.archiver.State()
	return wiring.Record(base, a.pg.Server(), s.archiver.OwnHistory(), &st)
}

// lookAtDisk keeps the pace of WAL, and warns when the disk fills.
func (a *app) lookAtDisk(w *diskWarner) {
	srv := a.pg.Server()
	a.pace.note(time.Now(), srv.Flush)
	s, _ := a.current()
	free, err := diskFree(a.pgWAL())
	if s == nil || err != nil {
		return
	}
	st := s.archiver.State()
	w.look(!st.StoreAnswers, st.Misses.Len(), srv.SegmentSize, free, a.pace.perSecond())
}

// gather joins the metrics of the program with those of the present site.
func (a *app) gather() ([]*dto.MetricFamily, error) {
	all := prometheus.Gatherers{a.registry}
	if s, _ := a.current(); s != nil {
		all = append(all, s.registry)
	}
	return all.Gather()
}

// ready says in one sentence why a push would not be answered well just now.
func (a *app) ready() error {
	s, why := a.current()
	if s == nil {
		return errors.New(why)
	}
	switch ok, why := s.archiver.StoreAnswers(); {
	case !ok:
		return errors.New("the archive does not answer: " + why)
	case why != "":
		return errors.New("a required archive does not answer, and pushes wait for it: " + why)
	}
	if st := a.elector.Status(); !a.scope.lens.NoDCS && st.Silent {
		return errors.New("the DCS does not answer: " + withRights(st.Error))
	} else if st.Refused != "" {
		return errors.New("the DCS refuses a request: " + withRights(st.Refused))
	}
	return nil
}

func (a *app) pgWAL() string { return filepath.Join(a.cfg.Postgres.DataDir, "pg_wal") }
