package sim

import (
	"errors"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// This file is the administrator of some clusters: who looks at the alarms now and then, and decides.

// lookAfter goes through the alarms of all sidecars.
func (c *cluster) lookAfter() {
	for _, name := range c.names {
		n := c.nodes[name]
		s := n.site
		if !n.alive() || n.host.asleep() || s == nil {
			continue
		}
		for _, al := range s.a.Alarms() {
			if c.now.Sub(al.Since) > 20*time.Second {
				n.host.spawn(func(p *proc) {
					s.procs++
					n.resolve(s, al)
					s.procs--
				})
				break // what else is wrong may be over then
			}
		}
	}
	c.in(c.between(10*time.Second, 60*time.Second), c.lookAfter)
}

// resolve decides what an alarm is about.
func (n *node) resolve(s *site, al archiver.Alarm) {
	name, err := wal.ParseName(al.Name, segmentSize)
	if err != nil {
		return
	}
	orders := []archiver.Order{{Decision: archiver.KeepArchive, Name: name}, {Decision: archiver.Accept, Name: name}}
	if name.Segment.Timeline > 1 && n.chance(0.4) {
		orders = append([]archiver.Order{{Decision: archiver.Apart, Member: n.name, Timeline: name.Segment.Timeline}}, orders...)
	}
	for _, o := range orders {
		if o.Decision == archiver.Accept && (!n.healed || n.now.Sub(al.Since) < 2*time.Minute) {
			continue // somebody may have a better one
		}
		o.Reason, o.By = "simulated", "admin"
		plan, err := s.a.Consider(s.b.ctx, o)
		if err == nil && o.Decision == archiver.Accept {
			n.check.accept(name, plan.Resolution.Digest)
		}
		if err == nil {
			o.Digest = plan.Resolution.Digest
			_, err = s.a.Resolve(s.b.ctx, o)
		}
		if err == nil {
			n.say(n.name, "resolve %v, row %s: %s", name, al.Row, o.Decision)
			n.fault("resolve " + string(o.Decision))
			n.decided = n.now
			return
		}
		n.say(n.name, "resolve %v, row %s: not %s: %s", name, al.Row, o.Decision, n.clean(err))
		if errors.Is(err, archiver.ErrTaggedNever) {
			n.untag()
			return
		}
	}
}

// untag takes away every tag that keeps a member from shipping.
func (c *cluster) untag() {
	for _, name := range c.names {
		if n := c.nodes[name]; n.tag == leader.TagNever {
			n.tag = ""
			c.say(name, "gets the tag %q", n.tag)
		}
	}
}
