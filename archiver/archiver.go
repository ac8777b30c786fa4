package archiver

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Options are what an Archiver is told once.
type Options struct {
	Member       string // our member name in Patroni
	Workers      int    // segments shipped at the same time
	Codec        seal.Codec
	EncryptTo    []seal.Recipient // segments and .partial files are encrypted to each of them; none: not at all
	Limits       Limits
	StallTimeout time.Duration  // a file that waits longer raises an alarm
	Grace        time.Duration  // uploads that run when a term ends get this long
	KeepDir      string         // where row 7 sets files aside; "" sets none aside
	Aside        func(wal.Name) // is told of each file set aside; nil: nobody
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: none
	Now          func() time.Time      // nil: time.Now

	// Read takes a reading of the server now, which server gives from then on; nil: server's is never old.
	Read func(ctx context.Context) Server

	// Together runs functions at the same time, and returns when all have; nil: each in a goroutine. A simulation runs one after the other.
	Together func(all ...func())

	// Watch calls wake when pg_wal may have changed, until ctx ends; nil: queue.Queue.Watch.
	Watch func(ctx context.Context, wake func()) error
}

// Archiver moves the WAL of one PostgreSQL into one archive. Lead ships inside a term; Tend does
// all that needs no term; Push answers archive_command. They share what is known of pg_wal and of
// the archive, and wake each other.
type Archiver struct {
	o         Options
	archive   *Archive  // of several, the first that could be opened: names and keys are the same in all
	targets   []*target // nil when there is one archive
	scope     Scope
	server    func() Server
	local     *local
	keep      *local       // files set aside; nil when there is no keep_dir
	sealer    *seal.Sealer // of segments and .partial files
	clear     *seal.Sealer // of histories and backup labels, which stay readable for every node
	cover     *coverage
	bell      *bell
	decisions decisions // administrators'
	m         *metrics
	log       *slog.Logger
	shipped   shipped

	opening sync.Mutex    // held while this node opens a timeline: one segment at a time
	slots   chan struct{} // of the workers: one for each upload, with the baton and without it

	mu       sync.Mutex
	busy     map[wal.Name]bool
	failed   map[wal.Name]failure    // files that could not be shipped, and why
	waits    map[wal.Name]time.Time  // cut segments that no timeline switch explains yet, since when
	differ   map[wal.Name]difference // whole segments of ours that are others than the archive's (row 6c)
	alarms   map[string]Alarm
	put      putState
	term     uint64          // 0 outside a term
	over     <-chan struct{} // closed once it has ended; its uploads may still run
	errand   Set
	lacks    Set
	timeline wal.Timeline // of our server, to notice when it changes
	orphaned map[wal.Name]seal.Digest
	mine     map[string]content // of encrypted orphans that this Archiver put, by key
	adopted  adopted
	asked    map[question]time.Time // when the archive was asked what every file of a timeline that waits would ask
	released int                    // files that have left keep_dir since it was last empty

	stoppingSince, stoppedSince time.Time // PostgreSQL, as pushes found it
	floorsRead                  time.Time // when the archive was last asked for new floors
}

// failure is why a file was not shipped the last time, and when to try again.
type failure struct {
	err   error
	why   string
	since time.Time
	next  time.Time
	wait  time.Duration
}

// putState is how the last put ended.
type putState struct {
	failing bool
	why     string
	taken   time.Time // when the archive last took a file of ours
}

// Alarm is something that no waiting ends.
type Alarm struct {
	Row   string    `json:"row"`
	Name  string    `json:"name"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// New makes an Archiver for the WAL in q, whose cluster has the archive's system identifier.
func New(a *Archive, q *queue.Queue, scope Scope, server func() Server, o Options) (*Archiver, error) {
	sealer, err := seal.New(o.Codec, o.EncryptTo...)
	if err != nil {
		return nil, err
	}
	clear, err := seal.New(o.Codec)
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Aside == nil {
		o.Aside = func(wal.Name) {}
	}
	if o.Together == nil {
		o.Together = atOnce
	}
	if o.Watch == nil {
		o.Watch = q.Watch
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Workers = max(o.Workers, 1)
	r := &Archiver{
		o: o, archive: a, scope: scope, server: server, sealer: sealer, clear: clear,
		local: newLocal(q, a.SegmentSize(), a.Identity().SystemID),
		cover: newCoverage(a.SegmentSize()), bell: newBell(), m: newMetrics(o.Metrics), log: o.Log,
		busy: map[wal.Name]bool{}, failed: map[wal.Name]failure{}, waits: map[wal.Name]time.Time{}, differ: map[wal.Name]difference{}, alarms: map[string]Alarm{}, orphaned: map[wal.Name]seal.Digest{}, mine: map[string]content{}, asked: map[question]time.Time{},
		floorsRead: o.Now(), // a was opened just now
		slots:      make(chan struct{}, o.Workers),
	}
	if err := r.openKeep(); err != nil {
		// Shipping goes on: only what a stopped server alone has is less safe.
		r.log.Warn("nothing can be set aside", "why", err)
	}
	return r, nil
}

// sealerOf gives what packs n. Histories and backup labels hold no user's data, and nodes without an identity have to read them.
func (a *Archiver) sealerOf(n wal.Name) *seal.Sealer {
	if n.Kind == wal.KindHistory || n.Kind == wal.KindBackup {
		return a.clear
	}
	return a.sealer
}

// Archive is where this Archiver ships to.
func (a *Archiver) Archive() *Archive { return a.archive }

// Wake says that something outside changed: the cluster, the server, the folder.
func (a *Archiver) Wake() { a.bell.ring() }

// Changed gives a channel that is closed when something changes from now on.
func (a *Archiver) Changed() <-chan struct{} { return a.bell.wait() }

// Rescan reads pg_wal once more. When the server went to another timeline every file that was read
// is looked at again: after a rewind or a clone the same names may be other files.
func (a *Archiver) Rescan() error {
	srv := a.server()
	a.mu.Lock()
	moved := a.timeline != 0 && srv.Timeline != 0 && srv.Timeline != a.timeline
	if srv.Timeline != 0 {
		a.timeline = srv.Timeline
	}
	a.mu.Unlock()
	if moved {
		a.local.revalidate()
		a.cover.doubt()
	}
	if err := a.local.scan(); err != nil {
		return err
	}
	a.forgetGone()
	return nil
}

// forgetGone drops what is remembered of files that are no longer here: whatever was wrong with
// our copy is over.
func (a *Archiver) forgetGone() {
	gone := func(n wal.Name) bool { return !a.local.has(n) && (a.keep == nil || !a.keep.has(n)) }
	a.mu.Lock()
	maps.DeleteFunc(a.failed, func(n wal.Name, _ failure) bool { return gone(n) })
	maps.DeleteFunc(a.waits, func(n wal.Name, _ time.Time) bool { return gone(n) })
	maps.DeleteFunc(a.differ, func(n wal.Name, _ difference) bool { return gone(n) })
	maps.DeleteFunc(a.orphaned, func(n wal.Name, _ seal.Digest) bool { return gone(n) })
	over := a.endAlarms(func(al Alarm) bool {
		n, err := wal.ParseName(al.Name, a.archive.SegmentSize())
		return err == nil && gone(n)
	})
	a.mu.Unlock()
	a.tellOver(over)
}

// List reads from the archive which names it has, of all timelines of the line and of those in
// pg_wal, from the oldest segment on that this node or a live other one has.
func (a *Archiver) List(ctx context.Context) error {
	if err := a.listHistories(ctx); err != nil {
		a.note(err)
		return err
	}
	oldest := map[wal.Timeline]uint64{}
	lower := func(t wal.Timeline, no uint64) {
		if old, ok := oldest[t]; !ok || no < old {
			oldest[t] = no
		}
	}
	if srv := a.server(); srv.Flush != 0 && srv.Timeline != 0 {
		// Also when no finished segment is left here: where the line stands is worth one request.
		lower(srv.Timeline, a.archive.SegmentSize().Before(srv.Timeline, srv.Flush).No-1)
	}
	for k := range a.names() {
		if k.name.Kind != wal.KindHistory {
			lower(k.name.Segment.Timeline, k.name.Segment.No)
		}
	}
	others := a.scope.Last().Others
	for _, p := range others.Spans() {
		lower(p.Timeline, p.First)
	}
	for _, t := range slices.Sorted(maps.Keys(oldest)) {
		if err := a.list(ctx, t, oldest[t]); err != nil {
			a.note(err)
			return err
		}
	}
	a.bell.ring()
	return nil
}

// own gives the history of our own server's timeline; zero when it is not known.
func (a *Archiver) own(srv Server) wal.History {
	switch {
	case srv.Timeline == 0:
		return wal.History{}
	case srv.Timeline == 1:
		return wal.History{Timeline: 1}
	}
	h, err := a.local.history(srv.Timeline)
	if err != nil {
		return wal.History{}
	}
	return h
}

// line is the line as this node knows it: the leader's, or without a DCS our own primary's.
func (a *Archiver) line(c Cluster) wal.History {
	if c.Line.Timeline != 0 {
		return c.Line
	}
	if srv := a.server(); srv.State == ServerPrimary && (c.NoDCS || !c.Answered) {
		return a.own(srv)
	}
	return wal.History{}
}

// claim takes n for one worker, or says that another one has it.
func (a *Archiver) claim(n wal.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[n] {
		return false
	}
	a.busy[n] = true
	return true
}

func (a *Archiver) unclaim(n wal.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, n)
}

// fail notes why n could not be shipped, and puts the next try off, at most half a minute.
func (a *Archiver) fail(n wal.Name, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Now()
	f, ok := a.failed[n]
	if !ok {
		f.since = now
	}
	longest := 30 * time.Second
	if errors.Is(err, errNotOurs) {
		longest = lookAfter // it may be in a moment, and to ask costs little
	}
	f.wait = min(max(2*f.wait, 250*time.Millisecond), longest)
	f.next = now.Add(f.wait)
	quiet := errors.Is(err, errNotOurs) || errors.Is(err, errNotWhole) || errors.Is(err, fs.ErrNotExist)
	if f.why != err.Error() && !quiet {
		level := slog.LevelWarn
		if a.put.failing || errors.Is(err, errOneLacks) {
			level = slog.LevelDebug // that the archive does not answer is said already, and true of every file
		}
		a.log.Log(context.Background(), level, "file not shipped", "file", n.String(), "why", err)
	}
	f.err, f.why = err, err.Error()
	a.failed[n] = f
}

// resting says whether n failed a moment ago and is not to be tried yet.
func (a *Archiver) resting(n wal.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.failed[n]
	return ok && a.o.Now().Before(f.next)
}

// stored notes that the archive has our content of n: from now on a push of it is answered.
func (a *Archiver) stored(l *local, n wal.Name, c *content, put bool) {
	l.cover(n, c)
	a.cover.add(n)
	if n.Kind == wal.KindSegment {
		a.cover.vouch(vouch{n.Segment.Timeline, l == a.keep})
	}
	a.mu.Lock()
	delete(a.failed, n)
	delete(a.waits, n)
	if n.Kind == wal.KindSegment {
		a.errand.Remove(n.Segment)
	}
	if put {
		a.put = putState{taken: a.o.Now()}
	}
	a.mu.Unlock()
	a.calm(n)
	a.bell.ring()
}

// Reason says in words why a store fails: which key was asked for last tells nobody anything when
// the whole store is not there.
func Reason(s store.Store, err error) string {
	if errors.Is(err, store.ErrNoRoot) {
		return s.String() + " is not there (no such folder, a disk that is not mounted, or a bucket that does not exist)"
	}
	return err.Error()
}

// note keeps the health of the store: an error that is an answer of the store is none. One object that cannot be used
// is such an answer: else its reader would give the baton away again and again.
func (a *Archiver) note(err error) {
	if err == nil || errors.Is(err, fs.ErrExist) || unusable(err) || errors.Is(err, context.Canceled) || a.targets != nil {
		return // of several archives noteOf keeps it
	}
	a.mu.Lock()
	was := a.put.failing
	why := Reason(a.archive.store, err)
	a.put.failing, a.put.why = true, why
	a.mu.Unlock()
	if !was {
		a.log.Warn("the archive does not answer", "archive", a.archive.String(), "why", why)
		a.bell.ring()
	}
}

// stalled says whether n has waited for longer than StallTimeout, counted from when it was first asked
// about: PostgreSQL asks again and again, and no single call lasts that long.
func (a *Archiver) stalled(n wal.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, ok := a.waits[n]
	if !ok {
		a.waits[n] = a.o.Now()
		return false
	}
	return a.o.Now().Sub(since) > a.o.StallTimeout
}

// alarm raises an alarm, once.
func (a *Archiver) alarm(row string, n wal.Name, why string) {
	a.mu.Lock()
	key := row + " " + n.String()
	_, known := a.alarms[key]
	if !known {
		a.alarms[key] = Alarm{Row: row, Name: n.String(), Why: why, Since: a.o.Now()}
	}
	a.mu.Unlock()
	if !known {
		a.log.Error("this needs a person", "file", n.String(), "row", row, "why", why)
	}
}

// StoreAnswers says whether the last put succeeded, and if not, why. Of several archives one required one is enough: what it gets is filled into the
// others when they answer again. why names those that do not in any case.
func (a *Archiver) StoreAnswers() (bool, string) {
	if a.targets != nil {
		count, required, why := a.silent()
		return count < required, why
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.put.failing, a.put.why
}

// Alarms gives what needs a person, oldest first.
func (a *Archiver) Alarms() []Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Alarm, 0, len(a.alarms))
	for _, al := range a.alarms {
		out = append(out, al)
	}
	slices.SortFunc(out, func(x, y Alarm) int {
		return cmp.Or(x.Since.Compare(y.Since), strings.Compare(x.Name+x.Row, y.Name+y.Row))
	})
	return out
}

// Probe asks a store that failed whether it takes files again: it puts and removes a small object.
func (a *Archiver) Probe(ctx context.Context) error {
	if ok, _ := a.StoreAnswers(); ok {
		return nil
	}
	if a.targets != nil {
		return nil // LiftAll does
	}
	if err := a.archive.probe(ctx, a.o.Member); err != nil {
		return err
	}
	a.mu.Lock()
	a.put.failing, a.put.why = false, ""
	clear(a.failed)
	a.mu.Unlock()
	a.log.Info("the archive answers again", "archive", a.archive.String())
	a.bell.ring()
	return a.archive.store.Delete(ctx, a.archive.probeKey(a.o.Member))
}

// bell wakes everybody who waits.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// Close lets go of the folder of files set aside. Nothing may run any more.
func (a *Archiver) Close() error {
	if a.keep == nil {
		return nil
	}
	return a.keep.q.Close()
}

// OwnHistory is the history of the timeline that our server is on; zero when it is not known.
func (a *Archiver) OwnHistory() wal.History { return a.own(a.server()) }
