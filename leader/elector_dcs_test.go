package leader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What an Elector costs the DCS, what it does without one, and what it says.

// TestQuiet counts what an idle cluster costs the DCS, and what a busy one may.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := cluster()
		count := map[Op]int{}
		var mu sync.Mutex
		e := newElector(t, &hooked{s.Client(), func(_ context.Context, op Op) error {
			mu.Lock()
			defer mu.Unlock()
			count[op]++
			return nil
		}}, Options{Self: "n1"})
		r := start(t, e)
		<-r.begun
		time.Sleep(10 * time.Second)
		version := func() uint64 {
			got, err := s.Client().Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return got.Records["n1"].Version
		}
		reset := func() {
			mu.Lock()
			defer mu.Unlock()
			clear(count)
		}
		before := version()
		reset()
		time.Sleep(time.Minute)
		mu.Lock()
		if count[OpRead] > 20 || count[OpAnnounce] > 13 || count[OpRenew] > 13 || count[OpClaim] > 0 {
			t.Errorf("an idle minute: %v", count)
		}
		mu.Unlock()
		if version() != before {
			t.Error("an idle minute wrote the record")
		}

		reset()
		rec := goodRecord("n1")
		for no := range uint64(600) {
			rec.Has = rec.Has.Add(Range{1, no, no})
			r.Announce(rec)
			time.Sleep(100 * time.Millisecond)
		}
		mu.Lock()
		if count[OpAnnounce] > 61 || count[OpAnnounce] < 59 {
			t.Errorf("a busy minute wrote %d times", count[OpAnnounce])
		}
		mu.Unlock()
		r.finish(t)
	})
}

// TestStopsInTime: with a DCS that does not answer any request, Run returns within three seconds of the stop, whatever
// was under way.
func TestStopsInTime(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, 2 * time.Second, 4 * time.Second, 7 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var gone atomic.Bool
			e := newElector(t, &hooked{cluster().Client(), func(ctx context.Context, _ Op) error {
				if !gone.Load() {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}}, Options{Self: "n1"})
			ctx, cancel := context.WithCancel(t.Context())
			begun, done := make(chan bool), make(chan error)
			go func() {
				done <- e.Run(ctx, func(ctx context.Context, _ Term) error {
					begun <- true
					<-ctx.Done()
					time.Sleep(UploadGrace)
					return nil
				})
			}()
			<-begun
			gone.Store(true)
			time.Sleep(after)
			stopped := time.Now()
			cancel()
			select {
			case err := <-done:
				if took := time.Since(stopped); err != nil || took > 3*time.Second {
					t.Errorf("%v after the DCS went away: Run took %v to stop, error %v", after, took, err)
				}
			case <-begun:
				t.Error("a term began without a DCS")
				<-done
			}
		})
	}
}

// TestSilent: the status says when the DCS does not answer, and when it does again.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		e := newElector(t, &hooked{cluster().Client(), func(context.Context, Op) error {
			if down.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}, Options{Self: "n1"})
		if st := e.Status(); !st.Silent || st.Holding {
			t.Errorf("before Run: %+v", st)
		}
		r := start(t, e)
		<-r.begun
		down.Store(true)
		time.Sleep(6 * time.Second)
		if st := r.Status(); !st.Silent || st.Error != "connection refused" || !st.Holding {
			t.Errorf("down: %+v", st)
		}
		if cause := <-r.ended; cause != ErrExpired {
			t.Errorf("cause %v", cause)
		}
		if _, err := r.Read(t.Context()); err == nil {
			t.Error("Read does not say that the DCS is down")
		}
		down.Store(false)
		<-r.begun
		if st := r.Status(); st.Silent {
			t.Errorf("up again: %+v", st)
		}
		r.finish(t)
	})
}

// TestLogOneLineATerm: a term is one line when it begins and one when it is over, and they say why.
func TestLogOneLineATerm(t *testing.T) {
	errand := Choice{Member: "n1", Rule: RuleErrand, Why: "it has 1 segment that n2 lacks", Errand: RangesOf(Range{1, 7, 7})}
	for _, tc := range []struct {
		c     Choice
		cause error
		err   error
		want  []string
	}{
		{Choice{Member: "n1", Rule: RulePolicy, Why: "it is the leader"}, fmt.Errorf("%w: n2 is next: it is the leader", ErrDemoted), context.Canceled, []string{
			`level=INFO msg="took the baton" term=7 rule=policy why="it is the leader"`,
			`level=INFO msg="gave the baton back" term=7 why="n2 is next: it is the leader"`}},
		{errand, fmt.Errorf("%w: n2 is next: it is the leader", ErrErrandDone), nil, []string{
			`level=INFO msg="took the baton" term=7 rule=errand why="it has 1 segment that n2 lacks" errand=` + errand.Errand.String(),
			`level=INFO msg="gave the baton back" term=7 why="the errand is done: n2 is next: it is the leader"`}},
		{errand, fmt.Errorf("%w: n2 is next: it is the leader", ErrErrandVain), nil, []string{"",
			`level=WARN msg="gave the baton back" term=7 why="the errand is given up, for nothing more of it could be shipped in a while: n2 is next: it is the leader"`}},
		{errand, ErrExpired, ErrExpired, []string{"", `level=WARN msg="lost the baton" term=7 why="the lease could not be renewed in time"`}},
		{errand, ErrLost, nil, []string{"", `level=WARN msg="lost the baton" term=7 why="the DCS says that the lease has ended"`}},
		{errand, ErrStopped, nil, []string{"", `level=INFO msg="gave the baton back" term=7 why="the sidecar stops"`}},
		{errand, ErrReleased, errors.New("no such folder"), []string{"",
			`level=ERROR msg="gave the baton back: the work failed" term=7 why="the work returned by itself" error="no such folder"`}},
	} {
		var out lines
		e := newElector(t, cluster().Client(), Options{Self: "n1", Log: slog.New(slog.NewTextHandler(&out, nil))})
		r := &run{Elector: e, ctx: t.Context()}
		r.logBegin(Term{Epoch: 7, Choice: tc.c})
		r.logEnd(Term{Epoch: 7}, tc.cause, tc.err)
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		if !errors.Is(tc.cause, context.Canceled) {
			t.Errorf("%v is no context.Canceled: a request that it cuts short would count as failed", tc.cause)
		}
		if len(got) != 2 {
			t.Fatalf("%v: got %d lines, want 2: %q", tc.cause, len(got), got)
		}
		for i, want := range tc.want {
			if _, line, _ := strings.Cut(got[i], " "); want != "" && line != want {
				t.Errorf("%v: got  %s\nwant %s", tc.cause, line, want)
			}
		}
	}
}

// TestRefusalIsAnAnswer: a DCS that lets us read and not write answers. It is told of once, with the request that it refuses, and it is
// no silent DCS, in which a primary would ship without the baton.
func TestRefusalIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		var granted atomic.Bool
		d := &hooked{DCS: cluster().Client(), before: func(_ context.Context, op Op) error {
			if op == OpClaim && !granted.Load() {
				return fmt.Errorf("claim baton: %w: the role lacks readwrite", fs.ErrPermission)
			}
			return nil
		}}
		e := newElector(t, d, Options{Self: "n1", Log: slog.New(slog.NewTextHandler(&out, nil))})
		r := start(t, e)
		time.Sleep(time.Minute)
		if st := e.Status(); st.Silent || st.Error != "" || !strings.Contains(st.Refused, "the role lacks readwrite") {
			t.Errorf("refused: %+v", st)
		}
		granted.Store(true)
		time.Sleep(time.Minute)
		if st := e.Status(); st.Refused != "" || !st.Holding {
			t.Errorf("granted: %+v", st)
		}
		r.finish(t)
		if n := strings.Count(out.String(), "the DCS "); n != 2 || strings.Contains(out.String(), "does not answer") {
			t.Errorf("%d lines, want one when it refuses and one when it does no more:\n%s", n, out.String())
		}
	})
}
