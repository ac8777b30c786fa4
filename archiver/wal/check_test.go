package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

const (
	cluster  = 7710542482846769188
	pageSize = 8192
)

// expect checks one segment of w and returns the report.
func expect(t *testing.T, w *waltest.Writer, s wal.Segment, state wal.State, end wal.LSN) wal.Report {
	t.Helper()
	b := w.Segment(s)
	if b == nil {
		t.Fatalf("there is no %v", s)
	}
	r := check(t, b, s, w.SystemID())
	if r.State != state || r.End != end {
		t.Errorf("%v: got %v up to %v (%s), want %v up to %v", s, r.State, r.End, r.Why, state, end)
	}
	if !w.History().Explains(s, r) {
		t.Errorf("%v: the history does not explain timelines %d to %d", s, r.FirstTimeline, r.LastTimeline)
	}
	return r
}

func TestCompleteInEverySize(t *testing.T) {
	for size := wal.MinSegmentSize; size <= 16*mib; size *= 4 {
		w := waltest.New(cluster, size)
		w.Fill(2)
		full := w.Full()
		if len(full) != 2 {
			t.Fatalf("%d segments are full, want 2", len(full))
		}
		for _, s := range full {
			r := expect(t, w, s, wal.Complete, s.End())
			if !r.Continues || r.Records < 100 || r.First < s.Start() || r.Last >= s.End() || r.Major != 15 || r.Magic != 0xD110 {
				t.Errorf("%v: %+v", s, r)
			}
		}
		// The one that is being written.
		s := w.Current()
		expect(t, w, s, wal.Cut, w.Pos())
	}
}

func TestEveryVersion(t *testing.T) {
	for magic, major := range map[uint16]int{0xD101: 12, 0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18, 0xD120: 0, 0xD098: 0} {
		w := waltest.New(cluster, mib)
		w.Magic = magic
		w.Fill(1)
		s := w.Full()[0]
		r := check(t, w.Segment(s), s, cluster)
		want := wal.Complete
		if major == 0 {
			want = wal.Foreign
		}
		if r.Major != major || r.Magic != magic || r.State != want {
			t.Errorf("%04X: got version %d, %v", magic, r.Major, r.State)
		}
	}
}

func TestOneRecordOverSegments(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Record(100)
	lsn := w.Record(3 * mib)
	last := w.Record(100)
	w.Switch()
	full := w.Full()
	if len(full) != 4 {
		t.Fatalf("%d segments are full, want 4", len(full))
	}
	for i, s := range full {
		r := expect(t, w, s, wal.Complete, s.End())
		type facts struct {
			records     int
			first, last wal.LSN
			runsOn      bool
		}
		got := facts{r.Records, r.First, r.Last, r.Continues}
		want := facts{0, 0, 0, true}
		switch i {
		case 0:
			want = facts{2, s.Start() + 40, lsn, true}
		case 3:
			want = facts{2, last, w.Full()[3].Start() + (r.Last - s.Start()), false}
		}
		if got != want {
			t.Errorf("%v: got %+v, want %+v", s, got, want)
		}
	}
}

// A record's header is split over two pages, or two segments, when 8 or 16 bytes are left of the first.
func TestSplitHeaders(t *testing.T) {
	for room := 0; room <= 40; room += 8 {
		w := waltest.New(cluster, mib)
		first := w.Current()
		w.Pad(room)
		commit := time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)
		at := w.Commit(commit)
		w.Pad(pageSize/2 + room) // and in the middle of the second segment: half a page before its end
		w.Record(pageSize/2 - room%16 - 29)
		w.Record(1000)
		w.Fill(1)
		r := expect(t, w, first, wal.Complete, first.End())
		if runsOn := room > 0 && room < 40; r.Continues != runsOn {
			t.Errorf("%d bytes left: continues is %v", room, r.Continues)
		}
		s := first.Next()
		n := expect(t, w, s, wal.Complete, s.End())
		// The commit has 34 bytes: whole in the first segment, or in the second, or split and in neither.
		switch {
		case room == 40 && (r.FirstCommit != commit || n.FirstCommit != time.Time{}),
			room == 0 && (n.FirstCommit != commit || n.First != at),
			room > 0 && room < 40 && (r.FirstCommit != time.Time{} || n.FirstCommit != time.Time{} || r.Last != at):
			t.Errorf("%d bytes left: commits at %v and %v", room, r.FirstCommit, n.FirstCommit)
		}
	}
	for room := 8; room <= 16; room += 8 { // over two pages of one segment
		w := waltest.New(cluster, mib)
		w.Record(pageSize - 40 - 24 - 5 - room)
		if left := pageSize - int(w.Pos()%pageSize); left != room {
			t.Fatalf("%d bytes are left of the page, want %d", left, room)
		}
		commit := time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)
		w.Commit(commit)
		w.Switch()
		r := expect(t, w, w.Full()[0], wal.Complete, w.Full()[0].End())
		if r.FirstCommit != commit || r.Records != 3 {
			t.Errorf("%d bytes left: %+v", room, r)
		}
	}
}

func TestSwitch(t *testing.T) {
	for room := 8; room <= 64; room += 8 {
		w := waltest.New(cluster, mib)
		s := w.Current()
		w.Pad(room)
		at := w.Switch()
		r := expect(t, w, s, wal.Complete, s.End())
		switch {
		case room >= 24:
			if !r.Switch || r.Continues || r.Last != at || w.Pos() != s.End() {
				t.Errorf("%d bytes left: %+v", room, r)
			}
		default: // it began there, and skips the next segment
			if r.Switch || !r.Continues || r.Last != at {
				t.Errorf("%d bytes left: %+v", room, r)
			}
			n := expect(t, w, s.Next(), wal.Complete, s.Next().End())
			if !n.Switch || n.Continues || n.Records != 0 {
				t.Errorf("%d bytes left, next: %+v", room, n)
			}
		}
	}
	// Split over two pages; and at the very end of a page.
	for _, room := range []int{8, 16, 24} {
		w := waltest.New(cluster, mib)
		s := w.Current()
		w.Record(pageSize - 40 - 24 - 5 - room)
		w.Switch()
		if r := expect(t, w, s, wal.Complete, s.End()); !r.Switch || r.Records != 2 {
			t.Errorf("%d bytes left of a page: %+v", room, r)
		}
		b := w.Segment(s)
		b[mib-1] = 1
		if r := check(t, b, s, cluster); r.State != wal.Damaged {
			t.Errorf("a byte behind a switch: %v, %s", r.State, r.Why)
		}
	}
	// The zeros are not there yet: a recycled file.
	w := waltest.New(cluster, mib)
	w.Fill(1)
	s := w.Current()
	w.Commit(time.Now())
	w.Switch()
	old, b := w.Segment(w.Full()[0]), w.Segment(s)
	for _, off := range []int{pageSize, 3 * pageSize, mib - pageSize} {
		if r := check(t, waltest.Over(old, b, off), s, cluster); r.State != wal.Cut {
			t.Errorf("cut in the zeros at %d: %v, %s", off, r.State, r.Why)
		}
	}
}

func TestCommitTimes(t *testing.T) {
	w := waltest.New(cluster, mib)
	day := func(d int) time.Time { return time.Date(2026, 3, d, 12, 0, 0, 123456000, time.UTC) }
	data := func(d int) []byte { return append([]byte{255, 8}, waltest.Timestamp(day(d))...) }
	w.Commit(day(5))
	w.Commit(day(3))                                                               // clocks go back
	w.Raw(1, 0x20, data(1))                                                        // an abort
	w.Raw(1, 0x40, data(30))                                                       // an aborted prepared one
	w.Raw(1, 0x10, data(31))                                                       // a prepare
	w.Raw(1, 0xB0, data(9))                                                        // a committed prepared one, with more
	w.Raw(1, 0x80, append([]byte{253, 1, 0}, data(10)...))                         // with an origin
	w.Raw(1, 0x00, append([]byte{253, 1, 0, 252, 1, 2, 3, 4}, data(11)...))        // and the top-level transaction
	w.Raw(1, 0x00, append([]byte{254, 8, 0, 0, 0}, waltest.Timestamp(day(12))...)) // a long length
	w.Raw(1, 0x00, nil)                                                            // nonsense with a good CRC
	w.Raw(1, 0x00, []byte{255})
	w.Raw(1, 0x00, []byte{252, 1})
	w.Raw(1, 0x00, []byte{7, 7, 7})
	w.Raw(10, 0x00, data(31)) // another resource manager
	w.Switch()
	s := w.Full()[0]
	r := expect(t, w, s, wal.Complete, s.End())
	if r.FirstCommit != day(3) || r.LastCommit != day(12) || r.Records != 15 {
		t.Errorf("got %d records, commits from %v to %v", r.Records, r.FirstCommit, r.LastCommit)
	}
	w.Commit(time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC))
	w.Switch()
	r = check(t, w.Segment(w.Full()[1]), w.Full()[1], cluster)
	if got := r.FirstCommit.Format(time.RFC3339Nano); got != "1999-12-31T23:59:59.999999Z" {
		t.Errorf("before PostgreSQL's epoch: %v", got)
	}
}

func TestFork(t *testing.T) {
	// Where the fork lies in the fourth page or the last one, or is a boundary of pages or of segments.
	for name, upTo := range map[string]func(w *waltest.Writer){
		"inside":           func(w *waltest.Writer) { w.Record(30000) },
		"last page":        func(w *waltest.Writer) { w.Pad(800) },
		"page boundary":    func(w *waltest.Writer) { w.Record(pageSize - 40 - 24 - 5) },
		"segment boundary": func(w *waltest.Writer) { w.Switch() },
	} {
		w := waltest.New(cluster, mib)
		w.Fill(1)
		w.Switch()
		w.Record(100)
		if name == "page boundary" {
			w.Switch()
		}
		upTo(w)
		c := w.Fork(3)
		w.Fill(2) // two primaries
		c.Commit(time.Now())
		c.Fill(2)
		fork, _ := c.History().End(1)
		if name == "page boundary" && fork%pageSize != 0 || name == "segment boundary" && fork%mib != 0 {
			t.Fatalf("%s: the fork is at %v", name, fork)
		}
		for _, s := range c.Full() {
			expect(t, c, s, wal.Complete, s.End())
		}
		s := c.History().Forks[0]
		at := wal.SegmentSize(mib).At(3, s.End)
		r := check(t, c.Segment(at), at, cluster)
		last := wal.Timeline(3)
		if name == "last page" {
			last = 1
		}
		first := wal.Timeline(1)
		if fork%mib == 0 {
			first = 3
		}
		if r.FirstTimeline != first || r.LastTimeline != last {
			t.Errorf("%s: got timelines %d to %d, want %d to %d", name, r.FirstTimeline, r.LastTimeline, first, last)
		}
		if fork%mib == 0 {
			continue
		}
		// What the follower submits, and what the .partial holds.
		cut := expect(t, c, at.On(1), wal.Cut, fork)
		// The old primary's own is whole, but another file.
		old := check(t, w.Segment(at.On(1)), at.On(1), cluster)
		if old.State != wal.Complete || cut.First != old.First {
			t.Errorf("%s: the old primary's is %v", name, old)
		}
		// Under the child's name it is a recycled one; only the history knows.
		if r := check(t, w.Segment(at.On(1)), at, cluster); name != "last page" && c.History().Explains(at, r) {
			t.Errorf("%s: the history explains a file of the parent's", name)
		}
		// And the child's under the parent's name is no one's.
		if name != "last page" {
			if r := check(t, c.Segment(at), at.On(1), cluster); r.State != wal.Damaged {
				t.Errorf("%s: the child's under the parent's name: %v, %s", name, r.State, r.Why)
			}
		}
		next := at.Next()
		if r := check(t, c.Segment(next), next.On(1), cluster); r.State != wal.Foreign {
			t.Errorf("%s: the child's under the parent's name: %v, %s", name, r.State, r.Why)
		}
	}
}

// TestSwitchBesideAFork: a switch right after the fork, wherever it lies in its page, and cut by the page's end, too.
func TestSwitchBesideAFork(t *testing.T) {
	for fork := 7900; fork < 8300; fork += 8 {
		w := waltest.New(cluster, mib)
		w.Fill(1)
		w.Switch()
		w.Record(fork - 40 - 24 - 5)
		c := w.Fork(2)
		c.Switch()
		at := c.Full()[len(c.Full())-1]
		if r := expect(t, c, at, wal.Complete, at.End()); !r.Switch {
			t.Errorf("fork at %v: no switch", c.History().Forks[0].End)
		}
	}
}

func TestCrash(t *testing.T) {
	for _, room := range []int{5000, 1000, 40, 24, 16, 8} {
		w := waltest.New(cluster, mib)
		w.Record(100)
		w.Crash(50000) // inside the segment
		w.Commit(time.Now())
		w.Pad(room)
		lost := w.Crash(3 * mib) // the rest would have been in the next segment
		first := w.Full()[0]
		w.Fill(1)
		r := expect(t, w, first, wal.Complete, first.End())
		// The first lost record is not one; the last begins here, and that it is lost is not seen here.
		if room < pageSize && (!r.Continues || r.Last != lost) {
			t.Errorf("%d bytes left: %+v, lost %v", room, r, lost)
		}
		n := expect(t, w, first.Next(), wal.Complete, first.Next().End())
		if n.First != first.End()+40 {
			t.Errorf("%d bytes left: the first record is at %v", room, n.First)
		}
		if !agree(t, "a crash", []file{{first, w.Segment(first)}, {first.Next(), w.Segment(first.Next())}}) {
			t.Errorf("%d bytes left: the second does not follow the first", room)
		}
	}
	// A standby that is promoted without a record's end, by 13.5 to 13.8 and 14.1 to 14.5.
	w := waltest.New(cluster, mib)
	w.Record(100)
	lost := w.Tear(50000)
	c := w.Fork(2)
	c.Resume()
	c.Fill(1)
	one := c.Full()[0]
	if r := expect(t, c, one, wal.Complete, one.End()); one.Timeline != 2 || r.FirstTimeline != 1 || r.LastTimeline != 2 {
		t.Errorf("%v: %+v", one, r)
	}
	expect(t, c, one.On(1), wal.Cut, lost)
	// Such a page needs a record to overwrite, and must begin with the record that says so.
	w = waltest.New(cluster, mib)
	w.Record(pageSize - 40 - 24 - 5)
	w.Fill(1)
	s := w.Full()[0]
	b := w.Segment(s)
	b[pageSize+2] |= 8
	if r := check(t, b, s, cluster); r.State != wal.Damaged || r.End != s.Start()+pageSize {
		t.Errorf("nothing to overwrite: %v up to %v, %s", r.State, r.End, r.Why)
	}
	w = waltest.New(cluster, mib)
	w.Crash(20000)
	w.Fill(1)
	s = w.Full()[0]
	b = w.Segment(s)
	b[pageSize+2] &^= 8
	if r := check(t, b, s, cluster); r.State != wal.Damaged || r.End != s.Start()+40 {
		t.Errorf("an abandoned record that nothing overwrites: %v up to %v, %s", r.State, r.End, r.Why)
	}
}

func TestForeign(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Fill(2)
	s, next := w.Full()[0], w.Full()[1]
	b := w.Segment(s)
	put := func(off int, v uint32) []byte {
		c := waltest.Zero(b, len(b))
		binary.LittleEndian.PutUint32(c[off:], v)
		return c
	}
	big := waltest.New(cluster, 2*mib)
	big.Fill(1)
	for name, c := range map[string]struct {
		bytes []byte
		why   string
	}{
		"empty":            {nil, "0 bytes"},
		"short of a page":  {b[:30], "30 bytes"},
		"all zero":         {make([]byte, mib), "zero"},
		"recycled":         {w.Segment(next), "holds the WAL of 0/200000"},
		"another cluster":  {waltest.Flip(b, 24), "cluster"},
		"another size":     {put(32, 2*mib), "2097152"},
		"other pages":      {put(36, 4096), "4096"},
		"a later timeline": {put(4, 2), "timeline 2"},
		"no timeline":      {put(4, 0), "timeline 0"},
		"a bigger segment": {big.Segment(big.Full()[0]), "2097152"},
		"text":             {[]byte(strings.Repeat("walbaton ", mib/9+1)[:mib]), "no PostgreSQL"},
	} {
		r := check(t, c.bytes, s, cluster)
		if r.State != wal.Foreign || !strings.Contains(r.Why, c.why) || r.End != s.Start() || r.Records != 0 {
			t.Errorf("%s: got %v up to %v, %q, want foreign, %q", name, r.State, r.End, r.Why, c.why)
		}
	}
	// The first page alone is unreadable, and the others are this segment's.
	for name, c := range map[string][]byte{"zero": append(make([]byte, pageSize), b[pageSize:]...), "magic": waltest.Flip(b, 0), "flags": waltest.Flip(b, 3)} {
		if r := check(t, c, s, cluster); r.State != wal.Damaged {
			t.Errorf("%s: got %v, %s, want damaged", name, r.State, r.Why)
		}
	}
}

func TestLength(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Fill(1)
	s := w.Full()[0]
	w.Record(5)
	w.Switch()
	for _, s := range []wal.Segment{s, s.Next()} {
		b := w.Segment(s)
		for _, n := range []int{40, 41, 8191, 8192, 8193, 8200, 8215, 8232, 100_000, mib - 8192, mib - 1} {
			r := check(t, b[:n], s, cluster)
			if r.State != wal.Cut || r.End > s.Start()+wal.LSN(n) || !strings.Contains(r.Why, fmt.Sprint(n)) {
				t.Errorf("%v, %d bytes: %v up to %v, %s", s, n, r.State, r.End, r.Why)
			}
		}
		for _, more := range []int{1, 8192, 10000} {
			if r := check(t, append(b[:mib:mib], make([]byte, more)...), s, cluster); r.State != wal.Damaged || !strings.Contains(r.Why, "longer") {
				t.Errorf("%v, %d bytes too many: %v, %s", s, more, r.State, r.Why)
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Fill(1)
	s := w.Full()[0]
	broken := errors.New("disk on fire")
	r, err := wal.Check(io.MultiReader(strings.NewReader(string(w.Segment(s)[:5000])), iotest.ErrReader(broken)), s, cluster)
	if !errors.Is(err, broken) || r != (wal.Report{}) {
		t.Errorf("got %+v, %v", r, err)
	}
}
