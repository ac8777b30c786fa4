package kubernetes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/walbaton/walbaton/leader/dcs"
)

// tries bounds how often a write that another client's was faster than is tried again.
const tries = 4

// baton is what this client knows of the baton that it claims and holds.
type baton struct {
	mu      sync.Mutex
	pending string                // token of a claim whose answer did not come: the next claim goes on with it
	token   string                // of the lease that we hold
	until   time.Time             // its end by our clock
	lease   *coordinationv1.Lease // as last answered
}

// holding is the baton as others see it.
func (c *Client) holding(l *coordinationv1.Lease) dcs.Lease {
	if !c.held(l) {
		return dcs.Lease{}
	}
	return dcs.Lease{Holder: holder(l), TTL: duration(l), Epoch: epoch(l)}
}

func epoch(l *coordinationv1.Lease) uint64 {
	n, _ := strconv.ParseUint(l.Annotations[epochAnnotation], 10, 64)
	return n
}

// Claim takes or extends the baton.
func (c *Client) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if l.Holder == "" || l.TTL <= 0 {
		return dcs.Lease{}, fmt.Errorf("claim baton: holder %q, ttl %v: both are needed", l.Holder, l.TTL)
	}
	c.baton.mu.Lock()
	defer c.baton.mu.Unlock()
	if l.Epoch != 0 {
		extended, err := c.extend(ctx, l)
		if err != nil {
			err = fmt.Errorf("extend baton: %w", err)
		}
		return extended, err
	}
	taken, err := c.take(ctx, l)
	var held *dcs.HeldError
	if err != nil && !errors.As(err, &held) {
		err = fmt.Errorf("claim baton: %w", err)
	}
	return taken, err
}

func (c *Client) take(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	b := &c.baton
	for range tries {
		found, revision, err := c.writer.find(ctx, c.names.baton)
		if err != nil {
			return dcs.Lease{}, err
		}
		want := c.names.empty(c.names.baton)
		ours := false
		if found != nil {
			if err := c.names.belongs(found); err != nil {
				return dcs.Lease{}, err
			}
			now := c.holding(found)
			ours = b.pending != "" && found.Annotations[tokenAnnotation] == b.pending && holder(found) == l.Holder
			if now.Held() && !ours {
				b.pending = ""
				return dcs.Lease{}, &dcs.HeldError{Lease: now}
			}
			want = found.DeepCopy()
		}
		if b.pending == "" {
			b.pending = rand.Text()
		}
		if !ours {
			e := max(revision, epoch(want)+1)
			annotate(want, epochAnnotation, strconv.FormatUint(e, 10))
			annotate(want, tokenAnnotation, b.pending)
		}
		hold(want, l.Holder, l.TTL, !ours)
		sent := time.Now()
		written, err := c.writer.write(ctx, want)
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil {
			return dcs.Lease{}, err
		}
		c.held(written)
		b.token, b.pending, b.lease, b.until = b.pending, "", written, sent.Add(duration(written))
		return dcs.Lease{Holder: l.Holder, TTL: duration(written), Epoch: epoch(written), Token: b.token}, nil
	}
	return dcs.Lease{}, errChanged
}

// extend writes the Lease again on condition that nobody else has. What our own clock says is over
// is over, also where the server would still take the extension.
func (c *Client) extend(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	b := &c.baton
	now := b.known(l)
	for range tries {
		if now == nil {
			found, _, err := c.writer.find(ctx, c.names.baton)
			switch {
			case err != nil:
				return dcs.Lease{}, err
			case found == nil || !is(found, l):
				return dcs.Lease{}, fmt.Errorf("another lease is there, or none: %w", dcs.ErrLost)
			}
			now = found
		}
		if b.token != l.Token || !time.Now().Before(b.until) {
			return dcs.Lease{}, c.tooLate(ctx, now)
		}
		want := now.DeepCopy()
		hold(want, l.Holder, l.TTL, false)
		sent := time.Now()
		written, err := c.writer.write(ctx, want)
		if errors.Is(err, errChanged) { // by an extension of ours that was not answered, or by a successor
			now = nil
			continue
		}
		if err != nil {
			return dcs.Lease{}, err
		}
		c.held(written)
		if !time.Now().Before(b.until) {
			return dcs.Lease{}, c.tooLate(ctx, written)
		}
		b.lease, b.until = written, sent.Add(duration(written))
		l.TTL = duration(written)
		return l, nil
	}
	return dcs.Lease{}, errChanged
}

// tooLate gives back what we may not use any more, so that nobody waits for its end.
func (c *Client) tooLate(ctx context.Context, now *coordinationv1.Lease) error {
	want := now.DeepCopy()
	free(want)
	if _, err := c.writer.write(ctx, want); err != nil && !errors.Is(err, errChanged) {
		return err
	}
	return fmt.Errorf("its time is over: %w", dcs.ErrLost)
}

// known is the Lease as we wrote it last, nil when l is not the one that we hold, or has ended by our clock.
func (b *baton) known(l dcs.Lease) *coordinationv1.Lease {
	if b.lease == nil || !is(b.lease, l) || !time.Now().Before(b.until) {
		return nil
	}
	return b.lease
}

// is says whether found is what a claim of l's made.
func is(found *coordinationv1.Lease, l dcs.Lease) bool {
	return l.Token != "" && found.Annotations[tokenAnnotation] == l.Token && epoch(found) == l.Epoch && holder(found) == l.Holder
}

// Release gives the baton back if it is still of this lease.
func (c *Client) Release(ctx context.Context, l dcs.Lease) error {
	if l.Epoch == 0 || l.Token == "" {
		return nil // not a lease that Claim gave
	}
	c.baton.mu.Lock()
	defer c.baton.mu.Unlock()
	if err := c.release(ctx, l); err != nil {
		return fmt.Errorf("release baton: %w", err)
	}
	return nil
}

func (c *Client) release(ctx context.Context, l dcs.Lease) error {
	now := c.baton.known(l)
	for range tries {
		if now == nil {
			found, _, err := c.writer.find(ctx, c.names.baton)
			if err != nil {
				return err
			}
			if found == nil || !is(found, l) {
				return nil
			}
			now = found
		}
		want := now.DeepCopy()
		free(want)
		_, err := c.writer.write(ctx, want)
		if !errors.Is(err, errChanged) {
			return err
		}
		now = nil
	}
	return errChanged
}

func annotate(l *coordinationv1.Lease, name, value string) {
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[name] = value
}
