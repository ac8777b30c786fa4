package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/mem"
	"github.com/walbaton/walbaton/leader/dcs/static"
)

// These tests run in synctest bubbles: real goroutines and timers, on a virtual clock.

// hooked is a DCS that asks before each call, by the Machine's name of the request.
type hooked struct {
	dcs.DCS
	before func(ctx context.Context, op Op) error // nil or a nil error: go on
}

func (h *hooked) ask(ctx context.Context, op Op) error {
	if h.before == nil {
		return nil
	}
	return h.before(ctx, op)
}

func (h *hooked) Read(ctx context.Context) (dcs.Reading, error) {
	if err := h.ask(ctx, OpRead); err != nil {
		return dcs.Reading{}, err
	}
	return h.DCS.Read(ctx)
}

func (h *hooked) Wait(ctx context.Context, since dcs.Reading) error {
	if err := h.ask(ctx, OpWatch); err != nil {
		return err
	}
	return h.DCS.Wait(ctx, since)
}

func (h *hooked) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	op := OpClaim
	if l.Epoch != 0 {
		op = OpRenew
	}
	if err := h.ask(ctx, op); err != nil {
		return dcs.Lease{}, err
	}
	return h.DCS.Claim(ctx, l)
}

func (h *hooked) Release(ctx context.Context, l dcs.Lease) error {
	if err := h.ask(ctx, OpRelease); err != nil {
		return err
	}
	return h.DCS.Release(ctx, l)
}

func (h *hooked) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := h.ask(ctx, OpAnnounce); err != nil {
		return err
	}
	return h.DCS.Announce(ctx, member, value, ttl)
}

// hang blocks until the request's context ends.
func hang(ctx context.Context, what ...Op) func(context.Context, Op) error {
	return func(ctx context.Context, op Op) error {
		for _, w := range what {
			if w == op {
				<-ctx.Done()
				return ctx.Err()
			}
		}
		return nil
	}
}

// cluster is a mem scope in which n1 leads and n2 streams.
func cluster() *mem.Server {
	s := mem.New(time.Now)
	s.Put("initialize", fmt.Sprint(testSystem))
	s.Put("members/n1", memberKey("n1", "primary", ""))
	s.Put("members/n2", memberKey("n2", "replica", `,"replication_state":"streaming"`))
	s.Put("leader", "n1")
	return s
}

func newElector(t *testing.T, d dcs.DCS, o Options) *Elector {
	t.Helper()
	e, err := New(d, o)
	if err != nil {
		t.Fatal(err)
	}
	e.Announce(goodRecord(o.Self))
	return e
}

// runner runs an elector whose work ends when its context does, and says what happened.
type runner struct {
	*Elector
	stop  context.CancelFunc
	begun chan Term
	ended chan error // cause of each ended term
	done  chan error // what Run returned
}

func start(t *testing.T, e *Elector) *runner {
	ctx, cancel := context.WithCancel(t.Context())
	r := &runner{Elector: e, stop: cancel, begun: make(chan Term, 100), ended: make(chan error, 100), done: make(chan error, 1)}
	go func() {
		r.done <- e.Run(ctx, func(ctx context.Context, term Term) error {
			r.begun <- term
			<-ctx.Done()
			r.ended <- context.Cause(ctx)
			return ctx.Err()
		})
	}()
	return r
}

func (r *runner) finish(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunTakesAndGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := cluster()
		registry := prometheus.NewRegistry()
		e := newElector(t, s.Client(), Options{Self: "n1", Metrics: registry})
		changed := e.Changed()
		r := start(t, e)
		term := <-r.begun
		<-changed
		if term.Choice.Rule != RulePolicy || term.View.Cluster.Leader != "n1" {
			t.Errorf("term %+v", term.Choice)
		}
		time.Sleep(time.Minute)
		st := r.Status()
		if !st.Holding || st.Epoch != term.Epoch || st.Holder != "n1" || st.Silent || st.Error != "" || time.Since(st.AnsweredAt) > 5*time.Second {
			t.Errorf("status %+v", st)
		}
		if v, err := r.Read(t.Context()); err != nil || v.Records["n1"].Holder.Term != term.Epoch {
			t.Errorf("read: %+v, %v", v.Records["n1"], err)
		}
		if v, ok := r.View(); !ok || v.Baton.Holder != "n1" || v.Records["n1"].Holder.Rule != RulePolicy {
			t.Errorf("view: %+v, %v", v.Records["n1"], ok)
		}
		s.Put("leader", "n2")
		time.Sleep(time.Minute)
		if got := metric(t, registry, "walbaton_leader_changes_total", ""); got != 1 {
			t.Errorf("walbaton_leader_changes_total %v, want 1", got)
		}
		r.finish(t)
		if cause := <-r.ended; cause != ErrStopped {
			t.Errorf("cause %v", cause)
		}
		got, err := s.Client().Read(t.Context())
		if err != nil || got.Baton.Held() || len(got.Records) != 0 {
			t.Errorf("afterwards: baton %+v, records %v, %v", got.Baton, got.Records, err)
		}
		if ends := metric(t, registry, "walbaton_terms_total", "stopped"); ends != 1 {
			t.Errorf("stopped %v", ends)
		}
		if err := e.Run(t.Context(), nil); err == nil {
			t.Error("a second Run is not refused")
		}
	})
}

// TestStatic: a single server without Patroni has the baton, always.
func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newElector(t, static.New("n1", ""), Options{Self: "n1"}))
		<-r.begun
		time.Sleep(time.Minute)
		if st := r.Status(); !st.Holding || st.Silent || len(r.ended) > 0 {
			t.Errorf("status %+v, %d terms ended", st, len(r.ended))
		}
		r.finish(t)
	})
}

// metric gives a value, of the series with that label value.
func metric(t *testing.T, r prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			fits := label == ""
			for _, l := range m.Label {
				fits = fits || l.GetValue() == label
			}
			if f.GetName() == name && fits {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

// TestP4HungRenewal: the end of the term comes from a timer set when the last good request
// was sent, whatever hangs since: the renewals, the log, or a driver that ignores its context.
func TestP4HungRenewal(t *testing.T) {
	const life = 12 * time.Second // TTL - Margin
	stuck := func(release chan struct{}, ops ...Op) func(context.Context, Op) error {
		return func(_ context.Context, op Op) error {
			for _, o := range ops {
				if o == op {
					<-release
					return errors.New("released")
				}
			}
			return nil
		}
	}
	for _, c := range []struct {
		name   string
		before func(release chan struct{}) func(context.Context, Op) error
		log    bool // the log hangs too
	}{
		{"renewal", func(chan struct{}) func(context.Context, Op) error { return hang(t.Context(), OpRenew) }, false},
		{"everything after the claim", func(chan struct{}) func(context.Context, Op) error {
			var claimed atomic.Bool
			return func(ctx context.Context, op Op) error {
				if claimed.Load() {
					<-ctx.Done()
					return ctx.Err()
				}
				claimed.Store(op == OpClaim)
				return nil
			}
		}, false},
		{"a driver that ignores its context", func(release chan struct{}) func(context.Context, Op) error { return stuck(release, OpRenew) }, false},
		{"the log", func(release chan struct{}) func(context.Context, Op) error { return hang(t.Context(), OpRenew) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				o := Options{Self: "n1"}
				if c.log {
					o.Log = slog.New(&stuckLog{release: release})
				}
				e := newElector(t, &hooked{cluster().Client(), c.before(release)}, o)
				r := start(t, e)
				<-r.begun
				began := time.Now()
				cause := <-r.ended
				if took := time.Since(began); took != life || cause != ErrExpired {
					t.Errorf("the term ended after %v with %v, want %v and %v", took, cause, life, ErrExpired)
				}
				close(release)
				r.finish(t)
			})
		})
	}
}

// stuckLog is a log whose reader has gone: every line blocks.
type stuckLog struct {
	slog.Handler
	release chan struct{}
}

func (l *stuckLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *stuckLog) Handle(context.Context, slog.Record) error {
	<-l.release
	return nil
}

// TestDeadlineCountsFromSending: the answer to a slow renewal moves the deadline to what it
// was when the renewal was sent, not when it was answered.
func TestDeadlineCountsFromSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var renewals atomic.Int32
		e := newElector(t, &hooked{cluster().Client(), func(ctx context.Context, op Op) error {
			if op != OpRenew {
				return nil
			}
			if renewals.Add(1) == 1 {
				time.Sleep(4 * time.Second) // sent at 5 s, answered at 9 s
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}, Options{Self: "n1"})
		r := start(t, e)
		<-r.begun
		began := time.Now()
		<-r.ended
		if took := time.Since(began); took != 17*time.Second {
			t.Errorf("the term ended after %v, want 5 s + 12 s", took)
		}
		r.finish(t)
	})
}

// TestReleaseWaitsForTheWork: nobody gets the baton while our work goes on and the lease
// lives; when the work takes longer, the lease runs out.
func TestReleaseWaitsForTheWork(t *testing.T) {
	for _, work := range []time.Duration{0, time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := cluster()
			n1, n2 := newElector(t, s.Client(), Options{Self: "n1"}), newElector(t, s.Client(), Options{Self: "n2"})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			begun, returned := make(chan time.Time, 1), make(chan time.Time, 1)
			all.Go(func() {
				err := n1.Run(ctx, func(ctx context.Context, _ Term) error {
					<-ctx.Done()
					if !errors.Is(context.Cause(ctx), ErrDemoted) {
						t.Errorf("cause %v", context.Cause(ctx))
					}
					time.Sleep(work)
					returned <- time.Now()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			r2 := start(t, n2)
			all.Go(func() { <-r2.begun; begun <- time.Now() })
			time.Sleep(3 * time.Second)
			moved := time.Now()
			s.Put("leader", "n2")
			taken := (<-begun).Sub(moved)
			want := work
			if work > 15*time.Second {
				want = 12200 * time.Millisecond // claimed at 0.2 s of 3 s, and 15 s long
			}
			if taken < want || taken > want+300*time.Millisecond {
				t.Errorf("work of %v: taken after %v, want %v", work, taken, want)
			}
			<-returned
			cancel()
			r2.finish(t)
			all.Wait()
		})
	}
}

// TestSettle: a changed leader key acts within a tenth of a second; another change needs
// two readings 200 ms apart.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := cluster()
		r1, r2 := start(t, newElector(t, s.Client(), Options{Self: "n1"})), start(t, newElector(t, s.Client(), Options{Self: "n2"}))
		<-r1.begun
		time.Sleep(2 * time.Second)

		at := time.Now()
		s.Put("leader", "n2")
		<-r2.begun
		if took := time.Since(at); took > 100*time.Millisecond {
			t.Errorf("a new leader took the baton after %v", took)
		}
		time.Sleep(2 * time.Second)

		at = time.Now()
		r := goodRecord("n2")
		r.Store = false
		r2.Announce(r)
		<-r2.ended
		if took := time.Since(at); took < 200*time.Millisecond || took > time.Second {
			t.Errorf("a silent store ended the term after %v", took)
		}
		r1.finish(t)
		r2.finish(t)
	})
}

// TestLostLease: somebody deletes the keys. The next reading shows it, and the term ends.
func TestLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := cluster()
		var lease dcs.Lease
		d := &spy{DCS: s.Client(), lease: &lease}
		r := start(t, newElector(t, d, Options{Self: "n1"}))
		<-r.begun
		time.Sleep(time.Second)
		if err := s.Client().Release(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		if cause := <-r.ended; cause != ErrLost || time.Since(at) > 200*time.Millisecond {
			t.Errorf("ended after %v with %v", time.Since(at), cause)
		}
		r.finish(t)
	})
}

type spy struct {
	dcs.DCS
	lease *dcs.Lease
}

func (s *spy) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	got, err := s.DCS.Claim(ctx, l)
	if err == nil {
		*s.lease = got
	}
	return got, err
}

// TestWorkThatReturns: it gives the baton back, is logged, and is not called again at once.
func TestWorkThatReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		registry := prometheus.NewRegistry()
		e := newElector(t, cluster().Client(), Options{Self: "n1", Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		calls := 0
		err := e.Run(ctx, func(context.Context, Term) error {
			calls++
			return errors.New("no such folder")
		})
		if err != nil || calls < 4 || calls > 7 {
			t.Errorf("called %d times in 30 s, %v", calls, err)
		}
		if got := metric(t, registry, "walbaton_terms_total", "released"); int(got) != calls {
			t.Errorf("released %v of %d: %s", got, calls, log.String())
		}
		if n := strings.Count(log.String(), "no such folder"); n != calls {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}

type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "member name"},
		{Options{Self: "n1", Every: 12 * time.Second}, "every 12s + margin 3s must be below ttl 15s"},
		{Options{Self: "n1", TTL: 8 * time.Second}, "every 5s + margin 3s must be below ttl 8s"},
		{Options{Self: "n1", TTL: -1}, "above zero"},
		{Options{Self: "n1", Margin: time.Second}, "margin 1s must be above 1s"},
		{Options{Self: "n1", Settle: 5 * time.Second}, "settle 5s must be below every 5s"},
		{Options{Self: "n1", Policy: "fastest"}, `policy "fastest"`},
	} {
		if _, err := New(cluster().Client(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%+v): %v, want %q", c.o, err, c.want)
		}
	}
	registry := prometheus.NewRegistry()
	o := Options{Self: "n1", Metrics: registry}
	if _, err := New(cluster().Client(), o); err != nil {
		t.Error(err)
	}
	if _, err := New(cluster().Client(), o); err == nil {
		t.Error("the same metrics twice are not refused")
	}
}
