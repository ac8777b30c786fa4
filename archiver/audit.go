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

// AuditOptions say how far an audit goes.
type AuditOptions struct {
	// Deep opens every object: digest, size, every WAL record. Otherwise names, histories and headers
	// are checked, which takes one small request an object.
	Deep bool
	// Names leaves out the headers: holes and histories alone, one request a thousand objects and one a history.
	Names bool
	// Since is where the part of the WAL begins that is looked at, on every timeline; 0 looks at all. Histories are always read.
	Since wal.LSN
	// Line is the timeline whose ancestors are the line; 0 takes the newest that has WAL.
	Line wal.Timeline
	// History is the line where the caller knows it better than the archive: the leader's own. It goes before Line.
	History wal.History
	// Windows asks for what can be restored, too: some more headers.
	Windows bool
	// Workers is how many objects are read at the same time; 0 means 8.
	Workers int
	// Progress is told, from one goroutine at a time, how many objects were looked at, and of how many;
	// 0 while that is not known. nil tells nobody.
	Progress func(done, all int)
	// Memory is what an earlier deep audit that was interrupted found to be good; nil begins from the start.
	Memory AuditMemory
}

// Audit looks for everything that would keep a recovery from going through: holes on each timeline between
// its floor and its end, holes at forks, timeline numbers without a history, histories that contradict one
// another, objects that are not what their name says. Files below a floor are no holes.
//
// The error is about reading the archive; then nothing can be said. Memory grows with the number of
// holes and timelines, not of files.
func (a *Archive) Audit(ctx context.Context, o AuditOptions) (*Audit, error) {
	x, err := a.survey(ctx, o)
	if err != nil {
		return nil, err
	}
	x.conclude()
	if o.Windows {
		x.rep.Windows, err = x.windows(ctx)
	}
	return x.rep, err
}

// survey reads all that an audit looks at.
func (a *Archive) survey(ctx context.Context, o AuditOptions) (*auditor, error) {
	if o.Workers <= 0 {
		o.Workers = 8
	}
	x := &auditor{a: a, o: o, inv: newInventory(), histories: map[wal.Timeline]wal.History{}, present: map[wal.Timeline]bool{}}
	x.acks.size = a.id.SegmentSize
	if o.Memory != nil {
		x.prints = fingerprints{}
	}
	x.rep = &Audit{
		Archive: a.String(), Scope: a.id.Scope, SystemID: a.id.SystemID, SegmentSize: a.id.SegmentSize, Deep: o.Deep, Floors: a.Floors(),
		Timelines: []AuditTimeline{}, Problems: []Problem{}, Notes: []string{}, Orphans: []string{},
	}
	switch {
	case o.Deep:
	case o.Names:
		x.rep.NotChecked = "headers and contents: only names and histories were looked at"
	default:
		x.rep.NotChecked = "contents: a cut or changed object and bad WAL records show only in a deep audit"
	}
	if o.Since > 0 {
		x.rep.Since = o.Since.String()
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
	return x, x.listOrphans(ctx)
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
	prints    fingerprints // of what a deep audit opens
	acks      acknowledged
	orphaned  Set // segments that orphans/ has a copy of

	mu        sync.Mutex
	bad       Set // segments whose object cannot be used
	encrypted Set // segments that are
	gone      []wal.Name
	done      int
	all       int // objects to look at, 0 while the listing goes on
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

// saw counts the object of n by its header, once: a chain reads the segment before it, too.
func (x *auditor) saw(n wal.Name, h seal.Header) {
	if h.Encryption == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if n.Kind == wal.KindSegment {
		if x.encrypted.Has(n.Segment) {
			return
		}
		x.encrypted.Add(n.Segment)
	}
	x.rep.Count.Encrypted++
}

// open is Archive.Open for an audit: what no key opens is read to its end as well, so that a cut or changed object is found.
func (x *auditor) open(ctx context.Context, n wal.Name) (seal.Header, io.ReadCloser, error) {
	key := x.a.Key(n)
	h, r, err := x.a.Open(ctx, key)
	x.saw(n, h)
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
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = x.done // labels and histories
	for _, p := range x.inv.segments.Spans() {
		x.all += int(x.after(p))
	}
	for _, p := range x.inv.partials.Spans() {
		x.all += int(x.after(p))
	}
}

func (x *auditor) problem(p Problem) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rep.ProblemCount++
	if p.Acknowledged != nil {
		x.rep.Acknowledged++
	}
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
		switch {
		case x.before(o.Name), x.o.Names:
			continue
		case x.o.Deep && o.Name.Kind != wal.KindBackup:
			x.prints.add(o)
			continue // readSegments opens it, when the histories are known
		}
		g.Go(func() error {
			if x.o.Deep {
				return x.openLabel(gctx, o.Name)
			}
			h, err := x.a.Header(gctx, x.a.Key(o.Name))
			if err == nil {
				x.saw(o.Name, h)
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
	if len(holes)+len(x.gone) == 0 && !x.lacksHistory() {
		return nil
	}
	acks, err := x.a.Acknowledgments(ctx)
	if err != nil {
		return err
	}
	x.acks.list = acks
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

// before says whether n ends before the part that is looked at.
func (x *auditor) before(n wal.Name) bool { return n.Segment.End() <= x.o.Since }

// since is the number of the first segment that is looked at.
func (x *auditor) since() uint64 { return uint64(x.o.Since) / uint64(x.a.id.SegmentSize) }

// after counts what is looked at of a span.
func (x *auditor) after(p Span) uint64 {
	if first := max(p.First, x.since()); first <= p.Last {
		return p.Last - first + 1
	}
	return 0
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
		for _, part := range x.acks.split(h) {
			n := int(part.Last - part.First + 1)
			missing[h.Timeline] += n
			x.rep.Count.Missing += n
			p := x.describeHole(part.Span)
			if p.Acknowledged = part.by; part.by != nil {
				x.rep.Count.Known += n
			}
			x.problem(p)
		}
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
