package drill

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Writer numbers rows in the table "ledger" through whichever node is the primary. After every failure it finds the
// primary again and goes on with numbers that it has not used: what became of the others only the servers know.
type Writer struct {
	c      *Cluster
	perSec int // bytes of rows a second

	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	next     int64
	acked    map[int64]Ack
	failures int
}

// Ack is when a row was acknowledged, and on which timeline it was written.
type Ack struct {
	At       time.Time
	Timeline string // 8 hex digits
}

const (
	rowBytes  = 1500
	batchRows = 32
)

// Write makes the table and starts a writer that writes about that many bytes of rows a second, until Stop.
func (c *Cluster) Write(ctx context.Context, bytesPerSecond int) (*Writer, error) {
	p, err := c.Primary(ctx)
	if err != nil {
		return nil, err
	}
	// Rows that cannot be compressed, and stay in the table: what is written is what the WAL grows by.
	err = p.Exec(ctx, `create table if not exists ledger (id bigint primary key, pad bytea not null);
		alter table ledger alter column pad set storage plain`)
	if err != nil {
		return nil, err
	}
	w := &Writer{c: c, perSec: bytesPerSecond, acked: map[int64]Ack{}}
	if w.next, err = query[int64](ctx, p.DSN(), "select coalesce(max(id), 0) + 1 from ledger"); err != nil {
		return nil, err
	}
	w.Resume(ctx)
	return w, nil
}

// Resume lets a writer that was stopped go on, with numbers that it has not used.
func (w *Writer) Resume(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.done = make(chan struct{})
	go w.run(ctx)
}

// Stop ends the writer, and waits for its last transaction.
func (w *Writer) Stop() {
	w.cancel()
	<-w.done
}

// Acked are the rows that were acknowledged.
func (w *Writer) Acked() map[int64]Ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[int64]Ack, len(w.acked))
	for id, a := range w.acked {
		all[id] = a
	}
	return all
}

// Failures is how often a transaction failed, or no primary was found.
func (w *Writer) Failures() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures
}

func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	pause := time.Duration(float64(time.Second) * rowBytes * batchRows / float64(w.perSec))
	var conn *pgx.Conn
	for due := time.Now(); ctx.Err() == nil; due = due.Add(pause) {
		if late := time.Since(due); late > time.Second {
			due = time.Now() // after a failover it does not catch up
		}
		select {
		case <-ctx.Done():
			continue
		case <-time.After(time.Until(due)):
		}
		var err error
		if conn == nil {
			conn, err = pgx.Connect(ctx, w.c.anyPrimary())
		}
		if err == nil {
			err = w.batch(ctx, conn)
		}
		if err != nil {
			w.failed(ctx, conn)
			conn = nil
		}
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

// failed gives a connection up and waits a moment.
func (w *Writer) failed(ctx context.Context, conn *pgx.Conn) {
	if conn != nil {
		conn.Close(ctx)
	}
	w.mu.Lock()
	w.failures++
	w.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

// batch writes some rows in one transaction. The transaction is finished also when the writer is told to stop, so that
// at most those rows are in doubt which a failure hit.
func (w *Writer) batch(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	ids, pads := make([]int64, batchRows), make([][]byte, batchRows)
	w.mu.Lock()
	for i := range ids {
		ids[i], pads[i] = w.next, pad(w.next)
		w.next++
	}
	w.mu.Unlock()
	var file string
	err := conn.QueryRow(ctx, `with new as (insert into ledger select * from unnest($1::bigint[], $2::bytea[]))
		select pg_walfile_name(pg_current_wal_lsn())`, ids, pads).Scan(&file)
	if err != nil {
		return err
	}
	ack := Ack{At: time.Now(), Timeline: file[:8]}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.acked[id] = ack
	}
	return nil
}

// pad is the content of a row: it follows from its number, and does not compress.
func pad(id int64) []byte {
	seed := sha256.Sum256(fmt.Appendf(nil, "row %d", id))
	b := make([]byte, rowBytes)
	rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// anyPrimary is a connection string that names all nodes and takes the one that accepts writes.
func (c *Cluster) anyPrimary() string {
	var hosts, ports []string
	for _, n := range c.Nodes {
		hosts, ports = append(hosts, n.host()), append(ports, fmt.Sprint(n.port()))
	}
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=%s sslmode=disable connect_timeout=2 target_session_attrs=read-write",
		strings.Join(hosts, ","), strings.Join(ports, ","), dbName)
}

// Rows are the rows of the ledger on a server: the digest of each row's content, by number.
func Rows(ctx context.Context, dsn string) (map[int64]string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select id, md5(pad) from ledger")
	if err != nil {
		return nil, err
	}
	all := map[int64]string{}
	var id int64
	var digest string
	_, err = pgx.ForEachRow(rows, []any{&id, &digest}, func() error {
		all[id] = digest
		return nil
	})
	return all, err
}

// Difference says how the rows got differ from the rows wanted; nil means that they are the same.
func Difference(got, want map[int64]string) error {
	var missing, changed, extra []int64
	for id, digest := range want {
		if g, ok := got[id]; !ok {
			missing = append(missing, id)
		} else if g != digest {
			changed = append(changed, id)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			extra = append(extra, id)
		}
	}
	if len(missing)+len(changed)+len(extra) == 0 {
		return nil
	}
	return &RowsDiffer{Missing: missing, Changed: changed, Extra: extra}
}

// RowsDiffer is a difference between the rows of two servers.
type RowsDiffer struct{ Missing, Changed, Extra []int64 }

func (d *RowsDiffer) Error() string {
	return fmt.Sprintf("%d rows missing, %d changed, %d too many", len(d.Missing), len(d.Changed), len(d.Extra))
}

// errNoRows guards against a comparison of nothing with nothing.
var errNoRows = errors.New("compare rows: there are none")
