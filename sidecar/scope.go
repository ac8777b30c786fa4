package main

import (
	"context"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/sidecar/wiring"
)

// scope is the archiver's view of the cluster: the elector's readings through the lens.
type scope struct {
	elector *leader.Elector
	lens    *wiring.Lens
}

// Last gives the last reading.
func (s *scope) Last() archiver.Cluster {
	v, ok := s.elector.View()
	st := s.elector.Status()
	if !ok {
		return archiver.Cluster{NoDCS: s.lens.NoDCS, Self: st.Member}
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
