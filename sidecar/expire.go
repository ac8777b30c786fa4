package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

func newExpireCommand(w world) *cobra.Command {
	var f expireFlags
	c := &cobra.Command{
		Use:   "expire --before CUT-OFF | --keep TIME",
		Short: "Delete WAL that no restore to the cut-off or later needs",
		Long: `Raise the archive's floor and delete what lies below it. What is kept is all from the start
of the last base backup that ended at or before the cut-off and can be restored from, so
that every moment from the cut-off on stays restorable. Histories are never deleted.

The cut-off is a time (with its zone), an LSN, a segment, or a backup, by
the name of its file in the archive (000000010000000000000009.00000028.backup) or its
label. --keep 14d is the time that was 14 days ago.

The archive knows of a backup by the file that PostgreSQL writes on a primary. Backups of a
standby and snapshots of a disk leave none: --without-backups keeps from the cut-off
itself, and leaves it to you that a backup is older than that.

It is done by the sidecar that holds the baton, so run it on that node; --dry-run works on
every node, and without a sidecar where the archive can be read. What would go is shown
first, and asked about on a terminal.

Exit code 0: done, or nothing to do. 1: refused, not confirmed, or not finished; run it
again, it goes on where it ended.`,
		Example: `  walbaton expire --keep 14d --dry-run
  walbaton expire --before '2026-11-01 00:00:00+00'
  walbaton expire --before 000000010000000000000009.00000028.backup --yes`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, append(readingSettings("stall_timeout", "log"), "socket")...)
	c.Flags().StringVar(&f.before, "before", "", "`cut-off`: a time, an LSN, a segment, or a backup's file or label")
	c.Flags().StringVar(&f.keep, "keep", "", "`time` before now that is to stay restorable, such as 14d, 2w or 36h")
	c.Flags().BoolVar(&f.without, "without-backups", false, "keep from the cut-off itself, whatever backups the archive knows of")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "only show what would go")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().Uint64Var(&f.systemID, "system-identifier", 0, "`number` of the cluster, for --dry-run without a sidecar")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		before, err := f.cutoff(time.Now())
		if errors.As(err, new(*hintError)) {
			return withCode(exitUsage, err)
		}
		if err != nil {
			return usageError(c, err)
		}
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		return f.run(c, w, cfg, expireRequest{Before: before, WithoutBackups: f.without, By: userName(w)})
	}
	return c
}

type expireFlags struct {
	before, keep            string
	without, dry, yes, json bool
	systemID                uint64
}

// cutoff gives --before or --keep as the sidecar reads it: times in UTC, since its zone may be another one.
func (f expireFlags) cutoff(now time.Time) (string, error) {
	switch {
	case f.before == "" && f.keep == "":
		return "", errors.New("expire: say from where on is kept: --before, or --keep")
	case f.before != "" && f.keep != "":
		return "", errors.New("expire: either --before or --keep, not both")
	case f.keep != "":
		d, err := parseSpan(f.keep)
		if err != nil {
			return "", fmt.Errorf("expire: --keep %w", err)
		}
		return now.Add(-d).UTC().Format(time.RFC3339Nano), nil
	}
	// The size of segments is not known here, and no matter for a time.
	if c, err := archiver.ParseCutoff(f.before, wal.MinSegmentSize); err == nil && !c.Time.IsZero() {
		return c.Time.UTC().Format(time.RFC3339Nano), nil
	} else if err != nil && !strings.Contains(err.Error(), "parse WAL name") {
		return "", fmt.Errorf("expire: --before: %w", sayZone(err, f.before))
	}
	return f.before, nil
}

func (f expireFlags) run(c *cobra.Command, w world, cfg Config, req expireRequest) error {
	plan, err := askExpire(c.Context(), cfg.Socket, req)
	if f.dry && errors.As(err, new(*noSidecarError)) {
		plan, err = planAlone(c.Context(), w, cfg, f.systemID, req)
	}
	if err != nil {
		return err
	}
	nothing := true
	for _, st := range plan.Archives {
		nothing = nothing && st.Plan.Empty()
	}
	if f.dry || nothing {
		if f.json {
			return printJSON(w.stdout, plan)
		}
		return printExpire(w.stdout, plan)
	}
	if !f.json {
		if err := printExpire(w.stdout, plan); err != nil {
			return err
		}
	}
	if plan.NotHere != "" {
		return withHint(errors.New("expire: "+plan.NotHere), "nothing was deleted; walbaton status shows who holds the baton")
	}
	if !f.yes {
		if err := confirm(c, w, f.json, "expire", "Delete it?", "nothing was deleted"); err != nil {
			return err
		}
	}
	req.Run, req.Shown = true, map[string]string{}
	for _, st := range plan.Archives {
		req.Shown[st.Plan.Archive] = st.Plan.From
	}
	done, err := askExpire(c.Context(), cfg.Socket, req)
	if err != nil {
		return err
	}
	return printExpired(w.stdout, done, f.json)
}

func askExpire(ctx context.Context, socket string, req expireRequest) (expireAnswer, error) {
	var a expireAnswer
	b, err := json.Marshal(req)
	if err != nil {
		return a, err
	}
	message, err := askSidecar(ctx, socket, "expire", string(b))
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(message), &a); err != nil {
		return a, fmt.Errorf("ask the sidecar on %s: %w", socket, err)
	}
	return a, nil
}

// planAlone plans from the archive alone: the line is then the newest timeline that has WAL there.
func planAlone(ctx context.Context, w world, cfg Config, systemID uint64, req expireRequest) (expireAnswer, error) {
	a, err := openArchive(ctx, cfg, systemID, cfg.logger(w))
	if err != nil {
		return expireAnswer{}, err
	}
	cutoff, err := archiver.ParseCutoff(req.Before, a.SegmentSize())
	if err != nil {
		return expireAnswer{}, withCode(exitUsage, fmt.Errorf("expire: --before: %w", err))
	}
	p, err := a.PlanExpire(ctx, archiver.ExpireOptions{Before: cutoff, WithoutBackups: req.WithoutBackups})
	if err != nil {
		return expireAnswer{}, withExpireHint(err)
	}
	p.Notes = append(p.Notes, "no sidecar answers here, so the line is taken to be the newest timeline that the archive has WAL of")
	return expireAnswer{Archives: []expireStep{{Plan: p}}, NotHere: "no sidecar answers here"}, nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printExpire shows what would go, for people.
func printExpire(w io.Writer, a expireAnswer) error {
	var b strings.Builder
	for i, st := range a.Archives {
		p := st.Plan
		if i > 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "archive   %s\nline      timeline %s, from %s on\ncut-off   %s\n", p.Archive, join(p.Line), p.Now, p.Cutoff)
		switch {
		case p.Backup != nil:
			fmt.Fprintf(&b, "keeps     from %s on: the backup %s", p.From, p.Backup.Name)
			if p.Backup.Label != "" {
				fmt.Fprintf(&b, " (%s)", p.Backup.Label)
			}
			fmt.Fprintf(&b, ", which ended at %s\n", commitText(p.Backup.Ended))
		default:
			fmt.Fprintf(&b, "keeps     from %s on\n", p.From)
		}
		fmt.Fprintf(&b, "goes      %s (%s)\nstays     %s (%s)\n", counted(p.Objects, "object"), sizeText(p.Bytes), counted(p.Stays, "file"), sizeText(p.Stay))
		if p.Empty() {
			fmt.Fprintln(&b, "\nNothing lies below: there is nothing to delete.")
		} else {
			fmt.Fprintln(&b)
			t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
			fmt.Fprintln(t, "TIMELINE\tFIRST SEGMENT\tLAST SEGMENT\tSEGMENTS\tPARTIAL\tBACKUPS\tSIZE\t")
			for _, g := range p.Goes {
				fmt.Fprintf(t, "%d%s\t%s\t%s\t%d\t%d\t%d\t%s\t\n", g.Timeline, mark(g.Branch, " (branch)", ""), dash(g.First), dash(g.Last), g.Segments, g.Partials, g.Backups, sizeText(g.Bytes))
			}
			if err := t.Flush(); err != nil {
				return err
			}
			if p.Orphans > 0 {
				fmt.Fprintf(&b, "and %s\n", counted(p.Orphans, "orphan"))
			}
		}
		for _, s := range p.Warnings {
			fmt.Fprintf(&b, "! %s\n", s)
		}
		for _, s := range p.Notes {
			fmt.Fprintf(&b, "- %s\n", s)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printExpired says what was done; the error is the first that kept it from being all.
func printExpired(w io.Writer, a expireAnswer, asJSON bool) error {
	var failed error
	var b strings.Builder
	for _, st := range a.Archives {
		if d := st.Done; d != nil {
			fmt.Fprintf(&b, "%s begins at %s now; deleted %s (%s)\n", st.Plan.Archive, st.Plan.From, counted(d.Deleted, "object"), sizeText(d.Bytes))
			if d.Hidden {
				b.WriteString("  the store keeps them, out of sight, as old versions: they take their space until a lifecycle rule or their object lock ends that (docs/stores.md)\n")
			}
		}
		if st.Error != "" && failed == nil {
			failed = errors.New(st.Error)
		}
	}
	var err error
	if asJSON {
		err = printJSON(w, a)
	} else {
		_, err = io.WriteString(w, b.String())
	}
	if err == nil {
		err = failed
	}
	return err
}
