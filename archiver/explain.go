package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Explanation is all that this node can find out about one file, and what a push of it would be
// told now. Asking changes nothing.
type Explanation struct {
	Name     string       `json:"name"`
	Kind     string       `json:"kind"`
	Timeline wal.Timeline `json:"timeline"`
	Begin    string       `json:"begin_lsn,omitempty"` // of segments
	End      string       `json:"end_lsn,omitempty"`

	Here      []Copy       `json:"here"` // pg_wal, keep_dir
	Archive   Stored       `json:"archive"`
	Archives  []InArchive  `json:"archives,omitempty"` // each of several; Archive is what they are together
	Orphans   []Stored     `json:"orphans"`
	Decisions []Resolution `json:"decisions"` // about this file, or about its timeline

	BelowFloor bool         `json:"below_floor"`
	Floor      string       `json:"floor_lsn,omitempty"` // the one it is below, else the first
	Place      string       `json:"place"`               // on the line, on a branch, unknown
	Line       wal.Timeline `json:"line_timeline,omitempty"`
	Fork       string       `json:"fork_lsn,omitempty"` // where the line left the file's timeline

	MayShip bool   `json:"may_ship"` // this node, now
	WhyNot  string `json:"why_not,omitempty"`
	Failed  string `json:"failed,omitempty"` // why it was not shipped when it was tried last

	Push Told `json:"push"`
}

// Told is what a push would be told.
type Told struct {
	Row      string `json:"row"` // of DESIGN section 7
	Act      Act    `json:"act"`
	Code     int    `json:"code"`
	Why      string `json:"why,omitempty"`
	Disputed bool   `json:"disputed"` // an administrator's decision could change it
}

// Copy is a file on this node.
type Copy struct {
	Where   string      `json:"where"`            // pg_wal, keep_dir
	Status  string      `json:"status,omitempty"` // none, ready, done
	Size    int64       `json:"size"`             // bytes
	Digest  seal.Digest `json:"digest,omitzero"`
	State   string      `json:"state,omitempty"`           // what the check found: complete, cut, ...
	Good    bool        `json:"good"`                      // may be stored under its name
	Records string      `json:"records_end_lsn,omitempty"` // where its good records end
	Writing bool        `json:"writing"`                   // PostgreSQL has not finished it
	Problem string      `json:"problem,omitempty"`         // why it is not good, or cannot be read
}

// Stored is an object in the archive.
type Stored struct {
	State   string      `json:"state,omitempty"` // of the file's own object: same, different, damaged, absent, present (nothing here to compare it with), silent
	Key     string      `json:"key"`
	Size    int64       `json:"size,omitempty"` // plain bytes
	Digest  seal.Digest `json:"digest,omitzero"`
	Member  string      `json:"member,omitempty"` // who put it
	Term    uint64      `json:"term,omitempty"`
	Problem string      `json:"problem,omitempty"`
}

// InArchive is what one of several archives has of a file.
type InArchive struct {
	Name     string `json:"name"`
	Required bool   `json:"required"`
	State    string `json:"state"` // has, absent, not promised (it began later), damaged, silent
	Problem  string `json:"problem,omitempty"`
}

// explainEach asks each of several archives.
func (a *Archiver) explainEach(ctx context.Context, e *Explanation, n wal.Name) {
	for _, t := range a.targets {
		a.mu.Lock()
		reached, why := t.archive != nil && !t.failing, t.why
		a.mu.Unlock()
		in := InArchive{Name: t.Name, Required: t.Required, State: "silent", Problem: why}
		if reached {
			_, err := t.archive.Header(ctx, t.archive.Key(n))
			a.noteOf(t, err)
			switch {
			case err == nil:
				in.State, in.Problem = "has", ""
			case errors.Is(err, fs.ErrNotExist) && a.belowFloorOf(t, n):
				in.State, in.Problem = "not promised", "it begins at "+t.archive.Identity().Floor.LSN.String()
			case errors.Is(err, fs.ErrNotExist):
				in.State, in.Problem = "absent", ""
			case damaged(err):
				in.State, in.Problem = "damaged", err.Error()
			default:
				in.Problem = err.Error()
			}
		}
		e.Archives = append(e.Archives, in)
	}
}

// String is the word that people and JSON read.
func (p Place) String() string {
	return [...]string{"unknown", "on the line", "on a branch"}[p]
}

// MarshalText writes the word for it.
func (a Act) MarshalText() ([]byte, error) {
	return []byte([...]string{"wait", "answer", "put", "orphan", "keep"}[a]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (a *Act) UnmarshalText(b []byte) error {
	for *a = Wait; *a <= Keep; *a++ {
		if word, _ := a.MarshalText(); string(word) == string(b) {
			return nil
		}
	}
	return fmt.Errorf("read act %q: unknown", b)
}

// Explain finds out all about n. It asks the archive and the DCS, and reads the file where it is. What it
// cannot find out before ctx ends is left out: Archive.State is "silent" then.
func (a *Archiver) Explain(ctx context.Context, n wal.Name) Explanation {
	e, _ := a.explain(ctx, n)
	return e
}

// explain gives the facts too, that the answer was judged by.
func (a *Archiver) explain(ctx context.Context, n wal.Name) (Explanation, Facts) {
	e := Explanation{Name: n.String(), Kind: n.Kind.String(), Timeline: n.Segment.Timeline, Here: []Copy{}, Orphans: []Stored{}, Decisions: []Resolution{}}
	if n.Kind != wal.KindHistory {
		e.Begin, e.End = n.Segment.Start().String(), n.Segment.End().String()
	}
	if why, ok := a.whyNot(n); ok {
		e.Failed = why.Error()
	}
	e.Floor, e.BelowFloor = a.archive.Identity().Floor.LSN.String(), a.belowFloor(n)
	for _, fl := range a.archive.Floors() {
		if e.BelowFloor && fl.Covers(n.Segment) {
			e.Floor = fl.LSN.String()
		}
	}
	a.explainHere(ctx, &e, n)
	if err := a.explainBeside(ctx, &e); err != nil {
		a.note(err)
	}
	f := a.explainAnswer(ctx, &e, n)
	a.explainArchive(ctx, &e, n, f)
	return e, f
}

// explainBeside lists what the archive has beside its WAL.
func (a *Archiver) explainBeside(ctx context.Context, e *Explanation) error {
	ctx, cancel := context.WithTimeout(ctx, lookAfter) // a silent archive leaves time for the rest
	defer cancel()
	if err := a.ReadDecisions(ctx); err != nil {
		return err
	}
	return errors.Join(a.explainOrphans(ctx, e), a.explainDecisions(ctx, e))
}

func (a *Archiver) explainHere(ctx context.Context, e *Explanation, n wal.Name) {
	below := a.completeBelow()
	places := []*local{a.local, a.keep}
	for i, where := range []string{"pg_wal", "keep_dir"} {
		l := places[i]
		if l == nil {
			continue
		}
		id, err := l.q.Ident(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		c := Copy{Where: where, Size: id.Size}
		read, err := l.check(n)
		if err == nil {
			read, err = a.prove(ctx, l, n, read)
		}
		if err != nil {
			c.Problem = err.Error()
		} else {
			c.Digest, c.State, c.Good, c.Problem = read.digest, read.state.String(), read.good, read.why
			if n.Kind == wal.KindSegment || n.Kind == wal.KindPartial {
				c.Records = read.end.String()
			}
		}
		if l == a.local {
			k := known{name: n, status: l.status(n)}
			c.Status, c.Writing = k.status.String(), n.Kind == wal.KindSegment && !below(k)
		}
		e.Here = append(e.Here, c)
	}
}

// status looks at archive_status itself: the last scan may be older than the file.
func (l *local) status(n wal.Name) queue.Status {
	if err := l.scan(); err != nil {
		return queue.None
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, _ := l.found.Find(n)
	return f.Status
}

// explainAnswer goes the way of a push, and stops before it acts. What a push finds only after it waited for a
// while, a promotion that is not in the leader's record yet, is found at once.
func (a *Archiver) explainAnswer(ctx context.Context, e *Explanation, n wal.Name) Facts {
	call := a.NewCall(n)
	call.explain = true
	f := Facts{Name: n, Server: a.server().State, BelowFloor: e.BelowFloor, Limits: a.o.Limits, Waited: promotionLag}
	_, err := call.gather(ctx, &f)
	f.Waited = 0
	last := a.scope.Last()
	if !f.Fresh {
		f.Place = last.PlaceOf(n.Segment)
	}
	if n.Kind == wal.KindHistory {
		f.Place = placeOfTimeline(a.line(last), n.Segment.Timeline)
	}
	e.Place, e.Line = f.Place.String(), a.line(last).Timeline
	if end, ok := a.line(last).End(n.Segment.Timeline); ok && end != wal.MaxLSN {
		e.Fork = end.String()
	}
	p := mayPut(a.request(n, last))
	e.MayShip, e.WhyNot = p.ok, p.why
	if err != nil {
		e.Push = Told{Row: "13", Act: Answer, Code: 1, Why: err.Error()}
		if errors.Is(err, fs.ErrNotExist) {
			e.Push.Why = "pg_wal has no such file"
		}
		return f
	}
	v := Judge(f)
	e.Push = Told{v.Row, v.Act, v.Code, v.Why, v.disputed() && !e.writing()}
	return f
}

// writing says that there is nothing to ask about yet.
func (e *Explanation) writing() bool { return len(e.Here) > 0 && e.Here[0].Writing }

// placeOfTimeline says whether a timeline is one of the line's: the place of a history.
func placeOfTimeline(line wal.History, t wal.Timeline) Place {
	if line.Timeline == 0 {
		return PlaceUnknown
	}
	if _, ok := line.End(t); ok {
		return OnLine
	}
	return OnBranch
}

// explainArchive reads the object's header, and says how its content compares with ours.
func (a *Archiver) explainArchive(ctx context.Context, e *Explanation, n wal.Name, f Facts) {
	e.Archive.Key = a.archive.Key(n)
	a.explainEach(ctx, e, n)
	h, err := a.theirs(ctx, n, ours(e))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Archive.State = "absent"
		return
	case damaged(err):
		e.Archive.State, e.Archive.Problem = "damaged", err.Error()
		return
	case err != nil:
		a.note(err)
		e.Archive.State, e.Archive.Problem = "silent", err.Error()
		return
	}
	e.Archive.Size, e.Archive.Digest, e.Archive.Member, e.Archive.Term = h.Size, h.Digest, h.Member, h.Term
	switch {
	case f.Archive == Same, len(e.Here) > 0 && e.Here[0].Digest == h.Digest:
		e.Archive.State = "same"
	case f.Contrast == TheirsDamaged:
		e.Archive.State, e.Archive.Problem = "damaged", "its content is not good WAL of this name"
	case len(e.Here) > 0:
		e.Archive.State = "different"
	default:
		e.Archive.State = "present"
	}
}

// ours is the digest of our copy, if there is one.
func ours(e *Explanation) (d seal.Digest) {
	if len(e.Here) > 0 {
		d = e.Here[0].Digest
	}
	return d
}

func (a *Archiver) explainOrphans(ctx context.Context, e *Explanation) error {
	keys, err := a.keys(ctx, "/orphans/")
	if err != nil {
		return fmt.Errorf("look for orphans: %w", err)
	}
	for _, key := range keys {
		name, hex, _ := strings.Cut(path.Base(key), "-")
		o := Stored{Key: key, Member: path.Base(path.Dir(key))}
		if name == e.Name && o.Digest.UnmarshalText([]byte(hex)) == nil {
			e.Orphans = append(e.Orphans, o)
		}
	}
	return nil
}

func (a *Archiver) explainDecisions(ctx context.Context, e *Explanation) error {
	list, err := a.resolutions(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Name != e.Name && !(r.Decision == Apart && r.Timeline == e.Timeline) {
			continue
		}
		got, err := a.resolution(ctx, r)
		if err != nil {
			got.Reason = err.Error()
		}
		e.Decisions = append(e.Decisions, got)
	}
	return nil
}
