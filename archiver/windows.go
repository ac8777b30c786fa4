package archiver

import (
	"context"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Window is a part of the line without a hole: what can be restored from it, given a base backup that began in it or before its first commit.
type Window struct {
	From  wal.LSN
	To    wal.LSN
	First time.Time // of the commits in it; zero when none was found near its ends
	Last  time.Time
}

// maxWindows bounds how many parts of the line are told of, the newest: each takes two requests or more.
const maxWindows = 3

// windows gives the newest parts of the line, oldest first.
func (x *auditor) windows(ctx context.Context) ([]Window, error) {
	l := x.wholeLine()
	i := l.len()
	var out []Window
	for k := len(l.parts) - 1; k >= 0 && len(out) < maxWindows; k-- {
		s := l.parts[k]
		last := i - 1
		i -= s.len()
		w := Window{From: s.from, To: s.to}
		var err error
		if w.First, err = l.firstCommit(ctx, i, last); err != nil {
			return nil, err
		}
		if w.Last, err = l.lastCommit(ctx, i, last); err != nil {
			return nil, err
		}
		out = append([]Window{w}, out...)
	}
	return out, nil
}

// CommitIn gives the time of the last commit in a segment, by its header; zero when it has none or its header cannot be read.
func (a *Archive) CommitIn(ctx context.Context, s wal.Segment) (time.Time, error) {
	h, err := a.commits(ctx, wal.SegmentName(s))
	return h.LastCommit, err
}

// StartOf gives the LSN from which on the newest line has commits after t: the end of the last segment known to have none. It takes a listing and some headers.
func (a *Archive) StartOf(ctx context.Context, t time.Time) (wal.LSN, error) {
	x, err := a.survey(ctx, AuditOptions{Names: true})
	if err != nil {
		return 0, err
	}
	x.conclude()
	l := x.wholeLine()
	before, _, err := l.seek(ctx, t)
	if err != nil || before < 0 {
		return 0, err
	}
	n, _ := l.at(before)
	return n.Segment.End(), nil
}
