package archiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// ErrNoBackup means that the archive tells of no backup that would make the cut-off restorable, so everything is kept.
var ErrNoBackup = errors.New("no backup to keep from")

// ErrCutoff means that a cut-off names no place on the line, or none that the archive has.
var ErrCutoff = errors.New("no such cut-off")

// ExpireOptions say what an administrator, or the configuration, wants to keep.
type ExpireOptions struct {
	Before Cutoff
	// WithoutBackups keeps from the cut-off itself: the base backups are ones that PostgreSQL tells nothing of.
	WithoutBackups bool
	// Line is the cluster's, where it is known; Timeline 0 takes the newest timeline that the archive has WAL of.
	Line wal.History
	// Needs is how far back each member may still ask, as far as that is known. What lies above is warned about, or with Hold kept.
	Needs map[string]wal.LSN
	Hold  bool
}

// ExpirePlan is what an expire will do. Nothing was done yet.
type ExpirePlan struct {
	Archive  string           `json:"archive"`
	Cutoff   string           `json:"cutoff"`
	Line     []wal.Timeline   `json:"line"`             // oldest first
	Now      string           `json:"now"`              // the LSN that the archive begins at now, on the line
	From     string           `json:"from"`             // and then
	Backup   *KeptBackup      `json:"backup,omitempty"` // the one that holds the WAL from there on
	Raise    []Floor          `json:"raise"`            // empty: the archive begins there already
	Goes     []ExpireTimeline `json:"goes"`             // by timeline, lowest first
	Objects  int              `json:"objects"`          // that go, orphans too
	Bytes    int64            `json:"bytes"`            // sealed
	Orphans  int              `json:"orphans"`          // of Objects
	Stays    int              `json:"stays"`            // files below wal/ that stay, and their size
	Stay     int64            `json:"stay_bytes"`
	Notes    []string         `json:"notes"`
	Warnings []string         `json:"warnings"`

	floors []Floor // all that count once Raise does
}

// KeptBackup names the backup that decided.
type KeptBackup struct {
	Name  string    `json:"name"`
	Label string    `json:"label,omitempty"`
	Ended time.Time `json:"ended"`
}

// ExpireTimeline is what goes of one timeline.
type ExpireTimeline struct {
	Timeline wal.Timeline `json:"timeline"`
	Branch   bool         `json:"branch"` // it goes since the line left it, or never came there
	First    string       `json:"first,omitempty"`
	Last     string       `json:"last,omitempty"`
	Segments int          `json:"segments"`
	Partials int          `json:"partials"`
	Backups  int          `json:"backups"`
	Bytes    int64        `json:"bytes"`
}

// Empty says whether there is nothing to do.
func (p *ExpirePlan) Empty() bool { return len(p.Raise) == 0 && p.Objects == 0 }

// planner is one plan in the making.
type planner struct {
	*auditor
	o       ExpireOptions
	plan    *ExpirePlan
	backups []Object // in the order of the listing
	commits map[wal.Segment]commitSpan
}

type commitSpan struct{ first, last time.Time }

// PlanExpire says what an expire would do. It reads the archive and changes nothing.
//
// What is kept is all from the start of the last backup on that ended at or before the cut-off, and of which all the WAL that it needs is there; so any moment
// from the cut-off on can be restored, and some before it. A branch is kept as long as it left the line above that place: then the same backup
// leads to it. One that left it below goes as a whole, unless it has commits that are newer than what is kept of the line.
func (a *Archive) PlanExpire(ctx context.Context, o ExpireOptions) (*ExpirePlan, error) {
	if err := a.ReadFloors(ctx); err != nil {
		return nil, err
	}
	p := &planner{o: o, commits: map[wal.Segment]commitSpan{},
		auditor: &auditor{a: a, inv: newInventory(), histories: map[wal.Timeline]wal.History{}, present: map[wal.Timeline]bool{}, rep: &Audit{}},
		plan:    &ExpirePlan{Archive: a.String(), Cutoff: o.Before.String(), Raise: []Floor{}, Goes: []ExpireTimeline{}, Notes: []string{}, Warnings: []string{}}}
	for obj, err := range a.All(ctx) {
		if err != nil {
			return nil, fmt.Errorf("plan expire: %w", err)
		}
		p.inv.add(obj)
		if obj.Name.Kind == wal.KindBackup && !a.BelowFloor(obj.Name) {
			p.backups = append(p.backups, obj)
		}
	}
	if err := p.readHistories(ctx); err != nil {
		return nil, fmt.Errorf("plan expire: %w", err)
	}
	if err := p.chooseFloor(ctx); err != nil {
		return nil, fmt.Errorf("plan expire: %w", err)
	}
	if err := p.count(ctx); err != nil {
		return nil, fmt.Errorf("plan expire: %w", err)
	}
	return p.plan, nil
}

// chooseFloor decides from where on the line is kept, and what becomes of the branches.
func (p *planner) chooseFloor(ctx context.Context) error {
	if p.line = p.o.Line; p.line.Timeline == 0 {
		p.line = p.chooseLine()
	}
	for _, f := range p.line.Forks {
		p.plan.Line = append(p.plan.Line, f.Timeline)
	}
	p.plan.Line = append(p.plan.Line, p.line.Timeline)
	now := p.a.FloorOn(p.line)
	p.plan.Now = now.String()
	at, ref, err := p.place(ctx)
	if err != nil {
		return err
	}
	at = p.hold(at)
	p.plan.From = max(at, now).String()
	p.plan.floors = slices.Clone(p.a.Floors())
	if at > now {
		f := p.floorAt(at)
		p.plan.Raise = append(p.plan.Raise, f)
		p.plan.floors = append(p.plan.floors, f)
	}
	if err := p.branches(ctx, max(at, now), ref); err != nil {
		return err
	}
	p.noteHole(max(at, now))
	return nil
}

// place finds where the WAL that is to be kept begins, and a time before which nothing is needed.
func (p *planner) place(ctx context.Context) (wal.LSN, time.Time, error) {
	c := p.o.Before
	end := p.lineEnd()
	at, limit := wal.LSN(0), wal.MaxLSN
	switch {
	case c.Segment != wal.Segment{}:
		if !p.line.Holds(c.Segment) {
			return 0, time.Time{}, fmt.Errorf("%w: %v is not on the line, timeline %d", ErrCutoff, c.Segment, p.line.Timeline)
		}
		limit = c.Segment.Start()
	case c.Time.IsZero() && c.Backup == wal.Name{} && c.Label == "":
		limit = c.LSN
	}
	if limit != wal.MaxLSN && limit > end {
		return 0, time.Time{}, fmt.Errorf("%w: the archive has the line up to %v only", ErrCutoff, end)
	}
	if c.Time.After(time.Now()) {
		return 0, time.Time{}, fmt.Errorf("%w: %v has not come yet", ErrCutoff, c)
	}
	if p.o.WithoutBackups && c.Backup == (wal.Name{}) && c.Label == "" {
		if c.Time.IsZero() {
			at = p.a.id.SegmentSize.At(1, limit).Start()
			t, err := p.commitFrom(ctx, at)
			return at, t, err
		}
		s, err := p.firstNeeded(ctx, c.Time)
		return s, c.Time, err
	}
	b, ok, err := p.chooseBackup(ctx, limit)
	if err != nil || !ok {
		return 0, c.Time, err
	}
	p.plan.Backup = &KeptBackup{Name: b.Name.String(), Label: b.Label, Ended: b.Ended.UTC()}
	ref := c.Time
	if ref.IsZero() {
		ref = b.Began
	}
	if ref.IsZero() { // an encrypted label, or an unknown zone
		ref, err = p.commitFrom(ctx, b.Name.Segment.Start())
	}
	return b.Name.Segment.Start(), ref, err
}

// chooseBackup gives the last backup of the line that can be restored from, and ended at or before the cut-off; false when
// all of them ended later: then everything is kept.
func (p *planner) chooseBackup(ctx context.Context, limit wal.LSN) (Backup, bool, error) {
	c := p.o.Before
	var on []Object
	for _, o := range p.backups {
		begin, ok := p.line.Begin(o.Name.Segment.Timeline)
		if start := o.Name.Segment.Start() + wal.LSN(o.Name.Offset); ok && begin <= start {
			on = append(on, o)
		}
	}
	slices.SortStableFunc(on, func(x, y Object) int { return y.Name.Compare(x.Name) }) // along the line timelines grow too
	var found []Backup
	later, bad := 0, ""
	for _, o := range on {
		if c.Backup != (wal.Name{}) && o.Name != c.Backup {
			continue
		}
		b, err := p.readBackup(ctx, o)
		if err != nil && !unusable(err) {
			return Backup{}, false, err
		}
		if err == nil && c.Label != "" && b.Label != c.Label {
			continue
		}
		why := ""
		if err != nil {
			why = err.Error()
		} else if why = p.lacks(b); why == "" && (b.Stop > limit || !c.Time.IsZero() && b.Ended.After(c.Time)) {
			later++
			continue
		}
		if why != "" {
			bad = fmt.Sprintf("the backup %v cannot be restored from: %s", o.Name, why)
			p.plan.Warnings = append(p.plan.Warnings, bad)
			continue
		}
		if found = append(found, b); c.Label == "" {
			break
		}
	}
	refuse := func(kind error, format string, args ...any) (Backup, bool, error) {
		return Backup{}, false, fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
	}
	switch {
	case len(found) == 1:
		return found[0], true, nil
	case len(found) > 1:
		return refuse(ErrCutoff, "%d backups are labelled %q; name one by its file, such as %v", len(found), c.Label, found[0].Name)
	case bad != "" && (c.Backup != wal.Name{} || c.Label != ""):
		return refuse(ErrCutoff, "%s", bad)
	case c.Backup != wal.Name{}:
		return refuse(ErrCutoff, "the archive has no backup %v on the line", c.Backup)
	case c.Label != "":
		return refuse(ErrCutoff, "%q is neither a segment, an LSN, a time nor the label of a backup that the archive knows", c.Label)
	case later > 0:
		p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("no backup that the archive knows of ended at or before %v: all that is needed for the oldest one stays", c))
		return Backup{}, false, nil
	case len(on) == 0:
		return refuse(ErrNoBackup, "the archive has no backup history file of the line")
	}
	return refuse(ErrNoBackup, "none of the %d backups that the archive knows of can be restored from", len(on))
}

// readBackup is Archive.readBackup; where the file does not say how far the backup needs WAL, it is up to the first commit after its end.
func (p *planner) readBackup(ctx context.Context, o Object) (Backup, error) {
	b, err := p.a.readBackup(ctx, o)
	if err != nil || b.Stop != 0 {
		return b, err
	}
	first, err := p.firstNeeded(ctx, b.Ended)
	b.Stop = max(first, o.Name.Segment.Start()) + wal.LSN(p.a.id.SegmentSize)
	return b, err
}

// lacks says why a backup cannot be restored from, "" when it can.
func (p *planner) lacks(b Backup) string {
	if end, _ := p.line.End(b.Name.Segment.Timeline); b.Stop > end {
		return fmt.Sprintf("it ended at %v, and the line left its timeline at %v", b.Stop, end)
	}
	if got := p.reach(b.Name.Segment.Start()); got < b.Stop {
		return fmt.Sprintf("it needs the WAL up to %v, and the archive has it without a hole up to %v only", b.Stop, got)
	}
	return ""
}

// hold keeps what a member may still ask for, or warns.
func (p *planner) hold(at wal.LSN) wal.LSN {
	for _, m := range slices.Sorted(maps.Keys(p.o.Needs)) {
		need := p.o.Needs[m]
		if need >= at {
			continue
		}
		if p.o.Hold {
			at = p.a.id.SegmentSize.At(1, need).Start()
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("kept from %v on, since %s may still ask for it", at, m))
			continue
		}
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s would go on from %v after a restart, and the archive will begin at %v: it could not follow from the archive", m, need, at))
	}
	return at
}

// floorAt is the floor of the line at an LSN where a segment begins.
func (p *planner) floorAt(at wal.LSN) Floor {
	f := Floor{Timeline: p.line.TimelineAt(at), LSN: at}
	for _, x := range p.line.Forks {
		if x.Timeline < f.Timeline {
			f.Ancestors = append(f.Ancestors, x.Timeline)
		}
	}
	return f
}

// count lists the archive once more for what goes and what stays.
func (p *planner) count(ctx context.Context) error {
	below := belowAny(p.plan.floors)
	goes := map[wal.Timeline]*ExpireTimeline{}
	for o, err := range p.a.All(ctx) {
		if err != nil {
			return err
		}
		if !below(o.Name) {
			p.plan.Stays++
			p.plan.Stay += o.Size
			continue
		}
		t := o.Name.Segment.Timeline
		g := goes[t]
		if g == nil {
			_, on := p.line.End(t)
			g = &ExpireTimeline{Timeline: t, Branch: !on}
			goes[t] = g
		}
		g.add(o)
		p.plan.Objects++
		p.plan.Bytes += o.Size
	}
	for _, t := range slices.Sorted(maps.Keys(goes)) {
		p.plan.Goes = append(p.plan.Goes, *goes[t])
	}
	for info, err := range p.a.orphansBelow(ctx, below) {
		if err != nil {
			return err
		}
		p.plan.Orphans++
		p.plan.Objects++
		p.plan.Bytes += info.Size
	}
	return nil
}

func (g *ExpireTimeline) add(o Object) {
	g.Bytes += o.Size
	switch o.Name.Kind {
	case wal.KindSegment:
		if g.Segments++; g.First == "" {
			g.First = o.Name.String()
		}
		g.Last = o.Name.String()
	case wal.KindPartial:
		g.Partials++
	case wal.KindBackup:
		g.Backups++
	}
}

// belowAny says whether a file lies below one of the floors.
func belowAny(floors []Floor) func(wal.Name) bool {
	return func(n wal.Name) bool {
		return n.Kind != wal.KindHistory && slices.ContainsFunc(floors, func(f Floor) bool { return f.Covers(n.Segment) })
	}
}

// orphanName is the file that an orphan's key tells of.
func (a *Archive) orphanName(key string) (wal.Name, bool) {
	name, _, _ := strings.Cut(path.Base(key), "-")
	n, err := wal.ParseName(name, a.id.SegmentSize)
	return n, err == nil
}
