package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
)

// listing is what `list --json` prints.
type listing struct {
	Archive   string                  `json:"archive"`
	SystemID  uint64                  `json:"system_identifier,string"`
	Timelines []archiver.TimelineSpan `json:"timelines"`
	Others    []string                `json:"other_system_identifiers"` // archives of other clusters under the same scope
}

func newListCommand(w world) *cobra.Command {
	var asJSON bool
	var systemID uint64
	c := &cobra.Command{
		Use:   "list",
		Short: "Show what WAL the archive has, by timeline",
		Long: `List the archive: for each timeline its first and last segment, the span of LSNs and of
commit times, how many segments, their size in the archive, and the ratio to their size
in pg_wal. Commit times are from the headers of the first and the last file that has a
commit, within 64 of the ends; a timeline's first segment begins with its parent's WAL.
Where files at the ends are encrypted it says so: age, or mixed. Nothing is judged:
walbaton verify does that.

Exit code 0: it worked. 1: the archive does not answer.`,
		Example: `  walbaton list
  walbaton list --archive s3://bucket/prefix --scope shop --json`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, readingSettings("stall_timeout", "log")...)
	c.Flags().Uint64Var(&systemID, "system-identifier", 0, "`number` of the cluster (default: that of the data directory, or the only one)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		a, err := openArchive(c.Context(), cfg, systemID, cfg.logger(w))
		if err != nil {
			return err
		}
		spans, err := a.Timelines(c.Context())
		if err != nil {
			return withHint(err, "see that the archive can be reached, and try again")
		}
		others, err := a.Others(c.Context())
		if err != nil {
			return withHint(err, "see that the archive can be reached, and try again")
		}
		l := listing{Archive: a.String(), SystemID: a.Identity().SystemID, Timelines: spans, Others: []string{}}
		for _, id := range others {
			l.Others = append(l.Others, strconv.FormatUint(id, 10))
		}
		if asJSON {
			e := json.NewEncoder(w.stdout)
			e.SetIndent("", "  ")
			return e.Encode(l)
		}
		return printListing(w.stdout, l)
	}
	return c
}

func printListing(w io.Writer, l listing) error {
	var b strings.Builder
	fmt.Fprintf(&b, "archive   %s\n\n", l.Archive)
	t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	encrypted := slices.ContainsFunc(l.Timelines, func(s archiver.TimelineSpan) bool { return s.Encryption != "" })
	fmt.Fprint(t, "TIMELINE\tFROM\tAT\tFIRST SEGMENT\tLAST SEGMENT\tLSN\tSEGMENTS\tGAPS\tFIRST COMMIT\tLAST COMMIT\tSIZE\tRATIO\t")
	if encrypted {
		fmt.Fprint(t, "ENCRYPTED\t")
	}
	fmt.Fprintln(t)
	for _, s := range l.Timelines {
		span := "-"
		if s.Segments > 0 {
			span = s.Begin + " to " + s.End
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t", s.Timeline, number(uint64(s.Parent), s.Parent != 0), dash(s.Fork), dash(s.First), dash(s.Last), span,
			s.Segments, max(s.Runs-1, 0), commitText(s.FirstCommit), commitText(s.LastCommit), sizeText(s.Bytes), ratioText(s.Ratio))
		if encrypted {
			fmt.Fprintf(t, "%s\t", dash(s.Encryption))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(l.Timelines) == 0 {
		b.WriteString("nothing yet\n")
	}
	if len(l.Others) > 0 {
		fmt.Fprintf(&b, "\nOther clusters have had this scope: %s\n(walbaton list --system-identifier N shows what is there of one)\n", strings.Join(l.Others, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ratioText says how many times smaller segments are in the archive.
func ratioText(r float64) string {
	if r == 0 {
		return "-"
	}
	return strconv.FormatFloat(r, 'f', 1, 64)
}

func commitText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
