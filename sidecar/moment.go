package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// parseMoment reads a time as PostgreSQL writes it (2026-11-28 19:24:47.5+00) or RFC 3339. One without a zone is refused: PostgreSQL reads
// recovery_target_time by its own setting TimeZone, and this machine may have another one.
func parseMoment(s string) (time.Time, error) {
	text := strings.Join(strings.Fields(s), " ")
	for _, zone := range []string{" UTC", " GMT", "UTC", "GMT", "Z", "z"} {
		if before, ok := strings.CutSuffix(text, zone); ok {
			text = before + "+00"
			break
		}
	}
	if i := strings.LastIndexAny(text, " "); i > 0 && i+1 < len(text) && strings.ContainsRune("+-", rune(text[i+1])) {
		text = text[:i] + text[i+1:] // a blank before the zone
	}
	for _, day := range []string{"2006-01-02 ", "2006-01-02T", "2006-01-02t"} {
		for _, clock := range []string{"15:04:05", "15:04"} {
			for _, zone := range []string{"-07", "-0700", "-07:00"} {
				if t, err := time.Parse(day+clock+zone, text); err == nil {
					return t.UTC(), nil
				}
			}
			if _, err := time.Parse(day+clock, text); err == nil {
				return time.Time{}, withHint(fmt.Errorf("%q has no time zone", s), fmt.Sprintf("say which: '%s+00' is UTC, '%s+01' an hour ahead of it; select now() in psql shows the server's", s, s))
			}
		}
	}
	return time.Time{}, withHint(fmt.Errorf("%q is no time", s), "give one as PostgreSQL writes it, '2026-11-28 19:24:47+00', or 2026-11-28T19:24:47Z")
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
