package archiver

import (
	"fmt"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Cutoff is the earliest moment that one wants to be able to restore to. One of its fields says it.
type Cutoff struct {
	Time    time.Time
	LSN     wal.LSN
	Segment wal.Segment // its start, on its own timeline
	Backup  wal.Name    // the end of that backup
	Label   string      // the end of the one backup that has this label
}

// String is the cut-off as people write it, times in UTC.
func (c Cutoff) String() string {
	switch {
	case !c.Time.IsZero():
		return c.Time.UTC().Format("2006-01-02 15:04:05Z")
	case c.Segment != wal.Segment{}:
		return c.Segment.String()
	case c.Backup != wal.Name{}:
		return c.Backup.String()
	case c.Label != "":
		return fmt.Sprintf("the backup %q", c.Label)
	}
	return c.LSN.String()
}

// cutoffTimes are the forms of a time, those with a zone first.
var cutoffTimes = [...]string{
	time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05.999999Z07:00", "2006-01-02 15:04:05-07", "2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05 MST", "2006-01-02 15:04Z07:00",
	"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04:05.999999", "2006-01-02 15:04", "2006-01-02",
}

// ParseCutoff reads a segment, a backup's history file (000000010000000000000009.00000028.backup), an LSN, a time, or else a
// backup's label. A time without a zone is one of zone.
func ParseCutoff(s string, size wal.SegmentSize, zone *time.Location) (Cutoff, error) {
	s = strings.TrimSpace(s)
	n, err := wal.ParseName(s, size)
	if err == nil {
		switch n.Kind {
		case wal.KindSegment:
			return Cutoff{Segment: n.Segment}, nil
		case wal.KindBackup:
			return Cutoff{Backup: n}, nil
		}
		return Cutoff{}, fmt.Errorf("%s is neither a segment nor a backup: there is no place in the WAL that it stands for", s)
	}
	if lsn, err := wal.ParseLSN(s); err == nil {
		return Cutoff{LSN: lsn}, nil
	}
	for _, form := range cutoffTimes {
		t, err := time.ParseInLocation(form, s, zone)
		if err != nil {
			continue
		}
		if name, offset := t.Zone(); strings.HasSuffix(form, "MST") && offset == 0 && name != "UTC" && name != "GMT" && t.Location() != zone {
			return Cutoff{}, fmt.Errorf("the zone %s of %q can be several ones: write it as a number, such as +02", name, s)
		}
		return Cutoff{Time: t}, nil
	}
	if looksLikeName(s) {
		return Cutoff{}, err
	}
	if s == "" {
		return Cutoff{}, fmt.Errorf("the cut-off is empty")
	}
	return Cutoff{Label: s}, nil
}

// looksLikeName says whether somebody meant a WAL file and mistyped it: it is no label then.
func looksLikeName(s string) bool {
	base, _, _ := strings.Cut(s, ".")
	return len(base) >= 20 && strings.Trim(base, "0123456789ABCDEFabcdef") == ""
}
