package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
)

// announced is the record that this client keeps.
type announced struct {
	sem    chan struct{} // one Announce at a time
	keeper *keeper

	mu  sync.Mutex // Read looks at it too
	rec record
}

type record struct {
	member  string
	value   string
	sure    bool  // the server has the value
	ttl     int64 // seconds asked for
	lease   clientv3.LeaseID
	written int64 // the key's mod revision when we last saw it
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
}

// seen notices that a reading, not older than our last write, lacks our record: somebody
// deleted it. Then the next Announce writes it again.
func (a *announced) seen(r dcs.Reading, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rec.lease == 0 || revision < a.rec.written {
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
		return fmt.Errorf("announce %s: %w", member, denied(ended(ctx, err), "readwrite", c.prefix+records))
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
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	select {
	case c.announced.sem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.announced.sem }()
	key := c.prefix + records + url.PathEscape(member) // one ASCII element
	if ttl <= 0 {
		return c.announced.withdraw(ctx, client, key)
	}
	return c.announced.keep(ctx, client, key, record{member: member, value: value, ttl: seconds(ttl)})
}

func (a *announced) withdraw(ctx context.Context, client *clientv3.Client, key string) error {
	if _, err := client.Delete(ctx, key); err != nil {
		return err
	}
	if lease := a.get().lease; lease != 0 {
		revoke(ctx, client, lease)
	}
	a.set(record{})
	return nil
}

// keep renews the record's lease, or grants one, and writes the value when it changed.
func (a *announced) keep(ctx context.Context, client *clientv3.Client, key string, want record) error {
	now := a.get()
	if now.member != want.member || now.ttl != want.ttl {
		now = record{member: want.member, ttl: want.ttl} // the former lease runs out
	}
	if now.lease != 0 {
		err := a.keeper.renew(ctx, client, now.lease)
		switch {
		case errors.Is(err, dcs.ErrLost):
			now.lease = 0
		case err != nil:
			return err
		case a.get().sure && now.value == want.value:
			return nil
		}
	}
	if now.lease == 0 {
		grant, err := client.Grant(ctx, want.ttl)
		if err != nil {
			return err
		}
		now.lease = grant.ID
	}
	now.value, now.sure = want.value, false
	a.set(now) // should the answer be lost
	written, err := putRecord(ctx, client, key, now)
	if err != nil {
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			now.lease = 0
			a.set(now)
		}
		return err
	}
	now.written, now.sure = written, true
	a.set(now)
	return nil
}

// putRecord writes on condition of the revision it knows: a write whose answer was lost, and that
// is carried out late, must not undo a newer one.
func putRecord(ctx context.Context, client *clientv3.Client, key string, r record) (int64, error) {
	for range 3 {
		resp, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", r.written)).
			Then(clientv3.OpPut(key, r.value, clientv3.WithLease(r.lease))).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return 0, err
		}
		if resp.Succeeded {
			return resp.Header.Revision, nil
		}
		r.written = 0
		for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
			r.written = kv.ModRevision
		}
	}
	return 0, errors.New("another process of the same name writes this record")
}
