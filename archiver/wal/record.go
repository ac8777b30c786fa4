package wal

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// castagnoli is PostgreSQL's CRC-32C (pg_crc32c.h): Go computes it with the same machine instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordHeader is the size of a record's header in bytes: total length (4), transaction (4), link to the
// start of the record before (8), info, resource manager, two unused, CRC (4). Records start at
// multiples of 8, so a length is never split over two pages (xlogrecord.h, XLogRecord).
const (
	recordHeader = 24
	recordCRC    = 20
)

// Resource managers and their records (rmgrlist.h, pg_control.h, xact.h).
const (
	rmXLOG             = 0
	xlogMask           = 0xF0
	xlogSwitch         = 0x40
	xlogOverwrite      = 0xD0
	rmXact             = 1
	xactMask           = 0x70
	xactCommit         = 0x00
	xactCommitPrepared = 0x30
)

// Block IDs that stand before the main data (xlogrecord.h, XLR_BLOCK_ID_*).
const (
	blockTopLevelXact = 252 // and 4 bytes; 14 and later
	blockOrigin       = 253 // and 2 bytes
	blockDataLong     = 254 // and the length in 4 bytes
	blockDataShort    = 255 // and the length in 1 byte
)

// headKept is how much of a record's beginning is kept while it is read over pages: its header, all that
// can stand before the main data of a commit, and that commit's time.
const headKept = recordHeader + 3 + 5 + 5 + 8

// head is the beginning of a record: at least its header.
type head []byte

func (h head) prev() LSN   { return LSN(binary.LittleEndian.Uint64(h[8:])) }
func (h head) info() byte  { return h[16] }
func (h head) rmid() byte  { return h[17] }
func (h head) crc() uint32 { return binary.LittleEndian.Uint32(h[recordCRC:]) }

func (h head) isSwitch() bool {
	return h.rmid() == rmXLOG && h.info()&xlogMask == xlogSwitch
}

func (h head) isOverwrite() bool {
	return h.rmid() == rmXLOG && h.info()&xlogMask == xlogOverwrite
}

// commit returns the time of a commit, in microseconds since 2000-01-01; it is the first field of the
// record's main data (xact.h, xl_xact_commit).
func (h head) commit() (micros int64, ok bool) {
	if h.rmid() != rmXact {
		return 0, false
	}
	if op := h.info() & xactMask; op != xactCommit && op != xactCommitPrepared {
		return 0, false
	}
	for b := h[recordHeader:]; len(b) > 0; {
		skip := 0
		switch b[0] {
		case blockOrigin:
			skip = 1 + 2
		case blockTopLevelXact:
			skip = 1 + 4
		case blockDataShort, blockDataLong:
			skip = 2
			if b[0] == blockDataLong {
				skip = 5
			}
			if len(b) < skip+8 {
				return 0, false
			}
			return int64(binary.LittleEndian.Uint64(b[skip:])), true
		default:
			return 0, false
		}
		if len(b) < skip {
			return 0, false
		}
		b = b[skip:]
	}
	return 0, false
}

// postgresTime turns microseconds since 2000-01-01 into a time.
func postgresTime(micros int64) time.Time {
	const epoch = 946684800 // 2000-01-01 in Unix seconds
	sec, rest := micros/1e6, micros%1e6
	return time.Unix(epoch+sec, rest*1000).UTC()
}

// sum computes the CRC of a whole record: its body first, then its header up to the CRC itself
// (xlogreader.c, ValidXLogRecord).
func sum(r []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, r[recordHeader:]), castagnoli, r[:recordCRC])
}

// sumMore continues a CRC.
func sumMore(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// align rounds up to where the next record can start.
func align[T ~int | ~uint64](n T) T { return (n + 7) &^ 7 }

// leadKept is how much is kept of the beginning of a rest of which nothing is known: the most that can be missing
// of a record's header, whose length is never split off.
const leadKept = recordHeader - 8

// partial is a record that is read over more than one page.
type partial struct {
	start       LSN    // 0 when it began before this segment; then total is what this segment was to bring
	total, left uint32 // bytes; left is what later pages must still bring
	crc         uint32 // of the body so far; of all behind the lead when start is 0
	head        [headKept]byte
}

// begin takes the first bytes of a record that starts at lsn and does not end in them.
func (r *partial) begin(lsn LSN, total uint32, p []byte) {
	*r = partial{start: lsn, total: total, left: total}
	r.add(p)
}

// own returns how many bytes at the beginning the CRC does not take.
func (r *partial) own() uint32 {
	if r.start == 0 {
		return leadKept
	}
	return recordHeader
}

// add takes the next bytes of the record, at most as many as are left.
func (r *partial) add(p []byte) {
	done := r.total - r.left
	r.left -= uint32(len(p))
	if done < headKept {
		copy(r.head[done:], p)
		if own := r.own(); done < own {
			p = p[min(own-done, uint32(len(p))):]
		}
	}
	r.crc = sumMore(r.crc, p)
}

// seen returns the beginning of the record as far as it is known.
func (r *partial) seen() head { return r.head[:min(r.total-r.left, headKept)] }

// good reports whether the CRC of the record, all of which was added, fits.
func (r *partial) good() bool {
	return crc32.Update(r.crc, castagnoli, r.head[:recordCRC]) == r.seen().crc()
}
