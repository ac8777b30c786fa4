package sim

import (
	"time"

	"github.com/walbaton/walbaton/archiver"
)

// This file is Patroni's maintenance mode (reference: patroni.md 3.8), and what administrators do to servers in it by hand.

// configure writes Patroni's dynamic configuration.
func (c *cluster) configure() {
	more := ""
	if c.paused {
		more = `,"pause":true`
	}
	if c.far != nil {
		more = `,"standby_cluster":{"host":"far","port":5432}`
	}
	c.putKey("config", `{"ttl":10,"loop_wait":2,"retry_timeout":5`+more+`}`)
}

// pausePatroni begins a pause, in which the primary may die, and administrators start and promote servers.
func (c *cluster) pausePatroni() {
	if c.paused || c.far != nil {
		return
	}
	c.paused = true
	c.configure()
	c.say("", "patroni paused")
	c.later(25*time.Second, 70*time.Second, func() {
		c.paused = false
		c.configure()
		c.say("", "patroni resumed")
	})
	c.inPause(2*time.Second, 10*time.Second, c.byHand)
}

// inPause has f called when the pause still lasts.
func (c *cluster) inPause(lo, hi time.Duration, f func()) {
	c.later(lo, hi, func() {
		if c.paused {
			f()
		}
	})
}

// byHand is what administrators do in a pause.
func (c *cluster) byHand() {
	p, s := c.primary(), c.standby()
	if p == nil {
		return
	}
	switch x := c.rng.Float64(); {
	case x < 0.2 && s != nil:
		c.fault("promoted by hand beside the primary")
		s.promoteByHand()
	case x < 0.35 && s != nil:
		c.fault("two primaries on one timeline")
		s.startTwin()
	case x < 0.8:
		c.fault("the primary dies in a pause")
		p.crash()
		c.inPause(3*time.Second, 12*time.Second, func() { c.afterDeath(p) })
	}
}

// afterDeath is how an administrator gets a primary again.
func (c *cluster) afterDeath(p *server) {
	s := c.standby()
	switch x := c.rng.Float64(); {
	case x < 0.4 && p.state == archiver.ServerStopped && !p.gone && p.stream.owner == p.name:
		c.fault("started by hand")
		p.start(true, nil)
	case x < 0.7 && s != nil:
		c.fault("promoted by hand")
		s.promoteByHand()
	case x < 0.85 && s != nil:
		c.fault("the only primary of a timeline is its second")
		s.startTwin()
	}
}

func (s *server) promoteByHand() {
	s.w.say(s.name, "promoted by hand")
	s.promote()
}

// startTwin starts a standby as a primary without a promotion: somebody removed its standby.signal.
func (s *server) startTwin() {
	old, at := s.stream, s.stream.end(s.flush)
	s.host.kill()
	s.state, s.streaming, s.arch = archiver.ServerStopped, false, nil
	s.stream = old.twin(s.name, at, s.w.rng.Uint64()|1)
	s.c.streams = append(s.c.streams, s.stream)
	s.c.truth.twin(old, s.stream)
	s.c.check.twoSince = s.w.now
	s.flush, s.from = at, at
	s.w.say(s.name, "started by hand as a second primary of timeline %d at %v", old.tli, at)
	s.start(true, nil)
}

// loopInPause is Patroni's loop: it publishes what it sees, and starts, stops, promotes and demotes nobody.
func (p *patroni) loopInPause() {
	c, s := p.c, p.c.srv[p.name]
	if !c.dcsUp(p.name) {
		return
	}
	p.since = c.now
	c.expireLeader()
	switch {
	case c.leaderKey == p.name && s.state != archiver.ServerPrimary && s.state != archiver.ServerStarting:
		c.say(p.name, "gives the leader key up")
		c.leaderKey = ""
		c.deleteKey("leader")
	case c.leaderKey == "" && s.state == archiver.ServerPrimary:
		c.leaderKey, c.leaderUntil = p.name, c.now.Add(patroniTTL)
		c.count("role change") // without a promotion
		c.say(p.name, "takes the leader key in the pause")
		c.putKey("leader", p.name)
	}
	p.keepKeys()
}
