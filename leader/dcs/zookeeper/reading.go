package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// readerTTL is the time of the session for readings, on which nothing hangs: a server that
// hangs is noticed after two thirds of it at the latest.
const readerTTL = 9 * time.Second

// reading is the session that readings are made in, and waits wait on.
type reading struct {
	sem chan struct{} // one at a time makes a session or a reading
	mu  sync.Mutex
	now *view
}

// view is what one session knows of the scope, with a watch on each part of it.
type view struct {
	*session

	mu      sync.Mutex
	items   map[string]item   // by path
	events  map[string]uint64 // how many came for a path
	changes uint64            // how many came at all
	changed chan struct{}     // closed at the next
}

// item is a znode's value, or the names of its children; a watch tells of the next change.
type item struct {
	there   bool
	node    dcs.Node
	owner   int64 // the session of an ephemeral znode
	version int32
	empty   bool // no value, but children: a directory
	names   []string
}

// view gives the present session for readings, or a new one.
func (c *Client) view(ctx context.Context) (*view, error) {
	c.reading.mu.Lock()
	v := c.reading.now
	c.reading.mu.Unlock()
	if v != nil && !v.ended() {
		return v, nil
	}
	v = &view{items: map[string]item{}, events: map[string]uint64{}, changed: make(chan struct{})}
	s, err := c.open(ctx, options{ttl: readerTTL, touch: v.touch})
	if err != nil {
		return nil, err
	}
	v.session = s
	c.reading.mu.Lock()
	c.reading.now = v
	c.reading.mu.Unlock()
	return v, nil
}

// touch takes note of a watch event.
func (v *view) touch(path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.items, path)
	v.events[path]++
	v.changes++
	close(v.changed)
	v.changed = make(chan struct{})
}

// state is how many events have come, and a channel that is closed at the next.
func (v *view) state() (uint64, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changes, v.changed
}

func (v *view) get(path string) (item, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, ok := v.items[path]
	return i, ok
}

// Read shows the scope at one revision, not older than the call; see the package comment.
func (c *Client) Read(ctx context.Context) (dcs.Reading, error) {
	var r dcs.Reading
	err := c.attempts(ctx, func(ctx context.Context) (err error) {
		r, err = c.read(ctx)
		return err
	})
	if err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	return r, nil
}

func (c *Client) read(ctx context.Context) (dcs.Reading, error) {
	if err := lock(ctx, c.reading.sem); err != nil {
		return dcs.Reading{}, err
	}
	defer func() { <-c.reading.sem }()
	v, err := c.view(ctx)
	if err != nil {
		return dcs.Reading{}, err
	}
	if err := barrier(ctx, v.session, c.baton()); err != nil {
		return dcs.Reading{}, err
	}
	for {
		all, err := c.refresh(ctx, v)
		if err != nil {
			return dcs.Reading{}, err
		}
		since, _ := v.state()
		quiet, err := c.quiet(ctx, v, all)
		if err != nil {
			return dcs.Reading{}, err
		}
		if r, ok := c.snapshot(v, since); ok {
			for key, n := range quiet {
				r.Nodes[key] = n
			}
			return r, nil
		}
	}
}

// barrier is a transaction without effect: what the session reads afterwards is not older. It
// does not matter what is at path, or whether we may read it: a check that fails is carried out, too.
func barrier(ctx context.Context, s *session, path string) error {
	err := check(ctx, s, path, -1)
	if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNoAuth) {
		return nil
	}
	return err
}

func check(ctx context.Context, s *session, path string, version int32) error {
	_, err := call(ctx, s, func(conn *zk.Conn) ([]zk.MultiResponse, error) {
		return conn.Multi(&zk.CheckVersionRequest{Path: path, Version: version})
	})
	return err
}

// want is one thing to know: a znode's children, or its value.
type want struct {
	path string
	list bool
}

// wanted names what the items known so far say that there is.
func (c *Client) wanted(v *view) (all []want) {
	children := func(dir string) []string {
		all = append(all, want{path: dir, list: true})
		i, _ := v.get(dir)
		return i.names
	}
	for _, name := range children(c.scope) {
		path := c.scope + "/" + name
		switch {
		case name == "members":
			for _, m := range children(path) {
				all = append(all, want{path: path + "/" + m})
			}
		case name == "optime":
			children(path)
		case name != "status":
			all = append(all, want{path: path})
		}
	}
	for _, name := range children(c.records()) {
		all = append(all, want{path: c.records() + "/" + name})
	}
	return append(all, want{path: c.baton()})
}

// refresh reads what is not known, or not any more, until all is.
func (c *Client) refresh(ctx context.Context, v *view) ([]want, error) {
	for {
		all := c.wanted(v)
		var wg sync.WaitGroup
		var errs []error
		var mu sync.Mutex
		for _, w := range all {
			if _, ok := v.get(w.path); ok {
				continue
			}
			wg.Go(func() {
				err := v.fetch(ctx, w)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
		wg.Wait()
		if err := firstOf(errs); err != nil {
			return nil, err
		}
		if len(errs) == 0 {
			return all, nil
		}
	}
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch reads one item and leaves a watch on it. An event that came meanwhile makes the answer
// worthless: then the item stays unknown.
func (v *view) fetch(ctx context.Context, w want) error {
	v.mu.Lock()
	before := v.events[w.path]
	v.mu.Unlock()
	i, err := v.ask(ctx, w)
	if errors.Is(err, zk.ErrNoNode) {
		i, err = item{}, nil
		if there, err2 := v.exists(ctx, w.path); err2 != nil || there {
			return err2 // created just now: still unknown
		}
	}
	if err != nil {
		return denied(err, "READ", w.path)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.events[w.path] == before {
		v.items[w.path] = i
	}
	return nil
}

func (v *view) ask(ctx context.Context, w want) (item, error) {
	return call(ctx, v.session, func(conn *zk.Conn) (item, error) {
		if w.list {
			names, _, _, err := conn.ChildrenW(w.path)
			return item{there: true, names: names}, err
		}
		value, stat, _, err := conn.GetW(w.path)
		if err != nil {
			return item{}, err
		}
		return itemOf(value, stat), nil
	})
}

func itemOf(value []byte, stat *zk.Stat) item {
	return item{
		there:   true,
		node:    dcs.Node{Value: string(value), Version: uint64(stat.Mzxid), Token: uint64(stat.Czxid)},
		owner:   stat.EphemeralOwner,
		version: stat.Version,
		empty:   len(value) == 0 && stat.NumChildren > 0,
	}
}

// exists leaves a watch for the creation of what is not there.
func (v *view) exists(ctx context.Context, path string) (bool, error) {
	return call(ctx, v.session, func(conn *zk.Conn) (bool, error) {
		there, _, _, err := conn.ExistsW(path)
		return there, err
	})
}

// quiet reads Patroni's keys that nobody is woken for.
func (c *Client) quiet(ctx context.Context, v *view, all []want) (map[string]dcs.Node, error) {
	found := map[string]dcs.Node{}
	for dir, key := range map[string]string{c.scope: "status", c.scope + "/optime": "leader"} {
		i, _ := v.get(dir)
		for _, name := range i.names {
			if name != key {
				continue
			}
			i, err := peek(ctx, v.session, dir+"/"+key)
			if err != nil {
				return nil, err
			}
			if i.there {
				found[strings.TrimPrefix(dir+"/"+key, c.scope+"/")] = i.node
			}
		}
	}
	return found, nil
}

// peek reads a znode without a watch.
func peek(ctx context.Context, s *session, path string) (item, error) {
	i, err := call(ctx, s, func(conn *zk.Conn) (item, error) {
		value, stat, err := conn.Get(path)
		if err != nil {
			return item{}, err
		}
		return itemOf(value, stat), nil
	})
	if errors.Is(err, zk.ErrNoNode) {
		return item{}, nil
	}
	return i, denied(err, "READ", path)
}

// snapshot puts the items together, unless an event came since.
func (c *Client) snapshot(v *view, since uint64) (dcs.Reading, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changes != since {
		return dcs.Reading{}, false
	}
	id, _ := v.opened()
	r := dcs.Reading{
		Nodes:    map[string]dcs.Node{},
		Records:  map[string]dcs.Node{},
		Revision: fmt.Sprintf("%x.%d", id, since),
	}
	value := func(path string) (dcs.Node, bool) {
		i := v.items[path]
		return i.node, i.there && !i.empty
	}
	for _, name := range v.items[c.scope].names {
		if n, ok := value(c.scope + "/" + name); ok && name != "members" && name != "optime" {
			r.Nodes[name] = n
		}
	}
	for _, name := range v.items[c.scope+"/members"].names {
		if n, ok := value(c.scope + "/members/" + name); ok {
			r.Nodes["members/"+name] = n
		}
	}
	for _, name := range v.items[c.records()].names {
		i := v.items[c.records()+"/"+name]
		if member, err := url.PathUnescape(name); err == nil && i.owner != 0 {
			r.Records[member] = i.node
		}
	}
	if i := v.items[c.baton()]; i.there {
		r.Baton = batonOf(i)
	}
	return r, true
}

// denied names the permission that is missing.
func denied(err error, permission, path string) error {
	if errors.Is(err, zk.ErrNoAuth) {
		return fmt.Errorf("%w: the ACL of %s lacks %s", fs.ErrPermission, path, permission)
	}
	return err
}
