package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver/wal"
)

// session is one run.
type session struct {
	r        *Rehearsal
	p        *Plan
	res      *Result
	began    time.Time
	writer   *writer
	scratch  *scratch
	made     bool // the schema, or the attempt
	changing bool // the primary is to change just now
	last     wal.Timeline
}

// cleanTime bounds how long a primary is waited for that drops the schema.
const cleanTime = 90 * time.Second

// Run does what was planned. It always cleans up, also when ctx ends, and says in Result.Left what it could not.
func (r *Rehearsal) Run(ctx context.Context, p *Plan) *Result {
	s := &session{r: r, p: p, began: time.Now(), res: &Result{
		Version: r.o.Version, Cluster: p.facts.scope, SystemID: p.facts.systemID, Archive: r.o.Archive.String(), Began: time.Now().UTC(),
		Command: r.o.Command, Wanted: r.o.Rounds, Why: []string{}, Rounds: []Round{}, Left: []string{},
	}}
	s.writer = &writer{schema: p.schema, pause: time.Second / time.Duration(r.o.Rate), every: r.o.Every}
	err := s.run(ctx)
	if r := s.res.Restore; err != nil && r != nil && r.Failed == "" {
		s.res.Restore = nil // it did not come to an end that says something
	}
	if ctx.Err() != nil {
		err = interrupted(s.changing)
		s.say("interrupted: cleaning up")
	}
	s.clean(ctx)
	s.res.Ended = time.Now().UTC()
	s.res.judge()
	if err != nil {
		s.res.Why = append(s.res.Why, err.Error())
		if s.res.Verdict != Failed {
			s.res.Verdict = NotRun
		}
	}
	return s.res
}

// interrupted says what an interruption leaves to be done by others: nobody takes back what Patroni or a command was asked for.
func interrupted(changing bool) error {
	if changing {
		return errors.New("it was interrupted while the primary was to change, and that may go on: see patronictl list")
	}
	return errors.New("it was interrupted")
}

// Refuse is the result of a rehearsal that was refused.
func (r *Rehearsal) Refuse(why *Refused) *Result {
	id := r.o.Archive.Identity()
	now := time.Now().UTC()
	return &Result{Verdict: NotRun, Why: why.Why, Version: r.o.Version, Cluster: id.Scope, SystemID: id.SystemID, Archive: r.o.Archive.String(), Began: now, Ended: now,
		Command: r.o.Command, Wanted: r.o.Rounds, Rounds: []Round{}, Left: []string{}}
}

func (s *session) say(format string, args ...any) {
	s.r.o.Say("%6.1fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *session) run(ctx context.Context) (err error) {
	lead, err := s.fit(ctx, 1)
	if err != nil {
		return err
	}
	if o := s.r.o.Restore; o != nil {
		if s.scratch, err = newScratch(o, s.p.bin); err != nil {
			return err
		}
		began := time.Now()
		s.say("copying the cluster from %s into %s", lead.name, s.scratch.dir)
		if err := s.scratch.backup(ctx, lead, s.p.server.tablespaces); err != nil {
			return err
		}
		s.res.Restore = &Restore{Backup: seconds(time.Since(began))}
	}
	if err := s.onPrimary(ctx, func(conn *pgx.Conn) error {
		s.made = true
		return makeTable(ctx, conn, s.p.schema)
	}); err != nil {
		return err
	}
	for no := 1; no <= s.r.o.Rounds; no++ {
		rd, err := s.round(ctx, no)
		if err != nil {
			if ctx.Err() == nil {
				rd.Verdict, rd.Why = NotRun, append(rd.Why, err.Error())
				s.res.Rounds = append(s.res.Rounds, rd)
			}
			s.res.Restore = nil // nothing was proven that a restore could show
			return ctx.Err()
		}
		s.res.Rounds = append(s.res.Rounds, rd)
		if rd.Verdict != Passed {
			break
		}
	}
	if s.scratch == nil {
		return nil
	}
	return s.restore(ctx)
}

// onPrimary does something on the primary of now.
func (s *session) onPrimary(ctx context.Context, do func(*pgx.Conn) error) error {
	m, err := s.r.findPrimary(ctx, s.p.members)
	if err != nil {
		return err
	}
	conn, err := s.r.connect(ctx, m.host, m.port)
	if err != nil {
		return fmt.Errorf("connect to the primary %s: %w", m.name, inOneLine(err))
	}
	defer closeConn(conn)
	return do(conn)
}

// restore recovers the copy up to a restore point of now, and compares every row.
func (s *session) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.r.o.Wait+30*time.Minute) // a day's WAL may have to be replayed
	defer cancel()
	res := s.res.Restore
	res.Target = s.p.schema
	var want map[int64]string
	var last string
	var user, database string
	err := s.onPrimary(ctx, func(conn *pgx.Conn) (err error) {
		user, database = conn.Config().User, s.p.server.database
		if err = restorePoint(ctx, conn, res.Target); err != nil {
			return err
		}
		if last, err = endSegment(ctx, conn); err != nil {
			return err
		}
		want, _, err = readRows(ctx, conn, s.p.schema)
		return err
	})
	if err != nil {
		return err
	}
	s.say("restoring up to the restore point %s, on timeline %d", res.Target, s.last)
	n, err := wal.ParseName(last, s.r.o.Archive.SegmentSize())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.arrives(ctx, n); err != nil {
		res.Failed = fmt.Sprintf("the archive has not %s, which has the restore point", last)
		return ctx.Err()
	}
	conn, err := s.scratch.recover(ctx, recovery{target: res.Target, timeline: n.Segment.Timeline, settings: s.p.server.settings, user: user, database: database})
	if err != nil {
		if ctx.Err() == nil {
			res.Failed = err.Error()
		}
		return ctx.Err()
	}
	defer closeConn(conn)
	res.Took = seconds(time.Since(began))
	got, _, err := readRows(ctx, conn, s.p.schema)
	if err != nil {
		res.Failed = err.Error()
		return ctx.Err()
	}
	res.compare(got, want)
	s.say("compared %s", counted(res.Rows, "row"))
	return nil
}

// arrives waits until the archive has a segment.
func (s *session) arrives(ctx context.Context, n wal.Name) error {
	return until(ctx, s.r.o.Wait, func() bool {
		for o, err := range s.r.o.Archive.List(ctx, n.Segment.Timeline, n.Segment.No) {
			return err == nil && o.Name == n
		}
		return false
	})
}

// clean removes all that the run made. It does so also when ctx has ended.
func (s *session) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if s.scratch != nil {
		if err := s.scratch.remove(); err != nil {
			s.res.Left = append(s.res.Left, fmt.Sprintf("the folder %s (%v): rm -rf %s", s.scratch.dir, err, s.scratch.dir))
		}
	}
	if !s.made {
		return
	}
	// While the primary changes, one that is about to go may drop the schema and not hand that on: then it is looked for again.
	gone, wanted := 0, 1
	if s.changing {
		wanted = 3
	}
	var last error
	err := until(ctx, cleanTime, func() bool {
		was := false
		last = s.onPrimary(ctx, func(conn *pgx.Conn) (err error) {
			was, err = dropTable(ctx, conn, s.p.schema)
			return err
		})
		if gone++; last != nil || was && s.changing {
			gone = 0
		}
		if gone < wanted {
			sleep(ctx, time.Second)
		}
		return gone >= wanted
	})
	if err != nil {
		s.res.Left = append(s.res.Left, fmt.Sprintf("the schema %s (%v): drop schema %s cascade", s.p.schema, last, s.p.schema))
	}
}

var errTooLong = errors.New("it took too long")

// until asks again and again, until the answer is yes, ctx ends, or limit is over.
func until(ctx context.Context, limit time.Duration, yes func() bool) error {
	end := time.Now().Add(limit)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if yes() {
			return nil
		}
		if time.Now().After(end) {
			return errTooLong
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// sleep ends early with ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
