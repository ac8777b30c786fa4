package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// This file is what administrators choose: policies, tags, and from where a standby gets its WAL.

// drawRoles gives some members of some clusters a role of their own.
func (c *cluster) drawRoles() {
	for _, name := range c.names {
		switch x := c.rng.Float64(); {
		case x < 0.12:
			c.nodes[name].tag = leader.TagDesignated
		case x < 0.16:
			c.nodes[name].tag = leader.TagNever
		}
	}
	c.admin = c.chance(0.5)
	if len(c.names) < 3 {
		return
	}
	last := c.srv[c.names[len(c.names)-1]]
	switch x := c.rng.Float64(); {
	case x < 0.2:
		last.cascade = c.names[len(c.names)-2]
	case x < 0.32:
		last.nostream = true
		c.fault("reads the archive only")
	}
}

// rollingChange gives one node after the other another policy, each with a restart of its sidecar. Some of them are given up halfway.
func (c *cluster) rollingChange() {
	policy, maxLag := leader.PolicyPrimary, pick(c.world, []uint64{64 << 20, 8 << 20, 2 << 20})
	if c.nodes[c.names[0]].policy == leader.PolicyPrimary {
		policy = leader.PolicyReplica
	}
	names := slices.Clone(c.names)
	c.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var next func()
	next = func() {
		if c.healed || len(names) == 0 || c.chance(0.1) {
			return
		}
		n := c.nodes[names[0]]
		names = names[1:]
		c.say(n.name, "gets the policy %s, max_lag %d", policy, maxLag)
		n.policy, n.maxLag = policy, maxLag
		if len(names) > 0 {
			c.fault("mixed policies")
		}
		n.restart(time.Second, 3*time.Second)
		c.in(c.between(5*time.Second, 25*time.Second), next)
	}
	next()
}

// changeTags edits one member's tag in patroni.yml; Patroni publishes it with its next loop, and the sidecar reads it when it starts.
func (c *cluster) changeTags() {
	n := c.any()
	n.tag = pick(c.world, []leader.Tag{"", leader.TagDesignated, leader.TagDesignated, leader.TagNever})
	c.say(n.name, "gets the tag %q", n.tag)
}

// began holds the beginning of a term to the reading that decided it.
func (n *node) began(t leader.Term) {
	tag, _ := t.View.Cluster.Members[n.name].Tags[leader.TagKey].(string)
	switch leader.Tag(tag) {
	case leader.TagNever:
		// It was chosen by a reading from before the tag; the next one ends the term, and without one the lease does.
		n.in(15*time.Second, func() {
			if n.epoch == t.Epoch && n.term != nil && n.alive() && !n.host.asleep() && n.term.ctx.Err() == nil && n.tag == leader.TagNever {
				n.check.fail("P4", "%s keeps the baton, and is tagged never", n.name)
			}
		})
	case leader.TagDesignated:
		if t.Choice.Rule == leader.RulePolicy && n.leaderKey != n.name {
			n.fault("a designated replica takes the baton")
		}
	}
}

// fellBehind counts the terms that end because a replica lags.
func (n *node) fellBehind(cause error) {
	v, _ := n.m.View()
	policy, maxLag := v.Policy()
	m, ok := v.Cluster.Members[n.name]
	head := max(v.Cluster.Members[v.Cluster.Leader].LSN, v.Cluster.Optime)
	if errors.Is(cause, leader.ErrDemoted) && policy == leader.PolicyReplica && ok && m.Role == "replica" && m.LSN+maxLag < head {
		n.fault("the holder falls behind max_lag")
	}
}

// upstream is whom a standby streams from: the leader, or the member that its tag replicatefrom names.
func (s *server) upstream(l *server) *server {
	o := s.c.srv[s.cascade]
	if o == nil || o == s || o == l || o.state != archiver.ServerStandby || !s.c.connected(s, o) {
		return l
	}
	if s.up != o {
		s.c.fault("streams from a standby")
	}
	return o
}

// restoreNext is a standby that streams from nobody: restore_command gives it the next segment, of the newest timeline that leads
// on from its own, as recovery_target_timeline = latest wants it.
func (s *server) restoreNext() {
	if !s.c.storeUp(s.name) {
		return
	}
	line := s.stream
	for _, x := range s.c.streams {
		left, ok := x.descends(s.stream)
		if ok && left >= s.flush && x.tli > line.tli && slices.Contains(s.c.truth.writers[x.tli], x) && s.c.truth.history(x.tli) {
			line = x
		}
	}
	g := segmentSize.At(line.tli, s.from)
	g = g.On(line.history().TimelineAt(g.End() - 1))
	if !s.c.truth.holds(line, g) {
		return
	}
	if own := line.owns(g); own != s.stream {
		s.c.fault("a timeline followed from the archive alone")
		s.w.say(s.name, "follows to timeline %d by the archive", own.tli)
		for x := own; x.parent != nil; x = x.parent {
			if name := wal.HistoryName(x.tli).String(); !there(s.path(name)) {
				s.file(name, x.history().Bytes())
				s.received(name)
			}
		}
		s.stream = own
	}
	s.from = g.Start()
	s.write(g.End())
}
