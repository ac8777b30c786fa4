package archiver

import (
	"context"

	"github.com/walbaton/walbaton/archiver/wal"
)

// request is all that "may this node put this file now?" depends on (DESIGN section 6).
type request struct {
	name    wal.Name
	cluster Cluster
	server  Server      // the PostgreSQL beside us
	own     wal.History // of our own server's timeline
	baton   bool        // inside a term
	kept    bool        // it was set aside: the server beside us may have been rewound since
	open    bool        // the archive has one of the timeline's segments; for a history, that history will do
	vouched bool        // the archive's timeline is ours: one of our segments compared equal, or we opened it
	parted  bool        // and yet an earlier segment of ours is whole, and another one than the archive's
	apart   bool        // and yet some segment of ours is
	joined  bool        // the last segment before it that the archive has is ours, too, or it fits the archive's beside it
}

// permit is the answer; why says what is missing when it is no.
type permit struct {
	ok    bool
	opens bool // the put opens the timeline, so it needs the fresh read
	vouch bool // a comparison of another segment of this timeline may change the answer
	why   string
}

func allow() permit            { return permit{ok: true} }
func refuse(why string) permit { return permit{why: why} }

// speaksFor says whether this node's copy of timeline t is the leader's: it is the leader and has
// t in its own history, or it streams t, or a timeline that grew from t, from the leader's server.
//
// It says nothing about files set aside: two servers can have been promoted to one number, and after
// its rewind this one has the other's history.
func (r request) speaksFor(t wal.Timeline) bool {
	if _, ok := r.own.End(t); !ok || r.kept && !r.cluster.Alone {
		return false
	}
	switch {
	case r.cluster.NoDCS:
		return r.cluster.CountsAsLeader(r.server)
	case r.cluster.IsLeader():
		return true
	}
	rc := r.server.Receiver
	return rc.Streaming && r.cluster.Leader != "" && rc.Port == r.cluster.LeaderPort && rc.Host == r.cluster.LeaderHost
}

// second says whether our server is, or was when it stopped, the second primary of timeline t: somebody started it by hand, and Patroni's leader is
// another node that is on t too. What the two write from there on has the same names and is not the same.
func (r request) second(t wal.Timeline) bool {
	return !r.cluster.NoDCS && (r.server.State == ServerPrimary || r.server.WasPrimary) && r.server.Timeline == t && r.cluster.Line.Timeline == t &&
		r.cluster.Leader != "" && !r.cluster.IsLeader()
}

// strays says whether our standby may have got timeline t from another server than the leader, which is on t: somebody may have started a
// second primary by hand. That an older segment is the archive's then tells nothing of those that came later.
func (r request) strays(t wal.Timeline) bool {
	return !r.cluster.NoDCS && !r.kept && r.server.State != ServerPrimary && r.cluster.Line.Timeline == t && r.cluster.Leader != "" && !r.speaksFor(t)
}

// mayPut decides about segments and histories. Backup labels and partial segments need no leave.
func mayPut(r request) permit {
	t := r.name.Segment.Timeline
	switch r.name.Kind {
	case wal.KindBackup, wal.KindPartial:
		return allow()
	case wal.KindHistory:
		if t < r.cluster.Line.Timeline || r.open {
			return allow()
		}
		return mayOpen(r, t)
	}
	if place := r.cluster.PlaceOf(r.name.Segment); place == OnBranch {
		return refuse("it lies on a branch")
	}
	switch {
	case r.second(t):
		return refuse("our server writes the timeline that " + r.cluster.Leader + " leads the cluster on")
	case r.parted:
		return refuse("an earlier segment of ours is another one than the archive's (row 6c)")
	case r.apart && !r.speaksFor(t):
		return refuse("a later segment of ours is another one than the archive's (row 6c), and our server does not follow the leader")
	}
	if !r.open && (r.cluster.Answered || !r.vouched) {
		return mayOpen(r, t)
	}
	switch {
	case r.cluster.NoDCS && !r.cluster.CountsAsLeader(r.server):
		return refuse("only a running primary ships where there is no baton")
	case r.cluster.Alone:
		return allow()
	case !r.cluster.NoDCS && !r.kept && !r.cluster.Answered && (r.server.State == ServerPrimary || r.cluster.IsLeader()):
		// P4's case without the DCS. That somebody opened the timeline is not enough: two servers can have been promoted to
		// its number, and only the DCS could say that ours is the one that leads.
		if r.vouched || t == 1 {
			return allow()
		}
		return permit{vouch: true, why: "the DCS does not answer, and no segment of this timeline here was compared with the archive yet"}
	case !r.cluster.NoDCS && !r.baton:
		return refuse(r.cluster.notOurs())
	case r.strays(t) && !r.joined:
		return permit{vouch: true, why: "our server does not stream from " + r.cluster.Leader + ", and it was not compared with what the archive has before it"}
	case r.speaksFor(t) || r.vouched || r.joined:
		return allow()
	}
	return permit{vouch: true, why: "no segment of this timeline here was compared with the archive yet"}
}

// mayOpen decides about the first object of a timeline: two nodes can promote to the same number,
// and the dead one must not win.
//
// The DCS says that the leader is on a timeline before the archive has anything of it: who is promoted and finds its number in the
// archive asks the DCS, and a leader that is told to be on a lower one would hide the number, which would be used twice. The line will
// not do: a sidecar remembers what its own server said, and the DCS may have less.
func mayOpen(r request, t wal.Timeline) permit {
	p := permit{opens: true}
	switch {
	case !r.cluster.NoDCS && !r.cluster.Answered:
		p.why = "the DCS does not answer, and no timeline is opened without it"
	case !r.speaksFor(t):
		p.why = "its timeline is opened by Patroni's leader"
	case !r.cluster.NoDCS && r.cluster.LeaderTimeline < t:
		p.why = "the DCS does not say yet that the leader is on this timeline"
	case !r.cluster.NoDCS && !r.cluster.IsLeader() && !r.baton:
		p.why = "its timeline is opened by Patroni's leader or the baton's holder"
	default:
		p.ok = true
	}
	return p
}

// permit asks whether this node may put n now. A put that opens a timeline needs a linearizable
// read of the leader, made here.
func (a *Archiver) permit(ctx context.Context, n wal.Name) permit {
	r := a.request(n, a.scope.Last())
	p := mayPut(r)
	if !p.opens || r.cluster.Alone || !p.ok && !a.due(question{timeline: n.Segment.Timeline}) {
		return p
	}
	// Somebody else may have opened it since we listed, or with segments that are older than all that was listed.
	open, err := a.openedBy(ctx, n)
	if err != nil {
		a.note(err)
		return refuse("the archive does not answer")
	}
	if open {
		return mayPut(a.request(n, a.scope.Last())) // the DCS may have answered meanwhile
	}
	if !p.ok {
		return p
	}
	c, err := a.scope.Read(ctx)
	if err != nil && !c.NoDCS {
		return refuse("the DCS does not answer, and no timeline is opened without it")
	}
	return mayPut(a.request(n, c))
}

// question is what every file of a timeline that waits would ask the archive.
type question struct {
	timeline wal.Timeline
	vouch    bool // what it has of the timeline now; else whether it has anything, for a node that may not open it
	kept     bool // what it has beside the files set aside
}

// due says whether it is time to ask again.
func (a *Archiver) due(q question) bool {
	now := a.o.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.asked[q]; ok && now.Sub(last) < lookAfter {
		return false
	}
	a.asked[q] = now
	return true
}

// isKept says whether n is a file set aside whose timeline has to be told from another server's of the
// same number. Nobody is promoted to timeline 1, but two servers can have written it: what the archive has of it is to vouch for the file,
// once it has any.
func (a *Archiver) isKept(n wal.Name) bool {
	return a.keep != nil && (n.Segment.Timeline > 1 || a.cover.open(n)) && a.source(n) == a.keep
}

func (a *Archiver) request(n wal.Name, c Cluster) request {
	srv := a.server()
	kept := a.isKept(n)
	open, vouched := a.cover.open(n), a.cover.isVouched(n, kept) || kept && a.acceptedKept(n)
	var parted, apart bool
	if !kept {
		parted, apart = a.parted(n)
	}
	c.Line = a.line(c)
	a.mu.Lock()
	r := request{name: n, cluster: c, server: srv, own: a.own(srv), baton: a.hasBaton(), kept: kept, open: open, vouched: vouched, parted: parted, apart: apart}
	a.mu.Unlock()
	if n.Kind == wal.KindSegment && r.strays(n.Segment.Timeline) {
		_, r.joined = a.heldBefore(n)
		r.joined = r.joined || a.cover.isFit(n)
	}
	return r
}

// acceptedKept says whether an administrator wants the copy of n that was set aside.
func (a *Archiver) acceptedKept(n wal.Name) bool {
	id, err := a.keep.q.Ident(n)
	if err != nil {
		return false
	}
	c, _ := a.keep.recall(n, id)
	return c != nil && a.decided(n, c.digest).Accept
}
