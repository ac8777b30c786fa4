package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// file is a segment with its bytes.
type file struct {
	segment wal.Segment
	bytes   []byte
}

func joint(t testing.TB, f file) (wal.Joint, wal.Report) {
	t.Helper()
	c := wal.NewChecker(f.segment, cluster)
	if _, err := c.Write(f.bytes); err != nil {
		t.Fatal(err)
	}
	return c.Joint(), c.Report()
}

// joinAll joins from the left, one by one.
func joinAll(joints []wal.Joint) (j wal.Joint, err error) {
	j = joints[0]
	for _, next := range joints[1:] {
		if j, err = wal.Join(j, next); err != nil {
			return j, err
		}
	}
	return j, nil
}

// joinTree joins halves that were joined before.
func joinTree(joints []wal.Joint) (wal.Joint, error) {
	if len(joints) == 1 {
		return joints[0], nil
	}
	before, err := joinTree(joints[:len(joints)/2])
	if err != nil {
		return before, err
	}
	after, err := joinTree(joints[len(joints)/2:])
	if err != nil {
		return after, err
	}
	return wal.Join(before, after)
}

// plain reads segments in order the simple way: it puts each record together in memory. It says what is wrong,
// and is for segments that are complete, each alone. That is the oracle for Join.
type plain struct {
	timeline uint32
	begun    bool
	rest     int    // bytes to come of a record that began before all
	record   []byte // of one that is open
	total    int
	start    wal.LSN
	prev     wal.LSN // 0 unknown
	lost     []byte  // the header of an abandoned record that had no known record before it
	skip     bool
}

func (r *plain) read(files []file) string {
	for _, f := range files {
		r.skip = false
		for off := 0; off < len(f.bytes) && !r.skip; off += pageSize {
			if why := r.page(f, off); why != "" {
				return why
			}
		}
	}
	return ""
}

func (r *plain) page(f file, off int) string {
	p := f.bytes[off : off+pageSize]
	info, timeline, rest := binary.LittleEndian.Uint16(p[2:]), le32(p[4:]), int(le32(p[16:]))
	if timeline < r.timeline {
		return "timeline"
	}
	r.timeline = timeline
	in := 24
	if off == 0 {
		in = 40
	}
	switch {
	case info&8 != 0:
		if r.prev == 0 && len(r.record) >= 24 {
			r.lost = r.record[:24]
		}
		r.record, r.rest = nil, 0
	case !r.begun:
		r.rest = rest
	case r.record == nil && rest != r.rest || r.record != nil && rest != r.total-len(r.record):
		return "rest"
	}
	first := !r.begun
	r.begun = true
	if r.record == nil && r.rest > 0 {
		n := min(r.rest, pageSize-in)
		r.rest -= n
		if in += n; r.rest > 0 {
			return ""
		}
		in = (in + 7) &^ 7
		if first && (n == 8 || n == 16) && in < pageSize && bytes.Count(f.bytes[in:], []byte{0}) == len(f.bytes)-in {
			r.skip = true
			return ""
		}
	}
	for in < pageSize {
		if r.record == nil {
			r.start, r.total = f.segment.Start()+wal.LSN(off+in), int(le32(p[in:]))
			if r.total < 24 {
				return "length"
			}
			r.record = []byte{}
		}
		n := min(r.total-len(r.record), pageSize-in)
		r.record = append(r.record, p[in:in+n]...)
		in = (in + n + 7) &^ 7
		if why := r.header(); why != "" {
			return why
		}
		if len(r.record) < r.total {
			return ""
		}
		h := r.record
		table := crc32.MakeTable(crc32.Castagnoli)
		if crc32.Update(crc32.Checksum(h[24:], table), table, h[:20]) != le32(h[20:]) {
			return "checksum"
		}
		r.prev, r.record = r.start, nil
		if h[17] == 0 && h[16]&0xF0 == 0x40 {
			r.skip = true
			if bytes.Count(f.bytes[off+in:], []byte{0}) != len(f.bytes)-off-in {
				return "zeros"
			}
			return ""
		}
	}
	return ""
}

func (r *plain) header() string {
	if len(r.record) < 24 {
		return ""
	}
	prev := wal.LSN(binary.LittleEndian.Uint64(r.record[8:]))
	switch {
	case r.prev != 0 && prev != r.prev, prev >= r.start, r.prev == 0 && r.lost != nil && !bytes.Equal(r.lost[8:16], r.record[8:16]):
		return "link"
	}
	return ""
}

// agree compares Join, in two groupings, with reading in order; it returns whether the files fit.
func agree(t *testing.T, what string, files []file) bool {
	t.Helper()
	joints := make([]wal.Joint, len(files))
	for i, f := range files {
		var r wal.Report
		if joints[i], r = joint(t, f); r.State != wal.Complete {
			if joints[i] != (wal.Joint{}) {
				t.Errorf("%s: %v is %v and has a joint", what, f.segment, r.State)
			}
			for _, other := range joints[max(0, i-1):i] {
				if _, err := wal.Join(other, joints[i]); !errors.Is(err, wal.ErrApart) {
					t.Errorf("%s: %v is %v, and Join says %v", what, f.segment, r.State, err)
				}
			}
			return false
		}
	}
	left, err := joinAll(joints)
	tree, err2 := joinTree(joints)
	why := (&plain{}).read(files)
	if (err == nil) != (why == "") || (err == nil) != (err2 == nil) || left != tree {
		t.Errorf("%s: joined from the left: %v; as a tree: %v; same: %v; read in order: %q", what, err, err2, left == tree, why)
	}
	var b *wal.Break
	if err != nil && (!errors.As(err, &b) || (b.State == wal.Foreign) != (why == "timeline")) {
		t.Errorf("%s: got %v %v, read in order: %s", what, b, err, why)
	}
	return err == nil
}

// scribble writes WAL of all kinds over the ends of segments.
func scribble(r *rand.Rand, w *waltest.Writer, segments int) {
	for end := w.Current().Start() + wal.LSN(segments*mib); w.Pos() < end; {
		left := int(w.Current().End() - w.Pos())
		switch r.IntN(9) {
		case 0:
			w.Record(r.IntN(3 * mib))
		case 1:
			w.Commit(time.Unix(1e9, 0))
		case 2:
			w.Record(r.IntN(200))
		case 3:
			w.TearAfter(3*mib, 1+r.IntN(200))
			w.Resume()
		case 4:
			w.Switch()
		case 5, 6, 7:
			if left > 3000 {
				w.Pad(8 * (1 + r.IntN(9)))
			}
			switch r.IntN(5) {
			case 0:
				w.Switch()
			case 1:
				w.Crash(r.IntN(2 * mib))
			case 2:
				w.Record(r.IntN(3 * mib))
			default:
				w.Record(r.IntN(40))
			}
		default:
			w.Fill(1)
		}
	}
}

// full returns the finished segments of a server.
func full(w *waltest.Writer) (files []file) {
	for _, s := range w.Full() {
		files = append(files, file{s, w.Segment(s)})
	}
	return files
}

// TestJoin is P3's own: what lies in two segments is proven as if they had been read in order.
func TestJoin(t *testing.T) {
	var fit, broken int
	chains := uint64(25)
	if testing.Short() {
		chains = 3
	}
	for seed := range chains {
		r := rand.New(rand.NewPCG(seed, 1))
		w := waltest.New(cluster, mib)
		scribble(r, w, 1+r.IntN(3))
		other := w.Clone(7)
		child := w.Fork(2)
		scribble(r, w, 3)
		other.Record(r.IntN(3 * mib))
		scribble(r, other, 3)
		scribble(r, child, 3)
		all := full(child)
		if !agree(t, fmt.Sprintf("chain %d", seed), all) {
			t.Errorf("chain %d does not fit", seed)
		}
		for range 60 {
			files := slices.Clone(all)
			i := r.IntN(len(files))
			s, b := files[i].segment, files[i].bytes
			what := "flip"
			switch r.IntN(8) {
			case 0, 1: // the beginning, with the rest of a record
				files[i].bytes = waltest.Flip(b, 16+r.IntN(100))
			case 2, 3: // the end, with the beginning of one
				files[i].bytes = waltest.Flip(b, mib-1-r.IntN(100))
			case 4:
				files[i].bytes = waltest.Flip(b, r.IntN(mib))
			case 5:
				what = "the old primary's"
				files[i].bytes = orElse(w.Segment(s.On(1)), b)
			case 6:
				what = "another server's"
				files[i].bytes = orElse(other.Segment(s.On(1)), b)
			case 7:
				what = "a byte at both ends"
				b = waltest.Flip(b, 40+r.IntN(24))
				files[i].bytes = waltest.Flip(b, mib-1-r.IntN(24))
			}
			from := r.IntN(i + 1)
			to := i + 1 + r.IntN(len(files)-i)
			if agree(t, fmt.Sprintf("chain %d, %s at %v, from %v to %v", seed, what, s, files[from].segment, files[to-1].segment), files[from:to]) {
				fit++
			} else {
				broken++
			}
		}
	}
	t.Logf("%d fit, %d do not", fit, broken)
}

func orElse(a, b []byte) []byte {
	if a == nil {
		return b
	}
	return a
}

// TestJoinVectors: what PostgreSQL wrote fits together, and the old primary's own end does not fit the new line.
func TestJoinVectors(t *testing.T) {
	for _, version := range []string{"pg13", "pg15", "pg17"} {
		dir := filepath.Join(vectors, version)
		control := readControl(t, dir)
		var names []string
		var joints []wal.Joint
		for _, v := range vectorsOf(version) {
			c := wal.NewChecker(segment(t, filepath.Base(v.file), control.SegmentSize), control.SystemID)
			if _, err := c.Write(unzstd(t, dir, v.file)); err != nil {
				t.Fatal(err)
			}
			names, joints = append(names, v.file), append(joints, c.Joint())
		}
		fit, broken := 0, 0
		for i, before := range joints {
			for k, after := range joints {
				_, err := wal.Join(before, after)
				first, _ := before.Segments()
				second, _ := after.Segments()
				// The fork lies in the first segment of timeline 2; the old primary's own is the one before.
				branch := second.Timeline == 2 && first.Timeline == 1 && second != segment(t, filepath.Base(vectorsOf(version)[9].file), control.SegmentSize)
				switch {
				case errors.Is(err, wal.ErrApart):
				case err == nil && !branch:
					fit++
				case err != nil && branch:
					broken++
				default:
					t.Errorf("%s: %s and %s: %v", version, names[i], names[k], err)
				}
			}
		}
		if fit != 5 || broken != 1 {
			t.Errorf("%s: %d pairs fit and %d do not, want 5 and 1", version, fit, broken)
		}
	}
}

// TestJoinApart: segments that are not complete, or do not follow each other, say nothing about each other.
func TestJoinApart(t *testing.T) {
	w := waltest.New(cluster, mib)
	w.Fill(3)
	all := full(w)
	one, _ := joint(t, all[0])
	two, _ := joint(t, all[1])
	three, _ := joint(t, all[2])
	big := waltest.New(cluster, 2*mib)
	big.Fill(1)
	other := waltest.New(1, mib)
	other.Fill(2)
	of := func(s wal.Segment, systemID uint64, b []byte) wal.Joint {
		c := wal.NewChecker(s, systemID)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		return c.Joint()
	}
	for what, pair := range map[string][2]wal.Joint{
		"the same":        {one, one},
		"the one after":   {one, three},
		"backwards":       {two, one},
		"nothing before":  {{}, one},
		"nothing after":   {one, {}},
		"a cut one":       {of(all[0].segment, cluster, waltest.Zero(all[0].bytes, mib/2)), two},
		"another cluster": {one, of(other.Full()[1], 1, other.Segment(other.Full()[1]))},
		"another size":    {one, of(big.Full()[0], cluster, big.Segment(big.Full()[0]))},
	} {
		if _, err := wal.Join(pair[0], pair[1]); !errors.Is(err, wal.ErrApart) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	// A recycled file of the parent, after a segment of the child; and the child's before the parent's.
	child := w.Fork(2)
	child.Fill(2)
	w.Fill(2)
	s := child.Full()[4]
	before, _ := joint(t, file{s.Prev(), child.Segment(s.Prev())})
	recycled, r := joint(t, file{s, w.Segment(s.On(1))})
	var b *wal.Break
	if _, err := wal.Join(before, recycled); r.State != wal.Complete || !errors.As(err, &b) || b.State != wal.Foreign {
		t.Errorf("the parent's after the child's: %v, %v", r.State, err)
	}
	parents, _ := joint(t, file{s.On(1), w.Segment(s.On(1))})
	if _, err := wal.Join(before, parents); !errors.Is(err, wal.ErrApart) {
		t.Errorf("the parent's own after the child's: %v", err)
	}
}

// TestJoinRecord flips each bit's byte of a record that runs over two, three and four segments, wherever its header is split.
func TestJoinRecord(t *testing.T) {
	step := 8
	if testing.Short() {
		step = 24
	}
	for room := 8; room <= 64; room += step {
		for over := range 3 {
			w := waltest.New(cluster, mib)
			w.Pad(room)
			start := w.Record(over*mib + 500)
			end := w.Pos()
			w.Record(10)
			w.Fill(1)
			all := full(w)[:over+2]
			what := fmt.Sprintf("%d bytes left, over %d segments", room, len(all))
			if !agree(t, what, all) {
				t.Fatalf("%s: it does not fit", what)
			}
			for i, f := range all {
				for _, off := range []int{40, 41, 47, 48, 55, 56, 63, 64, 70, 300, mib / 2, mib - room, mib - room + 7, mib - 16, mib - 8, mib - 1} {
					at := f.segment.Start() + wal.LSN(off)
					if at < start || at >= end-8 {
						continue
					}
					flipped := slices.Clone(all)
					flipped[i].bytes = waltest.Flip(f.bytes, off)
					if agree(t, fmt.Sprintf("%s, a bit at %v", what, at), flipped) {
						t.Errorf("%s: a bit at %v of the record at %v is not seen", what, at, start)
					}
				}
			}
		}
	}
}
