package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Acknowledgment says that somebody knows of a hole: an object of plain JSON below acknowledged/, put once and never deleted. It changes
// what verify calls it and nothing else: the hole is named each time, and a restore across it stops as before.
type Acknowledgment struct {
	First  string    `json:"first"` // names of segments, or of histories
	Last   string    `json:"last"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`  // the user
	Via    string    `json:"via"` // the member or host where it was said
	At     time.Time `json:"at"`
	Found  string    `json:"found,omitempty"` // what verify said of the hole
}

// ErrNoHole means that there is nothing to acknowledge.
var ErrNoHole = errors.New("that is no hole")

// ErrNoRange means that two names cannot be the ends of a hole.
var ErrNoRange = errors.New("give two segments of one timeline, or two histories, the lower one first")

func (a *Archive) acknowledgmentKey(first, last wal.Name) string {
	return a.root + "/acknowledged/" + first.String() + "-" + last.String() + ".json"
}

// Acknowledgments reads all of them: a LIST, and a request for each. One that does not parse acknowledges nothing.
func (a *Archive) Acknowledgments(ctx context.Context) ([]Acknowledgment, error) {
	var out []Acknowledgment
	for info, err := range a.store.List(ctx, a.root+"/acknowledged/", "") {
		if err != nil {
			return nil, fmt.Errorf("read acknowledgments: %w", err)
		}
		first, last, ok := a.parseAcknowledgmentKey(info.Key)
		if !ok {
			continue
		}
		b, err := a.read(ctx, info.Key)
		if err != nil {
			return nil, fmt.Errorf("read acknowledgment: %w", err)
		}
		var got Acknowledgment
		if json.Unmarshal(b, &got) == nil && got.First == first.String() && got.Last == last.String() {
			out = append(out, got)
		}
	}
	return out, nil
}

func (a *Archive) parseAcknowledgmentKey(key string) (first, last wal.Name, ok bool) {
	base, _ := strings.CutSuffix(path.Base(key), ".json")
	from, to, _ := strings.Cut(base, "-")
	first, err := wal.ParseName(from, a.id.SegmentSize)
	last, err2 := wal.ParseName(to, a.id.SegmentSize)
	return first, last, err == nil && err2 == nil && holeName(first, last)
}

// holeName says whether the two can be the ends of a hole.
func holeName(first, last wal.Name) bool {
	switch {
	case first.Kind != last.Kind:
		return false
	case first.Kind == wal.KindHistory:
		return first.Segment.Timeline <= last.Segment.Timeline
	}
	return first.Kind == wal.KindSegment && first.Segment.Timeline == last.Segment.Timeline && first.Segment.No <= last.Segment.No
}

// acknowledged answers which part of a hole somebody knows of.
type acknowledged struct {
	list []Acknowledgment
	size wal.SegmentSize
}

// part is a piece of a hole; by is nil where nobody has acknowledged it.
type part struct {
	Span
	by *Acknowledgment
}

// split cuts a hole of segments where it is acknowledged.
func (k acknowledged) split(h Span) []part {
	return k.cut(h, func(n wal.Name) (uint64, bool) {
		return n.Segment.No, n.Kind == wal.KindSegment && n.Segment.Timeline == h.Timeline
	})
}

// splitHistories cuts a run of missing timeline numbers; the timeline of the parts means nothing.
func (k acknowledged) splitHistories(from, to wal.Timeline) []part {
	return k.cut(Span{First: uint64(from), Last: uint64(to)}, func(n wal.Name) (uint64, bool) {
		return uint64(n.Segment.Timeline), n.Kind == wal.KindHistory
	})
}

func (k acknowledged) cut(h Span, number func(wal.Name) (uint64, bool)) []part {
	out := []part{{Span: h}}
	for i := range k.list {
		first, err := wal.ParseName(k.list[i].First, k.size)
		last, err2 := wal.ParseName(k.list[i].Last, k.size)
		lo, ok := number(first)
		hi, ok2 := number(last)
		if err != nil || err2 != nil || !ok || !ok2 {
			continue
		}
		var next []part
		for _, p := range out {
			next = append(next, p.cut(lo, hi, &k.list[i])...)
		}
		out = next
	}
	return out
}

// cut gives what lies before lo, from lo to hi, and behind hi.
func (p part) cut(lo, hi uint64, by *Acknowledgment) (out []part) {
	if p.by != nil || hi < p.First || lo > p.Last {
		return []part{p}
	}
	if lo > p.First {
		out = append(out, part{Span: Span{p.Timeline, p.First, lo - 1}})
	}
	out = append(out, part{Span{p.Timeline, max(lo, p.First), min(hi, p.Last)}, by})
	if hi < p.Last {
		out = append(out, part{Span: Span{p.Timeline, hi + 1, p.Last}})
	}
	return out
}

// Acknowledge records that somebody knows of the hole from first to last. It looks at the archive first, and refuses with ErrNoHole what
// is no hole from end to end. What was said of the same range before stays, and is returned.
func (a *Archive) Acknowledge(ctx context.Context, first, last wal.Name, k Acknowledgment) (Acknowledgment, error) {
	k.First, k.Last, k.Reason, k.By, k.Via = first.String(), last.String(), printable(k.Reason), printable(k.By), printable(k.Via)
	switch {
	case !holeName(first, last):
		return k, fmt.Errorf("acknowledge %s: %w", rangeText(first, last), ErrNoRange)
	case k.Reason == "":
		return k, errors.New("acknowledge a hole: it needs a reason")
	case len(k.Reason) > maxReason:
		return k, fmt.Errorf("acknowledge a hole: the reason has %d bytes, and %d are allowed", len(k.Reason), maxReason)
	}
	x, err := a.survey(ctx, AuditOptions{Names: true})
	if err != nil {
		return k, err
	}
	if k.Found, err = x.findHole(first, last); err != nil {
		return k, fmt.Errorf("acknowledge %s: %w", rangeText(first, last), err)
	}
	key := a.acknowledgmentKey(first, last)
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return k, err
	}
	err = a.store.Put(ctx, key, Bytes(append(b, '\n')))
	if errors.Is(err, fs.ErrExist) {
		if b, err = a.read(ctx, key); err == nil {
			err = json.Unmarshal(b, &k)
		}
	}
	if err != nil {
		return k, fmt.Errorf("record the acknowledgment: %w", err)
	}
	return k, nil
}

func rangeText(first, last wal.Name) string {
	if first == last {
		return first.String()
	}
	return first.String() + ".." + last.String()
}

// findHole says what is wrong where first to last are missing, or why that is no hole.
func (x *auditor) findHole(first, last wal.Name) (string, error) {
	if first.Kind == wal.KindHistory {
		return x.findMissingHistories(first, last)
	}
	t := first.Segment.Timeline
	for _, h := range x.holes() {
		if h.Timeline == t && h.First <= first.Segment.No && last.Segment.No <= h.Last {
			return x.describeHole(h).Why, nil
		}
	}
	for _, p := range x.inv.segments.Spans() {
		if p.Timeline == t && p.First <= last.Segment.No && first.Segment.No <= p.Last {
			s := first.Segment
			s.No = max(p.First, s.No)
			return "", fmt.Errorf("%w: the archive has %v", ErrNoHole, s)
		}
	}
	lo, hi := x.expected(t)
	switch {
	case x.a.BelowFloor(last):
		return "", fmt.Errorf("%w: it lies below a floor, where nothing is promised", ErrNoHole)
	case lo == hi && !slices.Contains(x.timelines(), t):
		return "", fmt.Errorf("%w: the archive has nothing of timeline %d", ErrNoHole, t)
	case first.Segment.No >= hi:
		return "", fmt.Errorf("%w: it lies behind the last segment that the archive has of timeline %d, and may still come", ErrNoHole, t)
	case last.Segment.No < lo:
		return "", fmt.Errorf("%w: it lies before timeline %d began", ErrNoHole, t)
	}
	return "", fmt.Errorf("%w: not all of it is missing, or it is in orphans/ and the line left it", ErrNoHole)
}

func (x *auditor) findMissingHistories(first, last wal.Name) (string, error) {
	from, to := first.Segment.Timeline, last.Segment.Timeline
	for _, r := range x.missingRanges() {
		if r[0] <= from && to <= r[1] {
			return x.describeMissing(r[0], r[1]).Why, nil
		}
	}
	for t := range x.present {
		if from <= t && t <= to {
			return "", fmt.Errorf("%w: the archive has %v", ErrNoHole, wal.HistoryName(t))
		}
	}
	return "", fmt.Errorf("%w: recovery needs no history of a timeline up to the first floor's (%d), nor above the highest one", ErrNoHole, x.a.id.Floor.Timeline)
}
