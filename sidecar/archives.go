package main

import (
	"context"
	"errors"
	"path"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
)

// oneStore is an archive's store, and whether it is proven that it keeps the first writer's object.
type oneStore struct {
	name     string // of one of several
	required bool
	store    store.Store
	proven   atomic.Bool
}

// stallOfSeveral is stall_timeout where there are several archives: one that hangs is to be known as silent soon, for the others wait for it until then.
const stallOfSeveral = 10 * time.Second

// openStores opens all that the configuration names.
func (a *app) openStores(ctx context.Context, metrics *store.Metrics) error {
	var bandwidth *store.Bandwidth // of all together
	if a.cfg.Bandwidth > 0 {
		bandwidth = store.NewBandwidth(a.cfg.Bandwidth)
	}
	if a.cfg.Archives == nil {
		s, err := openStore(ctx, a.cfg.Archive.URL, a.cfg, metrics, bandwidth, a.log)
		a.stores = []*oneStore{{required: true, store: s}}
		return err
	}
	for _, one := range a.cfg.Archives {
		cfg := a.cfg.ofArchive(one)
		cfg.StallTimeout = min(cfg.StallTimeout, stallOfSeveral)
		s, err := openStore(ctx, one.URL, cfg, metrics, bandwidth, a.log)
		if err != nil {
			return err
		}
		a.stores = append(a.stores, &oneStore{name: one.Name, required: one.Required, store: s})
	}
	return nil
}

// main is the store of the only archive, or of the first of several.
func (a *app) main() store.Store { return a.stores[0].store }

// openArchive proves a store, and opens the archive in it, or begins it.
func (a *app) openArchive(ctx context.Context, s *oneStore, srv archiver.Server, q *queue.Queue) (*archiver.Archive, error) {
	if !s.proven.Load() {
		largest := int64(srv.SegmentSize) + int64(srv.SegmentSize)/8 + seal.HeaderRange
		if err := store.Prove(ctx, s.store, path.Join(a.cfg.Scope, "probe", a.cfg.Name), largest); err != nil {
			return nil, steady(err)
		}
		s.proven.Store(true)
		a.log.Info("the archive keeps the first writer's object: proven", "archive", s.store.String())
	}
	id := archiver.Identity{Scope: a.cfg.Scope, Member: a.cfg.Name, Software: version()}
	return archiver.Prepare(ctx, s.store, id, srv, q, a.scope, a.keys...)
}

// newArchiver opens the archives and makes what works on them.
func (a *app) newArchiver(ctx context.Context, srv archiver.Server, q *queue.Queue, o archiver.Options) (*archiver.Archiver, error) {
	if len(a.stores) == 1 {
		opened, err := a.openArchive(ctx, a.stores[0], srv, q)
		if err != nil {
			return nil, err
		}
		return archiver.New(opened, q, a.scope, a.pg.Server, o)
	}
	var targets []archiver.Target
	for _, s := range a.stores {
		targets = append(targets, archiver.Target{Name: s.name, Required: s.required, Open: func(ctx context.Context) (*archiver.Archive, error) {
			now := a.pg.Server() // one that is opened later begins with what the server writes then
			if now.SystemID != srv.SystemID {
				return nil, errOtherCluster
			}
			opened, err := a.openArchive(ctx, s, now, q)
			if err != nil {
				return nil, errors.New(archiver.Reason(s.store, err))
			}
			return opened, nil
		}})
	}
	return archiver.NewSeveral(ctx, targets, q, a.scope, a.pg.Server, o)
}

// archivesCollector is stateCollector for each of several archives; with one it has nothing to say.
type archivesCollector struct {
	a                                   *app
	up, lacks, filled, differ, frontier *prometheus.Desc
}

func newArchivesCollector(a *app) *archivesCollector {
	d := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("walbaton_"+name, help, []string{"archive"}, nil)
	}
	return &archivesCollector{
		a:        a,
		up:       d("archive_up", "Of several archives: 1 when this one answers."),
		lacks:    d("archive_lacking_segments", "Of several archives: segments that this one lacks, and another one or this node has."),
		filled:   d("archive_filled_files_total", "Of several archives: files that this node copied to this one from another one."),
		differ:   d("archive_different_files", "Of several archives: files that this one has with another content than another one."),
		frontier: d("archive_frontier_lsn_bytes", "Of several archives: end of the last segment up to which this one has no hole, as this node knows it."),
	}
}

// Describe implements prometheus.Collector.
func (c *archivesCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.lacks, c.filled, c.differ, c.frontier} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *archivesCollector) Collect(ch chan<- prometheus.Metric) {
	if len(c.a.stores) < 2 {
		return
	}
	known := map[string]archiver.TargetState{}
	if s, _ := c.a.current(); s != nil {
		for _, t := range s.archiver.State().Archives {
			known[t.Name] = t
		}
	}
	for _, s := range c.a.stores {
		t := known[s.name]
		up := 0.0
		if t.Answers {
			up = 1
		}
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, s.name)
		}
		send(c.up, prometheus.GaugeValue, up)
		send(c.lacks, prometheus.GaugeValue, float64(t.Lacks))
		send(c.filled, prometheus.CounterValue, float64(t.Filled))
		send(c.differ, prometheus.GaugeValue, float64(t.Differs))
		send(c.frontier, prometheus.GaugeValue, float64(t.Frontier))
	}
}
