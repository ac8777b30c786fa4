package leadertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
)

// order is what a child is to do.
type order struct {
	Config  json.RawMessage
	Journal string
	TTL     time.Duration
}

// runChild takes part in the election until ctx ends.
func runChild[C any](ctx context.Context, text string, open func(C) (dcs.DCS, error)) error {
	var o order
	var c C
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if err := json.Unmarshal(o.Config, &c); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	d, err := open(c)
	if err != nil {
		return err
	}
	if c, ok := d.(io.Closer); ok {
		defer c.Close()
	}
	f, err := os.OpenFile(o.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	e, err := leader.New(d, leader.Options{Self: self, TTL: o.TTL, Every: o.TTL / 5, Margin: o.TTL * 2 / 5, Settle: 50 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	e.Announce(leader.Record{SystemID: 1, Store: true, Role: leader.RolePrimary, Timeline: 1})
	w := &worker{e: e, f: f}
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { w.open(ctx) })
	loops.Go(func() { w.pulse(ctx) })
	return e.Run(ctx, w.delete)
}

// worker does what is forbidden outside a term or without the leader key, as often as it can.
type worker struct {
	e *leader.Elector

	mu  sync.Mutex
	f   *os.File
	seq uint64
}

const (
	kindDelete = "delete"
	kindOpen   = "opening"
	kindPulse  = "pulse"
)

// delete is the work of a term: before each batch of deletes the term is looked at, and read back from the DCS.
func (w *worker) delete(ctx context.Context, t leader.Term) error {
	for ctx.Err() == nil {
		v, err := w.e.Read(ctx)
		at := time.Now()
		if err == nil && v.Baton.Holder == self && v.Baton.Epoch == t.Epoch {
			w.act(kindDelete, t.Epoch, at)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// open needs no term: Patroni's leader opens a timeline, by a fresh read of the leader key.
func (w *worker) open(ctx context.Context) {
	for ctx.Err() == nil {
		v, err := w.e.Read(ctx)
		at := time.Now()
		if err == nil && v.Cluster.Leader == self {
			w.act(kindOpen, v.Cluster.LeaderToken, at)
		}
		time.Sleep(time.Millisecond)
	}
}

// pulse shows that the process runs.
func (w *worker) pulse(ctx context.Context) {
	for ctx.Err() == nil {
		w.note(note{kind: kindPulse})
		time.Sleep(100 * time.Millisecond)
	}
}

// act notes what is to be done, after a look that ended at that time, and does it, which is a second note.
func (w *worker) act(kind string, number uint64, at time.Time) {
	w.mu.Lock()
	w.seq++
	n := note{kind: kind, number: number, seq: w.seq, looked: at.UnixNano()}
	w.mu.Unlock()
	w.note(n)
	n.done = true
	w.note(n)
}

func (w *worker) note(n note) {
	if _, err := w.f.WriteString(n.String()); err != nil { // one write, at the end of the file
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// note is one line of the journal.
type note struct {
	kind   string
	number uint64 // of the term, or the token of the leader key
	seq    uint64
	looked int64 // when the look that allowed it had ended, in nanoseconds since 1970
	done   bool  // else it is about to be done
}

func (n note) String() string {
	return fmt.Sprintf("%s %d %d %d %t.\n", n.kind, n.number, n.seq, n.looked, n.done)
}

func parseNote(line string) (n note, ok bool) {
	read, err := fmt.Sscanf(line, "%s %d %d %d %t", &n.kind, &n.number, &n.seq, &n.looked, &n.done)
	return n, err == nil && read == 5 && strings.HasSuffix(line, ".\n")
}

type notes []note

func (ns notes) pulses() int {
	count := 0
	for _, n := range ns {
		if n.kind == kindPulse {
			count++
		}
	}
	return count
}

// forbiddenSince gives what was meant or done since the journal read as before, while another had the baton and the leader key.
// What had been looked at before the process stood still was under way.
func (ns notes) forbiddenSince(before notes, frozen time.Time) (out []note) {
	for _, n := range ns[len(before):] {
		underWay := n.looked < frozen.UnixNano()
		if n.kind != kindPulse && !underWay {
			out = append(out, n)
		}
	}
	return out
}
