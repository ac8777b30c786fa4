package rehearsal

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver/wal"
)

// The widths of a drawing, in pixels: one for screens, one for phones. Text is as large on both.
const (
	wide   = 960
	narrow = 360
)

// drawStyle has the colours for light and for dark. Nothing is told by colour alone: what is different has another shape, too.
const drawStyle = `
    .d-text { font: 13px system-ui, sans-serif; fill: #1b1f24; }
    .d-text, .d-bad { paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }
    .d-soft { font: 12px system-ui, sans-serif; fill: #57606a; }
    .d-bad { font: 600 12px system-ui, sans-serif; fill: #cf222e; }
    .d-in { font: 600 11px system-ui, sans-serif; fill: #ffffff; }
    .d-ground { fill: #ffffff; }
    .d-grid { stroke: #d8dee4; stroke-width: 1; }
    .d-event { stroke: #57606a; stroke-width: 1; stroke-dasharray: 3 3; }
    .d-out { fill: #cf222e; fill-opacity: .1; }
    .d-primary { fill: #0969da; }
    .d-baton { fill: #bf8700; }
    .d-row { fill: #1a7f37; }
    .d-fail { stroke: #cf222e; stroke-width: 2; fill: none; }
    .d-file { fill: #8250df; }
    .d-hollow { fill: #ffffff; stroke: #8250df; stroke-width: 1.5; }
    .d-way { stroke: #8250df; stroke-width: 1.5; }
    @media (prefers-color-scheme: dark) {
      .d-text, .d-bad { stroke: #0d1117; }
      .d-text { fill: #e6edf3; }
      .d-soft { fill: #9198a1; }
      .d-bad { fill: #ff7b72; }
      .d-in { fill: #0d1117; }
      .d-ground { fill: #0d1117; }
      .d-grid { stroke: #262c36; }
      .d-event { stroke: #9198a1; }
      .d-out { fill: #ff7b72; fill-opacity: .16; }
      .d-primary { fill: #58a6ff; }
      .d-baton { fill: #e3b341; }
      .d-row { fill: #3fb950; }
      .d-fail { stroke: #ff7b72; }
      .d-file { fill: #bc8cff; }
      .d-hollow { fill: #0d1117; stroke: #bc8cff; }
      .d-way { stroke: #bc8cff; }
    }
`

// drawing is a picture while it is drawn, from top to bottom.
type drawing struct {
	strings.Builder
	rd          Round
	width       int
	left, right float64 // of the time axis
	y           int     // where the next lane begins
	top         int     // where the lanes begin
}

// Draw draws one round: who was primary, who held the baton, the rows, and each file as it reached the archive, over time. It is a whole SVG file, with a
// title and a description for those who listen; id makes its names unique in a page.
func Draw(rd Round, width int, id string) string {
	d := &drawing{rd: rd, width: width, left: 150, right: float64(width - 20)}
	if width < 600 {
		d.left, d.right = 12, float64(width-12)
	}
	d.y = 12
	d.events()
	d.axis()
	for _, m := range rd.Trace.Members {
		d.member(m)
	}
	d.rows()
	for _, t := range d.timelines() {
		d.archive(t)
	}
	lanes := d.y
	d.legend()
	body := d.String()
	d.Reset()
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="%s-title %s-desc">`+"\n", width, d.y, width, d.y, id, id)
	fmt.Fprintf(d, "  <title id=\"%s-title\">%s</title>\n  <desc id=\"%s-desc\">%s</desc>\n  <style>%s  </style>\n", id, escape(headline(rd)), id, escape(words(rd)), drawStyle)
	fmt.Fprintf(d, `  <rect class="d-ground" width="%d" height="%d"/>`+"\n", width, d.y)
	if from, to := d.x(rd.NoWritesFrom), d.x(rd.NoWritesTo); rd.NoWrites() > 0 {
		fmt.Fprintf(d, `  <rect class="d-out" x="%.1f" y="%d" width="%.1f" height="%d"><title>%.2f s without writes</title></rect>`+"\n", from, d.top, max(to-from, 1), lanes-d.top, rd.NoWrites())
	}
	d.WriteString(body + "</svg>\n")
	return d.String()
}

// x is where a moment is.
func (d *drawing) x(s Seconds) float64 {
	tr := d.rd.Trace
	if tr.To <= tr.From {
		return d.left
	}
	share := float64(s-tr.From) / float64(tr.To-tr.From)
	return d.left + min(max(share, 0), 1)*(d.right-d.left)
}

func (d *drawing) text(class string, x float64, y int, anchor, s string) {
	if anchor != "" {
		anchor = fmt.Sprintf(` text-anchor=%q`, anchor)
	}
	fmt.Fprintf(d, `  <text class=%q x="%.1f" y="%d"%s>%s</text>`+"\n", class, x, y, anchor, escape(s))
}

// event is a moment with a name.
type event struct {
	at   Seconds
	what string
	bad  bool
}

func (rd Round) events() (all []event) {
	asked := "switchover asked for"
	if rd.ByCommand {
		asked = "the command took the primary away"
	}
	all = append(all, event{0, asked, false})
	if rd.Promoted > 0 {
		all = append(all, event{rd.Promoted, fmt.Sprintf("%s is the primary, timeline %d", rd.To, rd.NewTimeline), false})
	}
	if rd.NoWrites() > 0 {
		all = append(all, event{rd.NoWritesTo, fmt.Sprintf("writes again, after %.2f s without", rd.NoWrites()), true})
	}
	if rd.Shipped > 0 {
		what := fmt.Sprintf("first segment archived, %.2f s after the promotion", rd.ShippedAfter())
		all = append(all, event{rd.Shipped, what, false})
	}
	slices.SortStableFunc(all, func(a, b event) int { return int(math.Round(float64(a.at-b.at) * 1000)) })
	return all
}

// events writes the moments that count, each on a line of its own, and draws a line down from it through all lanes.
func (d *drawing) events() {
	all := d.rd.events()
	d.top = d.y + 16*len(all) + 24
	bottom := d.top + d.height()
	for _, e := range all {
		x := d.x(e.at)
		d.y += 16
		class := "d-text"
		if e.bad {
			class = "d-bad"
		}
		fmt.Fprintf(d, `  <line class="d-event" x1="%.1[1]f" y1="%[2]d" x2="%.1[1]f" y2="%[3]d"/>`+"\n", x, d.y-10, bottom)
		text := fmt.Sprintf("%+.1f s  %s", e.at, e.what)
		if e.at == 0 {
			text = e.what
		}
		switch room := 6.3 * float64(len(text)); {
		case x+6+room <= float64(d.width)-8:
			d.text(class, x+6, d.y, "", text)
		case x-6-room >= 0:
			d.text(class, x-6, d.y, "end", text)
		default:
			d.text(class, 6, d.y, "", text)
		}
	}
	d.y += 8
}

// axis writes the seconds.
func (d *drawing) axis() {
	tr := d.rd.Trace
	d.y += 14
	step := 1.0
	for _, s := range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600} {
		step = s
		if float64(tr.To-tr.From)/s*56 <= d.right-d.left {
			break
		}
	}
	for t := math.Ceil(float64(tr.From)/step) * step; t <= float64(tr.To); t += step {
		x := d.x(Seconds(t))
		fmt.Fprintf(d, `  <line class="d-grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, d.top, x, d.top+d.height())
		label := fmt.Sprintf("%+.0f s", t)
		if t == 0 {
			label = "0"
		}
		d.text("d-soft", x, d.y, "middle", label)
	}
	d.y = d.top
}

// The heights of the lanes, in pixels, without the line for the label that each has on a phone.
const (
	memberLane  = 34
	rowsLane    = 50
	archiveLane = 38
	labelLine   = 17
)

func (d *drawing) label() int {
	if d.width < 600 {
		return labelLine
	}
	return 0
}

// height is that of all lanes.
func (d *drawing) height() int {
	m, t := len(d.rd.Trace.Members), len(d.timelines())
	return m*memberLane + rowsLane + t*archiveLane + (m+1+t)*d.label()
}

// lane begins one, and gives its first y.
func (d *drawing) lane(name, what string, height int) int {
	y := d.y
	fmt.Fprintf(d, `  <line class="d-grid" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", 12, y, d.width-12, y)
	if d.label() > 0 {
		if what != "" {
			what = " · " + what
		}
		d.text(class(what, "d-text"), 12, y+14, "", name+what)
	} else {
		if what == "" {
			d.text("d-text", 16, y+height/2+5, "", name)
		} else {
			d.text("d-text", 16, y+height/2-2, "", name)
			d.text(class(what, "d-soft"), 16, y+height/2+13, "", what)
		}
	}
	d.y += height + d.label()
	return y + d.label()
}

// class is that of a text which cries when something is wrong.
func class(text, usual string) string {
	if strings.HasSuffix(text, "!") {
		return "d-bad"
	}
	return usual
}

// member draws when one was the primary, and when it held the baton.
func (d *drawing) member(name string) {
	y := d.lane(name, "", memberLane)
	fmt.Fprintf(d, `  <line class="d-grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", d.left, y+11, d.right, y+11)
	for _, s := range d.rd.Trace.Primaries {
		if s.Who == name {
			from, to := d.x(s.From), d.x(s.To)
			fmt.Fprintf(d, `  <rect class="d-primary" x="%.1f" y="%d" width="%.1f" height="15" rx="3"><title>%s is the primary on timeline %d, %s</title></rect>`+"\n",
				from, y+4, max(to-from, 3), escape(name), s.Timeline, s.span())
			if label := fmt.Sprintf("primary, timeline %d", s.Timeline); to-from > 130 {
				d.text("d-in", from+7, y+15, "", label)
			} else if to-from > 56 {
				d.text("d-in", from+7, y+15, "", "primary")
			}
		}
	}
	for _, s := range d.rd.Trace.Batons {
		if s.Who == name {
			from, to := d.x(s.From), d.x(s.To)
			fmt.Fprintf(d, `  <rect class="d-baton" x="%.1f" y="%d" width="%.1f" height="6" rx="3"><title>%s holds the baton, term %d, %s</title></rect>`+"\n",
				from, y+22, max(to-from, 3), escape(name), s.Term, s.span())
		}
	}
}

func (s Span) span() string { return fmt.Sprintf("%+.1f s to %+.1f s", s.From, s.To) }

// rows draws how many were acknowledged, and which writes failed.
func (d *drawing) rows() {
	r := d.rd.Rows
	what := fmt.Sprintf("%d acknowledged", r.Acknowledged)
	if r.Lost > 0 {
		what = fmt.Sprintf("%d lost!", r.Lost)
	}
	y := d.lane("rows", what, rowsLane)
	most := 1
	for _, w := range d.rd.Trace.Writes {
		most = max(most, w.Acknowledged)
	}
	base, full := y+rowsLane-12, float64(rowsLane-20)
	width := max(d.x(d.rd.Trace.From+seconds(bucket))-d.x(d.rd.Trace.From)-.6, 1)
	for _, w := range d.rd.Trace.Writes {
		x := d.x(w.At)
		if w.Acknowledged > 0 {
			h := full * float64(w.Acknowledged) / float64(most)
			fmt.Fprintf(d, `  <rect class="d-row" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", x, float64(base)-h, width, h)
		}
		if w.Failed > 0 {
			fmt.Fprintf(d, `  <path class="d-fail" d="M%.1f %d l5 5 m0 -5 l-5 5"><title>%s failed, %+.1f s</title></path>`+"\n", x+width/2-2.5, base+3, counted(w.Failed, "write"), w.At)
		}
	}
}

// timelines are those of which a file came, or should have.
func (d *drawing) timelines() (all []wal.Timeline) {
	for _, l := range d.rd.Timelines {
		all = append(all, l.Timeline)
	}
	for _, f := range d.rd.Trace.Files {
		if !slices.Contains(all, f.Timeline) {
			all = append(all, f.Timeline)
		}
	}
	slices.Sort(all)
	return all
}

// archive draws each file of a timeline as it reached the archive, with the way from when the segment was ended.
func (d *drawing) archive(t wal.Timeline) {
	what := ""
	for _, l := range d.rd.Timelines {
		if l.Timeline == t && len(l.Missing) > 0 {
			what = fmt.Sprintf("lacks %d!", len(l.Missing))
		} else if l.Timeline == t {
			what = counted(l.Segments, "segment")
		}
	}
	name := fmt.Sprintf("timeline %d", t)
	y := d.lane(name, what, archiveLane) + archiveLane/2
	if d.label() > 0 {
		y -= 4
	}
	for _, f := range d.rd.Trace.Files {
		if f.Timeline != t {
			continue
		}
		x, title := d.x(f.Arrived), fmt.Sprintf("<title>%s is in the archive, %+.1f s</title>", f.Name, f.Arrived)
		if f.Ended != nil {
			fmt.Fprintf(d, `  <line class="d-way" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", d.x(*f.Ended), y, x, y)
		}
		switch {
		case strings.HasSuffix(f.Name, ".history"):
			fmt.Fprintf(d, `  <path class="d-hollow" d="M%.1f %d l5 5 l-5 5 l-5 -5 z">%s</path>`+"\n", x, y-16, title) // above, for it comes with the first segment
		case len(f.Name) > 24: // .partial, .backup
			fmt.Fprintf(d, `  <circle class="d-hollow" cx="%.1f" cy="%d" r="3.5">%s</circle>`+"\n", x, y, title)
		default:
			fmt.Fprintf(d, `  <circle class="d-file" cx="%.1f" cy="%d" r="4.5">%s</circle>`+"\n", x, y, title)
		}
	}
}

// legend explains the signs.
func (d *drawing) legend() {
	fmt.Fprintf(d, `  <line class="d-grid" x1="12" y1="%d" x2="%d" y2="%d"/>`+"\n", d.y, d.width-12, d.y)
	d.y += 22
	x := 16.0
	print := func(format string, args ...any) { fmt.Fprintf(d, "  "+format+"\n", args...) }
	for _, s := range []struct {
		text string
		sign func(x float64, y int) // y is the middle
	}{
		{"primary", func(x float64, y int) {
			print(`<rect class="d-primary" x="%.1f" y="%d" width="18" height="12" rx="3"/>`, x, y-6)
		}},
		{"holds the baton", func(x float64, y int) {
			print(`<rect class="d-baton" x="%.1f" y="%d" width="18" height="6" rx="3"/>`, x, y-3)
		}},
		{"rows acknowledged", func(x float64, y int) {
			print(`<path class="d-row" d="M%.1f %d h4 v12 h-4 z m6 3 h4 v9 h-4 z m6 -2 h4 v11 h-4 z"/>`, x, y-6)
		}},
		{"write failed", func(x float64, y int) { print(`<path class="d-fail" d="M%.1f %d l6 6 m0 -6 l-6 6"/>`, x+6, y-3) }},
		{"segment ended, and archived", func(x float64, y int) {
			print(`<line class="d-way" x1="%.1[1]f" y1="%[3]d" x2="%.1[2]f" y2="%[3]d"/><circle class="d-file" cx="%.1[2]f" cy="%[3]d" r="4.5"/>`, x, x+14, y)
		}},
		{"history file", func(x float64, y int) { print(`<path class="d-hollow" d="M%.1f %d l6 6 l-6 6 l-6 -6 z"/>`, x+12, y-6) }},
		{".partial, .backup", func(x float64, y int) { print(`<circle class="d-hollow" cx="%.1f" cy="%d" r="3.5"/>`, x+12, y) }},
	} {
		room := 26 + 6.3*float64(len(s.text)) + 16
		if x+room > float64(d.width) {
			x = 16
			d.y += 20
		}
		s.sign(x, d.y-4)
		d.text("d-soft", x+26, d.y, "", s.text)
		x += room
	}
	d.y += 14
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
