package store

import (
	"context"
	"io"
	"iter"

	"golang.org/x/time/rate"
)

// Bandwidth is how many bytes a second may be sent, and how many received. One Bandwidth serves all stores of a process.
type Bandwidth struct {
	sent, received *rate.Limiter
	piece          int // bytes that are let through at once
}

// maxPiece bounds what is let through at once, so that a wait is short and requests take turns.
const maxPiece = 256 << 10

// NewBandwidth allows so many bytes a second in each direction; perSecond is above 0.
func NewBandwidth(perSecond int64) *Bandwidth {
	piece := int(min(max(perSecond/8, 1), maxPiece))
	return &Bandwidth{rate.NewLimiter(rate.Limit(perSecond), piece), rate.NewLimiter(rate.Limit(perSecond), piece), piece}
}

// Limit returns s with the bodies of its puts and gets held to b. The waits end with the context, and move the body piece by piece, so that
// they are progress to Stall, which goes around it. A body that a driver reads twice, for a checksum say, is waited for the first time: the object
// goes out at the speed of the line then, and the mean is that of b.
func Limit(s Store, b *Bandwidth) Store { return &limit{s, b} }

type limit struct {
	s Store
	b *Bandwidth
}

func (l *limit) String() string { return l.s.String() }
func (l *limit) Unwrap() Store  { return l.s }

func (l *limit) Put(ctx context.Context, key string, b Body) error {
	return l.s.Put(ctx, key, &limitedBody{Body: b, ctx: ctx, b: l.b})
}

func (l *limit) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	r, err := l.s.Get(ctx, key, from, n)
	if err != nil {
		return nil, err
	}
	return &limitedReader{r, ctx, l.b}, nil
}

func (l *limit) Head(ctx context.Context, key string) (Info, error) { return l.s.Head(ctx, key) }
func (l *limit) Delete(ctx context.Context, key string) error       { return l.s.Delete(ctx, key) }
func (l *limit) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return l.s.List(ctx, prefix, after)
}

// limitedBody waits for each byte once. It is read by one goroutine at a time, as every Body is.
type limitedBody struct {
	Body
	ctx  context.Context
	b    *Bandwidth
	at   int64 // where the reader stands
	paid int64 // bytes from the first on that were waited for
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p[:min(len(p), b.b.piece)])
	b.at += int64(n)
	if due := b.at - b.paid; due > 0 {
		b.paid = b.at
		if werr := b.b.sent.WaitN(b.ctx, int(min(due, int64(n)))); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

func (b *limitedBody) Seek(offset int64, whence int) (int64, error) {
	at, err := b.Body.Seek(offset, whence)
	if err == nil {
		b.at = at
	}
	return at, err
}

type limitedReader struct {
	io.ReadCloser
	ctx context.Context
	b   *Bandwidth
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), r.b.piece)])
	if n > 0 {
		if werr := r.b.received.WaitN(r.ctx, n); werr != nil {
			return 0, werr
		}
	}
	return n, err
}
