package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is a second archive, which every file has to be in, too. It has outages of its own, for all nodes or for one. The first archive is that of the
// truth, and all promises are held to it as ever; of the second is checked: P1, when a push answers 0; P2; P3; and at the end that the two have the
// same (P5).

// mirror is the second archive. A cluster of one archive has none.
type mirror struct {
	c       *cluster
	store   *mem.Store
	objects map[string]object
	floors  []archiver.Floor
	down    bool
	without map[string]bool // nodes that do not reach it
}

// RunTwo is Run for a cluster with two archives.
func RunTwo(seed uint64, dir string, tally *Tally) Result {
	return play1(seed, dir, tally, func(c *cluster, end time.Duration) {
		m := &mirror{c: c, store: mem.New("mirror"), objects: map[string]object{}, without: map[string]bool{}}
		m.store.SetClock(func() time.Time { return c.now })
		c.mirror = m
		for range 2 + c.rng.IntN(4) {
			c.in(c.between(5*time.Second, end), func() {
				if c.healed {
					return
				}
				if c.chance(0.6) {
					c.say("", "trouble: mirror outage")
					c.fault("mirror outage")
					m.down = true
					c.later(5*time.Second, 70*time.Second, func() { m.down = false })
					return
				}
				name := pick(c.world, c.names)
				c.say(name, "trouble: does not reach the mirror")
				c.fault("node without the mirror")
				m.without[name] = true
				c.later(5*time.Second, 90*time.Second, func() { delete(m.without, name) })
			})
		}
	})
}

// changesTheArchive says which troubles write into the first archive alone, behind everybody's back: what the second one is to have then is not defined.
func changesTheArchive(trouble string) bool {
	return slices.Contains([]string{"expire", "archive damaged", "foreign history"}, trouble)
}

func (m *mirror) up(name string) bool {
	return !m.down && !m.c.nodes[name].cut && !m.without[name]
}

// put is the store's side of a put, with P2 and P3.
func (m *mirror) put(n *node, key string, data []byte) error {
	err := m.store.Put(context.Background(), key, archiver.Bytes(data))
	if err != nil || strings.Contains(key, "/probe/") {
		return err
	}
	if _, known := m.objects[key]; known {
		m.c.check.fail("P2", "%s was written again into the mirror", key)
	}
	o := m.c.truth.open(data)
	o.from = n.name
	if strings.HasSuffix(key, "/archive.json") {
		a, err := archiver.OpenArchive(context.Background(), m.store, "main", systemID)
		must(err)
		m.floors = a.Floors()
	}
	m.objects[key] = o
	m.c.say(n.name, "mirrored %s", strings.TrimPrefix(key, root+"/"))
	name, err := wal.ParseName(filepath.Base(key), segmentSize)
	if strings.Contains(key, "/wal/") && err == nil && name.Kind == wal.KindSegment && !o.good && !m.c.check.accepted[o.digest] {
		m.c.check.fail("P3", "%s put %s into the mirror, which is not good", n.name, key)
	}
	return nil
}

// begun says whether it has anything of a timeline.
func (m *mirror) begun(t wal.Timeline) bool {
	for key := range m.objects {
		n, err := wal.ParseName(filepath.Base(key), segmentSize)
		if err == nil && n.Segment.Timeline == t && (strings.Contains(key, "/wal/") || strings.Contains(key, "/history/")) {
			return true
		}
	}
	return false
}

func (m *mirror) covers(n wal.Name) bool {
	return n.Kind != wal.KindHistory && slices.ContainsFunc(m.floors, func(f archiver.Floor) bool { return f.Covers(n.Segment) })
}

// has says whether the mirror has this very content of a file, or need not have it.
func (m *mirror) has(name wal.Name, had object) bool {
	o, ok := m.objects[key(name)]
	return ok && o.digest == had.digest || m.covers(name)
}

// missing gives what one of the two archives has and the other one lacks. Where every node has the tag that keeps the baton from it nobody copies.
func (m *mirror) missing() (out []string) {
	if !slices.ContainsFunc(m.c.names, m.c.check.mayShip) {
		return nil
	}
	// Two servers that were promoted to one number, each while it reached another archive: as with one archive, that takes a person.
	twins := map[wal.Timeline]bool{}
	for key, o := range m.objects {
		n, err := wal.ParseName(filepath.Base(key), segmentSize)
		if theirs, ok := m.c.truth.objects[key]; ok && err == nil && theirs.digest != o.digest && strings.Contains(key, "/history/") {
			twins[n.Segment.Timeline] = true
		}
	}
	lacks := func(which string, have, other map[string]object, below func(wal.Name) bool) {
		for key, o := range have {
			name, err := wal.ParseName(filepath.Base(key), segmentSize)
			if err != nil || !strings.Contains(key, "/wal/") && !strings.Contains(key, "/history/") || below(name) || twins[name.Segment.Timeline] {
				continue
			}
			switch got, ok := other[key]; {
			case !ok:
				out = append(out, fmt.Sprintf("%s lacks %v", which, name))
			case got.digest != o.digest:
				out = append(out, fmt.Sprintf("the archives differ: %v", name))
			}
		}
	}
	lacks("the mirror", m.c.truth.objects, m.objects, m.covers)
	lacks("the first archive", m.objects, m.c.truth.objects, func(n wal.Name) bool {
		return n.Kind != wal.KindHistory && m.c.truth.belowFloor(n.Segment)
	})
	slices.Sort(out)
	return out
}

// openSite opens the archive of a site, or both.
func (n *node) openSite(b *bound, q *queue.Queue, o archiver.Options) (*archiver.Archiver, error) {
	id := archiver.Identity{Scope: "main", Member: n.name}
	server := func() archiver.Server { return n.srv }
	if n.mirror == nil {
		opened, err := archiver.Prepare(b.ctx, &link{n: n}, id, n.srv, q, scope{n})
		if err != nil {
			return nil, err
		}
		return archiver.New(opened, q, scope{n}, server, o)
	}
	o.Together = func(all ...func()) {
		for _, f := range all {
			f()
		}
	}
	target := func(name string, at *mirror) archiver.Target {
		return archiver.Target{Name: name, Required: true, Open: func(ctx context.Context) (*archiver.Archive, error) {
			return archiver.Prepare(ctx, &link{n: n, at: at}, id, n.srv, q, scope{n})
		}}
	}
	a, err := archiver.NewSeveral(b.ctx, []archiver.Target{target("first", nil), target("mirror", n.mirror)}, q, scope{n}, server, o)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New(err.Error())
	}
	return a, err
}

// fill is archiver.Archiver's: what one archive lacks is copied from the other one, until the term ends.
func (n *node) fill(p *proc, s *site, b *bound) {
	for b.ctx.Err() == nil && s.b.ctx.Err() == nil {
		if err := s.a.FillAll(b.ctx); err != nil && b.ctx.Err() == nil {
			n.say(n.name, "fill: %s", n.clean(err))
		}
		_ = p.wait(b.ctx, n.between(200*time.Millisecond, 1200*time.Millisecond))
	}
}

// lift is archiver.Archiver's: an archive that does not answer is asked whether it does again.
func (n *node) lift(p *proc, s *site) error {
	for {
		s.a.LiftAll(s.b.ctx)
		if p.wait(s.b.ctx, n.between(500*time.Millisecond, 1200*time.Millisecond)) != nil {
			return nil
		}
	}
}
