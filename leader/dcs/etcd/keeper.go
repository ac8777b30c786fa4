package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
)

// keeper renews leases, one renewal for one call, over one stream that it keeps. The client
// library's KeepAliveOnce opens a stream, and so logs in, each time; its KeepAlive renews by
// itself, which only the election may decide.
type keeper struct {
	sem    chan struct{} // a mutex that ends with a context
	round  bool          // there are other endpoints to try
	stream etcdserverpb.Lease_LeaseKeepAliveClient
	cancel context.CancelFunc
}

func newKeeper(endpoints int) *keeper {
	return &keeper{sem: make(chan struct{}, 1), round: endpoints > 1}
}

// renew extends a lease to its TTL from now; dcs.ErrLost when the server does not have it.
func (k *keeper) renew(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) error {
	select {
	case k.sem <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("renew lease: %w", ctx.Err())
	}
	defer func() { <-k.sem }()
	var ttl int64
	once := func(ctx context.Context) (err error) {
		kept := k.stream != nil
		ttl, err = k.once(ctx, client, id)
		if err != nil && kept && ctx.Err() == nil { // the stream had died since its last use
			ttl, err = k.once(ctx, client, id)
		}
		return err
	}
	var err error
	if k.round {
		err = attempts(ctx, once)
	} else {
		err = once(ctx)
	}
	switch {
	case err != nil:
		return fmt.Errorf("renew lease: %w", ended(ctx, err))
	case ttl <= 0:
		return fmt.Errorf("renew lease: %w", dcs.ErrLost)
	}
	return nil
}

func (k *keeper) once(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) (int64, error) {
	if k.stream == nil {
		if err := k.open(ctx, client); err != nil {
			return 0, err
		}
	}
	stop := context.AfterFunc(ctx, k.cancel)
	ttl, err := k.ask(id)
	if !stop() || err != nil {
		k.drop()
	}
	return ttl, err
}

// ask expects the answer to its own question: answers come in order, and a stream on which
// one was not waited for is dropped.
func (k *keeper) ask(id clientv3.LeaseID) (int64, error) {
	if err := k.stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, err
	}
	r, err := k.stream.Recv()
	if err != nil {
		return 0, err
	}
	if r.ID != int64(id) {
		return 0, fmt.Errorf("server answered for lease %x instead of %x", r.ID, id)
	}
	return r.TTL, nil
}

func (k *keeper) open(ctx context.Context, client *clientv3.Client) error {
	own, cancel := context.WithCancel(client.Ctx())
	stop := context.AfterFunc(ctx, cancel)
	stream, err := etcdserverpb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(clientv3.WithRequireLeader(own))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return err
	}
	k.stream, k.cancel = stream, cancel
	return nil
}

func (k *keeper) drop() {
	k.cancel()
	k.stream, k.cancel = nil, nil
}

func (k *keeper) close() {
	k.sem <- struct{}{}
	defer func() { <-k.sem }()
	if k.stream != nil {
		k.drop()
	}
}

// seconds rounds up: a lease must not be shorter than what the caller counts on. The
// server may make it longer (its shortest is one and a half election timeouts).
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// revoke gives a lease back that no key hangs on any more. Without success it runs out, so
// what is known already does not wait for it.
func revoke(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client.Revoke(ctx, id)
}
