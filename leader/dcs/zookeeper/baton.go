package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// baton is the value of the baton's znode, for who looks at it; what makes it ours is its owner.
type baton struct {
	Holder string  `json:"holder"`
	TTL    float64 `json:"ttl"` // seconds
}

func (b baton) value() []byte {
	v, _ := json.Marshal(b) // a string and a number
	return []byte(dcs.ASCII(v))
}

// batonOf is the lease as others see it. A value that is not ours to understand holds the
// baton all the same.
func batonOf(i item) dcs.Lease {
	var b baton
	if err := json.Unmarshal([]byte(i.node.Value), &b); err != nil || b.Holder == "" {
		b.Holder = "unknown"
	}
	return dcs.Lease{Holder: b.Holder, TTL: time.Duration(b.TTL * float64(time.Second)), Epoch: i.node.Token}
}

// claims are the sessions of the baton. One whose claim was not answered is kept for the next
// claim: a claim that was carried out is recognised by its owner, and one that is carried out late
// hangs on a session that is in use, or is closed.
type claims struct {
	sem  chan struct{} // one claim or release at a time
	held *session      // of the lease that the last successful claim gave
	open *session
	asks dcs.Lease // what open was made for
}

// Claim takes or extends the baton.
func (c *Client) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if l.Holder == "" || l.TTL <= 0 {
		return dcs.Lease{}, fmt.Errorf("claim baton: holder %q, ttl %v: both are needed", l.Holder, l.TTL)
	}
	verb, one := "claim", c.take
	if l.Epoch != 0 {
		verb, one = "extend", c.extend
	}
	if err := lock(ctx, c.claims.sem); err != nil {
		return dcs.Lease{}, fmt.Errorf("%s baton: %w", verb, err)
	}
	defer func() { <-c.claims.sem }()
	var got dcs.Lease
	err := c.attempts(ctx, func(ctx context.Context) (err error) {
		got, err = one(ctx, l)
		return err
	})
	var held *dcs.HeldError
	switch {
	case errors.As(err, &held):
		return dcs.Lease{}, err
	case err != nil:
		return dcs.Lease{}, fmt.Errorf("%s baton: %w", verb, err)
	}
	return got, nil
}

func (c *Client) take(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	s, err := c.prepare(ctx, l)
	if err != nil {
		return dcs.Lease{}, err
	}
	i, err := c.create(ctx, s, l)
	if err != nil {
		if s.ended() {
			c.claims.open = nil
		}
		return dcs.Lease{}, err
	}
	c.claims.open = nil
	id, _ := s.opened()
	if i.owner != id {
		s.end(errors.New("somebody else has the baton"))
		return dcs.Lease{}, &dcs.HeldError{Lease: batonOf(i)}
	}
	l.Epoch, l.Token = i.node.Token, token(id)
	var alive bool
	if l.TTL, alive = s.extend(); !alive {
		return dcs.Lease{}, errExpired
	}
	if c.claims.held != nil {
		c.claims.held.end(errors.New("another lease has taken its place"))
	}
	c.claims.held = s
	return l, nil
}

// prepare gives the session that a claim is made in.
func (c *Client) prepare(ctx context.Context, l dcs.Lease) (*session, error) {
	asks := dcs.Lease{Holder: l.Holder, TTL: l.TTL}
	if open := c.claims.open; open != nil {
		if c.claims.asks == asks && !open.ended() {
			return open, nil
		}
		open.end(errors.New("its claim was given up"))
		c.claims.open = nil
	}
	s, err := c.lease(ctx, l.TTL)
	if err != nil {
		return nil, err
	}
	c.claims.open, c.claims.asks = s, asks
	return s, nil
}

// lease opens a session that lives for ttl at least.
func (c *Client) lease(ctx context.Context, ttl time.Duration) (*session, error) {
	s, err := c.open(ctx, options{ttl: ttl, lease: true})
	if err != nil {
		return nil, err
	}
	granted, alive := s.extend()
	switch {
	case !alive:
		return nil, errExpired
	case granted < ttl:
		err := fmt.Errorf("the server gives sessions of %v at most (its maxSessionTimeout, by default 20 times tickTime), %v is needed", granted, ttl)
		s.end(err)
		return nil, err
	}
	return s, nil
}

// create makes the znode, or says what is in its place.
func (c *Client) create(ctx context.Context, s *session, l dcs.Lease) (item, error) {
	_, granted := s.opened()
	value := baton{Holder: l.Holder, TTL: granted.Seconds()}.value()
	for range 3 {
		err := c.make(ctx, s, c.baton(), value)
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return item{}, err
		}
		if i, err := peek(ctx, s, c.baton()); err != nil || i.there {
			return i, err
		}
	}
	return item{}, errors.New("the baton comes and goes")
}

// make creates an ephemeral znode, and the directories above it when they are not there.
func (c *Client) make(ctx context.Context, s *session, path string, value []byte) error {
	err := c.createOne(ctx, s, path, value, zk.FlagEphemeral)
	if errors.Is(err, zk.ErrNoNode) {
		if err = c.mkdir(ctx, s, parent(path)); err == nil {
			err = c.createOne(ctx, s, path, value, zk.FlagEphemeral)
		}
	}
	return err
}

func (c *Client) mkdir(ctx context.Context, s *session, dir string) error {
	there, err := call(ctx, s, func(conn *zk.Conn) (bool, error) {
		there, _, err := conn.Exists(dir)
		return there, err
	})
	if err != nil || there || dir == "/" {
		return err
	}
	if err := c.mkdir(ctx, s, parent(dir)); err != nil {
		return err
	}
	if err := c.createOne(ctx, s, dir, nil, zk.FlagPersistent); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return err
	}
	return nil
}

func (c *Client) createOne(ctx context.Context, s *session, path string, value []byte, flags int32) error {
	_, err := call(ctx, s, func(conn *zk.Conn) (string, error) { return conn.Create(path, value, flags, c.acl) })
	return denied(err, "CREATE", parent(path))
}

func parent(path string) string { return path[:max(strings.LastIndex(path, "/"), 1)] }

// token of a lease is its session.
func token(id int64) string { return strconv.FormatUint(uint64(id), 16) }

func (s *session) token() string {
	id, _ := s.opened()
	return token(id)
}

// extend has the quorum check that our znode is there, in our session, and then sees that it is
// ours: somebody may have deleted it by hand.
func (c *Client) extend(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	s := c.claims.held
	if s == nil || l.Token != s.token() {
		if _, err := c.fresh(ctx, c.baton()); err != nil { // without a server nothing is said
			return dcs.Lease{}, err
		}
		return dcs.Lease{}, dcs.ErrLost
	}
	l, err := c.prolong(ctx, s, l)
	if err != nil && ctx.Err() == nil && s.reason() == errExpired {
		return dcs.Lease{}, dcs.ErrLost
	}
	return l, err
}

func (c *Client) prolong(ctx context.Context, s *session, l dcs.Lease) (dcs.Lease, error) {
	id, _ := s.opened()
	if err := check(ctx, s, c.baton(), 0); err != nil && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrBadVersion) {
		return dcs.Lease{}, denied(err, "READ", c.baton())
	}
	i, err := peek(ctx, s, c.baton())
	if err != nil {
		return dcs.Lease{}, err
	}
	if i.owner != id || i.node.Token != l.Epoch {
		s.end(errors.New("the baton is not ours any more"))
		c.claims.held = nil
		return dcs.Lease{}, fmt.Errorf("the znode is not ours: %w", dcs.ErrLost)
	}
	var alive bool
	if l.TTL, alive = s.extend(); !alive {
		return dcs.Lease{}, errExpired
	}
	return l, nil
}

// Release closes the session of the lease, which deletes its znode and no other, and then looks
// whether that has been carried out.
func (c *Client) Release(ctx context.Context, l dcs.Lease) error {
	if l.Token == "" || l.Epoch == 0 {
		return nil // not a lease that Claim gave
	}
	if err := lock(ctx, c.claims.sem); err != nil {
		return fmt.Errorf("release baton: %w", err)
	}
	defer func() { <-c.claims.sem }()
	if s := c.claims.held; s != nil && s.token() == l.Token {
		s.end(errors.New("the baton was given back"))
		c.claims.held = nil
	}
	for {
		i, err := c.fresh(ctx, c.baton())
		if err != nil {
			return fmt.Errorf("release baton: %w", err)
		}
		if !i.there || token(i.owner) != l.Token || i.node.Token != l.Epoch {
			return nil
		}
		if err := rest(ctx, pause/10); err != nil {
			return fmt.Errorf("release baton: its session is not closed yet: %w", err)
		}
	}
}

// fresh reads one znode as it is now, in the session for readings.
func (c *Client) fresh(ctx context.Context, path string) (i item, err error) {
	err = c.attempts(ctx, func(ctx context.Context) error {
		v, err := c.watching(ctx)
		if err != nil {
			return err
		}
		if err := barrier(ctx, v.session, path); err != nil {
			return err
		}
		i, err = peek(ctx, v.session, path)
		return err
	})
	return i, err
}
