package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// RetentionConfig is what the holder of the baton expires by itself.
type RetentionConfig struct {
	Mode           string        // off, standby-only
	Keep           time.Duration // 0: nothing is expired by time
	WithoutBackups bool
	Every          time.Duration // 0: a day, with standby-only an hour
}

// retentionKey takes the word of retention.mode, too: retention: standby-only.
const retentionKey = "retention"

const (
	retentionOff     = "off"
	retentionStandby = "standby-only"
)

func (r RetentionConfig) on() bool { return r.Keep > 0 || r.Mode == retentionStandby }

// check refuses what cannot work together. alone says that no other member's record is read.
func (r RetentionConfig) check(alone bool) error {
	switch {
	case r.Mode == retentionStandby && r.Keep > 0:
		return withHint(configError("retention", "standby-only keeps what the members need and no time, so retention.keep cannot be honoured beside it"), "leave one of them out")
	case r.Mode == retentionStandby && alone:
		return withHint(configError("retention", "standby-only needs the restart points of all members, and with dcs.kind static or rest nobody tells them"), "use retention.keep, or walbaton expire")
	case r.WithoutBackups && !r.on():
		return withHint(configError("retention.without_backups", "it says how retention.keep counts, and nothing is to be kept for a time"), "give retention.keep too, such as 14d")
	case r.Every > 0 && r.Every < time.Second:
		return withHint(configError("retention.every", "%v is too often", r.Every), "leave it out: once a day")
	}
	return nil
}

func (r RetentionConfig) every() time.Duration {
	switch {
	case r.Every > 0:
		return r.Every
	case r.Mode == retentionStandby:
		return time.Hour
	}
	return 24 * time.Hour
}

// memberGrace is how long the restart point of a member that has gone counts on: it may come back.
const memberGrace = 24 * time.Hour

// retention is the state of it that outlives a term.
type retention struct {
	deleted, bytes prometheus.Counter
	lastRun        prometheus.Gauge
	failed         prometheus.Gauge

	mu   sync.Mutex
	last time.Time // when it was done here
	said string    // why nothing can be expired, said once; "" when it can

	// Only the present term's goroutine uses what follows.
	members map[string]farthest // the restart points that were seen
	grace   time.Duration
}

type farthest struct {
	at   wal.LSN
	seen time.Time
}

func newRetention(r prometheus.Registerer) *retention {
	n := &retention{
		deleted: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_expired_objects_total", Help: "Objects that expire deleted from the archive."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_expired_bytes_total", Help: "Bytes of the objects that expire deleted from the archive."}),
		lastRun: prometheus.NewGauge(prometheus.GaugeOpts{Name: "walbaton_retention_last_run_timestamp_seconds", Help: "When this node last did what retention asks for; 0: not since it was started."}),
		failed:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "walbaton_retention_failed", Help: "1 when the last try of retention did not get through."}),
		members: map[string]farthest{}, grace: memberGrace,
	}
	r.MustRegister(n.deleted, n.bytes, n.lastRun, n.failed)
	return n
}

func (r *retention) count(done archiver.Expired) {
	r.deleted.Add(float64(done.Deleted))
	r.bytes.Add(float64(done.Bytes))
}

// retain does what retention asks for, as long as this term lasts. The floors say when it was done last, whoever did it.
func (a *app) retain(ctx context.Context) {
	cfg := a.cfg.Retention
	if !cfg.on() {
		return
	}
	every := cfg.every()
	wait := rand.N(min(every/10, 10*time.Minute) + 1) // many clusters may share a store
	for sleep(ctx, wait) == nil {
		wait = min(every/4, time.Minute)
		s, _ := a.current()
		if s == nil || !a.ships() {
			continue
		}
		if err := s.archiver.FloorsRaised(ctx); err != nil {
			continue // and another node may have done it a moment ago
		}
		if left := a.retention.due(s, every); left > 0 {
			wait = left
			continue
		}
		err := a.tenure.within(ctx, func(ctx context.Context, epoch uint64) error { return a.retainOnce(ctx, s, epoch) })
		if ctx.Err() != nil {
			return
		}
		wait = every
		if err != nil {
			wait = min(every, time.Hour)
		} else {
			a.retention.lastRun.SetToCurrentTime()
		}
		a.tellRetention(err)
	}
}

// due gives how long to wait until the next run is.
func (r *retention) due(s *site, every time.Duration) time.Duration {
	last, _ := r.state()
	for _, f := range s.archiver.Archive().Floors() {
		if f.By == retentionBy && f.Raised.After(last) {
			last = f.Raised
		}
	}
	return time.Until(last.Add(every))
}

// retentionBy is who raised a floor that nobody asked for.
const retentionBy = "retention"

func (a *app) tellRetention(err error) {
	r, why := a.retention, ""
	r.failed.Set(0)
	if err != nil {
		why = err.Error()
	}
	if err != nil && !errors.Is(err, errBlocked) {
		r.failed.Set(1)
	}
	r.mu.Lock()
	said := r.said
	if r.said = why; err == nil {
		r.last = time.Now()
	}
	r.mu.Unlock()
	if err != nil && why != said {
		a.log.Warn("retention expires nothing", "why", why)
	}
}

// state gives when it was done here last, and what keeps it from being done, "" when nothing does.
func (r *retention) state() (last time.Time, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.said
}

// errBlocked means that standby-only has to wait for a member.
var errBlocked = errors.New("standby-only waits")

func (a *app) retainOnce(ctx context.Context, s *site, epoch uint64) error {
	cfg := a.cfg.Retention
	v, err := a.elector.Read(ctx)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	needs, unknown := restartPoints(v, s.archiver.Archive().SegmentSize())
	needs = a.retention.remember(needs, time.Now())
	o := archiver.ExpireOptions{WithoutBackups: cfg.WithoutBackups, Needs: needs, Hold: true}
	if cfg.Mode == retentionStandby {
		at, member := lowest(needs)
		switch {
		case len(unknown) > 0:
			return fmt.Errorf("retention: %w: the restart point of %s is not known (archive_cleanup_command = 'walbaton-wal cleanup %%r' tells it there)", errBlocked, listed(unknown))
		case member == "":
			return fmt.Errorf("retention: %w: no member is known", errBlocked)
		}
		o.Before, o.WithoutBackups = archiver.Cutoff{LSN: at}, true
	} else {
		o.Before = archiver.Cutoff{Time: time.Now().Add(-cfg.Keep)}
	}
	steps, err := a.expireAll(ctx, s, o, epoch, expireRequest{By: retentionBy})
	if err != nil {
		return err
	}
	for _, st := range steps {
		if st.Error != "" {
			return errors.New(st.Error)
		}
	}
	return nil
}

// remember keeps the restart points of members that have gone for a while, and adds them to those of the others.
func (r *retention) remember(needs map[string]wal.LSN, now time.Time) map[string]wal.LSN {
	for m, at := range needs {
		r.members[m] = farthest{at, now}
	}
	all := map[string]wal.LSN{}
	for m, f := range r.members {
		if now.Sub(f.seen) < r.grace {
			all[m] = f.at
		} else {
			delete(r.members, m)
		}
	}
	return all
}
