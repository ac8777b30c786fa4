package archiver

import (
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

var testLimits = Limits{PushWait: time.Minute, ShutdownWait: 5 * time.Second, StoppedWait: 30 * time.Second}

// TestJudge goes through DESIGN section 7, row by row, and through the borders between rows.
func TestJudge(t *testing.T) {
	s := wal.SegmentName(seg(2, 0x4B))
	partial := wal.Name{Kind: wal.KindPartial, Segment: seg(1, 0x4B)}
	label := wal.Name{Kind: wal.KindBackup, Segment: seg(1, 9), Offset: 0x28}
	history := wal.HistoryName(2)
	fork := seg(2, 0x4B).Start() + 0x1000
	late := time.Minute
	keep, accept := Resolved{KeepArchive: true}, Resolved{Accept: true}
	for _, tt := range []struct {
		name string
		f    Facts
		row  string
		act  Act
		code int
	}{
		{"below the floor", Facts{Name: s, BelowFloor: true, Archive: Different, State: wal.Damaged, Read: true}, "1", Answer, 0},
		{"same digest", Facts{Name: s, Archive: Same, Place: OnBranch, Fresh: true}, "2", Answer, 0},
		{"same digest, our copy cut", Facts{Name: s, Archive: Same, Read: true, State: wal.Cut}, "2", Answer, 0},
		{"label absent", Facts{Name: label, Archive: Absent, Read: true, State: wal.Complete}, "3", Put, 1},
		{"partial absent", Facts{Name: partial, Archive: Absent, Read: true, State: wal.Cut}, "3", Put, 1},
		{"partial differs", Facts{Name: partial, Archive: Different, Read: true, State: wal.Cut}, "3", Orphan, 0},
		{"partial damaged", Facts{Name: partial, Archive: Absent, Read: true, State: wal.Damaged}, "9", Answer, 1},
		{"label, silent store", Facts{Name: label, Read: true, State: wal.Complete}, "3", Wait, 1},
		{"label, silent store, late", Facts{Name: label, Read: true, State: wal.Complete, Waited: late}, "3", Answer, 1},
		{"history absent, ours to put", Facts{Name: history, Archive: Absent, Permit: true}, "4a", Put, 1},
		{"history absent, not ours", Facts{Name: history, Archive: Absent}, "4a", Wait, 1},
		{"history differs, off the line", Facts{Name: history, Archive: Different, Fresh: true, Place: OnBranch}, "4b", Orphan, 0},
		{"history differs, on the line", Facts{Name: history, Archive: Different, Fresh: true, OnHistory: true, Place: OnBranch}, "4c", Answer, 1},
		{"history differs, no leader read", Facts{Name: history, Archive: Different, Place: OnBranch}, "4a", Wait, 1},
		{"branch, nothing to keep", Facts{Name: s, Archive: Absent, Place: OnBranch, Fresh: true, Read: true, State: wal.Cut, End: fork, Fork: fork, ChildKept: true}, "5", Answer, 0},
		{"branch, child not kept", Facts{Name: s, Archive: Absent, Place: OnBranch, Fresh: true, Read: true, State: wal.Cut, End: fork, Fork: fork}, "5", Orphan, 0},
		{"branch, records past the fork", Facts{Name: s, Archive: Absent, Place: OnBranch, Fresh: true, Read: true, State: wal.Complete, End: fork + 8, Fork: fork, ChildKept: true}, "5", Orphan, 0},
		{"branch of a timeline never on the line", Facts{Name: s, Archive: Different, Place: OnBranch, Fresh: true, Read: true, End: fork}, "5", Orphan, 0},
		{"branch by a stale reading", Facts{Name: s, Archive: Absent, Place: OnBranch, Read: true, State: wal.Complete}, "12", Wait, 1},
		{"branch, silent store", Facts{Name: s, Archive: NotAsked, Place: OnBranch, Fresh: true, Read: true, State: wal.Complete}, "12", Wait, 1},
		{"differs, theirs holds", Facts{Name: s, Archive: Different, Contrast: TheirsHolds, Place: OnLine}, "6a", Answer, 0},
		{"differs, theirs damaged", Facts{Name: s, Archive: Different, Contrast: TheirsDamaged, Place: OnLine}, "6b", Orphan, 1},
		{"differs, both whole", Facts{Name: s, Archive: Different, Contrast: BothWhole, Place: OnLine}, "6c", Orphan, 1},
		{"stopped", Facts{Name: s, Archive: Absent, Server: ServerStopped, Stopped: 30 * time.Second, Place: OnLine}, "7", Keep, 1},
		{"stopped a moment ago", Facts{Name: s, Archive: Absent, Server: ServerStopped, Stopped: 29 * time.Second, Place: OnLine}, "12", Wait, 1},
		{"stopped, silent store", Facts{Name: s, Server: ServerStopped, Stopped: time.Hour}, "7", Keep, 1},
		{"stopped, stored", Facts{Name: s, Archive: Same, Server: ServerStopped, Stopped: time.Hour}, "2", Answer, 0},
		{"cut, unexplained", Facts{Name: s, Archive: Absent, Read: true, State: wal.Cut, Place: OnLine}, "8", Wait, 1},
		{"cut, unexplained, PostgreSQL stops and nothing is taken", Facts{Name: s, Archive: Absent, Read: true, State: wal.Cut, Place: OnLine, Server: ServerStopping, StoreIdle: late}, "8", Answer, 1},
		{"cut by a fork, silent store", Facts{Name: s, Read: true, State: wal.Cut, Place: OnBranch}, "12", Wait, 1},
		{"cut by a fork, silent store, PostgreSQL stops", Facts{Name: s, Read: true, State: wal.Cut, Place: OnBranch, Server: ServerStopping, StoreIdle: late}, "10", Answer, 1},
		{"cut, unexplained, late", Facts{Name: s, Archive: Absent, Read: true, State: wal.Cut, Place: OnLine, Waited: late}, "8", Answer, 1},
		{"damaged", Facts{Name: s, Archive: Absent, Read: true, State: wal.Damaged, Place: OnLine, Permit: true}, "9", Answer, 1},
		{"another file under the name", Facts{Name: s, Archive: Absent, Read: true, State: wal.Foreign, Place: OnLine}, "9", Answer, 1},
		{"stopping, the archive takes nothing", Facts{Name: s, Server: ServerStopping, StoreIdle: 5 * time.Second, Place: OnLine, Permit: true}, "10", Answer, 1},
		{"stopping, the archive takes files", Facts{Name: s, Server: ServerStopping, StoreIdle: 4 * time.Second, Place: OnLine, Permit: true}, "11", Wait, 1},
		{"ours to ship", Facts{Name: s, Archive: NotAsked, Permit: true, Ours: true, Place: OnLine}, "11", Wait, 1},
		{"ours to ship, late", Facts{Name: s, Archive: NotAsked, Permit: true, Ours: true, Place: OnLine, Waited: late}, "11", Answer, 1},
		{"somebody else's", Facts{Name: s, Archive: Absent, Place: OnLine, Read: true, State: wal.Complete}, "12", Wait, 1},
		{"somebody else's, late", Facts{Name: s, Archive: Absent, Place: OnLine, Read: true, State: wal.Complete, Waited: late}, "12", Answer, 1},
		{"history differs, on the line, decided", Facts{Name: history, Archive: Different, Fresh: true, OnHistory: true, Place: OnLine, Resolved: keep}, "4c", Orphan, 0},
		{"theirs damaged, decided", Facts{Name: s, Archive: Different, Contrast: TheirsDamaged, Place: OnLine, Resolved: keep}, "6b", Orphan, 0},
		{"both whole, decided", Facts{Name: s, Archive: Different, Contrast: BothWhole, Place: OnLine, Server: ServerStopped, Stopped: time.Hour, Resolved: keep}, "6c", Orphan, 0},
		{"both whole, accepted: nothing is overwritten", Facts{Name: s, Archive: Different, Contrast: BothWhole, Place: OnLine, Resolved: accept}, "6c", Orphan, 1},
		{"cut, theirs differs, decided", Facts{Name: s, Archive: Different, Read: true, State: wal.Cut, Place: OnLine, Resolved: keep}, "8", Orphan, 0},
		{"cut, theirs differs, accepted before theirs came", Facts{Name: s, Archive: Different, Read: true, State: wal.Cut, Place: OnLine, Resolved: accept}, "8", Wait, 1},
		{"cut, decided, but the archive has none to keep", Facts{Name: s, Archive: Absent, Read: true, State: wal.Cut, Place: OnLine, Resolved: keep}, "8", Wait, 1},
		{"cut, decided, silent store", Facts{Name: s, Read: true, State: wal.Cut, Place: OnLine, Resolved: keep}, "8", Wait, 1},
		{"cut, accepted", Facts{Name: s, Archive: Absent, Read: true, State: wal.Cut, Place: OnLine, Permit: true, Resolved: accept}, "11", Wait, 1},
		{"damaged, accepted", Facts{Name: s, Archive: Absent, Read: true, State: wal.Damaged, Place: OnLine, Permit: true, Resolved: accept}, "11", Wait, 1},
		{"damaged, accepted, another node has the baton", Facts{Name: s, Archive: Absent, Read: true, State: wal.Damaged, Place: OnLine, Resolved: accept}, "12", Wait, 1},
		{"damaged, accepted, stopped", Facts{Name: s, Archive: Absent, Read: true, State: wal.Damaged, Server: ServerStopped, Stopped: time.Hour, Resolved: accept}, "7", Keep, 1},
		{"damaged, theirs unreadable too, decided", Facts{Name: s, Archive: Different, Read: true, State: wal.Foreign, Place: OnLine, Resolved: keep}, "9", Orphan, 0},
		{"label damaged, accepted", Facts{Name: label, Archive: Absent, Read: true, State: wal.Damaged, Resolved: accept}, "3", Put, 1},
		{"no archive yet", Facts{Name: s, NoArchive: "the store does not answer"}, "13", Wait, 1},
	} {
		tt.f.Limits = testLimits
		got := Judge(tt.f)
		if got.Row != tt.row || got.Act != tt.act || got.Code != tt.code {
			t.Errorf("%s: got row %s act %d code %d, want row %s act %d code %d", tt.name, got.Row, got.Act, got.Code, tt.row, tt.act, tt.code)
		}
		if got.Code > 125 {
			t.Errorf("%s: code %d would kill PostgreSQL's archiver", tt.name, got.Code)
		}
		if got.Code != 0 && got.Why == "" {
			t.Errorf("%s: no reason with code %d", tt.name, got.Code)
		}
	}
}

// TestJudgeAnswersZeroForGoodReasonOnly is promise P1 over all facts: 0 only when the archive has
// our content or enough of it, the file is below the floor, it is off the line, or an administrator
// decided for the archive's copy and ours is kept in orphans/.
func TestJudgeAnswersZeroForGoodReasonOnly(t *testing.T) {
	names := []wal.Name{wal.SegmentName(seg(1, 7)), {Kind: wal.KindPartial, Segment: seg(1, 7)}, {Kind: wal.KindBackup, Segment: seg(1, 7)}, wal.HistoryName(2)}
	each(2, func(below int) {
		each(4, func(presence int) {
			each(4, func(contrast int) {
				each(4, func(state int) {
					each(3, func(place int) {
						each(256, func(bits int) {
							for _, n := range names {
								f := Facts{Name: n, BelowFloor: below == 1, Archive: Presence(presence), Contrast: Contrast(contrast), State: wal.State(state), Read: bits&1 != 0,
									Place: Place(place), Fresh: bits&2 != 0, OnHistory: bits&4 != 0, ChildKept: bits&8 != 0, Permit: bits&16 != 0, Limits: testLimits,
									Resolved: Resolved{KeepArchive: bits&64 != 0, Accept: bits&128 != 0}}
								if bits&32 != 0 {
									f.Server, f.Stopped, f.Waited = ServerStopped, time.Hour, time.Hour
								}
								v := Judge(f)
								if v.Act == Wait || v.Code != 0 {
									continue
								}
								ok := f.BelowFloor || f.Archive == Same ||
									v.Act == Orphan && f.Archive == Different && n.Kind != wal.KindSegment && !(n.Kind == wal.KindHistory && f.OnHistory) ||
									f.Fresh && f.Place == OnBranch && f.Archive != NotAsked && (v.Act == Orphan || f.ChildKept) ||
									f.Archive == Different && f.Contrast == TheirsHolds ||
									f.Archive == Different && f.Resolved.KeepArchive && v.Act == Orphan
								if !ok {
									t.Fatalf("%v: answered 0 by row %s", f, v.Row)
								}
							}
						})
					})
				})
			})
		})
	})
}

func each(n int, f func(int)) {
	for i := range n {
		f(i)
	}
}
