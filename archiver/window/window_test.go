package window

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

const size = wal.SegmentSize(1 << 20)

func seg(t wal.Timeline, no uint64) wal.Segment { return wal.Segment{Timeline: t, Size: size, No: no} }

func key(t wal.Timeline, no uint64) Key { return Key{SystemID: 1, Segment: seg(t, no)} }

// archive is what a window fetches from: segments up to an end, each after a while.
type archive struct {
	mu      sync.Mutex
	takes   time.Duration
	end     uint64 // the last number of timeline 1
	fail    map[Key]error
	fetched []Key
	under   int // way
	most    int
}

func (a *archive) fetch(ctx context.Context, k Key, path string, moves func()) (any, error) {
	a.mu.Lock()
	a.fetched = append(a.fetched, k)
	a.under++
	a.most = max(a.most, a.under)
	takes, err, end := a.takes, a.fail[k], a.end
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.under--
	}()
	select {
	case <-time.After(takes / 2):
		moves()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-time.After(takes / 2):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case err != nil:
		return nil, err
	case k.Segment.No > end:
		return nil, fs.ErrNotExist
	}
	return "here", os.WriteFile(path, []byte(k.Segment.String()), 0o600)
}

func (a *archive) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, k := range a.fetched {
		names = append(names, fmt.Sprintf("%d/%d", k.Segment.Timeline, k.Segment.No))
	}
	return names
}

// server is a PostgreSQL that replays with a window.
type server struct {
	t *testing.T
	w *Window
	a *archive
	o Options

	dir, pgWAL string
	end        func() // of Run
}

// start makes a window, in a bubble where time costs nothing.
func start(t *testing.T, a *archive, change func(*Options)) *server {
	t.Helper()
	s := &server{t: t, a: a, dir: filepath.Join(t.TempDir(), "prefetch"), pgWAL: t.TempDir()}
	s.o = Options{Dir: s.dir, Bytes: 64 * int64(size), Workers: 4, Fetch: a.fetch}
	if change != nil {
		change(&s.o)
	}
	var err error
	if s.w, err = New(s.o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := s.w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s.end = sync.OnceFunc(func() { cancel(); run.Wait() })
	t.Cleanup(s.end)
	synctest.Wait()
	return s
}

// replay asks for segments one after the other, and replays each for so long.
func (s *server) replay(each time.Duration, keys ...Key) {
	s.t.Helper()
	for _, k := range keys {
		s.ask(k)
		time.Sleep(each)
	}
}

// ask asks for one, and says whether the window had it. What it has not the archive gives.
func (s *server) ask(k Key) bool {
	s.t.Helper()
	synctest.Wait()
	root, err := os.OpenRoot(s.pgWAL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer root.Close()
	f := s.w.Ask(s.t.Context(), k, func() {})
	from := f != nil
	if f != nil {
		if f.From() != "here" {
			s.t.Errorf("%v is from %v", k, f.From())
		}
		if err := f.Move(root, "RECOVERYXLOG"); err != nil {
			s.t.Errorf("move %v: %v", k, err)
		}
	} else if _, err := s.a.fetch(s.t.Context(), k, filepath.Join(s.pgWAL, "RECOVERYXLOG"), func() {}); err != nil {
		s.t.Errorf("the archive on %v: %v", k, err)
		return false
	}
	if b, err := os.ReadFile(filepath.Join(s.pgWAL, "RECOVERYXLOG")); err != nil || string(b) != k.Segment.String() {
		s.t.Errorf("asked for %v, got %q, %v", k.Segment, b, err)
	}
	s.w.Given(k)
	synctest.Wait()
	return from
}

// files are the segments in the folder, once nothing is under way any more.
func (s *server) files() []string {
	s.t.Helper()
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name, _, ok := strings.Cut(e.Name(), "-"); ok {
			n, err := wal.ParseName(name, size)
			if err != nil {
				s.t.Fatal(err)
			}
			names = append(names, fmt.Sprintf("%d/%d", n.Segment.Timeline, n.Segment.No))
		}
	}
	slices.Sort(names)
	return names
}

func span(t wal.Timeline, from, to uint64) (keys []Key) {
	for no := from; no <= to; no++ {
		keys = append(keys, key(t, no))
	}
	return keys
}

// 500 segments, each 100 ms away and replayed within 50 ms: after the first steps hardly any call waits.
func TestAlmostNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 100 * time.Millisecond, end: 500}
		s := start(t, a, nil)
		s.replay(50*time.Millisecond, span(1, 1, 500)...)
		got := s.w.Tally()
		if got.Window < 490 || got.Window+got.Waited+got.Archive != 500 || got.Unused != 0 {
			t.Errorf("of 500 segments: %+v", got)
		}
		if n := len(a.asked()); n > 510 { // the end is looked for, too
			t.Errorf("%d requests for 500 segments", n)
		}
		if a.most > 5 { // the call's own, too
			t.Errorf("%d at the same time", a.most)
		}
	})
}

// How far ahead follows what replay consumes.
func TestGrowsAndShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 200 * time.Millisecond, end: 1000}
		s := start(t, a, nil)
		s.replay(0, span(1, 1, 300)...) // it cannot be ahead enough
		if got := s.w.Tally().Ahead; got != 64 {
			t.Errorf("a fast replay: %d ahead, want all that there is room for, 64", got)
		}
		s.replay(3*time.Second, span(1, 301, 400)...)
		if got := s.w.Tally().Ahead; got != least {
			t.Errorf("a slow replay: %d ahead, want %d", got, least)
		}
		if got := s.w.Tally().Bytes; got > 3*int64(size) {
			t.Errorf("a slow replay: %d bytes on the disk", got)
		}
	})
}

// The disk is bounded whatever the replay does.
func TestBoundOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 10 * time.Millisecond, end: 1000}
		s := start(t, a, func(o *Options) { o.Bytes = 3 * int64(size) })
		for _, k := range span(1, 1, 100) {
			s.ask(k)
			if n := len(s.files()); n != 3 {
				t.Fatalf("%d files, 3 have room", n)
			}
		}
	})
}

// PostgreSQL writes to the same disk: the window takes half of what there is, and nothing when nobody knows.
func TestLeavesRoom(t *testing.T) {
	for name, tc := range map[string]struct {
		free int64
		err  error
		want int
	}{"little is free": {4 * int64(size), nil, 3}, "nothing is": {0, nil, 0}, "nobody knows": {1 << 40, errors.New("no such disk"), 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &archive{end: 1000}
				s := start(t, a, nil)
				s.w.mu.Lock()
				s.w.free = func(string) (int64, error) { return tc.free, tc.err }
				s.w.mu.Unlock()
				s.replay(50*time.Millisecond, span(1, 1, 20)...)
				if n := len(s.files()); n != tc.want {
					t.Errorf("%d files, want %d", n, tc.want)
				}
			})
		})
	}
}

// What is not there, or failed, is no answer: the call asks by itself, and only then it goes on.
func TestNeverAnErrorForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 10 * time.Millisecond, end: 10, fail: map[Key]error{key(1, 5): errors.New("no answer")}}
		s := start(t, a, nil)
		s.replay(100*time.Millisecond, span(1, 1, 4)...)
		before := len(a.asked())
		if f := s.w.Ask(t.Context(), key(1, 5), func() {}); f != nil {
			t.Error("the window has what could not be fetched")
		}
		if got := a.asked(); len(got) != before {
			t.Errorf("while the call asks, %v is fetched", got[before:])
		}
		a.fail = nil
		s.replay(100*time.Millisecond, span(1, 5, 10)...)
		if f := s.w.Ask(t.Context(), key(1, 11), func() {}); f != nil {
			t.Error("the window has what is not there")
		}
		// The segment comes. Nobody remembers that it was not there.
		a.mu.Lock()
		a.end = 12
		a.mu.Unlock()
		s.replay(100*time.Millisecond, key(1, 11))
		if !s.ask(key(1, 12)) {
			t.Error("it does not go on after the end")
		}
	})
}

// What failed is tried again while PostgreSQL is busy, not all the time.
func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 10 * time.Millisecond, end: 10, fail: map[Key]error{key(1, 2): errors.New("no answer")}}
		s := start(t, a, nil)
		s.ask(key(1, 1))
		time.Sleep(time.Second)
		a.mu.Lock()
		tries := len(slices.DeleteFunc(slices.Clone(a.fetched), func(k Key) bool { return k != key(1, 2) }))
		a.fail = nil
		a.mu.Unlock()
		if tries != 1 {
			t.Errorf("%d tries within a second, want 1", tries)
		}
		time.Sleep(2 * again)
		if !s.ask(key(1, 2)) {
			t.Error("it was not tried again")
		}
	})
}

// The line tells on which timeline the next segment is, and nothing past a fork is fetched on the wrong one.
func TestFollowsTheLine(t *testing.T) {
	fork := func(no uint64) wal.LSN { return wal.LSN(no)*wal.LSN(size) + 4096 }
	line := wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: fork(5)}, {Timeline: 2, End: wal.LSN(9 * size)}}}
	t.Run("it is known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &archive{takes: 10 * time.Millisecond, end: 100}
			s := start(t, a, nil)
			s.w.Follow(line)
			s.w.Follow(wal.History{Timeline: 2, Forks: []wal.Fork{{Timeline: 1, End: fork(2)}}}) // it is no ancestor, and PostgreSQL asks for it all the same
			s.replay(100*time.Millisecond, slices.Concat(span(1, 1, 4), span(2, 5, 8), span(3, 9, 12))...)
			got := s.w.Tally()
			if got.Archive != 1 || got.Unused != 0 {
				t.Errorf("%+v", got)
			}
			for _, name := range a.asked() {
				if strings.HasPrefix(name, "1/") && name >= "1/5" || name == "2/9" {
					t.Errorf("%s was fetched, past its fork", name)
				}
			}
		})
	})
	t.Run("another recovery takes an older one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &archive{takes: 10 * time.Millisecond, end: 100}
			s := start(t, a, nil)
			s.w.Follow(line)
			s.replay(100*time.Millisecond, span(1, 1, 4)...)
			s.w.Follow(wal.History{Timeline: 2, Forks: line.Forks[:1]}) // recovery_target_timeline = 2
			s.replay(100*time.Millisecond, slices.Concat(span(1, 1, 4), span(2, 5, 12))...)
			if got := s.w.Tally(); got.Archive != 2 {
				t.Errorf("%+v", got)
			}
			for _, name := range a.asked() {
				if strings.HasPrefix(name, "3/") {
					t.Errorf("%s was fetched, of the line of before", name)
				}
			}
		})
	})
	t.Run("it is not known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &archive{takes: 10 * time.Millisecond, end: 100}
			s := start(t, a, nil)
			s.replay(100*time.Millisecond, span(1, 1, 4)...)
			if s.ask(key(2, 5)) {
				t.Error("the window has what nobody could plan")
			}
			if got := s.files(); slices.ContainsFunc(got, func(n string) bool { return strings.HasPrefix(n, "1/") }) {
				t.Errorf("after the switch there is %v", got)
			}
			if !s.ask(key(2, 6)) {
				t.Error("it does not go on along the new timeline")
			}
		})
	})
	t.Run("PostgreSQL takes another one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &archive{takes: 10 * time.Millisecond, end: 100}
			s := start(t, a, nil)
			s.w.Follow(line)
			s.replay(100*time.Millisecond, span(1, 1, 6)...) // recovery_target_timeline = 1
			if !s.ask(key(1, 7)) || s.w.Tally().Unused == 0 {
				t.Errorf("it insists on the line: %+v", s.w.Tally())
			}
		})
	})
}

// A call for something else than the next one begins a new plan; a repeated one does not.
func TestResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: 10 * time.Millisecond, end: 1000}
		s := start(t, a, nil)
		s.replay(100*time.Millisecond, span(1, 100, 110)...)
		before := s.w.Tally()
		s.w.Ask(t.Context(), key(1, 110), func() {}) // the end of a recovery asks for the last one again
		s.w.Given(key(1, 110))
		if got := s.w.Tally(); got.Ready != before.Ready || got.Unused != 0 {
			t.Errorf("a repeated call: %+v, before %+v", got, before)
		}
		s.ask(key(1, 3)) // a backup from before was restored
		if got := s.files(); len(got) == 0 || slices.Contains(got, "1/111") {
			t.Errorf("after another beginning there is %v", got)
		}
		if !s.ask(key(1, 4)) {
			t.Error("it does not go on from there")
		}
		other := Key{SystemID: 2, Segment: seg(1, 5)}
		if s.ask(other) {
			t.Error("another cluster was given a file of the first")
		}
		if s.w.Ask(t.Context(), key(1, 5), func() {}) != nil {
			t.Error("files of the first cluster are still there")
		}
	})
}

// Nobody asks any more, or PostgreSQL streams: the files go.
func TestEnds(t *testing.T) {
	for name, end := range map[string]func(wanted *atomic.Bool, s *server){
		"nobody asks":        func(_ *atomic.Bool, s *server) { time.Sleep(idle + 2*lookEvery) },
		"PostgreSQL streams": func(wanted *atomic.Bool, s *server) { wanted.Store(false); time.Sleep(2 * lookEvery) },
		"the sidecar stops":  func(_ *atomic.Bool, s *server) { s.end() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &archive{takes: 100 * time.Millisecond, end: 1000}
				var wanted atomic.Bool
				wanted.Store(true)
				s := start(t, a, func(o *Options) { o.Wanted = wanted.Load })
				s.replay(100*time.Millisecond, span(1, 1, 10)...)
				if len(s.files()) == 0 {
					t.Fatal("nothing was prefetched")
				}
				end(&wanted, s)
				before := len(a.asked())
				if got := s.files(); len(got) != 0 || a.under != 0 {
					t.Errorf("there is still %v, and %d are under way", got, a.under)
				}
				time.Sleep(time.Hour)
				if got := a.asked(); len(got) != before {
					t.Errorf("%v was fetched afterwards", got[before:])
				}
			})
		})
	}
}

// What a killed process has left is removed, and nothing else; two windows never share a folder.
func TestCleans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"000000010000000000000001-7.prefetched", ".walbaton-AAAAAAAAAAAAAAAAAAAAAAAAAA.tmp", "000000010000000000000001", "mine"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a := &archive{end: 100}
		time.Sleep(time.Until(time.Now().Add(100 * 365 * 24 * time.Hour))) // the bubble's clock is behind that of the files
		first := start(t, a, func(o *Options) { o.Dir = dir })
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if want := []string{"000000010000000000000001", "lock", "mine"}; !slices.Equal(names, want) {
			t.Errorf("there is %v, want %v", names, want)
		}
		second := start(t, a, func(o *Options) { o.Dir = dir })
		second.ask(key(1, 1))
		if second.ask(key(1, 2)) {
			t.Error("two windows share a folder")
		}
		first.ask(key(1, 1))
		if !first.ask(key(1, 2)) {
			t.Error("the first one does not work any more")
		}
	})
}

// A call that is given up, or a file that somebody changed.
func TestOddCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &archive{takes: time.Hour, end: 100}
		s := start(t, a, nil)
		s.w.Given(key(1, 1))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		moved := false
		if f := s.w.Ask(ctx, key(1, 2), func() { moved = true }); f != nil || moved {
			t.Errorf("a call waited beyond its end, or was told that bytes move")
		}
		a.mu.Lock()
		a.takes = 0
		a.mu.Unlock()
		s.w.Given(key(1, 10))
		if !s.ask(key(1, 11)) {
			t.Error("it does not go on")
		}
		paths, err := filepath.Glob(filepath.Join(s.dir, seg(1, 12).String()+"-*"))
		if err != nil || len(paths) != 1 {
			t.Fatal(paths, err)
		}
		if err := os.WriteFile(paths[0], []byte("something else"), 0o600); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(s.pgWAL)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f := s.w.Ask(t.Context(), key(1, 12), func() {})
		if f == nil || f.Move(root, "CHANGED") == nil {
			t.Error("a file that somebody changed is given")
		}
		if there(filepath.Join(s.pgWAL, "CHANGED")) {
			t.Error("and lies there")
		}
	})
}

// On another file system the file is copied.
func TestMoveCopies(t *testing.T) {
	elsewhere, err := os.MkdirTemp("/dev/shm", "walbaton-window-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(elsewhere) })
	synctest.Test(t, func(t *testing.T) {
		a := &archive{end: 100}
		s := start(t, a, func(o *Options) { o.Dir = filepath.Join(elsewhere, "prefetch") })
		s.dir = filepath.Join(elsewhere, "prefetch")
		s.replay(time.Second, span(1, 1, 9)...)
		if got := s.w.Tally(); got.Window != 8 {
			t.Errorf("%+v", got)
		}
		s.end()
		if got := s.files(); len(got) != 0 {
			t.Errorf("%v was left", got)
		}
	})
}

func TestNew(t *testing.T) {
	a := &archive{}
	for name, o := range map[string]Options{
		"no folder":  {Bytes: 1, Workers: 1, Fetch: a.fetch},
		"relative":   {Dir: "x", Bytes: 1, Workers: 1, Fetch: a.fetch},
		"no fetch":   {Dir: "/x", Bytes: 1, Workers: 1},
		"no room":    {Dir: "/x", Workers: 1, Fetch: a.fetch},
		"no workers": {Dir: "/x", Bytes: 1, Fetch: a.fetch},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
