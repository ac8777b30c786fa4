package sim

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader"
)

// This file is Patroni's daemon: its keys, its loop, its races, and how it brings a node behind the leader.

// patroni is one Patroni daemon.
type patroni struct {
	c       *cluster
	name    string
	host    *host
	since   time.Time // without an answer of the DCS
	rejoins int
	fenced  bool // does nothing, by a fault: as if it hung
}

// startPatroni starts the daemon of a node.
func (c *cluster) startPatroni(name string) {
	p := c.patronis[name]
	p.host, p.since = newHost(c.world), c.now
	p.host.spawn(func(t *proc) {
		t.sleep(c.between(0, patroniLoop))
		for {
			p.loop(t)
			t.sleep(c.between(patroniLoop*3/4, patroniLoop*5/4))
		}
	})
}

// keepKeys is Patroni's heartbeat: it goes on while the loop waits for PostgreSQL.
func (p *patroni) keepKeys() {
	c, s := p.c, p.c.srv[p.name]
	if !c.dcsUp(p.name) {
		return
	}
	if c.leaderKey == p.name {
		c.leaderUntil = c.now.Add(patroniTTL)
		if s.stream != nil {
			c.putKey("status", fmt.Sprintf(`{"optime":%d}`, s.flush))
		}
	}
	c.putKey("members/"+p.name, p.member())
}

func (p *patroni) member() string {
	s := p.c.srv[p.name]
	m := map[string]any{"conn_url": fmt.Sprintf("postgres://%s:5432/postgres", p.name), "api_url": "http://" + p.name + ":8008/patroni", "version": "4.1.4"}
	m["state"], m["role"] = "stopped", "replica"
	switch s.state {
	case archiver.ServerPrimary:
		m["state"], m["role"] = "running", "primary"
	case archiver.ServerStandby:
		m["state"] = "running"
		switch {
		case s.streaming:
			m["replication_state"] = "streaming"
		case s.nostream:
			m["replication_state"] = "in archive recovery"
		}
	case archiver.ServerStarting:
		m["state"] = "starting"
	case archiver.ServerStopping:
		m["state"], m["role"] = "stopping", "demoted"
	}
	if s.state == archiver.ServerPrimary || s.state == archiver.ServerStandby {
		m["timeline"], m["xlog_location"] = s.stream.tli, uint64(s.flush)
	}
	if p.c.far != nil && p.c.leads(s) {
		m["role"] = "standby_leader"
	}
	if tag := p.c.nodes[p.name].tag; tag != "" {
		m["tags"] = map[string]any{leader.TagKey: tag}
	}
	b, err := json.Marshal(m)
	must(err)
	return string(b)
}

// expireLeader removes the leader key when nobody renewed it.
func (c *cluster) expireLeader() {
	if c.leaderKey != "" && !c.now.Before(c.leaderUntil) {
		c.say("", "leader key of %s expired", c.leaderKey)
		c.deleteKey("members/" + c.leaderKey)
		c.leaderKey = ""
		c.deleteKey("leader")
	}
}

// loop is one pass of Patroni's HA loop.
func (p *patroni) loop(t *proc) {
	c, s := p.c, p.c.srv[p.name]
	if p.fenced {
		return
	}
	if c.paused {
		p.loopInPause()
		return
	}
	if !c.dcsUp(p.name) {
		if s.state == archiver.ServerPrimary && c.now.Sub(p.since) > 5*time.Second {
			c.say(p.name, "patroni demotes: the DCS does not answer")
			s.stop(t, nil)
			s.start(false, nil)
		}
		return
	}
	p.since = c.now
	c.expireLeader()
	p.keepKeys()
	switch {
	case c.leaderKey == p.name:
		p.lead(t)
	case c.leaderKey == "":
		p.race()
	default:
		p.followLeader(t, c.srv[c.leaderKey])
	}
}

func (p *patroni) lead(t *proc) {
	c, s := p.c, p.c.srv[p.name]
	switch s.state {
	case archiver.ServerPrimary:
		p.recordHistory()
		if to := c.switchover; to != "" && to != p.name {
			p.handOver(t, c.srv[to])
		}
	case archiver.ServerStandby:
		if c.far != nil {
			p.leadStandby(t)
			return
		}
		t.sleep(c.between(40*time.Millisecond, 350*time.Millisecond))
		if c.leaderKey == p.name && s.state == archiver.ServerStandby {
			s.promote()
			p.keepKeys()
		}
	case archiver.ServerStopped:
		switch {
		case c.far != nil && (s.gone || p.diverged(c.far)):
			s.cloneFar(t)
		case c.far != nil:
			s.start(false, c.far)
		case s.gone:
			c.leaderKey = ""
			c.deleteKey("leader")
		default:
			s.start(s.stream.owner == p.name, nil)
		}
	}
}

// handOver is a switchover: the key is given up when pg_control says "shut down" and the candidate has everything.
func (p *patroni) handOver(t *proc, to *server) {
	c, s := p.c, p.c.srv[p.name]
	c.say(p.name, "switchover to %s", to.name)
	c.count("switchover")
	s.stop(t, func() {
		end := s.flush
		deadline := c.now.Add(5 * time.Second)
		var look func()
		look = func() {
			if c.leaderKey != p.name || c.switchover == "" {
				return
			}
			p.keepKeys()
			if to.flush >= end && to.stream == s.stream || c.now.After(deadline) {
				c.leaderKey, c.switchover, c.prefer = "", "", to.name
				c.deleteKey("leader")
				return
			}
			c.in(200*time.Millisecond, look)
		}
		c.in(200*time.Millisecond, look)
	})
}

// recordHistory writes the "history" key, some time after a promotion.
func (p *patroni) recordHistory() {
	c, s := p.c, p.c.srv[p.name]
	h := s.stream.history()
	if len(h.Forks) == 0 || !c.chance(0.5) {
		return
	}
	var rows [][]any
	for _, f := range h.Forks {
		rows = append(rows, []any{f.Timeline, uint64(f.End), "no recovery target specified"})
	}
	b, err := json.Marshal(rows)
	must(err)
	c.putKey("history", string(b))
}

// race takes the leader key if this node is healthy enough.
func (p *patroni) race() {
	c, s := p.c, p.c.srv[p.name]
	if s.state != archiver.ServerStandby && s.state != archiver.ServerPrimary && (s.state != archiver.ServerStopped || s.gone || s.cloned) {
		return
	}
	if s.state == archiver.ServerStopped && s.stream.owner != p.name && !p.alone() {
		return
	}
	if c.prefer != "" && c.prefer != p.name && c.healthy(c.prefer) && (c.lagged || c.best(c.srv[c.prefer])) {
		return
	}
	switch {
	case c.best(s):
	case c.lagged && s.state == archiver.ServerStandby:
		c.fault("failover to a lagging node")
		c.lagged = false
	default:
		return
	}
	c.prefer = ""
	c.leaderKey, c.leaderUntil = p.name, c.now.Add(patroniTTL)
	c.say(p.name, "takes the leader key")
	c.putKey("leader", p.name)
	c.in(c.between(40*time.Millisecond, 350*time.Millisecond), func() {
		if c.leaderKey == p.name && s.state == archiver.ServerStandby && c.far == nil {
			s.promote()
			p.keepKeys()
		}
	})
}

// best says that nobody whom the others can ask is ahead of s.
func (c *cluster) best(s *server) bool {
	for _, name := range c.names {
		o := c.srv[name]
		if o == s || !c.dcsUp(name) || o.state != archiver.ServerStandby && o.state != archiver.ServerPrimary || o.stream == nil {
			continue
		}
		if o.stream.tli > s.stream.tli || o.stream.tli == s.stream.tli && o.flush > s.flush {
			return false
		}
	}
	return true
}

// alone says that nobody else can lead.
func (p *patroni) alone() bool {
	for _, name := range p.c.names {
		if name != p.name && p.c.healthy(name) {
			return false
		}
	}
	return true
}

func (c *cluster) healthy(name string) bool {
	s := c.srv[name]
	return c.dcsUp(name) && !c.patronis[name].host.dead && (s.state == archiver.ServerStandby || s.state == archiver.ServerPrimary)
}

// followLeader brings a node that is not the leader behind it.
func (p *patroni) followLeader(t *proc, l *server) {
	c, s := p.c, p.c.srv[p.name]
	switch s.state {
	case archiver.ServerPrimary:
		c.say(p.name, "patroni demotes: %s leads", l.name)
		s.crash()
	case archiver.ServerStandby:
		s.up = s.upstream(l)
		if p.diverged(l) || !s.stuck.IsZero() && c.now.Sub(s.stuck) > 15*time.Second {
			s.stop(t, nil)
		}
	case archiver.ServerStopped:
		p.rejoin(t, l)
	}
}

func (p *patroni) diverged(l *server) bool {
	s := p.c.srv[p.name]
	if l.stream == nil || !p.c.leads(l) || s.stream == nil {
		return false
	}
	left, ok := l.stream.descends(s.stream)
	return !ok || s.flush > left
}

// rejoin starts a stopped server as a standby of the leader, after a recovery, a rewind or a clone where that is needed.
func (p *patroni) rejoin(t *proc, l *server) {
	c, s := p.c, p.c.srv[p.name]
	if !c.leads(l) {
		if !s.gone && !s.crashed && s.stream != nil {
			s.start(false, l)
		}
		return
	}
	reclone := s.gone || !s.stuck.IsZero() || p.rejoins > 3
	if !reclone && s.crashed {
		s.singleUser(t)
		c.count("single-user recovery")
	}
	switch {
	case reclone || p.diverged(l) && (c.chance(0.15) || c.far != nil || l.stream.tli == s.stream.tli): // pg_rewind sees nothing to do on one timeline
		if !s.clone(t, l) {
			return
		}
	case p.diverged(l):
		p.rejoins++
		if !s.rewind(t, l) {
			return
		}
	}
	p.rejoins = 0
	if s.state == archiver.ServerStopped && !s.gone {
		s.start(false, l)
	}
}
