package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts requests to stores. One Metrics serves all stores of a process.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

// The values of the labels op, result and direction.
const (
	opPut    = "put"
	opGet    = "get"
	opHead   = "head"
	opList   = "list"
	opDelete = "delete"

	resultOK        = "ok"
	resultExists    = "exists"    // fs.ErrExist
	resultAbsent    = "absent"    // fs.ErrNotExist
	resultDenied    = "denied"    // fs.ErrPermission
	resultNoRoot    = "no_root"   // ErrNoRoot
	resultStalled   = "stalled"   // ErrStalled
	resultCancelled = "cancelled" // the caller's context ended
	resultError     = "error"

	directionSent     = "sent"
	directionReceived = "received"
)

// NewMetrics registers with r, unless r is nil. All label values exist from the start, at zero.
//
//	walbaton_store_requests_total{op,result}
//	walbaton_store_request_duration_seconds{op}  until the answer; for get and list until the end of the body
//	walbaton_store_bytes_total{direction}        of stored and fetched bodies
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "walbaton_store_requests_total",
			Help: "Requests to the store, each try counted, by kind and result.",
		}, []string{"op", "result"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "walbaton_store_request_duration_seconds",
			Help:    "Duration of requests to the store, bodies included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"op"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "walbaton_store_bytes_total",
			Help: "Bytes of objects that were put into the store (sent) and read from it (received).",
		}, []string{"direction"}),
	}
	for _, op := range []string{opPut, opGet, opHead, opList, opDelete} {
		for _, result := range []string{resultOK, resultExists, resultAbsent, resultDenied, resultNoRoot,
			resultStalled, resultCancelled, resultError} {
			m.requests.WithLabelValues(op, result)
		}
		m.duration.WithLabelValues(op)
	}
	m.bytes.WithLabelValues(directionSent)
	m.bytes.WithLabelValues(directionReceived)
	return m
}

// Meter returns s with its requests counted in m.
func Meter(s Store, m *Metrics) Store { return &meter{s: s, m: m} }

type meter struct {
	s Store
	m *Metrics
}

func (m *meter) String() string { return m.s.String() }
func (m *meter) Unwrap() Store  { return m.s }

func result(ctx context.Context, err error) string {
	kinds := []struct {
		err    error
		result string
	}{
		{fs.ErrExist, resultExists}, {fs.ErrNotExist, resultAbsent}, {fs.ErrPermission, resultDenied},
		{ErrNoRoot, resultNoRoot},
	}
	if err == nil {
		return resultOK
	}
	for _, kind := range kinds {
		if errors.Is(err, kind.err) {
			return kind.result
		}
	}
	// Stall cancels from outside of Meter, so the kind of error alone does not tell.
	if errors.Is(context.Cause(ctx), ErrStalled) {
		return resultStalled
	}
	if ctx.Err() != nil {
		return resultCancelled
	}
	return resultError
}

func (m *Metrics) done(ctx context.Context, op string, began time.Time, err error) {
	m.requests.WithLabelValues(op, result(ctx, err)).Inc()
	m.duration.WithLabelValues(op).Observe(time.Since(began).Seconds())
}

func (m *meter) Put(ctx context.Context, key string, b Body) error {
	began := time.Now()
	err := m.s.Put(ctx, key, b)
	if err == nil {
		m.m.bytes.WithLabelValues(directionSent).Add(float64(b.Size()))
	}
	m.m.done(ctx, opPut, began, err)
	return err
}

func (m *meter) Head(ctx context.Context, key string) (Info, error) {
	began := time.Now()
	info, err := m.s.Head(ctx, key)
	m.m.done(ctx, opHead, began, err)
	return info, err
}

func (m *meter) Delete(ctx context.Context, key string) error {
	began := time.Now()
	err := m.s.Delete(ctx, key)
	m.m.done(ctx, opDelete, began, err)
	return err
}

func (m *meter) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		began := time.Now()
		var failed error
		defer func() { m.m.done(ctx, opList, began, failed) }()
		for info, err := range m.s.List(ctx, prefix, after) {
			failed = err
			if !yield(info, err) {
				return
			}
		}
	}
}

func (m *meter) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	began := time.Now()
	r, err := m.s.Get(ctx, key, from, n)
	if err != nil {
		m.m.done(ctx, opGet, began, err)
		return nil, err
	}
	return &meteredReader{ReadCloser: r, m: m.m, ctx: ctx, began: began}, nil
}

// meteredReader counts its Get when it is closed, with the first error that reading it met.
type meteredReader struct {
	io.ReadCloser
	m      *Metrics
	ctx    context.Context
	began  time.Time
	err    error
	closed bool
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.m.bytes.WithLabelValues(directionReceived).Add(float64(n))
	if err != nil && err != io.EOF && r.err == nil {
		r.err = err
	}
	return n, err
}

func (r *meteredReader) Close() error {
	if !r.closed {
		r.closed = true
		r.m.done(r.ctx, opGet, r.began, r.err)
	}
	return r.ReadCloser.Close()
}
