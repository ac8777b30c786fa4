// Package waltest makes write-ahead log in memory for tests, and damages it.
//
//	w := waltest.New(7710542482846769188, 1<<20) // timeline 1, from segment 1 on, as PostgreSQL 15 writes it
//	w.Commit(time.Now())                         // one commit
//	w.Record(300_000)                            // one record with so many bytes, over pages and segments
//	w.Fill(3)                                    // records, until three segments more are full
//	w.Switch()                                   // pg_switch_wal(): zeros to the segment's end
//	b := w.Segment(w.Full()[0])                  // the file's bytes, a copy
//
//	c := w.Fork(2)            // the promotion of a standby at w.Pos(): c writes timeline 2
//	w.Fill(1)                 // and the old primary goes on alone
//	c.History().Bytes()       // 00000002.history
//	c.Segment(c.Current().On(1)) // what is in the .partial: timeline 1 up to the fork, zeros after it
//	d := w.Clone(1)           // a second server with the same past; its records will differ
//	w.Crash(200_000)          // a crash inside a record, and the overwriting record after it
//	w.Tear(200_000)           // the same in two steps: w.Resume() goes on, or a fork of w, as 14.1 to 14.5 do
//	w.TearAfter(2<<20, 200)   // the record is lost from the 200th page after its start on
//
//	waltest.Flip(b, 5000)     // one bit
//	waltest.Zero(b, 5000)     // zeros from there: a fresh file, in progress
//	waltest.Over(old, b, 5000) // b up to there in the recycled file old
//
// The same calls give the same bytes. The records are ones that pg_waldump can print (XLOG_NOOP,
// COMMIT, SWITCH, OVERWRITE_CONTRECORD); layouts are those of xlog_internal.h and xlogrecord.h.
package waltest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

const (
	pageSize = 8192
	header   = 24 // of a page, and of a record
	long     = 40 // of a segment's first page
)

// Resource managers and record kinds (rmgrlist.h, pg_control.h, xact.h).
const (
	rmXLOG    = 0
	rmXact    = 1
	noop      = 0x20
	switched  = 0x40
	overwrite = 0xD0
	commit    = 0x00
)

// Writer is one server that writes WAL. It is for one goroutine.
type Writer struct {
	// Magic is what pages begin with: PostgreSQL 15's unless it is changed before the first record.
	Magic uint16

	systemID   uint64
	size       wal.SegmentSize
	salt       uint64
	history    wal.History
	pos, prev  wal.LSN
	torn       wal.LSN                // start of the last abandoned record
	overwrites bool                   // the next page follows it
	files      map[wal.Segment][]byte // their pages up to the last that was begun
}

// New begins a cluster on timeline 1 at segment 1, as initdb does.
func New(systemID uint64, size wal.SegmentSize) *Writer {
	return NewAt(systemID, wal.Segment{Timeline: 1, Size: size, No: 1})
}

// NewAt begins at the start of any segment, on its timeline, with no history.
func NewAt(systemID uint64, s wal.Segment) *Writer {
	if !s.Size.Valid() {
		panic(fmt.Sprintf("waltest: segments of %d bytes", s.Size))
	}
	return &Writer{
		Magic: 0xD110, systemID: systemID, size: s.Size, pos: s.Start(),
		history: wal.History{Timeline: s.Timeline},
		files:   map[wal.Segment][]byte{},
	}
}

// SystemID returns the cluster's identifier.
func (w *Writer) SystemID() uint64 { return w.systemID }

// Pos returns where the WAL ends now.
func (w *Writer) Pos() wal.LSN { return w.pos }

// History returns the line of the timeline that is written.
func (w *Writer) History() wal.History {
	h := w.history
	h.Forks = slices.Clone(h.Forks)
	return h
}

// Current returns the segment that the next byte goes to.
func (w *Writer) Current() wal.Segment { return w.size.At(w.history.Timeline, w.pos) }

// Full returns the finished segments of the line, oldest first.
func (w *Writer) Full() []wal.Segment {
	var full []wal.Segment
	for s := range w.files {
		if s.End() <= w.pos && w.history.Holds(s) {
			full = append(full, s)
		}
	}
	slices.SortFunc(full, wal.Segment.Compare)
	return full
}

// Segment returns a copy of the file: what is written, and zeros. It is nil where there is none.
func (w *Writer) Segment(s wal.Segment) []byte {
	b, ok := w.files[s]
	if !ok {
		return nil
	}
	file := make([]byte, w.size)
	copy(file, b)
	return file
}

// Peek returns the pages of the file that were begun, not a copy: the caller must not change them. What is behind Pos
// is still to be written.
func (w *Writer) Peek(s wal.Segment) []byte { return w.files[s] }

// Forget drops the files of segments before s, so that a long WAL takes no more memory than what a test holds of it.
func (w *Writer) Forget(s wal.Segment) {
	maps.DeleteFunc(w.files, func(f wal.Segment, _ []byte) bool { return f.No < s.No })
}

// Fork returns the server that is promoted here to timeline t. It has the past and a first segment of
// its own; w can go on as if nothing had happened.
func (w *Writer) Fork(t wal.Timeline) *Writer {
	if t <= w.history.Timeline {
		panic(fmt.Sprintf("waltest: timeline %d is not above %d", t, w.history.Timeline))
	}
	c := w.Clone(w.salt)
	c.history.Forks = append(c.history.Forks, wal.Fork{Timeline: w.history.Timeline, End: w.pos, Reason: "no recovery target specified"})
	c.history.Timeline = t
	if b, ok := w.files[w.Current()]; ok {
		c.files[w.Current().On(t)] = slices.Clone(b)
	}
	return c
}

// Clone returns another server with the same past on the same timeline. With another salt the records
// that it fills its WAL with differ.
func (w *Writer) Clone(salt uint64) *Writer {
	c := *w
	c.salt = salt
	c.history = w.History()
	c.files = maps.Clone(w.files)
	// Finished segments never change again and are shared.
	if b, ok := c.files[w.Current()]; ok {
		c.files[w.Current()] = slices.Clone(b)
	}
	return &c
}

// Record writes one record with n bytes of data and returns where it starts.
func (w *Writer) Record(n int) wal.LSN { return w.write(w.filler(n)) }

// Commit writes the commit of a transaction at t, to the microsecond.
func (w *Writer) Commit(t time.Time) wal.LSN {
	return w.write(with(rmXact, commit, Timestamp(t)))
}

// Raw writes a record of any kind; body is all that follows its header.
func (w *Writer) Raw(rmid, info byte, body []byte) wal.LSN {
	r, _ := record(rmid, info, 0)
	r = append(r, body...)
	binary.LittleEndian.PutUint32(r, uint32(len(r)))
	return w.write(r)
}

// Pad writes records until exactly room bytes of the present segment are left: a multiple of 8 that is not inside
// a page's header.
func (w *Writer) Pad(room int) {
	end := w.Current().End() - wal.LSN(room)
	for w.pos != end {
		left := int(end - w.pos)
		switch {
		case w.pos > end:
			panic(fmt.Sprintf("waltest: the WAL is at %v, after %v", w.pos, end))
		case left > 3*pageSize:
			w.Record(pageSize)
		case left > 2000:
			w.Record(800)
		default:
			// One page header may come in between.
			if off := w.pos % pageSize; off == 0 || off+wal.LSN(left) > pageSize {
				left -= header
			}
			w.Record(left - header - 5)
		}
	}
}

// Timestamp returns t as PostgreSQL stores it: microseconds since 2000-01-01 (timestamp.h).
func Timestamp(t time.Time) []byte {
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	return binary.LittleEndian.AppendUint64(nil, uint64(t.UnixMicro()-epoch.UnixMicro()))
}

// Fill writes records of various lengths until n more segments are full; the last of them runs on into
// the segment after.
func (w *Writer) Fill(n int) {
	for end := w.Current().Start() + wal.LSN(n)*wal.LSN(w.size); w.pos < end; {
		w.Record(40 + int(mix(uint64(w.pos)+w.salt)%6000))
	}
}

// Switch ends the segment as pg_switch_wal() does; at a segment's start it does nothing.
func (w *Writer) Switch() wal.LSN {
	if w.pos == w.Current().Start() {
		return w.pos
	}
	at := w.write(with(rmXLOG, switched, nil))
	if w.pos != w.Current().Start() {
		w.pos = w.Current().End()
	}
	return at
}

// Tear begins a record of n bytes (more, if it would end in this page) and loses it from the next page on,
// where the WAL ends now; Resume must be next. It returns where the lost record starts.
func (w *Writer) Tear(n int) wal.LSN { return w.TearAfter(n, 1) }

// TearAfter is Tear, but loses the record later: from the pages-th page after the one that it starts in on.
func (w *Writer) TearAfter(n, pages int) wal.LSN {
	r := w.filler(max(n, pages*pageSize))
	prev := w.prev
	next := (w.pos/pageSize + wal.LSN(pages)) * pageSize
	w.torn = w.put(r, next)
	w.pos, w.prev = next, prev
	return w.torn
}

// Resume goes on as a server does that finds the end of a record missing: with a page that says so, and
// XLOG_OVERWRITE_CONTRECORD.
func (w *Writer) Resume() wal.LSN {
	w.overwrites = true
	body := binary.LittleEndian.AppendUint64(nil, uint64(w.torn))
	return w.write(with(rmXLOG, overwrite, append(body, make([]byte, 8)...)))
}

// Crash is Tear and Resume.
func (w *Writer) Crash(n int) wal.LSN {
	lost := w.Tear(n)
	w.Resume()
	return lost
}

// filler builds a record with n bytes of noise.
func (w *Writer) filler(n int) []byte {
	r, data := record(rmXLOG, noop, n)
	w.noise(data)
	return r
}

// record builds a record with nothing but main data, whose n bytes the caller fills in; its prev and CRC follow in write.
func record(rmid, info byte, n int) (r, data []byte) {
	r = make([]byte, header, header+5+n)
	r[16], r[17] = info, rmid
	switch {
	case n > 255:
		r = append(r, 254)
		r = binary.LittleEndian.AppendUint32(r, uint32(n))
	case n > 0:
		r = append(r, 255, byte(n))
	}
	data = r[len(r) : len(r)+n]
	r = r[:len(r)+n]
	binary.LittleEndian.PutUint32(r, uint32(len(r)))
	return r, data
}

// with builds a record with these main data.
func with(rmid, info byte, data []byte) []byte {
	r, to := record(rmid, info, len(data))
	copy(to, data)
	return r
}

// write links r to the record before it and puts it at the end of the WAL.
func (w *Writer) write(r []byte) wal.LSN { return w.put(r, wal.MaxLSN) }

// put is write, but drops what comes after limit.
func (w *Writer) put(r []byte, limit wal.LSN) (start wal.LSN) {
	binary.LittleEndian.PutUint64(r[8:], uint64(w.prev))
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Update(crc32.Checksum(r[header:], table), table, r[:20])
	binary.LittleEndian.PutUint32(r[20:], crc)
	for rest := r; len(rest) > 0 && w.pos < limit; {
		if w.pos%pageSize == 0 {
			w.page(start != 0, len(rest))
		}
		if start == 0 {
			start = w.pos
		}
		s := w.Current()
		room := pageSize - int(w.pos%pageSize)
		n := copy(w.files[s][w.pos-s.Start():][:room], rest)
		rest, w.pos = rest[n:], w.pos+wal.LSN(n)
	}
	w.pos = (w.pos + 7) &^ 7
	w.prev = start
	return start
}

// page writes a page's header at the end of the WAL.
func (w *Writer) page(continues bool, rest int) {
	s := w.Current()
	at := int(w.pos - s.Start())
	w.files[s] = append(w.files[s][:at], make([]byte, pageSize)...)
	p := w.files[s][at:]
	le := binary.LittleEndian
	var info uint16
	n := header
	if continues {
		info |= 1
		le.PutUint32(p[16:], uint32(rest))
	}
	if w.pos == s.Start() {
		info |= 2
		n = long
		le.PutUint64(p[24:], w.systemID)
		le.PutUint32(p[32:], uint32(w.size))
		le.PutUint32(p[36:], pageSize)
	}
	if w.overwrites {
		info |= 8
		w.overwrites = false
	}
	le.PutUint16(p, w.Magic)
	le.PutUint16(p[2:], info)
	le.PutUint32(p[4:], uint32(w.history.Timeline))
	le.PutUint64(p[8:], uint64(w.pos))
	w.pos += wal.LSN(n)
}

// noise fills b with bytes that depend on the server, its timeline and the place.
func (w *Writer) noise(b []byte) {
	x := mix(w.systemID ^ uint64(w.pos)<<8 ^ uint64(w.history.Timeline)<<56 ^ w.salt*0x9E3779B97F4A7C15)
	for ; len(b) >= 8; b = b[8:] {
		x = mix(x)
		binary.LittleEndian.PutUint64(b, x)
	}
	copy(b, binary.LittleEndian.AppendUint64(nil, mix(x)))
}

// mix is the finaliser of splitmix64, a public-domain generator.
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// Flip returns b with one bit changed at offset off.
func Flip(b []byte, off int) []byte {
	b = slices.Clone(b)
	b[off] ^= 1 << (off % 8)
	return b
}

// Zero returns b with zeros from offset off on: a new file, written up to there.
func Zero(b []byte, off int) []byte {
	b = slices.Clone(b)
	clear(b[off:])
	return b
}

// Over returns the first off bytes of b and then what old has there: a recycled file, written up to there.
func Over(old, b []byte, off int) []byte {
	return append(slices.Clone(b[:off]), old[off:]...)
}
