package leader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// ErrLate is the answer of a reading that took so long that it says nothing of now.
var ErrLate = errors.New("the answer came too late to count")

// Elector holds a node's part in the election: it reads the scope, publishes the node's
// record, and runs the work while the node has the baton. Its methods may be called at the
// same time.
type Elector struct {
	d dcs.DCS
	o Options
	n *numbers

	poke chan struct{} // something was reported: ask the machine again

	mu      sync.Mutex
	m       *Machine
	running bool
	begun   time.Time // when Run was called
	state   Status
	refused map[string]string // by request: Status.Refused
	changed chan struct{}     // closed and replaced when a reading or the term is new
}

// Status is what the elector knows now.
type Status struct {
	Member  string
	Holding bool // we hold the baton, and the term has not ended
	Epoch   uint64
	Rule    Rule      // by which we hold it
	Since   time.Time // of the term
	Choice  Choice    // who is to hold it, by an answer that has held long enough
	Holder  string    // who holds it by the last reading; "" when free or unknown

	ReadAt     time.Time // when the last good reading was asked for; zero: none yet
	AnsweredAt time.Time // when the last request that the DCS answered was sent; zero: none yet
	Error      string    // of the last request, "" after an answer
	Silent     bool      // the DCS does not answer: the last request failed, or none was answered for two intervals of asking
	Refused    string    // what the DCS answers that we may not do (fs.ErrPermission); "" when it lets us do everything
}

// New makes an Elector over a scope. It refuses settings with which the promises cannot hold.
func New(d dcs.DCS, o Options) (*Elector, error) {
	o = o.withDefaults()
	m, err := NewMachine(o)
	if err != nil {
		return nil, err
	}
	n, err := newNumbers(o.Metrics)
	if err != nil {
		return nil, err
	}
	return &Elector{d: d, o: o, n: n, m: m, poke: make(chan struct{}, 1), refused: map[string]string{}, changed: make(chan struct{})}, nil
}

// Announce sets our record. It is written when it has changed and at most once a second,
// and kept alive; without one this node is not alive to the others and takes no baton.
func (e *Elector) Announce(r Record) {
	e.report(func(time.Time) { e.m.Announce(r) })
}

// View gives the last reading, with our own record as last announced; false before the
// first. It is shared: nothing in it must be changed.
func (e *Elector) View() (View, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.m.View()
}

// Read makes a linearizable reading for this call alone, and gives it. Unlike View it has
// our record as it stands in the DCS.
//
// A reading that took Options.Margin or longer is ErrLate: this process may have been frozen with the answer in its
// socket. So a term whose context had not ended before Read has its lease still when Read returns, if the reading says so.
func (e *Elector) Read(ctx context.Context) (View, error) {
	sent := time.Now()
	r, err := e.d.Read(ctx)
	e.answered("read", sent, err)
	if err != nil {
		return View{}, fmt.Errorf("read scope: %w", err)
	}
	v := NewView(e.o.Self, r, sent)
	if took := time.Since(sent); took >= e.o.Margin { // last of all: what takes time is before it
		return View{}, fmt.Errorf("read scope: %w: %v", ErrLate, took.Round(time.Millisecond))
	}
	return v, nil
}

// Changed gives a channel that is closed when there is a new reading, or our term begins
// or ends. Ask for it before looking at View and Status.
func (e *Elector) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// Status says what the elector knows now.
func (e *Elector) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.Member, s.Choice = e.o.Self, e.m.Choice()
	s.Epoch, s.Rule, s.Since, s.Holding = e.m.Term()
	if v, ok := e.m.View(); ok {
		s.Holder, s.ReadAt = v.Baton.Holder, v.At
	}
	if ops := slices.Sorted(maps.Keys(e.refused)); len(ops) > 0 {
		s.Refused = e.refused[ops[0]]
	}
	s.Silent = s.Error != "" || time.Since(s.AnsweredAt) > 2*e.o.Every && time.Since(e.begun) > 2*e.o.Every
	return s
}

// Run takes part in the election until ctx ends, and calls lead for each term. The context
// of lead ends, with a cause, before anyone else can hold the baton; the baton is given
// back only when lead has returned. A lead that returns by itself gives the baton back,
// and gets it again after a while if it is still ours; its error is logged.
//
// Run returns nil when ctx has ended and everything that it started has returned. It can
// be called once.
func (e *Elector) Run(ctx context.Context, lead func(context.Context, Term) error) error {
	e.mu.Lock()
	again := e.running
	e.running, e.begun = true, time.Now()
	e.mu.Unlock()
	if again {
		return errors.New("run election: it runs already, or has run")
	}
	r := &run{Elector: e, ctx: ctx, lead: lead}
	defer r.tasks.Wait()
	// Requests are not cut off when ctx ends, but soon after: a claim whose answer nobody
	// waits for would hold the baton for nothing.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r.base = base
	stopped := ctx.Done()
	for {
		a := e.next()
		switch a.Op {
		case OpDone:
			return nil
		case OpWait:
			if r.sleep(a, stopped) {
				stopped = nil
				r.base = context.WithoutCancel(ctx) // what is sent from now on has short limits
				defer time.AfterFunc(stopGrace, cut).Stop()
				e.report(func(time.Time) { e.m.Stop() })
			}
		default:
			r.do(a)
		}
	}
}

func (e *Elector) next() Action {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.m.Next(time.Now())
}

// report tells the machine something and has it asked again.
func (e *Elector) report(f func(now time.Time)) {
	e.mu.Lock()
	f(time.Now())
	e.mu.Unlock()
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// notify wakes those who wait on Changed. The caller holds mu.
func (e *Elector) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// answered counts a request and remembers whether the DCS answers. HeldError and ErrLost
// are answers, and so is the word that we may not write: only who may not read knows nothing.
func (e *Elector) answered(op string, sent time.Time, err error) {
	refused := errors.Is(err, fs.ErrPermission) && op != "read"
	done := err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, new(*dcs.HeldError))
	ok := done || refused
	e.n.request(op, done)
	e.mu.Lock()
	was := e.state.Error
	switch {
	case ok:
		e.state.Error = ""
		if sent.After(e.state.AnsweredAt) {
			e.state.AnsweredAt = sent
		}
		e.n.success.Set(float64(sent.UnixMilli()) / 1000)
	case !errors.Is(err, context.Canceled):
		e.state.Error = err.Error()
	}
	is := e.state.Error
	e.mu.Unlock()
	if ok {
		e.refuses(op, err)
	}
	switch {
	case was == "" && is != "":
		e.o.Log.Warn("the DCS does not answer", "dcs", e.d.String(), "op", op, "error", is)
	case was != "" && is == "":
		e.o.Log.Info("the DCS answers again", "dcs", e.d.String())
	}
}

// refuses remembers whether the DCS let us do what we asked for, and tells when that changes.
func (e *Elector) refuses(op string, err error) {
	refused := errors.Is(err, fs.ErrPermission)
	e.mu.Lock()
	was := e.refused[op] != ""
	if refused {
		e.refused[op] = err.Error()
	} else {
		delete(e.refused, op)
	}
	e.mu.Unlock()
	switch {
	case !was && refused:
		e.o.Log.Error("the DCS refuses a request: this node lacks a right", "dcs", e.d.String(), "op", op, "error", err)
	case was && !refused:
		e.o.Log.Info("the DCS refuses it no more", "dcs", e.d.String(), "op", op)
	}
}

// run is one call of Run.
type run struct {
	*Elector
	ctx   context.Context
	base  context.Context // of requests
	lead  func(context.Context, Term) error
	tasks sync.WaitGroup
	term  Term   // the present one, or the last
	guard *guard // of that term's context

	leader string // Patroni's, as it was last known; under mu, as reports are
}

// sleep waits until there may be something to do, and says whether the context has ended.
func (r *run) sleep(a Action, stopped <-chan struct{}) bool {
	var alarm <-chan time.Time
	if !a.Until.IsZero() {
		t := time.NewTimer(time.Until(a.Until))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-alarm:
	case <-r.poke:
	case <-stopped:
		return true
	}
	return false
}

// do starts an action. Nothing in it blocks.
func (r *run) do(a Action) {
	switch a.Op {
	case OpRead:
		r.request(a, func(ctx context.Context) func(time.Time) {
			got, err := r.d.Read(ctx)
			r.answered("read", a.At, err)
			v := NewView(r.o.Self, got, a.At)
			return func(now time.Time) {
				if err == nil {
					r.led(v.Cluster.Leader)
				}
				r.m.ReadDone(now, v, err)
				r.notify()
			}
		})
	case OpWatch:
		r.tasks.Go(func() {
			err := r.d.Wait(r.ctx, a.Since)
			if err == nil || errors.Is(err, fs.ErrPermission) { // no more of it is an answer: it may have waited for none
				r.refuses("watch", err)
			}
			r.report(func(now time.Time) { r.m.WatchDone(now, err) })
		})
	case OpAnnounce:
		r.request(a, func(ctx context.Context) func(time.Time) {
			err := r.d.Announce(ctx, r.o.Self, a.Value, a.TTL)
			r.answered("announce", a.At, err)
			return func(now time.Time) { r.m.AnnounceDone(now, err) }
		})
	case OpClaim:
		r.request(a, func(ctx context.Context) func(time.Time) {
			l, err := r.d.Claim(ctx, a.Lease)
			r.answered("claim", a.At, err)
			return func(now time.Time) { r.m.ClaimDone(now, l, err) }
		})
	case OpRenew:
		g := r.guard
		r.request(a, func(ctx context.Context) func(time.Time) { return r.renew(ctx, a, g) })
	case OpRelease:
		r.request(a, func(ctx context.Context) func(time.Time) {
			err := r.d.Release(ctx, a.Lease)
			r.answered("release", a.At, err)
			return func(now time.Time) { r.m.ReleaseDone(now, err) }
		})
	case OpBegin:
		r.begin(a)
	case OpEnd:
		r.guard.stop(a.Cause)
		r.o.Log.Debug("the term ends, and its work is to return", "term", r.term.Epoch, "cause", a.Cause)
		r.report(func(time.Time) { r.notify() })
	}
}

// led counts it when Patroni's leader is another one than it was. That nobody holds the key for a while is no change.
func (r *run) led(leader string) {
	if leader == "" {
		return
	}
	if r.leader != "" && r.leader != leader {
		r.n.leaders.Inc()
	}
	r.leader = leader
}

// request runs a request on the side, limited in time, and then its report.
func (r *run) request(a Action, f func(context.Context) func(time.Time)) {
	base := r.base
	r.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(base, a.Timeout)
		defer cancel()
		r.report(f(ctx))
	})
}

// renew extends the lease, and the context of the term by when it was asked for.
func (r *run) renew(ctx context.Context, a Action, g *guard) func(time.Time) {
	l, err := r.d.Claim(ctx, a.Lease)
	r.answered("renew", a.At, err)
	late := err == nil && !g.extend(a.At.Add(r.o.TTL-r.o.Margin))
	return func(now time.Time) {
		if late {
			r.m.Expire(now)
		}
		r.m.RenewDone(now, l, err)
	}
}

// begin starts the work of a term.
func (r *run) begin(a Action) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.ctx))
	g := newGuard(a.Deadline, cancel)
	unhook := context.AfterFunc(r.ctx, func() { g.stop(ErrStopped) })
	r.term, r.guard = a.Term, g
	r.report(func(time.Time) { r.notify() })
	r.tasks.Go(func() {
		err := r.lead(ctx, a.Term)
		unhook()
		g.stop(ErrReleased) // unless it has ended already
		cause := context.Cause(ctx)
		r.n.terms.WithLabelValues(endLabel(cause)).Inc()
		r.logEnd(a.Term, cause, err)
		r.report(func(now time.Time) {
			if errors.Is(cause, ErrExpired) {
				r.m.Expire(now)
			}
			r.m.LeadDone(now)
			r.notify()
		})
	})
	r.logBegin(a.Term)
}

func (r *run) logBegin(t Term) {
	c := t.Choice
	words := []any{"term", t.Epoch, "rule", c.Rule, "why", c.Why}
	if !c.Errand.Empty() {
		words = append(words, "errand", c.Errand.String())
	}
	r.o.Log.Info("took the baton", words...)
}

// logEnd says in one line that a term is over, once its work has returned.
func (r *run) logEnd(t Term, cause, err error) {
	words := []any{"term", t.Epoch, "why", endText(cause)}
	switch {
	case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, cause):
		r.o.Log.Error("gave the baton back: the work failed", append(words, "error", err)...)
	case errors.Is(cause, ErrExpired), errors.Is(cause, ErrLost):
		r.o.Log.Warn("lost the baton", words...)
	case errors.Is(cause, ErrErrandVain):
		r.o.Log.Warn("gave the baton back", words...)
	default:
		r.o.Log.Info("gave the baton back", words...)
	}
}
