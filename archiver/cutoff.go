package archiver

import (
	"errors"
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

// ParseCutoff reads a segment, a backup's history file (000000010000000000000009.00000028.backup), an LSN, a time, or else a
// backup's label. A time without a zone is ErrNoZone, or ErrZoneName.
func ParseCutoff(s string, size wal.SegmentSize) (Cutoff, error) {
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
	switch t, err := ParseTime(s); {
	case err == nil:
		return Cutoff{Time: t}, nil
	case errors.Is(err, ErrNoZone), errors.Is(err, ErrZoneName):
		return Cutoff{}, err
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
