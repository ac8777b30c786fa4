package archiver_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// oracle is a cluster that says what a test wants.
type oracle struct {
	leader archiver.Leader
	err    error
	line   wal.History
	asked  int
}

func (o *oracle) Leader(context.Context) (archiver.Leader, error) { o.asked++; return o.leader, o.err }
func (o *oracle) Line() wal.History                               { return o.line }

// down is a store that never answers.
func down(s store.Store) store.Store {
	return mem.NewFaults(s, func(mem.Call) mem.Fault { return mem.Fault{Drop: true} })
}

const (
	standby  = "standby.signal"
	recovery = "recovery.signal"
)

// fetch asks for a file as PostgreSQL or (rewind) as pg_rewind does, and gives what is at %p afterwards.
// In its bubble patience takes no time, and a slow machine does not use it up.
func fetch(t *testing.T, o archiver.RestoreOptions, name string, rewind bool) (out archiver.Outcome, b []byte) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { out, b = fetchHere(t, o, name, rewind) })
	return out, b
}

// fetchHere is fetch for tests that have a bubble of their own.
func fetchHere(t *testing.T, o archiver.RestoreOptions, name string, rewind bool) (archiver.Outcome, []byte) {
	t.Helper()
	base := "RECOVERYXLOG"
	if strings.HasSuffix(name, ".history") {
		base = "RECOVERYHISTORY"
	}
	if rewind {
		base = name
	}
	dir := filepath.Join(o.DataDir, "pg_wal")
	dst := filepath.Join(dir, base)
	if o.Recovery == 0 {
		o.Recovery = time.Minute
	}
	if o.Standby == 0 {
		o.Standby = time.Minute
	}
	r, err := archiver.NewRestorer(o)
	if err != nil {
		t.Fatal(err)
	}
	out := r.Fetch(t.Context(), name, dst)
	b, err := os.ReadFile(dst)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != base && !strings.HasSuffix(e.Name(), ".history") {
			t.Errorf("%s was left in pg_wal", e.Name())
		}
	}
	if (out.Code == archiver.Restored) != (err == nil && b != nil) && !rewind {
		t.Errorf("exit %d, and %d bytes at %%p", out.Code, len(b))
	}
	return out, b
}

// Each rule of DESIGN section 8, for each who may call.
func TestFetchRules(t *testing.T) {
	one, two, three := forked()
	old := one.Clone(0)
	old.Fill(3) // the old primary went on alone after the promotion
	other := waltest.New(systemID, segSize).Clone(7)
	other.Fill(6)
	branch := branchOf(two)
	whole := prepare(t, seg(1, 1))
	site, elsewhere := prepare(t, seg(1, 1)), prepare(t, seg(1, 1)) // other sites
	site.fill(one)
	elsewhere.fill(other)
	for _, w := range []*waltest.Writer{one, two, three} {
		whole.fill(w)
	}
	const s = 200 // cannot say
	none := []byte(nil)
	type codes struct{ recovery, standby, rewind int }
	told := fetchPage{}
	for name, tc := range map[string]struct {
		spoil func(p *prepared, o *archiver.RestoreOptions)
		ask   wal.Name
		want  codes
		bytes []byte // where 0 is answered
		why   string // part of what the first caller with another code than 0, or with a note, is told
	}{
		"there": {nil, segName(1, 3), codes{0, 0, 0}, one.Segment(seg(1, 3)), ""},
		"the end of the WAL": {nil, segName(3, 13), codes{1, 1, 1}, none,
			"answered, and has neither it nor WAL after it"},
		"a hole": {func(p *prepared, _ *archiver.RestoreOptions) { p.remove(segName(2, 7)) }, segName(2, 7), codes{s, 1, 1}, none,
			"has a hole: 000000020000000000000007 is missing, and 000000020000000000000008 is there"},
		"a hole before a partial": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.remove(segName(2, 8))
			p.put(partialName(2, 9), three.Segment(seg(2, 9)))
		}, segName(2, 8), codes{s, 1, 1}, none, "has a hole"},
		"below the floor": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.remove(segName(1, 1))
			p.set("main/7710542482846769188/floor/0000000100200000", []byte(`{"timeline":1,"lsn":"0/200000"}`))
		}, segName(1, 1), codes{s, 1, 1}, none, "below the floor"},
		"the store is silent": {func(p *prepared, o *archiver.RestoreOptions) { o.Own.Store = down(p.store) }, segName(1, 3), codes{s, 1, 1}, none,
			"cannot say"},
		"the disk is not mounted": {func(p *prepared, _ *archiver.RestoreOptions) { p.store.Unmount(true) }, segName(1, 3), codes{s, 1, 1}, none,
			"is not there (no such folder"},
		"a wrong prefix": {func(_ *prepared, o *archiver.RestoreOptions) { o.Own.Scope = "mian" }, segName(1, 3), codes{s, 1, 1}, none,
			"check archive.url and scope, and that the disk is mounted"},
		"another cluster's archive": {func(p *prepared, o *archiver.RestoreOptions) {
			o.DataDir = dataDir(p.t, 99, recovery)
		}, segName(1, 3), codes{s, 1, 1}, none, "no archive of system identifier 99"},
		"a server with other segments": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.set("main/7710542482846769188/archive.json", bytes.Replace(p.get("main/7710542482846769188/archive.json"), []byte("1048576"), []byte("2097152"), 1))
		}, segName(1, 3), codes{s, 1, 1}, none, "its segments have 2097152 bytes"},
		"archive.json is gone when nothing was found": {func(p *prepared, o *archiver.RestoreOptions) {
			gets := 0
			o.Own.Store = mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
				if strings.HasSuffix(c.Key, "archive.json") {
					if gets++; gets > 1 {
						return mem.Fault{Err: fs.ErrNotExist, Drop: true}
					}
				}
				return mem.Fault{}
			})
		}, segName(3, 13), codes{s, 1, 1}, none, "archive.json"},
		"no WAL name": {nil, wal.Name{Kind: wal.KindSegment}, codes{s, 1, 1}, none, "parse WAL name"},

		"cut in the archive": {func(p *prepared, _ *archiver.RestoreOptions) {
			k := p.a.Key(segName(1, 3))
			b := p.get(k)
			p.set(k, b[:len(b)-1])
		}, segName(1, 3), codes{s, 1, 1}, none, "cut short"},
		"changed in the archive": {func(p *prepared, _ *archiver.RestoreOptions) {
			k := p.a.Key(segName(1, 3))
			b := p.get(k)
			b[len(b)/2] ^= 1
			p.set(k, b)
		}, segName(1, 3), codes{s, 1, 1}, none, "damaged"},
		"another cluster's segment": {func(p *prepared, _ *archiver.RestoreOptions) {
			n := segName(1, 3)
			p.set(p.a.Key(n), p.object(seal.Header{Name: n.String(), SystemID: 99}, one.Segment(n.Segment)))
		}, segName(1, 3), codes{s, 1, 1}, none, "it is of system identifier 99"},
		"another cluster's WAL in our object": {func(p *prepared, _ *archiver.RestoreOptions) {
			w := waltest.New(99, segSize)
			w.Fill(3)
			p.put(segName(1, 3), w.Segment(seg(1, 3)))
		}, segName(1, 3), codes{s, 1, 1}, none, "it is not that segment"},
		"another segment": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.set(p.a.Key(segName(1, 3)), p.get(p.a.Key(segName(1, 2))))
		}, segName(1, 3), codes{s, 1, 1}, none, "it holds 000000010000000000000002"},
		"too short": {func(p *prepared, _ *archiver.RestoreOptions) { p.put(segName(1, 3), one.Segment(seg(1, 3))[:8192]) }, segName(1, 3), codes{s, 1, 1}, none,
			"it holds 8192 bytes"},
		"accepted by an administrator": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.put(segName(1, 3), waltest.Zero(one.Segment(seg(1, 3)), 500_000))
		}, segName(1, 3), codes{0, 0, 0}, waltest.Zero(one.Segment(seg(1, 3)), 500_000), ""},

		"the fork is inside, only the partial is there": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.put(partialName(1, 5), two.Segment(seg(1, 5)))
		}, segName(1, 5), codes{0, 1, 1}, two.Segment(seg(1, 5)), "is from 000000010000000000000005.partial"},
		"the fork is inside, the old primary shipped it whole": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.put(segName(1, 5), old.Segment(seg(1, 5)))
		}, segName(1, 5), codes{0, 1, 0}, old.Segment(seg(1, 5)), "timeline 1 ended at"},
		"past the fork": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.put(segName(1, 6), old.Segment(seg(1, 6)))
		}, segName(1, 6), codes{0, 1, 0}, old.Segment(seg(1, 6)), "timeline 1 ended at"},
		"the first segment of a timeline is missing, the parent's is there": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.remove(segName(3, 9))
			for no := uint64(10); no < 13; no++ {
				p.remove(segName(3, no))
			}
			p.put(segName(2, 9), branch.Segment(seg(2, 9)))
		}, segName(3, 9), codes{s, 1, 1}, none, "recovery_target_timeline = '2'"},
		"the first segment of a timeline is missing, the parent's is partial": {func(p *prepared, _ *archiver.RestoreOptions) {
			for no := uint64(9); no < 13; no++ {
				p.remove(segName(3, no))
			}
			p.put(partialName(2, 9), three.Segment(seg(2, 9)))
		}, segName(3, 9), codes{1, 1, 1}, none, "answered, and "},

		"an orphan of its own": {func(p *prepared, _ *archiver.RestoreOptions) {
			b := old.Segment(seg(1, 6))
			p.set(p.a.OrphanKey("n1", segName(1, 6), seal.DigestOf(b)), p.object(seal.Header{Name: segName(1, 6).String()}, b))
		}, segName(1, 6), codes{1, 1, 0}, old.Segment(seg(1, 6)), "answered, and "},
		"an orphan of another member": {func(p *prepared, _ *archiver.RestoreOptions) {
			b := old.Segment(seg(1, 6))
			p.set(p.a.OrphanKey("n2", segName(1, 6), seal.DigestOf(b)), p.object(seal.Header{Name: segName(1, 6).String()}, b))
		}, segName(1, 6), codes{1, 1, 1}, none, "answered, and "},
		"two orphans of its own": {func(p *prepared, _ *archiver.RestoreOptions) {
			for _, b := range [][]byte{old.Segment(seg(1, 6)), other.Segment(seg(1, 6))} {
				p.set(p.a.OrphanKey("n1", segName(1, 6), seal.DigestOf(b)), p.object(seal.Header{Name: segName(1, 6).String()}, b))
			}
		}, segName(1, 6), codes{1, 1, 1}, none, "answered, and "},

		"a history":               {nil, wal.HistoryName(2), codes{0, 0, 0}, two.History().Bytes(), ""},
		"a history that is not":   {nil, wal.HistoryName(4), codes{1, 1, 1}, none, "answered, and "},
		"the first history":       {nil, wal.HistoryName(1), codes{1, 1, 1}, none, "the first timeline has no history"},
		"a history of nonsense":   {func(p *prepared, _ *archiver.RestoreOptions) { p.put(wal.HistoryName(2), []byte("x")) }, wal.HistoryName(2), codes{s, 1, 1}, none, "cannot say"},
		"a history, silent store": {func(p *prepared, o *archiver.RestoreOptions) { o.Own.Store = down(p.store) }, wal.HistoryName(2), codes{s, 1, 1}, none, "cannot say"},
		"a history, silent store, pg_wal has it": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Own.Store = down(p.store)
			writeFile(p.t, filepath.Join(o.DataDir, "pg_wal", "00000002.history"), two.History().Bytes())
		}, wal.HistoryName(2), codes{s, 0, 1}, two.History().Bytes(), "cannot say"},
		"a history, silent store, it is kept": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Kept = p.t.TempDir()
			r, err := archiver.NewRestorer(*o)
			if err != nil {
				p.t.Fatal(err)
			}
			if err := r.KeepHistories(p.t.Context()); err != nil {
				p.t.Fatal(err)
			}
			o.Own.Store = down(p.store)
		}, wal.HistoryName(3), codes{s, 0, 1}, three.History().Bytes(), "cannot say"},
		"a backup label": {func(p *prepared, _ *archiver.RestoreOptions) {
			p.put(wal.Name{Kind: wal.KindBackup, Segment: seg(2, 6), Offset: 0x28}, []byte("START"))
		}, wal.Name{Kind: wal.KindBackup, Segment: seg(2, 6), Offset: 0x28}, codes{0, 0, 0}, []byte("START"), ""},

		"its own archive has not begun": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Own, o.Others = archiver.Source{Store: mem.New("new"), Scope: "clone"}, []archiver.Source{p.source()}
		}, segName(1, 3), codes{0, 0, 0}, one.Segment(seg(1, 3)), ""},
		"its own archive has not begun, and the origin has it not": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Own, o.Others = archiver.Source{Store: mem.New("new"), Scope: "clone"}, []archiver.Source{p.source()}
		}, segName(3, 13), codes{1, 1, 1}, none, "answered, and "},
		"its own archive is silent, the origin has it": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Own, o.Others = archiver.Source{Store: down(mem.New("new")), Scope: "clone"}, []archiver.Source{p.source()}
		}, segName(1, 3), codes{s, 1, 1}, none, "cannot say"},
		"the origin is silent": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Others = []archiver.Source{{Store: down(p.store), Scope: "main"}}
		}, segName(3, 13), codes{s, 1, 1}, none, "cannot say"},
		"the origin has no archive": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Others = []archiver.Source{{Store: p.store, Scope: "elsewhere"}}
		}, segName(3, 13), codes{s, 1, 1}, none, "check archive.url and scope"},
		"only the other site has it": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Others = []archiver.Source{site.source()}
			p.remove(segName(1, 3))
		}, segName(1, 3), codes{0, 0, 0}, one.Segment(seg(1, 3)), ""},
		"damaged here, whole at the other site": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Others = []archiver.Source{site.source()}
			k := p.a.Key(segName(1, 3))
			b := p.get(k)
			p.set(k, b[:len(b)-9])
		}, segName(1, 3), codes{0, 0, 0}, one.Segment(seg(1, 3)), ""},
		"damaged here, something else at the other site": {func(p *prepared, o *archiver.RestoreOptions) {
			o.Others = []archiver.Source{elsewhere.source()}
			k := p.a.Key(segName(1, 3))
			b := p.get(k)
			p.set(k, b[:len(b)-9])
		}, segName(1, 3), codes{s, 1, 1}, none, "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			whys := ""
			for i, want := range []int{tc.want.recovery, tc.want.standby, tc.want.rewind} {
				p := whole
				p.begin(t)
				files := [][]string{{recovery}, {standby, recovery}, {recovery}}[i]
				o := archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, files...), Member: "n1"}
				if tc.spoil != nil {
					dir := o.DataDir
					tc.spoil(p, &o)
					if o.DataDir != dir {
						o.DataDir = dataDir(t, 99, files...)
					}
				}
				out, b := fetch(t, o, tc.ask.String(), i == 2)
				caller := []string{"recovery", "standby", "pg_rewind"}[i]
				if out.Code != want {
					t.Errorf("%s: exit %d, want %d: %s", caller, out.Code, want, out.Why)
				}
				if want == 0 && !bytes.Equal(b, tc.bytes) {
					t.Errorf("%s: got %d bytes, not the %d right ones", caller, len(b), len(tc.bytes))
				}
				if want != 0 && out.Why == "" {
					t.Errorf("%s: exit %d without a word", caller, want)
				}
				whys += out.Why + "\n"
				told.add(name, caller, out, o.DataDir)
				p.undo()
			}
			if !strings.Contains(whys, tc.why) {
				t.Errorf("it is said %q, want %q in it", whys, tc.why)
			}
		})
	}
	told.compare(t)
}

// branchOf is what w's server wrote alone after others had left its timeline.
func branchOf(w *waltest.Writer) *waltest.Writer {
	c := w.Clone(3)
	c.Fill(2)
	return c
}

// A history is hidden only from a standby, and only when another live member is known to lead on a lower
// timeline. Otherwise its number would be used twice.
func TestHiddenHistory(t *testing.T) {
	lower := archiver.Leader{Name: "n2", Live: true, Timeline: 2}
	with := func(change func(*archiver.Leader)) archiver.Leader { l := lower; change(&l); return l }
	_, two, three := forked()
	p := prepare(t, seg(1, 1))
	p.put(wal.HistoryName(2), two.History().Bytes())
	p.put(wal.HistoryName(3), three.History().Bytes())
	for name, tc := range map[string]struct {
		leader archiver.Leader
		err    error
		want   int
	}{
		"another one on a lower timeline": {lower, nil, 1},
		"on the same one":                 {with(func(l *archiver.Leader) { l.Timeline = 3 }), nil, 0},
		"on a higher one":                 {with(func(l *archiver.Leader) { l.Timeline = 4 }), nil, 0},
		"on an unknown one":               {with(func(l *archiver.Leader) { l.Timeline = 0 }), nil, 0},
		"not live":                        {with(func(l *archiver.Leader) { l.Live = false }), nil, 0},
		"ourselves":                       {with(func(l *archiver.Leader) { l.Self = true }), nil, 0},
		"a standby cluster":               {with(func(l *archiver.Leader) { l.Standby = true }), nil, 0},
		"nobody":                          {archiver.Leader{}, nil, 0},
		"the DCS is silent":               {lower, errors.New("no answer"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			for files, want := range map[string]int{standby: tc.want, recovery: 0} {
				o := &oracle{leader: tc.leader, err: tc.err}
				out, _ := fetch(t, archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, files), Oracle: o}, "00000003.history", false)
				if out.Code != want {
					t.Errorf("%s: exit %d, want %d: %s", files, out.Code, want, out.Why)
				}
				if asked := map[string]int{standby: 1, recovery: 0}[files]; o.asked != asked {
					t.Errorf("%s: the leader key was read %d times, want %d", files, o.asked, asked)
				}
			}
			// A kept one is hidden by the same rule.
			dir := dataDir(t, systemID, standby)
			writeFile(t, filepath.Join(dir, "pg_wal", "00000003.history"), three.History().Bytes())
			own := archiver.Source{Store: down(p.store), Scope: "main"}
			out, _ := fetch(t, archiver.RestoreOptions{Own: own, DataDir: dir, Oracle: &oracle{leader: tc.leader, err: tc.err}}, "00000003.history", false)
			if out.Code != tc.want {
				t.Errorf("kept: exit %d, want %d: %s", out.Code, tc.want, out.Why)
			}
		})
	}
}

// On a standby the line decides what is there on an old timeline; where it is not known, the archive's histories do.
func TestStandbyAtTheFork(t *testing.T) {
	one, two, three := forked()
	p := prepare(t, seg(1, 1))
	for _, w := range []*waltest.Writer{one, two, three} {
		p.fill(w)
	}
	p.put(segName(1, 5), branchOf(one).Segment(seg(1, 5)))
	leads := func(t wal.Timeline) archiver.Leader { return archiver.Leader{Name: "n2", Live: true, Timeline: t} }
	for name, tc := range map[string]struct {
		oracle *oracle
		want   int
		asked  int
	}{
		"no cluster to ask":                            {nil, 1, 0},
		"the line left it":                             {&oracle{line: three.History()}, 1, 0},
		"the line is on it, the history is a stray":    {&oracle{line: one.History(), leader: leads(1)}, 0, 2},
		"the line is old, the leader is on the child":  {&oracle{line: one.History(), leader: leads(2)}, 1, 1},
		"the line is old, the leader key is not read":  {&oracle{line: one.History(), err: errors.New("no answer")}, 1, 1},
		"no line was ever known, and nobody leads now": {&oracle{}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, standby)}
			if tc.oracle != nil {
				o.Oracle = tc.oracle
			}
			if out, _ := fetch(t, o, segName(1, 5).String(), false); out.Code != tc.want {
				t.Errorf("exit %d, want %d: %s", out.Code, tc.want, out.Why)
			}
			if tc.oracle != nil && tc.oracle.asked != tc.asked {
				t.Errorf("the leader key was read %d times, want %d", tc.oracle.asked, tc.asked)
			}
			if out, _ := fetch(t, o, segName(1, 4).String(), false); out.Code != 0 {
				t.Errorf("before the fork: exit %d, want 0: %s", out.Code, out.Why)
			}
		})
	}
}

// Recovery and pg_rewind wait for a store that comes back.
func TestFetchWaits(t *testing.T) {
	one, _, _ := forked()
	p := prepare(t, seg(1, 1))
	p.fill(one)
	tries := 0
	flaky := mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		if strings.Contains(c.Key, "/wal/") && c.Op == mem.OpGet {
			if tries++; tries <= 2 {
				return mem.Fault{Cut: 100_000}
			}
		}
		return mem.Fault{}
	})
	dir := dataDir(t, systemID, recovery)
	writeFile(t, filepath.Join(dir, "pg_wal", "RECOVERYXLOG"), []byte("old"))
	o := archiver.RestoreOptions{Own: archiver.Source{Store: flaky, Scope: "main"}, DataDir: dir, Recovery: time.Minute, Standby: time.Minute}
	out, b := fetch(t, o, segName(1, 3).String(), false)
	if out.Code != 0 || tries != 3 || !bytes.Equal(b, one.Segment(seg(1, 3))) {
		t.Errorf("exit %d after %d tries, want 0 after 3: %s", out.Code, tries, out.Why)
	}
	// A standby is not kept waiting, it has another source.
	o.DataDir, tries = dataDir(t, systemID, standby), 0
	if out, _ := fetch(t, o, segName(1, 3).String(), false); out.Code != 1 || tries != 1 {
		t.Errorf("standby: exit %d after %d tries, want 1 after 1: %s", out.Code, tries, out.Why)
	}
	// pg_rewind has not.
	o.DataDir, tries = dataDir(t, systemID), 0
	if out, _ := fetch(t, o, segName(1, 3).String(), true); out.Code != 0 || tries != 3 {
		t.Errorf("pg_rewind: exit %d after %d tries, want 0 after 3: %s", out.Code, tries, out.Why)
	}
}

// A store that hangs is not waited for longer than the patience; an ended context ends the wait.
func TestFetchGivesUp(t *testing.T) { synctest.Test(t, testFetchGivesUp) }

func testFetchGivesUp(t *testing.T) {
	p := prepare(t, seg(1, 1))
	hangs := archiver.Source{Store: mem.NewFaults(p.store, func(mem.Call) mem.Fault { return mem.Fault{Hang: true} }), Scope: "main"}
	for files, want := range map[string]int{standby: 1, recovery: 200} {
		begin := time.Now()
		o := archiver.RestoreOptions{Own: hangs, DataDir: dataDir(t, systemID, files), Standby: time.Second, Recovery: time.Minute}
		out, _ := fetchHere(t, o, segName(1, 3).String(), false)
		if out.Code != want || !strings.Contains(out.Why, "did not answer in time") || time.Since(begin) > time.Minute {
			t.Errorf("%s: exit %d after %v, want %d: %s", files, out.Code, time.Since(begin), want, out.Why)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		o.Standby, o.Recovery = time.Hour, time.Hour
		r, err := archiver.NewRestorer(o)
		if err != nil {
			t.Fatal(err)
		}
		if out := r.Fetch(ctx, segName(1, 3).String(), filepath.Join(o.DataDir, "pg_wal", "RECOVERYXLOG")); out.Code != want {
			t.Errorf("%s: exit %d when told to stop, want %d: %s", files, out.Code, want, out.Why)
		}
	}
}

// Kept histories of one cluster are not another's, and a damaged one is read again.
func TestKeptHistories(t *testing.T) {
	_, two, three := forked()
	p := prepare(t, seg(1, 1))
	p.fill(two)
	p.fill(three)
	kept := t.TempDir()
	o := archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, standby), Kept: kept}
	if out, _ := fetch(t, o, "00000002.history", false); out.Code != 0 {
		t.Fatal(out)
	}
	path := filepath.Join(kept, "7710542482846769188", "00000002.history")
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, two.History().Bytes()) {
		t.Errorf("kept %q, %v", b, err)
	}
	writeFile(t, path, []byte("nonsense"))
	o.Own.Store, o.DataDir = down(p.store), dataDir(t, systemID, standby)
	if out, _ := fetch(t, o, "00000002.history", false); out.Code != 1 {
		t.Errorf("exit %d for a damaged one, want 1: %s", out.Code, out.Why)
	}
	o.Own.Store = p.store
	r, err := archiver.NewRestorer(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.KeepHistories(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Own.Store = down(p.store)
	for _, name := range []string{"00000002.history", "00000003.history"} {
		if out, _ := fetch(t, o, name, false); out.Code != 0 {
			t.Errorf("%s: exit %d, want 0: %s", name, out.Code, out.Why)
		}
	}
	o.DataDir = dataDir(t, 99, standby)
	if out, _ := fetch(t, o, "00000002.history", false); out.Code != 1 {
		t.Errorf("another cluster: exit %d, want 1: %s", out.Code, out.Why)
	}
}

// Requests are few: they are what a standby far behind spends its time on.
func TestFetchRequests(t *testing.T) {
	one, two, three := forked()
	p := prepare(t, seg(1, 1))
	for _, w := range []*waltest.Writer{one, two, three} {
		p.fill(w)
	}
	n := 0
	counted := archiver.Source{Store: mem.NewFaults(p.store, func(mem.Call) mem.Fault { n++; return mem.Fault{} }), Scope: "main", Keys: p.keys}
	for _, tc := range []struct {
		files, name string
		want        int
	}{
		{recovery, segName(1, 3).String(), 1},  // GET
		{standby, segName(3, 10).String(), 2},  // GET of 00000004.history, GET
		{recovery, segName(3, 13).String(), 6}, // GET, LIST of the floors, LIST, GET of the .partial, GET of the history, HEAD of archive.json
		{recovery, "00000003.history", 1},
		{recovery, "00000004.history", 2},
	} {
		o := archiver.RestoreOptions{Own: counted, DataDir: dataDir(t, systemID, tc.files)}
		r, err := archiver.NewRestorer(o)
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(o.DataDir, "pg_wal", "RECOVERYXLOG")
		r.Fetch(t.Context(), "00000009.history", dst) // opens the archive
		n = 0
		if r.Fetch(t.Context(), tc.name, dst); n != tc.want {
			t.Errorf("%s, %s: %d requests, want %d", tc.files, tc.name, n, tc.want)
		}
	}
}

// At the end of recovery the server has removed its signal files, asks for the parent's history, and
// takes no writes until it is answered. A silent archive must not hold up a promotion: the first
// timeline has no history, and any other one is in pg_wal.
func TestPromotionWithSilentArchive(t *testing.T) { synctest.Test(t, testPromotionWithSilentArchive) }

func testPromotionWithSilentArchive(t *testing.T) {
	_, two, _ := forked()
	p := prepare(t, seg(1, 1))
	dir := dataDir(t, systemID)
	writeFile(t, filepath.Join(dir, "pg_wal", "00000002.history"), two.History().Bytes())
	o := archiver.RestoreOptions{Own: p.source(), DataDir: dir, Recovery: time.Hour}
	o.Own.Store = down(p.store)
	begin := time.Now()
	if out, _ := fetchHere(t, o, "00000001.history", false); out.Code != archiver.NotThere {
		t.Errorf("00000001.history: exit %d, want 1: %s", out.Code, out.Why)
	}
	out, b := fetchHere(t, o, "00000002.history", false)
	if out.Code != archiver.Restored || !bytes.Equal(b, two.History().Bytes()) {
		t.Errorf("00000002.history: exit %d with %d bytes, want 0 with those of pg_wal: %s", out.Code, len(b), out.Why)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the promotion waited %v", took)
	}
}
