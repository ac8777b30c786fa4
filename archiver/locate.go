package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Moment is a place in the WAL that somebody wants to recover to.
type Moment struct {
	Time     time.Time    // or
	LSN      wal.LSN      // where Time is zero
	Timeline wal.Timeline // whose line is meant; 0 takes the newest that has WAL
}

// Location says where a target lies and whether a recovery can reach it.
type Location struct {
	Archive   string         `json:"archive"`
	Time      time.Time      `json:"time,omitzero"`
	LSN       string         `json:"lsn,omitempty"`
	Line      []wal.Timeline `json:"line"` // that was looked at, oldest first
	Reachable bool           `json:"reachable"`
	Why       string         `json:"why,omitempty"` // why not

	// Segment has the moment in it, or the first commit after it, which a recovery to a time has to read. "" when there is none.
	Segment     string       `json:"segment,omitempty"`
	Timeline    wal.Timeline `json:"timeline,omitempty"`    // of that file
	FirstCommit time.Time    `json:"first_commit,omitzero"` // in it, and the last one
	LastCommit  time.Time    `json:"last_commit,omitzero"`
	After       string       `json:"after,omitempty"` // the last file known to have a commit before the moment, where that is another one

	WholeFrom string `json:"whole_from,omitempty"` // the line has no hole from this LSN to WholeTo; the moment lies between
	WholeTo   string `json:"whole_to,omitempty"`

	Backup       *BackupLabel `json:"backup,omitempty"`         // the newest base backup of which the archive has the label that can be used
	BackupAfter  string       `json:"backup_after,omitempty"`   // any base backup can be used that began at or after this LSN
	BackupBefore string       `json:"backup_before,omitempty"`  // and ended at or before this one
	BehindHole   string       `json:"behind_hole,omitempty"`    // the name of a newer label that cannot be used, since WAL is missing behind it
	Settings     []string     `json:"settings,omitempty"`       // lines for postgresql.conf
	Target       wal.Timeline `json:"target_timeline,omitzero"` // recovery_target_timeline
}

// BackupLabel is what a .backup file says (xlogbackup.c, build_backup_content).
type BackupLabel struct {
	Name  string `json:"name"`
	Start string `json:"start_lsn"`
	Stop  string `json:"stop_lsn,omitempty"` // "" when the file cannot be read
	Label string `json:"label,omitempty"`
	Time  string `json:"stop_time,omitempty"` // "" when the name of its zone can be several ones
}

// ErrNoTimeline means that the archive has nothing of the timeline that was named.
var ErrNoTimeline = errors.New("the archive has nothing of that timeline")

// Locate finds a target on a line of the archive: the archive is listed, histories are read, and commit times are looked for in the headers of
// some segments, log2(n) of them. The headers' word is taken: only a deep audit proves content. The error is about reading.
func (a *Archive) Locate(ctx context.Context, t Moment) (*Location, error) {
	x, err := a.survey(ctx, AuditOptions{Names: true, Line: t.Timeline})
	if err != nil {
		return nil, err
	}
	x.conclude()
	if t.Timeline != 0 && !x.inv.hasWAL(t.Timeline) && !x.present[t.Timeline] {
		return nil, fmt.Errorf("locate on timeline %d: %w", t.Timeline, ErrNoTimeline)
	}
	out := &Location{Archive: a.String(), Time: t.Time, Line: x.rep.Line, Target: x.line.Timeline}
	if t.Time.IsZero() {
		out.LSN = t.LSN.String()
	}
	l := x.wholeLine()
	before, place, err := l.place(ctx, t, out)
	if err != nil {
		return nil, err
	}
	if place < 0 {
		return out, nil
	}
	n, part := l.at(place)
	s := l.parts[part]
	out.Segment, out.Timeline = n.String(), n.Segment.Timeline
	if out.FirstCommit, out.LastCommit, err = l.commits(ctx, place); err != nil {
		return nil, err
	}
	out.WholeFrom, out.WholeTo = s.from.String(), s.to.String()
	if out.Why = l.outside(t, before, place, out.FirstCommit); out.Why != "" {
		return out, nil
	}
	ended := n.Segment.Start() // a base backup that ended here is consistent before the moment
	if t.Time.IsZero() {
		ended = t.LSN
	}
	out.BackupAfter, out.BackupBefore = s.from.String(), ended.String()
	if err := x.findBackup(ctx, s.from, ended, out); err != nil {
		return nil, err
	}
	out.judge(x, t)
	return out, nil
}

// outside says why a moment is before what the archive has, or in a hole: its first commit behind such a place is later.
func (l *wholeLine) outside(t Moment, before, place int, first time.Time) string {
	if t.Time.IsZero() || !first.After(t.Time) {
		return ""
	}
	if before < 0 {
		return fmt.Sprintf("the first commit that the archive has on this line was at %s", PostgresTime(first))
	}
	n, earlier := l.at(before)
	_, part := l.at(place)
	if earlier == part {
		return ""
	}
	return fmt.Sprintf("WAL is missing where the moment may lie: behind %v up to %v", l.parts[part-1].to, l.parts[part].from) +
		fmt.Sprintf(" (the last commit known to be before it is in %v)", n)
}

// place finds the file that a recovery to t has to read last, -1 with the reason in out, and the last one known to have a commit before it.
func (l *wholeLine) place(ctx context.Context, t Moment, out *Location) (before, after int, err error) {
	if l.len() == 0 {
		out.Why = "the archive has no WAL of this line"
		return -1, -1, nil
	}
	if t.Time.IsZero() {
		return -1, l.placeLSN(t.LSN, out), nil
	}
	before, after, err = l.seek(ctx, t.Time)
	if err != nil {
		return -1, -1, err
	}
	if after < 0 {
		last, err := l.lastCommit(ctx, 0, l.len()-1)
		switch {
		case err != nil:
			return -1, -1, err
		case last.IsZero():
			out.Why = "no commit was found in the last files of the line"
		default:
			out.Why = fmt.Sprintf("the last commit that the archive has was at %s, and PostgreSQL takes a target for reached when it sees a later one", PostgresTime(last))
			n, _ := l.at(l.len() - 1)
			out.After = n.String()
		}
		return -1, -1, nil
	}
	if before >= 0 {
		n, _ := l.at(before)
		out.After = n.String()
	}
	return before, after, nil
}

// placeLSN finds the file with the byte at lsn.
func (l *wholeLine) placeLSN(lsn wal.LSN, out *Location) int {
	i := 0
	for _, s := range l.parts {
		if lsn < s.from {
			out.Why = fmt.Sprintf("it lies in a hole, before %v", s.from)
			if i == 0 {
				out.Why = fmt.Sprintf("it lies before %v, where the archive's WAL of this line begins", s.from)
			}
			return -1
		}
		if lsn < s.to {
			return i + int(uint64(lsn)/uint64(l.a.id.SegmentSize)-s.pieces[0].First)
		}
		i += s.len()
	}
	out.Why = fmt.Sprintf("the archive's WAL of this line ends at %v", l.parts[len(l.parts)-1].to)
	return -1
}

// findBackup looks for the newest label of a base backup that began at or after from and ended before the target.
func (x *auditor) findBackup(ctx context.Context, from, before wal.LSN, out *Location) error {
	start := func(n wal.Name) wal.LSN { return n.Segment.Start() + wal.LSN(n.Offset) }
	labels := slices.DeleteFunc(slices.Clone(x.inv.labels), func(n wal.Name) bool {
		return start(n) >= before || x.line.TimelineAt(start(n)) != n.Segment.Timeline
	})
	slices.SortFunc(labels, func(a, b wal.Name) int { return cmp.Compare(start(b), start(a)) })
	for _, n := range labels {
		if start(n) < from {
			if out.Backup == nil {
				out.BehindHole = n.String()
			}
			return nil
		}
		b, err := x.a.readBackup(ctx, Object{Name: n})
		switch {
		case err != nil && !unusable(err) && !errors.Is(err, errNoBackup):
			return err
		case err != nil || b.Stop == 0:
			if out.Backup == nil { // it may have ended at any time, so an older one that can be read is better
				out.Backup = &BackupLabel{Name: n.String(), Start: start(n).String()}
			}
		case b.Stop <= before:
			out.Backup = &BackupLabel{Name: n.String(), Start: b.Start.String(), Stop: b.Stop.String(), Label: printable(b.Label)}
			if !b.Ended.IsZero() {
				out.Backup.Time = PostgresTime(b.Ended)
			}
			return nil
		}
	}
	return nil
}

// judge says whether the target can be reached, and how.
func (l *Location) judge(x *auditor, t Moment) {
	line := x.line.Timeline
	timeline := fmt.Sprint(uint32(line))
	_, known := x.histories[line]
	switch {
	case len(x.line.Forks) > 0 && !known:
		l.Why = fmt.Sprintf("the archive has no good %v, and a recovery to timeline %d reads it", wal.HistoryName(line), line)
		return
	case l.Backup == nil && l.BackupAfter == l.BackupBefore:
		l.Why = fmt.Sprintf("WAL is missing right before it: no base backup can have ended in time (the line is whole from %s on)", l.WholeFrom)
		return
	}
	if line > 1 && !known { // PostgreSQL takes no number without a history
		timeline = "current" // that of the base backup
	}
	l.Reachable = true
	l.Settings = []string{"restore_command = 'walbaton-wal fetch %f %p'"}
	if t.Time.IsZero() {
		l.Settings = append(l.Settings, fmt.Sprintf("recovery_target_lsn = '%v'", t.LSN))
	} else {
		l.Settings = append(l.Settings, fmt.Sprintf("recovery_target_time = '%s'", PostgresTime(t.Time)))
	}
	l.Settings = append(l.Settings, fmt.Sprintf("recovery_target_timeline = '%s'", timeline))
}

// PostgresTime writes a time as PostgreSQL reads and writes it, in UTC.
func PostgresTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999+00") }
