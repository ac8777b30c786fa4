package window

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Key names a segment of one cluster: another one in the same place has files of the same names.
type Key struct {
	SystemID uint64
	Segment  wal.Segment
}

// Options are what a Window is told once.
type Options struct {
	// Dir is the folder of the files, best on pg_wal's file system, where giving a file is a rename. It is made when it is first
	// needed. It belongs to the window alone.
	Dir string
	// Bytes is how much of the disk the files may take.
	Bytes int64
	// Workers is how many segments are fetched at the same time.
	Workers int
	// Fetch writes the whole, checked and durable segment to path, or nothing. It calls moves when bytes begin to come,
	// and says from where they come, in words of its own.
	Fetch func(ctx context.Context, k Key, path string, moves func()) (from any, err error)
	// Wanted says whether PostgreSQL reads from the archive at all. nil: yes. It is asked often, and must not block.
	Wanted func() bool

	Idle    time.Duration         // without a call the window ends after this time; 0 is a minute
	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

const (
	idle      = time.Minute
	least     = 2               // segments ahead
	lookEvery = time.Second     // whether the window is wanted
	again     = 5 * time.Second // after which what was absent, or failed, is tried once more
	nextTry   = time.Minute     // after which a folder that could not be used is looked at again
	tooEarly  = time.Second     // a file that lay there for this time and four times that of its fetching came too early
)

// Window is the window of one recovery at a time. It may be used concurrently.
type Window struct {
	o    Options
	log  *slog.Logger
	m    *metrics
	wake chan struct{} // something may be to do
	free func(dir string) (bytes int64, err error)

	mu     sync.Mutex
	runs   bool
	next   Key         // that PostgreSQL is to ask for next; zero: nobody knows
	asks   Key         // the call for this one asks the archive by itself; nothing is begun meanwhile
	how    string      // the present call is answered: window, waited or archive
	last   Key         // that was given last
	line   wal.History // that the recovery follows; timeline 0: not known
	told   bool        // by a history since the last segment
	ahead  int         // how many segments from next on are to be there
	files  map[Key]*file
	asked  time.Time
	folder *folder   // nil until it is used
	retry  time.Time // the folder is not tried before
	count  int       // of files, for their names
	tally  Tally
}

// Tally is what the window did since it was made.
type Tally struct {
	Ready   int // files that are there
	Ahead   int // segments it means to be ahead; 0: it rests
	Bytes   int64
	Window  int // segments given at once: they were there
	Waited  int // given when they had come: they were under way
	Archive int // given to calls that asked the archive by themselves
	Fetched int // files
	Unused  int // of those, that nobody asked for
}

// file is one segment, under way or there.
type file struct {
	key    Key
	path   string
	cancel context.CancelFunc
	begun  time.Time
	moves  chan struct{} // closed when bytes begin to come
	done   chan struct{} // closed at the end; what is below is not written after that
	ended  time.Time
	err    error
	from   any
	info   os.FileInfo
}

// is says whether the file has come to its end.
func (f *file) is() (done bool) {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// New checks the options. Without Run a Window does nothing.
func New(o Options) (*Window, error) {
	switch {
	case !filepath.IsAbs(o.Dir):
		return nil, fmt.Errorf("make window: the folder %q is not absolute", o.Dir)
	case o.Fetch == nil:
		return nil, errors.New("make window: nothing to fetch with")
	case o.Bytes <= 0 || o.Workers <= 0:
		return nil, errors.New("make window: no room, or no workers")
	}
	if o.Wanted == nil {
		o.Wanted = func() bool { return true }
	}
	if o.Idle == 0 {
		o.Idle = idle
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &Window{o: o, log: o.Log, wake: make(chan struct{}, 1), free: diskFree, files: map[Key]*file{}}
	w.m = newMetrics(o.Metrics, w)
	return w, nil
}

// Run works until ctx ends. All that it began has ended then, and its files are gone.
func (w *Window) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	if there(w.o.Dir) { // what a process that was killed has left
		w.mu.Lock()
		w.use()
		w.mu.Unlock()
	}
	w.setRuns(true)
	defer w.close()
	defer workers.Wait()
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		w.launch(ctx, &workers)
		select {
		case <-w.wake:
		case <-look.C:
			w.look()
		case <-ctx.Done():
			w.setRuns(false)
			return nil
		}
	}
}

func (w *Window) setRuns(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = yes
	if !yes {
		w.rest()
	}
}

// close gives the folder back. The workers have ended.
func (w *Window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.folder != nil {
		w.folder.close()
		w.folder = nil
	}
}

func (w *Window) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// look ends a window that nobody needs, and lets what failed be tried once more.
func (w *Window) look() {
	wanted := w.o.Wanted()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !wanted || time.Since(w.asked) >= w.o.Idle {
		w.rest()
	}
	w.forget(again)
}

// forget lets what was absent, or failed, so long ago be tried once more. The caller holds mu.
func (w *Window) forget(ago time.Duration) {
	for k, f := range w.files {
		if f.is() && f.err != nil && time.Since(f.ended) >= ago {
			delete(w.files, k)
		}
	}
}

// rest throws everything away and plans nothing, until the next call. The caller holds mu.
func (w *Window) rest() {
	for _, f := range w.files {
		w.drop(f)
	}
	w.next, w.asks, w.last, w.ahead = Key{}, Key{}, Key{}, 0 // the line stays: a wrong one is found out by the calls
}

// drop throws a file away, or ends its fetching. The caller holds mu.
func (w *Window) drop(f *file) {
	delete(w.files, f.key)
	f.cancel()
	if f.is() && f.err == nil {
		w.unused(f)
	}
}

// unused removes a file that nobody asked for. The caller holds mu.
func (w *Window) unused(f *file) {
	w.tally.Unused++
	w.m.unused.Inc()
	if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.log.Warn("prefetched file not removed", "file", f.path, "why", err)
	}
}

// launch begins to fetch what is planned and not there.
func (w *Window) launch(ctx context.Context, workers *sync.WaitGroup) {
	wanted := w.o.Wanted()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !wanted || w.next == (Key{}) || ctx.Err() != nil || !w.runs || !w.use() {
		return
	}
	busy := 0
	for _, f := range w.files {
		if !f.is() {
			busy++
		}
	}
	k := w.next
	for range w.ahead {
		f := w.files[k]
		switch {
		case f != nil && f.is() && f.err != nil:
			return // the end of what the archive has, or of what it gives now
		case f != nil:
		case k == w.asks, busy >= w.o.Workers, !w.room(int64(k.Segment.Size)):
			return
		default:
			busy++
			w.begin(ctx, k, workers)
		}
		k = w.after(k)
	}
}

// begin starts a worker. The caller holds mu.
func (w *Window) begin(ctx context.Context, k Key, workers *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	w.count++
	f := &file{key: k, path: w.folder.path(k, w.count), cancel: cancel, begun: time.Now(), moves: make(chan struct{}), done: make(chan struct{})}
	w.files[k] = f
	workers.Go(func() {
		defer w.ring()
		defer cancel()
		from, err := w.o.Fetch(ctx, k, f.path, sync.OnceFunc(func() { close(f.moves) }))
		var info os.FileInfo
		if err == nil {
			info, err = os.Lstat(f.path)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		f.from, f.err, f.info, f.ended = from, err, info, time.Now()
		close(f.done)
		w.m.file(err)
		if err != nil {
			w.log.Debug("segment not prefetched", "file", k.Segment.String(), "why", err)
			return
		}
		w.tally.Fetched++
		if w.files[k] != f {
			w.unused(f) // it was dropped meanwhile
		}
	})
}

// room says whether one more segment may be fetched: the window keeps to its bound, and leaves as much as it takes free
// for PostgreSQL. The caller holds mu.
func (w *Window) room(size int64) bool {
	taken := w.bytes() + size
	free, err := w.free(w.o.Dir)
	return err == nil && taken <= w.o.Bytes && taken <= (free+w.bytes())/2
}

// bytes that the files take, or will. The caller holds mu.
func (w *Window) bytes() (sum int64) {
	for k, f := range w.files {
		if !f.is() || f.err == nil {
			sum += int64(k.Segment.Size)
		}
	}
	return sum
}

// most is how many segments of a size the window may be ahead.
func (w *Window) most(size wal.SegmentSize) int { return int(w.o.Bytes / int64(size)) }

// use opens the folder, if it is not open. The caller holds mu.
func (w *Window) use() bool {
	if w.folder != nil || time.Now().Before(w.retry) {
		return w.folder != nil
	}
	f, err := openFolder(w.o.Dir)
	if err != nil {
		w.retry = time.Now().Add(nextTry)
		w.log.Warn("nothing is prefetched: its folder cannot be used", "folder", w.o.Dir, "why", err)
		return false
	}
	w.folder = f
	return true
}

// Tally says what the window did.
func (w *Window) Tally() Tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tally
	t.Ahead, t.Bytes = w.ahead, 0
	for k, f := range w.files {
		if f.is() && f.err == nil {
			t.Ready++
			t.Bytes += int64(k.Segment.Size)
		}
	}
	return t
}
