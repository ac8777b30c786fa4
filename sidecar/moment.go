package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// parseMoment reads a time for a flag.
func parseMoment(s string) (time.Time, error) {
	t, err := archiver.ParseTime(s)
	if err != nil && !errors.Is(err, archiver.ErrNoZone) {
		return time.Time{}, withHint(err, "give one as PostgreSQL writes it, '2026-11-28 19:24:47+00', or 2026-11-28T19:24:47Z")
	}
	return t, sayZone(err, s)
}

// sayZone adds to an error about a time without a zone what to type.
func sayZone(err error, s string) error {
	if !errors.Is(err, archiver.ErrNoZone) {
		return err
	}
	return withHint(fmt.Errorf("%q has no time zone", s), fmt.Sprintf("say which: '%s+00' is UTC, '%s+01' an hour ahead of it; select now() in psql shows the server's", s, s))
}

// parseLSN reads an LSN for a flag.
func parseLSN(s string) (wal.LSN, error) {
	l, err := wal.ParseLSN(s)
	if err != nil {
		return 0, withHint(fmt.Errorf("%q is no LSN", s), "give one as PostgreSQL writes it, such as 16/B374D848")
	}
	return l, nil
}

// since is what --since was given: one of them.
type since struct {
	at  time.Time
	lsn wal.LSN
}

// parseSince reads a time, a duration before now, an LSN, or the name of a segment.
func parseSince(s string, size wal.SegmentSize, now time.Time) (since, error) {
	if n, err := wal.ParseName(s, size); err == nil && n.Kind == wal.KindSegment {
		return since{lsn: n.Segment.Start()}, nil
	}
	if l, err := wal.ParseLSN(s); err == nil {
		return since{lsn: l}, nil
	}
	if d, ok := parseAgo(s); ok {
		return since{at: now.Add(-d)}, nil
	}
	if t, err := parseMoment(s); err == nil {
		return since{at: t}, nil
	} else if strings.Contains(s, ":") {
		return since{}, err
	}
	return since{}, withHint(errors.New(strconv.Quote(s)+" is no place in the WAL"),
		"give a time (2026-11-28T19:24:47Z), how long ago (36h, 7d), an LSN (16/B374D848) or the name of a segment")
}

// parseAgo reads a duration, also in days.
func parseAgo(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}
