package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// world is the clock, the dice and the event log of one seed.
type world struct {
	now    time.Time
	start  time.Time
	seq    int
	events events
	rng    *rand.Rand
	cur    *proc // whose turn it is
	log    bytes.Buffer
	after  func() // called after every event
}

func newWorld(seed uint64) *world {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &world{now: start, start: start, rng: rand.New(rand.NewPCG(seed, 0x77616c6261746f6e)), after: func() {}}
}

// say writes one line of the event log.
func (w *world) say(who, format string, args ...any) {
	fmt.Fprintf(&w.log, "%9.3f %-3s ", w.now.Sub(w.start).Seconds(), who)
	fmt.Fprintf(&w.log, format, args...)
	w.log.WriteByte('\n')
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between draws a duration.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

// pick draws one of the items.
func pick[T any](w *world, items []T) T { return items[w.rng.IntN(len(items))] }

type event struct {
	at  time.Time
	seq int
	f   func()
}

// events is a heap: none comes before the one at (its index-1)/2.
type events []event

func (e *event) before(o *event) bool {
	return e.at.Before(o.at) || e.seq < o.seq && !o.at.Before(e.at)
}

// push puts an event into its place.
func (q *events) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 && e.before(&h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i], *q = e, h
}

// pop takes out the first.
func (q *events) pop() event {
	h := *q
	first, last, n := h[0], h[len(h)-1], len(h)-1
	h[n] = event{}
	h, *q = h[:n], h[:n]
	i := 0
	for 2*i+1 < n {
		next := 2*i + 1
		if next+1 < n && h[next+1].before(&h[next]) {
			next++
		}
		if last.before(&h[next]) {
			break
		}
		h[i] = h[next]
		i = next
	}
	if n > 0 {
		h[i] = last
	}
	return first
}

// at has f called at t, or now when t is past.
func (w *world) at(t time.Time, f func()) {
	w.seq++
	w.events.push(event{t, w.seq, f})
}

func (w *world) in(d time.Duration, f func()) { w.at(w.now.Add(d), f) }

// run lets time pass until stop says so, asked after every event, or end.
func (w *world) run(end time.Time, stop func() bool) {
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := w.events.pop()
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.f()
		w.after()
		if stop != nil && stop() {
			return
		}
	}
	w.now = end
}

// host is what dies and pauses together: one process with all its threads.
type host struct {
	w      *world
	dead   bool
	paused time.Time // until then nothing in it runs
	procs  []*proc
}

func newHost(w *world) *host { return &host{w: w} }

func (h *host) asleep() bool { return h.w.now.Before(h.paused) }

// kill ends everything in it at once, as kill -9 does. It must not be called from inside.
func (h *host) kill() {
	h.dead = true
	procs := h.procs
	h.procs = nil
	for _, p := range procs {
		p.kill()
	}
}

// proc is one thread. It runs until it waits.
type proc struct {
	w     *world
	host  *host
	next  func() (time.Duration, bool)
	stop  func()
	yield func(time.Duration) bool
	turn  int // a wake-up that was asked for in an earlier turn is void
	over  bool
}

// errKilled unwinds a thread whose process has been killed.
var errKilled = errors.New("killed")

// spawn starts a thread in h.
func (h *host) spawn(f func(p *proc)) *proc {
	p := &proc{w: h.w, host: h}
	if h.dead {
		p.over = true
		return p
	}
	p.next, p.stop = iter.Pull(func(yield func(time.Duration) bool) {
		defer func() {
			if r := recover(); r != nil && r != errKilled {
				panic(fmt.Sprintf("at %v: %v", h.w.now.Sub(h.w.start), r))
			}
		}()
		p.yield = yield
		f(p)
	})
	h.procs = append(h.procs, p)
	p.wake(0)
	return p
}

func (p *proc) kill() {
	if p.over {
		return
	}
	p.over = true
	p.turn++
	prev := p.w.cur
	p.stop()
	p.w.cur = prev
}

// wake has the thread go on after d, whatever it waits for.
func (p *proc) wake(d time.Duration) {
	p.turn++
	turn := p.turn
	p.w.in(d, func() {
		if p.turn == turn && !p.over {
			p.run()
		}
	})
}

func (p *proc) run() {
	if p.host.asleep() {
		p.wake(p.host.paused.Sub(p.w.now) + p.w.between(time.Millisecond, 20*time.Millisecond))
		return
	}
	prev := p.w.cur
	p.w.cur = p
	d, ok := p.next()
	p.w.cur = prev
	switch {
	case !ok:
		p.over = true
		for i, q := range p.host.procs {
			if q == p {
				p.host.procs = append(p.host.procs[:i:i], p.host.procs[i+1:]...)
				break
			}
		}
	case d >= 0:
		p.wake(d)
	}
}

// sleep gives the turn back for d.
func (p *proc) sleep(d time.Duration) {
	if !p.yield(d) {
		panic(errKilled)
	}
}

// wait sleeps, less when ctx ends, and gives the cause of that.
func (p *proc) wait(ctx context.Context, d time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	b, _ := ctx.Value(boundKey{}).(*bound)
	for x := b; x != nil; x = x.parent {
		x.waiting = append(x.waiting, p)
	}
	defer func() {
		for x := b; x != nil; x = x.parent {
			x.forget(p)
		}
	}()
	p.sleep(d)
	return context.Cause(ctx)
}

// bound is a context that wakes, when it ends, the threads that wait under it.
type bound struct {
	ctx     context.Context
	stop    context.CancelCauseFunc
	parent  *bound
	waiting []*proc
}

type boundKey struct{}

func newBound(parent *bound) *bound {
	b := &bound{parent: parent}
	ctx := context.Background()
	if parent != nil {
		ctx = parent.ctx
	}
	ctx, b.stop = context.WithCancelCause(ctx)
	b.ctx = context.WithValue(ctx, boundKey{}, b)
	return b
}

func (b *bound) end(cause error) {
	if b.ctx.Err() != nil {
		return
	}
	b.stop(cause)
	for _, p := range b.waiting {
		p.wake(0)
	}
	b.waiting = nil
}

func (b *bound) forget(p *proc) {
	for i, q := range b.waiting {
		if q == p {
			b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
			return
		}
	}
}
