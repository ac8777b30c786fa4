package main

import (
	"fmt"
	"strings"
)

// pens are what a drawing on a terminal is made of.
type pens struct {
	line, branch, hole, known, down, fork, tip, floor rune
}

var (
	unicodePens = pens{'━', '─', '╳', '░', '│', '└', '▶', '▼'}
	asciiPens   = pens{'=', '-', 'X', 'x', '|', '`', '>', 'v'}
)

// pensFor says whether the terminal knows more than ASCII, as locale(7) has it.
func pensFor(getenv func(string) string) pens {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(getenv(name)); v != "" {
			if strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8") {
				return unicodePens
			}
			return asciiPens
		}
	}
	return asciiPens
}

// text draws the picture on lines whose middle part is width letters wide.
func (p picture) text(pen pens, width int) string {
	label := len("timeline")
	for _, r := range p.rows {
		label = max(label, len(fmt.Sprint(uint32(r.timeline))))
	}
	var b strings.Builder
	from, to := p.lo.String(), p.hi.String()
	fmt.Fprintf(&b, "%-*s  %s%*s\n", label, "timeline", from, max(width-len(from), len(to)+1), to)
	if len(p.floors) > 0 {
		marks := blank(width)
		for _, f := range p.floors {
			marks[min(p.at(f, width), width-1)] = pen.floor
		}
		fmt.Fprintf(&b, "%*s  %s\n", label, "", strings.TrimRight(string(marks), " "))
	}
	lines := p.lines(pen, width)
	for i, r := range p.rows {
		fmt.Fprintf(&b, "%*d  %-*s  %s\n", label, r.timeline, width, string(lines[i]), strings.Join(r.notes, ", "))
	}
	b.WriteString("\n" + p.legend(pen))
	return b.String()
}

// lines draws the rows.
func (p picture) lines(pen pens, width int) [][]rune {
	out := make([][]rune, len(p.rows))
	for i, r := range p.rows {
		out[i] = blank(width)
		body := pen.branch
		if r.onLine {
			body = pen.line
		}
		first, last := min(p.at(r.begin, width), width-1), min(p.at(r.end, width), width)
		if r.begin < r.end {
			last = max(last, first+1)
		}
		for c := first; c < last; c++ {
			out[i][c] = body
		}
		for _, m := range r.marks {
			sign := pen.hole
			if m.known {
				sign = pen.known
			}
			at := min(p.at(m.from, width), width-1)
			for c := at; c < max(at+1, min(p.at(m.to, width), width)); c++ {
				out[i][c] = sign
			}
		}
		if r.newest && last > first+1 && len(r.marks) == 0 || r.newest && last > first+1 && out[i][last-1] == body {
			out[i][last-1] = pen.tip
		}
		if r.parent < 0 {
			continue
		}
		at := min(p.at(r.fork, width), width-1)
		out[i][at] = pen.fork
		for k := r.parent + 1; k < i; k++ {
			if out[k][at] == ' ' {
				out[k][at] = pen.down
			}
		}
	}
	return out
}

func (p picture) legend(pen pens) string {
	drawn := map[string]string{
		"line": string([]rune{pen.line, pen.line, pen.tip}), "branch": string([]rune{pen.branch, pen.branch}), "hole": string(pen.hole), "known": string(pen.known), "floor": string(pen.floor),
	}
	var parts []string
	for _, s := range p.signs() {
		parts = append(parts, drawn[s.class]+" "+s.text)
	}
	return strings.Join(parts, "   ") + "\n"
}

func blank(n int) []rune {
	r := make([]rune, n)
	for i := range r {
		r[i] = ' '
	}
	return r
}
