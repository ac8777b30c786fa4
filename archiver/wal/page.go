package wal

import (
	"bytes"
	"encoding/binary"
)

// Sizes in bytes (xlog_internal.h, SizeOfXLogShortPHD and SizeOfXLogLongPHD). A server built with
// another page size says so in the first page, and is refused there.
const (
	pageSize    = 8192
	shortHeader = 24
	longHeader  = 40
)

// xlp_info (xlog_internal.h).
const (
	pageContinues   = 1 << 0 // begins with the rest of a record
	pageLong        = 1 << 1 // has the long header: the first page of a segment
	pageRemovable   = 1 << 2 // full page images may be dropped
	pageOverwrites  = 1 << 3 // the record before was abandoned in a crash; 12.9, 13.5, 14.1 and later
	pageInfoAllowed = pageContinues | pageLong | pageRemovable | pageOverwrites
)

// Major returns the PostgreSQL version, 12 to 18, that writes pages with this magic, or 0.
func Major(magic uint16) int {
	switch magic {
	case 0xD101:
		return 12
	case 0xD106:
		return 13
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// page is the short header of a page.
type page struct {
	magic, info uint16
	timeline    Timeline
	at          LSN
	rest        uint32 // bytes left of the record that continues here
}

// readPage decodes the header of p, which is a whole page.
func readPage(p []byte) page {
	_ = p[shortHeader-1]
	return page{
		magic:    binary.LittleEndian.Uint16(p),
		info:     binary.LittleEndian.Uint16(p[2:]),
		timeline: Timeline(binary.LittleEndian.Uint32(p[4:])),
		at:       LSN(binary.LittleEndian.Uint64(p[8:])),
		rest:     binary.LittleEndian.Uint32(p[16:]),
	}
}

// long is what the header of a segment's first page has in addition.
type long struct {
	systemID            uint64
	segmentSize, blocks uint32
}

func readLong(p []byte) long {
	return long{
		systemID:    binary.LittleEndian.Uint64(p[24:]),
		segmentSize: binary.LittleEndian.Uint32(p[32:]),
		blocks:      binary.LittleEndian.Uint32(p[36:]),
	}
}

// zero reports whether all of p is zero: it begins with a zero, and every byte equals the one before.
func zero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}
