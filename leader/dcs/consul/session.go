package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// lockDelay is the shortest that there is; zero would mean the default of 15 s.
const lockDelay = time.Millisecond

// sessions remembers what the servers said a session must live for at least.
type sessions struct{ least atomic.Int64 }

// session is one that we made.
type session struct {
	id  string
	ttl time.Duration
}

// begin makes a session that lives for the TTL, in whole seconds, or the least that the servers allow.
func (c *Client) begin(ctx context.Context, name string, ttl time.Duration) (session, error) {
	ttl = max(seconds(ttl), time.Duration(c.sessions.least.Load()))
	s, err := c.create(ctx, name, ttl)
	if least := leastTTL(err); least > ttl {
		c.sessions.least.Store(int64(least))
		s, err = c.create(ctx, name, least)
	}
	if err != nil {
		return session{}, fmt.Errorf("create session: %w", because(ctx, err, sessionRule()))
	}
	return s, nil
}

func (c *Client) create(ctx context.Context, name string, ttl time.Duration) (session, error) {
	id, _, err := c.api.Session().CreateNoChecks(&api.SessionEntry{
		Name:      name,
		TTL:       ttl.String(),
		LockDelay: lockDelay,
		Behavior:  api.SessionBehaviorDelete,
	}, writing(ctx))
	return session{id, ttl}, err
}

// leastTTL reads it from "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]",
// 0 when the error is another one. Asking the agent for it would take one more permission.
func leastTTL(err error) time.Duration {
	if err == nil {
		return 0
	}
	_, rest, found := strings.Cut(err.Error(), "Invalid Session TTL")
	_, rest, _ = strings.Cut(rest, "[")
	least, _, ok := strings.Cut(rest, "=")
	d, err := time.ParseDuration(least)
	if !found || !ok || err != nil {
		return 0
	}
	return d
}

// renew extends a session to its TTL from now; dcs.ErrLost when it has ended.
func (c *Client) renew(ctx context.Context, id string) (time.Duration, error) {
	var entries []*api.SessionEntry
	// Session.Renew keeps to itself what the server says of a refusal.
	_, err := c.api.Raw().Write("/v1/session/renew/"+id, nil, &entries, writing(ctx))
	var status api.StatusError
	switch {
	case errors.As(err, &status) && status.Code == http.StatusNotFound, err == nil && len(entries) == 0:
		return 0, fmt.Errorf("renew session: %w", dcs.ErrLost)
	case err != nil:
		return 0, fmt.Errorf("renew session: %w", because(ctx, err, sessionRule()))
	}
	ttl, err := time.ParseDuration(entries[0].TTL)
	if err != nil {
		return 0, fmt.Errorf("renew session: %w", err)
	}
	return ttl, nil
}

// end lets go of a session that has no more use. If that fails it runs out by itself.
func (c *Client) end(ctx context.Context, id string) {
	_, _ = c.api.Session().Destroy(id, writing(ctx))
}

func writing(ctx context.Context) *api.WriteOptions { return (&api.WriteOptions{}).WithContext(ctx) }

// seconds rounds up.
func seconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
