package sim

import (
	"context"
	"path/filepath"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/sidecar/wiring"
)

// The settings of DESIGN section 9.
const (
	batonTTL    = 15 * time.Second
	batonEvery  = 5 * time.Second
	batonMargin = 3 * time.Second
	settle      = 200 * time.Millisecond
	workers     = 2
	silence     = 5 * time.Second // after which walbaton-wal thinks that no sidecar runs
)

// node is our sidecar beside one server: the program's app.go, site.go and postgres.go with the clock of the simulation.
type node struct {
	*cluster
	name string
	pg   *server
	keep string // keep_dir

	policy leader.Policy // what its configuration says; read at the start of the sidecar
	maxLag uint64
	tag    leader.Tag // in patroni.yml
	ownTag leader.Tag // as the sidecar read it at its start

	cut, noDCS, noStore bool // its network, by faults
	staleList           bool // the listing under way is an old one

	host     *host
	m        *leader.Machine
	client   dcs.DCS
	lens     *wiring.Lens
	last     *archiver.Cluster // what lens makes of the machine's view, while that stays
	wakes    int
	watching bool
	since    dcs.Reading
	before   dcs.Reading // the reading before the last, for a stale answer
	failed   bool        // the last request to the DCS failed
	answered time.Time   // when the last that was answered was sent
	begun    time.Time
	srv      archiver.Server
	changed  int // counts changes of the server, the view, or the site
	site     *site
	term     *bound
	work     *bound // what the term's lead does, under term
	epoch    uint64
	inTerm   time.Time // the last time that a term was seen alive here
	spoke    time.Time // the last time that its server was the leader's, or streamed from it
	resumed  time.Time // when a pause ended
}

// site is one data directory and its archive.
type site struct {
	a     *archiver.Archiver
	q     *queue.Queue
	b     *bound
	procs int
}

func newNode(c *cluster, name string, s *server) *node {
	return &node{cluster: c, name: name, policy: c.policy, maxLag: c.maxLag, pg: s, keep: filepath.Join(c.dir, name, "keep"), client: c.dcs.Client(), host: &host{w: c.world, dead: true}}
}

func (n *node) alive() bool { return !n.host.dead }

// start starts the sidecar.
func (n *node) start() {
	if n.alive() {
		return
	}
	o := leader.Options{Self: n.name, TTL: batonTTL, Every: batonEvery, Margin: batonMargin, Settle: settle, Policy: n.policy, MaxLag: n.maxLag}
	m, err := leader.NewMachine(o)
	must(err)
	n.host, n.m, n.lens, n.last = newHost(n.world), m, &wiring.Lens{}, nil
	n.ownTag = n.tag
	n.watching, n.failed, n.answered, n.begun, n.term, n.site, n.srv = false, false, time.Time{}, n.now, nil, nil, archiver.Server{State: archiver.ServerUnknown}
	n.say(n.name, "sidecar starts")
	n.host.spawn(n.pollServer)
	n.host.spawn(n.tendSites)
	n.host.spawn(n.announce)
	n.stepSoon(0)
}

// kill is kill -9 of the sidecar.
func (n *node) kill() {
	if !n.alive() {
		return
	}
	n.say(n.name, "sidecar killed")
	n.endTally("killed")
	n.host.kill()
	if n.site != nil {
		n.site.q.Close()
		n.site.a.Close()
		n.site = nil
	}
	n.term = nil
}

// stop ends it as SIGTERM does.
func (n *node) stop() {
	if n.alive() {
		n.say(n.name, "sidecar stops")
		n.m.Stop()
		n.stepSoon(0)
	}
}

func (n *node) pollServer(p *proc) {
	for {
		if now := n.pg.reading(); now != n.srv {
			n.srv = now
			n.changed++
			if n.site != nil {
				n.site.a.Wake()
			}
		}
		p.sleep(n.between(500*time.Millisecond, time.Second))
	}
}

// tendSites opens the archive and works on it, again and again.
func (n *node) tendSites(p *proc) {
	for {
		if err := n.tendSite(p); err != nil {
			n.say(n.name, "no archive: %s", n.clean(err))
		}
		p.sleep(n.between(500*time.Millisecond, 1500*time.Millisecond))
	}
}

func (n *node) tendSite(p *proc) error {
	srv := n.srv
	if srv.SystemID == 0 {
		return nil
	}
	q, err := queue.Open(n.pg.dir, srv.SegmentSize)
	if err != nil {
		return err
	}
	b := newBound(nil)
	s := &site{q: q, b: b}
	s.a, err = n.openSite(b, q, archiver.Options{
		Member: n.name, Workers: workers, Codec: seal.LZ4, EncryptTo: n.recipients(),
		Limits:       archiver.Limits{PushWait: time.Minute, ShutdownWait: 5 * time.Second, StoppedWait: 30 * time.Second},
		StallTimeout: time.Minute, Grace: leader.UploadGrace, KeepDir: n.keep, Log: n.logger(), Now: func() time.Time { return n.now },
	})
	if err != nil {
		q.Close()
		return err
	}
	n.site = s
	n.changed++
	n.say(n.name, "archive open, floor %v", s.a.Archive().Identity().Floor.LSN)
	var ended error
	running := 2
	each := func(f func(*proc, *site) error) {
		n.host.spawn(func(q *proc) {
			if err := f(q, s); err != nil && ended == nil {
				ended = err
				b.end(err)
			}
			running--
		})
	}
	each(n.watch)
	each(n.confirm)
	if n.mirror != nil {
		running++
		each(n.lift)
	}
	n.shipUntil(p, s, b, b, func() []wal.Name { return s.a.NextAlone(b.ctx) })
	for running > 0 {
		p.sleep(50 * time.Millisecond)
	}
	n.site = nil
	n.changed++
	for s.procs > 0 { // pushes and terms let go of it
		p.sleep(50 * time.Millisecond)
	}
	s.a.Close()
	q.Close()
	return ended
}

// watch is archiver.Archiver's: at most every 200 ms when something changed, and every ten seconds.
func (n *node) watch(p *proc, s *site) error {
	last := n.now
	n.pg.dirty = true
	for {
		if n.pg.dirty || n.now.Sub(last) > 10*time.Second {
			n.pg.dirty, last = false, n.now
			if err := s.a.Rescan(); err != nil {
				return err
			}
			s.a.Wake()
		}
		if p.wait(s.b.ctx, n.between(200*time.Millisecond, 400*time.Millisecond)) != nil {
			return nil
		}
	}
}

// confirm is archiver.Archiver's confirmUntil.
func (n *node) confirm(p *proc, s *site) error {
	ctx, a := s.b.ctx, s.a
	listed, followed := false, n.now
	for {
		woken := a.Changed()
		if ok, _ := a.StoreAnswers(); !ok {
			if err := a.Probe(ctx); err != nil && ctx.Err() == nil {
				n.say(n.name, "probe: %s", n.clean(err))
			}
		}
		if ok, _ := a.StoreAnswers(); ok && (!listed || a.Unlisted()) {
			if err := a.List(ctx); err == nil {
				if !listed {
					_ = a.ReadDecisions(ctx)
				}
				listed, followed = true, n.now
			}
		}
		if ok, _ := a.StoreAnswers(); ok && listed && n.now.Sub(followed) > 5*time.Second {
			_ = a.Follow(ctx)
			followed = n.now
		}
		if listed {
			a.Confirm(ctx)
			if err := a.CheckLacks(ctx); err != nil && ctx.Err() == nil {
				n.say(n.name, "lacks: %s", n.clean(err))
			}
			a.ReleaseKept(ctx)
		}
		if !n.rest(p, ctx, woken, 50*time.Millisecond) {
			return nil
		}
	}
}

// rest waits for the bell, at least lo and about a second; false when ctx has ended.
func (n *node) rest(p *proc, ctx context.Context, bell <-chan struct{}, lo time.Duration) bool {
	for until := n.now.Add(n.between(lo, time.Second)); ; {
		if p.wait(ctx, max(lo, n.between(50*time.Millisecond, 250*time.Millisecond))) != nil {
			return false
		}
		select {
		case <-bell:
			return true
		default:
		}
		if !n.now.Before(until) {
			return true
		}
	}
}

// shipUntil is archiver.Archiver's: workers until b ends, whose uploads get the grace.
func (n *node) shipUntil(p *proc, s *site, b, under *bound, next func() []wal.Name) {
	uploads := newBound(nil)
	running := 0
	defer func() { uploads.stop(context.Canceled) }()
	for b.ctx.Err() == nil && under.ctx.Err() == nil {
		woken := s.a.Changed()
		for _, name := range next() {
			for running >= workers && b.ctx.Err() == nil {
				_ = p.wait(b.ctx, 5*time.Millisecond)
			}
			if b.ctx.Err() != nil {
				break
			}
			if name.Kind == wal.KindHistory {
				n.ship(s, uploads, name)
				continue
			}
			running++
			n.host.spawn(func(*proc) {
				n.ship(s, uploads, name)
				running--
			})
		}
		n.rest(p, b.ctx, woken, 5*time.Millisecond)
	}
	// A history is shipped in between, so the term may have ended a while ago.
	n.in(max(0, leader.UploadGrace-n.now.Sub(n.inTerm)), func() { uploads.end(context.Canceled) })
	for running > 0 {
		p.sleep(10 * time.Millisecond)
	}
}

func (n *node) ship(s *site, uploads *bound, name wal.Name) {
	if err := s.a.Ship(uploads.ctx, name); err != nil {
		n.say(n.name, "ship %v: %s", name, n.clean(err))
	}
}

// announce keeps our record true.
func (n *node) announce(p *proc) {
	seen := -1
	var bell <-chan struct{}
	var of *site
	for {
		rung := of != n.site || n.changed != seen
		if bell != nil && !rung {
			select {
			case <-bell:
				rung = true
			default:
			}
		}
		if rung {
			of, seen, bell = n.site, n.changed, nil
			if of != nil {
				bell = of.a.Changed()
			}
			n.m.Announce(n.record())
			n.stepSoon(0)
		}
		p.sleep(n.between(200*time.Millisecond, 500*time.Millisecond))
	}
}

func (n *node) record() leader.Record {
	base := leader.Record{Member: n.name, Policy: n.policy, MaxLag: n.maxLag, Tag: n.ownTag}
	if n.site == nil {
		return wiring.Record(base, n.srv, wal.History{}, nil)
	}
	st := n.site.a.State()
	return wiring.Record(base, n.srv, n.site.a.OwnHistory(), &st)
}

// lead is the work of a term.
func (n *node) lead(p *proc, b *bound, t leader.Term) {
	defer func() {
		if n.term != nil && n.term.ctx.Err() == nil && !n.host.dead {
			n.say(n.name, "term %d: the work returned by itself", n.epoch)
			n.endTally("released")
		}
		n.term = nil
		n.m.LeadDone(n.now)
		n.stepSoon(0)
	}()
	work := newBound(b)
	n.work = work
	defer func() { n.work = nil }()
	for work.ctx.Err() == nil {
		s := n.site
		if s == nil || s.b.ctx.Err() != nil {
			_ = p.wait(work.ctx, 200*time.Millisecond)
			continue
		}
		s.procs++
		n.leadSite(p, s, work, t)
		s.procs--
	}
}

func (n *node) leadSite(p *proc, s *site, b *bound, t leader.Term) {
	a := s.a
	a.BeginTerm(b.ctx, t.Epoch, wiring.SetOf(t.Choice.Errand))
	defer a.EndTerm()
	for b.ctx.Err() == nil && s.b.ctx.Err() == nil {
		err := a.Rescan()
		if err == nil {
			err = a.List(b.ctx)
		}
		if err == nil {
			break
		}
		_ = p.wait(b.ctx, time.Second)
	}
	_ = a.ReadDecisions(b.ctx)
	filling := n.mirror != nil
	if filling {
		n.host.spawn(func(q *proc) { n.fill(q, s, b); filling = false })
		defer func() {
			for filling {
				p.sleep(10 * time.Millisecond)
			}
		}()
	}
	n.shipUntil(p, s, b, s.b, func() []wal.Name {
		if err := a.AdoptOrphans(b.ctx); err != nil && b.ctx.Err() == nil {
			n.say(n.name, "orphans: %s", n.clean(err))
		}
		return a.Shippable()
	})
}

// archiveCommand is walbaton-wal push, called by a thread of PostgreSQL or Patroni.
func (n *node) archiveCommand(p *proc, name wal.Name) int {
	if !n.alive() {
		n.row("13", 1)
		p.sleep(5 * time.Millisecond)
		return 1
	}
	sidecar := n.host
	var reply *archiver.Reply
	b := newBound(nil)
	sidecar.spawn(func(q *proc) {
		r := n.push(q, b.ctx, name)
		reply = &r
		if !p.over {
			p.wake(time.Millisecond)
		}
	})
	defer b.end(context.Canceled)
	heard := n.now
	for reply == nil {
		p.sleep(time.Second)
		if !sidecar.asleep() && !sidecar.dead {
			heard = n.now
		}
		if reply == nil && n.now.Sub(heard) > silence {
			n.row("13", 1)
			return 1
		}
	}
	return reply.Code
}

func (n *node) push(p *proc, ctx context.Context, name wal.Name) archiver.Reply {
	until := n.now.Add(time.Minute)
	for n.site == nil {
		if n.now.After(until) || n.srv.State == archiver.ServerStopping || p.wait(ctx, 500*time.Millisecond) != nil {
			n.row("13", 1)
			return archiver.Reply{Code: 1, Row: "13"}
		}
	}
	s := n.site
	s.procs++
	defer func() { s.procs-- }()
	call := s.a.NewCall(name)
	row := ""
	for {
		woken := s.a.Changed()
		r, done := call.Step(ctx)
		if r.Row != row {
			row = r.Row
			n.count("row: " + row)
		}
		if done {
			n.say(n.name, "push %v: %d by row %s %s", name, r.Code, r.Row, n.cleanText(r.Why))
			n.answer(r.Row, r.Code)
			if r.Code == 0 {
				n.check.acknowledged(n, name, r)
			}
			return r
		}
		for k := 0; ; k++ {
			if p.wait(ctx, n.between(50*time.Millisecond, 200*time.Millisecond)) != nil || s.b.ctx.Err() != nil {
				return archiver.Reply{Code: 1, Row: "13"}
			}
			rung := false
			select {
			case <-woken:
				rung = true
			default:
			}
			if rung || k > 2 {
				break
			}
		}
	}
}
