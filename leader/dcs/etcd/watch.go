package etcd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
)

const (
	idle  = 10 * time.Second       // how long Wait waits for a change
	pause = 250 * time.Millisecond // after a watch broke, so that reading and waiting do not spin
)

// watch follows the scope from one revision on. It outlives the Wait that made it.
type watch struct {
	events clientv3.WatchChan
	cancel context.CancelFunc
	from   int64 // events below this revision have not been looked at
	last   int64 // the last change that counts; 0 none yet
}

// watches keeps the watch that no Wait is using.
type watches struct {
	mu   sync.Mutex
	free *watch
}

// take gives the free watch if it covers every change after revision rev.
func (w *watches) take(rev int64) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.free
	if f == nil || f.from > rev+1 {
		return nil
	}
	w.free = nil
	return f
}

func (w *watches) put(f *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.free != nil {
		w.free.cancel()
	}
	w.free = f
}

func (w *watches) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.free != nil {
		w.free.cancel()
		w.free = nil
	}
}

// Wait watches the scope. A watch that ends for any reason (compaction, a server without a
// leader, a lost connection) means that the scope may differ.
func (c *Client) Wait(ctx context.Context, since dcs.Reading) error {
	rev, err := strconv.ParseInt(since.Revision, 10, 64)
	if err != nil {
		return ctx.Err() // not a revision of ours: read again
	}
	client, err := c.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for a change: %w", ctx.Err())
		}
		return rest(ctx, pause)
	}
	until, stop := context.WithTimeout(ctx, idle)
	defer stop()
	w := c.watches.take(rev)
	if w == nil {
		w = c.watch(until, client, rev+1)
	}
	for w.last <= rev {
		select {
		case <-until.Done():
			c.watches.put(w)
			if ctx.Err() != nil {
				return fmt.Errorf("wait for a change: %w", ctx.Err())
			}
			return nil
		case r, ok := <-w.events:
			if !ok || r.Err() != nil {
				w.cancel()
				return rest(ctx, pause)
			}
			for _, e := range r.Events {
				if c.counts(string(e.Kv.Key)) {
					w.last = e.Kv.ModRevision
				}
			}
		}
	}
	c.watches.put(w)
	return ctx.Err()
}

// watch begins a watch that lives until it is cancelled. Making it waits for the server's
// word, and that wait must end with ctx.
func (c *Client) watch(ctx context.Context, client *clientv3.Client, from int64) *watch {
	own, cancel := context.WithCancel(client.Ctx())
	stop := context.AfterFunc(ctx, cancel)
	events := client.Watch(clientv3.WithRequireLeader(own), c.prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	stop()
	return &watch{events: events, cancel: cancel, from: from}
}

// counts leaves out the keys that Patroni's leader rewrites in every loop.
func (c *Client) counts(key string) bool {
	key = strings.TrimPrefix(key, c.prefix)
	return key != "status" && key != "optime/leader"
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for a change: %w", ctx.Err())
	case <-t.C:
		return nil
	}
}
