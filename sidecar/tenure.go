package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader"
)

// tenure lends the present term to work that comes from outside of it. The end of the term waits for that work.
type tenure struct {
	mu      sync.Mutex
	present *tenureTerm // nil outside a term
}

type tenureTerm struct {
	ctx   context.Context
	epoch uint64
	work  sync.WaitGroup
}

// begin opens the term to others; end ends what they do in it and waits for them.
func (t *tenure) begin(ctx context.Context, epoch uint64) (within context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	term := &tenureTerm{ctx: ctx, epoch: epoch}
	t.mu.Lock()
	t.present = term
	t.mu.Unlock()
	return ctx, func() {
		t.mu.Lock()
		t.present = nil
		t.mu.Unlock()
		cancel(leader.ErrReleased)
		term.work.Wait()
	}
}

// open says whether there is a present term.
func (t *tenure) open() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.present != nil
}

// errNoTerm means that this node has not the baton.
var errNoTerm = errors.New("this node does not hold the baton")

// within runs f inside the present term: its context ends with the term, with the term's cause, and with ctx.
func (t *tenure) within(ctx context.Context, f func(ctx context.Context, epoch uint64) error) error {
	t.mu.Lock()
	term := t.present
	if term != nil {
		term.work.Add(1)
	}
	t.mu.Unlock()
	if term == nil {
		return errNoTerm
	}
	defer term.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(term.ctx, func() { cancel(context.Cause(term.ctx)) })()
	return f(ctx, term.epoch)
}

// stillHeld reads the term back from the DCS (leader/doc.go): deletes depend on it (P4). Where there is no baton to read, this node has
// to be the running primary, and Patroni, if there is one, has to say so.
func (a *app) stillHeld(epoch uint64) func(context.Context) error {
	return func(ctx context.Context) error {
		v, err := a.elector.Read(ctx)
		if err != nil {
			return fmt.Errorf("read the term back: %w", err)
		}
		if a.scope.lens.NoDCS {
			c := a.scope.lens.Cluster(v, true)
			switch {
			case a.pg.Read(ctx).State != archiver.ServerPrimary:
				return errors.New("read the term back: PostgreSQL is no running primary here")
			case !c.Alone && !c.IsLeader():
				return fmt.Errorf("read the term back: Patroni's leader is %q", c.Leader)
			}
			return nil
		}
		if v.Baton.Holder != a.cfg.Name || v.Baton.Epoch != epoch {
			return fmt.Errorf("read the term back: it is over, the baton is %q's now", v.Baton.Holder)
		}
		return nil
	}
}
