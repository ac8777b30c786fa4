package archiver_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	"github.com/walbaton/walbaton/archiver/window"
)

// ahead is a Restorer that prefetches, in a test's bubble.
type ahead struct {
	t    *testing.T
	r    *archiver.Restorer
	data string
}

func startAhead(t *testing.T, o archiver.RestoreOptions) *ahead {
	t.Helper()
	o.Ahead = &window.Options{Dir: filepath.Join(t.TempDir(), "prefetch"), Bytes: 64 << 20, Workers: 4}
	o.Recovery, o.Standby = time.Minute, time.Minute
	r, err := archiver.NewRestorer(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := r.Prefetch(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); run.Wait() })
	synctest.Wait()
	return &ahead{t, r, o.DataDir}
}

// fetch asks as PostgreSQL does, and replays until all that is under way has come.
func (a *ahead) fetch(name string) (archiver.Outcome, []byte) {
	a.t.Helper()
	base := "RECOVERYXLOG"
	if strings.HasSuffix(name, ".history") {
		base = "RECOVERYHISTORY"
	}
	return a.fetchTo(name, base)
}

func (a *ahead) fetchTo(name, base string) (archiver.Outcome, []byte) {
	a.t.Helper()
	dst := filepath.Join(a.data, "pg_wal", base)
	out := a.r.Fetch(a.t.Context(), name, dst)
	b, err := os.ReadFile(dst)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.t.Fatal(err)
	}
	if err := os.RemoveAll(dst); err != nil {
		a.t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	return out, b
}

// given fails the test unless the file is given with these bytes.
func (a *ahead) given(n wal.Name, want []byte) {
	a.t.Helper()
	if out, b := a.fetch(n.String()); out.Code != 0 || !bytes.Equal(b, want) {
		a.t.Errorf("%s: exit %d with %d bytes, want 0 with %d: %s", n, out.Code, len(b), len(want), out.Why)
	}
}

// A recovery along two promotions, as PostgreSQL asks (postgres-wal 4.3): all but the first segment are there when it asks.
func TestPrefetch(t *testing.T) {
	one, two, three := forked()
	for _, files := range []string{recovery, standby} {
		t.Run(files, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := prepare(t, seg(1, 1))
				for _, w := range []*waltest.Writer{one, two, three} {
					p.fill(w)
				}
				a := startAhead(t, archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, files)})
				for name, code := range map[string]int{"00000002.history": 0, "00000003.history": 0, "00000004.history": 1} {
					if out, _ := a.fetch(name); out.Code != code {
						t.Errorf("%s: %v", name, out)
					}
				}
				for no := uint64(1); no < 5; no++ {
					a.given(segName(1, no), one.Segment(seg(1, no)))
				}
				for no := uint64(5); no < 9; no++ {
					a.given(segName(2, no), two.Segment(seg(2, no)))
				}
				for no := uint64(9); no < 13; no++ {
					a.given(segName(3, no), three.Segment(seg(3, no)))
				}
				for range 2 { // PostgreSQL 15 asks twice
					if out, _ := a.fetch(segName(3, 13).String()); out.Code != 1 {
						t.Errorf("the end: %v", out)
					}
				}
				if got := a.r.Prefetched(); got.Window != 11 || got.Archive != 1 || got.Unused != 0 {
					t.Errorf("of 12 segments: %+v", got)
				}
			})
		})
	}
}

// What was prefetched is given only if it would be given now (P6).
func TestPrefetchedIsNoAnswer(t *testing.T) {
	one, two, _ := forked()
	old := one.Clone(0)
	old.Fill(3) // the old primary went on alone
	for name, tc := range map[string]struct {
		files string
		then  func(p *prepared, o *oracle) // after segment 3, with 4 to 7 in the window
		ask   wal.Name
		code  int
	}{
		"in the middle, the store is silent":      {recovery, func(p *prepared, _ *oracle) { p.store.Unmount(true) }, segName(1, 4), 0},
		"at its end, the store is silent":         {recovery, func(p *prepared, _ *oracle) { p.store.Unmount(true) }, segName(1, 8), 200},
		"a standby, the line left timeline 1":     {standby, func(_ *prepared, o *oracle) { o.line = two.History() }, segName(1, 5), 1},
		"a standby, before the line left it":      {standby, func(_ *prepared, o *oracle) { o.line = two.History() }, segName(1, 4), 0},
		"a standby, only the archive knows it":    {standby, func(p *prepared, _ *oracle) { p.put(wal.HistoryName(2), two.History().Bytes()) }, segName(1, 6), 1},
		"a recovery may go where the line is not": {recovery, func(_ *prepared, o *oracle) { o.line = two.History() }, segName(1, 4), 0},
		"a standby streams, the store is silent":  {standby, func(p *prepared, _ *oracle) { p.store.Unmount(true) }, segName(1, 4), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := prepare(t, seg(1, 1))
				p.fill(old)
				o := &oracle{line: one.History()}
				a := startAhead(t, archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, tc.files), Oracle: o})
				for no := uint64(1); no < 4; no++ {
					a.given(segName(1, no), old.Segment(seg(1, no)))
				}
				if got := a.r.Prefetched(); got.Ready != 4 {
					t.Fatalf("prefetched is %+v, want 4 segments", got)
				}
				tc.then(p, o)
				if out, b := a.fetch(tc.ask.String()); out.Code != tc.code || out.Code == 0 && !bytes.Equal(b, old.Segment(tc.ask.Segment)) {
					t.Errorf("exit %d with %d bytes, want %d: %s", out.Code, len(b), tc.code, out.Why)
				}
			})
		})
	}
}

// What cannot be prefetched is asked for by the call, which says why it is not there.
func TestPrefetchFails(t *testing.T) {
	_, two, _ := forked()
	for name, tc := range map[string]struct {
		spoil func(p *prepared)
		why   string
	}{
		"a hole":           {func(p *prepared) { p.remove(segName(2, 7)) }, "has a hole"},
		"a damaged object": {func(p *prepared) { k := p.a.Key(segName(2, 7)); p.set(k, append(p.get(k)[:5000], 1)) }, "cannot say"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := prepare(t, seg(2, 5))
				p.fill(two)
				tc.spoil(p)
				a := startAhead(t, archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, recovery)})
				a.given(segName(2, 5), two.Segment(seg(2, 5)))
				a.given(segName(2, 6), two.Segment(seg(2, 6)))
				out, _ := a.fetch(segName(2, 7).String())
				if out.Code != 200 || !strings.Contains(out.Why, tc.why) {
					t.Errorf("exit %d, want 200: %s", out.Code, out.Why)
				}
			})
		})
	}
}

// pg_rewind's calls, and those of people, neither get nor disturb what is prefetched.
func TestPrefetchIsForTheServer(t *testing.T) {
	one, _, _ := forked()
	synctest.Test(t, func(t *testing.T) {
		p := prepare(t, seg(1, 1))
		p.fill(one)
		gets := 0
		counted := archiver.Source{Scope: "main", Store: mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
			if c.Op == mem.OpGet {
				gets++
			}
			return mem.Fault{}
		})}
		a := startAhead(t, archiver.RestoreOptions{Own: counted, DataDir: dataDir(t, systemID, recovery), Member: "n1"})
		a.given(segName(1, 1), one.Segment(seg(1, 1)))
		before, was := gets, a.r.Prefetched()
		for _, no := range []uint64{3, 2, 1} {
			if out, b := a.fetchTo(segName(1, no).String(), segName(1, no).String()); out.Code != 0 || !bytes.Equal(b, one.Segment(seg(1, no))) {
				t.Errorf("pg_rewind: %v", out)
			}
		}
		if got := a.r.Prefetched(); gets != before+3 || got != was {
			t.Errorf("pg_rewind made %d requests for 3 segments; the window is %+v, and was %+v", gets-before, got, was)
		}
		before = gets
		a.given(segName(1, 2), one.Segment(seg(1, 2)))
		if gets > before+1 { // that is looked for what comes after the last
			t.Errorf("a prefetched segment cost %d requests", gets-before)
		}
	})
}

// Our own cluster begins a timeline of a number that its origin has, too: what was prefetched of the origin's is a twin's from then on.
func TestPrefetchedOfATwin(t *testing.T) {
	one, theirs, _ := forked()
	early := waltest.New(systemID, segSize)
	early.Commit(time.Unix(1_700_000_000, 0))
	early.Fill(2)
	ours := early.Fork(2)
	ours.Fill(2)
	synctest.Test(t, func(t *testing.T) {
		origin, own := prepare(t, seg(1, 1)), prepare(t, seg(1, 1))
		origin.fill(one)
		origin.fill(theirs)
		a := startAhead(t, archiver.RestoreOptions{Own: own.source(), Others: []archiver.Source{origin.source()}, DataDir: dataDir(t, systemID, recovery)})
		a.given(segName(2, 5), theirs.Segment(seg(2, 5)))
		a.given(segName(2, 6), theirs.Segment(seg(2, 6)))
		if a.r.Prefetched().Ready == 0 {
			t.Fatal("nothing was prefetched")
		}
		own.fill(ours)
		if out, _ := a.fetch(segName(2, 7).String()); out.Code == 0 {
			t.Error("a twin's segment is given")
		}
	})
}
