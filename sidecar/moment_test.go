package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

func TestParseMoment(t *testing.T) {
	want := time.Date(2026, 11, 28, 19, 24, 47, 123456000, time.UTC)
	for _, s := range []string{
		"2026-11-28 19:24:47.123456+00", "2026-11-28T19:24:47.123456Z", "2026-11-28 20:24:47.123456+01", "2026-11-28 20:24:47.123456+01:00",
		"2026-11-28 14:54:47.123456 -0430", "2026-11-28 19:24:47.123456 UTC", " 2026-11-28  19:24:47.123456 GMT ", "2026-11-29t00:54:47.123456+0530",
	} {
		if got, err := parseMoment(s); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
	if got, err := parseMoment("2026-11-28 19:24+00"); err != nil || !got.Equal(want.Truncate(time.Minute)) {
		t.Errorf("to the minute: %v, %v", got, err)
	}
	for s, why := range map[string]string{
		"2026-11-28 19:24:47": "has no time zone", "2026-11-28T19:24": "has no time zone", "2026-11-28": "is no time", "yesterday": "is no time", "": "is no time",
		"2026-13-28 19:24:47+00": "is no time", "2026-11-28 25:00:00+00": "is no time", "2026-11-28 19:24:47 CET": "can be several ones", "infinity": "is no time",
	} {
		_, err := parseMoment(s)
		var h *hintError
		if err == nil || !strings.Contains(err.Error(), why) || !errors.As(err, &h) {
			t.Errorf("%q: got %v, want %q and a hint", s, err, why)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]since{
		"0/3000028": {lsn: 0x3000028}, "000000010000000000000003": {lsn: 3 << 20}, "36h": {at: now.Add(-36 * time.Hour)}, "7d": {at: now.AddDate(0, 0, -7)},
		"2026-11-28 11:00:00+00": {at: now.Add(-time.Hour)},
	} {
		if got, err := parseSince(s, wal.MinSegmentSize, now); err != nil || !got.at.Equal(want.at) || got.lsn != want.lsn {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "3", "-5h", "0000000100000000000000ZZ", "00000001.history", "16/", "99999999d", "2026-11-28 11:00:00"} {
		if got, err := parseSince(s, wal.MinSegmentSize, now); err == nil {
			t.Errorf("%q: got %+v, want an error", s, got)
		}
	}
}
