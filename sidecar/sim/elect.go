package sim

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
)

// This file is leader.Elector.Run with the clock of the simulation: it asks the node's Machine what to do, and
// reports what became of each request.

// stepSoon has the machine asked after d.
func (n *node) stepSoon(d time.Duration) {
	n.wakes++
	wake, h := n.wakes, n.host
	n.in(d, func() {
		if wake == n.wakes && !h.dead {
			n.step()
		}
	})
}

// tell reports something to the machine when the process runs.
func (n *node) tell(f func(now time.Time)) {
	h := n.host
	if h.dead {
		return
	}
	if h.asleep() {
		n.at(h.paused, func() {
			if n.host == h {
				n.tell(f)
			}
		})
		return
	}
	n.step() // what is due comes first, as a timer would
	f(n.now)
	n.step()
}

// step asks the machine until it wants to wait.
func (n *node) step() {
	if n.host.dead {
		return
	}
	if n.host.asleep() {
		n.stepSoon(n.host.paused.Sub(n.now))
		return
	}
	for range 100 {
		a := n.m.Next(n.now)
		switch a.Op {
		case leader.OpDone:
			n.say(n.name, "sidecar has stopped")
			n.in(0, n.kill)
			return
		case leader.OpWait:
			if _, _, _, ok := n.m.Term(); ok {
				n.inTerm = n.now
			}
			if !a.Until.IsZero() {
				n.stepSoon(a.Until.Sub(n.now))
			}
			return
		}
		n.do(a)
	}
	panic(n.name + " does not come to rest")
}

func (n *node) do(a leader.Action) {
	switch a.Op {
	case leader.OpBegin:
		n.say(n.name, "term %d begins by rule %s: %s", a.Term.Epoch, a.Term.Choice.Rule, a.Term.Choice.Why)
		n.count("rule " + string(a.Term.Choice.Rule))
		n.began(a.Term)
		n.check.term(n, a.Term.Epoch)
		if n.policy == leader.PolicyReplica && n.leaderKey != n.name && len(n.streams) == 1 {
			n.fault("timeline 1 under the policy replica")
		}
		b := newBound(nil)
		n.term, n.epoch = b, a.Term.Epoch
		n.host.spawn(func(p *proc) { n.lead(p, b, a.Term) })
	case leader.OpEnd:
		n.say(n.name, "term %d ends: %v", n.epoch, a.Cause)
		n.ended(a.Cause)
		if errors.Is(a.Cause, leader.ErrErrandVain) {
			n.check.vain()
		}
		n.fellBehind(a.Cause)
		n.term.end(a.Cause)
	case leader.OpWatch:
		n.watch1(a.Since)
	default:
		n.request(a)
	}
}

// watch1 begins a watch; it ends at a change, which may have been made already, or after ten seconds.
func (n *node) watch1(since dcs.Reading) {
	n.watching, n.since = true, since
	h := n.host
	if n.now.Sub(n.changedAt()) < 100*time.Millisecond {
		n.watched()
	}
	n.in(10*time.Second, func() {
		if n.host == h && n.watching && n.since.Revision == since.Revision {
			n.endWatch()
		}
	})
}

func (n *node) endWatch() {
	n.watching = false
	n.tell(func(now time.Time) { n.m.WatchDone(now, nil) })
}

// watched is called when the scope has changed.
func (n *node) watched() {
	n.lastChange = n.now
	if !n.watching || n.host.dead || !n.dcsUp(n.name) {
		return
	}
	h, rev := n.host, n.since.Revision
	n.in(n.between(5*time.Millisecond, 60*time.Millisecond), func() {
		if n.host == h && n.watching && n.since.Revision == rev {
			n.endWatch()
		}
	})
}

func (n *node) changedAt() time.Time { return n.lastChange }

// request plays one request of the machine, limited in time.
func (n *node) request(a leader.Action) {
	h := n.host
	b := newBound(nil)
	heard := false
	answer := func(r dcs.Reading, l dcs.Lease, err error) {
		if heard || n.host != h {
			return
		}
		heard = true
		n.noteDCS(a.At, err)
		n.tell(func(now time.Time) { n.report(now, a, r, l, err) })
	}
	n.in(a.Timeout, func() { answer(dcs.Reading{}, dcs.Lease{}, context.DeadlineExceeded) })
	serve := func() (dcs.Reading, dcs.Lease, error) { return n.serve(b.ctx, a) }
	f := n.fateDCS(a.Op.String(), a.Op == leader.OpRead)
	switch f.kind {
	case fateDrop:
		n.in(f.there, func() { answer(dcs.Reading{}, dcs.Lease{}, errNetwork) })
	case fateHang:
	case fateLate:
		n.in(f.late, func() { serve() })
		n.in(f.there, func() { answer(dcs.Reading{}, dcs.Lease{}, errNetwork) })
	case fateLost:
		n.in(f.there, func() {
			serve()
			n.in(f.back, func() { answer(dcs.Reading{}, dcs.Lease{}, errNetwork) })
		})
	case fateStale:
		n.in(f.there, func() { answer(n.before, dcs.Lease{}, nil) })
	default:
		n.in(f.there, func() {
			r, l, err := serve()
			if a.Op == leader.OpRead && err == nil {
				n.before = r
			}
			n.in(f.back, func() { answer(r, l, err) })
		})
	}
}

// serve is the server's side of a request.
func (n *node) serve(ctx context.Context, a leader.Action) (r dcs.Reading, l dcs.Lease, err error) {
	switch a.Op {
	case leader.OpRead:
		r, err = n.client.Read(ctx)
	case leader.OpClaim, leader.OpRenew:
		l, err = n.client.Claim(ctx, a.Lease)
		if err == nil {
			n.expireLater(a.Lease.TTL)
		}
		if err == nil && a.Op == leader.OpClaim {
			n.dcsChanged()
		}
	case leader.OpRelease:
		err = n.client.Release(ctx, a.Lease)
		n.dcsChanged()
	case leader.OpAnnounce:
		err = n.client.Announce(ctx, n.name, a.Value, a.TTL)
		n.expireLater(a.TTL)
		if n.written["record "+n.name] != a.Value {
			n.written["record "+n.name] = a.Value
			n.dcsChanged()
		}
	}
	return r, l, err
}

// expireLater has the scope's leases looked at when this one may end.
func (n *node) expireLater(ttl time.Duration) {
	n.in(ttl+time.Millisecond, func() {
		if n.expired() {
			n.dcsChanged()
		}
	})
}

// expired says whether a lease has run out since the last look.
func (c *cluster) expired() bool {
	before, err := c.anyClient.Read(context.Background())
	must(err)
	rev := before.Revision
	changed := rev != c.lastRevision
	c.lastRevision = rev
	return changed
}

// view is leader.NewView. What it parses is the same for every node that reads this revision, and parsed once.
func (n *node) view(r dcs.Reading, at time.Time) leader.View {
	if r.Revision == "" || r.Revision != n.parsed.Reading.Revision {
		n.parsed = leader.NewView("", r, time.Time{})
	}
	v := n.parsed
	v.Self, v.At, v.Records = n.name, at, maps.Clone(v.Records)
	return v
}

func (n *node) report(now time.Time, a leader.Action, r dcs.Reading, l dcs.Lease, err error) {
	switch a.Op {
	case leader.OpRead:
		n.m.ReadDone(now, n.view(r, a.At), err)
		n.changed++
		n.last = nil
	case leader.OpClaim:
		n.m.ClaimDone(now, l, err)
	case leader.OpRenew:
		n.m.RenewDone(now, l, err)
	case leader.OpRelease:
		n.m.ReleaseDone(now, err)
	case leader.OpAnnounce:
		n.m.AnnounceDone(now, err)
	}
}

// ended counts the end of a term.
func (n *node) ended(cause error) {
	for _, e := range []struct {
		cause error
		label string
	}{{leader.ErrExpired, "expired"}, {leader.ErrLost, "lost"}, {leader.ErrDemoted, "demoted"}, {leader.ErrErrandDone, "errand_done"}, {leader.ErrErrandVain, "errand_given_up"},
		{leader.ErrReleased, "released"}, {leader.ErrStopped, "stopped"}} {
		if errors.Is(cause, e.cause) {
			n.endTally(e.label)
		}
	}
}
