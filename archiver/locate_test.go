package archiver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// noon is when segment 0 of a commits archive begins; each segment has ten minutes.
var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func minute(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }

// commit puts a file whose header says that it has commits from its tenth minute's first to its eighth. Its content is none: only headers are read.
func (p *prepared) commit(n wal.Name) {
	p.t.Helper()
	m := int(n.Segment.No) * 10
	p.set(p.a.Key(n), p.object(seal.Header{Name: n.String(), FirstCommit: minute(m + 1), LastCommit: minute(m + 8)}, []byte("x")))
}

// idle puts one without commits.
func (p *prepared) idle(n wal.Name) {
	p.t.Helper()
	p.set(p.a.Key(n), p.object(seal.Header{Name: n.String()}, []byte("x")))
}

func (p *prepared) label(n wal.Segment, stop string) {
	p.t.Helper()
	p.put(wal.Name{Kind: wal.KindBackup, Segment: n, Offset: 0x28}, fmt.Appendf(nil,
		"START WAL LOCATION: %v (file %v)\nSTOP WAL LOCATION: %s (file %v)\nCHECKPOINT LOCATION: 0/0\nLABEL: nightly\nSTOP TIME: 2026-11-28 12:30:00 UTC\n", n.Start()+0x28, n, stop, n))
}

// timed is timeline 1 up to the middle of segment 20 with its .partial, timeline 2 up to segment 40, and what timeline 1 wrote after the fork.
// Segments 8 to 11 have no commit. There are base backups in 3 and in 25.
func timed(t *testing.T) *prepared {
	p := prepare(t, seg(1, 1))
	for no := uint64(1); no <= 22; no++ {
		p.commit(segName(1, no))
	}
	for no := uint64(8); no <= 11; no++ {
		p.idle(segName(1, no))
	}
	for no := uint64(20); no <= 40; no++ {
		p.commit(segName(2, no))
	}
	p.commit(partialName(1, 20))
	p.put(wal.HistoryName(2), wal.History{Timeline: 2, Forks: []wal.Fork{{Timeline: 1, End: seg(1, 20).Start() + 0x5000}}}.Bytes())
	p.label(seg(1, 3), "0/3000F8")
	p.label(seg(2, 25), "0/1900100")
	return p
}

func locate(t *testing.T, p *prepared, target archiver.Moment) *archiver.Location {
	t.Helper()
	l, err := p.a.Locate(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLocate(t *testing.T) {
	whole := timed(t)
	for name, tc := range map[string]struct {
		spoil  func(p *prepared)
		target archiver.Moment
		want   string // segment, backup, timeline to recover to; or why not
	}{
		"inside a segment":              {nil, archiver.Moment{Time: minute(155)}, "00000001000000000000000F 000000010000000000000003 2"},
		"at the first commit":           {nil, archiver.Moment{Time: minute(151)}, "00000001000000000000000F 000000010000000000000003 2"},
		"between two segments":          {nil, archiver.Moment{Time: minute(159)}, "000000010000000000000010 000000010000000000000003 2"},
		"among segments without commit": {nil, archiver.Moment{Time: minute(95)}, "00000001000000000000000C 000000010000000000000003 2"},
		"behind the fork":               {nil, archiver.Moment{Time: minute(205)}, "000000020000000000000014 000000010000000000000003 2"},
		"behind the second backup":      {nil, archiver.Moment{Time: minute(275)}, "00000002000000000000001B 000000020000000000000019 2"},
		"in the segment of the backup":  {nil, archiver.Moment{Time: minute(255)}, "000000020000000000000019 000000010000000000000003 2"},
		"before the first backup":       {nil, archiver.Moment{Time: minute(25)}, "000000010000000000000002 - 2"},
		"on the other timeline":         {nil, archiver.Moment{Time: minute(215), Timeline: 1}, "000000010000000000000015 000000010000000000000003 1"},
		"before everything":             {nil, archiver.Moment{Time: minute(2).Add(-time.Hour)}, "no: the first commit that the archive has on this line was at 2026-11-28 12:11:00+00"},
		"after everything":              {nil, archiver.Moment{Time: minute(500)}, "no: the last commit that the archive has was at 2026-11-28 18:48:00+00"},
		"exactly the last commit":       {nil, archiver.Moment{Time: minute(408)}, "no: the last commit that the archive has"},
		"an LSN":                        {nil, archiver.Moment{LSN: seg(1, 15).Start() + 5}, "00000001000000000000000F 000000010000000000000003 2"},
		"an LSN behind the fork":        {nil, archiver.Moment{LSN: seg(1, 20).Start() + 0x6000}, "000000020000000000000014 000000010000000000000003 2"},
		"an LSN too late":               {nil, archiver.Moment{LSN: seg(1, 41).Start()}, "no: the archive's WAL of this line ends at 0/2900000"},
		"an LSN too early":              {nil, archiver.Moment{LSN: 5}, "no: it lies before 0/100000"},
		"an LSN in a hole":              {func(p *prepared) { p.remove(segName(1, 15)) }, archiver.Moment{LSN: seg(1, 15).Start() + 5}, "no: it lies in a hole, before 0/1000000"},
		"behind a hole": {func(p *prepared) { p.remove(segName(1, 6)) }, archiver.Moment{Time: minute(155)},
			"00000001000000000000000F - 2 from 0/700000 to 0/F00000 behind 000000010000000000000003"},
		"in a hole": {func(p *prepared) { p.remove(segName(1, 14)); p.remove(segName(1, 15)) }, archiver.Moment{Time: minute(152)},
			"no: WAL is missing where the moment may lie: behind 0/E00000 up to 0/1000000 (the last commit known to be before it is in 00000001000000000000000D)"},
		"right behind a hole": {func(p *prepared) { p.remove(segName(1, 14)) }, archiver.Moment{Time: minute(152)}, "no: WAL is missing right before it"},
		"no history":          {func(p *prepared) { p.remove(wal.HistoryName(2)) }, archiver.Moment{Time: minute(305), Timeline: 2}, "00000002000000000000001E 000000020000000000000019 2"},
		"only the partial is left": {func(p *prepared) {
			for no := uint64(20); no <= 40; no++ {
				p.remove(segName(2, no))
			}
			for no := uint64(20); no <= 22; no++ {
				p.remove(segName(1, no))
			}
		}, archiver.Moment{Time: minute(205), Timeline: 2}, "000000010000000000000014.partial 000000010000000000000003 2"},
		"the backup's label is damaged": {func(p *prepared) {
			p.set(p.a.Key(wal.Name{Kind: wal.KindBackup, Segment: seg(2, 25), Offset: 0x28}), []byte("x"))
		}, archiver.Moment{Time: minute(275)}, "00000002000000000000001B 000000010000000000000003 2"},
		"both labels are damaged": {func(p *prepared) {
			p.set(p.a.Key(wal.Name{Kind: wal.KindBackup, Segment: seg(2, 25), Offset: 0x28}), []byte("x"))
			p.set(p.a.Key(wal.Name{Kind: wal.KindBackup, Segment: seg(1, 3), Offset: 0x28}), []byte("x"))
		}, archiver.Moment{Time: minute(275)}, "00000002000000000000001B 000000020000000000000019 2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := whole
			p.begin(t)
			defer p.undo()
			if tc.spoil != nil {
				tc.spoil(p)
			}
			l := locate(t, p, tc.target)
			got := "no: " + l.Why
			if l.Reachable {
				backup := "-"
				if l.Backup != nil {
					backup, _, _ = strings.Cut(l.Backup.Name, ".")
				}
				got = fmt.Sprintf("%s %s %d", l.Segment, backup, l.Target)
				if l.BehindHole != "" {
					behind, _, _ := strings.Cut(l.BehindHole, ".")
					got += fmt.Sprintf(" from %s to %s behind %s", l.BackupAfter, l.BackupBefore, behind)
				}
			}
			if !strings.HasPrefix(got, tc.want) || l.Reachable && got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if l.Reachable != (len(l.Settings) == 3) {
				t.Errorf("reachable %v, with the settings %q", l.Reachable, l.Settings)
			}
		})
	}
	if _, err := whole.a.Locate(t.Context(), archiver.Moment{Time: noon, Timeline: 7}); !errors.Is(err, archiver.ErrNoTimeline) {
		t.Errorf("timeline 7: %v", err)
	}
}

// What is to be written into postgresql.conf.
func TestLocateSettings(t *testing.T) {
	p := timed(t)
	got := strings.Join(locate(t, p, archiver.Moment{Time: minute(155).Add(1234567 * time.Microsecond)}).Settings, "\n")
	if want := "restore_command = 'walbaton-wal fetch %f %p'\nrecovery_target_time = '2026-11-28 14:35:01.234567+00'\nrecovery_target_timeline = '2'"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A moment among thousands of segments takes a dozen headers, also where long runs have no commit.
func TestLocateRequests(t *testing.T) {
	most := map[string]int{"all have commits": 12, "every second": 100, "a long bulk load": 100, "one in a hundred": 700, "none at the end": 12, "nearly none at all": 1000}
	for name, skip := range map[string]func(no uint64) bool{
		"all have commits":   func(uint64) bool { return false },
		"every second":       func(no uint64) bool { return no%2 == 0 },
		"a long bulk load":   func(no uint64) bool { return no > 300 && no < 1700 },
		"one in a hundred":   func(no uint64) bool { return no%100 != 0 },
		"none at the end":    func(no uint64) bool { return no > 1000 },
		"nearly none at all": func(no uint64) bool { return no != 1 && no != 1999 },
	} {
		p := prepare(t, seg(1, 1))
		for no := uint64(1); no < 2000; no++ {
			if skip(no) {
				p.idle(segName(1, no))
			} else {
				p.commit(segName(1, no))
			}
		}
		gets := 0
		s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
			if c.Op == mem.OpGet {
				gets++
			}
			return mem.Fault{}
		})
		a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
		if err != nil {
			t.Fatal(err)
		}
		gets = 0
		l, err := a.Locate(t.Context(), archiver.Moment{Time: minute(2005)})
		if err != nil || !l.Reachable {
			t.Errorf("%s: %v, %+v", name, err, l)
			continue
		}
		if l.FirstCommit.IsZero() || !l.LastCommit.After(minute(2005)) {
			t.Errorf("%s: found in %s, whose commits are from %v to %v", name, l.Segment, l.FirstCommit, l.LastCommit)
		}
		t.Logf("%s: %d headers, %s after %s", name, gets, l.Segment, l.After)
		if gets > most[name] {
			t.Errorf("%s: %d requests", name, gets)
		}
	}
}

// Commit times are those of the neighbours where the first and the last segment have no commit, and the ratio is that of segments alone.
func TestTimelinesCommits(t *testing.T) {
	p := timed(t)
	p.idle(segName(1, 1))
	p.idle(segName(1, 2))
	p.idle(segName(2, 40))
	got, err := p.a.Timelines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if one, two := got[0], got[1]; !one.FirstCommit.Equal(minute(31)) || !one.LastCommit.Equal(minute(228)) || !two.FirstCommit.Equal(minute(201)) || !two.LastCommit.Equal(minute(398)) {
		t.Errorf("commits from %v to %v, then from %v to %v", one.FirstCommit, one.LastCommit, two.FirstCommit, two.LastCommit)
	}
	if s := got[1]; s.SealedBytes == 0 || s.Ratio != float64(int(float64(s.PlainBytes)/float64(s.SealedBytes)*100+0.5))/100 || s.SealedBytes >= s.Bytes {
		t.Errorf("%d plain, %d sealed bytes of %d, ratio %v", s.PlainBytes, s.SealedBytes, s.Bytes, s.Ratio)
	}
	// The last commit of a timeline that was left may be in its .partial.
	for no := uint64(20); no <= 22; no++ {
		p.remove(segName(1, no))
	}
	if got, err = p.a.Timelines(t.Context()); err != nil || !got[0].LastCommit.Equal(minute(208)) {
		t.Errorf("last commit %v, %v", got[0].LastCommit, err)
	}
}

// What can be restored: one window where the line is whole, and around a hole the one before it and the one behind.
func TestWindows(t *testing.T) {
	p := timed(t)
	show := func() string {
		rep, err := p.a.Audit(t.Context(), archiver.AuditOptions{Names: true, Windows: true})
		if err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, w := range rep.Windows {
			parts = append(parts, fmt.Sprintf("%v %s to %v %s", w.From, w.First.Format("15:04"), w.To, w.Last.Format("15:04")))
		}
		return strings.Join(parts, ", ")
	}
	if got, want := show(), "0/100000 12:11 to 0/2900000 18:48"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.remove(segName(1, 7))
	p.idle(segName(2, 40))
	if got, want := show(), "0/100000 12:11 to 0/700000 13:08, 0/800000 14:01 to 0/2900000 18:38"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.remove(segName(2, 20)) // the .partial ends with the fork
	if got, want := show(), "0/100000 12:11 to 0/700000 13:08, 0/800000 14:01 to 0/1405000 15:28, 0/1500000 15:31 to 0/2900000 18:38"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
