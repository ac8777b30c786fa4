package sim

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/leader/dcs"
)

// This file is the network between a sidecar and its two servers: every request takes time, both ways, and may meet a
// fate of its own.

// errNetwork is how a request fails that met a fault. It says nothing about what the server did.
var errNetwork = errors.New("network fault")

type fateKind uint8

const (
	fateNone  fateKind = iota
	fateDrop           // it does not arrive, and the caller hears so
	fateHang           // it does not arrive, and the caller hears nothing
	fateLost           // it is carried out, and the answer is lost
	fateLate           // the caller gives up; a write is carried out later
	fateStale          // a read answers what was true before
)

// fate is what becomes of one request.
type fate struct {
	kind              fateKind
	there, back, late time.Duration
}

// rates are the probabilities of each fault of a request.
type rates struct{ drop, hang, lost, late, stale, slow float64 }

// draw gives a request its fate.
func (n *node) draw(what string, up, read bool) fate {
	f := fate{there: n.between(time.Millisecond, 30*time.Millisecond), back: n.between(time.Millisecond, 20*time.Millisecond), late: n.between(time.Second, 40*time.Second)}
	x, r := n.rng.Float64(), n.faults
	switch {
	case !up:
		f.kind = fateDrop
		if x < 0.4 {
			f.kind = fateHang
		}
	case n.healed:
	case x < r.drop:
		f.kind = fateDrop
		n.fault(what + " drop")
	case x < r.drop+r.hang:
		f.kind = fateHang
		n.fault(what + " hang")
	case x < r.drop+r.hang+r.lost:
		f.kind = fateLost
		n.fault(what + " lost reply")
	case x < r.drop+r.hang+r.lost+r.late && !read:
		f.kind = fateLate
		n.fault(what + " late write")
	case x < r.drop+r.hang+r.lost+r.late+r.stale && read:
		f.kind = fateStale
		n.fault(what + " stale read")
	case x > 1-r.slow:
		f.there = n.between(500*time.Millisecond, 8*time.Second)
		n.fault(what + " slow")
	}
	return f
}

func (n *node) fateDCS(_ string, read bool) fate {
	f := n.draw("dcs", n.dcsUp(n.name), read)
	if f.kind == fateStale && n.before.Revision == "" {
		f.kind = fateNone
	}
	return f
}

// readDCS is a linearizable read, which no fault makes stale: a driver promises that.
func (n *node) readDCS(ctx context.Context) (dcs.Reading, error) {
	p := n.cur
	f := n.draw("dcs", n.dcsUp(n.name), false)
	switch f.kind {
	case fateHang:
		if err := p.wait(ctx, batonEvery); err != nil {
			return dcs.Reading{}, err
		}
		return dcs.Reading{}, context.DeadlineExceeded
	case fateDrop, fateLost, fateLate:
		if err := p.wait(ctx, f.there); err != nil {
			return dcs.Reading{}, err
		}
		return dcs.Reading{}, errNetwork
	}
	if err := p.wait(ctx, f.there); err != nil {
		return dcs.Reading{}, err
	}
	r, err := n.client.Read(ctx)
	if werr := p.wait(ctx, f.back); werr != nil {
		return dcs.Reading{}, werr
	}
	return r, err
}

// staleBy is how old a stale listing is.
const staleBy = 8 * time.Second

// link is the archive as one sidecar reaches it.
type link struct {
	n  *node
	at *mirror // nil: the first archive
}

func (l *link) String() string {
	if l.at != nil {
		return "mem://mirror"
	}
	return "mem://sim"
}

func (l *link) up() bool {
	if l.at != nil {
		return l.at.up(l.n.name)
	}
	return l.n.storeUp(l.n.name)
}

func (l *link) store() *mem.Store {
	if l.at != nil {
		return l.at.store
	}
	return l.n.store
}

// do plays one request. serve is what the store does; a write whose caller has gone may still arrive.
func (l *link) do(ctx context.Context, op, key string, read bool, serve func() error) error {
	n, p := l.n, l.n.cur
	if n.slowStore {
		if err := p.wait(ctx, n.between(2*time.Second, 12*time.Second)); err != nil {
			return err
		}
	}
	f := n.draw("store", l.up(), read)
	onWire := !read && n.chance(0.5)
	defer func() {
		if onWire { // the caller went away while the request was on its way
			n.in(f.late, func() {
				if l.up() {
					_ = serve()
				}
			})
		}
	}()
	switch f.kind {
	case fateDrop:
		onWire = false
		if err := p.wait(ctx, f.there); err != nil {
			return err
		}
		return errNetwork
	case fateHang:
		onWire = false
		if err := p.wait(ctx, n.between(5*time.Second, 20*time.Second)); err != nil {
			return err
		}
		return errNetwork
	case fateLate:
		onWire = true
		if err := p.wait(ctx, n.between(time.Second, 10*time.Second)); err != nil {
			return err
		}
		return errNetwork
	}
	if err := p.wait(ctx, f.there); err != nil {
		return err
	}
	onWire = false
	n.staleList = f.kind == fateStale
	err := serve()
	if f.kind == fateLost {
		err = errNetwork
	}
	if werr := p.wait(ctx, f.back); werr != nil {
		return werr
	}
	return err
}

// Put sends a copy of the body: its owner may use the memory again as soon as it is told anything.
func (l *link) Put(ctx context.Context, key string, b store.Body) error {
	data := make([]byte, b.Size())
	_, err := io.ReadFull(b, data)
	must(err)
	n := l.n
	n.check.sends(n, key)
	return l.do(ctx, "put", key, false, func() error {
		if l.at != nil {
			return l.at.put(n, key, data)
		}
		return n.truth.put(n, key, data)
	})
}

// Get reads an object.
func (l *link) Get(ctx context.Context, key string, from, size int64) (r io.ReadCloser, err error) {
	err = l.do(ctx, "get", key, true, func() (err error) {
		r, err = l.store().Get(context.Background(), key, from, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Head looks at an object.
func (l *link) Head(ctx context.Context, key string) (info store.Info, err error) {
	err = l.do(ctx, "head", key, true, func() (err error) {
		info, err = l.store().Head(context.Background(), key)
		return err
	})
	return info, err
}

// List gives keys; a stale one lacks what is younger than some seconds.
func (l *link) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		var infos []store.Info
		err := l.do(ctx, "list", prefix, true, func() error {
			for info, err := range l.store().List(context.Background(), prefix, after) {
				if err != nil {
					return err
				}
				if l.n.staleList && l.n.now.Sub(info.Modified) < staleBy {
					continue
				}
				infos = append(infos, info)
			}
			return nil
		})
		if err != nil {
			yield(store.Info{}, err)
			return
		}
		for _, info := range infos {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete removes an object: a sidecar does so with its probe only.
func (l *link) Delete(ctx context.Context, key string) error {
	n := l.n
	if !strings.Contains(key, "/probe/") {
		n.check.fail("P2", "%s deletes %s", n.name, key)
	}
	return l.do(ctx, "delete", key, false, func() error { return l.store().Delete(context.Background(), key) })
}
