package sim

import (
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
	mirror       *mirror // a second archive; nil: there is one
	dcsDown      bool
	faults       rates
	patronis     map[string]*patroni
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
	if c.mirror != nil && c.mirror.up(s.name) {
		if _, ok := c.mirror.objects[key(wal.HistoryName(t))]; ok {
			return true
		}
	}
	return c.storeUp(s.name) && c.truth.history(t)
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
