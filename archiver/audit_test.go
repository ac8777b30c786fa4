package archiver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// good is an archive in which nothing is wrong: two promotions, each with the .partial of the old timeline and one of
// them with more; a branch that an old primary shipped whole, and an orphan.
func good(t *testing.T) *prepared {
	p := prepare(t, seg(1, 1))
	one, two, three := forked()
	p.fill(one)
	p.fill(two)
	p.fill(three)
	p.put(partialName(1, 5), two.Segment(seg(1, 5)))
	p.put(partialName(2, 9), three.Segment(seg(2, 9)))
	one.Fill(3)
	p.fill(one)
	two.Record(10)
	p.put(wal.Name{Kind: wal.KindBackup, Segment: seg(2, 6), Offset: 0x28}, []byte("START WAL LOCATION: 0/600028 (file 000000020000000000000006)\n"))
	lost := segName(1, 8)
	p.set(p.a.OrphanKey("n1", lost, seal.DigestOf([]byte("x"))), p.object(seal.Header{Name: lost.String()}, []byte("x")))
	return p
}

func audit(t *testing.T, p *prepared, o archiver.AuditOptions) *archiver.Audit {
	t.Helper()
	rep, err := p.a.Audit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// found puts a report's problems on lines: kind, name, and how many for a hole of more than one.
func found(rep *archiver.Audit) string {
	var lines []string
	for _, p := range rep.Problems {
		s := p.Kind + " " + p.Name
		if p.Count > 1 {
			s += fmt.Sprintf(" x%d", p.Count)
		}
		lines = append(lines, s)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestHoleThatOrphansFill: a primary that died had shipped what lies behind a segment that orphans/ got when the line had gone elsewhere.
// Nothing is wrong with that; on the line an orphan fills no hole.
func TestHoleThatOrphansFill(t *testing.T) {
	for want, g := range map[string]wal.Segment{"": seg(1, 6), "hole-at-fork 000000030000000000000009": seg(3, 9)} {
		p := good(t)
		p.set(p.a.OrphanKey("n1", wal.SegmentName(g), seal.DigestOf([]byte("x"))), p.object(seal.Header{Name: g.String()}, []byte("x")))
		p.remove(wal.SegmentName(g))
		if got := found(audit(t, p, archiver.AuditOptions{})); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("without %v: got %q, want %q", g, got, want)
		}
	}
}

func TestAuditGood(t *testing.T) {
	p := good(t)
	for _, deep := range []bool{false, true} {
		rep := audit(t, p, archiver.AuditOptions{Deep: deep})
		if !rep.Whole || found(rep) != "" || len(rep.Notes) != 0 {
			t.Errorf("deep %v: got %q %q, want nothing", deep, found(rep), rep.Notes)
		}
		if want := seg(3, 13).Start().String(); rep.Frontier != want {
			t.Errorf("deep %v: frontier %s, want %s", deep, rep.Frontier, want)
		}
		if want := []wal.Timeline{1, 2, 3}; !slices.Equal(rep.Line, want) {
			t.Errorf("deep %v: line %v, want %v", deep, rep.Line, want)
		}
		c := rep.Count
		if c.Segments != 7+4+4 || c.Partials != 2 || c.Histories != 2 || c.Backups != 1 || c.Orphans != 1 || c.Missing != 0 {
			t.Errorf("deep %v: counted %+v", deep, c)
		}
		if (rep.NotChecked == "") != deep {
			t.Errorf("deep %v: not checked: %q", deep, rep.NotChecked)
		}
		if opened := map[bool]int{false: 2, true: 15 + 2 + 2 + 1}[deep]; c.Opened != opened {
			t.Errorf("deep %v: opened %d objects, want %d", deep, c.Opened, opened)
		}
	}
}

// The ten broken archives of the second issue, and some more. What a shallow audit does not see is
// what needs the content.
func TestAuditBroken(t *testing.T) {
	one, two, three := forked()
	plain := func(s wal.Segment) []byte {
		return map[wal.Timeline]*waltest.Writer{1: one, 2: two, 3: three}[s.Timeline].Segment(s)
	}
	whole := good(t)
	type breaks func(p *prepared)
	for name, tc := range map[string]struct {
		spoil         breaks
		shallow, deep string
		frontier      wal.Segment // the line is good up to its start
	}{
		"missing": {
			func(p *prepared) { p.remove(segName(2, 7)) },
			"hole 000000020000000000000007", "hole 000000020000000000000007", seg(2, 7)},
		"swapped": {
			func(p *prepared) {
				a, b := p.a.Key(segName(1, 2)), p.a.Key(segName(1, 3))
				x, y := p.get(a), p.get(b)
				p.set(a, y)
				p.set(b, x)
			},
			"swapped 000000010000000000000002\nswapped 000000010000000000000003", "swapped 000000010000000000000002\nswapped 000000010000000000000003", seg(1, 2)},
		"swapped before they were sealed": {
			func(p *prepared) {
				p.set(p.a.Key(segName(1, 2)), p.object(seal.Header{Name: segName(1, 2).String()}, plain(seg(1, 3))))
			},
			"", "swapped 000000010000000000000002", seg(1, 2)},
		"truncated": {
			func(p *prepared) { b := p.get(p.a.Key(segName(1, 3))); p.set(p.a.Key(segName(1, 3)), b[:len(b)/2]) },
			"", "damaged 000000010000000000000003", seg(1, 3)},
		"truncated before it was sealed": {
			func(p *prepared) { p.put(segName(1, 3), plain(seg(1, 3))[:1<<19]) },
			"damaged 000000010000000000000003", "damaged 000000010000000000000003", seg(1, 3)},
		"wrong system id": {
			func(p *prepared) {
				w := waltest.New(99, segSize)
				w.Fill(4)
				p.set(p.a.Key(segName(1, 4)), p.object(seal.Header{Name: segName(1, 4).String(), SystemID: 99}, w.Segment(seg(1, 4))))
			},
			"wrong-system-id 000000010000000000000004", "wrong-system-id 000000010000000000000004", seg(1, 4)},
		"bad CRC": {
			func(p *prepared) { p.put(segName(2, 6), waltest.Flip(plain(seg(2, 6)), 500_000)) },
			"", "bad-wal 000000020000000000000006", seg(2, 6)},
		"bad CRC in the record that runs into the next segment": {
			func(p *prepared) { p.put(segName(2, 6), waltest.Flip(plain(seg(2, 6)), 1<<20-1)) },
			"", "bad-wal 000000020000000000000007", seg(2, 7)},
		"hole at a fork, after it": {
			func(p *prepared) { p.remove(segName(2, 5)) },
			"hole-at-fork 000000020000000000000005", "hole-at-fork 000000020000000000000005", seg(2, 5)},
		"hole at a fork, before it": {
			func(p *prepared) { p.remove(segName(2, 7)); p.remove(segName(2, 8)) },
			"hole-at-fork 000000020000000000000007 x2", "hole-at-fork 000000020000000000000007 x2", seg(2, 7)},
		"damaged header": {
			func(p *prepared) {
				b := p.get(p.a.Key(segName(3, 10)))
				b[20] ^= 0xff
				p.set(p.a.Key(segName(3, 10)), b)
			},
			"damaged-header 00000003000000000000000A", "damaged-header 00000003000000000000000A", seg(3, 10)},
		"foreign history, of another promotion": {
			func(p *prepared) {
				h := wal.History{Timeline: 2, Forks: []wal.Fork{{Timeline: 1, End: seg(1, 3).Start() + 0x90, Reason: "no recovery target specified"}}}
				p.put(wal.HistoryName(2), h.Bytes())
			},
			"foreign-history 00000002.history", "foreign-history 00000002.history", seg(3, 13)},
		"foreign history, of another cluster": {
			func(p *prepared) {
				h := wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: 0x90_0000}}}
				p.set(p.a.Key(wal.HistoryName(3)), p.object(seal.Header{Name: "00000003.history", SystemID: 99}, h.Bytes()))
			},
			"missing-timeline 00000003.history\nwrong-system-id 00000003.history", "missing-timeline 00000003.history\nwrong-system-id 00000003.history", seg(2, 9)},
		"foreign history, of the newest timeline": {
			func(p *prepared) {
				h := wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: 0x200_0090}, {Timeline: 2, End: 0x200_0090}}}
				p.put(wal.HistoryName(3), h.Bytes())
			},
			"foreign-history 00000003.history", "foreign-history 00000003.history", seg(2, 9)},
		"no history at all": {
			func(p *prepared) { p.put(wal.HistoryName(2), []byte("1\tx\n")) },
			"foreign-history 00000002.history", "foreign-history 00000002.history", seg(3, 13)},
		"missing timeline number": {
			func(p *prepared) { p.remove(wal.HistoryName(2)) },
			"missing-timeline 00000002.history", "missing-timeline 00000002.history", seg(3, 13)},
		"missing history of the newest timeline": {
			func(p *prepared) { p.remove(wal.HistoryName(3)) },
			"missing-timeline 00000003.history", "missing-timeline 00000003.history", seg(2, 9)},
		"two holes": {
			func(p *prepared) { p.remove(segName(1, 2)); p.remove(segName(3, 10)); p.remove(segName(3, 11)) },
			"hole 000000010000000000000002\nhole 00000003000000000000000A x2", "hole 000000010000000000000002\nhole 00000003000000000000000A x2", seg(1, 2)},
		"begins too late": {
			func(p *prepared) { p.remove(segName(1, 1)) },
			"hole 000000010000000000000001", "hole 000000010000000000000001", seg(1, 1)},
		"hole in a branch": {
			func(p *prepared) { p.remove(segName(1, 6)) },
			"hole 000000010000000000000006", "hole 000000010000000000000006", seg(3, 13)},
		"partial that ends too early": {
			func(p *prepared) { p.put(partialName(2, 9), waltest.Zero(plain(seg(2, 9)), 8192)) },
			"", "bad-wal 000000020000000000000009.partial", seg(3, 13)},
		"backup label of another name": {
			func(p *prepared) {
				n := wal.Name{Kind: wal.KindBackup, Segment: seg(2, 6), Offset: 0x28}
				p.set(p.a.Key(n), p.object(seal.Header{Name: "x"}, []byte("x")))
			},
			"swapped 000000020000000000000006.00000028.backup", "swapped 000000020000000000000006.00000028.backup", seg(3, 13)},
	} {
		t.Run(name, func(t *testing.T) {
			p := whole
			p.begin(t)
			defer p.undo()
			tc.spoil(p)
			shallow, deep := audit(t, p, archiver.AuditOptions{}), audit(t, p, archiver.AuditOptions{Deep: true})
			if got := found(shallow); got != tc.shallow {
				t.Errorf("shallow: got %q, want %q", got, tc.shallow)
			}
			if got := found(deep); got != tc.deep {
				t.Errorf("deep: got %q, want %q", got, tc.deep)
			}
			if deep.Whole {
				t.Error("whole, want not")
			}
			if want := tc.frontier.Start().String(); deep.Frontier != want {
				t.Errorf("frontier %s, want %s", deep.Frontier, want)
			}
			for _, x := range deep.Problems {
				if x.Why == "" || x.Hint == "" {
					t.Errorf("%s %s: why %q, hint %q, want both", x.Kind, x.Name, x.Why, x.Hint)
				}
			}
			if t.Failed() {
				for _, x := range deep.Problems {
					t.Logf("%+v", x)
				}
			}
		})
	}
}

// What lies below a floor is no hole, whatever is left of it.
func TestAuditFloors(t *testing.T) {
	_, two, three := forked()
	whole := prepare(t, seg(1, 1))
	whole.fill(three)
	whole.put(wal.HistoryName(2), two.History().Bytes())
	for name, tc := range map[string]struct {
		floor  wal.Segment
		later  string // another floor, as its JSON
		remove []wal.Name
		want   string
	}{
		"first floor in the middle": {seg(1, 3), "", []wal.Name{segName(1, 1), segName(1, 2)}, ""},
		"a hole above it":           {seg(1, 2), "", []wal.Name{segName(1, 1), segName(1, 2)}, "hole 000000010000000000000002"},
		"a later floor":             {seg(1, 1), `{"timeline":1,"lsn":"0/300000"}`, []wal.Name{segName(1, 1), segName(1, 2)}, ""},
		"some below it are left":    {seg(1, 1), `{"timeline":1,"lsn":"0/300000"}`, []wal.Name{segName(1, 1)}, ""},
		"a floor on a descendant": {seg(1, 1), `{"timeline":2,"lsn":"0/700000","ancestors":[1]}`,
			[]wal.Name{segName(1, 1), segName(1, 2), segName(1, 3), segName(1, 4), segName(2, 5), segName(2, 6)}, ""},
		"a floor inside a segment": {seg(1, 1), `{"timeline":2,"lsn":"0/700028","ancestors":[1]}`,
			[]wal.Name{segName(1, 1), segName(1, 4), segName(2, 5), segName(2, 7)}, "hole 000000020000000000000007"},
		"a floor on a branch covers what it shares": {seg(1, 1), `{"timeline":2,"lsn":"0/300000","ancestors":[1]}`, []wal.Name{segName(1, 1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := whole
			p.begin(t)
			defer p.undo()
			p.floor(tc.floor)
			for _, n := range tc.remove {
				p.remove(n)
			}
			if tc.later != "" {
				p.set("main/7710542482846769188/floor/x", []byte(tc.later))
			}
			rep := audit(t, p, archiver.AuditOptions{})
			if got := found(rep); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if end := seg(3, 13).Start().String(); tc.want == "" && rep.Frontier != end {
				t.Errorf("frontier %s, want %s", rep.Frontier, end)
			}
		})
	}
}

// A cluster that is at work: what is on its way is told as what it is.
func TestAuditWhileItMoves(t *testing.T) {
	one, two, three := forked()
	t.Run("a history that came before its WAL", func(t *testing.T) {
		p := prepare(t, seg(1, 1))
		p.fill(one)
		p.put(wal.HistoryName(2), two.History().Bytes())
		rep := audit(t, p, archiver.AuditOptions{})
		if !rep.Whole || len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0], "recovery_target_timeline = '1'") {
			t.Errorf("got %q %q, want a note", found(rep), rep.Notes)
		}
	})
	t.Run("a history whose fork the archive has not reached", func(t *testing.T) {
		p := prepare(t, seg(1, 1))
		p.fill(one)
		p.remove(segName(1, 4))
		p.remove(segName(1, 3))
		p.put(wal.HistoryName(2), two.History().Bytes())
		rep := audit(t, p, archiver.AuditOptions{})
		if want := "hole-at-fork 000000010000000000000003 x2"; found(rep) != want {
			t.Errorf("got %q, want %q", found(rep), want)
		}
	})
	t.Run("a segment that is shipped during the listing", func(t *testing.T) {
		p := prepare(t, seg(1, 1))
		for _, w := range []*waltest.Writer{one, two, three} {
			p.fill(w)
		}
		late := segName(3, 10)
		b := p.get(p.a.Key(late))
		p.remove(late)
		// When the histories are listed, the listing of the segments is over.
		s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
			if c.Op == mem.OpList && strings.HasSuffix(c.Key, "/history/") {
				p.set(p.a.Key(late), b)
			}
			return mem.Fault{}
		})
		a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := a.Audit(t.Context(), archiver.AuditOptions{})
		if err != nil || !rep.Whole || rep.Count.Missing != 0 {
			t.Errorf("got %q, %v, want nothing", found(rep), err)
		}
	})
}

// A number that no cluster reaches costs nothing.
func TestAuditFarTimeline(t *testing.T) {
	p := good(t)
	w := waltest.NewAt(systemID, seg(0xFFFFFFFF, 1<<40))
	w.Fill(1)
	p.fill(w)
	rep := audit(t, p, archiver.AuditOptions{Deep: true})
	if want := "missing-timeline 00000004.history x4294967292"; found(rep) != want {
		t.Errorf("got %q, want %q", found(rep), want)
	}
	if rep.Line[len(rep.Line)-1] != 3 {
		t.Errorf("line %v, want one that ends at 3", rep.Line)
	}
}

// When the store does not answer, nothing is said about the archive.
func TestAuditSilentStore(t *testing.T) {
	p := good(t)
	for _, deep := range []bool{false, true} {
		for _, op := range []mem.Op{mem.OpGet, mem.OpList} {
			n := 0
			s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
				if c.Op == op && c.Key != "main/7710542482846769188/archive.json" && !strings.HasSuffix(c.Key, "/floor/") {
					n++
				}
				return mem.Fault{Drop: n == 3}
			})
			a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
			if err != nil {
				t.Fatal(err)
			}
			if rep, err := a.Audit(t.Context(), archiver.AuditOptions{Deep: deep}); err == nil {
				t.Errorf("deep %v, %s fails: got %q and no error", deep, op, found(rep))
			}
		}
	}
}

// A shallow audit is one small request an object, and a listing.
func TestAuditRequests(t *testing.T) {
	p := good(t)
	calls := map[mem.Op]int{}
	s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault { calls[c.Op]++; return mem.Fault{} })
	a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	clear(calls)
	last := 0
	if _, err := a.Audit(t.Context(), archiver.AuditOptions{Progress: func(n, _ int) { last = n }}); err != nil {
		t.Fatal(err)
	}
	if objects := 15 + 2 + 2 + 1; calls[mem.OpGet] != objects || calls[mem.OpList] != 3 || len(calls) != 2 || last != objects {
		t.Errorf("requests %v and progress up to %d, want %d GET and 3 LIST", calls, last, objects)
	}
}

func TestTimelines(t *testing.T) {
	p := good(t)
	p.remove(segName(3, 10))
	when := time.Unix(1_700_000_000, 0).UTC()
	for i, n := range []wal.Name{segName(1, 1), segName(1, 7), segName(3, 12)} {
		h := seal.Header{Name: n.String(), FirstCommit: when.Add(time.Duration(i) * time.Hour), LastCommit: when.Add(time.Duration(i+1) * time.Hour)}
		p.set(p.a.Key(n), p.object(h, make([]byte, segSize)))
	}
	got, err := p.a.Timelines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := got[0]; !s.FirstCommit.Equal(when) || !s.LastCommit.Equal(when.Add(2*time.Hour)) || !got[1].FirstCommit.IsZero() || got[2].LastCommit.IsZero() {
		t.Errorf("commits from %v to %v, then %v, %v", s.FirstCommit, s.LastCommit, got[1].FirstCommit, got[2].LastCommit)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%d from %d at %s: %s to %s, %s to %s, %d in %d, %d partial, %d backup, history %v",
			s.Timeline, s.Parent, s.Fork, s.First, s.Last, s.Begin, s.End, s.Segments, s.Runs, s.Partials, s.Backups, s.History))
	}
	_, two, three := forked()
	want := []string{
		"1 from 0 at : 000000010000000000000001 to 000000010000000000000007, 0/100000 to 0/800000, 7 in 1, 1 partial, 0 backup, history false",
		"2 from 1 at " + two.History().Forks[0].End.String() + ": 000000020000000000000005 to 000000020000000000000008, 0/500000 to 0/900000, 4 in 1, 1 partial, 1 backup, history true",
		"3 from 2 at " + three.History().Forks[1].End.String() + ": 000000030000000000000009 to 00000003000000000000000C, 0/900000 to 0/D00000, 3 in 2, 0 partial, 0 backup, history true",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestFindArchives(t *testing.T) {
	p := prepare(t, seg(1, 1))
	for _, key := range []string{"main/12/archive.json", "main/13/wal/x", "main/probe/n1", "main2/14/archive.json", "main/77/archive.json"} {
		p.set(key, nil)
	}
	got, err := archiver.FindArchives(t.Context(), p.source())
	if want := []uint64{12, 77, systemID}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
