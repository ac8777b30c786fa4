package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// watching is a running Watch or Poll.
type watching struct {
	t     *testing.T
	woken chan struct{} // unbuffered: wake blocks until the test takes it
	ended chan error
}

func watch(t *testing.T, run func(context.Context, func()) error) *watching {
	t.Helper()
	w := &watching{t: t, woken: make(chan struct{}), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		w.ended <- run(ctx, func() {
			select {
			case w.woken <- struct{}{}:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-joined })
	w.wakes("the start")
	return w
}

func (w *watching) wakes(why string) {
	w.t.Helper()
	select {
	case <-w.woken:
	case err := <-w.ended:
		w.t.Fatalf("%s: ended with %v, want a wake-up", why, err)
	case <-time.After(patience):
		w.t.Fatalf("%s: no wake-up", why)
	}
}

// quiet swallows what is still under way and then wants silence for a while.
func (w *watching) quiet(why string, during time.Duration) {
	w.t.Helper()
	select {
	case <-w.woken:
		w.t.Errorf("%s: got a wake-up, want none", why)
	case err := <-w.ended:
		w.t.Fatalf("%s: ended with %v", why, err)
	case <-time.After(during):
	}
}

func (w *watching) ends(why string, want error) {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case <-w.woken:
		case err := <-w.ended:
			if !errors.Is(err, want) {
				w.t.Errorf("%s: ended with %v, want %v", why, err, want)
			}
			return
		case <-timeout:
			w.t.Fatalf("%s: has not ended", why)
		}
	}
}

func TestWatchWakes(t *testing.T) {
	dir := t.TempDir()
	status := filepath.Join(dir, statusDir)
	put(t, dir, statusDir+"/x", "xlogtemp.1", seg1)
	q := open(t, dir)
	w := watch(t, q.Watch)

	put(t, dir, statusDir+"/"+seg1+".ready")
	w.wakes("a .ready file")
	put(t, dir, statusDir+"/"+seg2+".done")
	w.wakes("a new .done file (walreceiver)")
	put(t, dir, seg2)
	w.wakes("a new segment")
	if err := os.Rename(filepath.Join(dir, "xlogtemp.1"), filepath.Join(dir, history)); err != nil {
		t.Fatal(err)
	}
	w.wakes("a history file that got its name")
	if err := q.MarkReady(name(t, seg2)); err != nil {
		t.Fatal(err)
	}
	w.wakes(".done renamed to .ready")

	if err := q.MarkDone(name(t, seg1)); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "xlogtemp.2", "summaries/x", statusDir+"/y.ready")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, seg1), []byte("written to"), 0o600),
		os.Remove(filepath.Join(dir, seg1)), os.Remove(filepath.Join(status, seg1+".done"))); err != nil {
		t.Fatal(err)
	}
	w.quiet("archived, written to, removed, and names that are not ours", 300*time.Millisecond)
}

// Patroni wipes archive_status, pg_rewind removes it; it comes back by mkdir or by rename.
func TestWatchSurvivesArchiveStatus(t *testing.T) {
	dir := t.TempDir()
	status := filepath.Join(dir, statusDir)
	w := watch(t, open(t, dir).Watch)
	for round := range 3 {
		put(t, dir, statusDir+"/"+seg1+".ready")
		w.wakes("archive_status is made")
		w.drain(500 * time.Millisecond)
		put(t, dir, statusDir+"/"+seg2+".ready")
		w.wakes("a file in the new archive_status")
		switch round {
		case 0:
			if err := os.RemoveAll(status); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := os.Rename(status, filepath.Join(dir, "old")); err != nil {
				t.Fatal(err)
			}
		}
		w.drain(500 * time.Millisecond)
	}
	put(t, dir, "old/"+seg3+".ready")
	w.quiet("a file in the folder that was archive_status", 300*time.Millisecond)
}

// drain takes wake-ups until none came for a while.
func (w *watching) drain(during time.Duration) {
	for {
		select {
		case <-w.woken:
		case <-time.After(during):
			return
		}
	}
}

// While nobody listens the kernel's queue overflows (16,384 events by default). No wake-up is lost.
func TestWatchSurvivesOverflow(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	var events int
	if _, err := fmt.Sscan(string(limit), &events); err != nil || events > 1<<16 {
		t.Fatalf("max_queued_events is %q, %v: too many to fill", limit, err)
	}
	dir := t.TempDir()
	put(t, dir, statusDir+"/x", "xlogtemp.1")
	w := watch(t, open(t, dir).Watch)
	put(t, dir, seg1)
	time.Sleep(100 * time.Millisecond) // Watch waits in wake now
	// Events that wake nobody by themselves: one file goes to and fro between two names.
	a, b := filepath.Join(dir, "xlogtemp.1"), filepath.Join(dir, "xlogtemp.2")
	for range events + 10 {
		if err := os.Rename(a, b); err != nil {
			t.Fatal(err)
		}
		a, b = b, a
	}
	put(t, dir, statusDir+"/"+seg1+".ready") // this event is lost
	w.wakes("the segment")
	w.wakes("the overflow")
	w.drain(300 * time.Millisecond)
	put(t, dir, statusDir+"/"+seg2+".ready")
	w.wakes("a .ready file after the overflow")
}

func TestWatchAndPollEnd(t *testing.T) {
	for what, replace := range map[string]func(dir string) error{
		"removed":    os.RemoveAll,
		"moved away": func(dir string) error { return os.Rename(dir, dir+".old") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700))
		},
	} {
		for i := range 2 {
			dir := filepath.Join(t.TempDir(), "pg_wal")
			put(t, dir, seg1)
			q := open(t, dir)
			q.tick = 20 * time.Millisecond
			w := watch(t, []func(context.Context, func()) error{q.Watch, q.Poll}[i])
			if err := replace(dir); err != nil {
				t.Fatal(err)
			}
			w.ends(what, ErrReplaced)
		}
	}

	q := open(t, t.TempDir())
	q.tick = time.Hour // so that only the context ends it
	for _, run := range []func(context.Context, func()) error{q.Watch, q.Poll} {
		ctx, cancel := context.WithCancel(context.Background())
		w := watch(t, func(_ context.Context, wake func()) error { return run(ctx, wake) })
		cancel()
		w.ends("cancelled", context.Canceled)
	}
}

func TestRescan(t *testing.T) {
	q := open(t, t.TempDir())
	q.tick, q.rescan = 10*time.Millisecond, 50*time.Millisecond
	for _, run := range []func(context.Context, func()) error{q.Watch, q.Poll} {
		w := watch(t, run)
		w.wakes("the first rescan")
		w.wakes("the second rescan")
	}
}

func TestPollWakes(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	q.tick = 50 * time.Millisecond
	w := watch(t, q.Poll)
	for _, path := range []string{seg1, statusDir + "/" + seg1 + ".ready", statusDir + "/" + seg2 + ".ready"} {
		put(t, dir, path)
		w.wakes(path)
		w.drain(3 * q.tick)
	}
	if err := os.RemoveAll(filepath.Join(dir, statusDir)); err != nil {
		t.Fatal(err)
	}
	w.wakes("archive_status is removed")
	w.drain(3 * q.tick)
	w.quiet("nothing", 4*q.tick)
}

// A process without a free file descriptor gets no inotify instance. The error says so, so that the caller
// can poll.
func TestNoInotify(t *testing.T) {
	q := open(t, t.TempDir())
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := q.Watch(t.Context(), func() {})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrNoInotify) || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v, want ErrNoInotify and the cause", err)
	}
}

// Nothing is left open by a Watch that has ended.
func TestWatchClosesItsFile(t *testing.T) {
	q := open(t, t.TempDir())
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = q.Watch(ctx, func() {}) // the runtime opens its poller with the first one
	before := count()
	for range 10 {
		if err := q.Watch(ctx, func() {}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if after := count(); after != before {
		t.Errorf("got %d open files, %d before", after, before)
	}
}
