package rehearsal

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
)

//go:embed page.html.tmpl
var pageFiles embed.FS

// headline is a round in one line.
func headline(rd Round) string {
	if rd.To == "" {
		return fmt.Sprintf("From %s to nobody", rd.From)
	}
	return fmt.Sprintf("From %s to %s, timeline %d to %d", rd.From, rd.To, rd.OldTimeline, rd.NewTimeline)
}

// words say what the picture shows, for those who do not see it.
func words(rd Round) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s was the primary on timeline %d when the change was asked for, at second 0.", rd.From, rd.OldTimeline)
	if rd.Promoted > 0 {
		fmt.Fprintf(&b, " %s was the primary on timeline %d from second %.1f on.", rd.To, rd.NewTimeline, rd.Promoted)
	}
	if rd.NoWrites() > 0 {
		fmt.Fprintf(&b, " No row was acknowledged from second %.1f to %.1f.", rd.NoWritesFrom, rd.NoWritesTo)
	}
	for _, s := range rd.Trace.Batons {
		fmt.Fprintf(&b, " %s held the baton from second %.1f to %.1f.", s.Who, s.From, s.To)
	}
	if rd.Shipped > 0 {
		fmt.Fprintf(&b, " %s, the first segment after the change, was in the archive at second %.1f.", rd.FirstFile, rd.Shipped)
	}
	for _, l := range rd.Timelines {
		fmt.Fprintf(&b, " Timeline %d: %s, %d missing.", l.Timeline, counted(l.Segments, "segment"), len(l.Missing))
	}
	return b.String()
}

// fact is one line of what was found; Bad is out of order.
type fact struct {
	Name, Value, More string
	Bad               bool
}

// facts are what a round has found, most important first.
func (rd Round) facts() []fact {
	missing, segments := 0, 0
	var whole []string
	for _, l := range rd.Timelines {
		missing += len(l.Missing)
		segments += l.Segments
		if len(l.Missing) == 0 {
			whole = append(whole, fmt.Sprintf("%d", l.Timeline))
		}
	}
	shipped := fact{"New timeline in the archive", "never", "", true}
	if rd.Shipped > 0 {
		shipped = fact{"New timeline in the archive", secondsText(rd.ShippedAfter()), "after the promotion", false}
		if rd.Holder != "" {
			shipped.More = "after the promotion; " + rd.Holder + " held the baton"
		}
	}
	out := fact{"Without writes", secondsText(rd.NoWrites()), "the longest time between two acknowledged rows", rd.To == ""}
	rows := fact{"Rows lost", fmt.Sprint(rd.Rows.Lost), fmt.Sprintf("of %d acknowledged", rd.Rows.Acknowledged), rd.Rows.Lost+rd.Rows.Changed+rd.Rows.Twice > 0}
	if n := rd.Rows.Changed + rd.Rows.Twice; n > 0 {
		rows.More += fmt.Sprintf("; %d changed, %d twice", rd.Rows.Changed, rd.Rows.Twice)
	}
	holes := fact{"Missing in the archive", fmt.Sprint(missing), fmt.Sprintf("of %s; whole: timeline %s", counted(segments, "segment"), andList(whole)), missing > 0}
	if len(whole) == 0 {
		holes.More = "of " + counted(segments, "segment")
	}
	return []fact{out, shipped, rows, holes,
		{"Archived twice", fmt.Sprint(len(rd.Twice)), "files that were replaced or went", len(rd.Twice) > 0},
		{"Orphans", fmt.Sprint(len(rd.Orphans)), "WAL that the line left, kept aside", false},
		{"All members back", backText(rd.Back), "after it was asked for", false},
	}
}

func (s Restore) fact() fact {
	if s.Failed != "" {
		return fact{"Restore", "failed", s.Failed, true}
	}
	return fact{"Restore", fmt.Sprintf("%d of %d", s.Rows-s.Missing-s.Changed, s.Rows), fmt.Sprintf("rows are the same, restored in %s", secondsText(s.Took)), s.wrong() != ""}
}

func secondsText(s Seconds) string {
	if s >= 100 {
		return fmt.Sprintf("%.0f s", s)
	}
	return fmt.Sprintf("%.2f s", s)
}

func backText(s Seconds) string {
	if s == 0 {
		return "not yet"
	}
	return fmt.Sprintf("%.1f s", s)
}

func andList(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// sentence is the whole in one.
func (res *Result) sentence() string {
	what := "Patroni was asked to switch over"
	if res.Command != "" {
		what = "A command took the primary away"
	}
	done := 0
	for _, rd := range res.Rounds {
		if rd.Verdict != NotRun {
			done++
		}
	}
	times := counted(done, "time")
	switch done {
	case 1:
		times = "once"
	case 2:
		times = "twice"
	}
	switch res.Verdict {
	case Passed:
		end := ", and all is in the archive."
		if res.Restore != nil {
			end = ", all is in the archive, and a restore gave back every row."
		}
		return what + " " + times + end
	case Failed:
		return what + " " + times + ", and not all is in order."
	}
	if done > 0 {
		return fmt.Sprintf("%s %s of %d; the rest was not run.", what, times, res.Wanted)
	}
	return "Nothing is said about the cluster."
}

// Text is the result for a terminal.
func (res *Result) Text() string {
	var b strings.Builder
	for _, rd := range res.Rounds {
		if rd.Verdict == NotRun {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %s\n", cutFirst(fmt.Sprintf("round %d, ", rd.No), res.Wanted < 2)+strings.ToLower(headline(rd)[:1])+headline(rd)[1:], rd.Verdict)
		for _, f := range rd.facts() {
			mark := " "
			if f.Bad {
				mark = "!"
			}
			fmt.Fprintf(&b, "%s %-28s %-9s %s\n", mark, f.Name, f.Value, f.More)
		}
		for _, n := range rd.Notes {
			fmt.Fprintf(&b, "- %s\n", n)
		}
	}
	if res.Restore != nil {
		f := res.Restore.fact()
		fmt.Fprintf(&b, "%s %-28s %-9s %s\n", map[bool]string{true: "!", false: " "}[f.Bad], f.Name, f.Value, f.More)
	}
	fmt.Fprintf(&b, "\n%s: %s\n", res.Verdict, res.sentence())
	for _, w := range res.Why {
		fmt.Fprintf(&b, "! %s\n", w)
	}
	for _, l := range res.Left {
		fmt.Fprintf(&b, "! left behind: %s\n", l)
	}
	return b.String()
}

func cutFirst(s string, cut bool) string {
	if cut {
		return ""
	}
	return s
}

// Markdown is the report as a page of text; the pictures are files beside it.
func (res *Result) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Drill of %s: %s\n\n%s\n\n", res.Cluster, res.Verdict, res.sentence())
	for _, w := range res.Why {
		fmt.Fprintf(&b, "* **%s**\n", cell(w))
	}
	for _, l := range res.Left {
		fmt.Fprintf(&b, "* **Left behind:** %s\n", cell(l))
	}
	fmt.Fprintf(&b, "\n| | |\n| --- | --- |\n| cluster | %s, system identifier %d |\n| archive | %s |\n| begun | %s, took %.0f s |\n| walbaton | %s |\n",
		cell(res.Cluster), res.SystemID, cell(res.Archive), stamp(res.Began), res.Ended.Sub(res.Began).Seconds(), cell(res.Version))
	if res.Command != "" {
		fmt.Fprintf(&b, "| command | `%s` |\n", cell(strings.ReplaceAll(res.Command, "`", "'")))
	}
	for _, rd := range res.Rounds {
		fmt.Fprintf(&b, "\n## Round %d: %s\n\n", rd.No, rd.Verdict)
		for _, w := range rd.Why {
			fmt.Fprintf(&b, "* **%s**\n", cell(w))
		}
		if rd.AskedAt.IsZero() {
			continue
		}
		fmt.Fprintf(&b, "%s.\n\n![%s](%s)\n\n| | | |\n| --- | ---: | --- |\n", headline(rd), cell(words(rd)), pictureName(rd))
		for _, f := range rd.facts() {
			fmt.Fprintf(&b, "| %s | %s%s | %s |\n", f.Name, f.Value, map[bool]string{true: " ✗", false: ""}[f.Bad], cell(f.More))
		}
		for _, n := range rd.Notes {
			fmt.Fprintf(&b, "\n* %s\n", cell(n))
		}
		b.WriteString("\n| timeline | first segment | last segment | segments | missing |\n| ---: | --- | --- | ---: | --- |\n")
		for _, l := range rd.Timelines {
			fmt.Fprintf(&b, "| %d | %s | %s | %d | %s |\n", l.Timeline, l.First, l.Last, l.Segments, some(l.Missing))
		}
	}
	if res.Restore != nil {
		f := res.Restore.fact()
		fmt.Fprintf(&b, "\n## Restore\n\n%s %s. The base backup took %s.\n", f.Value, f.More, secondsText(res.Restore.Backup))
	}
	return b.String()
}

// cell keeps a text inside of a table's cell.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "[", "\\[", "]", "\\]", "<", "&lt;").Replace(s)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func pictureName(rd Round) string { return fmt.Sprintf("round%d.svg", rd.No) }

// HTML is the report as one page that needs nothing else.
func (res *Result) HTML() (string, error) {
	t, err := template.New("page.html.tmpl").Funcs(template.FuncMap{
		"draw": func(rd Round, width int, id string) template.HTML {
			return template.HTML(Draw(rd, width, fmt.Sprintf("%s%d", id, rd.No)))
		},
		"facts":    Round.facts,
		"headline": headline,
		"seconds":  secondsText,
		"stamp":    stamp,
		"some":     some,
		"took":     func() string { return fmt.Sprintf("%.0f s", res.Ended.Sub(res.Began).Seconds()) },
		"sentence": res.sentence,
		"restored": func() fact { return res.Restore.fact() },
		"sign":     func(v Verdict) string { return map[Verdict]string{Passed: "✓", Failed: "✗", NotRun: "–"}[v] },
		"class":    func(v Verdict) string { return strings.ReplaceAll(string(v), " ", "") },
	}).ParseFS(pageFiles, "page.html.tmpl")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, res); err != nil {
		return "", fmt.Errorf("write page: %w", err)
	}
	return b.String(), nil
}

// JSON is the whole result.
func (res *Result) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(res)
	return b.Bytes(), err
}

// Write writes report.json, report.md, report.html and a picture of each round into a folder, which it makes.
func Write(dir string, res *Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer root.Close()
	all, err := res.JSON()
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	page, err := res.HTML()
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	files := map[string]string{"report.json": string(all), "report.md": res.Markdown(), "report.html": page}
	for _, rd := range res.Rounds {
		if !rd.AskedAt.IsZero() {
			files[pictureName(rd)] = Draw(rd, wide, "round")
		}
	}
	for name, text := range files {
		if err := durable.Replace(root, name, strings.NewReader(text), 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}
