package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// bar is one measured thing of a bar chart: its runs, drawn as their median, with a line from the smallest to the largest.
type bar struct {
	Label  string
	Values []float64
	Ours   bool // walbaton's: in the accent colour
}

// line is one line of a line chart.
type line struct {
	Label  string
	Points []point
}

// point has one place on the x axis, and the runs that were measured there.
type point struct {
	X      float64
	Values []float64
}

// axes says how a line chart's axes are.
type axes struct {
	X, Y       string // what they show, with the unit
	LogX, LogY bool
}

// The measures of a plot, in pixels.
const (
	plotWidth   = 800
	margin      = 20
	titleSize   = 16
	textSize    = 13
	softSize    = 12 // ticks, and what an axis shows
	lineHeight  = 18
	labelWidth  = 250 // a longer label of a bar is broken
	barHeight   = 20
	barDistance = 12
)

// plotStyle has each colour twice. There are no variables in it: not every program that shows an SVG knows them.
const plotStyle = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933; }
  .title { font-size: 16px; font-weight: 600; }
  .soft { font-size: 12px; fill: #5b6875; }
  .end { text-anchor: end; }
  .mid { text-anchor: middle; }
  .page { fill: #ffffff; }
  .grid { stroke: #dde3e9; }
  .axis { stroke: #8a96a3; }
  .ours { fill: #b45309; }
  .other { fill: #9fb0c0; }
  .whisker { stroke: #1f2933; stroke-width: 1.5; fill: none; }
  .line { fill: none; stroke-width: 2.5; }
  .lead { fill: none; stroke-width: 1; }
  .s0 { stroke: #b45309; } .s1 { stroke: #2563a8; } .s2 { stroke: #1f7a54; } .s3 { stroke: #7b4bb0; } .s4 { stroke: #5b6875; }
  .f0 { fill: #b45309; } .f1 { fill: #2563a8; } .f2 { fill: #1f7a54; } .f3 { fill: #7b4bb0; } .f4 { fill: #5b6875; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .soft { fill: #9aa7b4; }
    .page { fill: #0d1117; }
    .grid { stroke: #232b34; }
    .axis { stroke: #6b7885; }
    .ours { fill: #d98a2b; }
    .other { fill: #4b5a69; }
    .whisker { stroke: #e6edf3; }
    .s0 { stroke: #f0b35b; } .s1 { stroke: #6cb0f5; } .s2 { stroke: #4cc38a; } .s3 { stroke: #b794f0; } .s4 { stroke: #9aa7b4; }
    .f0 { fill: #f0b35b; } .f1 { fill: #6cb0f5; } .f2 { fill: #4cc38a; } .f3 { fill: #b794f0; } .f4 { fill: #9aa7b4; }
  }
`

// barChart draws horizontal bars from 0 on, in the order given. What a bar says stands beside it in numbers, too.
func barChart(title, unit string, bars []bar) string {
	d, y := newDrawing(title, unit)
	left, right, largest := 0.0, 0.0, 0.0
	var said []string
	for _, b := range bars {
		for _, part := range broken(b.Label, labelWidth, textSize) {
			left = max(left, textWidth(part, textSize))
		}
		right = max(right, textWidth(b.value(), textSize))
		if len(b.Values) > 0 {
			largest = max(largest, slices.Max(b.Values))
		}
		said = append(said, b.Label+": "+b.value())
	}
	begin := margin + left + 10
	long := plotWidth - margin - begin - right - 10
	at := func(v float64) float64 {
		if largest <= 0 {
			return begin
		}
		return begin + max(0, v)/largest*long
	}
	top := y
	for _, b := range bars {
		y = d.bar(b, begin, y, at)
	}
	d.printf(`<path class="axis" d="M%s %sV%s"/>`, px(begin), px(top-4), px(y-barDistance+4))
	return d.svg(y-barDistance+margin, title, unit+". "+strings.Join(said, "; ")+".")
}

// bar draws one, and gives where the next begins.
func (d *drawing) bar(b bar, begin, y float64, at func(float64) float64) float64 {
	label := broken(b.Label, labelWidth, textSize)
	height := max(barHeight, float64(len(label)*lineHeight))
	middle := y + height/2
	for i, part := range label {
		d.text("end", begin-10, middle+float64(i)*lineHeight-float64(len(label)-1)*lineHeight/2+textSize*0.36, part)
	}
	class, end := "other", begin
	if b.Ours {
		class = "ours"
	}
	if len(b.Values) > 0 {
		end = at(slices.Max(b.Values))
		d.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%d"/>`, class, px(begin), px(middle-barHeight/2), px(at(median(b.Values))-begin), barHeight)
	}
	if len(b.Values) > 1 {
		least := at(slices.Min(b.Values))
		d.printf(`<path class="whisker" d="M%[1]s %[3]sV%[4]sM%[1]s %[5]sH%[2]sM%[2]s %[3]sV%[4]s"/>`, px(least), px(end), px(middle-4), px(middle+4), px(middle))
	}
	d.text("", end+8, middle+textSize*0.36, b.value())
	return y + height + barDistance
}

// value is what a bar says: 34.5 (33.9 to 35.2).
func (b bar) value() string {
	if len(b.Values) == 0 {
		return "not measured"
	}
	return spread(decimals(b.Values), b.Values)
}

// decimals is the format for numbers like these: of their median, two or three digits that say something.
func decimals(values []float64) string {
	whole := !slices.ContainsFunc(values, func(v float64) bool { return v != math.Trunc(v) })
	switch v := math.Abs(median(values)); {
	case whole || v >= 100:
		return "%.0f"
	case v >= 10:
		return "%.1f"
	case v >= 1 || v == 0:
		return "%.2f"
	default:
		return fmt.Sprintf("%%.%df", 1-int(math.Floor(math.Log10(v))))
	}
}

// drawing is an SVG that is being made.
type drawing struct{ body strings.Builder }

// newDrawing has the title and the soft line below it, and gives how far down it is free.
func newDrawing(title, unit string) (d *drawing, y float64) {
	d, y = &drawing{}, margin
	for _, part := range broken(title, plotWidth-2*margin, titleSize) {
		y += lineHeight
		d.text("title", margin, y-4, part)
		y += 2
	}
	for _, part := range broken(unit, plotWidth-2*margin, softSize) {
		y += lineHeight
		d.text("soft", margin, y-4, part)
	}
	return d, y + 14
}

func (d *drawing) printf(format string, args ...any) {
	fmt.Fprintf(&d.body, format+"\n", args...)
}

func (d *drawing) text(class string, x, y float64, text string) {
	d.printf(`<text class="%s" x="%s" y="%s">%s</text>`, class, px(x), px(y), escape(text))
}

// svg is the whole file. Its background is its own, so that it can be read on any page. Who cannot see it has desc.
func (d *drawing) svg(height float64, title, desc string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]s" width="%[1]d" height="%[2]s" role="img" aria-labelledby="t d">
<title id="t">%[3]s</title>
<desc id="d">%[4]s</desc>
<style>%[5]s</style>
<rect class="page" width="%[1]d" height="%[2]s"/>
%[6]s</svg>
`, plotWidth, px(math.Ceil(height)), escape(title), escape(desc), plotStyle, d.body.String())
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder never fails
	return b.String()
}

// px is a number of pixels, with at most one decimal.
func px(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// broken breaks a text at its spaces where a line would be wider than that many pixels.
func broken(text string, width, size float64) (lines []string) {
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last >= 0 && textWidth(lines[last]+" "+word, size) <= width {
			lines[last] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}

// textWidth is about how wide a text is, rather too much than too little: fonts differ, and nothing here knows which one is used.
func textWidth(text string, size float64) (width float64) {
	for _, r := range text {
		switch {
		case strings.ContainsRune("ijl.,:;'|!()[]/ft ", r):
			width += 0.40
		case strings.ContainsRune("mwMW%@", r):
			width += 1.0
		case r >= 'A' && r <= 'Z':
			width += 0.76
		default:
			width += 0.64
		}
	}
	return width * size
}

// median of one or more values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// apart moves places downwards and upwards until each is at least distance from the next, and none is below last. They stay in their order.
func apart(places []float64, distance, last float64) []float64 {
	order := make([]int, len(places))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(places[a], places[b]) })
	moved := slices.Clone(places)
	for i, at := range order[min(1, len(order)):] {
		moved[at] = max(moved[at], moved[order[i]]+distance)
	}
	for i, at := range slices.Backward(order) {
		limit := last
		if i+1 < len(order) {
			limit = moved[order[i+1]] - distance
		}
		moved[at] = min(moved[at], limit)
	}
	return moved
}
