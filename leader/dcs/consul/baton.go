package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// baton is the value of the baton's key, for the reader: what proves the lease is the session.
type baton struct {
	Holder string `json:"holder"`
	TTL    int64  `json:"ttl"` // seconds
}

func (b baton) value() []byte {
	v, _ := json.Marshal(b) // a string and a number
	return []byte(dcs.ASCII(v))
}

// batonOf is the lease as others see it. A locked key whose value is not ours to understand
// holds the baton all the same.
func batonOf(kv *api.KVPair) dcs.Lease {
	if kv.Session == "" {
		return dcs.Lease{}
	}
	var b baton
	if err := json.Unmarshal(kv.Value, &b); err != nil || b.Holder == "" {
		b.Holder = "unknown"
	}
	return dcs.Lease{Holder: b.Holder, TTL: time.Duration(b.TTL) * time.Second, Epoch: kv.CreateIndex}
}

// claims remembers the claim whose answer did not come: the next one goes on with its
// session. So a claim that was carried out is recognised, one that is carried out late finds the
// baton taken or its session ended, and no session is stranded twice.
type claims struct {
	mu   sync.Mutex
	open *claim
}

type claim struct {
	session session
	holder  string
	wanted  time.Duration
}

// Claim takes or extends the baton.
func (c *Client) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if l.Holder == "" || l.TTL <= 0 {
		return dcs.Lease{}, fmt.Errorf("claim baton: holder %q, ttl %v: both are needed", l.Holder, l.TTL)
	}
	if l.Epoch != 0 {
		l, err := c.extend(ctx, l)
		if err != nil {
			err = fmt.Errorf("extend baton: %w", err)
		}
		return l, err
	}
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	l, err := c.take(ctx, l)
	if err != nil && !errors.As(err, new(*dcs.HeldError)) {
		err = fmt.Errorf("claim baton: %w", err)
	}
	return l, err
}

// again is the pause after a claim that found the baton neither free nor held: it was given
// back a moment ago, or its lock delay is not over.
const again = 5 * time.Millisecond

func (c *Client) take(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	open, err := c.prepare(ctx, l)
	if err != nil {
		return dcs.Lease{}, err
	}
	l.TTL, l.Token = open.session.ttl, open.session.id
	var inTheWay *api.KVPair
	for range 3 {
		l.Epoch, err = c.lock(ctx, open, inTheWay)
		switch {
		case err == nil:
			c.claims.open = nil
			return l, nil
		case !isConflict(err):
			return dcs.Lease{}, err
		case strings.Contains(err.Error(), "invalid session"): // it has ended, or is a server's of another life
			c.claims.open = nil
			return dcs.Lease{}, err
		}
		found, getErr := c.pair(ctx, c.prefix+batonKey, c.prefix+batonKey)
		switch {
		case getErr != nil:
			return dcs.Lease{}, getErr
		case found != nil && found.Session == open.session.id: // by a try whose answer was lost
			c.claims.open = nil
			l.Epoch = found.CreateIndex
			return l, nil
		case found != nil && found.Session != "":
			c.claims.open = nil
			c.end(ctx, open.session.id)
			return dcs.Lease{}, &dcs.HeldError{Lease: batonOf(found)}
		}
		inTheWay = found
		if err := rest(ctx, again); err != nil {
			return dcs.Lease{}, err
		}
	}
	return dcs.Lease{}, err
}

// prepare gives a claim with a session that lives for the TTL from now.
func (c *Client) prepare(ctx context.Context, l dcs.Lease) (*claim, error) {
	if open := c.claims.open; open != nil && open.holder == l.Holder && open.wanted == l.TTL {
		_, err := c.renew(ctx, open.session.id)
		if err == nil {
			return open, nil
		}
		if !errors.Is(err, dcs.ErrLost) {
			return nil, err
		}
	}
	s, err := c.begin(ctx, "walbaton baton "+l.Holder, l.TTL)
	if err != nil {
		return nil, err
	}
	c.claims.open = &claim{session: s, holder: l.Holder, wanted: l.TTL}
	return c.claims.open, nil
}

// lock creates the baton's key and gives its create index. A key that nobody has locked is
// replaced, so that the index is a new one.
func (c *Client) lock(ctx context.Context, open *claim, inTheWay *api.KVPair) (uint64, error) {
	key := c.prefix + batonKey
	first := &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key}
	if inTheWay != nil {
		first = &api.KVTxnOp{Verb: api.KVDeleteCAS, Key: key, Index: inTheWay.ModifyIndex}
	}
	value := baton{Holder: open.holder, TTL: int64(open.session.ttl / time.Second)}.value()
	results, err := c.change(ctx, c.batonRule(), first,
		&api.KVTxnOp{Verb: api.KVLock, Key: key, Value: value, Session: open.session.id})
	if err != nil {
		return 0, err
	}
	if len(results) == 0 { // results are filtered by what we may read
		return 0, c.unread()
	}
	return results[len(results)-1].CreateIndex, nil
}

// extend renews the session and then looks whether the key still is ours: somebody may have
// deleted it, and the look needs a majority of the servers, which a renewal does not.
func (c *Client) extend(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if l.Token == "" {
		return dcs.Lease{}, fmt.Errorf("no token: %w", dcs.ErrLost)
	}
	ttl, err := c.renew(ctx, l.Token)
	if err != nil {
		return dcs.Lease{}, err
	}
	found, err := c.pair(ctx, c.prefix+batonKey, c.prefix+batonKey)
	if err != nil {
		return dcs.Lease{}, err
	}
	locked := found != nil && found.Session == l.Token
	if locked && found.CreateIndex == l.Epoch {
		l.TTL = ttl
		return l, nil
	}
	if !locked {
		c.end(ctx, l.Token)
	}
	return dcs.Lease{}, fmt.Errorf("key is not ours: %w", dcs.ErrLost)
}

// Release deletes the key if this lease's session has it locked, and ends the session. To
// end the session alone would do, but after the lock delay.
func (c *Client) Release(ctx context.Context, l dcs.Lease) error {
	if l.Token == "" || l.Epoch == 0 {
		return nil // not a lease that Claim gave
	}
	key := c.prefix + batonKey
	_, err := c.change(ctx, c.batonRule(),
		&api.KVTxnOp{Verb: api.KVCheckSession, Key: key, Session: l.Token},
		&api.KVTxnOp{Verb: api.KVDelete, Key: key})
	if err != nil && !isConflict(err) { // a conflict: it has ended already
		return fmt.Errorf("release baton: %w", err)
	}
	c.end(ctx, l.Token)
	return nil
}
