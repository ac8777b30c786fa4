package archiver

import (
	"context"
	"errors"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// The tests here run the loops around the steps. Under testing/synctest nothing waits for real, and a test
// whose goroutines have not all returned fails. inotify cannot be waited for in there, so tests of Tend take real time.

// slowStore is a store in memory that spoils puts, and remembers when each put of a WAL file began and ended.
type slowStore struct {
	*mem.Faults
	mu    sync.Mutex
	spoil func(base string) mem.Fault // nil spoils nothing
	puts  []*put
}

type put struct {
	name    string
	began   time.Time
	running bool
	ended   time.Time
	err     error
}

func newSlowStore() *slowStore {
	s := &slowStore{}
	s.Faults = mem.NewFaults(mem.New("slow"), func(c mem.Call) mem.Fault {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.Op != mem.OpPut || s.spoil == nil {
			return mem.Fault{}
		}
		return s.spoil(path.Base(c.Key))
	})
	return s
}

// Put implements store.Store.
func (s *slowStore) Put(ctx context.Context, key string, b store.Body) error {
	s.mu.Lock()
	p := &put{name: path.Base(key), began: time.Now(), running: true}
	s.puts = append(s.puts, p)
	s.mu.Unlock()
	err := s.Faults.Put(ctx, key, b)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.running, p.ended, p.err = false, time.Now(), err
	return err
}

// running counts the puts under way. The caller holds mu.
func (s *slowStore) running() (n int) {
	for _, p := range s.puts {
		if p.running {
			n++
		}
	}
	return n
}

func (s *slowStore) set(spoil func(base string) mem.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = spoil
}

// take gives the puts since the last time, and how many are still under way: those come again.
func (s *slowStore) take() (puts []put, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.puts {
		puts = append(puts, *p)
	}
	s.puts = slices.DeleteFunc(s.puts, func(p *put) bool { return !p.running })
	return puts, len(s.puts)
}

// background runs f and gives a channel that is closed when it has returned.
func background(t *testing.T, f func() error) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the loop returned %v", err)
		}
	}()
	return done
}

func returned(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// TestHangingUploadsGetTheGrace: a store that hangs holds a term up for the grace and no longer, and when
// Lead returns no upload is under way and none begins.
func TestHangingUploadsGetTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), newSlowStore()
		w.Fill(1)
		n := newTestNode(t, s, "n1", w)
		n.workers(4)
		n.copyFrom(w, ".ready")
		n.shipAll(1)
		w.Fill(8)
		n.copyFrom(w, ".ready")
		s.take()
		s.set(func(string) mem.Fault { return mem.Fault{Hang: true} })
		ctx, cancel := context.WithCancel(t.Context())
		done := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
		time.Sleep(10 * time.Second)
		cancel()
		time.Sleep(n.o.Grace - time.Millisecond)
		synctest.Wait()
		if returned(done) {
			t.Error("Lead returned while its uploads ran")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		puts, running := s.take()
		if !returned(done) || running != 0 {
			t.Errorf("after the grace: returned %v, %d uploads under way, want true and 0", returned(done), running)
		}
		if len(puts) != 4 {
			t.Errorf("uploads that hung: got %d, want 4, one for each worker", len(puts))
		}
		if n.Term() != 0 {
			t.Error("the archiver still believes that it is in a term")
		}
		time.Sleep(time.Minute)
		if puts, _ := s.take(); len(puts) != 0 {
			t.Errorf("%d uploads began after Lead had returned", len(puts))
		}
	})
}

// TestWorkersAreShared: a term that begins while the node ships without the baton has the same workers, and no others.
func TestWorkersAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), newSlowStore()
		w.Fill(1)
		n := newTestNode(t, s, "n1", w)
		n.workers(4)
		n.copyFrom(w, ".ready")
		n.shipAll(1)
		n.EndTerm()
		n.sees(func(c *Cluster, _ *Server) { c.NoDCS = true })
		w.Fill(12)
		n.copyFrom(w, ".ready")
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		s.take()
		s.set(func(string) mem.Fault { return mem.Fault{Hang: true} })
		ctx, cancel := context.WithCancel(t.Context())
		alone := background(t, func() error { return n.shipUntil(ctx, n.ShippableAlone) })
		time.Sleep(time.Second)
		if _, running := s.take(); running != 4 {
			t.Errorf("without the baton %d upload at once, want 4", running)
		}
		term := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
		time.Sleep(10 * time.Second)
		if puts, running := s.take(); len(puts) != 4 || running != 4 {
			t.Errorf("in the term %d uploads began or went on, and %d upload at once, want the same 4", len(puts), running)
		}
		cancel()
		<-alone
		<-term
	})
}

// lateContext shows its end on Done before it calls those who asked for a call, as every context does, but for longer.
type lateContext struct {
	context.Context
	done chan struct{}
}

func (c lateContext) Done() <-chan struct{} { return c.done }

func (c lateContext) AfterFunc(f func()) (stop func() bool) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-c.done:
		case <-stopped:
			return
		}
		time.Sleep(10 * time.Millisecond)
		select {
		case <-stopped:
		default:
			f()
		}
	}()
	return sync.OnceValue(func() bool { close(stopped); return true })
}

func (c lateContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// TestGraceIsNotMissed: Lead may see the end of its term before the call that begins the grace was made.
func TestGraceIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), newSlowStore()
		w.Fill(3)
		n := newTestNode(t, s, "n1", w)
		n.copyFrom(w, ".ready")
		s.set(func(string) mem.Fault { return mem.Fault{Hang: true} })
		ctx := lateContext{t.Context(), make(chan struct{})}
		done := background(t, func() error {
			return n.shipUntil(ctx, func() []wal.Name { return []wal.Name{wal.SegmentName(w.Full()[0])} })
		})
		n.BeginTerm(t.Context(), 1, Set{})
		time.Sleep(5 * time.Second)
		if _, running := s.take(); running != 1 {
			t.Fatalf("uploads under way: got %d, want 1", running)
		}
		close(ctx.done)
		time.Sleep(n.o.Grace + 20*time.Millisecond)
		synctest.Wait()
		if !returned(done) {
			t.Fatal("the grace never ends")
		}
	})
}

// TestUploadsFinishInTheGrace: uploads that run when a term ends may finish; no other begins.
func TestUploadsFinishInTheGrace(t *testing.T) {
	rounds := 8 // what is wrong here may go well by chance
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		synctest.Test(t, func(t *testing.T) {
			w, s := newWriter(), newSlowStore()
			w.Fill(1)
			n := newTestNode(t, s, "n1", w)
			n.workers(4)
			n.copyFrom(w, ".ready")
			n.shipAll(1)
			w.Fill(12)
			n.copyFrom(w, ".ready")
			s.take()
			s.set(func(string) mem.Fault { return mem.Fault{Delay: 700 * time.Millisecond} })
			ctx, cancel := context.WithCancel(t.Context())
			done := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
			time.Sleep(400 * time.Millisecond)
			ended := time.Now()
			cancel()
			<-done
			puts, running := s.take()
			if took := time.Since(ended); took > 300*time.Millisecond || running != 0 || len(puts) != 4 {
				t.Errorf("the term took %v to end, with %d uploads, %d of them still under way; want 300ms, 4 and 0", took, len(puts), running)
			}
			for _, p := range puts {
				if p.err != nil || p.began.After(ended) {
					t.Errorf("upload of %s: began %v after the end of the term, error %v", p.name, p.began.Sub(ended), p.err)
				}
			}
		})
	}
}

// TestTermWithoutAnswers: a listing that hangs keeps no term from ending.
func TestTermWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter()
		w.Fill(3)
		hang := false
		s := mem.NewFaults(mem.New("x"), func(c mem.Call) mem.Fault { return mem.Fault{Hang: hang} })
		n := newTestNode(t, s, "n1", w)
		n.copyFrom(w, ".ready")
		hang = true
		ctx, cancel := context.WithCancel(t.Context())
		done := background(t, func() error { return n.Lead(ctx, 1, Set{}) })
		time.Sleep(time.Minute)
		began := time.Now()
		cancel()
		<-done
		if took := time.Since(began); took > n.o.Grace {
			t.Errorf("Lead took %v to return, want at most %v", took, n.o.Grace)
		}
	})
}

// TestPutWakesThePush: a push that waits is answered when its file is put, not at the next look.
func TestPutWakesThePush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), newSlowStore()
		w.Fill(1)
		n := newTestNode(t, s, "n1", w)
		n.copyFrom(w, ".ready")
		n.shipAll(1)
		w.Fill(3)
		n.copyFrom(w, ".ready")
		s.take()
		s.set(func(string) mem.Fault { return mem.Fault{Delay: 630 * time.Millisecond} })
		ctx, cancel := context.WithCancel(t.Context())
		done := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
		var wg sync.WaitGroup
		answered := map[string]time.Time{}
		var mu sync.Mutex
		for _, g := range w.Full()[1:] {
			wg.Go(func() {
				r := n.Push(t.Context(), wal.SegmentName(g))
				if r.Code != 0 {
					t.Errorf("push %v: got %+v, want 0", g, r)
				}
				mu.Lock()
				defer mu.Unlock()
				answered[g.String()] = time.Now()
			})
		}
		wg.Wait()
		cancel()
		<-done
		puts, _ := s.take()
		if len(puts) != 3 {
			t.Fatalf("puts: got %+v, want 3", puts)
		}
		for _, p := range puts {
			if late := answered[p.name].Sub(p.ended); late < 0 || late > 100*time.Millisecond {
				t.Errorf("push %s was answered %v after its file was put, want within 100ms and not before (P1)", p.name, late)
			}
		}
	})
}

// tendBlind is Tend without a look at the folder, for tests under synctest.
func tendBlind(ctx context.Context, n *testNode) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.confirmUntil(ctx) })
	g.Go(func() error { return n.shipUntil(ctx, func() []wal.Name { return n.NextAlone(ctx) }) })
	return g.Wait()
}

// TestHistoryGoesFirst: no segment of a timeline is put before its history, whatever the workers do, also when another loop
// has the history in hand, and when its first put fails.
func TestHistoryGoesFirst(t *testing.T) {
	faults := map[string]func(int) mem.Fault{
		"slow":  func(int) mem.Fault { return mem.Fault{Delay: 3 * time.Second} },
		"fails": func(try int) mem.Fault { return mem.Fault{Drop: try < 3} },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s := newWriter(), newSlowStore()
				w.Fill(2)
				n := newTestNode(t, s, "n1", w)
				n.workers(4)
				n.copyFrom(w, ".ready")
				n.shipAll(1)
				n.EndTerm()
				fork := w.Fork(2)
				fork.Fill(6)
				n.write("00000002.history", fork.History().Bytes(), ".ready")
				n.sees(func(c *Cluster, s *Server) { c.Line, s.Timeline = fork.History(), 2 })
				n.copyFrom(fork, ".ready")
				s.take()
				tries := 0
				s.set(func(base string) mem.Fault {
					if base != "00000002.history" {
						return mem.Fault{}
					}
					tries++
					return fault(tries)
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := background(t, func() error { return tendBlind(ctx, n) })
				time.Sleep(time.Second) // and the term begins while the history is on its way
				led := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
				time.Sleep(30 * time.Second)
				cancel()
				<-done
				<-led
				puts, _ := s.take()
				var kept time.Time
				for _, p := range puts {
					if p.name == "00000002.history" && p.err == nil {
						kept = p.ended
					}
				}
				if kept.IsZero() {
					t.Fatal("the history was not put")
				}
				segments := 0
				for _, p := range puts {
					if strings.HasPrefix(p.name, "00000002") && p.name != "00000002.history" && p.err == nil {
						segments++
						if p.began.Before(kept) {
							t.Errorf("%s was put %v before the history of its timeline", p.name, kept.Sub(p.began))
						}
					}
				}
				if segments != 6 {
					t.Errorf("segments of timeline 2 in the archive: got %d, want 6", segments)
				}
			})
		})
	}
}

// TestOpensWithOneSegment: without the baton the leader puts the first segment of a timeline and no other, although
// four workers have one each.
func TestOpensWithOneSegment(t *testing.T) { synctest.Test(t, testOpensWithOneSegment) }

func testOpensWithOneSegment(t *testing.T) {
	w, s := newWriter(), newSlowStore()
	w.Fill(8)
	n := newTestNode(t, s, "n1", w)
	n.workers(4)
	n.o.Grace = 100 * time.Millisecond
	n.copyFrom(w, ".ready")
	s.take()
	s.set(func(string) mem.Fault { return mem.Fault{Delay: 30 * time.Millisecond} })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := tendBlind(ctx, n); err != nil {
		t.Fatal(err)
	}
	puts, _ := s.take()
	if len(puts) != 1 || puts[0].name != w.Full()[0].String() {
		t.Errorf("puts: got %+v, want one of the first segment, %v", puts, w.Full()[0])
	}
}

// TestStoreComesBack: a store that fails shows in StoreAnswers, and when it takes files again shipping goes on without
// anything being started anew.
func TestStoreComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), mem.New("x")
		w.Fill(1)
		n := newTestNode(t, s, "n1", w)
		n.copyFrom(w, ".ready")
		n.shipAll(1)
		n.EndTerm()
		ctx, cancel := context.WithCancel(t.Context())
		tended := background(t, func() error { return tendBlind(ctx, n) })
		led := background(t, func() error { return n.Lead(ctx, 2, Set{}) })
		time.Sleep(5 * time.Second)
		n.calls.fail(true)
		w.Fill(5)
		n.copyFrom(w, ".ready")
		time.Sleep(5 * time.Second)
		if ok, why := n.StoreAnswers(); ok || why == "" {
			t.Errorf("StoreAnswers while the store fails: got %v %q", ok, why)
		}
		time.Sleep(10 * time.Minute) // tries are put off, at most half a minute
		n.calls.take()
		n.calls.fail(false)
		time.Sleep(3 * time.Second)
		if ok, why := n.StoreAnswers(); !ok {
			t.Errorf("StoreAnswers after the store came back: %q", why)
		}
		if got := n.calls.take()[mem.OpPut]; got != 6 {
			t.Errorf("puts after the store came back: got %d, want a probe and five segments", got)
		}
		for _, g := range w.Full() {
			if !n.cover.has(wal.SegmentName(g)) {
				t.Errorf("%v is not in the archive", g)
			}
		}
		cancel()
		<-tended
		<-led
	})
}

// TestTendReturns when its context ends, with an upload that hangs, and leaves nothing behind.
func TestTendReturns(t *testing.T) {
	w, s := newWriter(), newSlowStore()
	w.Fill(1)
	n := newTestNode(t, s, "n1", w)
	n.o.Grace = 50 * time.Millisecond
	n.copyFrom(w, ".ready")
	s.set(func(base string) mem.Fault { return mem.Fault{Hang: base == w.Full()[0].String()} })
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := background(t, func() error { return n.Tend(ctx) })
	eventually(t, "the upload begins", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running() == 1
	})
	began := time.Now()
	cancel()
	<-done
	if took := time.Since(began); took > time.Second {
		t.Errorf("Tend took %v to return", took)
	}
	if _, running := s.take(); running != 0 {
		t.Errorf("%d uploads are under way after Tend has returned", running)
	}
	eventually(t, "its goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// TestTendSeesNewFiles: what PostgreSQL finishes is seen without being told.
func TestTendSeesNewFiles(t *testing.T) {
	w, s := newWriter(), mem.New("x")
	w.Fill(1)
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	ctx, cancel := context.WithCancel(t.Context())
	tended := background(t, func() error { return n.Tend(ctx) })
	led := background(t, func() error { return n.Lead(ctx, 1, Set{}) })
	w.Fill(2)
	for _, g := range w.Full()[1:] {
		n.write(g.String(), w.Segment(g), ".ready")
	}
	n.mu.Lock()
	n.srv.Flush = w.Pos()
	n.mu.Unlock()
	eventually(t, "all segments are in the archive", func() bool { return n.archivedSegments() == 3 })
	cancel()
	<-tended
	<-led
}

// TestTendEndsWithItsFolder: when pg_wal is replaced (a clone is made anew) Tend says so, and the sidecar opens the new one.
func TestTendEndsWithItsFolder(t *testing.T) {
	w, s := newWriter(), mem.New("x")
	w.Fill(1)
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- n.Tend(ctx) }()
	eventually(t, "the folder is watched", func() bool { return n.archivedSegments() == 1 })
	began := time.Now()
	if err := os.Rename(n.dir, n.dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.dir+"/archive_status", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, queue.ErrReplaced) {
		t.Errorf("Tend: got %v, want queue.ErrReplaced", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Tend took %v to notice", took)
	}
}

// TestBacklogIsCheap: 2,000 files that wait cost one listing, and little memory each, read or not.
func TestBacklogIsCheap(t *testing.T) {
	const files, read = 2000, 60
	w, s := newWriter(), mem.New("x")
	w.Fill(read)
	n := newTestNode(t, s, "n1", w)
	n.copyFrom(w, ".ready")
	last := w.Full()[len(w.Full())-1]
	for range files - read {
		last = last.Next()
		n.write(last.String(), nil, ".ready")
		if err := os.Truncate(path.Join(n.dir, last.String()), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	n.sees(func(_ *Cluster, s *Server) { s.Flush = last.End() })
	n.BeginTerm(t.Context(), 1, Set{})
	n.calls.take()
	before := heap()
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if err := n.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.calls.take()[mem.OpList]; got != 2 {
		t.Errorf("listings: got %d, want one of the histories and one of timeline 1", got)
	}
	if got := n.State().Waiting; got != files {
		t.Errorf("waiting: got %d, want %d", got, files)
	}
	if each := (heap() - before) / files; each > 500 {
		t.Errorf("a file that was not read costs %d bytes of memory, want at most 500", each)
	}
	before = heap()
	for _, name := range n.Shippable()[:read] {
		if err := n.Ship(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.calls.take(); got[mem.OpList] > 2 || got[mem.OpPut] != read {
		t.Errorf("requests for %d segments: got %v, want as many puts, and two looks at the timeline that is opened", read, got)
	}
	sizes := int64(0)
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		sizes += info.Size // the store keeps them in this memory
	}
	if each := (heap() - before - sizes) / read; each > 200_000 { // the sealer's memory is in it, too
		t.Errorf("a file that was shipped costs %d bytes of memory", each)
	}
}

// heap is the memory in use.
func heap() int64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied by two collections
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// eventually waits, for seconds at most, until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come that %s", what)
		}
	}
}

// archivedSegments counts what the node knows the archive to have.
func (n *testNode) archivedSegments() int {
	archived := n.cover.archived()
	return int(archived.Len())
}

// TestSilentDCSFillsNoDisk: a node that the DCS does not answer hears of no mark. It finds out by itself what others have
// shipped, many files with one listing, and its pushes are answered.
func TestSilentDCSFillsNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWriter(), mem.New("shared")
		w.Fill(1)
		n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
		n1.copyFrom(w, ".ready")
		n1.shipAll(1)
		n2.copyFrom(w, ".ready")
		n2.silent = true
		ctx, cancel := context.WithCancel(t.Context())
		done := background(t, func() error { return n2.confirmUntil(ctx) })
		time.Sleep(2 * time.Second)
		w.Fill(30)
		n1.copyFrom(w, ".ready")
		n2.copyFrom(w, ".ready")
		n1.shipAll(1)
		n2.calls.take()
		time.Sleep(2 * lookAfter)
		if st := n2.State(); !st.Misses.Empty() {
			t.Errorf("after %v it still takes %d segments for missing", 2*lookAfter, st.Misses.Len())
		}
		if lists := n2.calls.take()[mem.OpList]; lists > 8 {
			t.Errorf("%d listings in %v", lists, 2*lookAfter)
		}
		cancel()
		<-done
	})
}
