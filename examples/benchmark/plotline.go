package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// How a line chart is divided, in pixels. Labels of lines stand at their right ends.
const (
	chartHeight = 300
	endWidth    = 200 // a longer label is broken
	dot         = 3.5
	colours     = 5 // of plotStyle: s0 to s4
)

// lineChart draws lines through the medians of their points; each point has a line from its smallest run to its largest. The first line
// has the accent colour, and the others have dashes of their own, for those who do not see the colours.
func lineChart(title string, a axes, lines []line) string {
	d, top := newDrawing(title, a.Y)
	var xs, ys []float64
	right := 0.0
	for _, l := range lines {
		for _, p := range l.Points {
			xs, ys = append(xs, p.X), append(ys, p.Values...)
		}
		for _, part := range broken(l.Label, endWidth, textSize) {
			right = max(right, textWidth(part, textSize))
		}
	}
	x, y := newRuler(xs, a.LogX), newRuler(ys, a.LogY)
	left := 0.0
	for _, v := range y.ticks {
		left = max(left, textWidth(tickText(v), softSize))
	}
	x.from, x.to = margin+left+8, plotWidth-margin-right-34
	y.from, y.to = top+chartHeight, top+6
	d.grid(a, x, y, xs)
	for i, l := range slices.Backward(lines) { // the first one last, so that no other hides it
		d.line(i%colours, l, x, y)
	}
	d.labels(lines, x, y)
	return d.svg(y.from+2*lineHeight+margin, title, described(a, lines))
}

// grid draws the ticks of both axes, and says what they show.
func (d *drawing) grid(a axes, x, y ruler, measured []float64) {
	for _, v := range y.ticks {
		d.printf(`<path class="grid" d="M%s %sH%s"/>`, px(x.from), px(y.at(v)), px(x.to))
		d.text("soft end", x.from-8, y.at(v)+softSize*0.36, tickText(v))
	}
	end := math.Inf(-1)
	for _, v := range x.places(measured) {
		if half := textWidth(tickText(v), softSize) / 2; x.at(v)-half >= end+8 {
			d.printf(`<path class="axis" d="M%s %sv5"/>`, px(x.at(v)), px(y.from))
			d.text("soft mid", x.at(v), y.from+lineHeight, tickText(v))
			end = x.at(v) + half
		}
	}
	d.printf(`<path class="axis" d="M%s %sH%s"/>`, px(x.from), px(y.from), px(x.to))
	d.text("soft mid", (x.from+x.to)/2, y.from+2*lineHeight+2, a.X)
}

// line draws one.
func (d *drawing) line(colour int, l line, x, y ruler) {
	var path []string
	for _, p := range l.Points {
		if len(p.Values) > 0 {
			path = append(path, px(x.at(p.X))+" "+px(y.at(median(p.Values))))
		}
	}
	if len(path) == 0 {
		return
	}
	dashes := []string{"", "7 5", "2 4", "10 4 2 4", "5 3"}[colour]
	d.printf(`<path class="line s%d" stroke-dasharray="%s" d="M%s"/>`, colour, dashes, strings.Join(path, "L"))
	for _, p := range l.Points {
		if len(p.Values) == 0 {
			continue
		}
		at := px(x.at(p.X))
		if least, most := y.at(slices.Min(p.Values)), y.at(slices.Max(p.Values)); len(p.Values) > 1 {
			d.printf(`<path class="whisker" d="M%[1]s %[2]sV%[3]sm-4 0h8M%[1]s %[2]sm-4 0h8"/>`, at, px(least), px(most))
		}
		d.printf(`<circle class="f%d" cx="%s" cy="%s" r="%v"/>`, colour, at, px(y.at(median(p.Values))), dot)
	}
}

// labels writes them at the right, each as high as its line ends there, but apart; a thin line leads from one to the other.
func (d *drawing) labels(lines []line, x, y ruler) {
	var rows [][]string
	var ends, places []float64
	for _, l := range lines {
		end := y.from
		if points := withValues(l.Points); len(points) > 0 {
			end = y.at(median(points[len(points)-1].Values))
		}
		rows, ends, places = append(rows, broken(l.Label, endWidth, textSize)), append(ends, end), append(places, end)
	}
	most := 1
	for _, r := range rows {
		most = max(most, len(r))
	}
	distance := float64(most) * lineHeight
	places = apart(places, distance, y.from-float64(most-1)*lineHeight)
	for i, l := range lines {
		points := withValues(l.Points)
		if len(points) > 0 {
			d.printf(`<path class="lead s%d" d="M%s %sL%s %s"/>`, i%colours, px(x.at(points[len(points)-1].X)+dot), px(ends[i]), px(x.to+24), px(places[i]))
		}
		for j, part := range rows[i] {
			d.text("", x.to+28, places[i]+float64(j)*lineHeight+textSize*0.36, part)
		}
	}
}

func withValues(points []point) []point {
	return slices.DeleteFunc(slices.Clone(points), func(p point) bool { return len(p.Values) == 0 })
}

// described is the chart in words.
func described(a axes, lines []line) string {
	text := fmt.Sprintf("Lines of %s over %s.", a.Y, a.X)
	for _, l := range lines {
		var said []string
		for _, p := range l.Points {
			said = append(said, fmt.Sprintf("%s at %s", bar{Values: p.Values}.value(), tickText(p.X)))
		}
		text += " " + l.Label + ": " + strings.Join(said, "; ") + "."
	}
	return text
}

// ruler maps values to pixels.
type ruler struct {
	log       bool
	low, high float64 // values, at from and to
	from, to  float64 // pixels
	ticks     []float64
}

// newRuler is one that has room for all values: from 0, or the tick below the smallest, to the tick above the largest.
func newRuler(values []float64, log bool) ruler {
	r := ruler{log: log, low: 0, high: 1}
	if log {
		values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v <= 0 })
		r.low = 0.1
	}
	if len(values) > 0 {
		r.low, r.high = slices.Min(values), slices.Max(values)
	}
	if log {
		return r.logarithmic()
	}
	r.low = min(0, r.low)
	if r.high <= r.low {
		r.high = r.low + 1
	}
	power := math.Pow(10, math.Floor(math.Log10((r.high-r.low)/5)))
	step := 10 * power
	for _, times := range []float64{1, 2, 5} {
		if (r.high-r.low)/(times*power) <= 6 {
			step = times * power
			break
		}
	}
	first, last := math.Floor(r.low/step), math.Ceil(r.high/step-1e-9)
	for i := first; i <= last; i++ {
		r.ticks = append(r.ticks, i*step)
	}
	r.low, r.high = first*step, last*step
	return r
}

// logarithmic has ticks at powers of ten; where there are few of them, at 2 and 5 times those, too.
func (r ruler) logarithmic() ruler {
	first, last := math.Floor(math.Log10(r.low)+1e-9), math.Ceil(math.Log10(r.high)-1e-9)
	times := []float64{1}
	if last-first < 3 {
		times = []float64{1, 2, 5}
	}
	var all []float64
	for power := first; power <= last; power++ {
		for _, t := range times {
			all = append(all, t*math.Pow(10, power))
		}
	}
	const near = 1e-9
	begin, end := 0, len(all)-1
	for begin+1 < len(all) && all[begin+1] <= r.low*(1+near) {
		begin++
	}
	for end > begin+1 && all[end-1] >= r.high*(1-near) {
		end--
	}
	r.ticks = all[begin : end+1]
	r.low, r.high = r.ticks[0], r.ticks[len(r.ticks)-1]
	if r.high <= r.low {
		r.high = 10 * r.low
	}
	return r
}

// at is where a value is. A logarithmic axis has no place for 0: it is drawn at the axis' low end.
func (r ruler) at(v float64) float64 {
	share := (v - r.low) / (r.high - r.low)
	if r.log {
		share = max(0, math.Log(max(v, r.low)/r.low)/math.Log(r.high/r.low))
	}
	return r.from + share*(r.to-r.from)
}

// places are the ticks; or, where few places were measured, those: a tick is then where a point is.
func (r ruler) places(measured []float64) []float64 {
	distinct := slices.Compact(slices.Sorted(slices.Values(measured)))
	if r.log {
		distinct = slices.DeleteFunc(distinct, func(v float64) bool { return v <= 0 })
	}
	if len(distinct) == 0 || len(distinct) > 8 {
		return r.ticks
	}
	return distinct
}

// tickText is a number with commas, as 100,000, and without zeros at its end.
func tickText(v float64) string {
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if rounded := strconv.FormatFloat(v, 'g', 12, 64); !strings.Contains(rounded, "e") {
		text = rounded // 0.30000000000000004 is a step of 0.1
	}
	whole, fraction, ok := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if ok {
		return whole + "." + fraction
	}
	return whole
}
