package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// ErrFault is what a spoiled request returns when its Fault names no error of its own.
var ErrFault = errors.New("connection reset by fault")

// Op is a kind of request.
type Op string

// The requests of a store.Store.
const (
	OpPut    Op = "put"
	OpGet    Op = "get"
	OpHead   Op = "head"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Call is one request on its way to the store.
type Call struct {
	No  int // 1 for the first request through this Faults
	Op  Op
	Key string // the prefix, for a listing
}

// Fault is what happens to one request. The zero Fault lets it pass. The steps happen in
// the order of the fields.
type Fault struct {
	Delay time.Duration // on the way to the store; the caller's context ends the wait
	Hang  bool          // until the caller's context ends
	// Late is about puts and deletes: one whose caller gave up during Delay or Hang is not recalled. It
	// waits on the wire until Faults.Arrive.
	Late bool
	Drop bool // it never reaches the store, and the caller gets Err
	// Cut breaks the answer of a Get after so many bytes, of a List after so many keys. 0 does not.
	Cut  int64
	Lost bool  // the store does it, and the caller gets Err instead of the answer
	Err  error // nil means ErrFault
}

// Faults is a store.Store that spoils the requests to another one.
type Faults struct {
	inner  store.Store
	decide func(Call) Fault

	mu   sync.Mutex
	no   int
	late []func() error
}

// NewFaults asks decide about every request to s. decide may be called from many goroutines,
// one at a time, in the order in which the requests start.
func NewFaults(s store.Store, decide func(Call) Fault) *Faults {
	return &Faults{inner: s, decide: decide}
}

func (f *Faults) String() string { return f.inner.String() }

// Late is the number of requests whose callers gave up and that are still on the wire.
func (f *Faults) Late() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.late)
}

// Arrive lets all late requests reach the store, in the order in which they were made, and
// returns what it answered to each, which nobody else hears.
func (f *Faults) Arrive() []error {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	var answers []error
	for _, do := range late {
		answers = append(answers, do())
	}
	return answers
}

// send takes a request through everything that can happen before the store sees it. late is the request as
// it is without its caller, or nil when it has no effect.
func (f *Faults) send(ctx context.Context, op Op, key string, late func() (func() error, error)) (Fault, error) {
	f.mu.Lock()
	f.no++
	fault := f.decide(Call{No: f.no, Op: op, Key: key})
	f.mu.Unlock()
	if fault.Err == nil {
		fault.Err = ErrFault
	}
	var held func() error
	if fault.Late && late != nil {
		var err error
		if held, err = late(); err != nil {
			return fault, fmt.Errorf("%s %s: %w", op, key, err)
		}
	}
	if err := wait(ctx, fault); err != nil {
		if held != nil {
			f.mu.Lock()
			f.late = append(f.late, held)
			f.mu.Unlock()
		}
		return fault, fmt.Errorf("%s %s: %w", op, key, err)
	}
	if fault.Drop {
		return fault, fmt.Errorf("%s %s: %w", op, key, fault.Err)
	}
	return fault, nil
}

func wait(ctx context.Context, fault Fault) error {
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if fault.Hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

// answer is what the caller hears of a request that the store has answered with err.
func (fault Fault) answer(op Op, key string, err error) error {
	if fault.Lost {
		return fmt.Errorf("%s %s: answer lost: %w", op, key, fault.Err)
	}
	return err
}

// Put implements store.Store.
func (f *Faults) Put(ctx context.Context, key string, b store.Body) error {
	fault, err := f.send(ctx, OpPut, key, func() (func() error, error) {
		r, err := store.Exact(ctx, b) // now: the caller may reuse b's memory once Put has returned
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		return func() error {
			return f.inner.Put(context.WithoutCancel(ctx), key, bytes.NewReader(data))
		}, nil
	})
	if err != nil {
		return err
	}
	return fault.answer(OpPut, key, f.inner.Put(ctx, key, b))
}

// Get implements store.Store.
func (f *Faults) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	fault, err := f.send(ctx, OpGet, key, nil)
	if err != nil {
		return nil, err
	}
	r, err := f.inner.Get(ctx, key, from, n)
	if err = fault.answer(OpGet, key, err); err != nil {
		if r != nil {
			r.Close()
		}
		return nil, err
	}
	if fault.Cut > 0 {
		return &cutReader{ReadCloser: r, left: fault.Cut, err: fmt.Errorf("get %s: %w", key, fault.Err)}, nil
	}
	return r, nil
}

type cutReader struct {
	io.ReadCloser
	left int64
	err  error
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// Head implements store.Store.
func (f *Faults) Head(ctx context.Context, key string) (store.Info, error) {
	fault, err := f.send(ctx, OpHead, key, nil)
	if err != nil {
		return store.Info{}, err
	}
	info, err := f.inner.Head(ctx, key)
	if err = fault.answer(OpHead, key, err); err != nil {
		return store.Info{}, err
	}
	return info, nil
}

// List implements store.Store.
func (f *Faults) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		fault, err := f.send(ctx, OpList, prefix, nil)
		if err == nil {
			err = fault.answer(OpList, prefix, nil)
		}
		if err != nil {
			yield(store.Info{}, err)
			return
		}
		seen := int64(0)
		for info, err := range f.inner.List(ctx, prefix, after) {
			if fault.Cut > 0 && seen == fault.Cut {
				yield(store.Info{}, fmt.Errorf("list %s: %w", prefix, fault.Err))
				return
			}
			seen++
			if !yield(info, err) {
				return
			}
		}
	}
}

// Delete implements store.Store.
func (f *Faults) Delete(ctx context.Context, key string) error {
	fault, err := f.send(ctx, OpDelete, key, func() (func() error, error) {
		return func() error { return f.inner.Delete(context.WithoutCancel(ctx), key) }, nil
	})
	if err != nil {
		return err
	}
	return fault.answer(OpDelete, key, f.inner.Delete(ctx, key))
}
