package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Backoff says how often and how patiently Retry tries. The zero value is 5 tries within about two seconds.
type Backoff struct {
	First time.Duration // the first wait; each next one is twice as long. 0 means 200 ms
	Max   time.Duration // the longest wait. 0 means 10 s
	Tries int           // requests in a row without progress; 0 means 5, a negative number means until the context ends
	Log   *slog.Logger  // told about every further try at level debug; nil means nobody
}

// Retry returns s with a second chance for every request. A wait is drawn between half and all of its
// length, and one that would outlast the context's deadline is not begun.
//
// Definite answers are never tried again: fs.ErrExist, fs.ErrNotExist, fs.ErrPermission,
// fs.ErrInvalid, ErrNoRoot, ErrReplaced, and a context that has ended.
//
// A Put whose earlier try ended without an answer may find its own object. Then the result is
// still fs.ErrExist, and its text has the earlier error: whoever gets fs.ErrExist compares.
// A Get goes on where it broke off, and a List after the last key that it yielded. Both rely
// on objects that never change; where the store tells, a Get sees that it goes on with the same one (Versioned), and
// content is checked by whoever reads it.
func Retry(s Store, b Backoff) Store {
	if b.First <= 0 {
		b.First = 200 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 10 * time.Second
	}
	if b.Tries == 0 {
		b.Tries = 5
	}
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	return &retry{s: s, b: b}
}

type retry struct {
	s Store
	b Backoff
}

func (r *retry) String() string { return r.s.String() }
func (r *retry) Unwrap() Store  { return r.s }

// definite says that to ask again would bring the same answer.
func definite(err error) bool {
	for _, kind := range []error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, ErrNoRoot, ErrReplaced, context.Canceled} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// tries counts the tries of one request, or of one stretch of it without progress.
type tries struct {
	r    *retry
	what string
	n    int
}

// again waits before the next try and returns nil, or returns the error to give up with.
func (t *tries) again(ctx context.Context, err error) error {
	if definite(err) || ctx.Err() != nil {
		return err
	}
	t.n++
	if t.n == t.r.b.Tries {
		return fmt.Errorf("%w (try %d, the last)", err, t.n)
	}
	wait := t.r.b.Max
	if shift := t.n - 1; shift < 30 {
		wait = min(wait, t.r.b.First<<shift)
	}
	wait = wait/2 + rand.N(wait/2+1)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return fmt.Errorf("%w (try %d, no time for another)", err, t.n)
	}
	t.r.b.Log.DebugContext(ctx, "store request will be tried again", "request", t.what, "try", t.n, "wait", wait, "err", err)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w, and then: %w", err, context.Cause(ctx))
	}
}

func (r *retry) do(ctx context.Context, what string, request func() error) error {
	t := tries{r: r, what: what}
	for {
		err := request()
		if err == nil {
			return nil
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
	}
}

func (r *retry) Put(ctx context.Context, key string, b Body) error {
	var earlier error
	return r.do(ctx, "put", func() error {
		err := r.s.Put(ctx, key, b)
		if earlier != nil && errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w (perhaps by our earlier try, which ended with: %v)", err, earlier)
		}
		earlier = err
		return err
	})
}

func (r *retry) Head(ctx context.Context, key string) (info Info, err error) {
	err = r.do(ctx, "head", func() error {
		var err error
		info, err = r.s.Head(ctx, key)
		return err
	})
	return info, err
}

func (r *retry) Delete(ctx context.Context, key string) error {
	return r.do(ctx, "delete", func() error { return r.s.Delete(ctx, key) })
}

func (r *retry) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		t := tries{r: r, what: "list"}
		for after := after; ; {
			var broken error
			for info, err := range r.s.List(ctx, prefix, after) {
				if err != nil {
					broken = err
					break
				}
				t.n, after = 0, info.Key
				if !yield(info, nil) {
					return
				}
			}
			if broken == nil {
				return
			}
			if err := t.again(ctx, broken); err != nil {
				yield(Info{}, err)
				return
			}
		}
	}
}

func (r *retry) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	g := &resumed{tries: tries{r: r, what: "get"}, ctx: ctx, key: key, at: from, left: n}
	if err := r.do(ctx, "get", g.open); err != nil {
		return nil, err
	}
	return g, nil
}

// resumed is the body of a Get that survives broken connections.
type resumed struct {
	tries tries
	ctx   context.Context
	key   string
	at    int64 // the offset of the next byte
	left  int64 // how many are still wanted, negative for all
	body  io.ReadCloser
	some  bool   // of it was read
	seen  string // its version
	err   error  // ends it
}

func (g *resumed) open() error {
	body, err := g.tries.r.s.Get(g.ctx, g.key, g.at, g.left)
	if err != nil {
		return err
	}
	version := versionOf(body)
	if g.some && g.seen != "" && version != "" && version != g.seen {
		body.Close()
		return fmt.Errorf("get %s: %w", g.key, ErrReplaced)
	}
	g.body, g.seen = body, version
	return nil
}

func (g *resumed) Read(p []byte) (int, error) {
	for g.err == nil {
		if g.body == nil {
			if err := g.open(); err != nil {
				g.err = g.tries.again(g.ctx, err)
				continue
			}
		}
		n, err := g.body.Read(p)
		if n > 0 {
			g.tries.n, g.some = 0, true
			g.at += int64(n)
			if g.left >= 0 {
				g.left -= int64(n)
			}
		}
		switch {
		case err == io.EOF:
			g.err = io.EOF
		case err != nil:
			g.drop()
			g.err = g.tries.again(g.ctx, err)
		}
		if n > 0 || err == nil {
			return n, nil // what ended it, if anything, comes with the next Read
		}
	}
	return 0, g.err
}

func (g *resumed) drop() {
	if g.body != nil {
		g.body.Close() // broken, or no longer wanted
		g.body = nil
	}
}

func (g *resumed) Close() error {
	g.drop()
	if g.err == nil {
		g.err = fs.ErrClosed
	}
	return nil
}
