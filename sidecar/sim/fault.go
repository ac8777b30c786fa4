package sim

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// trouble is one thing that goes wrong at a moment that the schedule draws.
type trouble struct {
	name   string
	weight int
	f      func(c *cluster)
}

func troubles() []trouble {
	return []trouble{
		{"store outage", 8, (*cluster).storeOutage},
		{"DCS outage", 4, (*cluster).dcsOutage},
		{"sidecar crash", 6, (*cluster).sidecarCrash},
		{"sidecar stop", 3, (*cluster).sidecarStop},
		{"the work returns by itself", 2, (*cluster).workReturns},
		{"process pause", 5, (*cluster).pause},
		{"holder without the DCS", 3, (*cluster).holderWithoutDCS},
		{"node without the store", 4, (*cluster).nodeWithoutStore},
		{"crash and restart", 14, (*cluster).primaryCrash},
		{"standby crash", 4, (*cluster).standbyCrash},
		{"postgresql crash", 4, (*cluster).postgresCrash},
		{"switchover", 14, (*cluster).askSwitchover},
		{"switchover without the store", 4, (*cluster).switchoverWithoutStore},
		{"failover of a lagging cluster", 5, (*cluster).laggingFailover},
		{"disk loss", 3, (*cluster).diskLoss},
		{"reclone", 3, (*cluster).reclone},
		{"partition of the primary", 5, (*cluster).partition},
		{"patroni hangs", 4, (*cluster).patroniHangs},
		{"double promotion", 6, (*cluster).doublePromotion},
		{"foreign history", 4, (*cluster).foreignHistory},
		{"two holes", 5, (*cluster).twoHoles},
		{"slow store and a crash", 4, (*cluster).slowCrash},
		{"expire", 6, (*cluster).expire},
		{"bit rot", 3, (*cluster).bitRot},
		{"archive damaged", 4, (*cluster).archiveDamaged},
		{"ready again", 4, (*cluster).readyAgain},
		{"base backup", 5, (*cluster).baseBackup},
		{"replication stands still", 4, (*cluster).replicationHeld},
		{"rolling change of the policy", 4, (*cluster).rollingChange},
		{"tags change", 5, (*cluster).changeTags},
		{"pause", 8, (*cluster).pausePatroni},
	}
}

// later undoes something, unless the healing did.
func (c *cluster) later(lo, hi time.Duration, f func()) {
	c.in(c.between(lo, hi), func() {
		if !c.healed {
			f()
		}
	})
}

func (c *cluster) storeOutage() {
	c.storeDown = true
	c.later(5*time.Second, 60*time.Second, func() { c.storeDown = false })
}

func (c *cluster) dcsOutage() {
	c.dcsDown = true
	c.later(4*time.Second, 40*time.Second, func() { c.dcsDown = false; c.dcsChanged() })
}

func (c *cluster) any() *node { return c.nodes[pick(c.world, c.names)] }

// holder is the node with the baton, else any.
func (c *cluster) holder() *node {
	for _, name := range c.names {
		if n := c.nodes[name]; n.term != nil {
			return n
		}
	}
	return c.any()
}

func (c *cluster) primary() *server {
	if s := c.srv[c.leaderKey]; s != nil && s.stream != nil && c.leads(s) {
		return s // of a standby cluster, the standby leader
	}
	return nil
}

func (c *cluster) standby() *server {
	var all []*server
	for _, name := range c.names {
		if s := c.srv[name]; s.state == archiver.ServerStandby && s.stream != nil && !s.nostream {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return pick(c.world, all)
}

func (c *cluster) victim() *node {
	if c.chance(0.6) {
		return c.holder()
	}
	return c.any()
}

func (c *cluster) sidecarCrash() {
	n := c.victim()
	n.kill()
	c.later(time.Second, 40*time.Second, n.start)
}

func (c *cluster) sidecarStop() {
	c.victim().restart(5*time.Second, 30*time.Second)
}

// restart stops the sidecar, and starts it some time after it has stopped: also after the healing, which cannot start what still stops.
func (n *node) restart(lo, hi time.Duration) {
	n.stop()
	var look func()
	look = func() {
		if n.alive() {
			n.in(time.Second, look)
			return
		}
		n.in(n.between(lo, hi), n.start)
	}
	look()
}

// workReturns ends the work of a term, as an error that nobody foresaw would: the baton goes back.
func (c *cluster) workReturns() {
	if n := c.holder(); n.work != nil {
		n.work.end(context.Canceled)
	}
}

func (c *cluster) pause() {
	n := c.victim()
	if !n.alive() {
		return
	}
	d := c.between(2*time.Second, 40*time.Second)
	n.host.paused = c.now.Add(d)
	n.resumed = n.host.paused
	c.say(n.name, "sidecar paused for %v", d)
}

func (c *cluster) holderWithoutDCS() {
	n := c.holder()
	n.noDCS = true
	c.later(10*time.Second, 40*time.Second, func() { n.noDCS = false })
}

func (c *cluster) nodeWithoutStore() {
	n := c.victim()
	n.noStore = true
	c.later(5*time.Second, 60*time.Second, func() { n.noStore = false })
}

// machineDown takes a whole machine away.
func (c *cluster) machineDown(name string) {
	n, s := c.nodes[name], c.srv[name]
	c.say(name, "machine down")
	n.kill()
	c.patronis[name].host.kill()
	if s.host != nil {
		s.crash()
	}
	if !s.gone && c.chance(0.3) {
		c.loseStatus(s)
	}
}

// loseStatus forgets the youngest status file: PostgreSQL does not fsync it.
func (c *cluster) loseStatus(s *server) {
	ready := s.readyFiles()
	if len(ready) == 0 {
		return
	}
	n := ready[len(ready)-1]
	os.Remove(s.status(n.String(), ".ready"))
	c.say(s.name, "the status of %v was not yet on disk", n)
	c.fault("status file lost")
}

func (c *cluster) machineUp(name string) {
	c.say(name, "machine up")
	if c.patronis[name].host.dead {
		c.startPatroni(name)
	}
	c.nodes[name].start()
}

func (c *cluster) primaryCrash() {
	s := c.primary()
	if s == nil {
		return
	}
	if c.chance(0.5) {
		c.storeOutage()
	}
	c.in(c.between(0, 15*time.Second), func() {
		if c.healed {
			return
		}
		c.machineDown(s.name)
		c.later(12*time.Second, 60*time.Second, func() { c.machineUp(s.name) })
	})
}

func (c *cluster) standbyCrash() {
	if s := c.standby(); s != nil {
		c.machineDown(s.name)
		c.later(2*time.Second, 40*time.Second, func() { c.machineUp(s.name) })
	}
}

func (c *cluster) postgresCrash() {
	s := c.srv[pick(c.world, c.names)]
	if s.host != nil && !s.gone {
		s.crash()
	}
}

func (c *cluster) askSwitchover() {
	if s := c.standby(); s != nil && c.primary() != nil {
		c.switchover = s.name
		c.in(30*time.Second, func() { c.switchover = "" })
	}
}

func (c *cluster) switchoverWithoutStore() {
	c.storeOutage()
	c.in(c.between(time.Second, 10*time.Second), c.askSwitchover)
}

// laggingFailover loses the primary while one standby is behind, and has that one elected.
func (c *cluster) laggingFailover() {
	p, s := c.primary(), c.standby()
	if p == nil || s == nil {
		return
	}
	s.held = true
	if c.chance(0.5) {
		c.storeOutage()
	}
	c.in(c.between(4*time.Second, 15*time.Second), func() {
		s.held = false
		if c.healed || c.primary() != p {
			return
		}
		c.lagged, c.prefer = true, s.name
		s.up = nil
		c.machineDown(p.name)
		c.later(12*time.Second, 40*time.Second, func() { c.machineUp(p.name) })
	})
}

func (c *cluster) diskLoss() {
	s := c.srv[pick(c.world, c.names)]
	if s.gone {
		return
	}
	c.machineDown(s.name)
	c.check.lost(s)
	s.wipe()
	must(os.RemoveAll(c.nodes[s.name].keep))
	c.say(s.name, "disk lost")
	c.later(10*time.Second, 40*time.Second, func() { c.machineUp(s.name) })
}

func (c *cluster) reclone() {
	if s := c.standby(); s != nil {
		c.say(s.name, "reinit")
		s.stuck = c.now.Add(-time.Minute)
	}
}

func (c *cluster) partition() {
	if s := c.primary(); s != nil {
		n := c.nodes[s.name]
		n.cut = true
		c.say(s.name, "cut off")
		c.later(8*time.Second, 40*time.Second, func() { n.cut = false; c.say(n.name, "connected again") })
	}
}

// patroniHangs leaves a primary running that nobody demotes: another one is elected beside it.
func (c *cluster) patroniHangs() {
	if s := c.primary(); s != nil {
		p := c.patronis[s.name]
		p.fenced = true
		c.later(12*time.Second, 35*time.Second, func() { p.fenced = false })
	}
}

// doublePromotion loses the primary, cuts off the node that is promoted before anybody heard of its timeline, and has a third
// node promoted, to the same number if the archive does not know better. In half of the cases one of the two lagged, so that the
// timelines fork off at different places.
func (c *cluster) doublePromotion() {
	p := c.primary()
	if p == nil || len(c.names) < 3 {
		return
	}
	if c.chance(0.6) {
		c.storeOutage()
	}
	if c.chance(0.2) {
		c.foreignHistory()
	}
	s := c.standby()
	if s == nil || c.chance(0.5) {
		c.losePrimary(p)
		return
	}
	s.held = true
	c.in(c.between(2*time.Second, 10*time.Second), func() {
		s.held = false
		if c.healed || c.primary() != p {
			return
		}
		c.lagged, s.up = true, nil
		c.losePrimary(p)
	})
}

// losePrimary is the rest of doublePromotion.
func (c *cluster) losePrimary(p *server) {
	old := p.stream
	c.machineDown(p.name)
	c.later(40*time.Second, 70*time.Second, func() { c.machineUp(p.name) })
	tries := 0
	var look func()
	look = func() {
		tries++
		s := c.primary()
		switch {
		case c.healed || tries > 600:
		case s == nil || s.stream == old:
			c.in(50*time.Millisecond, look)
		default:
			n := c.nodes[s.name]
			n.cut, c.patronis[s.name].fenced = true, c.chance(0.5)
			c.say(s.name, "cut off right after its promotion")
			c.later(15*time.Second, 45*time.Second, func() {
				n.cut, c.patronis[s.name].fenced = false, false
				c.say(n.name, "connected again")
			})
		}
	}
	c.in(50*time.Millisecond, look)
}

// foreignHistory is what a careless test restore leaves: the history of the next timeline, with a fork of its own.
func (c *cluster) foreignHistory() {
	s := c.primary()
	if s == nil || c.truth.history(s.stream.tli+1) || len(c.truth.floors) == 0 {
		return
	}
	h := s.stream.history()
	h.Forks = append(h.Forks, wal.Fork{Timeline: h.Timeline, End: s.stream.begin + 0x1000, Reason: "before 2026-01-01"})
	h.Timeline++
	c.putForeign(wal.HistoryName(h.Timeline), h.Bytes())
}

func (c *cluster) segments(s *server, want func(wal.Name) bool) []wal.Name {
	var out []wal.Name
	if s.gone || s.stream == nil {
		return nil
	}
	for _, n := range s.names() {
		own := s.stream.owns(n.Segment)
		if n.Kind == wal.KindSegment && own != nil && n.Segment.End() <= min(s.flush, own.w.Pos()) && s.stream.history().Holds(n.Segment) && want(n) {
			out = append(out, n)
		}
	}
	return out
}

// twoHoles takes, while the store is away, one segment from everybody and a later one from the primary alone.
func (c *cluster) twoHoles() {
	c.storeOutage()
	c.in(c.between(8*time.Second, 20*time.Second), func() {
		s := c.primary()
		if s == nil || c.healed || !c.storeDown {
			return
		}
		open := c.segments(s, func(n wal.Name) bool { _, ok := c.truth.object(n); return !ok && !c.half(n) })
		if len(open) < 4 {
			return
		}
		for _, name := range c.names {
			c.takeAway(c.srv[name], open[0])
		}
		for _, n := range open[2 : len(open)-1] {
			if c.elsewhere(s, n) {
				c.takeAway(s, n)
				c.fault("two holes, nobody owns the first")
				break
			}
		}
	})
}

func (c *cluster) elsewhere(s *server, n wal.Name) bool {
	for _, name := range c.names {
		if o := c.srv[name]; o != s && !o.gone && there(o.path(n.String())) && there(o.status(n.String(), ".ready")) {
			return true
		}
	}
	return false
}

// half says whether a server has n in part: its walreceiver goes on with that file, wherever the name is.
func (c *cluster) half(n wal.Name) bool {
	return slices.ContainsFunc(c.names, func(name string) bool {
		s := c.srv[name]
		return !s.gone && s.stream != nil && there(s.path(n.String())) && n.Segment.End() > s.flush
	})
}

// takeAway is a file that is lost on one disk.
func (c *cluster) takeAway(s *server, n wal.Name) {
	if s.gone || s.stream == nil || !there(s.path(n.String())) {
		return
	}
	must(os.Remove(s.path(n.String())))
	os.Remove(s.status(n.String(), ".ready"))
	os.Remove(s.status(n.String(), ".done"))
	os.Remove(c.nodes[s.name].keep + "/" + n.String())
	c.check.forget(s, n.Segment)
	s.dirty = true
	c.say(s.name, "%v is lost on this disk", n)
}

// slowCrash has the old primary rewound while the store is slow.
func (c *cluster) slowCrash() {
	c.slowStore = true
	c.later(40*time.Second, 80*time.Second, func() { c.slowStore = false })
	c.primaryCrash()
}

// readyAgain brings back the .ready of files archived long ago, as PostgreSQL and Patroni do.
func (c *cluster) readyAgain() {
	s := c.srv[pick(c.world, c.names)]
	for _, n := range c.segments(s, func(wal.Name) bool { return c.chance(0.3) }) {
		os.Remove(s.status(n.String(), ".done"))
		s.notify(n.String())
	}
}

// baseBackup makes a .backup file on the primary.
func (c *cluster) baseBackup() {
	s := c.primary()
	if s == nil || c.far != nil {
		return
	}
	g := segmentSize.At(s.stream.tli, s.flush)
	n := wal.Name{Kind: wal.KindBackup, Segment: g, Offset: 0x28}
	if there(s.path(n.String())) {
		return
	}
	s.file(n.String(), fmt.Appendf(nil, "START WAL LOCATION: %v (file %v)\nLABEL: %s at %v\n", s.flush, g, s.name, c.now.Sub(c.start)))
	s.notify(n.String())
}

func (c *cluster) replicationHeld() {
	if s := c.standby(); s != nil {
		s.held = true
		c.later(5*time.Second, 30*time.Second, func() { s.held = false })
	}
}

// occurrences are the faults that are counted where they are noticed, beside the troubles that are drawn.
func occurrences() []string {
	out := []string{}
	for _, f := range []string{"dcs drop", "dcs hang", "dcs lost reply", "dcs late write", "dcs stale read", "dcs slow", "store drop", "store hang",
		"store lost reply", "store late write", "store stale read", "store slow", "failover to a lagging node", "double promotion to one number", "clone all done",
		"two holes, nobody owns the first", "both nodes rewound", "slow store at the rewind", "timeline 1 under the policy replica", "status file lost",
		"bit rot", "archive damaged", "expire", "mixed policies", "a designated replica takes the baton", "the holder falls behind max_lag",
		"streams from a standby", "reads the archive only", "resolve keep-archive", "resolve accept", "resolve apart",
		"the primary dies in a pause", "started by hand", "promoted by hand", "promoted by hand beside the primary", "two primaries on one timeline", "the only primary of a timeline is its second",
		"standby cluster", "failover in the other site", "failover in the other site to a lagging server", "standby cluster promoted", "the standby leader follows a timeline", "a timeline followed from the archive alone"} {
		out = append(out, "fault: "+f)
	}
	return append(out, "rewind", "clone", "single-user recovery", "switchover", "shipped without the DCS", "opened a timeline without the baton")
}

func (c *cluster) bg() context.Context { return context.Background() }
