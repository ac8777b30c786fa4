package main

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// drawn is what an SVG has: its texts in order, and the attributes of each element with a class.
type drawn struct {
	texts    []string
	elements []map[string]string
}

// parse reads an SVG to its end, so it is well-formed.
func parse(t *testing.T, svg string) (d drawn) {
	t.Helper()
	var inside string
	for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := dec.Token()
		if err == io.EOF {
			return d
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inside = token.Name.Local
			attributes := map[string]string{"element": inside}
			for _, a := range token.Attr {
				attributes[a.Name.Local] = a.Value
			}
			d.elements = append(d.elements, attributes)
		case xml.CharData:
			if inside == "text" || inside == "title" || inside == "desc" {
				d.texts = append(d.texts, string(token))
			}
		case xml.EndElement:
			inside = ""
		}
	}
}

func (d drawn) class(name string) (all []map[string]string) {
	for _, e := range d.elements {
		if slices.Contains(strings.Fields(e["class"]), name) {
			all = append(all, e)
		}
	}
	return all
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBarChart(t *testing.T) {
	const odd = `cp & "fsync" <raw>`
	d := parse(t, barChart("Drain to files", "segments/s", []bar{
		{Label: "walbaton", Values: []float64{60, 66, 63}, Ours: true},
		{Label: "pgBackRest", Values: []float64{31.5}},
		{Label: odd, Values: []float64{0.053, 0.055}},
		{Label: "none"},
	}))
	for _, want := range []string{"Drain to files", "segments/s", "walbaton", "63 (60 to 66)", "pgBackRest", "31.5", odd, "0.054 (0.053 to 0.055)", "none", "not measured"} {
		if !slices.Contains(d.texts, want) {
			t.Errorf("no text %q among %q", want, d.texts)
		}
	}
	ours, others := d.class("ours"), d.class("other")
	if len(ours) != 1 || len(others) != 2 {
		t.Fatalf("%d bars in the accent colour and %d others, want 1 and 2", len(ours), len(others))
	}
	if wide, half := number(t, ours[0]["width"]), number(t, others[0]["width"]); math.Abs(wide/half-2) > 0.01 {
		t.Errorf("63 is %v wide and 31.5 is %v: not twice", wide, half)
	}
	if whiskers := d.class("whisker"); len(whiskers) != 2 {
		t.Errorf("%d whiskers, want 2: one run has none", len(whiskers))
	}
}

// A long label is broken, and nothing reaches over an edge.
func TestBarChartKeepsInside(t *testing.T) {
	label := "a label that says much more than there is place for, with its settings, and what the manual recommends"
	svg := barChart(label+label, label, []bar{{Label: label, Values: []float64{123456.5, 234567.5}}, {Label: "b", Values: []float64{0}}})
	for _, e := range regexp.MustCompile(`<text class="([^"]*)" x="([^"]*)" y="([^"]*)">([^<]*)<`).FindAllStringSubmatch(svg, -1) {
		x, size := number(t, e[2]), float64(textSize)
		if e[1] == "title" {
			size = titleSize
		}
		begin, end := x, x+textWidth(e[4], size)
		if e[1] == "end" {
			begin, end = x-textWidth(e[4], size), x
		}
		if begin < 0 || end > plotWidth {
			t.Errorf("%q is from %v to %v", e[4], begin, end)
		}
	}
}

func TestLineChart(t *testing.T) {
	lines := []line{
		{Label: "measured & so", Points: []point{{1, []float64{9, 10, 11}}, {4, []float64{40}}, {16, []float64{100}}}},
		{Label: "ideal", Points: []point{{1, []float64{10}}, {16, []float64{101}}}},
	}
	for _, a := range []axes{{X: "workers", Y: "segments/s"}, {X: "workers", Y: "segments/s", LogX: true, LogY: true}} {
		d := parse(t, lineChart("Slow store", a, lines))
		for _, want := range []string{"Slow store", "workers", "segments/s", "measured & so", "ideal", "1", "4", "16"} {
			if !slices.Contains(d.texts, want) {
				t.Errorf("no text %q among %q", want, d.texts)
			}
		}
		dots := d.class("f0")
		if len(dots) != 3 || len(d.class("f1")) != 2 || len(d.class("whisker")) != 1 {
			t.Fatalf("%d and %d dots, %d whiskers", len(dots), len(d.class("f1")), len(d.class("whisker")))
		}
		one, four, sixteen := number(t, dots[0]["cx"]), number(t, dots[1]["cx"]), number(t, dots[2]["cx"])
		if want := map[bool]float64{false: 12.0 / 3, true: 1}[a.LogX]; math.Abs((sixteen-four)/(four-one)-want) > 0.02 {
			t.Errorf("1, 4 and 16 are at %v, %v and %v", one, four, sixteen)
		}
		ten, hundred := number(t, dots[0]["cy"]), number(t, dots[2]["cy"])
		if ten <= hundred {
			t.Errorf("10 is at %v, which is not below 100 at %v", ten, hundred)
		}
		var at []float64
		for _, e := range d.elements {
			if e["element"] == "text" && e["class"] == "" {
				at = append(at, number(t, e["y"]))
			}
		}
		if len(at) != 2 || math.Abs(at[0]-at[1]) < lineHeight {
			t.Errorf("the labels of the lines are at %v: they overlap", at)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, test := range []struct {
		values []float64
		log    bool
		want   []float64
	}{
		{nil, false, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{[]float64{3, 97}, false, []float64{0, 20, 40, 60, 80, 100}},
		{[]float64{0.29}, false, []float64{0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3}},
		{[]float64{0, 0}, false, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{[]float64{1000, 1e6}, true, []float64{1e3, 1e4, 1e5, 1e6}},
		{[]float64{3, 40}, true, []float64{2, 5, 10, 20, 50}},
		{[]float64{0, 7}, true, []float64{5, 10}},
		{[]float64{10}, true, []float64{10, 20}},
	} {
		got := newRuler(test.values, test.log).ticks
		if !slices.EqualFunc(got, test.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
			t.Errorf("ticks of %v, logarithmic %v: %v, want %v", test.values, test.log, got, test.want)
		}
	}
}

func TestTickText(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.1 * 3: "0.3", 12.5: "12.5", 999: "999", 1000: "1,000", 1e6: "1,000,000", -1234.5: "-1,234.5", 1e-3: "0.001"} {
		if got := tickText(v); got != want {
			t.Errorf("tickText(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestApart(t *testing.T) {
	for _, test := range []struct{ places, want []float64 }{
		{nil, nil},
		{[]float64{50}, []float64{50}},
		{[]float64{50, 10}, []float64{50, 10}},
		{[]float64{50, 48, 49}, []float64{84, 48, 66}},
		{[]float64{100, 99}, []float64{100, 82}},
		{[]float64{90, 80, 99}, []float64{82, 64, 100}},
	} {
		if got := apart(test.places, 18, 100); !slices.Equal(got, test.want) {
			t.Errorf("apart(%v) = %v, want %v", test.places, got, test.want)
		}
	}
}

func TestDecimals(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   string
	}{
		{[]float64{63, 60.4, 66}, "63.0 (60.4 to 66.0)"},
		{[]float64{63, 60, 66}, "63 (60 to 66)"},
		{[]float64{514.4}, "514"},
		{[]float64{0, 0.25, 0}, "0.00 (0.00 to 0.25)"},
		{[]float64{0.253}, "0.25"},
		{[]float64{0.00123}, "0.0012"},
		{[]float64{2.5}, "2.50"},
	} {
		if got := (bar{Values: test.values}).value(); got != test.want {
			t.Errorf("%v is written as %q, want %q", test.values, got, test.want)
		}
	}
}
