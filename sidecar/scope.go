package main

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// scope shows the archiver what the elector read: it is where leader's words become archiver's.
type scope struct {
	elector *leader.Elector
	noDCS   bool

	mu   sync.Mutex
	line wal.History // the last known one: without a leader nothing is called a branch by a guess
}

// Last gives the last reading.
func (s *scope) Last() archiver.Cluster {
	v, ok := s.elector.View()
	if !ok {
		return archiver.Cluster{NoDCS: s.noDCS, Self: s.elector.Status().Member}
	}
	c := s.cluster(v)
	c.Answered = !s.elector.Status().Silent
	return c
}

// Read makes a linearizable reading for this call.
func (s *scope) Read(ctx context.Context) (archiver.Cluster, error) {
	v, err := s.elector.Read(ctx)
	if err != nil {
		c := s.Last()
		c.Answered = false
		return c, err
	}
	c := s.cluster(v)
	c.Answered = true
	return c, nil
}

func (s *scope) cluster(v leader.View) archiver.Cluster {
	c := archiver.Cluster{NoDCS: s.noDCS, Self: v.Self, Leader: v.Cluster.Leader, Marks: map[wal.Timeline]uint64{}}
	if m, ok := v.Cluster.Members[c.Leader]; ok {
		c.LeaderHost, c.LeaderPort = m.Host, m.Port
	}
	if r, ok := v.Leader(); ok {
		c.LeaderLive, c.LeaderHas = true, setOf(r.Has)
	}
	for _, member := range slices.Sorted(maps.Keys(v.Records)) {
		r := v.Records[member]
		if member != v.Self && r.Readable() && r.SystemID != 0 && r.SystemID == v.SystemID() {
			c.Others.Union(setOf(r.Has))
		}
	}
	if v.Baton.Held() {
		c.Holder = v.Baton.Holder
		if r := v.Records[c.Holder]; r.Holder != nil && r.Holder.Term == v.Baton.Epoch {
			for _, m := range r.Holder.Mark {
				c.Marks[wal.Timeline(m.Timeline)] = m.Next
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if forks, timeline, ok := v.Line(); ok {
		s.line = history(timeline, forks)
	}
	c.Line = s.line
	return c
}

func history(timeline uint32, forks []leader.Fork) wal.History {
	h := wal.History{Timeline: wal.Timeline(timeline)}
	for _, f := range forks {
		h.Forks = append(h.Forks, wal.Fork{Timeline: wal.Timeline(f.Timeline), End: wal.LSN(f.End)})
	}
	return h
}

func forksOf(h wal.History) []leader.Fork {
	var out []leader.Fork
	for _, f := range h.Forks {
		out = append(out, leader.Fork{Timeline: uint32(f.Timeline), End: uint64(f.End)})
	}
	return out
}

func setOf(rs leader.Ranges) archiver.Set {
	spans := make([]archiver.Span, len(rs))
	for i, r := range rs {
		spans[i] = archiver.Span{Timeline: wal.Timeline(r.Timeline), First: r.First, Last: r.Last}
	}
	return archiver.SetOf(spans...)
}

func rangesOf(s archiver.Set) leader.Ranges {
	var out []leader.Range
	for _, p := range s.Spans() {
		out = append(out, leader.Range{Timeline: uint32(p.Timeline), First: p.First, Last: p.Last})
	}
	return leader.RangesOf(out...)
}
