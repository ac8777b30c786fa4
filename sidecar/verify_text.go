package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

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
		rest := fmt.Sprintf("the other %d not", c.Segments+c.Partials+c.Backups+c.Histories-c.Encrypted)
		if rep.Since != "" || c.Remembered > 0 {
			rest = "of those that were looked at"
		}
		fmt.Fprintf(&b, "encrypted %s, %s\n", counted(c.Encrypted, "object"), rest)
	}
	if rep.Since != "" {
		fmt.Fprintf(&b, "since     %s: of what lies before, only names and histories were looked at, and no hole is told of\n", rep.Since)
	}
	if c.Remembered > 0 {
		fmt.Fprintf(&b, "resumed   %s had been found good before the run was interrupted\n", counted(c.Remembered, "segment"))
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
	printProblems(&b, rep)
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

// printProblems lists what is wrong, and what somebody knows of.
func printProblems(b *strings.Builder, rep *archiver.Audit) {
	switch {
	case rep.Whole:
		fmt.Fprintln(b, "No problem was found.")
	case rep.Open() == 0:
		fmt.Fprintf(b, "No problem was found but %s:\n", counted(rep.Acknowledged, "acknowledged hole"))
	case rep.Acknowledged > 0:
		fmt.Fprintf(b, "%s, and %s:\n", counted(rep.Open(), "problem"), counted(rep.Acknowledged, "acknowledged hole"))
	default:
		fmt.Fprintf(b, "%s:\n", counted(rep.ProblemCount, "problem"))
	}
	for _, p := range rep.Problems {
		if p.Acknowledged != nil {
			fmt.Fprintf(b, "* %s  %s\n    %s\n    %s\n", p.Name, p.Kind, p.Why, acknowledgedText(*p.Acknowledged))
			continue
		}
		fmt.Fprintf(b, "! %s  %s\n    %s\n    -> %s\n", p.Name, p.Kind, p.Why, p.Hint)
	}
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

// acknowledgedText says who acknowledged a hole, and why.
func acknowledgedText(k archiver.Acknowledgment) string {
	via := ""
	if k.Via != "" {
		via = " on " + k.Via
	}
	return fmt.Sprintf("acknowledged %s by %s%s: %s", timeText(k.At), k.By, via, k.Reason)
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
