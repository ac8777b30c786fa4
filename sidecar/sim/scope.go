package sim

import (
	"context"
	"errors"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader/dcs"
)

// scope is the archiver's view of the cluster.
type scope struct{ n *node }

// Last gives the last reading.
func (s scope) Last() archiver.Cluster {
	n := s.n
	v, ok := n.m.View()
	if !ok {
		return archiver.Cluster{Self: n.name, Answered: !n.silent()}
	}
	if n.last == nil {
		c := n.lens.Cluster(v, true)
		n.last = &c
	}
	c := *n.last
	c.Answered = !n.silent()
	return c
}

// Read makes a linearizable reading for this call.
func (s scope) Read(ctx context.Context) (archiver.Cluster, error) {
	n := s.n
	sent := n.now
	r, err := n.readDCS(ctx)
	n.noteDCS(sent, err)
	if err != nil {
		c := s.Last()
		c.Answered = false
		return c, err
	}
	n.last = nil // a lens remembers the line that it saw last
	return n.lens.Cluster(n.view(r, sent), true), nil
}

// silent is leader.Status.Silent.
func (n *node) silent() bool {
	return n.failed || n.now.Sub(n.answered) > 2*batonEvery && n.now.Sub(n.begun) > 2*batonEvery
}

func (n *node) noteDCS(sent time.Time, err error) {
	switch {
	case err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, new(*dcs.HeldError)):
		n.failed = false
		if sent.After(n.answered) {
			n.answered = sent
		}
	case !errors.Is(err, context.Canceled):
		n.failed = true
	}
}
