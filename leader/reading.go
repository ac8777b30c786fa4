package leader

import "time"

// This file is the Machine's ear and mouth: what it makes of a reading, and the record it
// keeps in the DCS.

// ReadDone reports what a read answered: the view of it that NewView gives our member, asked for at
// Action.At. The machine keeps the view, and changes its Records.
func (m *Machine) ReadDone(now time.Time, v View, err error) {
	m.read.end(now)
	if err != nil {
		m.fresh, m.candidacy = false, false
		m.nextRead = now.Add(m.retry())
		return
	}
	m.understand(now, v)
}

func (m *Machine) understand(now time.Time, v View) {
	_, there := v.Records[m.o.Self]
	m.absent = m.given && !there && !m.record.busy && v.At.After(m.record.done)
	if there && m.given {
		v.Records[m.o.Self] = m.compose(now)
	}
	m.countFree(v)
	m.dropPart(v)
	m.view, m.viewOK, m.fresh = v, true, true
	if m.leading && m.ended == nil && v.At.After(m.began) &&
		(v.Baton.Holder != m.o.Self || v.Baton.Epoch != m.lease.Epoch) {
		m.lost = true
	}
	m.settle(now, v)
}

// countFree measures how long the baton has been free, over readings without a longer break
// between them than a lease lives.
func (m *Machine) countFree(v View) {
	if v.Baton.Held() {
		m.freeSince, m.freeFor = time.Time{}, 0
		return
	}
	if m.freeSince.IsZero() || v.At.Sub(m.view.At) > m.o.TTL {
		m.freeSince = v.At
	}
	m.freeFor = v.At.Sub(m.freeSince)
}

// settle takes a new answer at once when the leader key has changed, and otherwise when a reading sent Settle after the
// first that gave it gives it again.
func (m *Machine) settle(now time.Time, v View) {
	c := m.patient(v)
	moved := v.Cluster.Leader != "" && m.leader != "" && v.Cluster.Leader != m.leader
	if v.Cluster.Leader != "" {
		m.leader = v.Cluster.Leader
	}
	switch {
	case c.Member == m.choice.Member, moved:
		m.choice, m.candidacy = c, false
	case !m.candidacy || m.candidate != c.Member:
		m.candidacy, m.candidate, m.candSince = true, c.Member, now
	case !v.At.Before(m.candSince.Add(m.o.Settle)):
		m.choice, m.candidacy = c, false
	}
	if m.candidacy {
		if at := m.candSince.Add(m.o.Settle); at.Before(m.nextRead) {
			m.nextRead = at
		}
	}
	if free := m.freeSince.Add(m.o.TTL); !m.freeSince.IsZero() && free.After(now) && free.Before(m.nextRead) {
		m.nextRead = free
	}
}

// patient is Choose, but that a replica which was to have the baton loses it only after two of Patroni's loops for not
// streaming within max_lag. Each walreceiver stops for a moment when the leader changes. And the leader and the replica publish
// their positions once a loop each, at different times: until the replica's turn comes it seems to be behind by all that was
// written since, which at a high rate is more than any max_lag.
func (m *Machine) patient(v View) Choice {
	c, spared := Choose(v), v.choose(m.choice.Member)
	if c.Member == spared.Member || spared.Member != m.choice.Member {
		m.behindSince = time.Time{}
		return c
	}
	if m.behindSince.IsZero() {
		m.behindSince = v.At
	}
	if v.At.Sub(m.behindSince) < 2*v.Cluster.LoopWait {
		return spared
	}
	return c
}

// dropPart ends our claim to have been the last holder when somebody holds it after us.
func (m *Machine) dropPart(v View) {
	if m.part == nil || m.lease.Held() && m.part.Term == m.lease.Epoch {
		return
	}
	newer := v.Baton.Held() && v.Baton.Epoch > m.part.Term
	for member, r := range v.Records {
		newer = newer || member != m.o.Self && r.Holder != nil && r.Holder.Term > m.part.Term
	}
	if newer {
		m.part, m.stale = nil, true
	}
}

// rememberErrand marks what a term was to ship as tried. If it is in the archive now, that
// changes nothing; if not, we could not ship it, and the next holder, who lacks it still,
// would send the baton straight back. What we give up again and again is offered again later and later: nobody ships what the
// primary writes meanwhile.
func (m *Machine) rememberErrand(now time.Time, cause error) {
	if cause == ErrExpired || cause == ErrLost || m.errand.Empty() {
		return
	}
	if !now.Before(m.triedTill) {
		m.tried = nil
	}
	if m.vain = min(m.vain+1, retriesVain); !m.gaveUp {
		m.vain = 0
	}
	m.tried, m.triedTill = m.tried.Union(m.errand), now.Add(retryErrand<<m.vain)
	m.errand, m.stale = nil, true
}

// stepErrand gives up an errand that makes no progress, for whatever reason: the holder of an
// errand may be a stopped server, and then nobody ships what the primary writes.
func (m *Machine) stepErrand(now time.Time) {
	if m.part == nil || m.part.Errand.Empty() || !m.leading || m.ended != nil {
		return
	}
	if n := m.compose(now).Holder.Errand.Count(); n < m.left {
		m.left, m.shrankAt = n, now
	}
	if !now.Before(m.giveUpAt()) {
		m.gaveUp, m.stale = true, true
	}
}

// giveUpAt is when an errand that makes no more progress is given up: soon when its holder has tried all that is left of it, and may not ship it.
func (m *Machine) giveUpAt() time.Time {
	if m.part != nil && m.part.Errand.Subtract(m.mine.Refused).Empty() {
		return m.shrankAt.Add(errandRefused)
	}
	return m.shrankAt.Add(errandStall)
}

// compose gives our record as it is to stand in the DCS.
func (m *Machine) compose(now time.Time) Record {
	r := m.mine
	r.Version, r.Member, r.Policy, r.MaxLag = RecordVersion, m.o.Self, m.o.Policy, m.o.MaxLag
	if now.Before(m.triedTill) {
		r.Tried = r.Tried.Union(m.tried)
	}
	if m.part != nil {
		part := *m.part
		if r.Holder != nil && r.Holder.Term == part.Term {
			part = *r.Holder
			part.Rule = m.part.Rule
		}
		if m.gaveUp {
			part.Errand = nil
		}
		m.part = &part
	}
	r.Holder = m.part
	return r
}

// value is our record as it is to stand in the DCS, encoded once for each change.
func (m *Machine) value(now time.Time) string {
	tried := now.Before(m.triedTill)
	if m.stale || tried != m.showsTried {
		text, err := m.compose(now).Encode()
		if err != nil {
			return m.written // cannot happen: a Record has nothing that JSON refuses
		}
		m.encoded, m.showsTried, m.stale = text, tried, false
	}
	return m.encoded
}

// dirty says whether the DCS has another record than we want there.
func (m *Machine) dirty(now time.Time) bool { return m.given && m.value(now) != m.written }

// recordDue is when the next announcement is to be made.
func (m *Machine) recordDue(now time.Time) time.Time {
	due := m.keptAt.Add(m.o.Every)
	if m.absent {
		due = m.keptAt.Add(m.retry())
	}
	if m.dirty(now) {
		due = m.wroteAt.Add(writeEvery)
	}
	if due.Before(m.retryAt) {
		due = m.retryAt
	}
	return due
}

func (m *Machine) stepRecord(now time.Time) (Action, bool) {
	if m.record.busy || !m.given {
		return Action{}, false
	}
	if m.stop {
		if m.withdrawn || m.leading || m.lock.busy || m.lease.Held() {
			return Action{}, false
		}
		m.withdrawn = true
		m.record.begin(now)
		return Action{Op: OpAnnounce, Timeout: m.o.Every}, true
	}
	if now.Before(m.recordDue(now)) {
		return Action{}, false
	}
	value := m.value(now)
	if value != m.written {
		m.wroteAt = now
	}
	m.sending = value
	m.record.begin(now)
	return Action{Op: OpAnnounce, Value: value, TTL: m.o.TTL, Timeout: m.o.Every}, true
}

// AnnounceDone reports what an announcement answered.
func (m *Machine) AnnounceDone(now time.Time, err error) {
	sent := m.record.sent
	m.record.end(now)
	m.failed = err != nil
	if err != nil {
		m.written = "" // it may have been written or not: write it again
		m.retryAt = now.Add(m.retry())
		return
	}
	m.written, m.keptAt, m.absent = m.sending, sent, false
}
