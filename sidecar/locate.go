package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

func newLocateCommand(w world) *cobra.Command {
	var asJSON bool
	var at, lsn string
	var timeline uint32
	var systemID uint64
	c := &cobra.Command{
		Use:   "locate",
		Short: "Find where a moment lies in the archive, and how to recover to it",
		Long: `Find which segment of which timeline has a moment or an LSN, and whether a recovery can
reach it: the WAL from a base backup up to it must be there without a hole. It prints
the lines for postgresql.conf, and which base backup fits: the newest one whose label
(.backup) is in the archive, or what any other must satisfy. Backups of standbys
and snapshots of a disk leave no label.

A time is given as PostgreSQL writes it or in RFC 3339, always with its zone. Commit
times come from the headers of segments, about log2(n) small requests; contents are not
read. PostgreSQL takes a time for reached when it sees a later commit, so the last
moment is just before the last commit; leave recovery_target_time out to get that too.

Without --timeline the line is that of the newest timeline that has WAL. A moment
behind a fork may lie on the timeline that was left as well: name that one for it.

Exit code 0: it can be reached. 3: it cannot (the text says why). 1: nobody can say.`,
		Example: `  walbaton locate --time '2026-11-28 19:24:47+00'
  walbaton locate --time 2026-11-28T20:24:47+01:00 --timeline 3
  walbaton locate --lsn 16/B374D848 --json`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, readingSettings("stall_timeout", "log")...)
	c.Flags().StringVar(&at, "time", "", "the `moment`, with its time zone")
	c.Flags().StringVar(&lsn, "lsn", "", "the `LSN`")
	c.Flags().Uint32Var(&timeline, "timeline", 0, "`timeline` that the line leads to (default: the newest that has WAL)")
	c.Flags().Uint64Var(&systemID, "system-identifier", 0, "`number` of the cluster (default: that of the data directory, or the only one)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		t, err := locateTarget(c, at, lsn)
		if err != nil {
			return err
		}
		t.Timeline = wal.Timeline(timeline)
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		a, err := openArchive(c.Context(), cfg, systemID, cfg.logger(w))
		if err != nil {
			return err
		}
		l, err := a.Locate(c.Context(), t)
		switch {
		case errors.Is(err, archiver.ErrNoTimeline):
			return withHint(err, "walbaton list shows the timelines it has")
		case err != nil:
			return withHint(err, "see that the archive can be reached, and try again")
		}
		if asJSON {
			e := json.NewEncoder(w.stdout)
			e.SetIndent("", "  ")
			err = e.Encode(l)
		} else {
			_, err = io.WriteString(w.stdout, locationText(l))
		}
		if err == nil && !l.Reachable {
			err = withCode(exitFound, fmt.Errorf("locate %s: no recovery from this archive reaches it", targetText(l)))
		}
		return err
	}
	return c
}

// locateTarget reads the flags: exactly one of the two.
func locateTarget(c *cobra.Command, at, lsn string) (t archiver.Moment, err error) {
	byTime, byLSN := c.Flags().Changed("time"), c.Flags().Changed("lsn")
	switch {
	case byTime == byLSN:
		return t, usageError(c, errors.New("locate: give --time or --lsn, one of them"))
	case byTime:
		if t.Time, err = parseMoment(at); err != nil {
			return t, withCode(exitUsage, fmt.Errorf("--time: %w", err))
		}
		return t, nil
	}
	if t.LSN, err = parseLSN(lsn); err != nil {
		return t, withCode(exitUsage, fmt.Errorf("--lsn: %w", err))
	}
	return t, nil
}

func targetText(l *archiver.Location) string {
	if l.Time.IsZero() {
		return l.LSN
	}
	return archiver.PostgresTime(l.Time)
}

// locationText writes for people.
func locationText(l *archiver.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "archive   %s\nline      timeline %s\ntarget    %s\n", l.Archive, join(l.Line), targetText(l))
	switch {
	case l.Segment != "" && l.Time.IsZero():
		fmt.Fprintf(&b, "segment   %s, timeline %d\n", l.Segment, l.Timeline)
	case l.Segment != "" && !l.FirstCommit.After(l.Time):
		fmt.Fprintf(&b, "segment   %s, timeline %d: commits from %s to %s\n", l.Segment, l.Timeline, archiver.PostgresTime(l.FirstCommit), archiver.PostgresTime(l.LastCommit))
	case l.Segment != "":
		fmt.Fprintf(&b, "segment   %s, timeline %d: the first commit after the moment that was found, %s\n", l.Segment, l.Timeline, archiver.PostgresTime(l.FirstCommit))
		if l.After != "" {
			fmt.Fprintf(&b, "          the last one before it is in %s\n", l.After)
		}
	}
	if l.WholeFrom != "" {
		fmt.Fprintf(&b, "whole     from %s to %s: no segment is missing\n", l.WholeFrom, l.WholeTo)
	}
	b.WriteString("\n")
	if !l.Reachable {
		fmt.Fprintf(&b, "It cannot be reached: %s.\n", l.Why)
		return b.String()
	}
	b.WriteString("It can be reached" + backupText(l) + "\n")
	fmt.Fprintf(&b, "\nIn postgresql.conf, beside an empty file recovery.signal:\n\n")
	for _, s := range l.Settings {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	return b.String()
}

// backupText says which base backups can be used.
func backupText(l *archiver.Location) string {
	rule := fmt.Sprintf("began at or after %s and ended at or before %s", l.BackupAfter, l.BackupBefore)
	if b := l.Backup; b != nil {
		text := fmt.Sprintf(", for example from the base backup of %s", b.Start)
		if b.Label != "" {
			text += fmt.Sprintf(" (label %q", b.Label)
			if b.Time != "" {
				text += ", ended " + b.Time
			}
			text += ")"
		}
		text += ":\n  " + b.Name + "\n"
		if b.Stop == "" {
			text += "  That label cannot be read, so make sure that the backup ended before the moment.\n"
		}
		return text + "Any other can be used that " + rule + "."
	}
	text := ", from a base backup that " + rule + ".\n"
	if l.BehindHole != "" {
		text += "The last one whose label the archive has, " + l.BehindHole + ", began earlier: WAL is missing behind it."
	} else {
		text += "The archive has no label of one: backups of standbys and snapshots of a disk leave none."
	}
	return text
}
