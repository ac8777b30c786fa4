package archiver_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// day is a time in the life of the test's cluster.
func day(n int) time.Time { return time.Date(2026, 11, n, 12, 0, 0, 0, time.UTC) }

// live is what a cluster does from one day to the next: two segments, each with a commit.
func live(w *waltest.Writer, from int) {
	w.Commit(day(from))
	w.Fill(1)
	w.Commit(day(from).Add(12 * time.Hour))
	w.Fill(1)
}

// backup puts the history file of a backup that ran for the length of one record, a day's noon.
func (p *prepared) backup(w *waltest.Writer, d int) wal.Name {
	p.t.Helper()
	start := w.Pos()
	w.Commit(day(d))
	g := segSize.At(w.History().Timeline, start)
	n := wal.Name{Kind: wal.KindBackup, Segment: g, Offset: uint32(start - g.Start())}
	p.ended(n, w.Pos(), d)
	return n
}

func (p *prepared) ended(n wal.Name, stop wal.LSN, d int) {
	start := n.Segment.Start() + wal.LSN(n.Offset)
	p.put(n, fmt.Appendf(nil, "START WAL LOCATION: %v (file %v)\nSTOP WAL LOCATION: %v (file %v)\nSTART TIME: %s\nLABEL: day %d\nSTART TIMELINE: %d\nSTOP TIME: %s\n",
		start, n.Segment, stop, segSize.At(n.Segment.Timeline, stop), day(d).Format("2006-01-02 15:04:05 MST"), d, n.Segment.Timeline,
		day(d).Add(time.Minute).Format("2006-01-02 15:04:05 MST")))
}

// restored is a cluster that lived on timeline 1 from day 1 to 6, was restored in place to day 3 on day 7, lived on timeline 2 to
// day 9, failed over to timeline 3 and lives to day 12. It took a backup on the days 1, 4, 8 and 11.
//
//	1: 1  2  3  4  5  6        segments 1 to 13, two a day
//	        └── 2: 7  8  9     from within segment 5
//	                  └── 3: 10 11 12
func restored(t *testing.T) (p *prepared, backups map[int]wal.Name) {
	t.Helper()
	p = prepare(t, seg(1, 1))
	backups = map[int]wal.Name{}
	one := waltest.New(systemID, segSize)
	backups[1] = p.backup(one, 1)
	live(one, 1)
	live(one, 2)
	one.Commit(day(3))
	two := one.Fork(2)
	live(one, 3)
	backups[4] = p.backup(one, 4)
	live(one, 4)
	live(one, 5)
	live(one, 6)
	one.Fill(1)
	p.fillTimes(one)
	live(two, 7)
	backups[8] = p.backup(two, 8)
	live(two, 8)
	live(two, 9)
	three := two.Fork(3)
	p.put(wal.Name{Kind: wal.KindPartial, Segment: two.Current()}, two.Segment(two.Current()))
	two.Fill(1) // its server had not noticed
	p.fillTimes(two)
	live(three, 10)
	backups[11] = p.backup(three, 11)
	live(three, 11)
	live(three, 12)
	p.fillTimes(three)
	return p, backups
}

// fillTimes is fill with the commit times in the headers, as the archiver writes them.
func (p *prepared) fillTimes(w *waltest.Writer) {
	p.t.Helper()
	for _, s := range w.Full() {
		c := wal.NewChecker(s, systemID)
		_, _ = c.Write(w.Segment(s)) // never fails
		rep := c.Report()
		p.set(p.a.Key(wal.SegmentName(s)), p.object(seal.Header{Name: s.String(), FirstCommit: rep.FirstCommit, LastCommit: rep.LastCommit}, w.Segment(s)))
	}
	if h := w.History(); len(h.Forks) > 0 {
		p.put(wal.HistoryName(h.Timeline), h.Bytes())
	}
}

func plan(t *testing.T, p *prepared, o archiver.ExpireOptions) *archiver.ExpirePlan {
	t.Helper()
	pl, err := p.a.PlanExpire(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

// outline says what a plan raises and deletes, on one line.
func outline(pl *archiver.ExpirePlan) string {
	var words []string
	for _, f := range pl.Raise {
		s := fmt.Sprintf("floor %d/%v", f.Timeline, f.LSN)
		if f.Alone {
			s += " alone"
		} else {
			for _, t := range f.Ancestors {
				s += fmt.Sprintf(" over %d", t)
			}
		}
		words = append(words, s)
	}
	for _, g := range pl.Goes {
		s := fmt.Sprintf("-%d: %dS%dP%dB", g.Timeline, g.Segments, g.Partials, g.Backups)
		if g.Branch {
			s += " branch"
		}
		words = append(words, s)
	}
	return strings.Join(words, "; ")
}

var held = archiver.Expirer{Held: func(context.Context) error { return nil }, By: "n1"}

// TestPlanExpire: what is kept for each way to say the cut-off, on a tree of timelines with backups before and after its forks.
func TestPlanExpire(t *testing.T) {
	p, backups := restored(t)
	before := func(s string) archiver.ExpireOptions {
		c, err := archiver.ParseCutoff(s, segSize)
		if err != nil {
			t.Fatal(err)
		}
		return archiver.ExpireOptions{Before: c}
	}
	without := func(s string) archiver.ExpireOptions {
		o := before(s)
		o.WithoutBackups = true
		return o
	}
	for _, tc := range []struct {
		name string
		o    archiver.ExpireOptions
		want string
		keep int // the day of the backup that holds it
	}{
		{"a day on which only the first backup was there", before("2026-11-07 12:00:00Z"), "", 1},
		{"a moment before the second backup of the line ended", before("2026-11-08 12:00:30Z"), "", 1},
		{"the moment it ended", before("2026-11-08 12:01:00Z"), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B", 8},
		{"long after", before("2026-11-11T11:00:00Z"), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B", 8},
		{"behind the failover", before("2026-11-12 00:00+00"), "floor 3/0/D00000 over 1 over 2; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 7S1P1B; -3: 2S0P0B", 11},
		{"the last backup itself, by its file", before(backups[11].String()), "floor 3/0/D00000 over 1 over 2; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 7S1P1B; -3: 2S0P0B", 11},
		{"by its label", before("day 8"), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B", 8},
		{"an LSN just where it ended", before("0/700380"), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B", 8},
		{"the segment it began in: it ended later", before("000000020000000000000007"), "", 1},
		{"the next one", before("000000020000000000000008"), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B", 8},
		{"before every backup", before("2026-10-31 00:00+00"), "", 0},
		{"without backups, a segment", without("000000020000000000000009"), "floor 2/0/900000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 4S0P1B", 0},
		{"without backups, an LSN within it", without("0/912345"), "floor 2/0/900000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 4S0P1B", 0},
		{"without backups, a time with a commit", without("2026-11-08 13:00:00Z"), "floor 2/0/800000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 3S0P1B", 0},
		{"without backups, after the last commit", without("2026-11-27 00:00+00"), "floor 3/0/1000000 over 1 over 2; -1: 13S0P2B; -2: 7S1P1B; -3: 5S0P1B", 0},
		{"without backups, before the first", without("2026-10-01 00:00+00"), "", 0},
	} {
		pl := plan(t, p, tc.o)
		if got := outline(pl); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, got, tc.want)
		}
		kept := ""
		if tc.keep > 0 {
			kept = backups[tc.keep].String()
		}
		if got := pl.Backup; got == nil && kept != "" || got != nil && got.Name != kept {
			t.Errorf("%s: kept for %+v, want %s", tc.name, got, kept)
		}
	}
}

// TestPlanExpireRefuses: no backup to keep from, places that the line does not have, and backups that cannot be restored from.
func TestPlanExpireRefuses(t *testing.T) {
	whole, backups := restored(t)
	for _, tc := range []struct {
		name, before string
		spoil        func(p *prepared)
		is           error
		want         string
	}{
		{"no backup at all", "2026-11-12 00:00+00", func(p *prepared) {
			for _, b := range backups {
				p.remove(b)
			}
		}, archiver.ErrNoBackup, "no backup history file of the line"},
		{"a backup of a branch alone", "2026-11-12 00:00+00", func(p *prepared) {
			for _, d := range []int{1, 8, 11} {
				p.remove(backups[d])
			}
		}, archiver.ErrNoBackup, "none of the 1 backups"},
		{"a segment of a branch", "000000010000000000000007", nil, archiver.ErrCutoff, "not on the line"},
		{"an LSN that was not written yet", "0/99000000", nil, archiver.ErrCutoff, "the archive has the line up to 0/1100000 only"},
		{"the future", "2999-01-01 00:00+00", nil, archiver.ErrCutoff, "has not come yet"},
		{"a backup that is not there", "000000030000000000000010.00000028.backup", nil, archiver.ErrCutoff, "has no backup"},
		{"a label that is not there", "nightly", nil, archiver.ErrCutoff, "neither a segment"},
		{"a label of two", "day 8", func(p *prepared) {
			b := backups[11]
			p.ended(b, b.Segment.Start()+wal.LSN(b.Offset)+100, 8)
		}, archiver.ErrCutoff, "2 backups are labelled"},
		{"the backup named has a hole in it", backups[11].String(), func(p *prepared) { p.remove(wal.SegmentName(backups[11].Segment)) }, archiver.ErrCutoff, "without a hole up to 0/D00000 only"},
		{"the backup named is damaged", backups[11].String(), func(p *prepared) { p.set(p.a.Key(backups[11]), []byte("nonsense")) }, archiver.ErrCutoff, "cannot be restored from"},
		{"the store does not answer", "2026-11-12 00:00+00", func(p *prepared) { p.store.Unmount(true) }, store.ErrNoRoot, "plan expire"},
	} {
		whole.begin(t)
		if tc.spoil != nil {
			tc.spoil(whole)
		}
		c, err := archiver.ParseCutoff(tc.before, segSize)
		if err != nil {
			t.Fatal(err)
		}
		pl, err := whole.a.PlanExpire(t.Context(), archiver.ExpireOptions{Before: c})
		if !errors.Is(err, tc.is) && tc.is != store.ErrNoRoot || err == nil || !strings.Contains(err.Error(), tc.want) && tc.is != store.ErrNoRoot {
			t.Errorf("%s: got %v and %+v, want %v with %q", tc.name, err, pl, tc.is, tc.want)
		}
		whole.undo()
	}
}

// TestPlanExpirePassesOver: a backup that cannot be restored from does not hold the WAL, the one before it does; and it is said.
func TestPlanExpirePassesOver(t *testing.T) {
	p, backups := restored(t)
	for name, spoil := range map[string]func(){
		"a hole":            func() { p.remove(wal.SegmentName(backups[11].Segment)) },
		"damage":            func() { p.set(p.a.Key(backups[11]), []byte("nonsense")) },
		"another's content": func() { p.set(p.a.Key(backups[11]), p.get(p.a.Key(backups[8]))) },
		"no end": func() {
			p.put(backups[11], []byte("START WAL LOCATION: 0/D00350 (file 00000003000000000000000D)\n"))
		},
	} {
		p.begin(t)
		spoil()
		pl := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(13)}})
		if pl.Backup == nil || pl.Backup.Name != backups[8].String() || len(pl.Warnings) != 1 || !strings.Contains(pl.Warnings[0], backups[11].String()) {
			t.Errorf("%s: kept for %+v, warned of %q", name, pl.Backup, pl.Warnings)
		}
		p.undo()
	}
}

// TestPlanExpireBranch: a branch goes when it left the line below what is kept, unless somebody wrote on it since; and stays while what is kept leads to it.
func TestPlanExpireBranch(t *testing.T) {
	p, _ := restored(t)
	four := waltest.NewAt(systemID, seg(4, 6)) // somebody's test restore, which left timeline 1 in segment 6 and wrote into our archive
	for range 3 {
		four.Commit(day(12))
		four.Fill(1)
	}
	p.fillTimes(four)
	p.put(wal.HistoryName(4), []byte("1\t0/680000\tbefore 2026-11-03\n"))
	line := wal.History{Timeline: 3, Forks: lineOf(t, p, 3)}
	pl := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(9)}, Line: line})
	if got, want := outline(pl), "floor 2/0/700000 over 1; floor 1/0/E00000 alone; -1: 13S0P2B; -2: 2S0P0B"; got != want || len(pl.Notes) != 1 || !strings.Contains(pl.Notes[0], "timeline 4 stays") {
		t.Errorf("a branch that is written: got %s, notes %q", got, pl.Notes)
	}
	pl = plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: time.Now()}, WithoutBackups: true, Line: line})
	if got := outline(pl); !strings.Contains(got, "floor 4/0/900000 alone") || !strings.Contains(got, "-4: 3S0P0B branch") {
		t.Errorf("the same, later: got %s", got)
	}
	p.remove(wal.HistoryName(4))
	pl = plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: time.Now()}, WithoutBackups: true, Line: line})
	if got := outline(pl); strings.Contains(got, "floor 4") || !strings.Contains(strings.Join(pl.Notes, " "), "timeline 4 stays as it is: no history") {
		t.Errorf("without its history: got %s, notes %q", got, pl.Notes)
	}
}

// TestExpireFarBranch: a branch that went on to LSNs far above the line's goes, and takes nothing of the line along.
func TestExpireFarBranch(t *testing.T) {
	p := prepare(t, seg(1, 1))
	one := waltest.New(systemID, segSize)
	p.backup(one, 1)
	live(one, 1)
	two := one.Fork(2)
	for range 6 {
		live(two, 2)
	}
	live(one, 5)
	kept := p.backup(one, 6)
	live(one, 6)
	p.fillTimes(one)
	p.fillTimes(two)
	pl := plan(t, p, archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(9)}, Line: wal.History{Timeline: 1}})
	if got, want := outline(pl), "floor 1/0/500000; floor 2/0/F00000 alone; -1: 4S0P1B; -2: 12S0P0B branch"; got != want || pl.Backup.Name != kept.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := p.a.Expire(t.Context(), pl, held); err != nil {
		t.Fatal(err)
	}
	p.open()
	if rep := audit(t, p, archiver.AuditOptions{Line: 1}); !rep.Whole || rep.Count.Segments != 2 || rep.Frontier != "0/700000" {
		t.Errorf("afterwards %s, counted %+v, frontier %s", found(rep), rep.Count, rep.Frontier)
	}
}

func lineOf(t *testing.T, p *prepared, tl wal.Timeline) []wal.Fork {
	t.Helper()
	h, _, err := p.a.History(t.Context(), tl)
	if err != nil {
		t.Fatal(err)
	}
	return h.Forks
}

// TestPlanExpireNeeds: what a member may still ask for is warned about, and kept where nobody is asked.
func TestPlanExpireNeeds(t *testing.T) {
	p, _ := restored(t)
	o := archiver.ExpireOptions{Before: archiver.Cutoff{Time: day(13)}, Needs: map[string]wal.LSN{"n2": 0x912345, "n3": 0xF00000}}
	pl := plan(t, p, o)
	if len(pl.Warnings) != 1 || !strings.Contains(pl.Warnings[0], "n2") || pl.From != "0/D00000" {
		t.Errorf("asked: from %s, warned of %q", pl.From, pl.Warnings)
	}
	o.Hold = true
	if pl = plan(t, p, o); len(pl.Warnings) != 0 || pl.From != "0/900000" || pl.Raise[0].Timeline != 2 {
		t.Errorf("held: from %s, warned of %q, raises %+v", pl.From, pl.Warnings, pl.Raise)
	}
}
