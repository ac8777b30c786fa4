package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/window"
)

// The exit codes of restore_command, as PostgreSQL reads them (xlogarchive.c, RestoreArchivedFile): 1 to 125
// mean "not there", and outside standby mode recovery ends there and the server is promoted; above
// 125 recovery stops and can be resumed.
const (
	Restored  = 0
	NotThere  = 1
	CannotSay = 200
)

// How long a fetch goes on asking before it answers that it cannot say.
const (
	// Recovery that stops needs a person to start it again, so it waits through a store's restart.
	RecoveryPatience = 10 * time.Minute
	// A rewind that gives up makes a node be cloned anew; but nobody can log in to that node meanwhile.
	RewindPatience = time.Minute
	// A standby streams meanwhile, and comes back after wal_retrieve_retry_interval (5 s). It asks several
	// times during a promotion, which waits for each answer: so once, and a silent store no longer than this.
	StandbyPatience = 2 * time.Second
)

// Outcome is the answer to restore_command. Why is one line for PostgreSQL's log, and empty when the
// file was restored as it was asked for.
type Outcome struct {
	Code int
	Why  string
}

// Source is where one archive is read: the cluster's folder is <Scope>/<system identifier>.
type Source struct {
	Store store.Store
	Scope string
	Keys  []seal.Identity // for what is encrypted
}

func (s Source) String() string { return s.Store.String() + " (scope " + s.Scope + ")" }

// Leader is what one reading says of the holder of Patroni's leader key.
type Leader struct {
	Name    string // "" when nobody holds the key
	Self    bool   // it is this node
	Live    bool   // its record or its member key is held by a lease
	Standby bool   // this is a standby cluster: its leader is in recovery
	// Timeline that its server is on; 0 when that is not known.
	Timeline wal.Timeline
}

// Oracle is what a fetch asks the cluster around it.
type Oracle interface {
	// Leader reads the leader key linearizably, for this call. On error nothing is hidden.
	Leader(ctx context.Context) (Leader, error)
	// Line gives the line as it was last known, without a request; Timeline 0 when it never was.
	Line() wal.History
}

// RestoreOptions are what a Restorer is told once. Own is needed, the rest may be zero.
type RestoreOptions struct {
	Own    Source
	Others []Source // restore_from: asked in this order for what the ones before have not
	Oracle Oracle   // nil: no DCS is asked, and no history is hidden

	// DataDir is PostgreSQL's data directory. Its pg_control names the cluster, its signal files say what
	// recovery this is.
	DataDir string
	// SystemID and SegmentSize stand for pg_control where there is no data directory. They prove
	// nothing about a server, and are for people.
	SystemID    uint64
	SegmentSize wal.SegmentSize

	Member string // whose orphans pg_rewind gets; "": none
	// Kept is the folder where histories are kept with their content, for when the archive is silent.
	// "" keeps none. It is made when it is not there, and may be deleted at any time.
	Kept string

	Recovery, Standby time.Duration // how long to ask; 0 means RecoveryPatience, StandbyPatience
	// Ahead is how a recovery's segments are prefetched, its Fetch aside; nil: each call asks the archives itself.
	Ahead *window.Options
	Log   *slog.Logger // nil: none
}

// Restorer answers restore_command (P6): the exact bytes, or a proven "not there", or "cannot say".
//
//	rest, err := archiver.NewRestorer(archiver.RestoreOptions{Own: archiver.Source{Store: s, Scope: "main"}, DataDir: "/pgdata"})
//	o := rest.Fetch(ctx, "000000010000000000000007", "/pgdata/pg_wal/RECOVERYXLOG")
//	os.Exit(o.Code)
//
// It may be used concurrently.
type Restorer struct {
	o      RestoreOptions
	log    *slog.Logger
	window *window.Window // nil: nothing is prefetched

	mu        sync.Mutex
	archives  map[archiveKey]*Archive
	histories map[historyKey]wal.History // they never change
	swept     map[string]bool            // folders where temp files of dead processes were removed
}

type archiveKey struct {
	source   int // 0 is Own
	systemID uint64
}

type historyKey struct {
	archive  *Archive
	timeline wal.Timeline
}

// NewRestorer checks the options.
func NewRestorer(o RestoreOptions) (*Restorer, error) {
	switch {
	case o.Own.Store == nil:
		return nil, errors.New("make restorer: no archive")
	case o.DataDir == "" && (o.SystemID == 0 || !o.SegmentSize.Valid()):
		return nil, errors.New("make restorer: neither a data directory nor a system identifier and segment size")
	}
	if o.Recovery == 0 {
		o.Recovery = RecoveryPatience
	}
	if o.Standby == 0 {
		o.Standby = StandbyPatience
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Restorer{o: o, log: o.Log, archives: map[archiveKey]*Archive{}, histories: map[historyKey]wal.History{}, swept: map[string]bool{}}
	if o.Ahead == nil {
		return r, nil
	}
	ahead := *o.Ahead
	ahead.Fetch = r.fetchAhead
	var err error
	if r.window, err = window.New(ahead); err != nil {
		return nil, fmt.Errorf("make restorer: %w", err)
	}
	return r, nil
}

// Fetch puts the file called name (%f) at dst, an absolute path (%p), and says how that went. dst is
// replaced in one step by a durable file, or not touched.
func (r *Restorer) Fetch(ctx context.Context, name, dst string) Outcome {
	w := wanted{text: name, dst: filepath.Clean(dst)}
	w.mode = r.modeOf(w.dst, name)
	deadline := time.Now().Add(r.patience(w.mode))
	said := ""
	for try, wait := 1, 250*time.Millisecond; ; try, wait = try+1, min(2*wait, 5*time.Second) {
		err := r.attempt(ctx, &w, deadline)
		var none *absentError
		switch {
		case err == nil:
			return Outcome{Code: Restored, Why: w.note}
		case errors.As(err, &none):
			return Outcome{Code: NotThere, Why: fmt.Sprintf("%s is not in the archive: %s", name, none.why)}
		}
		if (w.mode == onStandby || w.mode == promoting) && r.fromKept(ctx, &w) {
			return Outcome{Code: Restored, Why: fmt.Sprintf("%s is from the histories kept here, since the archive cannot be asked: %v", name, err)}
		}
		if w.mode == onStandby {
			return w.cannotSay(err)
		}
		// Damage may have happened on the way: it gets a second look. A key that is missing stays missing.
		if hopeless(err) && (try > 1 || errors.Is(err, seal.ErrEncrypted)) || ctx.Err() != nil || time.Now().Add(wait).After(deadline) {
			return w.cannotSay(err)
		}
		if said != err.Error() && !hopeless(err) {
			said = err.Error()
			r.log.Warn("cannot say yet whether the archive has it", "file", name, "why", said, "until", deadline.Format(time.TimeOnly))
		}
		if !sleep(ctx, wait) {
			return w.cannotSay(err)
		}
	}
}

func (r *Restorer) patience(m mode) time.Duration {
	switch m {
	case inRecovery:
		return r.o.Recovery
	case onStandby:
		return r.o.Standby
	}
	return min(r.o.Recovery, RewindPatience)
}

// wanted is one call of restore_command, and what was learned for it.
type wanted struct {
	text string // %f
	dst  string
	mode mode

	name     wal.Name
	systemID uint64
	size     wal.SegmentSize
	own      *Archive // nil: it answered, and has not begun
	note     string   // what is worth a line although it worked
	from     *Archive // that it was read from
}

// absentError is a proven "not there".
type absentError struct{ why string }

func (e *absentError) Error() string { return e.why }

func absent(format string, args ...any) error { return &absentError{fmt.Sprintf(format, args...)} }

// errHopeless marks what no further try will change.
var errHopeless = errors.New("asking again will not help")

type hopelessError struct{ error }

func (hopelessError) Is(target error) bool { return target == errHopeless }
func (e hopelessError) Unwrap() error      { return e.error }

func hopeless(err error) bool { return errors.Is(err, errHopeless) }

// cannotSay never lets PostgreSQL take silence for the end of the WAL.
func (w *wanted) cannotSay(err error) Outcome {
	why := fmt.Sprintf("cannot say whether the archive has %s: %v", w.text, err)
	next := "; walbaton verify looks for holes and damage"
	if errors.Is(err, seal.ErrEncrypted) {
		why, next = fmt.Sprintf("cannot restore %s: %v", w.text, err), ""
	}
	switch w.mode {
	case inRecovery:
		return Outcome{CannotSay, why + " (recovery stops here, and goes on when PostgreSQL is started again" + next + ")"}
	case onStandby:
		return Outcome{NotThere, why + " (the standby streams, and asks again)"}
	}
	return Outcome{NotThere, why}
}

// attempt asks once. It gives nil when the file is at its place, an *absentError when it is proven not to
// be there, and otherwise why nobody can say. Finding ends at the deadline; moving bytes does not.
func (r *Restorer) attempt(ctx context.Context, w *wanted, deadline time.Time) error {
	if quick := time.Now().Add(r.o.Standby); w.mode == promoting && quick.Before(deadline) {
		deadline = quick // between the tries the histories kept here are looked at
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(time.Until(deadline), func() { cancel(errSilent) })
	defer late.Stop()
	err := r.try(ctx, w, late)
	if err != nil && context.Cause(ctx) == errSilent && !errors.Is(err, errSilent) {
		return fmt.Errorf("%w (%w)", errSilent, err)
	}
	return err
}

var errSilent = errors.New("the archive did not answer in time")

func (r *Restorer) try(ctx context.Context, w *wanted, late *time.Timer) error {
	if err := r.identify(w); err != nil {
		return err
	}
	if w.name == wal.HistoryName(1) {
		return absent("the first timeline has no history")
	}
	archives, err := r.open(ctx, w)
	if err != nil {
		return err
	}
	f := &finder{r: r, w: w, archives: archives, moves: func() { late.Stop() }}
	switch {
	case w.name.Kind == wal.KindHistory:
		return f.history(ctx)
	case w.name.Kind != wal.KindSegment:
		return f.exact(ctx)
	}
	err = f.segment(ctx)
	if err == nil && f.mayPrefetch() {
		r.window.Given(w.key())
	}
	return err
}

// identify learns from pg_control which cluster this is, and reads the name with its segment size.
func (r *Restorer) identify(w *wanted) error {
	w.systemID, w.size = r.o.SystemID, r.o.SegmentSize
	if r.o.DataDir != "" {
		c, err := readControl(r.o.DataDir)
		if err != nil {
			return hopelessError{err} // a torn one was read again already
		}
		w.systemID, w.size = c.SystemID, c.SegmentSize
	}
	n, err := wal.ParseName(w.text, w.size)
	if err != nil {
		return hopelessError{err}
	}
	w.name = n
	return nil
}

// open opens the archives to ask, in their order. That an archive which answers has no archive.json
// is proof of nothing: the prefix may be wrong, the disk not mounted. Only a clone's own archive, which
// begins after its first start, may have none yet.
func (r *Restorer) open(ctx context.Context, w *wanted) ([]*Archive, error) {
	var out []*Archive
	for i, src := range append([]Source{r.o.Own}, r.o.Others...) {
		a, err := r.openOne(ctx, archiveKey{i, w.systemID}, src)
		switch {
		case errors.Is(err, fs.ErrNotExist) && i == 0 && len(r.o.Others) > 0:
			continue
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%s has no archive of system identifier %d: check archive.url and scope, and that the disk is mounted", src, w.systemID)
		case errors.Is(err, store.ErrNoRoot):
			return nil, errors.New(Reason(src.Store, err))
		case err != nil:
			return nil, err
		case a.SegmentSize() != w.size:
			return nil, hopelessError{fmt.Errorf("open %s: %w: its segments have %d bytes, and this server's %d", a, ErrFormat, a.SegmentSize(), w.size)}
		}
		if i == 0 {
			w.own = a
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *Restorer) openOne(ctx context.Context, k archiveKey, src Source) (*Archive, error) {
	r.mu.Lock()
	a := r.archives[k]
	r.mu.Unlock()
	if a != nil {
		return a, nil
	}
	a, err := OpenArchive(ctx, src.Store, src.Scope, k.systemID, src.Keys...)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.archives[k] = a
	return a, nil
}
