// Package monitoring holds what people load into Prometheus and Grafana, the rules and the dashboard in helm/walbaton/files, to what sidecars say and
// to what happened to them.
//
//	a drill's /metrics ── Add ──▶ Recording ── Check ──▶ promtool: which alerts fire, and which do not
//	alerts.yaml, dashboard.json ── Selectors ──▶ metrics and labels that the sidecars must have
//
// A [Recording] is every series that the rules name, as a Prometheus would have scraped it from all nodes of a real cluster, in steps that say what was
// done to it. promtool replays it. Alerts wait longer than a drill takes, so the last moment of a step is held: every value stays, and an age grows.
//
// Only tests use this package.
package monitoring

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The files, from the top of the checkout.
const (
	RulesFile     = "helm/walbaton/files/alerts.yaml"
	DashboardFile = "helm/walbaton/files/dashboard.json"
)

// Rule is one alert of the rules file.
type Rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// Rules reads the rules file below root. A key that Prometheus does not have is an error.
func Rules(root string) ([]Rule, error) {
	f, err := os.Open(filepath.Join(root, RulesFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []Rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("read %s: %w", RulesFile, err)
	}
	var all []Rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}

// Selector is one metric that a query reads, and the labels that it names for it.
type Selector struct {
	Metric string
	Labels []string // of its matchers, sorted
}

var selector = regexp.MustCompile(`\b(walbaton_[a-z_]+|up|process_[a-z_]+|go_[a-z_]+)\b(?:\{([^}]*)\})?`)

// Selectors finds the metrics in a query by how their names begin, each of ours, of the Go runtime and of the process, and `up`.
func Selectors(query string) []Selector {
	var all []Selector
	matcher := regexp.MustCompile(`([a-zA-Z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	for _, m := range selector.FindAllStringSubmatch(query, -1) {
		s := Selector{Metric: m[1]}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			s.Labels = append(s.Labels, l[1])
		}
		slices.Sort(s.Labels)
		all = append(all, s)
	}
	return all
}

// Grouped are the labels that a query names in by, without, on, ignoring, group_left and group_right, sorted.
func Grouped(query string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`).FindAllStringSubmatch(query, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			if l = strings.TrimSpace(l); l != "" {
				all = append(all, l)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
