package monitoring

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Replay is a recording up to the end of one of its steps, of which the last moment is then held. Time begins at 0, as in every test of promtool.
type Replay struct {
	Step   string                                // the last one; "" for all
	Before time.Duration                         // the first moment is held for so long before
	After  time.Duration                         // and the last one afterwards
	Fires  []string                              // the alerts that fire in the end, and no others, sorted
	Either []string                              // those that may fire or not
	Quiet  bool                                  // and none of them ever did
	Change func(series string, values []float64) // of what was recorded, where a drill cannot make it happen; nil: nothing
}

// Check has promtool replay the recording with the rules below root. The error says what promtool says.
func (r *Recording) Check(ctx context.Context, root string, p Replay) error {
	rules, err := filepath.Abs(filepath.Join(root, RulesFile))
	if err != nil {
		return err
	}
	test, err := r.test(rules, p)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "walbaton-rules-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "test.yaml")
	if err := os.WriteFile(file, []byte(test), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		return fmt.Errorf("promtool test rules: %w\n%s", err, out)
	}
	return nil
}

// test is the recording as a test of promtool.
func (r *Recording) test(rules string, p Replay) (string, error) {
	end := r.length
	if p.Step != "" {
		i := slices.IndexFunc(r.Steps, func(s Step) bool { return s.Name == p.Step })
		if i < 0 {
			return "", fmt.Errorf("the recording has no step %q", p.Step)
		}
		if i+1 < len(r.Steps) {
			end = r.Steps[i+1].At
		}
	}
	before, after := int(p.Before/r.Every), int(p.After/r.Every)
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 30s\ntests:\n- interval: %v\n  input_series:\n", rules, r.Every)
	for _, name := range slices.Sorted(maps.Keys(r.Series)) {
		values := slices.Clone(r.Series[name][:end])
		if strings.Contains(name, "_timestamp_seconds{") {
			r.shift(values, p.Before)
		}
		if p.Change != nil {
			p.Change(name, values)
		}
		fmt.Fprintf(&b, "  - series: '%s'\n    values: '%s'\n", name, held(values, before, after, slope(name, values, r.Every)))
	}
	at := time.Duration(before+end+after-1) * r.Every
	fmt.Fprintf(&b, "  promql_expr_test:\n  - expr: group by (alertname) (ALERTS{alertstate=\"firing\", alertname!~\"%s\"})\n    eval_time: %s\n    exp_samples: [%s]\n",
		strings.Join(p.Either, "|"), at, samples(p.Fires))
	if p.Quiet {
		fmt.Fprintf(&b, "  - expr: group by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[%v]))\n    eval_time: %s\n    exp_samples: []\n", at, at)
	}
	return b.String(), nil
}

// shift moves points in time to where the recording is in a test; 0 means never.
func (r *Recording) shift(values []float64, before time.Duration) {
	for i, v := range values {
		if v > 0 {
			values[i] = v - float64(r.Begin.Unix()) + before.Seconds()
		}
	}
}

// slope is by how much a value grows from one scrape to the next after the last one: an age that grew all the time goes on. One that is a second for a
// moment, as on every node that writes, does not.
func slope(name string, values []float64, every time.Duration) float64 {
	const steps = 3
	if !strings.Contains(name, "_age_seconds{") || len(values) <= steps {
		return 0
	}
	for i := len(values) - steps; i < len(values); i++ {
		if grown := values[i] - values[i-1]; math.IsNaN(grown) || grown < every.Seconds()/2 {
			return 0
		}
	}
	return every.Seconds()
}

// held writes values in promtool's words, the first one many times before and the last one many times after. Where a target stops answering, or to have a
// series, Prometheus marks that.
func held(values []float64, before, after int, slope float64) string {
	var words []string
	was := math.NaN()
	add := func(v float64, n int, slope float64) {
		if n <= 0 {
			return
		}
		switch {
		case !math.IsNaN(v) && !math.IsInf(v, 0):
			words = append(words, fmt.Sprintf("%s+%sx%d", text(v), text(slope), n-1))
		case math.IsInf(v, 0):
			words = append(words, slices.Repeat([]string{text(v)}, n)...)
		case math.IsNaN(was):
			words = append(words, fmt.Sprintf("_x%d", n))
		default:
			words = append(words, "stale")
			if n > 1 {
				words = append(words, fmt.Sprintf("_x%d", n-1))
			}
		}
		was = v
	}
	add(values[0], before, 0)
	for _, v := range values {
		add(v, 1, 0)
	}
	add(values[len(values)-1]+slope, after, slope)
	return strings.Join(words, " ")
}

func samples(alerts []string) string {
	var all []string
	for _, a := range alerts {
		all = append(all, fmt.Sprintf("{labels: '{alertname=%q}', value: 1}", a))
	}
	return strings.Join(all, ", ")
}
