package rehearsal

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

const mb = wal.SegmentSize(1 << 20)

func segment(t wal.Timeline, no uint64) wal.Segment {
	return wal.Segment{Timeline: t, Size: mb, No: no}
}

// TestNeeded: what a recovery needs along the line; the segment in which the line left a timeline is the child's.
func TestNeeded(t *testing.T) {
	line := wal.History{Timeline: 4, Forks: []wal.Fork{{Timeline: 1, End: 3 << 20}, {Timeline: 2, End: 6<<20 + 100}, {Timeline: 3, End: 8 << 20}}}
	var got []string
	for _, n := range needed(line, segment(2, 5), segment(4, 9)) {
		got = append(got, n.String())
	}
	want := []string{"00000003.history", "00000004.history", "000000020000000000000005", "000000030000000000000006", "000000030000000000000007", "000000040000000000000008", "000000040000000000000009"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	there := lines(needed(line, segment(2, 5), segment(4, 9)), func(n wal.Name) bool {
		return n.String() != "000000030000000000000007" && n.String() != "00000004.history"
	})
	wantLines := []Line{
		{2, "000000020000000000000005", "000000020000000000000005", 1, []string{}},
		{3, "000000030000000000000006", "000000030000000000000007", 2, []string{"000000030000000000000007"}},
		{4, "000000040000000000000008", "000000040000000000000009", 2, []string{"00000004.history"}},
	}
	if !reflect.DeepEqual(there, wantLines) {
		t.Errorf("got %+v, want %+v", there, wantLines)
	}
}

// second makes times from seconds.
func second(s float64) time.Time {
	return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
}

// acked is what a writer has done whose rows were acknowledged at these seconds; a negative one was not.
func acked(at ...float64) (d written) {
	for _, s := range at {
		if s < 0 {
			d.rows = append(d.rows, row{sent: second(-s)})
		} else {
			d.rows = append(d.rows, row{second(s), second(s).Add(10 * time.Millisecond)})
		}
	}
	return d
}

// TestGap: the longest time without an acknowledged row that ends after the change was asked for, also when none comes any more.
func TestGap(t *testing.T) {
	for name, tc := range map[string]struct {
		d             written
		end, from, to float64
	}{
		"a switchover":            {acked(9.9, 10, 10.5, -11, 12.6, 12.8, 13), 13.2, 10.51, 12.61},
		"a longer one before":     {acked(1, 9, 9.9, 10.2, 10.9), 11, 10.21, 10.91},
		"one across the question": {acked(1, 5, 10.1, 10.2), 10.3, 5.01, 10.11},
		"for ever":                {acked(9, 10, -11, -12), 20, 10.01, 20},
		"nothing at all":          {acked(-9, -10), 20, 0, 0},
	} {
		from, to := tc.d.gap(second(10), second(tc.end))
		if name == "nothing at all" {
			if !from.IsZero() || !to.IsZero() {
				t.Errorf("%s: got %v to %v", name, from, to)
			}
			continue
		}
		if from.Sub(second(tc.from)).Abs() > time.Millisecond || to.Sub(second(tc.to)).Abs() > time.Millisecond {
			t.Errorf("%s: got %v to %v, want second %v to %v", name, from, to, tc.from, tc.to)
		}
	}
}

func TestWritten(t *testing.T) {
	d := acked(1, 2, -3, 4)
	d.failed = []failure{{second(2.5), "connection lost"}, {second(2.6), "no answer"}, {second(2.7), "no answer"}}
	if !d.ackedSince(second(3)) || d.ackedSince(second(4)) {
		t.Error("ackedSince is wrong")
	}
	if got := d.failedSince(second(2)); !got.Equal(second(2.7)) || !d.failedSince(second(3)).IsZero() {
		t.Errorf("failedSince: got %v", got)
	}
	if got, want := d.failures(second(2)), []Failure{{.5, "connection lost", 1}, {.6, "no answer", 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	total, failed := 0, 0
	for _, b := range d.buckets(second(2), second(1), second(4)) { // the last row is outside
		total, failed = total+b.Acknowledged, failed+b.Failed
	}
	if total != 2 || failed != 3 {
		t.Errorf("got %d rows and %d failures in buckets, want 2 and 3", total, failed)
	}
}

// TestCount: a row that was never acknowledged is not lost, whatever became of it.
func TestCount(t *testing.T) {
	const schema = "walbaton_drill_x"
	d := acked(1, 2, -3, -4, 5)
	have := map[int64]string{11: note(schema, 11), 13: note(schema, 13), 15: "something else"}
	got := count(d, 10, have, schema, 0)
	if want := (Rows{Acknowledged: 3, Doubtful: 2, DoubtfulKept: 1, Lost: 1, Changed: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s := Restore{}
	s.compare(map[int64]string{1: "a", 2: "x", 4: "d"}, map[int64]string{1: "a", 2: "b", 3: "c"})
	if want := (Restore{Rows: 3, Missing: 1, Changed: 1, Extra: 1}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
}

// TestJudge: what makes a round fail, and what is only worth knowing.
func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*Round)
		command bool
		verdict Verdict
		says    string
	}{
		"all well":              {func(*Round) {}, false, Passed, ""},
		"lost at a switchover":  {func(rd *Round) { rd.Rows.Lost = 2 }, false, Failed, "2 rows were acknowledged and then lost by PostgreSQL: the new primary n2 does not have them"},
		"lost at a kill":        {func(rd *Round) { rd.Rows.Lost = 1 }, true, Failed, "asynchronous replication, not the archive"},
		"changed":               {func(rd *Round) { rd.Rows.Changed = 1 }, false, Failed, "another content"},
		"twice":                 {func(rd *Round) { rd.Rows.Twice = 1 }, false, Failed, "1 row is there more than once"},
		"a hole":                {func(rd *Round) { rd.Timelines[0].Missing = []string{"a", "b", "c", "d"} }, false, Failed, "the archive lacks 4 files of timeline 1: a, b, c and 1 more"},
		"replaced":              {func(rd *Round) { rd.Twice = []string{"x was replaced"} }, false, Failed, "nothing may ever change"},
		"never shipped":         {func(rd *Round) { rd.Shipped = 0 }, false, Failed, "no segment of timeline 2 reached the archive"},
		"a member stays away":   {func(rd *Round) { rd.Back = 0 }, false, Failed, "not all members followed n2 again"},
		"a killed member":       {func(rd *Round) { rd.Back = 0 }, true, Passed, "not all members followed n2 yet"},
		"orphans":               {func(rd *Round) { rd.Orphans = []string{"n1/x"} }, false, Passed, "1 file came to orphans/"},
		"in doubt":              {func(rd *Round) { rd.Rows.Doubtful, rd.Rows.DoubtfulKept = 2, 1 }, false, Passed, "never acknowledged: PostgreSQL may have kept such a row or not, and kept 1"},
		"started where it was":  {func(rd *Round) { rd.To, rd.NewTimeline = "n1", 1 }, true, Passed, "no member was promoted"},
		"promoted where it was": {func(rd *Round) { rd.To = "n1" }, true, Passed, "Patroni promoted n1 again"},
		"no sidecar":            {func(rd *Round) { rd.Trace.Batons = nil }, false, Passed, "nobody's sidecar told"},
	} {
		rd := sampleRound(second(0))
		rd.Notes, rd.Rows.Doubtful = []string{}, 0
		tc.change(&rd)
		rd.ByCommand = tc.command
		rd.judge()
		said := strings.Join(append(rd.Why, rd.Notes...), "; ")
		if rd.Verdict != tc.verdict || !strings.Contains(said, tc.says) || tc.says == "" && said != "" {
			t.Errorf("%s: got %s and %q, want %s and %q", name, rd.Verdict, said, tc.verdict, tc.says)
		}
	}
}

// TestVerdict: a failure weighs most, then what was not run.
func TestVerdict(t *testing.T) {
	good, bad, none := Round{Verdict: Passed}, Round{No: 2, Verdict: Failed, Why: []string{"b"}}, Round{No: 3, Verdict: NotRun, Why: []string{"n"}}
	for _, tc := range []struct {
		rounds  []Round
		restore *Restore
		verdict Verdict
		why     string
	}{
		{[]Round{good, good, good}, nil, Passed, ""},
		{[]Round{good, good, good}, &Restore{Rows: 9}, Passed, ""},
		{[]Round{good, good, good}, &Restore{Rows: 9, Missing: 1}, Failed, "the archive does not give back what the primary has: of 9 rows, 1 are missing, 0 have another content, and 0 are too many"},
		{[]Round{good, good, good}, &Restore{Failed: "no WAL"}, Failed, "the restore did not come to its end: no WAL"},
		{[]Round{good, good, good}, &Restore{}, Failed, "no row was compared with the restored server"},
		{[]Round{good, bad}, nil, Failed, "round 2: b"},
		{[]Round{good, bad, none}, nil, Failed, "round 2: b"},
		{[]Round{good, none}, nil, NotRun, "round 3: n"},
		{[]Round{good, good}, nil, NotRun, ""},
		{nil, nil, NotRun, ""},
	} {
		res := Result{Rounds: tc.rounds, Restore: tc.restore, Wanted: 3}
		res.judge()
		if got := strings.Join(res.Why, "; "); res.Verdict != tc.verdict || got != tc.why {
			t.Errorf("%+v: got %s, %q, want %s, %q", tc.rounds, res.Verdict, got, tc.verdict, tc.why)
		}
	}
}

// TestNoteFiles: what was there at first is not told as new, and what changes or goes is told.
func TestNoteFiles(t *testing.T) {
	w := newWatcher(nil, nil, segment(1, 5))
	object := func(g wal.Segment, size int64) archiver.Object {
		return archiver.Object{Name: wal.SegmentName(g), Size: size, Modified: second(1)}
	}
	a, b, c := object(segment(1, 5), 10), object(segment(1, 6), 10), object(segment(2, 7), 10)
	w.noteFiles([]archiver.Object{a}, second(1))
	w.noteFiles([]archiver.Object{a, b}, second(2))
	w.noteFiles([]archiver.Object{a, b, c}, second(3))
	if g, at, ok := w.firstAfter(second(0), 0); !ok || g != segment(1, 6) || !at.Equal(second(2)) {
		t.Errorf("the first is %v at %v, want segment 6", g, at)
	}
	if g, _, ok := w.firstAfter(second(0), 2); !ok || g != segment(2, 7) {
		t.Errorf("the first of timeline 2 is %v", g)
	}
	if _, _, ok := w.firstAfter(second(3), 0); ok || len(w.twice) > 0 {
		t.Errorf("something came after the end, or changed: %v", w.twice)
	}
	w.noteFiles([]archiver.Object{a, object(segment(1, 6), 11)}, second(4))
	want := []string{b.Name.String() + " was replaced", c.Name.String() + " disappeared"}
	if !reflect.DeepEqual(w.twice, want) {
		t.Errorf("got %q, want %q", w.twice, want)
	}
	tr := w.trace(written{ends: []segmentEnd{{second(1.5), b.Name.String()}}}, second(2), second(1), second(5))
	if len(tr.Files) != 1 || tr.Files[0].Name != b.Name.String() || *tr.Files[0].Ended != -.5 || tr.Files[0].Arrived != 0 || tr.From != -1 || tr.To != 3 {
		t.Errorf("trace: %+v", tr)
	}
}

// TestExtend: a span goes on while nobody answers, and is over when something else was seen, or when the silence is long.
func TestExtend(t *testing.T) {
	var all []during
	for _, s := range []float64{0, .2, 3, 30, 30.2, 31, 32} {
		if s == 31 {
			finish(all, func(d during) bool { return d.who == "n1" })
		}
		all = extend(all, during{who: "n1", from: second(s), to: second(s), timeline: 1})
	}
	all = extend(all, during{who: "n1", from: second(32.4), to: second(32.4), timeline: 2})
	var got []string
	for _, d := range all {
		got = append(got, fmt.Sprintf("%s %.1f-%.1f", d.who, d.from.Sub(second(0)).Seconds(), d.to.Sub(second(0)).Seconds()))
	}
	if want := []string{"n1 0.0-3.0", "n1 30.0-30.2", "n1 31.0-32.0", "n1 32.4-32.4"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNoteNodes: who is the primary, of two the one on the newer timeline, and since when all are together again. No answer says nothing.
func TestNoteNodes(t *testing.T) {
	w := newWatcher(nil, []member{{name: "n1"}, {name: "n2"}}, segment(1, 5))
	node := func(role, state string, timeline uint32) *restapi.Node {
		return &restapi.Node{Role: role, State: state, Timeline: timeline}
	}
	for i, tc := range []struct {
		n1, n2   *restapi.Node
		primary  string
		together float64
	}{
		{node("primary", "running", 1), node("replica", "running", 1), "n1", 0},
		{nil, node("replica", "running", 1), "", 0},
		{node("primary", "stopping", 1), node("replica", "running", 1), "", -1},
		{node("primary", "running", 1), node("primary", "running", 2), "n2", -1},
		{nil, node("primary", "running", 2), "n2", -1},
		{node("replica", "running", 2), node("primary", "running", 2), "n2", 5},
		{node("replica", "running", 2), nil, "", 5},
	} {
		w.noteNodes([]*restapi.Node{tc.n1, tc.n2}, second(float64(i)))
		who, _ := w.now()
		if since := w.since(); who != tc.primary || since.IsZero() != (tc.together < 0) || tc.together >= 0 && !since.Equal(second(tc.together)) {
			t.Errorf("second %d: %q since %v, want %q since second %v", i, who, since, tc.primary, tc.together)
		}
	}
	if len(w.lagging(2)) != 1 || len(w.lagging(1)) != 2 {
		t.Errorf("lagging: %v", w.lagging(2))
	}
	if at := w.promoted("n2", 2, second(0)); !at.Equal(second(3)) {
		t.Errorf("n2 was promoted at %v", at)
	}
}

// TestInterrupted: who presses Ctrl-C during the switchover reads that it may take place all the same.
func TestInterrupted(t *testing.T) {
	for changing, want := range map[bool]string{false: "it was interrupted", true: "it was interrupted while the primary was to change, and that may go on: see patronictl list"} {
		if got := interrupted(changing).Error(); got != want {
			t.Errorf("changing %v: got %q, want %q", changing, got, want)
		}
	}
}
