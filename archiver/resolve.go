package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Order is what an administrator wants decided: about one copy of a file (KeepArchive, Accept), or about
// a member's timeline (Apart).
type Order struct {
	Decision Decision
	Name     wal.Name
	Digest   seal.Digest // of the copy that the administrator was shown; zero: the one that is here now
	Member   string
	Timeline wal.Timeline
	Reason   string
	By       string // the user
}

// Plan is what carrying out an order means.
type Plan struct {
	Resolution Resolution `json:"resolution"`
	Row        string     `json:"row,omitempty"` // that refuses the file now
	Key        string     `json:"key"`           // where the decision is kept
	Archive    Stored     `json:"archive,omitzero"`
	Already    bool       `json:"already"` // it was decided before
}

// ErrNotDisputed means that there is nothing to decide.
var ErrNotDisputed = errors.New("not in dispute")

// ErrTaggedNever means that a tag is to be taken away rather than a damaged copy accepted.
var ErrTaggedNever = errors.New("another live node has a good copy, and its tag walbaton: never keeps it from shipping it; take the tag away for a while")

// maxReason bounds reasons in bytes.
const maxReason = 1000

// Consider says what an order would do, and refuses one that would do nothing or harm. It changes nothing.
func (a *Archiver) Consider(ctx context.Context, o Order) (Plan, error) {
	r := Resolution{Decision: o.Decision, By: printable(o.By), Via: a.o.Member, At: a.o.Now().UTC().Truncate(time.Second), Reason: printable(o.Reason)}
	switch {
	case r.Reason == "":
		return Plan{}, errors.New("a decision needs a reason")
	case len(r.Reason) > maxReason:
		return Plan{}, fmt.Errorf("the reason has %d bytes, and %d are allowed", len(r.Reason), maxReason)
	}
	var p Plan
	var err error
	switch o.Decision {
	case KeepArchive, Accept:
		p, err = a.considerFile(ctx, o, r)
	case Apart:
		p, err = a.considerTimeline(ctx, o, r)
	default:
		err = fmt.Errorf("unknown decision %q", o.Decision)
	}
	if err != nil {
		return Plan{}, err
	}
	p.Key = a.archive.ResolutionKey(p.Resolution)
	return p, nil
}

// Resolve considers the order once more and records the decision. It counts from then on, here at
// once and on other nodes within a minute of their next refused push.
func (a *Archiver) Resolve(ctx context.Context, o Order) (Plan, error) {
	p, err := a.Consider(ctx, o)
	if err != nil || p.Already {
		return p, err
	}
	if err := a.record(ctx, p.Resolution); err != nil {
		a.note(err)
		return p, err
	}
	a.log.Warn("decided by an administrator", "decision", string(p.Resolution.Decision), "file", p.Resolution.Name, "digest", p.Resolution.Digest.String(),
		"member", p.Resolution.Member, "timeline", uint32(p.Resolution.Timeline), "by", p.Resolution.By, "reason", p.Resolution.Reason)
	if o.Decision != Apart {
		a.calm(o.Name)
	}
	return p, a.ReadDecisions(ctx)
}

// considerFile is about one copy: that in pg_wal, else the one set aside.
func (a *Archiver) considerFile(ctx context.Context, o Order, r Resolution) (Plan, error) {
	e, f := a.explain(ctx, o.Name)
	switch {
	case len(e.Here) == 0:
		return Plan{}, fmt.Errorf("this node has no %v: ask on the node whose copy it is about", o.Name)
	case e.Archive.State == "silent":
		return Plan{}, fmt.Errorf("the archive does not answer: %s", e.Archive.Problem)
	}
	c := e.Here[0]
	switch {
	case c.Digest == seal.Digest{}:
		return Plan{}, fmt.Errorf("our copy cannot be read: %s", c.Problem)
	case o.Digest != seal.Digest{} && o.Digest != c.Digest:
		return Plan{}, fmt.Errorf("our copy is another one now (digest %v, and %v was looked at): look again", c.Digest, o.Digest)
	case e.BelowFloor:
		a.calm(o.Name) // nobody may push it any more
		return Plan{}, fmt.Errorf("%w: it is below the floor %s, the archive promises nothing about it", ErrNotDisputed, e.Floor)
	case e.Archive.State == "same":
		a.calm(o.Name)
		return Plan{}, fmt.Errorf("%w: the archive has this very content", ErrNotDisputed)
	case c.Writing:
		return Plan{}, fmt.Errorf("%w: PostgreSQL has not finished it", ErrNotDisputed)
	}
	// Of the row that refuses it, whatever PostgreSQL does and whatever was decided before.
	f.Server, f.Resolved = ServerUnknown, Resolved{}
	if c.Where == "keep_dir" { // no push asks about it; the facts about a copy of pg_wal are not there
		f.Read, f.State = true, wal.Complete
		if !c.Good {
			f.State = wal.Damaged
		}
	}
	v := Judge(f)
	absent := e.Archive.State == "absent"
	good, others := c.Good, a.scope.Last()
	switch {
	case v.Code == 0:
		a.calm(o.Name)
		return Plan{}, fmt.Errorf("%w: a push of it is answered 0 by row %s", ErrNotDisputed, v.Row)
	case o.Decision == Accept && !absent:
		return Plan{}, errors.New("the archive has a file of this name, and nothing in it is ever overwritten")
	case o.Decision == Accept && good:
		return Plan{}, fmt.Errorf("%w: our check finds nothing wrong with it, and it is shipped as soon as that is allowed (row %s: %s)", ErrNotDisputed, v.Row, v.Why)
	case o.Decision == Accept && o.Name.Kind == wal.KindSegment && others.Others.Has(o.Name.Segment):
		return Plan{}, fmt.Errorf("%w: another live node has a good copy and ships that one", ErrNotDisputed)
	case o.Decision == Accept && o.Name.Kind == wal.KindSegment && others.Unshipped.Has(o.Name.Segment):
		return Plan{}, ErrTaggedNever
	case o.Decision == KeepArchive && absent && good:
		return Plan{}, fmt.Errorf("%w: the archive has no %v yet (row %s: %s)", ErrNotDisputed, o.Name, v.Row, v.Why)
	case o.Decision == KeepArchive && absent:
		return Plan{}, fmt.Errorf("the archive has no %v that could be kept", o.Name)
	case !v.disputed() && c.Where == "pg_wal":
		return Plan{}, fmt.Errorf("%w: row %s answers (%s)", ErrNotDisputed, v.Row, v.Why)
	}
	r.Name, r.Digest, r.Found = o.Name.String(), c.Digest, v.Why
	if c.Problem != "" && o.Decision == Accept {
		r.Found = c.Problem
	}
	was := a.decisions.of(copyOf{r.Name, r.Digest})
	return Plan{Resolution: r, Row: v.Row, Archive: e.Archive, Already: o.Decision == Accept && was.Accept || o.Decision == KeepArchive && was.KeepArchive}, nil
}

// considerTimeline is about all that a member has of a timeline: two servers promoted to one number, and the
// archive has the other one's.
func (a *Archiver) considerTimeline(ctx context.Context, o Order, r Resolution) (Plan, error) {
	if o.Member == "" || o.Timeline == 0 || strings.ContainsFunc(o.Member, func(c rune) bool { return c == '/' || !unicode.IsPrint(c) }) {
		return Plan{}, fmt.Errorf("timeline %d of member %q: both must be given, as Patroni names them", o.Timeline, o.Member)
	}
	c, err := a.scope.Read(ctx)
	switch {
	case err != nil:
		return Plan{}, fmt.Errorf("the DCS does not answer, so nobody knows which timeline %d is the cluster's: %w", o.Timeline, err)
	case c.Leader == "" || c.Line.Timeline == 0:
		return Plan{}, fmt.Errorf("the leader is not known just now, so nobody knows which timeline %d is the cluster's", o.Timeline)
	case c.Leader == o.Member && c.Line.Timeline == o.Timeline:
		return Plan{}, fmt.Errorf("%s is Patroni's leader and on timeline %d now: its WAL is the cluster's", o.Member, o.Timeline)
	}
	r.Member, r.Timeline = o.Member, o.Timeline
	if err := a.ReadDecisions(ctx); err != nil {
		return Plan{}, err
	}
	p := Plan{Resolution: r, Already: a.decisions.isApart(incarnation{o.Member, o.Timeline})}
	if o.Member != a.o.Member || p.Already {
		return p, nil
	}
	p.Resolution.Found, err = a.findApart(ctx, c.Line, o.Timeline)
	if err == nil && p.Resolution.Found == "" {
		err = fmt.Errorf("%w: nothing that this node has of timeline %d differs from the archive's or lies off the line", ErrNotDisputed, o.Timeline)
	}
	return p, err
}

// findApart looks for the first file of timeline t here that is not the archive's, and says which.
func (a *Archiver) findApart(ctx context.Context, line wal.History, t wal.Timeline) (string, error) {
	below := a.completeBelow()
	for k := range a.names() {
		n := k.name
		segment := n.Kind == wal.KindSegment
		if n.Segment.Timeline != t || k.sealed || a.belowFloor(n) || !segment && n.Kind != wal.KindHistory || segment && !k.kept && !below(k) {
			continue
		}
		c, readErr := a.folder(n).check(n)
		var ours seal.Digest
		if readErr == nil {
			ours = c.digest
		}
		h, err := a.theirs(ctx, n, ours)
		if errors.Is(err, fs.ErrNotExist) {
			if segment && !line.Holds(n.Segment) {
				return n.String() + " lies off the line", nil
			}
			continue
		}
		if err != nil && !unusable(err) {
			a.note(err)
			return "", err
		}
		if readErr != nil || err == nil && c.digest == h.Digest {
			continue
		}
		if !segment {
			return n.String() + " differs from the archive's", nil
		}
		contrast, err := a.contrast(ctx, n, c)
		if err != nil {
			return "", err
		}
		if contrast != TheirsHolds {
			return n.String() + " differs from the archive's", nil
		}
	}
	return "", nil
}

// printable makes one line of s, of letters that a terminal shows.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
