package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// newLogger writes one line per event to w. A warning or an error that is word for word like
// one of the last minute is counted and not written; the next one that is written says how
// many were left out.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	text := slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	return slog.New(&quiet{Handler: text, repeats: &repeats{every: time.Minute, seen: map[string]*repeat{}}})
}

// quiet is a slog.Handler that leaves repeats out. It does so for warnings and errors only: what
// is normal is logged when it changes, and then each line tells something.
type quiet struct {
	slog.Handler
	prefix  string // the attributes and groups that With added
	repeats *repeats
}

func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		left, write := q.repeats.note(q.key(r), r.Time)
		if !write {
			return nil
		}
		if left > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("repeated", left))
		}
	}
	return q.Handler.Handle(ctx, r)
}

func (q *quiet) key(r slog.Record) string {
	var b strings.Builder
	b.WriteString(q.prefix + r.Level.String() + " " + r.Message)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(" " + a.String())
		return true
	})
	return b.String()
}

func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	prefix := q.prefix
	for _, a := range attrs {
		prefix += a.String() + " "
	}
	return &quiet{q.Handler.WithAttrs(attrs), prefix, q.repeats}
}

func (q *quiet) WithGroup(name string) slog.Handler {
	return &quiet{q.Handler.WithGroup(name), q.prefix + name + ".", q.repeats}
}

// maxRepeats bounds how many different lines are remembered.
const maxRepeats = 1000

// repeats remembers which lines were written lately.
type repeats struct {
	every time.Duration
	mu    sync.Mutex
	seen  map[string]*repeat
}

type repeat struct {
	written time.Time
	left    int // out since then
}

// note says whether to write the line, and how many like it were left out before.
func (p *repeats) note(key string, now time.Time) (left int, write bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.seen[key]
	if ok && now.Sub(r.written) < p.every {
		r.left++
		return 0, false
	}
	if !ok {
		p.makeRoom(now)
		r = &repeat{}
		p.seen[key] = r
	}
	left = r.left
	*r = repeat{written: now}
	return left, true
}

// makeRoom forgets lines that are old and, when all are young, every one: to write too much is
// better than to grow.
func (p *repeats) makeRoom(now time.Time) {
	if len(p.seen) < maxRepeats {
		return
	}
	for k, r := range p.seen {
		if now.Sub(r.written) >= p.every {
			delete(p.seen, k)
		}
	}
	if len(p.seen) >= maxRepeats {
		clear(p.seen)
	}
}
