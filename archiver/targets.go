package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Target is one of several archives that are to have the same WAL.
type Target struct {
	Name     string
	Required bool // push waits until it has the file

	// Open opens the archive, or begins it as Prepare does. It is called again until it succeeds, once at a time.
	Open func(ctx context.Context) (*Archive, error)
}

// target is a Target, and how it does. An Archiver of one archive has none: everything below that works on several is not in its way.
//
// An archive that does not answer is left alone, and asked once a second whether it does again; the work goes on with the others meanwhile. One is
// up when it was opened, answers, and was listed since: only then it is known what it lacks.
type target struct {
	Target
	index    int        // in Archiver.targets, and in coverage.each
	lifting  sync.Mutex // held by who brings it up
	archive  *Archive   // nil until it was opened
	failing  bool
	listed   bool
	why      string    // why it is not up
	since    time.Time // since when it is not
	taken    time.Time // when it last took a file
	asked    time.Time // when it was asked for a sign of life
	behind   bool      // optional, and was too slow for a file: it is filled until it has caught up
	looked   uint64    // the term in which it was listed whole, to be filled
	left     int       // files that it lacks and another one has, as of the last look
	filled   int       // files that were copied to it from another archive
	spoiled  map[wal.Name]bool
	conflict map[wal.Name]bool
	whole    map[wal.Timeline]uint64 // up to where it lacked nothing when it was filled last; only the filler's
}

// errOneLacks means that not every required archive has the file, though another one has. It says which.
var errOneLacks = errors.New("not in every required archive")

// askEvery is how often an archive that is up is asked for a sign of life: this node may have no other reason to ask it, and says in its record which it reaches.
const askEvery = 5 * time.Second

// giveUpAfter is how long an archive may be silent to the holder of the baton before its record says so: by then the others have found out whether it
// is silent to them, too. Else the baton would go round.
const giveUpAfter = 30 * time.Second

// openWait is how long the others are waited for at the start once one required archive is open.
const openWait = 10 * time.Second

// NewSeveral is New for several archives, of which at least one is required. It returns when all are open, or a required one is and the others take
// too long: they are opened by Tend, and lack every file until then.
func NewSeveral(ctx context.Context, targets []Target, q *queue.Queue, scope Scope, server func() Server, o Options) (*Archiver, error) {
	if !slices.ContainsFunc(targets, func(t Target) bool { return t.Required }) {
		return nil, errors.New("open archives: none of them is required")
	}
	opened, errs := openTargets(ctx, targets, o.Together)
	first := -1
	for i, t := range targets {
		if opened[i] != nil && (first < 0 || t.Required && !targets[first].Required) {
			first = i
		}
	}
	if first < 0 || !targets[first].Required {
		for i, t := range targets {
			if t.Required {
				return nil, fmt.Errorf("archive %s: %w", t.Name, errs[i])
			}
		}
	}
	a, err := New(opened[first], q, scope, server, o)
	if err != nil {
		return nil, err
	}
	for i, t := range targets {
		g := &target{Target: t, index: i, archive: opened[i], since: a.o.Now(), why: "it was not listed yet", spoiled: map[wal.Name]bool{}, conflict: map[wal.Name]bool{}}
		if errs[i] != nil {
			g.failing, g.why = true, errs[i].Error()
			a.log.Warn("an archive cannot be opened, and the work begins with the others", "archive", t.Name, "required", t.Required, "why", g.why)
		}
		a.targets = append(a.targets, g)
	}
	a.cover.several(a.targets, a.belowFloorOf)
	return a, nil
}

// openTargets opens all at the same time.
func openTargets(ctx context.Context, targets []Target, together func(...func())) ([]*Archive, []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened, errs := make([]*Archive, len(targets)), make([]error, len(targets))
	var late *time.Timer
	var once sync.Once
	var all []func()
	for i, t := range targets {
		all = append(all, func() {
			if opened[i], errs[i] = t.Open(ctx); errs[i] == nil && t.Required {
				once.Do(func() { late = time.AfterFunc(openWait, cancel) })
			}
		})
	}
	if together == nil {
		together = atOnce
	}
	together(all...)
	if late != nil {
		late.Stop()
	}
	return opened, errs
}

// atOnce runs all at the same time, and returns when the last one has.
func atOnce(all ...func()) {
	var g sync.WaitGroup
	for _, f := range all {
		g.Go(f)
	}
	g.Wait()
}

// up gives the targets that work just now, the required ones first.
func (a *Archiver) up() []*target {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*target
	for _, required := range []bool{true, false} {
		for _, t := range a.targets {
			if t.Required == required && t.isUp() {
				out = append(out, t)
			}
		}
	}
	return out
}

// reached gives those that may be asked at all: open, and not known to be silent.
func (a *Archiver) reached() []*target {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.targets), func(t *target) bool { return t.archive == nil || t.failing })
}

// isUp is for a caller that holds mu.
func (t *target) isUp() bool { return t.archive != nil && !t.failing && t.listed }

// noteOf keeps the health of one of several archives, as note does of the only one.
func (a *Archiver) noteOf(t *target, err error) {
	if err == nil || errors.Is(err, fs.ErrExist) || unusable(err) || errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	was := t.failing
	t.why = err.Error()
	if t.archive != nil {
		t.why = Reason(t.archive.store, err)
	}
	if !was {
		t.failing, t.listed, t.since = true, false, a.o.Now()
	}
	why := t.why
	a.mu.Unlock()
	if !was {
		a.log.Warn("an archive does not answer", "archive", t.Name, "required", t.Required, "why", why)
		a.bell.ring()
	}
}

// belowFloorOf says whether a target promises nothing about n. Nobody knows that of one that was never opened.
func (a *Archiver) belowFloorOf(t *target, n wal.Name) bool {
	a.mu.Lock()
	archive := t.archive
	a.mu.Unlock()
	return archive != nil && archive.BelowFloor(n)
}

// belowFloor says whether no required archive promises anything about n.
func (a *Archiver) belowFloor(n wal.Name) bool {
	if a.targets == nil {
		return a.archive.BelowFloor(n)
	}
	for _, t := range a.targets {
		if t.Required && !a.belowFloorOf(t, n) {
			return false
		}
	}
	return true
}

// floors gives those of all archives.
func (a *Archiver) floors() (all []Floor) {
	if a.targets == nil {
		return a.archive.Floors()
	}
	for _, t := range a.reached() {
		all = append(all, t.archive.Floors()...)
	}
	return all
}

// Answering gives the archives that can be asked now, in their order.
func (a *Archiver) Answering() []*Archive {
	if a.targets == nil {
		return []*Archive{a.archive}
	}
	var out []*Archive
	for _, t := range a.reached() {
		out = append(out, t.archive)
	}
	return out
}

// FloorsRaised reads the floors anew, after somebody has raised one.
func (a *Archiver) FloorsRaised(ctx context.Context) error {
	err := a.readFloors(ctx)
	a.bell.ring()
	return err
}

// readFloors reads them anew.
func (a *Archiver) readFloors(ctx context.Context) error {
	if a.targets == nil {
		return a.archive.ReadFloors(ctx)
	}
	err := a.ask(ctx, a.reached(), func(t *target) error { return t.archive.ReadFloors(ctx) })
	a.cover.recount()
	return err
}

// LiftAll is one pass over the archives that are not up: each is opened, asked whether it answers again, and listed. It is a step of Tend, which
// does it for each on its own, so that one that hangs holds up no other.
func (a *Archiver) LiftAll(ctx context.Context) {
	var all []func()
	for _, t := range a.targets {
		all = append(all, func() { a.lift(ctx, t) })
	}
	a.o.Together(all...)
}

// liftUntil does that for one archive, until ctx ends.
func (a *Archiver) liftUntil(ctx context.Context, t *target) error {
	for {
		a.lift(ctx, t)
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
}

// lift makes t work again if it does not.
func (a *Archiver) lift(ctx context.Context, t *target) {
	t.lifting.Lock()
	defer t.lifting.Unlock()
	a.mu.Lock()
	archive, failing, up := t.archive, t.failing, t.isUp()
	now := a.o.Now()
	due := now.Sub(t.asked) >= askEvery
	if due {
		t.asked = now
	}
	a.mu.Unlock()
	if up {
		if due {
			within, cancel := context.WithTimeout(ctx, 2*askEvery)
			defer cancel()
			_, err := archive.store.Head(within, archive.root+"/archive.json")
			a.noteOf(t, err)
		}
		return
	}
	var err error
	switch {
	case archive == nil:
		if archive, err = t.Open(ctx); err == nil {
			a.mu.Lock()
			t.archive = archive
			a.mu.Unlock()
			a.log.Info("the archive is open", "archive", t.Name, "floor", archive.Identity().Floor.LSN.String())
			a.cover.recount()
		}
	case failing:
		err = archive.probe(ctx, a.o.Member)
	}
	if err == nil {
		err = a.listTarget(ctx, t, archive)
	}
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	if err != nil {
		t.failing, t.why = true, err.Error()
		if archive != nil {
			t.why = Reason(archive.store, err)
		}
		a.mu.Unlock()
		return
	}
	t.failing, t.listed, t.why, t.looked = false, true, "", 0
	clear(a.failed)
	clear(t.spoiled)
	since := t.since
	a.mu.Unlock()
	if failing {
		a.log.Info("the archive answers again", "archive", t.Name, "after", a.o.Now().Sub(since).Round(time.Second).String())
	}
	a.bell.ring()
}

// listTarget reads from one archive all that this node wanted to know of the archive up to now.
func (a *Archiver) listTarget(ctx context.Context, t *target, archive *Archive) error {
	for o, err := range archive.Histories(ctx) {
		if err != nil {
			return err
		}
		a.cover.addTo(t.index, o.Name)
	}
	done := map[wal.Timeline]uint64{}
	for {
		from := a.cover.listings()
		maps.DeleteFunc(from, func(tl wal.Timeline, no uint64) bool { d, ok := done[tl]; return ok && d <= no })
		if len(from) == 0 {
			return nil
		}
		for _, tl := range slices.Sorted(maps.Keys(from)) {
			if err := a.listOf(ctx, t, archive, tl, from[tl]); err != nil {
				return err
			}
			done[tl] = from[tl]
		}
	}
}

func (a *Archiver) listOf(ctx context.Context, t *target, archive *Archive, tl wal.Timeline, from uint64) error {
	for o, err := range archive.List(ctx, tl, from) {
		if err != nil {
			return err
		}
		a.cover.addTo(t.index, o.Name)
	}
	return nil
}

// waitsFor names the required archives that lack n and are not up, with the reason; "" when there are none.
func (a *Archiver) waitsFor(n wal.Name) string {
	var out []string
	for _, t := range a.targets {
		if !t.Required || a.cover.hasOrBelow(t.index, n) {
			continue
		}
		a.mu.Lock()
		if !t.isUp() {
			out = append(out, "archive "+t.Name+" does not answer ("+t.why+")")
		}
		a.mu.Unlock()
	}
	return strings.Join(out, "; ")
}

// whySilent says why an archive is not to be asked now; "" when it is.
func (a *Archiver) whySilent(t *target) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.archive != nil && !t.failing {
		return ""
	}
	return "archive " + t.Name + " does not answer (" + t.why + ")"
}

// wanted says whether a required archive that is up lacks n. What only others lack rests until they answer.
func (a *Archiver) wanted(n wal.Name) bool {
	if a.targets == nil {
		return true
	}
	return slices.ContainsFunc(a.up(), func(t *target) bool { return t.Required && !a.cover.hasOrBelow(t.index, n) })
}

// published is how many required archives do not answer, for our record.
func (a *Archiver) published() (count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.targets {
		if t.Required && (t.archive == nil || t.failing) && (a.term == 0 || a.o.Now().Sub(t.since) >= giveUpAfter) {
			count++
		}
	}
	return count
}

// silent counts the required archives that do not answer, and says why.
func (a *Archiver) silent() (count, required int, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var whys []string
	for _, t := range a.targets {
		if !t.Required {
			continue
		}
		required++
		if t.archive == nil || t.failing {
			count++
			whys = append(whys, t.Name+": "+t.why)
		}
	}
	return count, required, strings.Join(whys, "; ")
}

// TargetState is one of several archives as this node knows it.
type TargetState struct {
	Name      string    `json:"name"`
	Archive   string    `json:"archive,omitempty"` // its folder; "" until it was opened
	Required  bool      `json:"required"`
	Answers   bool      `json:"answers"`
	Why       string    `json:"why,omitempty"` // it does not
	Since     time.Time `json:"since,omitzero"`
	LastTaken time.Time `json:"last_taken,omitzero"` // when it last took a file of ours
	Frontier  wal.LSN   `json:"-"`                   // end of the last segment up to which it has no hole, as far as this node listed it
	Lacks     int       `json:"lacks"`               // segments that another archive, or this node, is known to have
	Filled    int       `json:"filled"`              // files copied to it from another archive in this run of the sidecar
	Differs   int       `json:"differs"`             // files that it has with another content than another archive
}

// targetStates fills in State.Archives.
func (a *Archiver) targetStates(line wal.History, misses Set) (out []TargetState) {
	everywhere := a.cover.anywhere()
	everywhere.Union(misses)
	for _, t := range a.targets {
		has := a.cover.archivedIn(t.index)
		lacks := everywhere.Minus(has)
		s := TargetState{Name: t.Name, Required: t.Required, Lacks: 0}
		for _, p := range lacks.Spans() {
			for no := p.First; no <= p.Last; no++ {
				if !a.belowFloorOf(t, wal.SegmentName(wal.Segment{Timeline: p.Timeline, Size: a.archive.SegmentSize(), No: no})) {
					s.Lacks += int(p.Last-no) + 1 // floors cover the beginning of a run
					break
				}
			}
		}
		s.Frontier, _ = a.frontier(line, has)
		a.mu.Lock()
		if t.archive != nil {
			s.Archive = t.archive.String()
		}
		s.Answers, s.LastTaken, s.Filled, s.Differs = t.archive != nil && !t.failing, t.taken, t.filled, len(t.conflict)
		if !s.Answers {
			s.Why, s.Since = t.why, t.since
		}
		a.mu.Unlock()
		out = append(out, s)
	}
	return out
}
