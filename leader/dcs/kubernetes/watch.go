package kubernetes

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8swatch "k8s.io/apimachinery/pkg/watch"

	"github.com/walbaton/walbaton/leader/dcs"
)

const (
	idle  = 10 * time.Second       // how long Wait waits for a change
	pause = 250 * time.Millisecond // after a watch broke, so that reading and waiting do not spin
)

// watch follows the three lists from one reading on. It outlives the Wait that made it.
type watch struct {
	streams [lists]k8swatch.Interface
	cancel  context.CancelFunc
	from    revisions // events up to these have not been looked at
	last    revisions // the last change that counts; 0 none yet
}

func (w *watch) close() {
	w.cancel()
	for _, s := range w.streams {
		if s != nil {
			s.Stop()
		}
	}
}

// watches keeps the watch that no Wait is using.
type watches struct {
	mu   sync.Mutex
	free *watch
}

// take gives the free watch if it covers every change after rev.
func (w *watches) take(rev revisions) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.free
	if f == nil {
		return nil
	}
	for i := range f.from {
		if f.from[i] > rev[i] {
			return nil
		}
	}
	w.free = nil
	return f
}

func (w *watches) put(f *watch) {
	w.mu.Lock()
	former := w.free
	w.free = f
	w.mu.Unlock()
	if former != nil {
		former.close()
	}
}

func (w *watches) close() { w.put(nil) }

// Wait watches the three lists. A watch that ends for any reason (the server ends each after half
// an hour to an hour, a revision is too old, a connection is lost) means that the scope may differ;
// so does the end, by our clock, of something that since has as alive. A right that is missing is an
// error.
func (c *Client) Wait(ctx context.Context, since dcs.Reading) error {
	rev, ok := parseRevisions(since.Revision)
	if !ok {
		return ctx.Err() // not a revision of ours: read again
	}
	err := c.wait(ctx, since, rev)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("wait for a change: %w", err)
	}
	return err
}

func (c *Client) wait(ctx context.Context, since dcs.Reading, rev revisions) error {
	until := time.NewTimer(idle)
	defer until.Stop()
	w := c.watches.take(rev)
	if w == nil {
		var err error
		if w, err = c.watch(ctx, rev); err != nil {
			if apierrors.IsForbidden(err) {
				return err
			}
			return nap(ctx, pause)
		}
	}
	end := time.NewTimer(time.Until(c.nextEnd(since)))
	defer end.Stop()
	for !w.changed(rev) {
		var e k8swatch.Event
		var list int
		var open bool
		select {
		case <-ctx.Done():
			c.watches.put(w)
			return ctx.Err()
		case <-until.C:
			c.watches.put(w)
			return nil
		case <-end.C:
			if !time.Now().Before(c.nextEnd(since)) {
				c.watches.put(w)
				return nil
			}
			end.Reset(time.Until(c.nextEnd(since))) // it has been renewed
			continue
		case e, open = <-w.streams[leases].ResultChan():
			list = leases
		case e, open = <-w.streams[pods].ResultChan():
			list = pods
		case e, open = <-w.streams[kinds].ResultChan():
			list = kinds
		}
		o, isObject := e.Object.(metav1.Object)
		if !open || e.Type == k8swatch.Error || !isObject {
			w.close()
			return nap(ctx, pause)
		}
		// What is not newer is in the reading already.
		if at := revisionOf(o); at > rev[list] && c.differs(since, list, o, e.Type == k8swatch.Deleted) {
			w.last[list] = at
		}
	}
	c.watches.put(w)
	return ctx.Err()
}

func (w *watch) changed(rev revisions) bool {
	for i := range w.last {
		if w.last[i] > rev[i] {
			return true
		}
	}
	return false
}

// watch begins to follow the three lists. That waits for the server, and must end with ctx; the
// streams live until they are closed.
func (c *Client) watch(ctx context.Context, from revisions) (*watch, error) {
	own, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	w := &watch{cancel: cancel, from: from}
	for i := range lists {
		var err error
		if w.streams[i], err = c.reader.watch(own, i, from[i]); err != nil {
			w.streams[i] = nil
			stop()
			w.close()
			return nil, err
		}
	}
	if !stop() {
		w.close()
		return nil, ctx.Err()
	}
	return w, nil
}

// differs says whether an event shows anything else than the reading does, apart from what is
// renewed in every loop: Patroni's status and renewTime, and ours.
func (c *Client) differs(since dcs.Reading, list int, o metav1.Object, deleted bool) bool {
	now := dcs.Reading{Nodes: map[string]dcs.Node{}, Records: map[string]dcs.Node{}}
	if !deleted {
		c.add(&now, list, o)
	}
	if list != leases {
		for _, key := range c.names.keysOf(list, o.GetName()) {
			if !same(now.Nodes, since.Nodes, key) {
				return true
			}
		}
		return false
	}
	if o.GetName() == c.names.baton {
		return now.Baton.Holder != since.Baton.Holder || now.Baton.Epoch != since.Baton.Epoch
	}
	for member := range now.Records {
		if !same(now.Records, since.Records, member) {
			return true
		}
	}
	for member := range since.Records {
		if c.names.record(member) == o.GetName() && !same(now.Records, since.Records, member) {
			return true
		}
	}
	return false
}

func same(a, b map[string]dcs.Node, key string) bool {
	x, inA := a[key]
	y, inB := b[key]
	return inA == inB && x.Value == y.Value && x.Token == y.Token
}

// nextEnd is when the first of what the reading has as alive ends by our clock, unless it is renewed.
func (c *Client) nextEnd(since dcs.Reading) time.Time {
	next := time.Now().Add(2 * idle)
	ends := func(list int, name string) {
		if end, ok := c.seen.end(sightKey(list, name)); ok && end.Before(next) {
			next = end
		}
	}
	if _, ok := since.Nodes["leader"]; ok {
		ends(kinds, c.names.leader)
	}
	if since.Baton.Held() {
		ends(leases, c.names.baton)
	}
	for member := range since.Records {
		ends(leases, c.names.record(member))
	}
	return next
}

func nap(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
