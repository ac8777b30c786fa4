package monitoring

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Recording is what a Prometheus would have of a cluster: series, with a value for each scrape.
type Recording struct {
	Every  time.Duration // between two scrapes
	Begin  time.Time     // of the first
	Steps  []Step
	Series map[string][]float64 // by name and labels; NaN where a scrape did not have it. All are as long as there were scrapes
	length int
}

// Step begins at a scrape, and goes on until the next one begins.
type Step struct {
	Name string
	At   int
}

// NewRecording begins one.
func NewRecording(begin time.Time, every time.Duration) *Recording {
	return &Recording{Every: every, Begin: begin, Series: map[string][]float64{}}
}

// Len is the number of scrapes.
func (r *Recording) Len() int { return r.length }

// Step begins a step with the next scrape.
func (r *Recording) Step(name string) { r.Steps = append(r.Steps, Step{name, r.length}) }

// Add takes one scrape: the text of each target by its instance, "" for one that did not answer. Of each the metrics are kept that want names, with the
// labels job and instance, which Prometheus adds, and `up`.
func (r *Recording) Add(texts map[string]string, want func(metric string) bool) error {
	now := map[string]float64{}
	for instance, text := range texts {
		target := fmt.Sprintf(`instance=%q,job="walbaton"`, instance)
		now["up{"+target+"}"] = 0
		if text == "" {
			continue
		}
		now["up{"+target+"}"] = 1
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			series, number, ok := cutLast(line, ' ')
			value, err := strconv.ParseFloat(number, 64)
			if !ok || err != nil {
				return fmt.Errorf("read metrics of %s: %q", instance, line)
			}
			name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
			if !want(name) {
				continue
			}
			if labels != "" {
				labels += ","
			}
			now[name+"{"+labels+target+"}"] = value
		}
	}
	for s := range now {
		if _, ok := r.Series[s]; !ok {
			r.Series[s] = slices.Repeat([]float64{math.NaN()}, r.length)
		}
	}
	r.length++
	for s := range r.Series {
		v, ok := now[s]
		if !ok {
			v = math.NaN()
		}
		r.Series[s] = append(r.Series[s], v)
	}
	return nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// WriteTo writes the recording as text: a line for each step and series, equal values in one word.
//
//	every 2s
//	begin 1764370000
//	length 60
//	step 12 a switchover
//	up{instance="n1",job="walbaton"} 1x40 0x3 1x17
func (r *Recording) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "every %v\nbegin %d\nlength %d\n", r.Every, r.Begin.Unix(), r.length)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "step %d %s\n", s.At, s.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Series)) {
		b.WriteString(name)
		values := r.Series[name]
		for i := 0; i < len(values); {
			n := 1
			for i+n < len(values) && same(values[i], values[i+n]) {
				n++
			}
			fmt.Fprintf(&b, " %s", text(values[i]))
			if n > 1 {
				fmt.Fprintf(&b, "x%d", n)
			}
			i += n
		}
		b.WriteString("\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// text is a value as promtool reads it, too: "_" for none.
func text(v float64) string {
	switch {
	case math.IsNaN(v):
		return "_"
	case math.IsInf(v, 1):
		return "Inf"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// ReadRecording reads what WriteTo wrote.
func ReadRecording(in io.Reader) (*Recording, error) {
	r := &Recording{Series: map[string][]float64{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch word {
		case "every":
			r.Every, err = time.ParseDuration(rest)
		case "begin":
			var unix int64
			unix, err = strconv.ParseInt(rest, 10, 64)
			r.Begin = time.Unix(unix, 0)
		case "length":
			r.length, err = strconv.Atoi(rest)
		case "step":
			at, name, _ := strings.Cut(rest, " ")
			s := Step{Name: name}
			s.At, err = strconv.Atoi(at)
			r.Steps = append(r.Steps, s)
		default:
			err = r.readSeries(lines.Text())
		}
		if err != nil {
			return nil, fmt.Errorf("read recording: %q: %w", lines.Text(), err)
		}
	}
	return r, lines.Err()
}

func (r *Recording) readSeries(line string) error {
	name, words, _ := strings.Cut(line, "} ")
	name += "}"
	for word := range strings.FieldsSeq(words) {
		number, times, many := strings.Cut(word, "x")
		n := 1
		if many {
			var err error
			if n, err = strconv.Atoi(times); err != nil {
				return err
			}
		}
		v := math.NaN()
		if number != "_" {
			var err error
			if v, err = strconv.ParseFloat(number, 64); err != nil {
				return err
			}
		}
		r.Series[name] = append(r.Series[name], slices.Repeat([]float64{v}, n)...)
	}
	if got := len(r.Series[name]); got != r.length {
		return fmt.Errorf("%d values, want %d", got, r.length)
	}
	return nil
}
