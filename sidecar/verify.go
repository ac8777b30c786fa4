package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

func newVerifyCommand(w world) *cobra.Command {
	var asJSON, deep bool
	var systemID uint64
	var line uint32
	var parallel int
	c := &cobra.Command{
		Use:   "verify",
		Short: "Look for holes and damage in the archive",
		Long: `List the archive and look for all that would stop a recovery: missing segments on each
timeline and where one leads to the next, missing timeline numbers, histories that
contradict one another, objects that are not what their name says. What lies
below a floor is no hole.

It reads the header of every object, one small request each. --deep reads every object
to its end: its digest and every WAL record. Only that finds cut or changed
content and bad WAL. Nothing is written.

Exit code 0: the archive is whole. 3: it is not (the text names each problem). 1: nobody
can say, the archive does not answer.`,
		Example: `  walbaton verify
  walbaton verify --deep
  walbaton verify --archive file:///backup --scope shop --json | jq '.problems[].name'`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, readingSettings("stall_timeout", "log")...)
	c.Flags().BoolVar(&deep, "deep", false, "read every object to its end, and check every WAL record")
	c.Flags().Uint32Var(&line, "timeline", 0, "`timeline` that the line leads to (default: the newest that has WAL)")
	c.Flags().IntVar(&parallel, "parallel", 8, "objects that are read at the same time")
	c.Flags().Uint64Var(&systemID, "system-identifier", 0, "`number` of the cluster (default: that of the data directory, or the only one)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if parallel < 1 || parallel > 1000 {
			return usageError(c, fmt.Errorf("verify %d objects at the same time: give a number from 1 to 1000", parallel))
		}
		a, err := openArchive(c.Context(), cfg, systemID, cfg.logger(w))
		if err != nil {
			return err
		}
		bar := newProgress(w.stderr, "verify")
		rep, err := a.Audit(c.Context(), archiver.AuditOptions{Deep: deep, Line: wal.Timeline(line), Workers: parallel, Progress: bar.show})
		bar.end()
		if err != nil {
			return withHint(err, "nothing is said about the archive; see that it can be reached, and try again")
		}
		if line != 0 && !slices.ContainsFunc(rep.Timelines, func(t archiver.AuditTimeline) bool { return t.Timeline == wal.Timeline(line) }) {
			return withHint(fmt.Errorf("verify %s: it has nothing of timeline %d", rep.Archive, line), "walbaton list shows the timelines it has")
		}
		if asJSON {
			e := json.NewEncoder(w.stdout)
			e.SetIndent("", "  ")
			err = e.Encode(rep)
		} else {
			err = printAudit(w.stdout, rep)
		}
		if err == nil && !rep.Whole {
			err = withCode(exitFound, fmt.Errorf("verify %s: %s found", rep.Archive, counted(rep.ProblemCount, "problem")))
		}
		return err
	}
	return c
}

// printAudit writes for people.
func printAudit(w io.Writer, rep *archiver.Audit) error {
	var b strings.Builder
	c := rep.Count
	checked := "names, histories and the header of"
	if rep.Deep {
		checked = "every byte of"
	}
	fmt.Fprintf(&b, "archive   %s\n", rep.Archive)
	fmt.Fprintf(&b, "checked   %s %s (%s)\n", checked, counted(c.Segments+c.Partials+c.Backups+c.Histories, "object"), sizeText(c.Bytes))
	if c.Encrypted > 0 {
		fmt.Fprintf(&b, "encrypted %s, the other %d not\n", counted(c.Encrypted, "object"), c.Segments+c.Partials+c.Backups+c.Histories-c.Encrypted)
	}
	fmt.Fprintf(&b, "line      timeline %s, without a hole up to %s\n", join(rep.Line), rep.Frontier)
	for i, f := range rep.Floors {
		label := ""
		if i == 0 {
			label = "floor"
		}
		fmt.Fprintf(&b, "%-9s timeline %d at %s: nothing is promised below\n", label, f.Timeline, f.LSN)
	}
	fmt.Fprintln(&b)
	t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "TIMELINE\tFROM\tAT\tFIRST SEGMENT\tLAST SEGMENT\tSEGMENTS\tMISSING\tPARTIAL\tBACKUPS\tSIZE\t")
	for _, l := range rep.Timelines {
		name := strconv.Itoa(int(l.Timeline))
		if !l.OnLine {
			name += " (branch)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t\n", name, number(uint64(l.Parent), l.Parent != 0), dash(l.Fork), dash(l.First), dash(l.Last),
			l.Segments, l.Missing, l.Partials, l.Backups, sizeText(l.Bytes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if c.Orphans > 0 {
		fmt.Fprintf(&b, "\n%s (%s) that the line left:\n", counted(c.Orphans, "orphan"), sizeText(rep.OrphanBytes))
		for _, o := range rep.Orphans[:min(len(rep.Orphans), 10)] {
			fmt.Fprintf(&b, "  %s\n", o)
		}
		if c.Orphans > 10 {
			fmt.Fprintf(&b, "  and %d more (--json lists them)\n", c.Orphans-10)
		}
	}
	fmt.Fprintln(&b)
	if rep.Whole {
		fmt.Fprintln(&b, "No problem was found.")
	} else {
		fmt.Fprintf(&b, "%s:\n", counted(rep.ProblemCount, "problem"))
	}
	for _, p := range rep.Problems {
		fmt.Fprintf(&b, "! %s  %s\n    %s\n    -> %s\n", p.Name, p.Kind, p.Why, p.Hint)
	}
	for _, n := range rep.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if rep.NotChecked != "" {
		next := "walbaton verify --deep"
		if rep.Deep {
			next = "walbaton verify --deep --identities FILE"
		}
		fmt.Fprintf(&b, "not checked: %s (%s)\n", rep.NotChecked, next)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func join(line []wal.Timeline) string {
	var words []string
	for _, t := range line {
		words = append(words, strconv.Itoa(int(t)))
	}
	return strings.Join(words, " → ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
