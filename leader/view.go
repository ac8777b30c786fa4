package leader

import (
	"fmt"
	"slices"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/patroni"
)

// View is one reading of the scope, understood: what Patroni says, what the sidecars say,
// and who holds the baton.
type View struct {
	Self    string
	Cluster patroni.Cluster
	Records map[string]Record // by member; live ones only, see Record.Readable
	Baton   dcs.Lease         // zero when free
	At      time.Time         // when the reading was asked for: what it says was true then or later

	// Warnings are what could not be understood, one clause each, Patroni's first.
	Warnings []string

	// Reading is what the DCS answered.
	Reading dcs.Reading
}

// NewView understands a reading that member self asked for at the time at. What it cannot
// understand it leaves out and names in Warnings; so an empty scope is a View in which no
// leader is known.
func NewView(self string, r dcs.Reading, at time.Time) View {
	c, err := patroni.Parse(r.Nodes)
	v := View{Self: self, Cluster: c, Baton: r.Baton, At: at, Reading: r,
		Records: make(map[string]Record, len(r.Records)), Warnings: slices.Clone(c.Warnings)}
	if err != nil {
		v.Warnings = append(v.Warnings, err.Error())
	}
	for _, member := range sortedKeys(r.Records) {
		rec, err := ParseRecord(r.Records[member].Value)
		switch {
		case err != nil:
			rec = Record{}
			v.Warnings = append(v.Warnings, fmt.Sprintf("record of %s: %v", member, err))
		case !rec.Readable():
			v.Warnings = append(v.Warnings, fmt.Sprintf("record of %s: version %d, this sidecar understands %d", member, rec.Version, RecordVersion))
		}
		// The key is bound to the lease; what the value says of the name is not.
		rec.Member = member
		v.Records[member] = rec
	}
	return v
}

// SystemID is the system identifier of the cluster as Patroni recorded it, else as our own
// server says; 0 when neither is known.
func (v View) SystemID() uint64 {
	if v.Cluster.SystemID != 0 {
		return v.Cluster.SystemID
	}
	return v.Records[v.Self].SystemID
}

// Leader gives the record of Patroni's leader; false when there is no leader, or it has no
// live and readable record of this cluster.
func (v View) Leader() (Record, bool) { return v.own(v.Cluster.Leader) }

// own gives the readable record of a member that belongs to this cluster.
func (v View) own(member string) (Record, bool) {
	r, ok := v.Records[member]
	if !ok || member == "" || !r.Readable() || r.SystemID == 0 || r.SystemID != v.SystemID() {
		return Record{}, false
	}
	return r, true
}

// Holder names the holder of the baton; while it is free, the live sidecar that held it
// last. The second result says whether its record can be read.
func (v View) Holder() (member string, r Record, ok bool) {
	if v.Baton.Held() {
		r, ok = v.own(v.Baton.Holder)
		return v.Baton.Holder, r, ok
	}
	var term uint64
	for name := range v.Records {
		if got, live := v.own(name); live && got.Holder != nil && got.Holder.Term > term {
			member, r, ok, term = name, got, true, got.Holder.Term
		}
	}
	return member, r, ok
}

// Line gives the line (DESIGN section 3): the timeline that Patroni's leader is on and its
// ancestors, oldest first, with the addresses where the line left them. It comes from the
// leader's own server through its record, else from Patroni's member key. False when no
// leader is known, or nobody can say what its ancestors are.
//
// A record is up to a second old and a member key up to a loop, and a server's timeline only
// grows: so the higher of the two counts, and a timeline above the answer may be the one that
// the leader has just begun. It is no branch yet.
func (v View) Line() (ancestors []Fork, timeline uint32, ok bool) {
	if v.Cluster.Leader == "" {
		return nil, 0, false
	}
	timeline = v.Cluster.Members[v.Cluster.Leader].Timeline
	if r, ok := v.Leader(); ok && r.Timeline >= timeline {
		if r.Timeline == 1 || len(r.History) > 0 {
			return slices.Clone(r.History), r.Timeline, true
		}
		// Only the first timeline has no ancestors: this sidecar does not know them yet.
		timeline = r.Timeline
	}
	if timeline == 0 {
		return nil, 0, false
	}
	if ancestors, ok = v.patroniHistory(timeline); !ok {
		ancestors, ok = v.recordedHistory(timeline)
	}
	if !ok {
		return nil, 0, false
	}
	return ancestors, timeline, true
}

// LeaderTimeline gives the highest timeline that the DCS tells of Patroni's leader, whether or not its ancestors are known: 0 when
// there is no leader, nobody tells, or its sidecar is there and does not know it yet.
func (v View) LeaderTimeline() uint32 {
	if v.Cluster.Leader == "" {
		return 0
	}
	timeline := v.Cluster.Members[v.Cluster.Leader].Timeline
	switch r, ok := v.Leader(); {
	case ok && r.Timeline == 0:
		return 0
	case ok:
		return max(timeline, r.Timeline)
	}
	return timeline
}

// patroniHistory takes the ancestors of a timeline from Patroni's "history" key. The key is
// written some time after a promotion, so it counts only if it reaches the timeline before.
func (v View) patroniHistory(timeline uint32) ([]Fork, bool) {
	var forks []Fork
	var last uint32
	for _, h := range v.Cluster.History {
		if h.Timeline >= timeline {
			continue
		}
		last = h.Timeline
		f := Fork{h.Timeline, h.LSN}
		// After a recovery to a time before the newest timeline began PostgreSQL names that one as the parent all the same.
		for n := len(forks); n > 0 && f.End < forks[n-1].End; n-- {
			f.Timeline, forks = forks[n-1].Timeline, forks[:n-1]
		}
		forks = append(forks, f)
	}
	return forks, last == timeline-1
}

// recordedHistory takes the ancestors of a timeline from the records of other members that
// are on it, if all of those agree.
func (v View) recordedHistory(timeline uint32) (forks []Fork, ok bool) {
	for member := range v.Records {
		r, live := v.own(member)
		if !live || r.Timeline != timeline || len(r.History) == 0 {
			continue
		}
		if ok && !slices.Equal(forks, r.History) {
			return nil, false
		}
		forks, ok = slices.Clone(r.History), true
	}
	return forks, ok
}

// Nobody gives what the holder lacks and no live sidecar lists: the archive will have a
// hole there unless somebody comes back.
func (v View) Nobody() Ranges {
	_, h, ok := v.Holder()
	if !ok || h.Holder == nil {
		return nil
	}
	lost := h.Holder.Lacks
	for member := range v.Records {
		if r, ok := v.own(member); ok {
			lost = lost.Subtract(r.Has)
		}
	}
	return lost
}
