package rehearsal

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// writer writes rows through whichever member is the primary, one transaction each, until its context ends. After a failure it finds the
// primary again, and goes on with numbers that it has not used: what became of the others only the server knows.
type writer struct {
	schema  string
	connect func(ctx context.Context) (*pgx.Conn, error) // to the primary of now
	pause   time.Duration                                // between two rows
	every   time.Duration                                // between two ends of segments

	mu     sync.Mutex
	rows   []row // number 1 is the first
	failed []failure
	ends   []segmentEnd
	hurry  bool // a segment is to be ended with the next row
}

type row struct{ sent, acked time.Time } // acked is zero while nobody knows

type failure struct {
	at  time.Time
	why string
}

type segmentEnd struct {
	at   time.Time
	name string
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	var conn *pgx.Conn
	defer func() { closeConn(conn) }()
	tick := time.NewTicker(w.pause)
	defer tick.Stop()
	last := time.Now() // when a segment was ended
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var err error
		if conn == nil {
			conn, err = w.connect(ctx)
		}
		if err == nil {
			err = w.write(ctx, conn)
		}
		if err == nil && (w.hurried() || time.Since(last) >= w.every) {
			last = time.Now()
			err = w.end(ctx, conn)
		}
		if err != nil && ctx.Err() == nil {
			w.fail(err)
			closeConn(conn)
			conn = nil
		}
	}
}

// write sends one row. It is not interrupted: at most those rows are in doubt that a failure hit.
func (w *writer) write(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqlTime)
	defer cancel()
	w.mu.Lock()
	w.rows = append(w.rows, row{sent: time.Now()})
	id := int64(len(w.rows))
	w.mu.Unlock()
	if _, err := conn.Exec(ctx, "insert into "+w.schema+".rows values ($1, $2)", id, note(w.schema, id)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows[id-1].acked = time.Now()
	return nil
}

func (w *writer) end(ctx context.Context, conn *pgx.Conn) error {
	name, err := endSegment(context.WithoutCancel(ctx), conn)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends, w.hurry = append(w.ends, segmentEnd{time.Now(), name}), false
	return nil
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, failure{time.Now(), shortReason(err)})
	w.hurry = true // the first segment after a change is not to wait
}

func (w *writer) hurried() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hurry
}

// closeConn gives a connection up; it waits for the server a moment at most.
func closeConn(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it is gone either way
}

// written is what a writer has done.
type written struct {
	rows   []row
	failed []failure
	ends   []segmentEnd
}

// mark is a point in what a writer has done.
type mark struct{ rows, failed, ends int }

// mark is where the next round begins.
func (w *writer) mark() mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mark{len(w.rows), len(w.failed), len(w.ends)}
}

// since copies what was done from there on.
func (w *writer) since(m mark) written {
	w.mu.Lock()
	defer w.mu.Unlock()
	return written{append([]row(nil), w.rows[m.rows:]...), append([]failure(nil), w.failed[m.failed:]...), append([]segmentEnd(nil), w.ends[m.ends:]...)}
}

// ackedSince says whether a row was sent and acknowledged after a moment.
func (d written) ackedSince(t time.Time) bool {
	for i := len(d.rows) - 1; i >= 0 && d.rows[i].sent.After(t); i-- {
		if !d.rows[i].acked.IsZero() {
			return true
		}
	}
	return false
}

// failedSince gives the last failure after a moment; zero when there is none.
func (d written) failedSince(t time.Time) time.Time {
	if n := len(d.failed); n > 0 && d.failed[n-1].at.After(t) {
		return d.failed[n-1].at
	}
	return time.Time{}
}

// gap gives the longest time without an acknowledged row that ends after a moment, and before end.
func (d written) gap(after, end time.Time) (from, to time.Time) {
	var last time.Time
	look := func(t time.Time) {
		if !last.IsZero() && t.After(after) && t.Sub(last) > to.Sub(from) {
			from, to = last, t
		}
		last = t
	}
	for _, r := range d.rows {
		if !r.acked.IsZero() {
			look(r.acked)
		}
	}
	if to.IsZero() || end.Sub(last) > to.Sub(from) {
		look(end)
	}
	return from, to
}
