package wal_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// dense is a full segment, of which one record ends at its very end.
type dense struct {
	segment     wal.Segment
	bytes       []byte
	starts, end []int // of each record: offsets of its first byte, and of the byte after its last
	old         [][]byte
}

func newDense(timeline wal.Timeline) dense {
	w := waltest.NewAt(cluster, wal.Segment{Timeline: 1, Size: mib, No: 0xFFE})
	w.Fill(1)
	w.Commit(time.Unix(1e9, 0))
	w.Switch()
	old := [][]byte{make([]byte, mib), w.Segment(w.Full()[0]), w.Segment(w.Full()[1])}
	parent := w
	if timeline > 1 {
		w = w.Fork(timeline)
		parent.Fill(1)
		old = append(old, parent.Segment(w.Current().On(1)))
	}
	d := dense{segment: w.Current(), old: old}
	note := func(at wal.LSN) {
		d.starts = append(d.starts, int(at-d.segment.Start()))
		d.end = append(d.end, int(w.Pos()-d.segment.Start()))
	}
	r := rand.New(rand.NewPCG(1, uint64(timeline)))
	for d.segment.End()-w.Pos() > 40000 {
		if r.IntN(4) == 0 {
			note(w.Commit(time.Unix(1e9+r.Int64N(1e6), 0)))
		} else {
			note(w.Record(r.IntN(8)*r.IntN(3000) + 1))
		}
	}
	w.Pad(0)
	d.bytes = w.Segment(d.segment)
	return d
}

// offsets are places all over a segment, and every one around two page boundaries; under -short a third of them.
func offsets(limit int) []int {
	step := 1
	if testing.Short() {
		step = 3
	}
	var all []int
	for i := 0; i < limit; i += step {
		if i%4093 == 0 || i > 5*pageSize-80 && i < 5*pageSize+80 || i < 100 {
			all = append(all, i)
		}
	}
	return all
}

// A file that is written up to any byte is cut after the last record that is whole, whatever an older
// life of the file left behind that byte.
func TestEveryCut(t *testing.T) {
	first := wal.Timeline(1)
	if testing.Short() {
		first = 2
	}
	for timeline := first; timeline <= 2; timeline++ {
		d := newDense(timeline)
		if r := check(t, d.bytes, d.segment, cluster); r.State != wal.Complete || r.Continues || r.End != d.segment.End() {
			t.Fatalf("%+v", r)
		}
		for i, old := range d.old {
			for _, off := range offsets(d.end[len(d.end)-1]) {
				if in := off % pageSize; in > 0 && in < 24 || off > 0 && off < 48 {
					// No write ends inside a page's header. One that ends right behind the first leaves an old
					// record whose link nobody can judge; the next one is judged.
					continue
				}
				b := waltest.Over(old, d.bytes, off)
				r := check(t, b, d.segment, cluster)
				if off == 0 {
					// A recycled file of the parent is whole in itself, as History.Explains knows.
					if r.State != wal.Foreign && i < 3 {
						t.Fatalf("old file %d alone: %v, %s", i, r.State, r.Why)
					}
					continue
				}
				// Where the old file and the new one have the same bytes, more of it is written.
				same := off
				for same < len(b) && b[same] == d.bytes[same] {
					same++
				}
				want, n := d.segment.Start(), 0
				for n < len(d.end) && d.end[n] <= same+7 && length(d, n) <= same {
					want = d.segment.Start() + wal.LSN(d.end[n])
					n++
				}
				if i == 3 && off%pageSize != 0 && r.State == wal.Damaged {
					continue // records do not tell their timeline: in one page, the parent's look like ours
				}
				if r.State != wal.Cut || r.End != want && n > 0 || r.Records != n {
					t.Fatalf("timeline %d, over old file %d from %d: %v up to %v with %d records (%s), want a cut at %v with %d",
						timeline, i, off, r.State, r.End, r.Records, r.Why, want, n)
				}
			}
		}
	}
}

// length returns the offset of the byte after record n, before it is rounded up.
func length(d dense, n int) int {
	total, at := int(le32(d.bytes[d.starts[n]:])), d.starts[n]
	for total > 0 {
		if at%pageSize == 0 {
			at += 24
		}
		k := min(total, pageSize-at%pageSize)
		total, at = total-k, at+k
	}
	return at
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// A bit that changed anywhere is seen, but for the bytes that mean nothing.
func TestEveryFlip(t *testing.T) {
	d := newDense(1)
	last := d.end[len(d.end)-1]
	var padding []int
	for n := range d.starts {
		for i := length(d, n); i < d.end[n]; i++ {
			padding = append(padding, i)
		}
	}
	for _, off := range offsets(last) {
		r := check(t, waltest.Flip(d.bytes, off), d.segment, cluster)
		in := off % pageSize
		unseen := in >= 20 && in < 24 || // the page header's own padding
			in == 2 || // the flag "full page images may be dropped"
			slices.Contains(padding, off)
		switch {
		case unseen && r.State != wal.Complete:
			t.Errorf("a bit at %d means nothing, and yet: %v, %s", off, r.State, r.Why)
		case !unseen && off >= 4 && off < 40 && r.State != wal.Foreign && r.State != wal.Damaged:
			t.Errorf("a bit of the first header, at %d: %v, %s", off, r.State, r.Why)
		case !unseen && (off < 4 || off >= 40) && r.State != wal.Damaged:
			t.Errorf("a bit at %d: %v, %s", off, r.State, r.Why)
		}
	}
}

// Behind a switch every byte is zero.
func TestEveryFlipBehindASwitch(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Commit(time.Unix(1e9, 0))
	s := w.Current()
	w.Switch()
	b := w.Segment(s)
	for _, off := range offsets(mib) {
		if off < 40+40+24 {
			continue
		}
		if r := check(t, waltest.Flip(b, off), s, cluster); r.State != wal.Damaged && (off >= pageSize || r.State != wal.Cut) {
			t.Errorf("a bit at %d: %v, %s", off, r.State, r.Why)
		}
	}
}

// Damage in the last page that is used has no good page behind it, but good records.
func TestDamageInTheLastPage(t *testing.T) {
	w := waltest.New(cluster, mib)
	var starts []wal.LSN
	for range 20 {
		starts = append(starts, w.Record(200))
	}
	w.Switch()
	s := w.Full()[0]
	for i, at := range starts {
		r := check(t, waltest.Flip(w.Segment(s), int(at-s.Start())+50), s, cluster)
		if r.State != wal.Damaged || r.End != at || r.Records != i {
			t.Errorf("record %d: got %v up to %v with %d records, want damaged up to %v", i, r.State, r.End, r.Records, at)
		}
	}
}

func TestWrongPages(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Fill(2)
	s := w.Full()[0]
	b, other := w.Segment(s), w.Segment(w.Full()[1])
	child := w.Fork(2)
	child.Fill(2)
	c := child.Full()[3]
	last := mib/pageSize - 1
	replace := func(b []byte, page int, with []byte) []byte {
		b = slices.Clone(b)
		copy(b[page*pageSize:], with)
		return b
	}
	timeline := func(b []byte, page int, t byte) []byte {
		return replace(b, page, []byte{b[page*pageSize], b[page*pageSize+1], b[page*pageSize+2], 0, t, 0, 0, 0})
	}
	flags := func(page int, info byte) []byte {
		return replace(b, page, []byte{b[page*pageSize], b[page*pageSize+1], info})
	}
	for name, v := range map[string]struct {
		bytes   []byte
		segment wal.Segment
		state   wal.State
	}{
		"a first page without the long header": {flags(0, 0), s, wal.Damaged},
		"the long header in between":           {flags(20, b[20*pageSize+2]|2), s, wal.Damaged},
		"a rest that is not flagged":           {flags(20, b[20*pageSize+2]&^1), s, wal.Damaged},
		"a zero page in between":               {replace(b, 20, make([]byte, pageSize)), s, wal.Damaged},
		"another's page in between":            {replace(b, 20, other[20*pageSize:21*pageSize]), s, wal.Damaged},
		"a page twice":                         {replace(b, 20, b[19*pageSize:20*pageSize]), s, wal.Damaged},
		"text in between":                      {replace(b, 20, []byte("walbaton")), s, wal.Damaged},
		"text in the last page":                {replace(b, last, []byte("walbaton")), s, wal.Damaged},
		"a later timeline in between":          {timeline(b, 20, 2), s, wal.Damaged},
		"a later timeline in the last page":    {timeline(b, last, 2), s, wal.Damaged},
		"no timeline in the last page":         {timeline(b, last, 0), s, wal.Damaged},
		"an earlier timeline in between":       {timeline(child.Segment(c), 20, 1), c, wal.Damaged},
		"another version in the last page":     {replace(b, last, []byte{0x13, 0xD1}), s, wal.Damaged},
		"the last page is zero":                {replace(b, last, make([]byte, pageSize)), s, wal.Cut},
		"the last page is old":                 {replace(b, last, other[last*pageSize:]), s, wal.Cut},
	} {
		r := check(t, v.bytes, v.segment, cluster)
		if r.State != v.state || r.Why == "" {
			t.Errorf("%s: got %v, %s, want %v", name, r.State, r.Why, v.state)
		}
	}
}

// chunks writes b in pieces of random length and asks for a report in between.
func chunks(t testing.TB, b []byte, s wal.Segment, seed uint64) wal.Report {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	c := wal.NewChecker(s, cluster)
	for sent := 0; len(b) > 0; {
		n := min(len(b), 1+r.IntN([]int{3, 40, 9000, 70000}[r.IntN(4)]))
		if sent > 20*pageSize {
			n = min(len(b), n+100_000) // there are enough small ones
		}
		if got, err := c.Write(b[:n]); got != n || err != nil {
			t.Fatalf("wrote %d of %d: %v", got, n, err)
		}
		b, sent = b[n:], sent+n
		if r.IntN(8) == 0 {
			c.Report()
		}
	}
	return c.Report()
}

// seeds are segments of every kind.
func seeds() (segments []wal.Segment, files [][]byte) {
	add := func(w *waltest.Writer) {
		for _, s := range w.Full() {
			segments, files = append(segments, s), append(files, w.Segment(s))
		}
		if s := w.Current(); w.Segment(s) != nil {
			segments, files = append(segments, s), append(files, w.Segment(s))
		}
	}
	w := waltest.New(cluster, mib)
	w.Record(20000)
	w.Commit(time.Unix(1e9, 0))
	w.Switch()
	w.Fill(1)
	w.Crash(50000)
	w.Record(2 * mib)
	w.Commit(time.Unix(2e9, 0))
	c := w.Fork(2)
	add(w)
	c.Fill(1)
	c.Pad(16)
	c.Switch()
	add(c)
	d := newDense(2)
	return append(segments, d.segment), append(files, waltest.Over(d.old[3], d.bytes, mib/2))
}

func TestChunks(t *testing.T) {
	segments, files := seeds()
	for i, s := range segments {
		for _, b := range [][]byte{files[i], files[i][:mib/3], waltest.Zero(files[i], mib/4)} {
			want := check(t, b, s, cluster)
			for seed := range uint64(5) {
				if got := chunks(t, b, s, seed); got != want {
					t.Errorf("%v in chunks: got %+v, want %+v", s, got, want)
				}
			}
		}
	}
}

func FuzzChecker(f *testing.F) {
	segments, files := seeds()
	f.Add(uint8(0), uint32(0), []byte(nil), uint32(mib))
	f.Add(uint8(1), uint32(8), []byte{0}, uint32(mib))
	f.Add(uint8(2), uint32(5*pageSize), []byte{0x10, 0xD1, 8, 0}, uint32(mib+1))
	f.Add(uint8(3), uint32(40), []byte{7, 0, 0, 0}, uint32(mib))
	f.Add(uint8(4), uint32(pageSize-8), []byte{20, 0, 0, 0, 0, 0, 0, 0}, uint32(mib))
	f.Add(uint8(5), uint32(pageSize-16), []byte{255, 255, 255, 255, 0, 0, 0, 0}, uint32(9000))
	f.Fuzz(func(t *testing.T, which uint8, at uint32, patch []byte, length uint32) {
		i := int(which) % len(segments)
		s, b := segments[i], append(slices.Clone(files[i]), bytes.Repeat([]byte{1}, pageSize)...)
		copy(b[at%mib:], patch)
		b = b[:length%uint32(len(b)+1)]
		c := wal.NewChecker(s, cluster)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		r := c.Report()
		if r.End < s.Start() || r.End > s.End() || (r.State == wal.Complete) != (r.Why == "") ||
			r.State == wal.Complete && (len(b) != mib || r.End != s.End()) ||
			r.Records == 0 != (r.First == 0) || r.First > r.Last {
			t.Errorf("%+v", r)
		}
		if got := chunks(t, b, s, uint64(at)); got != r {
			t.Errorf("in chunks: got %+v, want %+v", got, r)
		}
	})
}

// What is wrong with a record is said in its own words.
func TestWhy(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Record(pageSize - 40 - 24 - 5 - 16) // the next header is split: 16 bytes before the page's end, 8 behind its header
	split := w.Commit(time.Unix(1e9, 0))
	crash := w.Crash(20000)
	over := int(crash-w.Current().Start())/pageSize*pageSize + pageSize + 24
	w.Switch()
	s := w.Full()[0]
	at := int(split - s.Start())
	for name, c := range map[string]struct {
		off int
		put []byte
		end int
		why string
	}{
		"a length below a header's":        {at, []byte{23}, at, "a record has no length"},
		"no length":                        {at, []byte{0}, at, "the records end"},
		"another link, in a split header":  {at + 8, []byte{8}, at, "a record does not follow the one before it"},
		"another kind, in a split header":  {at + 16 + 24, []byte{0x20}, at, "a record's checksum is wrong"},
		"no record that overwrites":        {over + 16, []byte{0x20}, over, "a record does not follow the one before it"},
		"another record than the last":     {over + 8, []byte{0}, over, "a record does not follow the one before it"},
		"a rest of another length":         {pageSize + 16, []byte{17}, at, "a page does not continue the record before it"},
		"a rest where none was left":       {2*pageSize + 2, []byte{1}, int(crash - s.Start()), "a page does not continue the record before it"},
		"a rest and an overwritten record": {2*pageSize + 2, []byte{9}, int(crash - s.Start()), "a page overwrites a record that was not there"},
	} {
		b := w.Segment(s)
		copy(b[c.off:], c.put)
		r := check(t, b, s, cluster)
		if r.End != s.Start()+wal.LSN(c.end) || r.State == wal.Complete || !strings.Contains(r.Why, c.why) && r.State == wal.Cut {
			t.Errorf("%s: got %v up to %v, %q, want %v, %q", name, r.State, r.End, r.Why, s.Start()+wal.LSN(c.end), c.why)
		}
	}
}

// reseal puts bytes into the record at offset at, which lies in one page, and makes its CRC fit again.
func reseal(b []byte, at, off int, put ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at+off:], put)
	r := b[at : at+int(le32(b[at:]))]
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(r[20:], crc32.Update(crc32.Checksum(r[24:], table), table, r[:20]))
	return b
}

// A recycled file is full of old records whose CRCs are good. If one begins where the new WAL ends, only its link to
// the record before it tells them apart; and an old switch would make the whole file look complete.
func TestOldRecords(t *testing.T) {
	w := waltest.New(cluster, mib)
	var at []int
	for range 2 { // two segments with records of the same lengths
		at = nil
		for s := w.Current(); len(at) < 1000; {
			at = append(at, int(w.Record(400)-s.Start()))
		}
		w.Switch()
	}
	old, s := w.Segment(w.Full()[0]), w.Full()[1]
	b := w.Segment(s)
	for n := 1; n < len(at); n++ {
		if n > 30 && n < len(at)-30 {
			continue
		}
		end := s.Start() + wal.LSN(at[n])
		if in := at[n] % pageSize; in == 24 {
			end -= 24 // at the page's very beginning
		}
		r := check(t, waltest.Over(old, b, at[n]), s, cluster)
		if r.State != wal.Cut || r.End != end || r.Records != n || r.Switch {
			t.Fatalf("after record %d: got %v up to %v with %d records (%s), want a cut at %v", n, r.State, r.End, r.Records, r.Why, end)
		}
	}
}

// Records with a good CRC that cannot stand where they stand.
func TestWrongRecords(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Record(100)
	second := int(w.Record(100) - w.Current().Start())
	crash := w.Crash(20000)
	over := int(crash-w.Current().Start())/pageSize*pageSize + pageSize + 24
	w.Switch()
	s := w.Full()[0]
	b := w.Segment(s)
	for name, c := range map[string]struct {
		bytes []byte
		end   int
	}{
		"the first record links to itself":   {reseal(b, 40, 8, 40, 0, 0x10), 40},
		"the first record links behind":      {reseal(b, 40, 8, 255, 255, 255, 255, 255), 40},
		"the second record links elsewhere":  {reseal(b, second, 8, 48), second},
		"no record that overwrites the lost": {reseal(b, over, 16, 0x20), over},
	} {
		r := check(t, c.bytes, s, cluster)
		if r.State != wal.Damaged && r.State != wal.Cut || r.End != s.Start()+wal.LSN(c.end) {
			t.Errorf("%s: got %v up to %v, %s", name, r.State, r.End, r.Why)
		}
	}
	// A length that ends in the header, where the page ends, too.
	w = waltest.New(cluster, mib)
	w.Record(pageSize - 40 - 24 - 5 - 16)
	b = w.Segment(w.Current())
	for total := range byte(24) {
		b[pageSize-16] = total
		r := check(t, b, w.Current(), cluster)
		if want := map[bool]string{true: "the records end", false: "a record has no length"}[total == 0]; r.State != wal.Cut || r.Why != want {
			t.Errorf("a length of %d: got %v, %s", total, r.State, r.Why)
		}
	}
}

// The last 8 bytes of a record may look like the end of a switch; what follows tells.
func TestNoSwitch(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Pad(400)
	body := make([]byte, 400-24+8)
	body[400-24] = 0x40
	w.Raw(10, 0, body)
	w.Fill(1)
	s := w.Full()[1]
	if r := check(t, w.Segment(s), s, cluster); r.State != wal.Complete || r.Switch || r.Records == 0 {
		t.Errorf("%+v", r)
	}
}

// The CRC of a record that runs on into the next segment cannot be checked here; its link can.
func TestRecordsThatRunOn(t *testing.T) {
	w := waltest.New(cluster, mib)
	var at int
	for range 2 { // two segments with records of the same lengths, and one in between
		for s := w.Current(); w.Pos() < s.End(); {
			at = int(w.Record(400) - s.Start())
		}
		w.Switch()
	}
	old, s := w.Segment(w.Full()[0]), w.Full()[2]
	r := check(t, waltest.Over(old, w.Segment(s), at), s, cluster)
	if r.State != wal.Cut || r.End != s.Start()+wal.LSN(at) {
		t.Errorf("an old record that runs on: got %v up to %v, %s", r.State, r.End, r.Why)
	}
	// Its header split over two pages.
	w = waltest.New(cluster, mib)
	s = w.Current()
	w.Pad(pageSize + 16)
	w.Record(mib)
	b := w.Segment(s)
	end := s.End() - pageSize - 16
	if r := check(t, b, s, cluster); r.State != wal.Complete || !r.Continues || r.Last != end {
		t.Errorf("%+v", r)
	}
	if r := check(t, waltest.Flip(b, mib-pageSize-8), s, cluster); r.State == wal.Complete || r.End != end {
		t.Errorf("another link: got %v up to %v, %s", r.State, r.End, r.Why)
	}
}
