package consul

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// announced is the record that this client keeps.
type announced struct {
	sem chan struct{} // one Announce at a time

	mu     sync.Mutex // Read looks at it too
	rec    record
	writes int // begun and ended
}

type record struct {
	member  string
	value   string
	sure    bool          // the server has the value
	ttl     time.Duration // asked for
	session string
	written uint64 // the key's modify index when we last saw it
}

func (a *announced) get() record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec
}

func (a *announced) set(r record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rec = r
	a.writes++
}

func (a *announced) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes
}

// seen notices that a reading, during which we did not write, lacks our record: somebody
// deleted it. Then the next Announce writes it again.
func (a *announced) seen(r dcs.Reading, before int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rec.session == "" || a.writes != before {
		return
	}
	if n, ok := r.Records[a.rec.member]; !ok || n.Value != a.rec.value {
		a.rec.sure = false
	}
}

// Announce keeps the record of one member. A client that announces another one lets the
// record of the first run out.
func (c *Client) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := c.announce(ctx, member, value, ttl); err != nil {
		return fmt.Errorf("announce %s: %w", member, err)
	}
	return nil
}

func (c *Client) announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := dcs.CheckValue(value); err != nil {
		return err
	}
	if member == "" {
		return errors.New("no member")
	}
	select {
	case c.announced.sem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.announced.sem }()
	if ttl <= 0 {
		return c.withdraw(ctx, member)
	}
	return c.keep(ctx, record{member: member, value: value, ttl: ttl})
}

func (c *Client) recordKey(member string) string { return c.prefix + records + url.PathEscape(member) }

func (c *Client) withdraw(ctx context.Context, member string) error {
	if _, err := c.change(ctx, c.recordRule(), &api.KVTxnOp{Verb: api.KVDelete, Key: c.recordKey(member)}); err != nil {
		return err
	}
	if s := c.announced.get().session; s != "" {
		c.end(ctx, s)
	}
	c.announced.set(record{})
	return nil
}

// keep renews the record's session, or begins one, and writes the value when it changed.
func (c *Client) keep(ctx context.Context, want record) error {
	a := &c.announced
	now := a.get()
	if now.member != want.member || now.ttl != want.ttl {
		now = record{member: want.member, ttl: want.ttl} // the former session runs out
	}
	if now.session != "" {
		_, err := c.renew(ctx, now.session)
		switch {
		case errors.Is(err, dcs.ErrLost):
			now.session = ""
		case err != nil:
			return err
		case a.get().sure && now.value == want.value:
			return nil
		}
	}
	if now.session == "" {
		s, err := c.begin(ctx, "walbaton record "+want.member, want.ttl)
		if err != nil {
			return err
		}
		now.session, now.written = s.id, 0
	}
	now.value, now.sure = want.value, false
	a.set(now) // should the answer be lost
	written, err := c.put(ctx, now)
	if err != nil {
		if strings.Contains(err.Error(), "invalid session") {
			now.session = ""
			a.set(now)
		}
		return err
	}
	now.written, now.sure = written, true
	a.set(now)
	return nil
}

// put writes on condition of the index it knows: a write whose answer was lost, and that is
// carried out late, must not undo a newer one. What another session has locked is an
// earlier life's of this sidecar: it is replaced. The flags make each write a change: one
// that changes nothing leaves the index as it was, and the condition of the late one true.
func (c *Client) put(ctx context.Context, r record) (uint64, error) {
	key := c.recordKey(r.member)
	first := &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key}
	if r.written != 0 {
		first = &api.KVTxnOp{Verb: api.KVCheckIndex, Key: key, Index: r.written}
	}
	for range 3 {
		results, err := c.change(ctx, c.recordRule(), first,
			&api.KVTxnOp{Verb: api.KVLock, Key: key, Value: []byte(r.value), Session: r.session, Flags: first.Index})
		switch {
		case err == nil && len(results) > 0:
			return results[len(results)-1].ModifyIndex, nil
		case err == nil: // results are filtered by what we may read
			return 0, c.unread()
		case !isConflict(err) || strings.Contains(err.Error(), "invalid session"):
			return 0, err
		}
		there, err := c.pair(ctx, c.prefix+records, key)
		switch {
		case err != nil:
			return 0, err
		case there == nil:
			first = &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key}
		case there.Session == r.session:
			first = &api.KVTxnOp{Verb: api.KVCheckIndex, Key: key, Index: there.ModifyIndex}
		default:
			first = &api.KVTxnOp{Verb: api.KVDeleteCAS, Key: key, Index: there.ModifyIndex}
		}
		if err := rest(ctx, again); err != nil { // it may be the lock delay
			return 0, err
		}
	}
	return 0, errors.New("another process of the same name writes this record")
}
