package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// ErrStalled ends a request during which no byte moved for too long. It is worth another try.
var ErrStalled = errors.New("no bytes moved")

// Stall returns s with every request cancelled, as ErrStalled, once no byte of its body has moved for
// limit, or the answer to it does not come for that long. A transfer that is slow but moves lives on, and
// a reader that nobody reads is not stalled. It cancels by context: the file driver cannot be
// called back from a disk that hangs.
func Stall(s Store, limit time.Duration) Store { return &stall{s: s, limit: limit} }

type stall struct {
	s     Store
	limit time.Duration
}

func (s *stall) String() string { return s.s.String() }
func (s *stall) Unwrap() Store  { return s.s }

// watch cancels a context when it is not touched for a while.
type watch struct {
	ctx    context.Context
	outer  context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (s *stall) watch(ctx context.Context) *watch {
	w := &watch{outer: ctx, limit: s.limit}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(s.limit, func() { w.cancel(fmt.Errorf("%w for %v", ErrStalled, s.limit)) })
	return w
}

func (w *watch) touch() { w.timer.Reset(w.limit) }
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// why is err, or ErrStalled if that was the reason for it.
func (w *watch) why(verb, key string, err error) error {
	cause := context.Cause(w.ctx)
	if err == nil || w.outer.Err() != nil || !errors.Is(cause, ErrStalled) || definite(err) && !errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, key, cause)
}

func (s *stall) Put(ctx context.Context, key string, b Body) error {
	w := s.watch(ctx)
	defer w.end()
	return w.why("put", key, s.s.Put(w.ctx, key, &watchedBody{b, w}))
}

type watchedBody struct {
	Body
	w *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	b.w.touch()
	return n, err
}

func (s *stall) Head(ctx context.Context, key string) (Info, error) {
	w := s.watch(ctx)
	defer w.end()
	info, err := s.s.Head(w.ctx, key)
	return info, w.why("head", key, err)
}

func (s *stall) Delete(ctx context.Context, key string) error {
	w := s.watch(ctx)
	defer w.end()
	return w.why("delete", key, s.s.Delete(w.ctx, key))
}

func (s *stall) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		w := s.watch(ctx)
		defer w.end()
		for info, err := range s.s.List(w.ctx, prefix, after) {
			w.pause() // the caller may take its time
			if !yield(info, w.why("list", prefix, err)) {
				return
			}
			w.touch()
		}
	}
}

func (s *stall) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	w := s.watch(ctx)
	r, err := s.s.Get(w.ctx, key, from, n)
	if err != nil {
		w.end()
		return nil, w.why("get", key, err)
	}
	w.pause()
	return &watchedReader{r: r, w: w, key: key}, nil
}

type watchedReader struct {
	r   io.ReadCloser
	w   *watch
	key string
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.w.touch()
	n, err := r.r.Read(p)
	r.w.pause()
	if err == io.EOF {
		return n, err
	}
	return n, r.w.why("get", r.key, err)
}

func (r *watchedReader) Close() error {
	defer r.w.end()
	return r.r.Close()
}
