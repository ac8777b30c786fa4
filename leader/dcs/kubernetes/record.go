package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/walbaton/walbaton/leader/dcs"
)

// record is the one that this client keeps.
type record struct {
	sem   chan struct{}         // one Announce at a time
	lease *coordinationv1.Lease // as last answered
}

// recordOf is what a Lease says that is not the baton; false when nobody keeps it any more. The
// count of transitions is that of the values.
func (c *Client) recordOf(l *coordinationv1.Lease) (member string, n dcs.Node, ok bool) {
	value, ok := l.Annotations[recordAnnotation]
	if !ok || !c.held(l) {
		return "", n, false
	}
	token := []string{string(l.UID)}
	if l.Spec.AcquireTime != nil {
		token = append(token, l.Spec.AcquireTime.UTC().Format(time.RFC3339Nano))
	}
	return holder(l), dcs.Node{Value: value, Version: uint64(transitions(l)), Token: digest(token...)}, true
}

// Announce keeps the record of one member.
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
	case c.record.sem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.record.sem }()
	name := c.names.record(member)
	now := c.record.lease
	if now != nil && now.Name != name {
		now = nil // the record of the other member runs out
	}
	for range tries {
		if now == nil {
			found, _, err := c.writer.find(ctx, name)
			if err != nil {
				return err
			}
			now = found
		}
		if ttl <= 0 && (now == nil || holder(now) == "") {
			return nil
		}
		want, err := c.next(now, name, member, value, ttl)
		if err != nil {
			return err
		}
		written, err := c.writer.write(ctx, want)
		if errors.Is(err, errChanged) {
			now = nil
			continue
		}
		if err != nil {
			return err
		}
		c.record.lease = written
		return nil
	}
	return fmt.Errorf("another process of the same name writes this record: %w", errChanged)
}

// next is the Lease that replaces now, nil for none.
func (c *Client) next(now *coordinationv1.Lease, name, member, value string, ttl time.Duration) (*coordinationv1.Lease, error) {
	want := c.names.empty(name)
	if now != nil {
		if err := c.names.belongs(now); err != nil {
			return nil, err
		}
		want = now.DeepCopy()
	}
	if ttl <= 0 {
		delete(want.Annotations, recordAnnotation)
		free(want)
		return want, nil
	}
	was, ok := want.Annotations[recordAnnotation]
	fresh := !ok || holder(want) == ""
	if !fresh && was != value {
		count(want)
	}
	annotate(want, recordAnnotation, value)
	hold(want, member, ttl, fresh)
	return want, nil
}
