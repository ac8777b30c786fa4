package drill

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The arithmetic of WAL names, written a second time so that the oracle does not share a mistake with package wal.
// A segment's name is three groups of 8 hex digits: timeline, and the segment number split at 4 GB
// (xlog_internal.h, XLogFileName).

// segmentName is the name of segment no of a timeline, for segments of size bytes.
func segmentName(timeline, no, size uint64) string {
	perFile := uint64(1<<32) / size
	return fmt.Sprintf("%08X%08X%08X", timeline, no/perFile, no%perFile)
}

// parseSegment is the timeline and number of a segment.
func parseSegment(name string, size uint64) (timeline, no uint64, err error) {
	if len(name) != 24 {
		return 0, 0, fmt.Errorf("%q is not the name of a segment", name)
	}
	var part [3]uint64
	for i := range part {
		if part[i], err = strconv.ParseUint(name[8*i:8*i+8], 16, 32); err != nil {
			return 0, 0, fmt.Errorf("%q is not the name of a segment: %w", name, err)
		}
	}
	return part[0], part[1]*(1<<32/size) + part[2], nil
}

// origin is a timeline and the LSN at which it began.
type origin struct{ timeline, lsn uint64 }

// line is where each timeline on the way to the given one began, oldest first, as its history file in a pg_wal says.
func line(pgwal string, timeline uint64) ([]origin, error) {
	if timeline == 1 {
		return []origin{{1, 0}}, nil
	}
	text, err := os.ReadFile(filepath.Join(pgwal, fmt.Sprintf("%08X.history", timeline)))
	if err != nil {
		return nil, err
	}
	var at []origin
	from := uint64(0)
	for row := range strings.Lines(string(text)) {
		f := strings.Fields(row)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		t, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%08X.history: %w", timeline, err)
		}
		var high, low uint64
		if _, err := fmt.Sscanf(f[1], "%X/%X", &high, &low); err != nil {
			return nil, fmt.Errorf("%08X.history: %q: %w", timeline, f[1], err)
		}
		at = append(at, origin{t, from})
		from = high<<32 + low
	}
	return append(at, origin{timeline, from}), nil
}

// needed are the files that a recovery needs which starts in segment first and follows the line to segment last of the
// newest timeline: its history, and each segment from the newest timeline that has begun by then.
func needed(at []origin, first, last, size uint64) []string {
	var names []string
	if target := at[len(at)-1]; target.timeline > 1 {
		names = append(names, fmt.Sprintf("%08X.history", target.timeline))
	}
	for no := first; no <= last; no++ {
		timeline := at[0].timeline
		for _, b := range at {
			if b.lsn/size <= no {
				timeline = b.timeline
			}
		}
		names = append(names, segmentName(timeline, no, size))
	}
	return names
}
