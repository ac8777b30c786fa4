package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// promotionLag is how long the leader's record and Patroni's member key may be behind a promotion: the
// key is written once in Patroni's loop_wait, which is 10 s by default.
const promotionLag = 15 * time.Second

// errBusy means that somebody else works on the file just now, and rings when that is done.
var errBusy = errors.New("the file is being worked on")

// Reply is the answer to one archive_command.
type Reply struct {
	Code int    // 0: stored, or nothing is left to store. 1: not yet, keep the file
	Row  string // of DESIGN section 7, for people and metrics
	Why  string // one clause, empty when Code is 0
}

// Line is what PostgreSQL's log shows of r, for the file of that name: what happened, why, and what to type next. It is empty when Code is 0.
func (r Reply) Line(file string) string {
	next := "walbaton explain " + file
	switch {
	case r.Code == 0:
		return ""
	case r.Row == "7", r.Row == "13":
		next = "walbaton status" // the file is not what is wrong
	}
	return fmt.Sprintf("%s not archived: %s (row %s; %s says more)", file, r.Why, r.Row, next)
}

// missed is the reply for a file of pg_wal that cannot be read.
func missed(err error) Reply {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, queue.ErrReplaced) {
		return Reply{1, "13", "pg_wal has no such file"}
	}
	return Reply{1, "13", err.Error()}
}

// Push answers `walbaton-wal push` for one file of pg_wal. It waits at most Limits.PushWait, and
// returns 1 when ctx ends. Nothing but the file asked about decides the answer.
func (a *Archiver) Push(ctx context.Context, n wal.Name) Reply {
	call := a.NewCall(n)
	for {
		woken := a.bell.wait()
		r, done := a.step(ctx, call)
		if done {
			a.m.answer(r, a.o.Now().Sub(call.began))
			return r
		}
		select {
		case <-woken:
		case <-time.After(500 * time.Millisecond): // PostgreSQL may begin to stop; limits run out
		case <-ctx.Done():
			return Reply{Code: 1, Row: "13", Why: "the caller went away"}
		}
	}
}

// step is Call.Step, but for requests to a store that hangs: they may take minutes. Nobody is held up by them for longer than push_wait, and
// PostgreSQL that stops not for longer than row 10 says.
func (a *Archiver) step(ctx context.Context, call *Call) (Reply, bool) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		for sleep(ctx, 200*time.Millisecond) {
			f := Facts{Server: a.server().State, Limits: a.o.Limits, Waited: a.o.Now().Sub(call.began)}
			if f.Server == ServerStopping {
				a.observe(f.Server)
				f.StoreIdle, _ = a.patience()
			}
			if stopsInVain(f) || f.Waited >= f.Limits.PushWait {
				cancel()
			}
		}
	})
	return call.Step(ctx)
}

// Call is one push that is being answered, step by step.
type Call struct {
	a        *Archiver
	n        wal.Name
	began    time.Time
	looked   time.Time // the last direct look at the archive
	fresh    time.Time // the last read of the leader
	cluster  Cluster   // from that read
	isFresh  bool
	found    Presence // what that look found
	contrast Contrast
	silent   error // why the archive could not be asked; nil when it answered, or was not asked
	explain  bool  // nobody waits for the answer: everything is looked at, and nothing is counted
}

// NewCall begins to answer a push of n.
func (a *Archiver) NewCall(n wal.Name) *Call {
	return &Call{a: a, n: n, began: a.o.Now()}
}

// Step gathers the facts once, judges them, and acts. done says that the reply is final.
func (c *Call) Step(ctx context.Context) (r Reply, done bool) {
	a := c.a
	id, err := a.local.touch(c.n)
	if err != nil {
		return missed(err), true
	}
	read, sealed := a.local.recall(c.n, id)
	f := Facts{Name: c.n, Server: a.server().State, Waited: a.o.Now().Sub(c.began), Limits: a.o.Limits}
	f.BelowFloor = a.belowFloor(c.n)
	if sealed {
		f.Archive = Same
	}
	if !f.BelowFloor && !sealed {
		if read, err = c.gather(ctx, &f); err != nil {
			return missed(err), !errors.Is(err, errRecycled)
		}
	}
	v := Judge(f)
	if v.disputed() && read != nil && a.decisions.due(a.o.Now()) && a.ReadDecisions(ctx) == nil {
		f.Resolved = a.decided(c.n, read.digest)
		v = Judge(f)
	}
	if v.Code != 0 && f.Archive == Absent && a.floorsRaised(ctx) {
		f.BelowFloor = a.belowFloor(c.n)
		v = Judge(f)
	}
	if stopsInVain(f) && (v.Row == "10" || v.Row == "8") && a.o.Read != nil && a.o.Read(ctx).State != ServerStopping {
		// It has stopped since the last reading, and this may be Patroni, which asks once and then lets pg_rewind delete the file: row 7.
		return Reply{Code: v.Code, Row: v.Row, Why: v.Why}, false
	}
	return c.act(ctx, v, f, read)
}

// floorsRaised reads the floors, if that was not done for rereadAfter, and says whether there are others: what expire
// deleted from the archive is waited for by nobody.
func (a *Archiver) floorsRaised(ctx context.Context) bool {
	now := a.o.Now()
	a.mu.Lock()
	due := now.Sub(a.floorsRead) >= rereadAfter
	if due {
		a.floorsRead = now
	}
	a.mu.Unlock()
	if !due {
		return false
	}
	had := a.floors()
	if err := a.readFloors(ctx); err != nil {
		a.note(err)
		return false
	}
	return !slices.EqualFunc(had, a.floors(), Floor.same)
}

// gather finds the facts that cost something, the cheapest first and none that no row needs.
func (c *Call) gather(ctx context.Context, f *Facts) (*content, error) {
	a := c.a
	last := a.scope.Last()
	f.Ours = a.Term() != 0
	f.Place = last.PlaceOf(c.n.Segment)
	if !c.explain {
		a.observe(f.Server)
	}
	f.StoreIdle, f.Stopped = a.patience()
	// Of several archives one may have another file of this name, and the others none.
	failed, _ := a.whyNot(c.n)
	shipped := a.cover.has(c.n) || errors.Is(failed, errDiffers) || c.n.Kind == wal.KindSegment && c.n.Segment.No < last.Marks[c.n.Segment.Timeline]
	shipping := f.Ours && f.Place == OnLine && !shipped
	apart := c.n.Kind == wal.KindSegment && a.writesApart(c.n.Segment.Timeline)
	look := apart || shipped || !shipping && c.n.Kind != wal.KindSegment || f.Place == OnBranch || !shipping && f.Waited > lookAfter || f.Server == ServerStopped || c.explain
	if !look {
		// The holder is to ship it, here or elsewhere: reading the file is part of that.
		f.Permit = shipping
		if shipping {
			f.Permit = mayPut(a.request(c.n, last)).ok
		}
		if why, ok := a.whyNot(c.n); ok {
			f.Permit = f.Permit && !errors.Is(why, errNotOurs)
			if errors.Is(why, errBadCopy) {
				return c.readCopy(f)
			}
		}
		if !shipping {
			return c.readCopy(f)
		}
		return nil, nil
	}
	read, err := c.readCopy(f)
	if err != nil {
		return nil, err
	}
	f.Permit = mayPut(a.request(c.n, last)).ok
	if err := c.ask(ctx, f, read, shipped); err != nil {
		if !errors.Is(err, errBusy) {
			c.silent = err
			if errors.Is(err, context.Canceled) {
				c.silent = errors.New("it does not answer in time")
			}
		}
		return read, nil // the store is silent: rows 2 to 6 do not fit
	}
	c.silent = nil
	apart = apart && f.Archive == Absent
	if apart || f.Place == OnBranch || f.Archive == Different {
		c.freshen(ctx, f)
	}
	if apart && f.Fresh && !c.cluster.leadsOn(c.n.Segment.Timeline) {
		// The archive is to get a file of this name from the leader, and ours is not that one.
		f.Place, f.Fork = OnBranch, 0
	}
	f.Permit = mayPut(a.request(c.n, last)).ok // what was found may have vouched for it
	return read, nil
}

// readCopy reads our copy, or remembers it.
func (c *Call) readCopy(f *Facts) (*content, error) {
	read, err := c.a.local.check(c.n)
	if err != nil {
		return nil, err
	}
	f.Read, f.State, f.End = true, read.state, read.end
	f.Resolved = c.a.decided(c.n, read.digest)
	return read, nil
}

// ask looks into the archive, at most once in five seconds unless somebody said it is there.
func (c *Call) ask(ctx context.Context, f *Facts, read *content, shipped bool) error {
	a := c.a
	now := a.o.Now()
	if recent := !c.looked.IsZero() && now.Sub(c.looked) < lookAfter; recent && (c.found == Different || c.found == Absent && !shipped) {
		f.Archive, f.Contrast = c.found, c.contrast
		return nil
	}
	if !c.explain {
		if !a.claim(c.n) {
			return errBusy
		}
		defer a.unclaim(c.n)
	}
	c.looked, c.found, c.contrast = now, NotAsked, NotCompared
	same, err := a.compare(ctx, a.local, c.n, read)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.found = Absent
	case err != nil:
		return err
	case same:
		c.found = Same
	default:
		if c.n.Kind == wal.KindSegment {
			if c.contrast, err = a.contrast(ctx, c.n, read); err != nil {
				return err
			}
			if why := a.notEverywhere(ctx, c.n, read); why != "" && c.contrast == TheirsHolds {
				return fmt.Errorf("%w: %s", errOneLacks, why) // one has better than ours, and that is to be in all of them
			}
			if c.contrast == BothWhole {
				a.parts(c.n, difference{read.digest, true})
			}
		}
		c.found = Different
	}
	f.Archive, f.Contrast = c.found, c.contrast
	return nil
}

// act does what the verdict says.
func (c *Call) act(ctx context.Context, v Verdict, f Facts, read *content) (Reply, bool) {
	a := c.a
	r := Reply{v.Code, v.Row, c.reason(v, read)}
	if v.Alarm || v.Row == "8" && !c.explain && a.stalled(c.n) {
		a.alarm(v.Row, c.n, v.Why)
	}
	if v.Code == 0 {
		a.calm(c.n)
	}
	switch v.Act {
	case Answer:
		return r, true
	case Put:
		if err := a.Ship(ctx, c.n); err != nil {
			r.Why = v.Why + ": " + err.Error()
		}
		return r, f.Waited >= a.o.Limits.PushWait
	case Orphan:
		if err := a.orphan(ctx, a.folder(c.n), c.n); err != nil {
			return Reply{1, v.Row, "no copy could be kept in orphans/: " + err.Error()}, true
		}
		return r, true
	case Keep:
		if err := a.setAside(ctx, c.n, read); err != nil {
			r.Why += "; it could not be set aside: " + err.Error()
		}
		return r, true
	}
	return r, false
}

// reason is the verdict's, and what is known beside it of why the file is not stored.
func (c *Call) reason(v Verdict, read *content) string {
	failed, ok := c.a.whyNot(c.n)
	switch {
	case v.Code == 0:
		return ""
	case v.Row == "9" && read != nil && read.why != "":
		return v.Why + ": " + read.why
	case v.Alarm, v.Row == "8":
		return v.Why
	case ok:
		return v.Why + ": " + Reason(c.a.archive.store, failed)
	case c.silent != nil:
		return v.Why + ": " + Reason(c.a.archive.store, c.silent)
	}
	return v.Why
}
