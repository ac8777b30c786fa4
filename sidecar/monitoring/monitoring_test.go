package monitoring

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// file gives the text of a file of the checkout.
func file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func rules(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func dashboard(t *testing.T) Dashboard {
	t.Helper()
	d, err := ReadDashboard(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// known are the labels of each metric in docs/metrics.md, which TestMetricsPage holds to the code, and those that all have.
func known(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{"up": target, "process_resident_memory_bytes": everywhere}
	for line := range strings.Lines(file(t, "docs/metrics.md")) {
		cells := strings.Split(line, "|")
		if len(cells) != 8 || !strings.HasPrefix(cells[1], " `walbaton_") {
			continue
		}
		labels := slices.Clone(everywhere)
		for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[4], -1) {
			labels = append(labels, m[1])
		}
		name := strings.Trim(cells[1], " `")
		if strings.TrimSpace(cells[2]) == "histogram" {
			all[name+"_bucket"], name = append(labels, "le"), name+"_count"
		}
		all[name] = labels
	}
	return all
}

var (
	target     = []string{"job", "instance", "namespace"} // what Prometheus adds, or its operator does
	everywhere = append([]string{"scope", "member"}, target...)
)

// isKnown says what is wrong with the metrics and labels of a query.
func isKnown(t *testing.T, where, query string) {
	t.Helper()
	metrics, labels := known(t), slices.Clone(everywhere)
	found := Selectors(query)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %s", where, query)
	}
	for _, s := range found {
		has, ok := metrics[s.Metric]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, s.Metric)
		}
		labels = append(labels, has...)
		for _, l := range s.Labels {
			if !slices.Contains(has, l) {
				t.Errorf("%s: %s has no label %s", where, s.Metric, l)
			}
		}
	}
	for _, l := range Grouped(query) {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: no metric in it has the label %s", where, l)
		}
	}
}

func TestSelectors(t *testing.T) {
	query := `max by (scope, row) (rate(walbaton_x_total{scope=~"$scope", row!="1"}[5m])) unless on (job) up == 0`
	got := fmt.Sprint(Selectors(query), Grouped(query))
	if want := "[{walbaton_x_total [row scope]} {up []}] [job row scope]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Every rule says how bad it is, since when, in plain words, and where to read on; and that page exists and is in docs/monitoring.md.
func TestRulesFile(t *testing.T) {
	all := rules(t)
	overview := file(t, "docs/monitoring.md")
	var names []string
	for _, r := range all {
		names = append(names, r.Alert)
		isKnown(t, r.Alert, r.Expr)
		severity := r.Labels["severity"]
		if len(r.Labels) != 1 || severity != "critical" && severity != "warning" || r.For == "" {
			t.Errorf("%s: labels %v, for %q", r.Alert, r.Labels, r.For)
		}
		if len(r.Annotations) != 3 || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
		}
		page := "docs/runbooks/" + r.Alert + ".md"
		if want := "https://github.com/walbaton/walbaton/blob/main/" + page; r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
		text := file(t, page)
		for _, part := range []string{"# " + r.Alert + "\n", "**What it says.** ", "**Look"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q", page, part)
			}
		}
		if row := fmt.Sprintf("\n| [%s](runbooks/%s.md) | %s | ", r.Alert, r.Alert, severity); !strings.Contains(overview, row) {
			t.Errorf("docs/monitoring.md lacks %q", row)
		}
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs/runbooks/*.md"))
	if err != nil || len(pages) != len(all) {
		t.Errorf("%d pages for %d alerts, %v", len(pages), len(all), err)
	}
	if slices.Sort(names); len(slices.Compact(names)) != len(all) {
		t.Error("two alerts have one name")
	}
}

// The dashboard is what Grafana takes: panels with numbers of their own that lie beside each other, queries for the chosen Prometheus and the chosen
// clusters, and of metrics and labels that there are.
func TestDashboard(t *testing.T) {
	d := dashboard(t)
	if d.UID != "walbaton" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schema %d", d.UID, d.Title, d.SchemaVersion)
	}
	ids, taken := map[int]string{}, map[[2]int]string{}
	chosen := Datasource{"prometheus", "${datasource}"}
	kinds := []string{"row", "stat", "timeseries", "state-timeline", "heatmap"}
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice || p.ID < 1 {
			t.Errorf("%s has the number %d of %s", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Title == "" || !slices.Contains(kinds, p.Type) {
			t.Errorf("panel %d: title %q, type %q", p.ID, p.Title, p.Type)
		}
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.X+g.W > 24 || g.H < 1 {
			t.Errorf("%s lies at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, twice := taken[[2]int{x, y}]; twice {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || *p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("%s: from %v, %d queries", p.Title, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if q.Datasource != chosen || q.LegendFormat == "" || q.RefID == "" || refs[q.RefID] {
				t.Errorf("%s: query %+v", p.Title, q)
			}
			refs[q.RefID] = true
		}
	}
	for _, q := range d.Queries() {
		isKnown(t, q, q)
		for _, s := range Selectors(q) {
			if !slices.Contains(s.Labels, "scope") || !slices.Contains(s.Labels, "namespace") {
				t.Errorf("%s: %s is of all clusters", q, s.Metric)
			}
		}
		for _, v := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(q, -1) {
			if !slices.ContainsFunc(d.Templating.List, func(have Variable) bool { return have.Name == v[1] }) && !strings.HasPrefix(v[1], "__") {
				t.Errorf("%s: there is no variable %s", q, v[1])
			}
		}
	}
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type == "query" && (v.Datasource == nil || *v.Datasource != chosen) {
			t.Errorf("the variable %s is from %v", v.Name, v.Datasource)
		}
		if v.Type == "query" {
			isKnown(t, v.Name, v.Definition)
		}
	}
	if want := []string{"datasource", "namespace", "scope", "member"}; !slices.Equal(names, want) {
		t.Errorf("variables %v, want %v", names, want)
	}
}

func TestRecording(t *testing.T) {
	r := NewRecording(time.Unix(1000, 0), 2*time.Second)
	all := func(string) bool { return true }
	add := func(texts map[string]string) {
		t.Helper()
		if err := r.Add(texts, all); err != nil {
			t.Fatal(err)
		}
	}
	r.Step("calm")
	add(map[string]string{"n1": "# HELP x\nx{a=\"b c\"} 1\ny 2.5e+00\n", "n2": ""})
	add(map[string]string{"n1": "x{a=\"b c\"} +Inf\ny 2.5\n", "n2": "y 7\n"})
	r.Step("it dies")
	add(map[string]string{"n1": "", "n2": "y 7\n"})
	var first, again strings.Builder
	if _, err := r.WriteTo(&first); err != nil {
		t.Fatal(err)
	}
	want := `every 2s
begin 1000
length 3
step 0 calm
step 2 it dies
up{instance="n1",job="walbaton"} 1x2 0
up{instance="n2",job="walbaton"} 0 1x2
x{a="b c",instance="n1",job="walbaton"} 1 Inf _
y{instance="n1",job="walbaton"} 2.5x2 _
y{instance="n2",job="walbaton"} _ 7x2
`
	if first.String() != want {
		t.Errorf("got\n%swant\n%s", first.String(), want)
	}
	back, err := ReadRecording(strings.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.WriteTo(&again); err != nil || again.String() != want {
		t.Errorf("read and written again: %v\n%s", err, again.String())
	}
	for _, bad := range []string{"every x\n", "length 2\nup{} 1x3\n", "length 1\nup{} 1x\n", "length 1\nup{} one\n"} {
		if _, err := ReadRecording(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// What is held grows only if it is an age; what stops is marked as Prometheus marks it; times are moved to where the test has them.
func TestHeld(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tc := range []struct {
		values        []float64
		before, after int
		slope         float64
		want          string
	}{
		{[]float64{1, 2}, 0, 0, 0, "1+0x0 2+0x0"},
		{[]float64{1, 2}, 3, 2, 5, "1+0x2 1+0x0 2+0x0 7+5x1"},
		{[]float64{nan, 1, nan}, 2, 4, 0, "_x2 _x1 1+0x0 stale _x4"},
		{[]float64{inf}, 1, 2, 0, "Inf Inf Inf Inf"},
	} {
		if got := held(tc.values, tc.before, tc.after, tc.slope); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.values, got, tc.want)
		}
	}
	r := NewRecording(time.Unix(1000, 0), time.Second)
	values := []float64{0, 990, 1005, nan}
	if r.shift(values, time.Minute); fmt.Sprint(values) != "[0 50 65 NaN]" {
		t.Errorf("shifted to %v", values)
	}
	for _, tc := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{`x_age_seconds{a="b"}`, []float64{0, 1, 3, 5}, 2},
		{`x_age_seconds{a="b"}`, []float64{1, 0, 1, 3}, 0},
		{`x_age_seconds{a="b"}`, []float64{math.NaN(), 1, 3, 5}, 0},
		{`x_age_seconds{a="b"}`, []float64{3, 5}, 0},
		{`x{a="b"}`, []float64{0, 1, 3, 5}, 0},
	} {
		if got := slope(tc.name, tc.values, 2*time.Second); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
}
