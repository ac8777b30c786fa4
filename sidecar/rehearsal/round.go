package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// round is one change of the primary. The error says why it did not take place; what came of one that did is in the Round.
func (s *session) round(ctx context.Context, no int) (Round, error) {
	rd := Round{No: no, Verdict: NotRun, ByCommand: s.r.o.Command != "", Why: []string{}, Notes: []string{}, Timelines: []Line{}, Twice: []string{}, Orphans: []string{}}
	lead, err := s.fit(ctx, no)
	if err != nil {
		return rd, err
	}
	first, err := s.position(ctx)
	if err != nil {
		return rd, err
	}
	before, err := s.audit(ctx, first)
	if err != nil {
		return rd, err
	}
	if wrong := problems(before); len(wrong) > 0 {
		return rd, fmt.Errorf("the archive is not in order before it: %s (walbaton verify)", wrong[0])
	}
	c := &change{s: s, rd: &rd, first: first, watch: newWatcher(s.r, s.p.members, first), mark: s.writer.mark(), begin: time.Now()}
	rd.From, rd.OldTimeline = lead.name, first.Timeline
	err = c.watched(ctx, func(ctx context.Context) error { return c.run(ctx, lead) })
	if err == nil {
		err = s.conclude(ctx, c, before)
	}
	if err != nil && ctx.Err() == nil && len(rd.Why) > 0 { // it took place, and ended badly
		c.draw(s.writer.since(c.mark))
		rd.Verdict, rd.Why, err = Failed, append(rd.Why, err.Error()), nil
	}
	return rd, err
}

// problems are what nobody acknowledged.
func problems(a *archiver.Audit) (all []string) {
	for _, p := range a.Problems {
		if p.Acknowledged == nil {
			all = append(all, p.Name+": "+p.Why)
		}
	}
	return all
}

// draw keeps what was seen for the picture.
func (c *change) draw(d written) {
	if c.end.IsZero() {
		c.end = time.Now()
	}
	c.rd.Trace = c.watch.trace(d, c.rd.AskedAt, c.begin, c.end)
}

// fit waits until the cluster is fit for a round, and gives its primary. For the first one it does not wait: it was fit when it was planned, but a person may
// have thought about that for an hour.
func (s *session) fit(ctx context.Context, no int) (member, error) {
	limit := s.r.o.Wait
	if no == 1 {
		limit = 0
	}
	var lead member
	var last error
	err := until(ctx, limit, func() bool {
		f, members, err := s.r.gather(ctx)
		if err == nil {
			if why := refuse(f); len(why) > 0 {
				err = &Refused{why}
			}
		}
		if last = err; err != nil {
			sleep(ctx, min(limit, time.Second))
			return false
		}
		now, _ := f.cluster.Leader()
		lead = members[slices.IndexFunc(members, func(m member) bool { return m.name == now.Name })]
		return true
	})
	if errors.Is(err, errTooLong) {
		err = last
	}
	return lead, err
}

// position is the segment that the next WAL goes to.
func (s *session) position(ctx context.Context) (g wal.Segment, err error) {
	err = s.onPrimary(ctx, func(conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, sqlTime)
		defer cancel()
		var name string
		if err := conn.QueryRow(ctx, "select pg_walfile_name(pg_current_wal_insert_lsn())").Scan(&name); err != nil {
			return fmt.Errorf("ask the primary for its position: %w", err)
		}
		n, err := wal.ParseName(name, s.r.o.Archive.SegmentSize())
		g = n.Segment
		return err
	})
	return g, err
}

// audit looks at the archive from a segment on, at names and histories.
func (s *session) audit(ctx context.Context, from wal.Segment) (*archiver.Audit, error) {
	return s.r.o.Archive.Audit(ctx, archiver.AuditOptions{Names: true, Since: from.Start()})
}

// change is a round while it runs.
type change struct {
	s     *session
	rd    *Round
	first wal.Segment
	last  wal.Segment
	watch *watcher
	mark  mark
	begin time.Time
	wrote time.Time // when the writer ended
	end   time.Time

	promoted time.Time
}

// watched does something while the cluster is watched. It returns when the watcher has ended, too.
func (c *change) watched(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.watch.run(ctx) })
	defer wg.Wait()
	defer stop()
	return do(ctx)
}

// run writes, changes the primary, and waits until all that follows from it is over.
func (c *change) run(ctx context.Context, lead member) error {
	s := c.s
	writing, stop := context.WithCancel(ctx)
	defer stop()
	s.writer.connect = func(ctx context.Context) (*pgx.Conn, error) {
		who, _ := c.watch.now()
		m, ok := c.watch.member(who)
		if !ok {
			return nil, errNoPrimary
		}
		return s.r.connect(ctx, m.host, m.port)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.writer.run(writing) })
	defer wg.Wait()
	defer stop()

	s.say("writing %d rows a second through %s", s.r.o.Rate, lead.name)
	sleep(ctx, s.r.o.Write)
	if err := ctx.Err(); err != nil {
		return err // and say of no switchover that one was asked for
	}
	if d := s.writer.since(c.mark); !d.ackedSince(c.begin) {
		return errors.New("no row was acknowledged before the change: " + lastFailure(d))
	}
	if err := c.swap(ctx, lead); err != nil {
		return err
	}
	since := time.Now()
	c.shipped(ctx)
	sleep(ctx, s.r.o.Write-time.Since(since))
	stop()
	wg.Wait()
	c.wrote = time.Now()
	if err := c.finish(ctx); err != nil {
		return err
	}
	c.settle(ctx)
	c.end = time.Now()
	return ctx.Err()
}

func lastFailure(d written) string {
	if n := len(d.failed); n > 0 {
		return d.failed[n-1].why
	}
	return "nothing answered"
}

// swap takes the primary away, and waits until another one takes writes.
func (c *change) swap(ctx context.Context, lead member) error {
	s := c.s
	asking, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	s.changing = true
	asked := time.Now()
	c.rd.AskedAt = asked.UTC().Truncate(time.Millisecond)
	if s.r.o.Command != "" {
		s.say("running: %s", s.r.o.Command)
		wg.Go(func() { answers <- runCommand(asking, s.r.o.Command, lead) })
	} else {
		s.say("asking Patroni for a switchover from %s", lead.name)
		wg.Go(func() {
			says, err := s.r.o.API.Switchover(asking, lead.rest, lead.name, s.r.o.Candidate)
			answers <- answer{says, err}
		})
	}
	var got answer
	answered, refused := false, false
	err := until(ctx, s.r.o.Wait, func() bool {
		select {
		case got = <-answers:
			answered = true
			if got.says != "" && got.err == nil {
				s.say("it says: %s", got.says)
			}
			refused = got.err != nil && definite(got.err)
		default:
		}
		return refused || c.swapped(lead, asked)
	})
	switch {
	case err == nil && !refused:
		s.changing = false
		if s.r.o.Command != "" && !answered {
			select { // what the user gave runs to its end
			case <-answers:
			case <-ctx.Done():
			case <-time.After(s.r.o.Wait):
			}
		}
		return ctx.Err()
	case refused:
		s.changing = false
		return got.err
	case ctx.Err() != nil:
		return ctx.Err()
	case s.writer.since(c.mark).failedSince(asked).IsZero():
		return errors.Join(fmt.Errorf("nothing happened within %v: the primary %s took writes all the time", s.r.o.Wait, lead.name), got.err)
	}
	// It took place, and there is no primary: that is no state to be silent about.
	c.rd.Why = append(c.rd.Why, fmt.Sprintf("no primary took writes within %v", s.r.o.Wait))
	return nil
}

// answer is what Patroni or the command said.
type answer struct {
	says string
	err  error
}

// definite says that what was asked for will not happen.
func definite(err error) bool {
	var says *restapi.StatusError
	var exit *exec.ExitError
	switch {
	case errors.As(err, &says):
		return !says.Unsure()
	case errors.As(err, &exit):
		return exit.ExitCode() == 126 || exit.ExitCode() == 127 // sh found no such program
	}
	return false
}

// swapped says whether the change is over: rows are acknowledged by a new primary, or, after a command, by the old one again.
func (c *change) swapped(lead member, asked time.Time) bool {
	who, t := c.watch.now()
	d := c.s.writer.since(c.mark)
	if who == "" {
		return false
	}
	if who != lead.name || t > c.first.Timeline {
		at := c.watch.promoted(who, t, asked)
		if at.IsZero() || !d.ackedSince(at) {
			return false
		}
		c.arrived(who, t, at, asked)
		return true
	}
	if at := d.failedSince(asked); c.s.r.o.Command != "" && !at.IsZero() && d.ackedSince(at.Add(2*time.Second)) {
		c.arrived(who, t, at, asked) // Patroni started it again where it was
		return true
	}
	return false
}

func (c *change) arrived(who string, t wal.Timeline, at, asked time.Time) {
	c.promoted = at
	c.rd.To, c.rd.NewTimeline, c.rd.Promoted = who, t, seconds(at.Sub(asked))
	c.s.last = t
	c.s.say("%s is the primary, on timeline %d, %.1f s later", who, t, at.Sub(asked).Seconds())
}

// runCommand runs what the user gave.
func runCommand(ctx context.Context, command string, lead member) answer {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), "WALBATON_DRILL_PRIMARY="+lead.name, "WALBATON_DRILL_HOST="+lead.host, fmt.Sprintf("WALBATON_DRILL_PORT=%d", lead.port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // what it started, too
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	says := strings.Join(strings.Fields(string(out)), " ")
	if err != nil {
		return answer{says, fmt.Errorf("run %q: %w: %s", command, err, says)}
	}
	return answer{says, nil}
}

// shipped waits until a segment from after the change is in the archive.
func (c *change) shipped(ctx context.Context) {
	if c.promoted.IsZero() {
		return
	}
	var t wal.Timeline
	if c.rd.NewTimeline > c.first.Timeline {
		t = c.rd.NewTimeline
	}
	asked := c.rd.AskedAt
	_ = until(ctx, c.s.r.o.Wait, func() bool {
		g, at, ok := c.watch.firstAfter(c.promoted.Add(-time.Second), t)
		if ok {
			c.rd.FirstFile, c.rd.Shipped, c.rd.Holder = g.String(), seconds(at.Sub(asked)), c.watch.holder(at)
			c.s.say("%s is in the archive, %.1f s after the promotion", g, at.Sub(c.promoted).Seconds())
		}
		return ok
	}) // without one the round has failed: judge says so
}

// finish ends the last segment of the round.
func (c *change) finish(ctx context.Context) error {
	var last error
	err := until(ctx, c.s.r.o.Wait, func() bool {
		last = c.s.onPrimary(ctx, func(conn *pgx.Conn) error {
			name, err := endSegment(ctx, conn)
			if err != nil {
				return err
			}
			n, err := wal.ParseName(name, c.s.r.o.Archive.SegmentSize())
			c.last = n.Segment
			return err
		})
		return last == nil
	})
	if errors.Is(err, errTooLong) {
		err = last
	}
	return err
}

// settle waits until the archive has all of the round, and the members follow.
func (c *change) settle(ctx context.Context) {
	asked := c.rd.AskedAt
	_ = until(ctx, c.s.r.o.Wait, func() bool {
		line, err := c.line(ctx)
		return err == nil && !slices.ContainsFunc(needed(line, c.first, c.last), func(n wal.Name) bool { return !c.watch.has(n) })
	}) // what is missing is found out below
	limit := c.s.r.o.Wait
	if c.rd.ByCommand {
		limit = 2 * time.Second // what it did to the old primary is the user's to mend
	}
	err := until(ctx, limit, func() bool { return c.back(ctx) })
	if at := c.watch.since(); err == nil && at.After(asked) {
		c.rd.Back = seconds(at.Sub(asked))
	} else if err == nil {
		c.rd.Back = seconds(time.Since(asked)) // they were never seen apart
	}
}

// back says whether all members follow again, so that there could be another round.
func (c *change) back(ctx context.Context) bool {
	if len(c.watch.lagging(c.last.Timeline)) > 0 {
		return false
	}
	f, _, err := c.s.r.gather(ctx)
	if f.candidate = ""; err != nil || len(refuse(f)) > 0 { // Patroni tells of a new timeline a little later
		sleep(ctx, 300*time.Millisecond)
		return false
	}
	return true
}

// line is the way to the timeline of the last segment, as the archive tells it.
func (c *change) line(ctx context.Context) (wal.History, error) {
	h, _, err := c.s.r.o.Archive.History(ctx, c.last.Timeline)
	if errors.Is(err, fs.ErrNotExist) && c.last.Timeline == c.first.Timeline {
		return wal.History{Timeline: c.last.Timeline}, nil
	}
	return h, err
}

// conclude puts together what a round has shown.
func (s *session) conclude(ctx context.Context, c *change, before *archiver.Audit) error {
	rd := c.rd
	line, err := c.line(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		line, err = wal.History{Timeline: c.last.Timeline, Forks: []wal.Fork{{Timeline: c.first.Timeline, End: c.first.Start()}}}, nil
	}
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	rd.Timelines = lines(needed(line, c.first, c.last), c.watch.has)
	after, err := s.audit(ctx, c.first)
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	for _, p := range problems(after) {
		if name, _, _ := strings.Cut(p, ":"); !strings.Contains(fmt.Sprint(rd.Timelines), name) {
			rd.Why = append(rd.Why, "the archive: "+p)
		}
	}
	for _, o := range after.Orphans {
		if !slices.Contains(before.Orphans, o) {
			rd.Orphans = append(rd.Orphans, o)
		}
	}
	d := s.writer.since(c.mark)
	err = s.onPrimary(ctx, func(conn *pgx.Conn) error {
		rows, twice, err := readRows(ctx, conn, s.p.schema)
		rd.Rows = count(d, c.mark.rows, rows, s.p.schema, twice)
		return err
	})
	if err != nil {
		return err
	}
	from, to := d.gap(rd.AskedAt, c.wrote)
	rd.NoWritesFrom, rd.NoWritesTo = seconds(from.Sub(rd.AskedAt)), seconds(to.Sub(rd.AskedAt))
	rd.Twice = append(rd.Twice, c.watch.twice...)
	c.draw(d)
	rd.judge()
	s.say("round %d: %s", rd.No, rd.Verdict)
	return nil
}
