package leader

import (
	"errors"
	"fmt"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Op is one thing that a Machine wants done.
type Op uint8

const (
	OpWait     Op = iota // nothing before Action.Until, unless something is reported
	OpRead               // dcs.Read; report with ReadDone
	OpWatch              // dcs.Wait since Action.Since; report with WatchDone
	OpClaim              // dcs.Claim of Action.Lease, a new one; report with ClaimDone
	OpRenew              // dcs.Claim of Action.Lease, an extension; report with RenewDone
	OpRelease            // dcs.Release of Action.Lease; report with ReleaseDone
	OpAnnounce           // dcs.Announce of Action.Value for Action.TTL; report with AnnounceDone
	OpBegin              // start the work of Action.Term; report with LeadDone when it has returned
	OpEnd                // end the context of the work with Action.Cause
	OpDone               // all that Stop began has ended
)

var opNames = [...]string{"wait", "read", "watch", "claim", "renew", "release", "announce", "begin", "end", "done"}

func (o Op) String() string { return opNames[o] }

// Action is what Machine.Next answers.
type Action struct {
	Op       Op
	At       time.Time     // the time that Next was given: when the request counts as sent
	Until    time.Time     // OpWait: zero means without end
	Timeout  time.Duration // of requests; zero means none
	Since    dcs.Reading   // OpWatch
	Lease    dcs.Lease     // OpClaim, OpRenew, OpRelease
	Value    string        // OpAnnounce
	TTL      time.Duration // OpAnnounce; zero withdraws the record
	Term     Term          // OpBegin
	Deadline time.Time     // OpBegin: the context ends here unless a renewal moves it
	Cause    error         // OpEnd
}

// Machine is the Elector without clock, network and goroutines. Next says what to do now,
// again and again until it says OpWait; each request that it names counts as sent and is
// reported later, in any order. Up to four are under way at once: a read, a watch, one of
// claim, renewal and release, and an announcement.
//
// Elector.Run is the loop around it for real life; a simulation drives it from one
// goroutine with a clock of its own. A Machine is not safe for concurrent use.
type Machine struct {
	o      Options
	stop   bool // Stop was called
	view   View // the last reading, understood
	viewOK bool
	fresh  bool // no read has failed since that reading

	read   lane
	watch  lane
	lock   lane // claim, renewal, release
	record lane

	nextRead    time.Time
	watchedAt   time.Time // when the last watch returned: only a later reading is worth watching from
	nextWatch   time.Time
	nextClaim   time.Time
	nextOwn     time.Time // the next claim for a baton that is ours by name
	nextRenewal time.Time

	election
	holding
	announcing
}

// lane is one kind of request, of which one at a time is under way.
type lane struct {
	busy bool
	sent time.Time
	done time.Time
}

func (l *lane) begin(now time.Time) { l.busy, l.sent = true, now }
func (l *lane) end(now time.Time)   { l.busy, l.done = false, now }

// election is what the machine has made of the readings.
type election struct {
	choice      Choice // the answer of Choose that has held long enough
	candidate   string // another answer that may become it
	candSince   time.Time
	candidacy   bool
	behindSince time.Time // when the first of an unbroken row of readings was sent in which the chosen replica does not stream within max_lag
	leader      string    // the last leader that was known
	freeSince   time.Time // when the first of an unbroken row of readings with a free baton was sent
	freeFor     time.Duration
}

// holding is our lease and the term made of it.
type holding struct {
	lease    dcs.Lease // zero: none
	claim    Choice    // why we claimed it
	passed   string    // whom we passed over by RuleFree
	began    time.Time // of the term
	extended time.Time // when the claim or last good renewal was sent
	leading  bool      // OpBegin was answered and LeadDone not called
	ended    error     // cause of the end of the term, nil while it lives
	endedAt  time.Time
	lost     bool // the DCS says that the lease has ended
}

// announcing is our record and what the DCS has of it.
type announcing struct {
	mine       Record
	given      bool // Announce was called
	part       *Holder
	errand     Ranges    // the errand the present term began with
	left       uint64    // segments of it when it last shrank
	shrankAt   time.Time // when that was
	gaveUp     bool      // it has not shrunk for long
	vain       int       // so many errands in a row were given up
	tried      Ranges
	triedTill  time.Time
	encoded    string    // the record, as value gives it
	stale      bool      // it is to be encoded anew
	showsTried bool      // with Tried in it
	written    string    // the value that the DCS has, as far as we know
	sending    string    // the value under way
	wroteAt    time.Time // when the last changed value was sent
	keptAt     time.Time // when the last good announcement was sent
	retryAt    time.Time // after a failed one
	absent     bool      // a reading did not have it
	withdrawn  bool
	failed     bool // the last announcement failed
}

const (
	writeEvery    = time.Second      // a record is written at most this often
	retryErrand   = time.Minute      // for this long what was tried in an errand is not offered again; twice as long for each one given up
	retriesVain   = 5                // but no more than this often: half an hour
	errandStall   = 5 * time.Minute  // an errand that does not shrink for this long is given up
	errandRefused = 30 * time.Second // and when we may ship nothing of it, for this long: the leader may open its timeline in a moment
	passedHold    = time.Minute      // for this long a node that left the baton free is passed over

	// stopGrace is for each request once the sidecar stops: those under way, then the release, then the end of the record.
	// Three of them are the time that a stop takes when the DCS does not answer.
	stopGrace = 900 * time.Millisecond
)

// NewMachine makes the Machine of an Elector with these options.
func NewMachine(o Options) (*Machine, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Machine{o: o}, nil
}

// Announce sets our record. Without one we are not alive to the others and take no baton.
func (m *Machine) Announce(r Record) {
	m.mine, m.given, m.stale = r, true, true
}

// Stop begins the end: the term ends, the lease is released when the work has returned, the
// record is withdrawn, and Next answers OpDone.
func (m *Machine) Stop() { m.stop = true }

// View gives the last reading with our own record as it is to be.
func (m *Machine) View() (View, bool) { return m.view, m.viewOK }

// Term gives the present term; false when there is none, or it has ended.
func (m *Machine) Term() (epoch uint64, rule Rule, since time.Time, ok bool) {
	if !m.leading || m.ended != nil {
		return 0, "", time.Time{}, false
	}
	return m.lease.Epoch, m.claim.Rule, m.began, true
}

// Choice gives the answer of Choose that has held long enough to be acted on.
func (m *Machine) Choice() Choice { return m.choice }

// Deadline is when the present lease must not be relied on any more.
func (m *Machine) Deadline() time.Time { return m.extended.Add(m.o.TTL - m.o.Margin) }

// Next says what to do at now.
func (m *Machine) Next(now time.Time) Action {
	a := m.next(now)
	a.At = now
	if m.stop && a.Timeout > stopGrace {
		a.Timeout = stopGrace
	}
	return a
}

func (m *Machine) next(now time.Time) Action {
	m.stepErrand(now)
	if cause := m.verdict(now); cause != nil {
		m.ended, m.endedAt = cause, now
		m.rememberErrand(now, cause)
		return Action{Op: OpEnd, Cause: cause}
	}
	for _, step := range []func(time.Time) (Action, bool){m.stepLock, m.stepRecord, m.stepRead, m.stepWatch} {
		if a, ok := step(now); ok {
			return a
		}
	}
	if m.stop && !m.leading && !m.lock.busy && !m.record.busy && !m.read.busy && !m.watch.busy {
		return Action{Op: OpDone}
	}
	return Action{Op: OpWait, Until: m.until(now)}
}

// verdict says why the present term must end, nil if it need not.
func (m *Machine) verdict(now time.Time) error {
	switch {
	case !m.leading || m.ended != nil:
		return nil
	case !now.Before(m.Deadline()):
		return ErrExpired
	case m.lost:
		return ErrLost
	case m.stop:
		return ErrStopped
	case m.choice.Member == m.o.Self:
		return nil
	case m.claim.Rule == RuleFree && m.choice.Member == m.passed && m.passed != "" &&
		now.Before(m.began.Add(passedHold)) && !m.mine.Misses.Empty():
		return nil // it left the baton free before, and there is work
	case m.claim.Rule == RuleErrand && m.gaveUp:
		return fmt.Errorf("%w: %s", ErrErrandVain, m.successor())
	case m.claim.Rule == RuleErrand && m.part.Errand.Empty():
		return fmt.Errorf("%w: %s", ErrErrandDone, m.successor())
	}
	return fmt.Errorf("%w: %s", ErrDemoted, m.successor())
}

func (m *Machine) successor() string {
	if m.choice.Member == "" {
		return "nobody may hold it now: " + m.choice.Why
	}
	return fmt.Sprintf("%s is next: %s", m.choice.Member, m.choice.Why)
}

// stepLock is the lane of the lease. From the moment a term is to end its lease is not
// renewed, and it is released only when the work has returned.
func (m *Machine) stepLock(now time.Time) (Action, bool) {
	if m.lock.busy {
		return Action{}, false
	}
	if m.lease.Held() && !m.leading && (m.lost || !now.Before(m.extended.Add(m.o.TTL))) {
		m.drop() // nothing to give back
	}
	held := m.lease.Held()
	switch {
	case held && !m.leading && m.began.IsZero() && !m.stop && now.Before(m.Deadline()):
		m.beginTerm(now)
		return Action{Op: OpBegin, Deadline: m.Deadline(), Term: Term{Epoch: m.lease.Epoch, Choice: m.claim, View: m.view}}, true
	case held && m.leading && m.ended == nil && !now.Before(m.nextRenewal):
		m.lock.begin(now)
		return Action{Op: OpRenew, Lease: m.lease, Timeout: min(m.o.Every, m.Deadline().Sub(now))}, true
	case held && !m.leading && !m.recordFirst(now):
		m.lock.begin(now)
		return Action{Op: OpRelease, Lease: m.lease, Timeout: m.o.Every}, true
	case !held && !m.leading && !m.stop && m.wants(now):
		m.lock.begin(now)
		return Action{Op: OpClaim, Lease: dcs.Lease{Holder: m.o.Self, TTL: m.o.TTL}, Timeout: m.o.Every}, true
	}
	return Action{}, false
}

func (m *Machine) beginTerm(now time.Time) {
	m.leading, m.began, m.ended, m.lost = true, now, nil, false
	m.errand, m.left, m.shrankAt, m.gaveUp = m.claim.Errand, m.claim.Errand.Count(), now, false
	if m.claim.Rule == RuleFree {
		m.choice, m.candidacy = m.claim, false // what the rules said while it was free is settled
	}
	m.part, m.stale = &Holder{Term: m.lease.Epoch, Rule: m.claim.Rule, Errand: m.errand}, true
}

// drop forgets the lease.
func (m *Machine) drop() {
	m.lease, m.began, m.lost = dcs.Lease{}, time.Time{}, false
}

// recordFirst says whether the release is to wait for our record: what moves the baton by
// rule 2 stands in it, and the next holder must read what we know now. A DCS that takes no
// record does not hold the baton up.
func (m *Machine) recordFirst(now time.Time) bool {
	byErrand := m.claim.Rule == RuleErrand || m.choice.Rule == RuleErrand
	return byErrand && !m.stop && !m.failed && m.dirty(now) && now.Before(m.endedAt.Add(2*writeEvery))
}

// wants says whether to claim the baton now, by the last reading, and remembers why.
func (m *Machine) wants(now time.Time) bool {
	// A baton that we hold without knowing is that of a claim whose answer was lost: it runs out,
	// unless the driver knows us by name and lets us have it.
	free := !m.view.Baton.Held() || m.view.Baton.Holder == m.o.Self && !now.Before(m.nextOwn)
	// A reading that began before our last request on the lease ended may not show what that did.
	if !m.viewOK || !m.fresh || !free || m.view.At.Before(m.lock.done) || now.Before(m.nextClaim) {
		return false
	}
	if m.choice.Member == m.o.Self {
		m.claim, m.passed = m.choice, ""
		return true
	}
	if m.freeFor < m.o.TTL || m.mine.Misses.Empty() || !m.mayTakeFree() {
		return false
	}
	m.passed = m.choice.Member
	m.claim = Choice{Member: m.o.Self, Rule: RuleFree,
		Why: fmt.Sprintf("it was free for %v and the archive lacks %s that we have", m.freeFor.Round(time.Second), segments(m.mine.Misses))}
	return true
}

func (m *Machine) mayTakeFree() bool { return m.view.mayStay(m.o.Self, m.view.reaching(m.view.able())) }

// stepRead reads every Options.Every, and whenever something asks for it.
func (m *Machine) stepRead(now time.Time) (Action, bool) {
	if m.read.busy || m.stop || now.Before(m.nextRead) {
		return Action{}, false
	}
	m.read.begin(now)
	m.nextRead = now.Add(m.o.Every)
	return Action{Op: OpRead, Timeout: m.o.Every}, true
}

func (m *Machine) stepWatch(now time.Time) (Action, bool) {
	if m.watch.busy || m.stop || !m.viewOK || !m.fresh || m.view.At.Before(m.watchedAt) || now.Before(m.nextWatch) {
		return Action{}, false
	}
	m.watch.begin(now)
	return Action{Op: OpWatch, Since: m.view.Reading}, true
}

// until is when Next has to be asked again if nothing is reported.
func (m *Machine) until(now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if m.leading && m.ended == nil {
		sooner(m.Deadline())
		sooner(m.nextRenewal)
		sooner(m.began.Add(passedHold))
		sooner(m.giveUpAt())
	}
	if m.lease.Held() && !m.leading {
		sooner(m.endedAt.Add(2 * writeEvery))
		sooner(m.extended.Add(m.o.TTL))
	}
	if m.stop {
		return at
	}
	if m.given && !m.record.busy {
		sooner(m.recordDue(now))
	}
	sooner(m.triedTill)
	sooner(m.nextRead)
	sooner(m.nextClaim)
	sooner(m.nextOwn)
	sooner(m.nextWatch)
	return at
}

// ClaimDone reports what a claim that was sent at sent answered.
func (m *Machine) ClaimDone(now time.Time, l dcs.Lease, err error) {
	sent := m.lock.sent
	m.lock.end(now)
	m.readSoon(now)
	if err != nil {
		if held := new(dcs.HeldError); !errors.As(err, &held) {
			m.nextClaim = now.Add(m.retry())
		} else if held.Lease.Holder == m.o.Self {
			m.nextOwn = now.Add(m.o.Every)
		}
		return
	}
	m.lease, m.extended, m.began, m.ended, m.endedAt = l, sent, time.Time{}, nil, now
	m.nextRenewal = sent.Add(m.o.Every)
}

// RenewDone reports what an extension answered.
func (m *Machine) RenewDone(now time.Time, l dcs.Lease, err error) {
	sent := m.lock.sent
	m.lock.end(now)
	switch {
	case errors.Is(err, dcs.ErrLost), errors.As(err, new(*dcs.HeldError)):
		m.lost = true
	case err != nil:
		m.nextRenewal = now.Add(m.retry())
	default:
		m.lease, m.extended = l, sent
		m.nextRenewal = sent.Add(m.o.Every)
	}
}

// ReleaseDone reports what a release answered. A lease whose release failed runs out.
func (m *Machine) ReleaseDone(now time.Time, _ error) {
	m.lock.end(now)
	m.drop()
	m.readSoon(now)
}

// LeadDone reports that the work of the term has returned.
func (m *Machine) LeadDone(now time.Time) {
	m.leading = false
	if m.ended == nil {
		m.ended, m.endedAt = ErrReleased, now
		m.nextClaim = now.Add(m.o.Every) // or we would take it again at once
		m.rememberErrand(now, ErrReleased)
	}
}

// Expire reports that the context of the term ended at its deadline by itself.
func (m *Machine) Expire(now time.Time) {
	if m.leading && m.ended == nil {
		m.ended, m.endedAt = ErrExpired, now
	}
}

// WatchDone reports that the scope may have changed.
func (m *Machine) WatchDone(now time.Time, err error) {
	m.watch.end(now)
	m.watchedAt = now
	if err != nil {
		m.nextWatch = now.Add(m.retry())
		return
	}
	m.nextWatch = now.Add(m.o.Settle / 4) // a busy scope is read a few times a second, not more
	m.readSoon(now)
}

func (m *Machine) readSoon(now time.Time) {
	if m.nextRead.After(now) {
		m.nextRead = now
	}
}

// retry is the time between a failed request and the next.
func (m *Machine) retry() time.Duration { return m.o.Every / 5 }
