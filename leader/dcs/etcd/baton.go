package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
)

// baton is the value of the baton's key. The token tells our own key from one that another
// incarnation of the same member wrote.
type baton struct {
	Holder string `json:"holder"`
	TTL    int64  `json:"ttl"` // seconds, for the reader
	Token  string `json:"token"`
}

func (b baton) value() string {
	v, _ := json.Marshal(b) // strings and a number
	return dcs.ASCII(v)
}

// batonOf is the lease as others see it. A value that is not ours to understand holds the
// baton all the same.
func batonOf(kv *mvccpb.KeyValue) dcs.Lease {
	var b baton
	if err := json.Unmarshal(kv.Value, &b); err != nil || b.Holder == "" {
		b.Holder = "unknown"
	}
	return dcs.Lease{Holder: b.Holder, TTL: time.Duration(b.TTL) * time.Second, Epoch: uint64(kv.CreateRevision)}
}

// claims remembers the claim whose answer did not come: the next one goes on with its
// lease and token. So a claim that was carried out is recognised, one that is carried out
// late finds the baton taken or its lease revoked, and no lease is stranded twice.
type claims struct {
	keeper *keeper
	mu     sync.Mutex
	open   *claim
}

type claim struct {
	lease  clientv3.LeaseID
	wanted int64 // seconds asked for
	baton  baton
}

func (c *claim) token() string { return strconv.FormatInt(int64(c.lease), 16) + "/" + c.baton.Token }

// Claim takes or extends the baton.
func (c *Client) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if l.Holder == "" || l.TTL <= 0 {
		return dcs.Lease{}, fmt.Errorf("claim baton: holder %q, ttl %v: both are needed", l.Holder, l.TTL)
	}
	client, err := c.connect(ctx)
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("claim baton: %w", err)
	}
	if l.Epoch != 0 {
		return c.extend(ctx, client, l)
	}
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	l, err = c.take(ctx, client, l)
	var held *dcs.HeldError
	if err != nil && !errors.As(err, &held) {
		err = fmt.Errorf("claim baton: %w", denied(ended(ctx, err), "readwrite", c.prefix+batonKey))
	}
	return l, err
}

func (c *Client) take(ctx context.Context, client *clientv3.Client, l dcs.Lease) (dcs.Lease, error) {
	open, err := c.prepare(ctx, client, l)
	if err != nil {
		return dcs.Lease{}, err
	}
	key, value := c.prefix+batonKey, open.baton.value()
	resp, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value, clientv3.WithLease(open.lease))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			c.claims.open = nil
		}
		return dcs.Lease{}, err
	}
	c.claims.open = nil
	ours := dcs.Lease{Holder: l.Holder, TTL: time.Duration(open.baton.TTL) * time.Second, Token: open.token()}
	if resp.Succeeded {
		ours.Epoch = uint64(resp.Header.Revision)
		return ours, nil
	}
	kv := resp.Responses[0].GetResponseRange().Kvs[0] // create revision not 0: it is there
	if string(kv.Value) == value {
		ours.Epoch = uint64(kv.CreateRevision)
		return ours, nil
	}
	revoke(ctx, client, open.lease)
	return dcs.Lease{}, &dcs.HeldError{Lease: batonOf(kv)}
}

// prepare gives a claim with a lease that lives for the TTL from now.
func (c *Client) prepare(ctx context.Context, client *clientv3.Client, l dcs.Lease) (*claim, error) {
	if open := c.claims.open; open != nil && open.baton.Holder == l.Holder && open.wanted == seconds(l.TTL) {
		err := c.claims.keeper.renew(ctx, client, open.lease)
		if err == nil {
			return open, nil
		}
		if !errors.Is(err, dcs.ErrLost) {
			return nil, err
		}
	}
	grant, err := client.Grant(ctx, seconds(l.TTL))
	if err != nil {
		return nil, err
	}
	c.claims.open = &claim{
		lease:  grant.ID,
		wanted: seconds(l.TTL),
		baton:  baton{Holder: l.Holder, TTL: grant.TTL, Token: rand.Text()},
	}
	return c.claims.open, nil
}

// extend renews the lease and then looks whether the key still is ours: somebody may have
// deleted it, and the look needs a majority of the servers, which a renewal does not.
func (c *Client) extend(ctx context.Context, client *clientv3.Client, l dcs.Lease) (dcs.Lease, error) {
	id, token, err := parseToken(l.Token)
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("extend baton: %w: %w", err, dcs.ErrLost)
	}
	if err := c.claims.keeper.renew(ctx, client, id); err != nil {
		return dcs.Lease{}, fmt.Errorf("extend baton: %w", err)
	}
	resp, err := client.Get(ctx, c.prefix+batonKey)
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("extend baton: %w", denied(ended(ctx, err), "read", c.prefix+batonKey))
	}
	for _, kv := range resp.Kvs {
		var b baton
		if json.Unmarshal(kv.Value, &b) == nil && b.Token == token && uint64(kv.CreateRevision) == l.Epoch {
			l.TTL = time.Duration(b.TTL) * time.Second
			return l, nil
		}
	}
	revoke(ctx, client, id)
	return dcs.Lease{}, fmt.Errorf("extend baton: key is not ours: %w", dcs.ErrLost)
}

// Release deletes the key if it is still the one of this lease, and revokes the lease.
func (c *Client) Release(ctx context.Context, l dcs.Lease) error {
	id, _, err := parseToken(l.Token)
	if err != nil || l.Epoch == 0 {
		return nil // not a lease that Claim gave
	}
	client, err := c.connect(ctx)
	if err != nil {
		return fmt.Errorf("release baton: %w", err)
	}
	key := c.prefix + batonKey
	_, err = client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", int64(l.Epoch)),
			clientv3.Compare(clientv3.LeaseValue(key), "=", id)).
		Then(clientv3.OpDelete(key)).
		Commit()
	if err != nil {
		return fmt.Errorf("release baton: %w", denied(ended(ctx, err), "readwrite", c.prefix+batonKey))
	}
	revoke(ctx, client, id)
	return nil
}

// parseToken reads "<lease in hex>/<random>".
func parseToken(s string) (clientv3.LeaseID, string, error) {
	hex, token, ok := strings.Cut(s, "/")
	id, err := strconv.ParseInt(hex, 16, 64)
	if !ok || err != nil || id == 0 || token == "" {
		return 0, "", errors.New("token is not one of ours")
	}
	return clientv3.LeaseID(id), token, nil
}
