package wal

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the WAL: bytes from its beginning.
type LSN uint64

// MaxLSN is after every position: a timeline that goes on ends there.
const MaxLSN = ^LSN(0)

// String returns PostgreSQL's form, such as "16/B374D848".
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads "hi/lo", each of one to eight hexadecimal digits in either case.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, ok1 := parseHex(hi, true)
	l, ok2 := parseHex(lo, true)
	if !ok || !ok1 || !ok2 {
		return 0, fmt.Errorf("parse LSN %q: not two hexadecimal numbers with a slash between", s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// Timeline is a timeline ID. The first is 1; 0 is none.
type Timeline uint32

// String returns the eight digits that file names begin with.
func (t Timeline) String() string { return fmt.Sprintf("%08X", uint32(t)) }

// ParseTimeline reads eight upper-case hexadecimal digits.
func ParseTimeline(s string) (Timeline, error) {
	v, ok := parseDigits(s)
	switch {
	case !ok:
		return 0, fmt.Errorf("parse timeline %q: not 8 digits of 0-9 and A-F", s)
	case v == 0:
		return 0, fmt.Errorf("parse timeline %q: there is no timeline 0", s)
	}
	return Timeline(v), nil
}

// SegmentSize is the size of every segment of a cluster, in bytes.
type SegmentSize uint32

// MinSegmentSize and MaxSegmentSize are what initdb --wal-segsize allows.
const (
	MinSegmentSize SegmentSize = 1 << 20
	MaxSegmentSize SegmentSize = 1 << 30
)

// Valid reports whether z is a power of two from 1 MiB to 1 GiB.
func (z SegmentSize) Valid() bool {
	return z >= MinSegmentSize && z <= MaxSegmentSize && z&(z-1) == 0
}

// At returns the segment that holds the byte at l.
func (z SegmentSize) At(t Timeline, l LSN) Segment {
	return Segment{Timeline: t, Size: z, No: uint64(l) / uint64(z)}
}

// Before returns the segment that holds the byte before l, which must not be 0: where WAL that ends
// at l ends. On a boundary that is the earlier segment.
func (z SegmentSize) Before(t Timeline, l LSN) Segment { return z.At(t, l-1) }

// perID is the number of segments that share the second field of a name.
func (z SegmentSize) perID() uint64 { return 1 << 32 / uint64(z) }

// Segment is one file of the WAL. It is comparable; Size must be valid.
type Segment struct {
	Timeline Timeline
	Size     SegmentSize
	No       uint64 // counts from LSN 0
}

// String returns the name of 24 digits. The last two fields are not one number, whatever the size:
// after ...0000000000000FFF (1 MiB) comes ...0000000100000000. So names are never counted, No is.
func (s Segment) String() string {
	if s.Size == 0 {
		return s.Timeline.String()
	}
	n := s.Size.perID()
	return fmt.Sprintf("%08X%08X%08X", uint32(s.Timeline), s.No/n, s.No%n)
}

// Start returns the position of the first byte.
func (s Segment) Start() LSN { return LSN(s.No * uint64(s.Size)) }

// End returns the position after the last byte; MaxLSN for the very last segment there can be.
func (s Segment) End() LSN {
	if e := s.Start() + LSN(s.Size); e > s.Start() {
		return e
	}
	return MaxLSN
}

// Next returns the segment after s on the same timeline.
func (s Segment) Next() Segment { s.No++; return s }

// Prev returns the segment before s on the same timeline; s.No must not be 0.
func (s Segment) Prev() Segment { s.No--; return s }

// On returns the segment with the same number on timeline t.
func (s Segment) On(t Timeline) Segment { s.Timeline = t; return s }

// Compare orders by timeline, then by number.
func (s Segment) Compare(o Segment) int {
	return cmp.Or(cmp.Compare(s.Timeline, o.Timeline), cmp.Compare(s.No, o.No), cmp.Compare(s.Size, o.Size))
}

// Kind says what a file of pg_wal is.
type Kind uint8

// The kinds of names that PostgreSQL archives. Their order is the order of their suffixes.
const (
	KindSegment Kind = iota
	KindBackup       // a backup label's history, <segment>.<offset>.backup
	KindPartial      // the last segment of a timeline that was left inside it
	KindHistory      // a timeline's history
)

func (k Kind) String() string {
	switch k {
	case KindSegment:
		return "segment"
	case KindBackup:
		return "backup"
	case KindPartial:
		return "partial"
	case KindHistory:
		return "history"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Name is the name of a file that PostgreSQL archives. It is comparable. A history has only
// Segment.Timeline, and only a backup has an Offset.
type Name struct {
	Kind    Kind
	Segment Segment
	Offset  uint32 // bytes into the segment, where the backup began
}

// SegmentName returns the name of the segment itself.
func SegmentName(s Segment) Name { return Name{Kind: KindSegment, Segment: s} }

// HistoryName returns the name of the history of t.
func HistoryName(t Timeline) Name {
	return Name{Kind: KindHistory, Segment: Segment{Timeline: t}}
}

// ParseName reads a name strictly: upper-case digits, no timeline 0, and a segment that exists at this
// size. What it accepts, Name.String prints again byte for byte.
func ParseName(s string, size SegmentSize) (Name, error) {
	n, why := parseName(s, size)
	if why != "" {
		return Name{}, fmt.Errorf("parse WAL name %q: %s", s, why)
	}
	return n, nil
}

func parseName(s string, size SegmentSize) (n Name, why string) {
	if !size.Valid() {
		return n, "the segment size " + strconv.Itoa(int(size)) + " is not a power of two from 1 MiB to 1 GiB"
	}
	base, suffix, dotted := strings.Cut(s, ".")
	history := len(base) == 8 && suffix == "history"
	if len(base) != 24 && !history {
		return n, "it has neither 24 digits nor 8 and .history"
	}
	t, ok := parseDigits(base[:8])
	id, ok1, seg, ok2 := uint32(0), true, uint32(0), true
	if !history {
		id, ok1 = parseDigits(base[8:16])
		seg, ok2 = parseDigits(base[16:])
	}
	switch {
	case !ok || !ok1 || !ok2:
		return n, "it has something else than the digits 0-9 and A-F"
	case t == 0:
		return n, "there is no timeline 0"
	case history:
		return HistoryName(Timeline(t)), ""
	case uint64(seg) >= size.perID():
		return n, fmt.Sprintf("the last field is above %08X, the highest for segments of %d MiB", size.perID()-1, size>>20)
	}
	n.Segment = Segment{Timeline: Timeline(t), Size: size, No: uint64(id)*size.perID() + uint64(seg)}
	switch {
	case !dotted:
		return n, ""
	case suffix == "partial":
		n.Kind = KindPartial
		return n, ""
	}
	offset, kind, _ := strings.Cut(suffix, ".")
	o, ok := parseDigits(offset)
	switch {
	case !ok || kind != "backup":
		return n, "the suffix is none of .partial and .<8 digits>.backup"
	case o >= uint32(size):
		return n, "the offset lies outside the segment"
	}
	n.Kind, n.Offset = KindBackup, o
	return n, ""
}

// String returns the file's name.
func (n Name) String() string {
	switch n.Kind {
	case KindHistory:
		return n.Segment.Timeline.String() + ".history"
	case KindPartial:
		return n.Segment.String() + ".partial"
	case KindBackup:
		return fmt.Sprintf("%s.%08X.backup", n.Segment, n.Offset)
	}
	return n.Segment.String()
}

// Compare gives the order in which PostgreSQL archives (pgarch.c): histories first, lowest timeline
// first, then by the bytes of the name.
func (n Name) Compare(o Name) int {
	if a, b := n.Kind == KindHistory, o.Kind == KindHistory; a != b {
		if a {
			return -1
		}
		return 1
	}
	return cmp.Or(n.Segment.Compare(o.Segment), cmp.Compare(n.Kind, o.Kind), cmp.Compare(n.Offset, o.Offset))
}

// parseDigits reads a field of a name: exactly eight upper-case digits.
func parseDigits(s string) (uint32, bool) {
	if len(s) != 8 {
		return 0, false
	}
	return parseHex(s, false)
}

// parseHex reads one to eight hexadecimal digits and nothing else: strconv would take a sign.
func parseHex(s string, lower bool) (uint32, bool) {
	if len(s) == 0 || len(s) > 8 {
		return 0, false
	}
	var v uint32
	for _, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		case lower && 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint32(c)
	}
	return v, true
}
