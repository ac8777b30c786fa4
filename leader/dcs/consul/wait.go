package consul

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

const (
	idle  = 10 * time.Second       // how long Wait waits for a change; Consul adds up to a sixteenth
	pause = 250 * time.Millisecond // after a failure, so that reading and waiting do not spin
	quiet = 100 * time.Millisecond // after a change that does not count
)

// Wait asks for the scope again and again, each time from the index of the last answer on: the
// server holds its answer back until something has changed. What fails means that the scope
// may differ.
func (c *Client) Wait(ctx context.Context, since dcs.Reading) error {
	if err := c.wait(ctx, since); err != nil {
		return fmt.Errorf("wait for a change: %w", err)
	}
	return nil
}

func (c *Client) wait(ctx context.Context, since dcs.Reading) error {
	index, err := strconv.ParseUint(since.Revision, 10, 64)
	if err != nil {
		return ctx.Err() // not a revision of ours: read again
	}
	for end := time.Now().Add(idle); ; {
		left := time.Until(end)
		if left < time.Millisecond { // Consul takes milliseconds, and none for five minutes
			return ctx.Err()
		}
		// A leader that has been replaced does no harm here: it wakes us late, at most.
		q := &api.QueryOptions{WaitIndex: max(index, 1), WaitTime: left}
		pairs, meta, err := c.api.KV().List(c.prefix, q.WithContext(ctx))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return rest(ctx, pause)
		case differs(since, c.reading(pairs)):
			return nil
		case meta.LastIndex < index: // a server that was restored from a backup: begin anew
			return rest(ctx, quiet)
		case meta.LastIndex > index:
			if err := rest(ctx, quiet); err != nil {
				return err
			}
		}
		index = meta.LastIndex
	}
}

// differs leaves out the keys that Patroni's leader rewrites in every loop.
func differs(a, b dcs.Reading) bool {
	if a.Baton != b.Baton || !maps.Equal(a.Records, b.Records) {
		return true
	}
	count := func(nodes map[string]dcs.Node) map[string]dcs.Node {
		nodes = maps.Clone(nodes)
		delete(nodes, "status")
		delete(nodes, "optime/leader")
		return nodes
	}
	return !maps.Equal(count(a.Nodes), count(b.Nodes))
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
