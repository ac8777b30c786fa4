package main

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/walbaton/walbaton/archiver/wal"
)

// The measures of the drawing, in pixels.
const (
	svgWidth  = 1120
	svgLeft   = 170 // where the scale begins, and where it ends
	svgRight  = 760
	svgTop    = 84 // of the first row
	svgRow    = 34
	svgBar    = 12
	svgNarrow = 3 // the narrowest hole
)

// svgStyle has the colours for light and for dark, without variables: not every viewer knows those. Holes differ from the rest by their shape, too.
const svgStyle = `
    text { font: 13px system-ui, sans-serif; fill: #1b1f24; }
    .ground { fill: #ffffff; }
    .line { fill: #0969da; }
    .branch { fill: #8c959f; }
    .hole { fill: #ffffff; stroke: #cf222e; stroke-width: 2; }
    .known { fill: #ffffff; stroke: #9a6700; stroke-width: 2; stroke-dasharray: 3 2; }
    .fork { fill: none; stroke: #57606a; stroke-width: 1.5; }
    .rule { stroke: #d0d7de; stroke-width: 1; }
    .floor { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .soft { fill: #57606a; font-size: 12px; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .ground { fill: #0d1117; }
      .line { fill: #58a6ff; }
      .branch { fill: #6e7681; }
      .hole { fill: #0d1117; stroke: #ff7b72; }
      .known { fill: #0d1117; stroke: #d29922; }
      .fork { stroke: #9198a1; }
      .rule { stroke: #30363d; }
      .floor { stroke: #9198a1; }
      .soft { fill: #9198a1; }
    }
`

// svg draws the picture as a file of its own, with a title and a description for those who listen.
func (p picture) svg() string {
	var b strings.Builder
	height := svgTop + svgRow*len(p.rows) + 50
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc">`+"\n", svgWidth, height, svgWidth, height)
	fmt.Fprintf(&b, "  <title id=\"title\">Timelines of %s</title>\n  <desc id=\"desc\">%s</desc>\n  <style>%s  </style>\n", escape(p.title), escape(p.words()), svgStyle)
	fmt.Fprintf(&b, `  <rect class="ground" width="%d" height="%d"/>`+"\n", svgWidth, height)
	fmt.Fprintf(&b, `  <text x="20" y="28">%s</text>`+"\n", escape(shorten(p.title, 130)))
	fmt.Fprintf(&b, `  <text class="soft" x="%d" y="58">%v</text>`+"\n", svgLeft, p.lo)
	fmt.Fprintf(&b, `  <text class="soft" x="%d" y="58" text-anchor="end">%v</text>`+"\n", svgRight, p.hi)
	fmt.Fprintf(&b, `  <line class="rule" x1="%d" y1="66" x2="%d" y2="66"/>`+"\n", svgLeft, svgRight)
	for _, f := range p.floors {
		fmt.Fprintf(&b, `  <line class="floor" x1="%[1]d" y1="60" x2="%[1]d" y2="%[2]d"><title>floor %[3]v: nothing is promised to the left of it</title></line>`+"\n", p.x(f), height-46, f)
	}
	for i := range p.rows {
		p.svgFork(&b, i)
	}
	for i := range p.rows {
		p.svgBar(&b, i)
	}
	p.svgLegend(&b, height-18)
	b.WriteString("</svg>\n")
	return b.String()
}

// svgFork draws the way from a parent to the i-th row.
func (p picture) svgFork(b *strings.Builder, i int) {
	r := p.rows[i]
	if r.parent < 0 {
		return
	}
	fmt.Fprintf(b, `  <path class="fork" d="M%d %d V%d"/>`+"\n", p.x(r.fork), rowY(r.parent)+svgBar, rowY(i)+svgBar)
}

func (p picture) svgBar(b *strings.Builder, i int) {
	r, y := p.rows[i], rowY(i)
	class := "branch"
	if r.onLine {
		class = "line"
	}
	fmt.Fprintf(b, `  <g><title>%s</title>`+"\n", escape(r.words()))
	fmt.Fprintf(b, `    <text x="20" y="%d">timeline %d</text>`+"\n", y+svgBar-1, r.timeline)
	from, to := p.x(r.begin), p.x(r.end)
	if r.begin < r.end {
		to = max(to, from+svgNarrow)
		fmt.Fprintf(b, `    <rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="2"/>`+"\n", class, from, y, to-from, svgBar)
	} else if r.parent >= 0 {
		fmt.Fprintf(b, `    <circle class="%s" cx="%d" cy="%d" r="4"/>`+"\n", class, from, y+svgBar/2)
	}
	if r.newest {
		fmt.Fprintf(b, `    <path class="%s" d="M%d %d l10 %d l-10 %d z"/>`+"\n", class, to, y-3, svgBar/2+3, svgBar/2+3)
	}
	for _, m := range r.marks {
		class := "hole"
		if m.known {
			class = "known"
		}
		at := p.x(m.from)
		fmt.Fprintf(b, `    <rect class="%s" x="%d" y="%d" width="%d" height="%d"><title>%v to %v are missing</title></rect>`+"\n",
			class, at, y-2, max(p.x(m.to)-at, svgNarrow), svgBar+4, m.from, m.to)
	}
	lines := wrap(r.notes, 46)
	for k, s := range lines {
		fmt.Fprintf(b, `    <text class="soft" x="%d" y="%d">%s</text>`+"\n", svgRight+24, y+svgBar-1+14*k-7*(len(lines)-1), escape(s))
	}
	b.WriteString("  </g>\n")
}

// svgLegend explains the signs that occur.
func (p picture) svgLegend(b *strings.Builder, y int) {
	x := svgLeft
	for _, s := range p.signs() {
		if s.class == "floor" {
			fmt.Fprintf(b, `  <line class="floor" x1="%[1]d" y1="%[2]d" x2="%[1]d" y2="%[3]d"/>`+"\n", x+8, y-12, y+2)
		} else {
			fmt.Fprintf(b, `  <rect class="%s" x="%d" y="%d" width="18" height="10"/>`+"\n", s.class, x, y-10)
		}
		fmt.Fprintf(b, `  <text class="soft" x="%d" y="%d">%s</text>`+"\n", x+26, y, escape(s.text))
		x += 44 + 7*len(s.text)
	}
}

func rowY(i int) int { return svgTop + i*svgRow }

func (p picture) x(l wal.LSN) int { return svgLeft + min(p.at(l, svgRight-svgLeft), svgRight-svgLeft) }

// wrap puts words on at most two lines of some n letters.
func wrap(words []string, n int) []string {
	lines := []string{""}
	for i, w := range words {
		if i < len(words)-1 {
			w += ","
		}
		last := len(lines) - 1
		if lines[last] != "" && last == 0 && len(lines[0])+1+len(w) > n {
			lines = append(lines, w)
			continue
		}
		lines[last] = strings.TrimSpace(lines[last] + " " + w)
	}
	return lines
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// shorten takes the middle out of a long text.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n/2]) + "…" + string(r[len(r)-(n-n/2-1):])
}
