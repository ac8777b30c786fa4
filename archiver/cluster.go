package archiver

import (
	"context"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Cluster is what the sidecar knows of the cluster around this node. It comes from one reading of
// the DCS; the archiver decides with it what it may ship and what a push answers.
type Cluster struct {
	// Answered: the DCS answered this reading. What follows is the last known when it is false.
	Answered bool
	// NoDCS: there is no DCS to ask (static, rest), so no baton: a running primary counts as the leader.
	NoDCS bool
	// Alone: there is no Patroni either (static). No other server was ever promoted to a number of ours.
	Alone bool

	Self   string // our member name
	Leader string // Patroni's leader key, "" when nobody holds it
	// LeaderHost and LeaderPort are from the leader's conn_url.
	LeaderHost string
	LeaderPort int
	// LeaderLive: the leader's sidecar holds its record, so Line is from the leader's own server.
	LeaderLive bool

	// Line is the history of the timeline that the leader is on, as it was last known. Timeline 0: never known.
	Line wal.History
	// LeaderTimeline is the highest timeline that this very reading tells of the leader, 0 when it tells none. Who fetches a
	// history reads the same (Leader.Timeline).
	LeaderTimeline wal.Timeline

	// Holder is the member that has the baton, "" when it is free.
	Holder string
	// Marks say up to where the holder has shipped the line: everything of a timeline below the number.
	Marks map[wal.Timeline]uint64
	// Lacks is what the holder says that the archive has not, and that it has no good copy of.
	Lacks Set

	// LeaderHas are the segments that the leader's live record lists as good, if the leader may ship.
	LeaderHas Set
	// Others are the segments that live members other than this one list as good; Unshipped those of members that an administrator
	// keeps from shipping, by the tag `walbaton: never`.
	Others, Unshipped Set
}

// IsLeader says whether this node holds Patroni's leader key by this reading.
func (c Cluster) IsLeader() bool { return c.Leader != "" && c.Leader == c.Self }

// CountsAsLeader says whether the server beside us counts as the leader where there is no DCS to ask: it is a running
// primary, and Patroni, if it answers (rest), does not name another leader.
func (c Cluster) CountsAsLeader(srv Server) bool {
	return c.NoDCS && srv.State == ServerPrimary && (!c.Answered || c.Leader == "" || c.IsLeader())
}

// leadsOn says whether this node leads the cluster on timeline t.
func (c Cluster) leadsOn(t wal.Timeline) bool { return c.IsLeader() && c.Line.Timeline == t }

// HasBaton says whether this node holds the baton by this reading. A term's context says it better.
func (c Cluster) HasBaton() bool { return c.Holder != "" && c.Holder == c.Self }

// Shipped says whether another node, which has the baton, says that the archive has g.
func (c Cluster) Shipped(g wal.Segment) bool {
	return c.Holder != "" && !c.HasBaton() && g.No < c.Marks[g.Timeline] && !c.Lacks.Has(g)
}

// notOurs says who has the baton instead of this node.
func (c Cluster) notOurs() string {
	switch {
	case c.Answered && c.Holder == "":
		return "nobody has the baton"
	case c.Answered && !c.HasBaton():
		return c.Holder + " has the baton"
	}
	return "another node has the baton, or nobody" // the DCS does not answer, or our term has just ended
}

// Scope is how the archiver sees the cluster. The sidecar implements it from leader.Elector.
type Scope interface {
	// Last gives the last reading, without any request.
	Last() Cluster
	// Read makes a linearizable read for this call. On error the Cluster is the last known one,
	// with Answered false.
	Read(ctx context.Context) (Cluster, error)
}

// Place says where a segment lies relative to the line.
type Place uint8

const (
	PlaceUnknown Place = iota // no leader was ever known
	OnLine
	OnBranch // its timeline is not in the line's history, or the line left it inside or before it
)

// PlaceOf says where s lies.
func (c Cluster) PlaceOf(s wal.Segment) Place {
	switch {
	case c.Line.Timeline == 0:
		return PlaceUnknown
	case c.Line.Holds(s):
		return OnLine
	}
	return OnBranch
}
