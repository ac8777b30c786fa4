package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Style is how findings are printed.
type Style struct {
	Color bool
	Width int // columns; 0 is 100
}

// Print writes for people: by group, a line for each finding and its fix below it, and how many there are of each kind.
func Print(w io.Writer, f Facts, all []Finding, s Style) error {
	if s.Width == 0 {
		s.Width = 100
	}
	var b strings.Builder
	group, check := "", ""
	for i, x := range all {
		if x.Level == Unexamined && i > 0 && all[i-1].Group == x.Group && all[i-1].Text == x.Text && all[i-1].Level == Unexamined {
			continue // once is enough
		}
		if x.Group != group {
			group, check = x.Group, ""
			fmt.Fprintf(&b, "%s%s\n", mark(b.Len() > 0, "\n"), s.paint("1", group))
		}
		name := x.Check
		if name == check {
			name = ""
		}
		check = x.Check
		if x.Level == Unexamined && i+1 < len(all) && all[i+1].Group == x.Group && all[i+1].Text == x.Text {
			name += "…"
		}
		fmt.Fprintf(&b, "  %s %-*s  %s\n", s.paint(x.Level.color(), x.Level.mark()), nameWidth, name, s.wrap(x.Text, texts))
		if x.Fix != "" {
			fmt.Fprintf(&b, "%*s%s\n", texts, "", s.paint("36", "→ ")+s.fix(x.Fix, texts+2))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", Summary(all))
	_, err := io.WriteString(w, b.String())
	return err
}

const (
	nameWidth = 17
	texts     = 2 + 2 + nameWidth + 2 // the column where they begin
)

// Summary is the last line.
func Summary(all []Finding) string {
	bad, warn := Count(all, Broken), Count(all, Warning)
	s := fmt.Sprintf("%d ✓, %d !, %d ✗", Count(all, OK), warn, bad)
	if k := Count(all, Unexamined); k > 0 {
		s += fmt.Sprintf(", %d not examined", k)
	}
	switch {
	case bad > 0:
		return s + ": something is broken. Begin with the first ✗"
	case warn > 0:
		return s + ": it works, and could fail you"
	}
	return s + ": all is well"
}

func mark(yes bool, s string) string {
	if yes {
		return s
	}
	return ""
}

func (l Level) mark() string {
	switch l {
	case OK:
		return "✓"
	case Warning:
		return "!"
	case Broken:
		return "✗"
	}
	return "-"
}

// color is the number of a terminal's color.
func (l Level) color() string {
	switch l {
	case OK:
		return "32"
	case Warning:
		return "33"
	case Broken:
		return "31"
	}
	return "2"
}

func (s Style) paint(color, text string) string {
	if !s.Color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// wrap breaks a text at blanks, for lines that begin after so many columns; a word that is longer than a line stays whole.
func (s Style) wrap(text string, begin int) string {
	room := max(s.Width-begin, 20)
	var b strings.Builder
	at := 0
	for i, w := range strings.Fields(text) {
		k := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case at+1+k > room:
			b.WriteString("\n" + strings.Repeat(" ", begin))
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += k
	}
	return b.String()
}

// fix prints words wrapped, and what is to be typed as it is.
func (s Style) fix(text string, begin int) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if !strings.HasPrefix(l, "  ") {
			l = s.wrap(l, begin)
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", begin))
}

// Report is what --json prints.
type Report struct {
	Time     time.Time `json:"time"`
	Version  string    `json:"version"`
	Cluster  string    `json:"cluster,omitempty"`
	Member   string    `json:"member,omitempty"`
	Level    Level     `json:"level"` // the worst of all
	OK       int       `json:"ok"`
	Warnings int       `json:"warnings"`
	Broken   int       `json:"broken"`
	Findings []Finding `json:"findings"`
}

// PrintJSON writes a Report.
func PrintJSON(w io.Writer, f Facts, all []Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(Report{f.Now.UTC(), f.Version, f.Scope, f.Member, Worst(all), Count(all, OK), Count(all, Warning), Count(all, Broken), all})
}

// text writes a value of Patroni's dynamic configuration as PostgreSQL would read it.
func text(v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "on"
		}
		return "off"
	case string:
		return v
	}
	return fmt.Sprint(v)
}
