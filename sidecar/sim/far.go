package sim

import (
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is the other site of a standby cluster (reference: patroni.md 6): its primary, which the standby leader streams
// from. It has no sidecar and no files; its WAL is all there always.

// moveAway makes a standby cluster of a new one: what first has written is the other site's.
func (c *cluster) moveAway(first *server) {
	c.far = &server{w: c.world, c: c, name: "far", state: archiver.ServerPrimary, stream: first.stream, flush: first.flush}
	first.stream.owner = "far"
	first.wipe()
	c.configure()
	c.fault("standby cluster")
	c.say("", "a standby cluster")
}

// leadStandby is Patroni's loop on the leader of a standby cluster.
func (p *patroni) leadStandby(t *proc) {
	c, s := p.c, p.c.srv[p.name]
	if to := c.switchover; to != "" && to != p.name {
		c.say(p.name, "switchover to %s", to)
		c.count("switchover")
		c.leaderKey, c.switchover, c.prefer = "", "", to
		c.deleteKey("leader")
		return
	}
	s.up = c.far
	if left, ok := c.far.stream.descends(s.stream); !ok || s.flush > left {
		s.stop(t, nil)
	}
}

// cloneFar is a base backup of the other site's primary.
func (s *server) cloneFar(p *proc) {
	far := s.c.far
	if !s.c.connected(s, far) {
		return
	}
	s.c.check.lost(s)
	s.wipe()
	p.sleep(s.w.between(time.Second, 4*time.Second))
	if s.c.far == nil || !s.c.connected(s, far) {
		return
	}
	s.initdb()
	s.stream, s.flush, s.crashed, s.cloned = far.stream, far.flush, false, true
	first := segmentSize.At(s.stream.tli, s.flush)
	for range s.w.rng.IntN(6) {
		if first.Prev().Start() >= s.stream.begin && first.No > 1 {
			first = first.Prev()
		}
	}
	for g := first; g.Start() < s.flush; g = g.Next() {
		end := min(s.flush, g.End())
		s.put(g, s.stream.image(g), 0, int(end-g.Start()), end == g.End())
		if end == g.End() {
			s.forceDone(g.String())
		}
	}
	if s.stream.parent != nil {
		name := wal.HistoryName(s.stream.tli).String()
		s.file(name, s.stream.history().Bytes())
		s.forceDone(name)
	}
	s.w.say(s.name, "cloned from the other site, timeline %d up to %v", s.stream.tli, s.flush)
	s.c.count("clone")
	s.start(false, far)
}

// otherSite is what happens there, or to the way there.
func (c *cluster) otherSite() {
	if c.far == nil || c.healed {
		return
	}
	switch x := c.rng.Float64(); {
	case x < 0.3:
		far := c.far
		far.held = true
		c.later(5*time.Second, 30*time.Second, func() { far.held = false })
	case x < 0.7:
		c.failoverFar()
	default:
		if c.primary() == nil {
			return
		}
		c.say("", "the standby cluster is promoted")
		c.fault("standby cluster promoted")
		c.far = nil
		c.configure()
	}
}

// failoverFar promotes another server there: where the WAL ends, or where that server was behind.
func (c *cluster) failoverFar() {
	at := c.far.flush
	if c.chance(0.4) {
		at = c.far.stream.end(max(c.far.stream.begin, at-min(at, wal.LSN(c.rng.IntN(2*int(segmentSize))))))
	}
	if at < c.far.flush {
		c.fault("failover in the other site to a lagging server")
	}
	next := c.far.stream.fork("far", at, c.far.stream.tli+1, c.rng.Uint64()|1)
	c.streams = append(c.streams, next)
	c.far.stream, c.far.flush = next, at
	c.say("far", "promoted to timeline %d at %v", next.tli, at)
	c.fault("failover in the other site")
	c.count("role change")
}
