package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// expire raises the floor below what the archive has without a hole, and deletes what lies below it.
func (c *cluster) expire() {
	s := c.primary()
	if s == nil || len(c.truth.floors) == 0 || c.storeDown {
		return
	}
	from := c.truth.floors[0].LSN
	for _, f := range c.truth.floors {
		from = max(from, f.LSN)
	}
	h, to := s.stream.history(), from
	for g := segmentSize.At(1, from); g.End() <= s.flush; g = g.Next() {
		x := g.On(h.TimelineAt(g.End() - 1))
		if !c.truth.holds(s.stream, x) {
			break
		}
		to = g.End()
	}
	steps := int((to - from) / wal.LSN(segmentSize))
	if steps < 3 {
		return
	}
	to = from + wal.LSN(1+c.rng.IntN(steps-1))*wal.LSN(segmentSize)
	f := archiver.Floor{Timeline: h.TimelineAt(to - 1), LSN: to}
	for _, x := range h.Forks {
		if x.Timeline < f.Timeline {
			f.Ancestors = append(f.Ancestors, x.Timeline)
		}
	}
	b, err := f.MarshalJSON()
	must(err)
	must(c.store.Put(context.Background(), fmt.Sprintf("%s/floor/%v%016X", root, f.Timeline, uint64(f.LSN)), archiver.Bytes(b)))
	c.truth.floors = append(c.truth.floors, f)
	c.say("", "expire: floor %v on timeline %d", f.LSN, f.Timeline)
	c.fault("expire")
	c.in(c.between(100*time.Millisecond, 5*time.Second), func() {
		for key := range c.truth.objects {
			n, err := wal.ParseName(key[strings.LastIndex(key, "/")+1:], segmentSize)
			if err == nil && n.Kind == wal.KindSegment && f.Covers(n.Segment) && strings.Contains(key, "/wal/") {
				delete(c.truth.objects, key)
				must(c.store.Delete(context.Background(), key))
			}
		}
		c.truth.emptied()
	})
	c.later(time.Second, 20*time.Second, func() { c.readyBelow(f) })
}

// readyBelow brings back the .ready of a file that lies below the floor, on a sidecar that has just read the floors.
func (c *cluster) readyBelow(f archiver.Floor) {
	for _, name := range c.names {
		s := c.srv[name]
		low := c.segments(s, func(n wal.Name) bool { return f.Covers(n.Segment) })
		if len(low) > 0 && s.state == archiver.ServerPrimary {
			c.nodes[name].kill()
			c.nodes[name].start()
			for _, n := range low {
				os.Remove(s.status(n.String(), ".done"))
				s.notify(n.String())
			}
			return
		}
	}
}

// bitRot damages a whole segment on one disk while another one still has it.
func (c *cluster) bitRot() {
	s := c.srv[pick(c.world, c.names)]
	all := c.segments(s, func(n wal.Name) bool {
		o, ok := c.truth.object(n)
		return c.elsewhere(s, n) && (!ok || o.good)
	})
	if len(all) == 0 {
		return
	}
	n := all[len(all)-1]
	f, err := os.OpenFile(s.path(n.String()), os.O_RDWR, 0)
	must(err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], 100)
	must(err)
	b[0] ^= 4
	_, err = f.WriteAt(b[:], 100)
	must(err)
	s.touch(s.path(n.String()))
	c.check.forget(s, n.Segment)
	c.say(s.name, "%v is damaged on this disk", n)
	c.fault("bit rot")
	c.renew(s, n)
}

// renew has PostgreSQL ask for a file again, and a sidecar that remembers nothing answer.
func (c *cluster) renew(s *server, n wal.Name) {
	if s.arch == nil {
		return
	}
	os.Remove(s.status(n.String(), ".done"))
	s.notify(n.String())
	c.nodes[s.name].kill()
	c.nodes[s.name].start()
}

// archiveDamaged spoils an object in the archive: only an administrator can help.
func (c *cluster) archiveDamaged() {
	s := c.primary()
	if s == nil || c.storeDown {
		return
	}
	all := c.segments(s, func(n wal.Name) bool { o, ok := c.truth.object(n); return ok && o.good })
	if len(all) == 0 {
		return
	}
	n := pick(c.world, all)
	data, err := readAll(c.store.Get(context.Background(), key(n), 0, -1))
	must(err)
	data = append([]byte(nil), data...)
	switch digest := bytes.Index(data, []byte(`"digest":"`)); {
	case digest > 0 && c.chance(0.3):
		at := digest + len(`"digest":"`)
		data[at] = "0123456789abcdef"[c.rng.IntN(16)] // its header tells of other content, mostly
	case c.chance(0.5):
		data[0] ^= 16 // its header cannot be read
	default:
		data[len(data)*2/3] ^= 16
	}
	must(c.store.Delete(context.Background(), key(n)))
	must(c.store.Put(context.Background(), key(n), archiver.Bytes(data)))
	o := c.truth.objects[key(n)]
	o.spoiled, o.good = true, false
	c.truth.objects[key(n)] = o
	c.check.spoiled[n] = true
	c.say("", "%v is damaged in the archive", n)
	c.fault("archive damaged")
	c.renew(s, n)
}
