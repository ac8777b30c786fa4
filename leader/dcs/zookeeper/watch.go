package zookeeper

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

const (
	idle  = 10 * time.Second       // how long Wait waits for a change
	pause = 250 * time.Millisecond // without a connection, so that reading and waiting do not spin
)

// Wait waits for a watch of the reading to fire. A session that is another's, or breaks, means
// that the scope may differ.
func (c *Client) Wait(ctx context.Context, since dcs.Reading) error {
	if since.Revision == "" {
		return ctx.Err() // not a reading of ours: read again
	}
	if err := c.wait(ctx, since); err != nil {
		return fmt.Errorf("wait for a change: %w", err)
	}
	return nil
}

func (c *Client) wait(ctx context.Context, since dcs.Reading) error {
	v, err := c.watching(ctx)
	if err != nil {
		return rest(ctx, pause)
	}
	session, events, _ := strings.Cut(since.Revision, ".")
	if id, _ := v.opened(); session != fmt.Sprintf("%x", id) {
		return ctx.Err()
	}
	n, changed := v.state()
	if events != fmt.Sprint(n) {
		return ctx.Err()
	}
	t := time.NewTimer(idle)
	defer t.Stop()
	select {
	case <-changed:
		return ctx.Err()
	case <-t.C:
		return nil
	case <-v.over:
		return rest(ctx, pause)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watching gives the session of readings. Many may wait on it while others read.
func (c *Client) watching(ctx context.Context) (v *view, err error) {
	err = c.attempts(ctx, func(ctx context.Context) error {
		if err := lock(ctx, c.reading.sem); err != nil {
			return err
		}
		defer func() { <-c.reading.sem }()
		v, err = c.view(ctx)
		return err
	})
	return v, err
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
