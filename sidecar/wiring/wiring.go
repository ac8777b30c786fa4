package wiring

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// Lens shows the archiver what the elector read. It remembers the last known line: while no
// leader is known it stays, and nothing is called a branch by a guess.
type Lens struct {
	NoDCS bool // static, rest: a running primary counts as the leader
	Alone bool // static

	mu       sync.Mutex
	line     wal.History
	systemID uint64 // of the cluster that it is the line of
}

// Cluster translates a view. answered says that the DCS answered it.
func (l *Lens) Cluster(v leader.View, answered bool) archiver.Cluster {
	c := archiver.Cluster{Answered: answered, NoDCS: l.NoDCS, Alone: l.Alone, Self: v.Self, Leader: v.Cluster.Leader, Marks: map[wal.Timeline]uint64{}}
	if m, ok := v.Cluster.Members[c.Leader]; ok {
		c.LeaderHost, c.LeaderPort = m.Host, m.Port
	}
	if r, ok := v.Leader(); ok {
		c.LeaderLive = true
		if v.Tag(c.Leader) != leader.TagNever {
			c.LeaderHas = SetOf(r.Has)
		}
	}
	for _, member := range slices.Sorted(maps.Keys(v.Records)) {
		r := v.Records[member]
		if member != v.Self && r.Readable() && r.SystemID != 0 && r.SystemID == v.SystemID() {
			if v.Tag(member) == leader.TagNever {
				c.Unshipped.Union(SetOf(r.Has))
			} else {
				c.Others.Union(SetOf(r.Has))
			}
		}
	}
	if v.Baton.Held() {
		c.Holder = v.Baton.Holder
		if r := v.Records[c.Holder]; r.Holder != nil && r.Holder.Term == v.Baton.Epoch {
			for _, m := range r.Holder.Mark {
				c.Marks[wal.Timeline(m.Timeline)] = m.Next
			}
			c.Lacks = SetOf(r.Holder.Lacks)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := v.SystemID(); id != 0 && id != l.systemID {
		l.line, l.systemID = wal.History{}, id // another cluster took the scope: what the old one knew says nothing of it
	}
	if forks, timeline, ok := v.Line(); ok {
		l.line = history(timeline, forks)
	}
	c.LeaderTimeline = wal.Timeline(v.LeaderTimeline())
	c.Line = l.line
	return c
}

func history(timeline uint32, forks []leader.Fork) wal.History {
	h := wal.History{Timeline: wal.Timeline(timeline)}
	for _, f := range forks {
		h.Forks = append(h.Forks, wal.Fork{Timeline: wal.Timeline(f.Timeline), End: wal.LSN(f.End)})
	}
	return h
}

func forks(h wal.History) []leader.Fork {
	var out []leader.Fork
	for _, f := range h.Forks {
		out = append(out, leader.Fork{Timeline: uint32(f.Timeline), End: uint64(f.End)})
	}
	return out
}

// SetOf translates leader's ranges.
func SetOf(rs leader.Ranges) archiver.Set {
	spans := make([]archiver.Span, len(rs))
	for i, r := range rs {
		spans[i] = archiver.Span{Timeline: wal.Timeline(r.Timeline), First: r.First, Last: r.Last}
	}
	return archiver.SetOf(spans...)
}

// RangesOf translates archiver's sets.
func RangesOf(s archiver.Set) leader.Ranges {
	var out []leader.Range
	for _, p := range s.Spans() {
		out = append(out, leader.Range{Timeline: uint32(p.Timeline), First: p.First, Last: p.Last})
	}
	return leader.RangesOf(out...)
}

// Record tells the other nodes about this one. What the sidecar knows besides (policy, address,
// tag, version) is in base.
func Record(base leader.Record, srv archiver.Server, own wal.History, st *archiver.State) leader.Record {
	r := base
	r.Version, r.SystemID, r.SegmentSize = leader.RecordVersion, srv.SystemID, uint32(srv.SegmentSize)
	r.Role, r.ArchiveMode, r.Receiver = role(srv.State), srv.ArchiveMode, receiver(srv)
	if own.Timeline == srv.Timeline {
		// A timeline without its history would make a line out of nothing.
		r.Timeline, r.History = uint32(own.Timeline), forks(own)
	}
	if st == nil {
		return r // the archive is not open: alive, and able to ship nothing
	}
	r.Has, r.Misses, r.Tried, r.Store = RangesOf(st.Has), RangesOf(st.Misses), RangesOf(st.Held), st.StoreAnswers
	r.Silent = st.Silent
	if st.Term == 0 {
		return r
	}
	r.Refused = RangesOf(st.Refused)
	r.Holder = &leader.Holder{Term: st.Term, Lacks: RangesOf(st.Lacks), Errand: RangesOf(st.Errand)}
	for t, next := range st.Marks {
		r.Holder.Mark = append(r.Holder.Mark, leader.Mark{Timeline: uint32(t), Next: next})
	}
	slices.SortFunc(r.Holder.Mark, func(a, b leader.Mark) int { return cmp.Compare(a.Timeline, b.Timeline) })
	if len(st.Alarms) > 0 {
		r.Holder.Alarm = st.Alarms[0].Name + ": " + st.Alarms[0].Why
	}
	return r
}

func receiver(srv archiver.Server) leader.Receiver {
	switch {
	case !srv.SQL || srv.State != archiver.ServerStandby:
		return ""
	case srv.Receiver.Streaming:
		return leader.ReceiverStreams
	}
	return leader.ReceiverNone
}

func role(s archiver.ServerState) leader.Role {
	switch s {
	case archiver.ServerPrimary:
		return leader.RolePrimary
	case archiver.ServerStandby:
		return leader.RoleReplica
	case archiver.ServerUnknown:
		return leader.RoleUnknown
	}
	return leader.RoleStopped
}
