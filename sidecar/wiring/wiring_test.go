package wiring

import (
	"slices"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
)

// A standby says whether its walreceiver streams, and nothing of it while PostgreSQL does not answer.
func TestRecordReceiver(t *testing.T) {
	streams := archiver.Receiver{Streaming: true}
	for _, c := range []struct {
		srv  archiver.Server
		want leader.Receiver
	}{
		{archiver.Server{State: archiver.ServerStandby, SQL: true, Receiver: streams}, leader.ReceiverStreams},
		{archiver.Server{State: archiver.ServerStandby, SQL: true}, leader.ReceiverNone},
		{archiver.Server{State: archiver.ServerStandby}, ""},
		{archiver.Server{State: archiver.ServerStopped}, ""},
		{archiver.Server{State: archiver.ServerPrimary, SQL: true}, ""},
	} {
		if got := Record(leader.Record{}, c.srv, wal.History{}, nil).Receiver; got != c.want {
			t.Errorf("%+v: receiver %q, want %q", c.srv, got, c.want)
		}
	}
}

// TestRecordHeld: what waits for an administrator is in the record, and is not offered as an errand.
func TestRecordHeld(t *testing.T) {
	var st archiver.State
	s := wal.Segment{Timeline: 1, Size: 1 << 20, No: 7}
	st.Has.Add(s)
	st.Misses.Add(s)
	st.Held.Add(s)
	r := Record(leader.Record{}, archiver.Server{}, wal.History{}, &st)
	if want := leader.RangesOf(leader.Range{Timeline: 1, First: 7, Last: 7}); !slices.Equal(r.Has, want) || !slices.Equal(r.Misses, want) || !slices.Equal(r.Tried, want) {
		t.Errorf("has %v misses %v tried %v, want all %v", r.Has, r.Misses, r.Tried, want)
	}
}

// TestLensForgets: while no leader is known the line stays; another cluster that takes the scope has a line of its own, which
// the old one's says nothing about.
func TestLensForgets(t *testing.T) {
	read := func(nodes map[string]string) leader.View {
		r := dcs.Reading{Nodes: map[string]dcs.Node{}}
		for k, v := range nodes {
			r.Nodes[k] = dcs.Node{Value: v}
		}
		return leader.NewView("n1", r, time.Unix(0, 0))
	}
	const member = `{"conn_url":"postgres://n1:5432/postgres","state":"running","role":"primary","timeline":2}`
	l := &Lens{}
	for _, step := range []struct {
		what  string
		nodes map[string]string
		want  uint32
	}{
		{"a cluster on timeline 2", map[string]string{"initialize": "7", "leader": "n1", "members/n1": member, "history": `[[1,1048576,"x"]]`}, 2},
		{"its leader is gone", map[string]string{"initialize": "7"}, 2},
		{"Patroni forgot it", nil, 2},
		{"another cluster, whose leader is not known yet", map[string]string{"initialize": "8"}, 0},
	} {
		if got := uint32(l.Cluster(read(step.nodes), true).Line.Timeline); got != step.want {
			t.Errorf("%s: the line is timeline %d, want %d", step.what, got, step.want)
		}
	}
}
