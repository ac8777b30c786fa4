package archiver

import (
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestMayPut is DESIGN section 6: who may put a segment or a history, and who may open a timeline.
func TestMayPut(t *testing.T) {
	line2 := wal.History{Timeline: 2, Forks: []wal.Fork{{Timeline: 1, End: seg(1, 5).Start() + 100}}}
	onOne := wal.History{Timeline: 1}
	streamsLeader := Server{State: ServerStandby, Receiver: Receiver{Streaming: true, Timeline: 2, Host: "10.0.0.1", Port: 5432}}
	streamsOther := Server{State: ServerStandby, Receiver: Receiver{Streaming: true, Timeline: 2, Host: "10.0.0.9", Port: 5432}}
	primary := Server{State: ServerPrimary}
	leads := Cluster{Answered: true, Self: "a", Leader: "a", LeaderHost: "10.0.0.1", LeaderPort: 5432, Line: line2, LeaderTimeline: 2}
	follows := Cluster{Answered: true, Self: "b", Leader: "a", LeaderHost: "10.0.0.1", LeaderPort: 5432, Line: line2, LeaderTimeline: 2}
	silent := follows
	silent.Answered = false
	silentLeader := leads
	silentLeader.Answered = false
	none := Cluster{NoDCS: true, Alone: true, Answered: true, Self: "a", Leader: "a", Line: line2}
	rest := Cluster{NoDCS: true, Answered: true, Self: "a", Leader: "a", Line: line2}
	restOther, restNobody, restSilent := rest, rest, rest
	restOther.Leader, restNobody.Leader = "b", ""
	restSilent.Leader, restSilent.Answered = "b", false
	two, one, branch := wal.SegmentName(seg(2, 6)), wal.SegmentName(seg(1, 3)), wal.SegmentName(seg(1, 5))
	for _, tt := range []struct {
		name  string
		r     request
		ok    bool
		opens bool
		vouch bool
	}{
		{"leader with the baton ships the line", request{name: two, cluster: leads, server: primary, own: line2, baton: true, open: true}, true, false, false},
		{"leader with the baton ships the parent", request{name: one, cluster: leads, server: primary, own: line2, baton: true, open: true}, true, false, false},
		{"nobody ships a branch", request{name: branch, cluster: leads, server: primary, own: line2, baton: true, open: true}, false, false, false},
		{"leader without the baton waits on an open timeline", request{name: two, cluster: leads, server: primary, own: line2, open: true}, false, false, false},
		{"leader opens without the baton", request{name: two, cluster: leads, server: primary, own: line2}, true, true, false},
		{"leader before its promotion has not the timeline in its history", request{name: two, cluster: leads, server: Server{State: ServerStandby}, own: onOne}, false, true, false},
		{"replica with the baton opens what it streams from the leader", request{name: two, cluster: follows, server: streamsLeader, own: line2, baton: true}, true, true, false},
		{"replica without the baton opens nothing", request{name: two, cluster: follows, server: streamsLeader, own: line2}, false, true, false},
		{"a dead primary's follower opens nothing", request{name: two, cluster: follows, server: streamsOther, own: line2, baton: true}, false, true, false},
		{"replica with the baton that streams the leader ships", request{name: two, cluster: follows, server: streamsLeader, own: line2, baton: true, open: true}, true, false, false},
		{"replica with the baton that streams another has to be vouched for", request{name: two, cluster: follows, server: streamsOther, own: line2, baton: true, open: true}, false, false, true},
		{"by the segment before, for the leader may be another server than the one it streams", request{name: two, cluster: follows, server: streamsOther, own: line2, baton: true, open: true, vouched: true}, false, false, true},
		{"and ships once it is", request{name: two, cluster: follows, server: streamsOther, own: line2, baton: true, open: true, vouched: true, joined: true}, true, false, false},
		{"that one vouches for the timeline, too", request{name: two, cluster: follows, server: streamsOther, own: line2, baton: true, open: true, joined: true}, true, false, false},
		{"what the leader's timeline grew from nobody writes any more", request{name: one, cluster: follows, server: streamsOther, own: line2, baton: true, open: true, vouched: true}, true, false, false},
		{"a stopped former primary with the baton has to be vouched for", request{name: one, cluster: follows, server: Server{State: ServerStopped}, own: onOne, baton: true, open: true}, false, false, true},
		{"a file set aside is not spoken for by the server beside it", request{name: two, cluster: leads, server: primary, own: line2, baton: true, kept: true, open: true}, false, false, true},
		{"and opens nothing", request{name: two, cluster: leads, server: primary, own: line2, baton: true, kept: true}, false, true, false},
		{"and ships once another of them is the archive's", request{name: two, cluster: follows, server: streamsLeader, own: line2, baton: true, kept: true, open: true, vouched: true}, true, false, false},
		{"no DCS answer: a file set aside waits", request{name: two, cluster: silent, server: primary, own: line2, kept: true, open: true}, false, false, false},
		{"no DCS answer: a primary ships on a timeline that is the archive's", request{name: two, cluster: silent, server: primary, own: line2, open: true, vouched: true}, true, false, false},
		{"no DCS answer: the last known leader ships", request{name: two, cluster: silentLeader, server: Server{State: ServerStandby}, own: line2, open: true, vouched: true}, true, false, false},
		{"no DCS answer: that the history is there does not say whose it is", request{name: two, cluster: silent, server: primary, own: line2, open: true}, false, false, true},
		{"no DCS answer: nobody is promoted to timeline 1", request{name: one, cluster: silent, server: primary, own: onOne, open: true}, true, false, false},
		{"no DCS answer: a standby does not", request{name: two, cluster: silent, server: streamsLeader, own: line2, open: true}, false, false, false},
		{"no DCS answer: no timeline is opened", request{name: two, cluster: silentLeader, server: primary, own: line2}, false, true, false},
		{"no DCS at all: a primary opens", request{name: two, cluster: none, server: primary, own: line2}, true, true, false},
		{"no DCS at all: a primary ships", request{name: two, cluster: none, server: primary, own: line2, open: true}, true, false, false},
		{"no DCS at all: a standby does not", request{name: two, cluster: none, server: Server{State: ServerStandby}, own: line2, open: true}, false, false, false},
		{"REST: a running primary that Patroni names opens", request{name: two, cluster: rest, server: primary, own: line2}, true, true, false},
		{"REST: and ships", request{name: two, cluster: rest, server: primary, own: line2, open: true}, true, false, false},
		{"REST: while Patroni names nobody too", request{name: two, cluster: restNobody, server: primary, own: line2}, true, true, false},
		{"REST: while no Patroni answers too, whoever led before", request{name: two, cluster: restSilent, server: primary, own: line2}, true, true, false},
		{"REST: a primary opens nothing while Patroni names another", request{name: two, cluster: restOther, server: primary, own: line2}, false, true, false},
		{"REST: nor ships", request{name: two, cluster: restOther, server: primary, own: line2, open: true, vouched: true}, false, false, false},
		{"REST: the leader before its promotion ships nothing", request{name: two, cluster: rest, server: Server{State: ServerStandby}, own: onOne, open: true, vouched: true, baton: true}, false, false, false},
		{"REST: a standby that streams from the leader does not ship", request{name: two, cluster: restOther, server: streamsLeader, own: line2, open: true, vouched: true}, false, false, false},
		{"REST: a file set aside is not spoken for by the server beside it", request{name: two, cluster: rest, server: primary, own: line2, kept: true, open: true}, false, false, true},
		{"REST: and opens nothing", request{name: two, cluster: rest, server: primary, own: line2, kept: true}, false, true, false},
		{"REST: and ships once another of them is the archive's", request{name: two, cluster: rest, server: primary, own: line2, kept: true, open: true, vouched: true}, true, false, false},
		{"a second primary of the leader's timeline ships nothing of it", request{name: two, cluster: follows, server: Server{State: ServerPrimary, Timeline: 2}, own: line2, baton: true, open: true, vouched: true}, false, false, false},
		{"also when no DCS answers", request{name: two, cluster: silent, server: Server{State: ServerPrimary, Timeline: 2}, own: line2, open: true, vouched: true}, false, false, false},
		{"a former leader that nobody has demoted yet ships what the new timeline grew from", request{name: one, cluster: follows, server: Server{State: ServerPrimary, Timeline: 1}, own: onOne, baton: true, open: true, vouched: true}, true, false, false},
		{"what follows on another segment than the archive's is not shipped", request{name: two, cluster: leads, server: primary, own: line2, baton: true, open: true, vouched: true, parted: true}, false, false, false},
		{"a history below the leader's timeline is put by anyone", request{name: wal.HistoryName(2), cluster: Cluster{Answered: true, Self: "b", Leader: "a", Line: wal.History{Timeline: 3}}}, true, false, false},
		{"the leader's own history is put by the leader", request{name: wal.HistoryName(2), cluster: leads, server: primary, own: line2}, true, true, false},
		{"and not by a follower", request{name: wal.HistoryName(2), cluster: follows, server: streamsLeader, own: line2}, false, true, false},
		{"a history above the leader's timeline waits", request{name: wal.HistoryName(3), cluster: follows, server: primary, own: wal.History{Timeline: 3, Forks: line2.Forks}}, false, true, false},
		{"the leader's own history waits for its record", request{name: wal.HistoryName(2), cluster: Cluster{Answered: true, Self: "a", Leader: "a", Line: onOne, LeaderTimeline: 1}, server: primary, own: line2}, false, true, false},
		{"also while its sidecar remembers more than the DCS says", request{name: wal.HistoryName(2), cluster: Cluster{Answered: true, Self: "a", Leader: "a", Line: line2, LeaderTimeline: 1}, server: primary, own: line2}, false, true, false},
		{"or the DCS says nothing of it", request{name: wal.HistoryName(2), cluster: Cluster{Answered: true, Self: "a", Leader: "a", Line: line2}, server: primary, own: line2}, false, true, false},
		{"and not for ancestors that nobody can tell", request{name: wal.HistoryName(2), cluster: Cluster{Answered: true, Self: "a", Leader: "a", LeaderTimeline: 2}, server: primary, own: line2}, true, true, false},
		{"a label needs no leave", request{name: wal.Name{Kind: wal.KindBackup, Segment: seg(1, 5)}, cluster: silent}, true, false, false},
	} {
		got := mayPut(tt.r)
		if got.ok != tt.ok || got.opens != tt.opens || got.vouch != tt.vouch {
			t.Errorf("%s: got %+v, want ok %v opens %v vouch %v", tt.name, got, tt.ok, tt.opens, tt.vouch)
		}
		if !got.ok && got.why == "" {
			t.Errorf("%s: refused without a reason", tt.name)
		}
	}
}

// A refusal names who has the baton, and does not invent somebody.
func TestRefusalNamesTheHolder(t *testing.T) {
	r := request{name: wal.SegmentName(seg(1, 5)), cluster: Cluster{Answered: true, Self: "b", Leader: "a", Holder: "a", Line: wal.History{Timeline: 1}}, server: Server{State: ServerStandby}, open: true}
	if got := mayPut(r).why; got != "a has the baton" {
		t.Errorf("held: %q", got)
	}
	r.cluster.Holder = ""
	if got := mayPut(r).why; got != "nobody has the baton" {
		t.Errorf("free: %q", got)
	}
}

// TestSecondPrimaryThatStopped: a standby was started as a second primary of the leader's timeline, and has been stopped since. It has
// the beginning of the timeline in common with the archive, gets the baton for what nobody else has, and ships nothing of it.
func TestSecondPrimaryThatStopped(t *testing.T) {
	for _, was := range []bool{true, false} {
		w := newWriter()
		w.Fill(2)
		s := mem.New("x")
		twin := w.Clone(7)
		w.Fill(3)
		twin.Fill(3)
		n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", twin)
		for _, g := range w.Full()[:2] {
			n1.write(g.String(), w.Segment(g), ".ready")
		}
		if err := n1.Rescan(); err != nil {
			t.Fatal(err)
		}
		n1.shipAll(1)
		n2.copyFrom(twin, ".ready")
		n2.sees(func(_ *Cluster, s *Server) {
			s.State, s.SQL, s.Receiver, s.WasPrimary = ServerStopped, false, Receiver{}, was
		})
		n2.shipAll(2)
		g := twin.Full()[3]
		if _, ok := stored(t, n2.Archive())[g.String()]; ok == was {
			t.Errorf("it was a primary: %v; the archive has %v: %v", was, g, ok)
		}
	}
}

// TestHistoryOfWhoLedForAMoment: two servers are promoted to one number. The first puts its history, as the leader, and no segment; the second
// leads from then on, and opens the timeline. With the baton the first ships nothing of its own.
func TestHistoryOfWhoLedForAMoment(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	s := mem.New("x")
	line, twin := w.Fork(2), w.Clone(7).Fork(2)
	line.Fill(4)
	twin.Fill(4)
	n1, n2 := newTestNode(t, s, "n1", line), newTestNode(t, s, "n2", twin)
	n2.sees(func(c *Cluster, _ *Server) { c.Leader = "n2" })
	n2.write("00000002.history", twin.History().Bytes(), ".ready")
	n2.copyFrom(twin, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n2.Ship(t.Context(), wal.HistoryName(2)); err != nil {
		t.Fatal(err)
	}
	n1.write("00000002.history", line.History().Bytes(), ".ready")
	n1.copyFrom(line, ".ready")
	if err := n1.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	own := onTimeline(line, 2)
	if err := n1.Ship(t.Context(), wal.SegmentName(own[0])); err != nil {
		t.Fatal(err)
	}
	n2.sees(func(c *Cluster, s *Server) {
		c.Leader, s.State, s.SQL, s.Receiver = "n1", ServerStopped, false, Receiver{}
	})
	n2.BeginTerm(t.Context(), 2, Set{})
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g := range own[2:] { // not beside the one that the archive has
		if err := n2.Ship(t.Context(), wal.SegmentName(g)); err == nil {
			t.Errorf("%v of the other server's timeline was put", g)
		}
	}
}
