package sim

import (
	"bytes"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Result is what one seed gave.
type Result struct {
	Seed uint64
	Log  []byte   // the event log
	Errs []string // broken promises, none when all were kept
}

const (
	calm    = 60 * time.Second  // at least this long the cluster is left in peace
	patient = 900 * time.Second // after this long what is owed must be in the archive
)

// Run plays one seed in an empty folder, best on tmpfs, and counts what occurred.
func Run(seed uint64, dir string, tally *Tally) Result { return play1(seed, dir, tally, nil) }

// play1 is Run; more, if it is not nil, changes the cluster before it begins, and is told when the troubles end.
func play1(seed uint64, dir string, tally *Tally, more func(c *cluster, end time.Duration)) (r Result) {
	c := newCluster(seed, dir, tally)
	defer c.remove()
	defer func() {
		if p := recover(); p != nil { // one seed is broken, and the others are played all the same
			c.say("!!", "panic: %v\n%s", p, debug.Stack())
			r = Result{Seed: seed, Log: c.log.Bytes(), Errs: append(c.check.errs, fmt.Sprintf("panic: %v", p))}
		}
	}()
	tally.Seed()
	if c.chance(0.8) {
		c.faults = rates{drop: 0.01, hang: 0.004, lost: 0.01, late: 0.01, stale: 0.01, slow: 0.02}
	}
	all := troubles()
	total := 0
	for _, t := range all {
		total += t.weight
	}
	end := c.between(100*time.Second, 190*time.Second)
	if more != nil {
		more(c, end)
	}
	for range 5 + c.rng.IntN(6) {
		x := c.rng.IntN(total)
		for _, t := range all {
			if x -= t.weight; x < 0 {
				c.in(c.between(10*time.Second, end), func() {
					if c.healed || c.mirror != nil && changesTheArchive(t.name) {
						return
					}
					c.say("", "trouble: %s", t.name)
					c.fault("trouble " + t.name)
					t.f(c)
				})
				break
			}
		}
	}
	if c.far != nil {
		for range 1 + c.rng.IntN(3) {
			c.in(c.between(10*time.Second, end), c.otherSite)
		}
	}
	c.run(c.start.Add(end), nil)
	c.heal()
	c.settle()
	return Result{Seed: seed, Log: c.log.Bytes(), Errs: c.check.errs}
}

// heal ends every fault: what is down comes up, and stays.
func (c *cluster) heal() {
	c.say("", "all faults end")
	c.healed, c.check.healedAt = true, c.now
	c.storeDown, c.dcsDown, c.slowStore, c.lagged, c.prefer, c.switchover = false, false, false, false, "", ""
	c.paused = false
	if c.far != nil {
		c.far.held = false
	}
	if c.mirror != nil {
		c.mirror.down = false
		clear(c.mirror.without)
	}
	c.configure()
	for _, name := range c.names {
		n, s, p := c.nodes[name], c.srv[name], c.patronis[name]
		n.cut, n.noDCS, n.noStore, s.held, p.fenced = false, false, false, false, false
		if n.host.paused.After(c.now) {
			n.host.paused = c.now // what sleeps already wakes when the pause was to end: resumed says that
		}
		if p.host.dead {
			c.startPatroni(name)
		}
		n.start()
	}
	c.dcsChanged()
}

// settle leaves the cluster in peace until everything owed is in the archive.
func (c *cluster) settle() {
	c.check.atHeal = c.check.survey()
	limit := c.now.Add(patient)
	for c.now.Before(limit) {
		c.run(c.now.Add(10*time.Second), nil)
		if c.now.Sub(c.check.healedAt) >= calm && len(c.check.missing()) == 0 && len(c.check.stuck()) == 0 && (c.mirror == nil || len(c.mirror.missing()) == 0) {
			return
		}
	}
	for _, m := range c.check.missing() {
		c.check.fail("P5", "%s is not in the archive", m)
	}
	if c.mirror != nil {
		for _, m := range c.mirror.missing() {
			c.check.fail("P5", "%s", m)
		}
	}
	if c.now.Sub(c.decided) < 2*time.Minute {
		return // the administrator decides about one file after the other
	}
	for _, m := range c.check.stuck() {
		c.check.fail("stuck", "%s", m)
	}
}

// putForeign puts an object that no sidecar of ours wrote.
func (c *cluster) putForeign(n wal.Name, plain []byte) {
	s, err := seal.New(seal.LZ4)
	must(err)
	packed, err := s.Pack(bytes.NewReader(plain), int64(len(plain)))
	must(err)
	defer packed.Close()
	sealed, err := packed.Seal(seal.Header{Name: n.String(), SystemID: systemID, Member: "restore"})
	must(err)
	data, err := io.ReadAll(sealed)
	must(err)
	must(c.store.Put(c.bg(), key(n), archiver.Bytes(data)))
	c.truth.objects[key(n)] = c.truth.open(data)
	c.say("", "somebody put %v", n)
}

func readAll(r io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
