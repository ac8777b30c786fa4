package rehearsal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// How often each is asked, and how long an answer may take.
const (
	patroniEvery = 200 * time.Millisecond // GET /patroni of each member: one query of its Patroni
	sidecarEvery = 250 * time.Millisecond // /status.json of each sidecar
	archiveEvery = 300 * time.Millisecond // two or three small listings
	sampleTime   = time.Second
)

// watcher looks at a cluster all the time, from the beginning of a round to its end.
type watcher struct {
	r       *Rehearsal
	members []member
	first   wal.Segment // in which the round begins

	mu        sync.Mutex
	primary   string // who is a running primary now, by its Patroni
	timeline  wal.Timeline
	nodes     map[string]restapi.Node // answers of the last time
	primaries []during
	batons    []during
	seen      map[wal.Name]sighting
	twice     []string
	silent    map[string]int // who did not answer, how often
	newest    wal.Timeline   // that any member is on
	listed    bool           // the archive was listed once
	together  time.Time      // since when all members run on the same timeline; zero: they do not
}

// during is Span with times.
type during struct {
	who      string
	from, to time.Time
	timeline wal.Timeline
	term     uint64
	over     bool // something else was seen since
}

// silence is how long nobody may have answered for a span to go on: no answer says nothing.
const silence = 15 * time.Second

// sighting is a file of the archive.
type sighting struct {
	archiver.Object
	at  time.Time
	old bool // it was there when the watch began
}

func newWatcher(r *Rehearsal, members []member, first wal.Segment) *watcher {
	return &watcher{r: r, members: members, first: first, newest: first.Timeline, seen: map[wal.Name]sighting{}, silent: map[string]int{}, nodes: map[string]restapi.Node{}}
}

// run watches until ctx ends. It returns when all that it started has ended.
func (w *watcher) run(ctx context.Context) {
	var wg sync.WaitGroup
	loop := func(every time.Duration, pass func(context.Context)) {
		wg.Go(func() {
			t := time.NewTicker(every)
			defer t.Stop()
			for ctx.Err() == nil {
				pass(ctx)
				select {
				case <-ctx.Done():
				case <-t.C:
				}
			}
		})
	}
	loop(patroniEvery, w.lookAtPatroni)
	loop(sidecarEvery, w.lookAtSidecars)
	loop(archiveEvery, func(ctx context.Context) {
		if err := w.lookAtArchive(ctx); err != nil && ctx.Err() == nil {
			w.missed("the archive")
		}
	})
	wg.Wait()
}

func (w *watcher) missed(who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[who]++
}

// lookAtPatroni asks every member what it is.
func (w *watcher) lookAtPatroni(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	answers := make([]*restapi.Node, len(w.members))
	var wg sync.WaitGroup
	for i, m := range w.members {
		wg.Go(func() {
			if n, err := w.r.o.API.Node(ctx, m.rest); err == nil {
				answers[i] = &n
			}
		})
	}
	wg.Wait()
	w.noteNodes(answers, time.Now())
}

// noteNodes remembers what the members answered, in their order; nil is no answer, which says nothing.
func (w *watcher) noteNodes(answers []*restapi.Node, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.primary = ""
	clear(w.nodes)
	for i, m := range w.members {
		n := answers[i]
		if n == nil {
			continue
		}
		w.nodes[m.name] = *n
		w.newest = max(w.newest, wal.Timeline(n.Timeline))
		is := n.Running() && n.Role == "primary"
		finish(w.primaries, func(d during) bool { return d.who == m.name && !(is && d.timeline == wal.Timeline(n.Timeline)) })
		if !is {
			continue
		}
		// Two may say so for a moment: the one on the newer timeline is the one.
		if w.primary == "" || wal.Timeline(n.Timeline) > w.timeline {
			w.primary, w.timeline = m.name, wal.Timeline(n.Timeline)
		}
		w.primaries = extend(w.primaries, during{who: m.name, from: now, to: now, timeline: wal.Timeline(n.Timeline)})
	}
	astray := 0
	for _, n := range w.nodes {
		if !n.Running() || wal.Timeline(n.Timeline) != w.newest {
			astray++
		}
	}
	switch {
	case astray > 0:
		w.together = time.Time{}
	case w.together.IsZero() && len(w.nodes) == len(w.members):
		w.together = now
	}
}

// extend makes the span of the same kind longer that is not over, or begins a new one.
func extend(all []during, d during) []during {
	for i := range all {
		if p := &all[i]; !p.over && p.who == d.who && p.timeline == d.timeline && p.term == d.term && d.from.Sub(p.to) <= silence {
			p.to = d.to
			return all
		}
	}
	return append(all, d)
}

// finish ends the spans of which something else is known now.
func finish(all []during, over func(during) bool) {
	for i := range all {
		all[i].over = all[i].over || over(all[i])
	}
}

// lookAtSidecars asks every sidecar who holds the baton, and believes the one with the highest term.
func (w *watcher) lookAtSidecars(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	holders := make([]during, len(w.members))
	var wg sync.WaitGroup
	for i, m := range w.members {
		if m.sidecar == "" {
			continue
		}
		wg.Go(func() {
			if s, err := w.r.status(ctx, m.sidecar); err == nil {
				holders[i] = during{who: s.Baton.Holder, term: s.Baton.Term}
			}
		})
	}
	wg.Wait()
	best := slices.MaxFunc(holders, func(a, b during) int {
		if (a.who == "") != (b.who == "") && a.term == b.term {
			return len(a.who) - len(b.who)
		}
		return int(int64(a.term) - int64(b.term))
	})
	if best.who == "" {
		return
	}
	best.from = time.Now()
	best.to = best.from
	w.mu.Lock()
	defer w.mu.Unlock()
	finish(w.batons, func(d during) bool { return d.who != best.who || d.term != best.term })
	w.batons = extend(w.batons, best)
}

// lookAtArchive lists what the round adds: the timelines from the first one on, and the histories.
func (w *watcher) lookAtArchive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*sampleTime)
	defer cancel()
	w.mu.Lock()
	newest := w.newest
	w.mu.Unlock()
	var found []archiver.Object
	for t := w.first.Timeline; t <= newest; t++ {
		for o, err := range w.r.o.Archive.List(ctx, t, w.first.No) {
			if err != nil {
				return err
			}
			found = append(found, o)
		}
	}
	for o, err := range w.r.o.Archive.Histories(ctx) {
		if err != nil {
			return err
		}
		if o.Name.Segment.Timeline >= w.first.Timeline {
			found = append(found, o)
		}
	}
	w.noteFiles(found, time.Now())
	return nil
}

// noteFiles remembers what is new, and compares what is known: in this archive nothing is ever written again.
func (w *watcher) noteFiles(found []archiver.Object, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := map[wal.Name]bool{}
	for _, o := range found {
		there[o.Name] = true
		was, known := w.seen[o.Name]
		switch {
		case !known:
			w.seen[o.Name] = sighting{o, now, !w.listed}
		case was.Size != o.Size || !was.Modified.Equal(o.Modified):
			w.twice = append(w.twice, fmt.Sprintf("%s was replaced", o.Name))
			w.seen[o.Name] = sighting{o, was.at, was.old}
		}
	}
	for n := range w.seen {
		if !there[n] {
			w.twice = append(w.twice, n.String()+" disappeared")
			delete(w.seen, n)
		}
	}
	w.listed = true
}

// now is who is the primary, and on which timeline; "" while nobody is.
func (w *watcher) now() (string, wal.Timeline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.primary, w.timeline
}

// member gives the member of that name.
func (w *watcher) member(name string) (member, bool) {
	i := slices.IndexFunc(w.members, func(m member) bool { return m.name == name })
	if i < 0 {
		return member{}, false
	}
	return w.members[i], true
}

// has says whether the archive has a file.
func (w *watcher) has(n wal.Name) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.seen[n]
	return ok
}

// firstAfter gives the first segment that reached the archive after a moment and is of a timeline, or of any when that is 0.
func (w *watcher) firstAfter(at time.Time, t wal.Timeline) (wal.Segment, time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var best sighting
	for n, s := range w.seen {
		if n.Kind != wal.KindSegment || s.old || !s.at.After(at) || t != 0 && n.Segment.Timeline != t {
			continue
		}
		if best.at.IsZero() || s.at.Before(best.at) || s.at.Equal(best.at) && n.Segment.Compare(best.Name.Segment) < 0 {
			best = s
		}
	}
	return best.Name.Segment, best.at, !best.at.IsZero()
}

// since is when all members began to run on the newest timeline, zero while they do not.
func (w *watcher) since() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.together
}

// lagging says who of the members does not run, or not on that timeline.
func (w *watcher) lagging(t wal.Timeline) (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if n, ok := w.nodes[m.name]; !ok || !n.Running() || wal.Timeline(n.Timeline) != t {
			names = append(names, m.name)
		}
	}
	return names
}

// promoted is when a member was seen first as the primary on a timeline, after a moment.
func (w *watcher) promoted(who string, t wal.Timeline, after time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.primaries {
		if p.who == who && p.timeline == t && p.from.After(after) {
			return p.from
		}
	}
	return time.Time{}
}

// holder is who held the baton at a moment, "" when nobody knows.
func (w *watcher) holder(at time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	who := ""
	for _, b := range w.batons {
		if !b.from.After(at) {
			who = b.who
		}
	}
	return who
}
