// Package remote is what the drivers of stores behind HTTP have in common: the URL, a connection,
// a body in the hands of the transport, and the look that follows a write without a clear answer.
//
//	loan := remote.Lend(ctx, body)
//	defer loan.End()
//	err := request(loan.Section(0, body.Size()))
//	loan.End()
//	if perhaps(err) {
//		verdict := remote.Look(ctx, s, key, body)
//	}
//
// What a server's answers mean is each driver's own business.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"

	"github.com/walbaton/walbaton/archiver/store"
)

// Certain is an error after which the object is certainly not ours: its write was never asked for.
type Certain struct{ Err error }

func (c Certain) Error() string { return c.Err.Error() }
func (c Certain) Unwrap() error { return c.Err }

// Look finds out, after a write without a clear answer, what stands under key in s: nil when it is all of b,
// fs.ErrExist when it is something else, any other error when it is not known or nothing is there.
func Look(ctx context.Context, s store.Store, key string, b store.Body) error {
	info, err := s.Head(ctx, key)
	if err != nil {
		return err
	}
	if info.Size != b.Size() {
		return fs.ErrExist
	}
	want, err := store.Exact(ctx, b)
	if err != nil {
		return err
	}
	got, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer got.Close()
	same, err := equal(got, want)
	if err == nil && !same {
		return fs.ErrExist
	}
	return err
}

// equal compares two readers to their ends, or to the first difference: the header of a sealed object
// differs between writers, so what is another's is known after a few bytes.
func equal(a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return errA != nil && errB != nil, nil
		}
	}
}

// Loan is a body in the hands of the HTTP transport, which may go on reading it in a goroutine of its own
// after a request has ended. End takes it back: its memory may be used for something else then.
//
// Once its context has ended no more of it is given away, so that a cancelled upload does not complete behind our back.
type Loan struct {
	ctx   context.Context
	mu    sync.Mutex
	ended bool
	b     io.ReadSeeker
}

// Lend gives b away, until End.
func Lend(ctx context.Context, b io.ReadSeeker) *Loan { return &Loan{ctx: ctx, b: b} }

// End takes the body back. It may be called more than once.
func (l *Loan) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// Section is length bytes of the body from offset from on. Sections that overlap in time do not disturb each other.
func (l *Loan) Section(from, length int64) *io.SectionReader {
	return io.NewSectionReader(l, from, length)
}

// ReadAt implements io.ReaderAt.
func (l *Loan) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = l.some(p[n:], at+int64(n))
		n += m
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}

// some reads as much of the body as one Read gives.
func (l *Loan) some(p []byte, at int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0, fmt.Errorf("body of an ended request: %w", fs.ErrClosed)
	}
	if err := context.Cause(l.ctx); err != nil {
		return 0, err
	}
	if _, err := l.b.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	return l.b.Read(p)
}

// NeverDialled says whether a request ended with err before there was a connection.
func NeverDialled(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial"
}

// Range is the header for n bytes from offset from on; n < 0 means to the end.
func Range(from, n int64) string {
	if n < 0 || from+n <= from { // to the end, or beyond all ends
		return fmt.Sprintf("bytes=%d-", from)
	}
	return fmt.Sprintf("bytes=%d-%d", from, from+n-1)
}

// Unknown is err without any kind: a missing file with a secret, or a packet filter's EPERM, says nothing about a key.
func Unknown(err error) error {
	for _, kind := range []error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, store.ErrNoRoot} {
		if errors.Is(err, kind) {
			return errors.New(err.Error())
		}
	}
	return err
}
