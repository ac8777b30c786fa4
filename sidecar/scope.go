package main

import (
	"context"
	"errors"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/sidecar/wiring"
)

// scope is the archiver's view of the cluster: the elector's readings through the lens.
type scope struct {
	elector *leader.Elector
	lens    *wiring.Lens

	// podsStay: a member's key outlives its Patroni. It is an annotation of a Pod on Kubernetes, and proves no life.
	podsStay bool
}

// Last gives the last reading.
func (s *scope) Last() archiver.Cluster {
	v, ok := s.elector.View()
	st := s.elector.Status()
	if !ok {
		// Before the first reading the DCS is not silent: what is for its silence only (P4) has to wait.
		return archiver.Cluster{NoDCS: s.lens.NoDCS, Self: st.Member, Answered: !s.lens.NoDCS && !st.Silent}
	}
	return s.lens.Cluster(v, !st.Silent)
}

// Read makes a linearizable reading for this call.
func (s *scope) Read(ctx context.Context) (archiver.Cluster, error) {
	v, err := s.elector.Read(ctx)
	if err != nil {
		c := s.Last()
		c.Answered = false
		return c, err
	}
	return s.lens.Cluster(v, true), nil
}

// errHearsay is why nothing is hidden from a restore with dcs.kind rest.
var errHearsay = errors.New("what Patroni's REST API says of the leader is not linearizable")

// Leader makes scope an archiver.Oracle: fetch asks it whether a history is to be hidden.
func (s *scope) Leader(ctx context.Context) (archiver.Leader, error) {
	if s.lens.NoDCS && !s.lens.Alone {
		return archiver.Leader{}, errHearsay
	}
	v, err := s.elector.Read(ctx)
	if err != nil {
		return archiver.Leader{}, err
	}
	l := archiver.Leader{Name: v.Cluster.Leader, Self: v.Cluster.Leader == v.Self, Standby: v.Cluster.StandbyCluster}
	_, recorded := v.Leader()
	_, member := v.Cluster.Members[l.Name]
	l.Live = recorded || member && !s.podsStay
	l.Timeline = wal.Timeline(v.LeaderTimeline())
	return l, nil
}

// Line is the last known one.
func (s *scope) Line() wal.History { return s.Last().Line }
