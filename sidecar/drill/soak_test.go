//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	soakSeed    = flag.Uint64("soak.seed", 1, "what the soak draws its cluster, role changes and faults from")
	soakChanges = flag.Int("soak.changes", 10, "role changes to make; the oracle is asked after every ten")
	soakDCS     = flag.String("soak.dcs", "", "the DCS; drawn when empty")
	soakReport  = flag.String("soak.report", "", "a `file` for what happened, as JSON")
)

// soak is a cluster that goes through random role changes, during random faults.
type soak struct {
	*scenario
	rng    *rand.Rand
	report soakResult
	fault  *fault
	cloned map[*Node]bool // since the archive was last whole: they may lack what only the others have
	longer bool           // the fault stays for the next role change, too

	failsafe bool // failsafe_mode
}

// soakResult is what a soak did.
type soakResult struct {
	Seed    uint64       `json:"seed"`
	DCS     DCS          `json:"dcs"`
	Policy  string       `json:"policy"`
	Place   Place        `json:"place"`
	Changes []roleChange `json:"changes"`
	Oracles int          `json:"oracles"` // how often everything was restored and compared
	Rows    int          `json:"rows"`    // acknowledged rows that were compared
	Lost    int          `json:"lost"`    // acknowledged and on no server afterwards: asynchronous replication
	Cloned  int          `json:"cloned"`  // nodes that an administrator had to clone anew: see back
	Seconds float64      `json:"seconds"`
}

type roleChange struct {
	Kind     string  `json:"kind"`
	Fault    string  `json:"fault"` // "" without one
	Timeline uint64  `json:"timeline"`
	Seconds  float64 `json:"seconds"`
}

// deed is one way to change who the primary is. It returns when a node takes writes on a new timeline, with everything that it
// stopped running again.
type deed struct {
	name   string
	weight int
	do     func(s *soak, p *Node)
}

// fault is something that is wrong with the store or the DCS while a role changes, or with the sidecars.
type fault struct {
	name       string
	weight     int
	begin, end func(s *soak) func(context.Context) error
	brief      bool // it begins and ends by itself while the role changes
}

func deeds() []deed {
	return []deed{
		{"switchover", 14, func(s *soak, p *Node) {
			to := s.any(s.Standbys(p))
			s.do(to.Name+" becomes the primary", s.switchover(to))
		}},
		{"the node dies", 12, func(s *soak, p *Node) {
			s.do("kill -9 of everything on "+p.Name, p.Kill)
			s.promotedInsteadOf(p)
			s.do(p.Name+" starts again", p.Start)
		}},
		{"Patroni dies, PostgreSQL goes on", 10, func(s *soak, p *Node) {
			s.do("kill -9 of Patroni on "+p.Name, p.KillPatroni)
			s.promotedInsteadOf(p)
			s.do("Patroni starts again on "+p.Name, p.StartPatroni)
		}},
		{"PostgreSQL dies", 10, func(s *soak, p *Node) {
			s.do("kill -9 of PostgreSQL on "+p.Name, p.KillPostgres)
			s.promotedInsteadOf(p)
		}},
		{"the node freezes", 10, func(s *soak, p *Node) {
			s.do(p.Name+" freezes", p.Freeze)
			s.promotedInsteadOf(p)
			s.do(p.Name+" goes on", p.Thaw)
		}},
		{"the DCS is out of reach", 10, func(s *soak, p *Node) {
			s.do(p.Name+" is cut off from the DCS", p.CutFromDCS)
			s.promotedInsteadOf(p)
			s.do(p.Name+" is connected again", p.Mend)
		}},
		{"the node is cut off", 10, func(s *soak, p *Node) {
			s.do(p.Name+" is cut off from the DCS, the store and the others", func(ctx context.Context) error {
				err := errors.Join(p.CutFromDCS(ctx), p.CutFromStore(ctx))
				for _, other := range s.Standbys(p) {
					err = errors.Join(err, p.CutFrom(ctx, other))
				}
				return err
			})
			s.promotedInsteadOf(p)
			s.do(p.Name+" is connected again", p.Mend)
		}},
		{"Patroni is stopped", 8, func(s *soak, p *Node) {
			s.do("Patroni is stopped on "+p.Name, p.StopPatroni)
			s.promotedInsteadOf(p)
			s.do("and started", p.StartPatroni)
		}},
		{"the disk is lost", 8, (*soak).loseDisk},
		{"switchover, and the new primary dies", 8, func(s *soak, p *Node) {
			to := s.any(s.Standbys(p))
			s.do(to.Name+" becomes the primary", s.switchover(to))
			s.do("and is killed", to.Kill)
			s.promotedInsteadOf(to)
			s.do(to.Name+" starts again", to.Start)
		}},
		{"the primary and a standby die", 8, func(s *soak, p *Node) {
			other := s.any(s.Standbys(p))
			s.do("kill -9 of "+p.Name+" and "+other.Name, func(ctx context.Context) error { return errors.Join(p.Kill(ctx), other.Kill(ctx)) })
			s.promotedInsteadOf(p)
			s.do("both start again", func(ctx context.Context) error { return errors.Join(p.Start(ctx), other.Start(ctx)) })
		}},
		{"the DCS is away", 6, func(s *soak, p *Node) {
			s.do("the DCS goes away", s.StopDCS)
			s.do("the primary steps down", s.nobodyWrites)
			s.do("the DCS comes back", s.StartDCS)
			s.do("a node takes writes", s.promoted)
		}},
	}
}

// loseDisk kills the node for good; a clone takes its place. If another node is such a clone, and the archive was not whole since,
// the primary may be the only one that has some WAL: then it only dies.
func (s *soak) loseDisk(p *Node) {
	s.do("kill -9 of everything on "+p.Name, p.Kill)
	s.promotedInsteadOf(p)
	for n := range s.cloned {
		if n != p {
			s.do(p.Name+" starts again", p.Start)
			return
		}
	}
	s.cloned[p] = true
	s.do(p.Name+" is cloned anew", p.Reinit)
}

func faults() []fault {
	store := func(verb func(*Cluster, context.Context) error) func(s *soak) func(context.Context) error {
		return func(s *soak) func(context.Context) error {
			return func(ctx context.Context) error { return verb(s.Cluster, ctx) }
		}
	}
	return []fault{
		{name: "the store is away", weight: 22, begin: store((*Cluster).StopStore), end: store((*Cluster).StartStore)},
		{name: "the store hangs", weight: 16, begin: store((*Cluster).FreezeStore), end: store((*Cluster).ThawStore)},
		{name: "the DCS hangs for two seconds", weight: 14, brief: true, begin: store((*Cluster).FreezeDCS), end: store((*Cluster).ThawDCS)},
		{name: "the DCS restarts", weight: 10, brief: true, begin: store((*Cluster).StopDCS), end: store((*Cluster).StartDCS)},
		{name: "", weight: 38},
	}
}

// TestSoak makes role changes of many kinds, most of them during a fault of the store or the DCS, and asks the oracle after every ten.
//
//	go test -tags drills -v -run TestSoak ./sidecar/drill -soak.seed=7 -soak.changes=20
func TestSoak(t *testing.T) {
	start := time.Now()
	s := newSoak(t)
	for i := 1; i <= *soakChanges; i++ {
		s.change()
		if i%10 == 0 || i == *soakChanges {
			s.askOracle()
		}
	}
	s.report.Seconds = time.Since(start).Seconds()
	if *soakReport != "" {
		text, err := json.Marshal(s.report)
		if err = errors.Join(err, os.WriteFile(*soakReport, text, 0o644)); err != nil {
			t.Error(err)
		}
	}
}

func newSoak(t *testing.T) *soak {
	rng := rand.New(rand.NewPCG(*soakSeed, 0))
	o := Options{
		Apart: true, Place: MinIO, DCS: DCS(*soakDCS), Failsafe: rng.IntN(4) == 0,
		Dynamic: "primary_start_timeout: 0\nmaster_start_timeout: 0", // a dead PostgreSQL is a failover
	}
	if every := []DCS{Etcd, Consul, ZooKeeper, Kubernetes}; o.DCS == "" {
		o.DCS = every[*soakSeed%uint64(len(every))]
	}
	s := &soak{rng: rng, failsafe: o.Failsafe, cloned: map[*Node]bool{}, report: soakResult{Seed: *soakSeed, DCS: o.DCS, Policy: "primary", Place: o.Place}}
	if rng.IntN(2) == 0 {
		s.report.Policy, o.Settings = "replica", "policy: replica\n"
	}
	t.Logf("seed %d: %s, policy %s, failsafe %v", *soakSeed, o.DCS, s.report.Policy, o.Failsafe)
	s.scenario = beginFor(t, o, 2*time.Hour, soakRate)
	return s
}

// change makes one role change, during a fault or not.
func (s *soak) change() {
	s.t.Helper()
	s.back()
	if s.longer {
		s.t.Logf("       still: %s", s.fault.name)
	} else {
		f := pick(s.rng, faults(), func(f fault) int { return f.weight })
		s.fault = &f
	}
	d := pick(s.rng, deeds(), func(d deed) int { return d.weight })
	for s.failsafe && (d.name == "the DCS is out of reach" || d.name == "the DCS is away") { // no role changes then: that is what failsafe_mode is for
		d = pick(s.rng, deeds(), func(d deed) int { return d.weight })
	}
	if s.fault.brief && d.name == "the DCS is away" || s.fault.brief && d.name == "switchover" && s.fault.name == "the DCS restarts" {
		s.fault = &fault{} // one outage of the DCS is enough; and Patroni refuses a switchover without one
	}
	before := s.timeline()
	start := time.Now()
	if s.fault.begin != nil && !s.fault.brief && !s.longer {
		s.do(s.fault.name, s.fault.begin(s))
		s.do("segments are finished", s.finish(1+s.rng.IntN(5)))
	}
	ended := s.briefly()
	d.do(s, s.primary())
	ended()
	s.do("a node takes writes on a new timeline", func(ctx context.Context) error {
		return until(ctx, failoverLimit, "the timeline is above "+fmt.Sprint(before), func(context.Context) error {
			if now := s.timeline(); now <= before {
				return fmt.Errorf("it is %d", now)
			}
			return nil
		})
	})
	s.do("a segment is finished", s.finish(1))
	name := s.fault.name
	if d.name == "the DCS is away" && name == "" {
		name = d.name
	}
	s.report.Changes = append(s.report.Changes, roleChange{d.name, name, s.timeline(), time.Since(start).Seconds()})
	s.t.Logf("%5.1fs ROLE CHANGE %d: %s; %s", time.Since(start).Seconds(), len(s.report.Changes), d.name, name)
	s.longer = s.fault.end != nil && !s.fault.brief && s.rng.IntN(3) == 0
	if !s.longer {
		s.healed()
	}
}

// switchover asks Patroni until it does it: while the DCS hangs it may refuse.
func (s *soak) switchover(to *Node) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, failoverLimit, "Patroni switches over to "+to.Name, func(ctx context.Context) error {
			if to.leads(ctx) == nil {
				return nil
			}
			return s.Switchover(ctx, to)
		})
	}
}

// back waits until all nodes stream. A former primary that died at once after its promotion, while the store was away, or before it could
// say anything, may have a timeline that the next primary has too, under the same number: nobody knew of it. Patroni does not rewind it (issue 2779 of
// Patroni's), and PostgreSQL cannot follow; an administrator clones it anew, once the archive has all of the line.
func (s *soak) back() {
	s.t.Helper()
	err := s.AllStreaming(s.ctx)
	if err == nil {
		return
	}
	s.t.Logf("       %v", err)
	s.healed()
	s.settled()
	p := s.primary()
	following, err := s.followers(s.ctx, p)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range s.Standbys(p) {
		if slices.Contains(following, n.Name) {
			continue
		}
		if why := s.unableToFollow(n); why != nil {
			s.t.Logf("       %s: %v", n.Name, why)
			s.report.Cloned++
			s.cloned[n] = true
			s.do(n.Name+" is cloned anew, by an administrator", n.Reinit)
		}
	}
	s.do("all stream", s.AllStreaming)
}

// unableToFollow says why PostgreSQL of n will never follow the others: it does not take connections, or it was promoted to a number that another
// node was promoted to as well.
func (s *soak) unableToFollow(n *Node) error {
	if _, err := query[bool](s.ctx, n.DSN(), "select pg_is_in_recovery()"); err != nil {
		return err
	}
	for _, other := range s.Nodes {
		for _, t := range promotedTo(other) {
			if other != n && slices.Contains(promotedTo(n), t) {
				return fmt.Errorf("it was promoted to timeline %s, and %s was, too", t, other.Name)
			}
		}
	}
	return nil
}

// promotedTo are the timelines that n began, by PostgreSQL's log.
func promotedTo(n *Node) (out []string) {
	for _, m := range regexp.MustCompile(`selected new timeline ID: (\d+)`).FindAllStringSubmatch(n.Log("patroni"), -1) {
		out = append(out, m[1])
	}
	return out
}

// settled waits until the archive has all of the line up to now.
func (s *soak) settled() {
	s.t.Helper()
	missing, err := s.Settle(s.ctx, s.base, 4*time.Minute)
	if err != nil || len(missing) > 0 {
		s.t.Fatalf("the archive lacks %d files: %v, %v", len(missing), missing, err)
	}
}

// briefly lets a brief fault happen at some moment of the next seconds, on the side; the function it returns waits for its end.
func (s *soak) briefly() (ended func()) {
	if !s.fault.brief {
		return func() {}
	}
	f, wait, done := s.fault, time.Duration(s.rng.IntN(4000))*time.Millisecond, make(chan error, 1)
	go func() {
		done <- errors.Join(pass(wait)(s.ctx), f.begin(s)(s.ctx), pass(2*time.Second)(s.ctx), f.end(s)(s.ctx))
	}()
	return func() {
		s.do(fmt.Sprintf("%s, from %v on", f.name, wait), func(context.Context) error { return <-done })
	}
}

func (s *soak) healed() {
	if s.fault != nil && s.fault.end != nil && !s.fault.brief {
		s.do("no more: "+s.fault.name, s.fault.end(s))
	}
	s.fault, s.longer = nil, false
}

// askOracle restores everything since the last time and compares, alternating the way of the restore.
func (s *soak) askOracle() {
	s.t.Helper()
	s.healed()
	s.back()
	s.writer.Stop()
	s.settled()
	s.do("every object is what it was when it came", func(ctx context.Context) error { return s.inventory.Look(ctx, true) })
	how := []How{ByHand, ByWalbaton}[s.report.Oracles%2]
	server := s.restore(how)
	s.do("every row is there", func(ctx context.Context) error { return s.Compare(ctx, server) })
	s.do("the restored server goes", func(context.Context) error { return server.Stop() })
	s.do("walbaton verify finds nothing", s.verify)
	lost, acked := s.count()
	s.report.Oracles, s.report.Rows, s.report.Lost = s.report.Oracles+1, s.report.Rows+acked, s.report.Lost+lost
	clear(s.cloned)
	s.t.Logf("ORACLE %d: %d rows, %d acknowledged ones lost in failovers", s.report.Oracles, acked, lost)
	if len(s.report.Changes) == *soakChanges {
		return
	}
	s.do("the ledger begins anew", func(ctx context.Context) (err error) {
		if err = s.primary().Exec(ctx, "truncate ledger"); err != nil {
			return err
		}
		if s.base, err = s.TakeBase(ctx); err != nil {
			return err
		}
		s.writer, err = s.Write(ctx, soakRate)
		return err
	})
	s.t.Cleanup(s.writer.Stop)
}

const soakRate = 1 << 19 // bytes a second

func (s *soak) promotedInsteadOf(old *Node) {
	s.t.Helper()
	s.do("another node is promoted", func(ctx context.Context) error { return s.Promoted(ctx, old) })
}

// nobodyWrites waits until no node takes writes.
func (s *scenario) nobodyWrites(ctx context.Context) error {
	return until(ctx, failoverLimit, "no node takes writes", func(ctx context.Context) error {
		for _, n := range s.Nodes {
			if n.writable(ctx) == nil {
				return fmt.Errorf("%s does", n.Name)
			}
		}
		return nil
	})
}

// timeline is the highest one that a node takes writes on; 0 while none does.
func (s *soak) timeline() uint64 {
	var highest uint64
	for _, n := range s.Nodes {
		file, err := query[string](s.ctx, n.DSN(), "select pg_walfile_name(pg_current_wal_lsn())")
		if err != nil {
			continue
		}
		if t, _, err := parseSegment(file, s.segmentSize()); err == nil {
			highest = max(highest, t)
		}
	}
	return highest
}

func (s *soak) any(n []*Node) *Node { return n[s.rng.IntN(len(n))] }

// pick draws one by its weight.
func pick[T any](rng *rand.Rand, all []T, weight func(T) int) T {
	total := 0
	for _, one := range all {
		total += weight(one)
	}
	x := rng.IntN(total)
	for _, one := range all {
		if x -= weight(one); x < 0 {
			return one
		}
	}
	panic("weights")
}

// TestSoakKinds holds the draws to what is asked of them: at least eight kinds, none above 30 %, half of all during a fault.
func TestSoakKinds(t *testing.T) {
	rng, kinds, during := rand.New(rand.NewPCG(1, 1)), map[string]int{}, 0
	const n = 10000
	for range n {
		kinds[pick(rng, deeds(), func(d deed) int { return d.weight }).name]++
		if pick(rng, faults(), func(f fault) int { return f.weight }).name != "" {
			during++
		}
	}
	if most := slices.Max(slices.Collect(maps.Values(kinds))); len(kinds) < 8 || most > n*3/10 || during < n/2 {
		t.Errorf("%d kinds, the most frequent %d times of %d, %d during a fault: %s", len(kinds), most, n, during, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
}
