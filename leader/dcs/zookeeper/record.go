package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// announced is the record that this client keeps.
type announced struct {
	sem chan struct{} // one Announce at a time
	now record
}

type record struct {
	session *session
	member  string
	ttl     time.Duration // asked for
	value   string
	sure    bool // the last write was answered; one that was not may still be carried out
}

// Announce keeps the record of one member. A client that announces another one lets the record
// of the first run out.
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
	if err := lock(ctx, c.announced.sem); err != nil {
		return err
	}
	defer func() { <-c.announced.sem }()
	if ttl <= 0 {
		return c.withdraw(ctx, member)
	}
	return c.attempts(ctx, func(ctx context.Context) error {
		return c.keep(ctx, record{member: member, value: value, ttl: ttl})
	})
}

// path of a record: one ASCII element that ZooKeeper takes.
func (c *Client) record(member string) string {
	name := url.PathEscape(member)
	if strings.Trim(name, ".") == "" {
		name = strings.ReplaceAll(name, ".", "%2E")
	}
	return c.records() + "/" + name
}

// withdraw deletes the record, whoever wrote it, and then ends its session: a write that is
// carried out late goes with that.
func (c *Client) withdraw(ctx context.Context, member string) error {
	path := c.record(member)
	err := c.attempts(ctx, func(ctx context.Context) error {
		v, err := c.watching(ctx)
		if err != nil {
			return err
		}
		_, err = call(ctx, v.session, func(conn *zk.Conn) (struct{}, error) { return struct{}{}, conn.Delete(path, -1) })
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return denied(err, "DELETE", c.records())
	})
	if err != nil {
		return err
	}
	if now := c.announced.now; now.session != nil && now.member == member {
		now.session.end(errors.New("the record was withdrawn"))
		c.announced.now = record{}
	}
	return nil
}

// keep shows the server that the record's session is alive, or opens one, and writes the value
// when it changed.
func (c *Client) keep(ctx context.Context, want record) error {
	now := &c.announced.now
	if now.session != nil && (now.member != want.member || now.ttl != want.ttl || now.session.ended()) {
		*now = record{} // its session runs out
	}
	if now.session == nil {
		s, err := c.lease(ctx, want.ttl)
		if err != nil {
			return err
		}
		want.session = s
		*now = want
	}
	i, err := peek(ctx, now.session, c.record(want.member))
	if err != nil {
		return err
	}
	if id, _ := now.session.opened(); !now.sure || i.owner != id || i.node.Value != want.value {
		now.sure = false
		if err := c.write(ctx, now.session, want, i); err != nil {
			return err
		}
		now.sure = true
	}
	if _, alive := now.session.extend(); !alive {
		return errExpired
	}
	return nil
}

// write puts the value where i is now. A record that hangs on another session, of this member's
// former process, is replaced by one of ours in one step.
func (c *Client) write(ctx context.Context, s *session, r record, i item) error {
	path := c.record(r.member)
	id, _ := s.opened()
	for range 3 {
		var err error
		switch {
		case !i.there:
			err = c.make(ctx, s, path, []byte(r.value))
		case i.owner == id:
			_, err = call(ctx, s, func(conn *zk.Conn) (*zk.Stat, error) { return conn.Set(path, []byte(r.value), i.version) })
			err = denied(err, "WRITE", path)
		default:
			err = c.replace(ctx, s, path, r.value, i)
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrBadVersion) {
			return err
		}
		if i, err = peek(ctx, s, path); err != nil {
			return err
		}
		if i.there && i.owner == id && i.node.Value == r.value {
			return nil
		}
	}
	return errors.New("another process of the same name writes this record")
}

func (c *Client) replace(ctx context.Context, s *session, path, value string, i item) error {
	answers, err := call(ctx, s, func(conn *zk.Conn) ([]zk.MultiResponse, error) {
		return conn.Multi(
			&zk.DeleteRequest{Path: path, Version: i.version},
			&zk.CreateRequest{Path: path, Data: []byte(value), Acl: c.acl, Flags: zk.FlagEphemeral},
		)
	})
	permission := "DELETE"
	if len(answers) == 2 && !errors.Is(answers[0].Error, zk.ErrNoAuth) {
		permission = "CREATE"
	}
	return denied(err, permission, c.records())
}
