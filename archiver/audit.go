package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Kinds of problems that an audit finds.
const (
	ProblemHole           = "hole"             // segments are missing inside a timeline
	ProblemForkHole       = "hole-at-fork"     // segments are missing where one timeline leads to the next
	ProblemMissingHistory = "missing-timeline" // no history of a timeline number: recovery stops looking there
	ProblemForeignHistory = "foreign-history"  // a history that others, or the segments, contradict
	ProblemHeader         = "damaged-header"   // the first bytes of an object are none of ours
	ProblemSystemID       = "wrong-system-id"  // an object of another cluster
	ProblemSwapped        = "swapped"          // an object that holds another file
	ProblemDamaged        = "damaged"          // the content is not what was sealed: changed, cut, longer
	ProblemWAL            = "bad-wal"          // the content is what was sealed, and it is no good WAL
)

// maxProblems and maxOrphans bound a report; the counts go on.
const (
	maxProblems = 1000
	maxOrphans  = 1000
)

// AuditOptions say how far an audit goes.
type AuditOptions struct {
	// Deep opens every object: digest, size, every WAL record. Otherwise names, histories and headers
	// are checked, which takes one small request an object.
	Deep bool
	// Line is the timeline whose ancestors are the line; 0 takes the newest that has WAL.
	Line wal.Timeline
	// Workers is how many objects are read at the same time; 0 means 8.
	Workers int
	// Progress is told, from one goroutine at a time, how many objects were looked at, and of how many;
	// 0 while that is not known. nil tells nobody.
	Progress func(done, all int)
}

// Audit is what `verify` found. Names are those of pg_wal, LSNs PostgreSQL's text.
type Audit struct {
	Archive     string          `json:"archive"`
	Scope       string          `json:"scope"`
	SystemID    uint64          `json:"system_identifier,string"`
	SegmentSize wal.SegmentSize `json:"segment_size"` // bytes
	Deep        bool            `json:"deep"`
	NotChecked  string          `json:"not_checked,omitempty"` // what this audit could not see
	Whole       bool            `json:"whole"`                 // no problem was found

	Floors    []Floor         `json:"floors"`
	Line      []wal.Timeline  `json:"line"`     // oldest first
	Frontier  string          `json:"frontier"` // the LSN up to which the line has no hole, from its floor on
	Timelines []AuditTimeline `json:"timelines"`

	Problems     []Problem `json:"problems"`      // the first thousand
	ProblemCount int       `json:"problem_count"` // all of them
	Notes        []string  `json:"notes"`         // worth knowing, and no problem

	Count       AuditCount `json:"count"`
	Orphans     []string   `json:"orphans"` // the first thousand, as member/name-digest
	OrphanBytes int64      `json:"orphan_bytes"`
}

// AuditCount counts objects.
type AuditCount struct {
	Segments  int   `json:"segments"`
	Partials  int   `json:"partials"`
	Histories int   `json:"histories"`
	Backups   int   `json:"backups"`
	Orphans   int   `json:"orphans"`
	Bytes     int64 `json:"bytes"`  // sealed, without orphans
	Opened    int   `json:"opened"` // objects read to their end
	Encrypted int   `json:"encrypted"`
	Locked    int   `json:"locked"` // of these: no identity here opened them, where contents were to be checked
	Missing   int   `json:"missing_segments"`
}

// AuditTimeline is one timeline.
type AuditTimeline struct {
	Timeline wal.Timeline `json:"timeline"`
	Parent   wal.Timeline `json:"parent,omitempty"`
	Fork     string       `json:"fork,omitempty"` // the LSN where it left its parent
	OnLine   bool         `json:"on_line"`
	History  bool         `json:"history"` // its history file is there
	First    string       `json:"first,omitempty"`
	Last     string       `json:"last,omitempty"`
	Begin    string       `json:"begin,omitempty"` // LSN of the first byte, and the one after the last
	End      string       `json:"end,omitempty"`
	Segments int          `json:"segments"`
	Missing  int          `json:"missing_segments"`
	Partials int          `json:"partials"`
	Backups  int          `json:"backups"`
	Bytes    int64        `json:"bytes"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind     string       `json:"kind"`
	Name     string       `json:"name"` // of the file; the first one of a hole
	Timeline wal.Timeline `json:"timeline"`
	From     string       `json:"from,omitempty"` // first and last name of a hole
	To       string       `json:"to,omitempty"`
	Count    uint64       `json:"count,omitempty"` // how many files a hole lacks
	Why      string       `json:"why"`
	Hint     string       `json:"hint,omitempty"` // what can be done
}

// Audit looks for everything that would keep a recovery from going through: holes on each timeline between
// its floor and its end, holes at forks, timeline numbers without a history, histories that contradict one
// another, objects that are not what their name says. Files below a floor are no holes.
//
// The error is about reading the archive; then nothing can be said. Memory grows with the number of
// holes and timelines, not of files.
func (a *Archive) Audit(ctx context.Context, o AuditOptions) (*Audit, error) {
	if o.Workers <= 0 {
		o.Workers = 8
	}
	x := &auditor{a: a, o: o, inv: newInventory(), histories: map[wal.Timeline]wal.History{}, present: map[wal.Timeline]bool{}}
	x.rep = &Audit{
		Archive: a.String(), Scope: a.id.Scope, SystemID: a.id.SystemID, SegmentSize: a.id.SegmentSize, Deep: o.Deep, Floors: a.Floors(),
		Timelines: []AuditTimeline{}, Problems: []Problem{}, Notes: []string{}, Orphans: []string{},
	}
	if !o.Deep {
		x.rep.NotChecked = "contents: a cut or changed object and bad WAL records show only in a deep audit"
	}
	if err := x.readObjects(ctx); err != nil {
		return nil, err
	}
	// Histories after segments: a history is shipped first, so no segment is found without its own.
	if err := x.readHistories(ctx); err != nil {
		return nil, err
	}
	if o.Deep {
		x.expect()
		if err := x.readSegments(ctx); err != nil {
			return nil, err
		}
	}
	if err := x.recheck(ctx); err != nil {
		return nil, err
	}
	if err := x.listOrphans(ctx); err != nil {
		return nil, err
	}
	x.conclude()
	return x.rep, nil
}

// auditor is one audit while it runs.
type auditor struct {
	a         *Archive
	o         AuditOptions
	rep       *Audit
	inv       *inventory
	histories map[wal.Timeline]wal.History // those that are believed
	present   map[wal.Timeline]bool        // history objects, damaged ones too, without other clusters'
	line      wal.History
	orphaned  Set // segments that orphans/ has a copy of

	mu   sync.Mutex
	bad  Set // segments whose object cannot be used
	gone []wal.Name
	done int
	all  int // objects to look at, 0 while the listing goes on
}

// looked counts one object.
func (x *auditor) looked(opened bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done++
	if opened {
		x.rep.Count.Opened++
	}
	if x.o.Progress != nil {
		x.o.Progress(x.done, x.all)
	}
}

// saw counts an object by its header.
func (x *auditor) saw(h seal.Header) {
	if h.Encryption == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rep.Count.Encrypted++
}

// open is Archive.Open for an audit: what no key opens is read to its end as well, so that a cut or changed object is found.
func (x *auditor) open(ctx context.Context, n wal.Name) (seal.Header, io.ReadCloser, error) {
	key := x.a.Key(n)
	h, r, err := x.a.Open(ctx, key)
	x.saw(h)
	if errors.Is(err, seal.ErrNoIdentity) {
		if _, bad := x.a.Check(ctx, key); bad != nil {
			err = bad
		}
	}
	if err != nil && h.Name != "" {
		if bad := checkHeader(h, n, x.a.id.SystemID, x.a.id.SegmentSize); bad != nil {
			err = bad
		}
	}
	return h, r, err
}

// lockedNote says what a deep audit did not see.
func (x *auditor) lockedNote() string {
	n := x.rep.Count.Locked
	if n == 0 {
		return ""
	}
	why := "no identity here opens it"
	if len(x.a.keys) == 0 {
		why = "there is no identity here"
	}
	objects := "one encrypted object"
	if n > 1 {
		objects = fmt.Sprintf("%d encrypted objects", n)
	}
	return fmt.Sprintf("the WAL in %s: %s; that the encrypted bytes are those that were once stored was checked", objects, why)
}

// expect counts what there is to look at, for the progress.
func (x *auditor) expect() {
	var c AuditCount
	x.inv.count(&c)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = c.Segments + c.Partials + c.Backups + x.rep.Count.Histories
}

func (x *auditor) problem(p Problem) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rep.ProblemCount++
	if len(x.rep.Problems) < maxProblems {
		x.rep.Problems = append(x.rep.Problems, p)
	}
}

// fault notes that the object of n cannot be used.
func (x *auditor) fault(kind string, n wal.Name, why string) {
	if n.Kind == wal.KindSegment {
		x.mu.Lock()
		x.bad.Add(n.Segment)
		x.mu.Unlock()
	}
	x.problem(Problem{Kind: kind, Name: n.String(), Timeline: n.Segment.Timeline, Why: why, Hint: faultHint(kind)})
}

func faultHint(kind string) string {
	switch kind {
	case ProblemForeignHistory:
		return "find out which server wrote it; recover with recovery_target_timeline set to the cluster's own timeline"
	case ProblemHole, ProblemForkHole:
		return "look for the files in pg_wal of all nodes (walbaton explain NAME) and in orphans/; if they are lost, take a new base backup"
	case ProblemMissingHistory:
		return "look for the file in pg_wal of all nodes; recovery finds later timelines only when it is named by recovery_target_timeline"
	}
	return "recovery stops here; take a new base backup, and look for a good copy in pg_wal of all nodes and in orphans/"
}

// judgeObject turns an error of reading an object into a problem; other errors are given back.
func (x *auditor) judgeObject(n wal.Name, err error, opened bool) error {
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		x.mu.Lock()
		x.gone = append(x.gone, n) // expire may have been at work: see conclude
		x.mu.Unlock()
	case errors.Is(err, errOtherSystem):
		x.fault(ProblemSystemID, n, reason(err))
	case errors.Is(err, errOtherFile):
		x.fault(ProblemSwapped, n, reason(err))
	case errors.Is(err, errOtherSize):
		x.fault(ProblemDamaged, n, reason(err))
	case errors.Is(err, errBadWAL):
		x.fault(ProblemWAL, n, reason(err))
	case errors.Is(err, errNoHistory):
		x.fault(ProblemForeignHistory, n, reason(err))
	case damaged(err) && !opened:
		x.fault(ProblemHeader, n, reason(err))
	case damaged(err):
		x.fault(ProblemDamaged, n, reason(err))
	case errors.Is(err, seal.ErrEncrypted):
		x.mu.Lock()
		x.rep.Count.Locked++
		x.mu.Unlock()
	default:
		return fmt.Errorf("verify %s: %w", n, err)
	}
	return nil
}

// readObjects lists everything below wal/ once, and looks at each header; or in a deep audit at backup labels as a whole.
func (x *auditor) readObjects(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(x.o.Workers)
	for o, err := range x.a.All(gctx) {
		if err != nil {
			// A worker's error ends the listing too, and says more.
			return cmp.Or(g.Wait(), err)
		}
		x.inv.add(o)
		if x.o.Deep && o.Name.Kind != wal.KindBackup {
			continue // readSegments opens it, when the histories are known
		}
		g.Go(func() error {
			if x.o.Deep {
				return x.openLabel(gctx, o.Name)
			}
			h, err := x.a.Header(gctx, x.a.Key(o.Name))
			if err == nil {
				x.saw(h)
				err = checkHeader(h, o.Name, x.a.id.SystemID, x.a.id.SegmentSize)
			}
			x.looked(false)
			return x.judgeObject(o.Name, err, false)
		})
	}
	return g.Wait()
}

// readHistories reads all histories, and drops those that cannot be believed.
func (x *auditor) readHistories(ctx context.Context) error {
	for o, err := range x.a.Histories(ctx) {
		if err != nil {
			return err
		}
		t := o.Name.Segment.Timeline
		x.rep.Count.Histories++
		x.rep.Count.Bytes += o.Size
		h, _, err := x.a.checkedHistory(ctx, t)
		x.looked(true)
		if !errors.Is(err, errOtherSystem) && !errors.Is(err, fs.ErrNotExist) {
			x.present[t] = true
		}
		if err == nil {
			x.histories[t] = h
			continue
		}
		if err := x.judgeObject(o.Name, err, true); err != nil {
			return err
		}
	}
	x.dropForeign()
	return nil
}

func (x *auditor) listOrphans(ctx context.Context) error {
	prefix := x.a.root + "/orphans/"
	for info, err := range x.a.store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("look for orphans: %w", err)
		}
		x.rep.Count.Orphans++
		x.rep.OrphanBytes += info.Size
		name, _, _ := strings.Cut(path.Base(info.Key), "-")
		if n, err := wal.ParseName(name, x.a.id.SegmentSize); err == nil && n.Kind == wal.KindSegment {
			x.orphaned.Add(n.Segment)
		}
		if len(x.rep.Orphans) < maxOrphans {
			x.rep.Orphans = append(x.rep.Orphans, info.Key[len(prefix):])
		}
	}
	return nil
}

// recheck lists again where something is missing: files were shipped while the first listing ran, and
// expire may have raised a floor.
func (x *auditor) recheck(ctx context.Context) error {
	x.line = x.chooseLine()
	holes := x.holes()
	if len(holes) == 0 && len(x.gone) == 0 {
		return nil
	}
	if err := x.a.ReadFloors(ctx); err != nil {
		return err
	}
	x.rep.Floors = x.a.Floors()
	for _, h := range holes {
		for o, err := range x.a.List(ctx, h.Timeline, h.First) {
			if err != nil {
				return err
			}
			if o.Name.Segment.No > h.Last {
				break
			}
			if o.Name.Kind == wal.KindSegment && !x.inv.segments.Has(o.Name.Segment) {
				x.inv.add(o)
			}
		}
	}
	for _, n := range x.gone {
		if !x.a.BelowFloor(n) {
			x.fault(ProblemDamaged, n, "it was listed, and then it was not there")
		}
	}
	return nil
}

// reason is the last part of an error, without the way to the object.
func reason(err error) string {
	var w *wrongObject
	if errors.As(err, &w) {
		return w.why
	}
	for _, kind := range []error{seal.ErrDamaged, seal.ErrFormat} {
		if errors.Is(err, kind) {
			return afterLast(err.Error(), kind.Error())
		}
	}
	return err.Error()
}

func (x *auditor) conclude() {
	x.rep.NotChecked = cmp.Or(x.rep.NotChecked, x.lockedNote())
	x.line = x.chooseLine()
	for _, h := range x.line.Forks {
		x.rep.Line = append(x.rep.Line, h.Timeline)
	}
	x.rep.Line = append(x.rep.Line, x.line.Timeline)
	missing := map[wal.Timeline]int{}
	for _, h := range x.holes() {
		n := h.Last - h.First + 1
		missing[h.Timeline] += int(n)
		x.rep.Count.Missing += int(n)
		x.problem(x.describeHole(h))
	}
	x.missingHistories()
	x.noteIdleHistories()
	x.rep.Frontier = x.frontier().String()
	for _, t := range x.timelines() {
		x.rep.Timelines = append(x.rep.Timelines, x.describe(t, missing[t]))
	}
	x.inv.count(&x.rep.Count)
	slices.SortStableFunc(x.rep.Problems, func(p, q Problem) int {
		return cmp.Or(cmp.Compare(p.Timeline, q.Timeline), cmp.Compare(p.Name, q.Name), cmp.Compare(p.Kind, q.Kind))
	})
	if n := x.rep.ProblemCount - len(x.rep.Problems); n > 0 {
		x.rep.Notes = append(x.rep.Notes, strconv.Itoa(n)+" more problems are not listed")
	}
	x.rep.Whole = x.rep.ProblemCount == 0
}
