package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

const (
	patroniTTL  = 10 * time.Second
	patroniLoop = 2 * time.Second
)

// cluster is everything: the nodes, Patroni's keys, the two stores and what is known to be true.
type cluster struct {
	*world
	seed    uint64
	dir     string
	names   []string
	nodes   map[string]*node
	srv     map[string]*server
	dcs     *dcsmem.Server
	store   *mem.Store
	truth   *truth
	check   *checker
	tally   *Tally
	policy  leader.Policy // of the nodes that nobody changed
	maxLag  uint64
	mode    string
	slots   bool      // the primary keeps WAL for its standbys
	admin   bool      // somebody looks at the alarms
	decided time.Time // when that person last decided something
	paused  bool      // Patroni's maintenance mode
	far     *server   // the primary of another site, which this standby cluster follows; nil in other clusters
	lagged  bool      // a lagging standby may be elected
	prefer  string
	rate    time.Duration // between two writes of the primary
	healed  bool
	stamp   int64 // of the last write: every content has an mtime of its own

	contents map[int64]*content // by mtime
	scratch  scratch

	leaderKey    string
	leaderUntil  time.Time
	lastChange   time.Time
	lastRevision string
	anyClient    dcs.DCS
	parsed       leader.View // the last reading that somebody made sense of
	slowStore    bool
	streams      []*stream // all that were ever written
	switchover   string    // the candidate, while one is asked for
	written      map[string]string
	storeDown    bool
	dcsDown      bool
	faults       rates
	patronis     map[string]*patroni
}

// patroni is one Patroni daemon.
type patroni struct {
	c       *cluster
	name    string
	host    *host
	since   time.Time // without an answer of the DCS
	rejoins int
	fenced  bool // does nothing, by a fault: as if it hung
}

func newCluster(seed uint64, dir string, tally *Tally) *cluster {
	c := &cluster{world: newWorld(seed), seed: seed, dir: dir, nodes: map[string]*node{}, srv: map[string]*server{},
		written: map[string]string{}, patronis: map[string]*patroni{}, tally: tally, contents: map[int64]*content{}}
	clock := func() time.Time { return c.now }
	c.dcs, c.store = dcsmem.New(clock), mem.New("sim")
	c.anyClient = c.dcs.Client()
	c.store.SetClock(clock)
	c.truth, c.check = newTruth(c), newChecker(c)
	c.policy, c.mode = leader.PolicyPrimary, "always"
	if c.chance(0.35) {
		c.policy = leader.PolicyReplica
	}
	if c.chance(0.4) {
		c.mode = "on"
	}
	c.maxLag = pick(c.world, []uint64{64 << 20, 8 << 20, 2 << 20})
	c.slots, c.rate = c.chance(0.6), c.between(400*time.Millisecond, 3*time.Second)
	n := pick(c.world, []int{2, 3, 3, 3, 4})
	c.say("", "seed %d: %d nodes, archive_mode=%s, policy %s, slots %v", seed, n, c.mode, c.policy, c.slots)
	c.dcs.Put("initialize", fmt.Sprint(uint64(systemID)))
	c.configure()
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		c.names = append(c.names, name)
		s := &server{w: c.world, c: c, name: name, dir: filepath.Join(dir, name, "pg_wal"), mode: c.mode, state: archiver.ServerStopped,
			keep: uint64(1 + c.rng.IntN(3)), maxRec: c.rng.IntN(4)}
		c.srv[name] = s
		c.nodes[name] = newNode(c, name, s)
		c.patronis[name] = &patroni{c: c, name: name}
	}
	c.drawRoles()
	c.bootstrap()
	c.after = c.check.step
	return c
}

// bootstrap begins with n1 as the primary of a new cluster; the others are clones that Patroni makes.
func (c *cluster) bootstrap() {
	first := c.srv["n1"]
	first.initdb()
	first.stream = newStream(waltest.New(systemID, segmentSize), 0, "n1", nil)
	c.streams = append(c.streams, first.stream)
	first.flush = first.stream.begin
	first.from = first.flush
	first.append(func(w *waltest.Writer) { w.Record(500) })
	for _, name := range c.names[1:] {
		c.srv[name].gone = true
	}
	c.leaderKey, c.leaderUntil = "n1", c.now.Add(patroniTTL)
	c.putKey("leader", "n1")
	if c.chance(0.12) {
		c.moveAway(first)
	} else {
		first.start(true, nil)
	}
	for _, name := range c.names {
		c.startPatroni(name)
		c.nodes[name].start()
	}
	c.in(0, c.workload)
	c.in(0, c.replicate)
	if c.admin {
		c.in(0, c.lookAfter)
	}
}

// putKey writes one of Patroni's keys.
func (c *cluster) putKey(key, value string) {
	if c.written[key] == value {
		return
	}
	c.written[key] = value
	c.dcs.Put(key, value)
	if key != "status" {
		c.dcsChanged()
	}
}

func (c *cluster) deleteKey(key string) {
	delete(c.written, key)
	c.dcs.Delete(key)
	c.dcsChanged()
}

// dcsChanged wakes those who watch the scope, a little later.
func (c *cluster) dcsChanged() {
	for _, name := range c.names {
		c.nodes[name].watched()
	}
}

// workload has every running primary write, whoever it thinks it is.
func (c *cluster) workload() {
	for _, name := range c.names {
		s := c.srv[name]
		if s.state == archiver.ServerPrimary && !c.quiet() {
			c.writeSome(s)
		}
	}
	if c.far != nil && !c.quiet() {
		c.writeSome(c.far)
	}
	c.in(c.between(c.rate/2, c.rate*3/2), c.workload)
}

// quiet has the workload end when the cluster was left in peace for a while.
func (c *cluster) quiet() bool { return c.healed && c.now.After(c.check.healedAt.Add(40*time.Second)) }

func (c *cluster) writeSome(s *server) {
	switch n, x := 200+c.rng.IntN(6000), c.rng.IntN(20); {
	case x < 7:
		s.append(func(w *waltest.Writer) { w.Record(n) })
	case x < 9:
		at := c.now
		s.append(func(w *waltest.Writer) { w.Commit(at) })
	case x == 9 && c.chance(0.1):
		s.append(func(w *waltest.Writer) { w.Record(700_000) })
	default:
		s.append(func(w *waltest.Writer) { w.Record(n) })
		s.append(func(w *waltest.Writer) { w.Switch() })
	}
}

// replicate moves WAL to the standbys.
func (c *cluster) replicate() {
	for _, name := range c.names {
		c.srv[name].follow()
	}
	c.in(c.between(100*time.Millisecond, 400*time.Millisecond), c.replicate)
}

// connected says whether two servers reach each other.
func (c *cluster) connected(a, b *server) bool { return !c.cutOff(a) && !c.cutOff(b) }

func (c *cluster) cutOff(s *server) bool {
	if n := c.nodes[s.name]; n != nil {
		return n.cut
	}
	return s != c.far || s.held
}

// leads says whether a server is what the others follow: a primary, or the leader of a standby cluster.
func (c *cluster) leads(s *server) bool {
	return s.state == archiver.ServerPrimary || c.far != nil && s.state == archiver.ServerStandby && c.leaderKey == s.name
}

func (c *cluster) dcsUp(name string) bool {
	return !c.dcsDown && !c.nodes[name].cut && !c.nodes[name].noDCS
}

func (c *cluster) storeUp(name string) bool {
	return !c.storeDown && !c.nodes[name].cut && !c.nodes[name].noStore
}

// neededBy is the lowest segment that a replication slot of this server holds back.
func (c *cluster) neededBy(s *server) uint64 {
	low := ^uint64(0)
	for _, name := range c.names {
		o := c.srv[name]
		if o != s && o.stream != nil && (o.state == archiver.ServerStandby || o.state == archiver.ServerStarting) {
			low = min(low, segmentSize.At(1, o.flush).No)
		}
	}
	return low
}

// historyForPromotion is what restore_command answers to a server that looks for a free timeline number: the archive's
// history, if the archive answers.
func (c *cluster) historyForPromotion(s *server, t wal.Timeline) bool {
	return c.storeUp(s.name) && c.truth.history(t)
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
	if c.prefer != "" && c.prefer != p.name && c.healthy(c.prefer) {
		return
	}
	best := true
	for _, name := range c.names {
		o := c.srv[name]
		if o == s || !c.dcsUp(name) || o.state != archiver.ServerStandby && o.state != archiver.ServerPrimary || o.stream == nil {
			continue
		}
		if o.stream.tli > s.stream.tli || o.stream.tli == s.stream.tli && o.flush > s.flush {
			best = false
		}
	}
	switch {
	case best:
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

// remove deletes the cluster's folders.
func (c *cluster) remove() {
	for _, name := range c.names {
		c.nodes[name].kill()
		if h := c.srv[name].host; h != nil {
			h.kill()
		}
		c.patronis[name].host.kill()
	}
	os.RemoveAll(c.dir)
}
