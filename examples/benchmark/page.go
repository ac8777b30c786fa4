package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed page.md.tmpl
var pageText string

// measured is a part as it was saved.
type measured[T any] struct {
	Machine machine
	Result  []T
}

// page writes benchmark.md from the raw numbers. A part that was never measured is missing in it.
func (b *bench) page() error {
	var drains measured[drain]
	var pushes measured[push]
	var handovers measured[handover]
	var counts measured[count]
	var restores measured[restored]
	var verifies measured[verified]
	var raw []string
	for name, into := range map[string]any{"drain": &drains, "push": &pushes, "handover": &handovers, "requests": &counts, "restore": &restores, "verify": &verifies} {
		text, err := os.ReadFile(filepath.Join(b.docs, "benchmark", name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return err
		}
		raw = append(raw, name+".json")
	}
	slices.Sort(raw)
	t, err := template.New("page").Funcs(template.FuncMap{
		"spread": spread, "p50": p50, "p99": p99, "machines": machines, "noise": noise, "next": func(i int) int { return i + 1 }, "requests": requests, "mb": mb, "groups": groups, "restoreGroups": restoreGroups, "verifyGroups": verifyGroups, "column": column,
	}).Parse(pageText)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{"Drain": drains, "Push": pushes, "Handover": handovers, "Requests": counts, "Restore": restores, "Verify": verifies, "Idle": idle.Seconds(), "Raw": raw})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.docs, "benchmark.md"), text.Bytes(), 0o644)
}

// group is the drains with the same place and codec.
type group struct {
	Place, Codec string
	Runs         []drain
}

func groups(all []drain) (gs []group) {
	for _, d := range all {
		i := slices.IndexFunc(gs, func(g group) bool { return g.Place == d.Place && g.Codec == d.Codec })
		if i < 0 {
			gs = append(gs, group{Place: d.Place, Codec: d.Codec})
			i = len(gs) - 1
		}
		gs[i].Runs = append(gs[i].Runs, d)
	}
	slices.SortStableFunc(gs, func(a, b group) int { return cmp.Compare(b.Codec, a.Codec) })
	return gs
}

// values of a group, one a run.
func (g group) values(of func(drain) float64) []float64 {
	var all []float64
	for _, d := range g.Runs {
		all = append(all, of(d))
	}
	return all
}

func (g group) Seconds() []float64 {
	return g.values(func(d drain) float64 { return d.Seconds })
}
func (g group) Rate() []float64 {
	return g.values(func(d drain) float64 { return float64(d.Segments) / d.Seconds })
}
func (g group) CPU() []float64 { // of the sidecar, milliseconds a segment
	return g.values(func(d drain) float64 { return 1000 * (d.User + d.System) / float64(d.Segments) })
}
func (g group) Store() []float64 { // of MinIO, milliseconds a segment
	return g.values(func(d drain) float64 { return 1000 * d.Store / float64(d.Segments) })
}
func (g group) Anon() []float64 {
	return g.values(func(d drain) float64 { return float64(d.PeakAnon >> 20) })
}
func (g group) RSS() []float64 {
	return g.values(func(d drain) float64 { return float64(d.PeakRSS >> 20) })
}
func (g group) Stored() []float64 {
	return g.values(func(d drain) float64 { return float64(d.Stored >> 20) })
}

// PerCall is the sidecar's CPU time in milliseconds for one call.
func (p push) PerCall() float64 { return 1000 * p.Sidecar / float64(len(p.Push)) }

// PerSegment is how many bytes were received for each segment.
func (c count) PerSegment() float64 { return c.Received / float64(c.Segments) }

// column is one of the times of all hand-overs.
func column(all []handover, name string) (values []float64) {
	for _, h := range all {
		values = append(values, map[string]float64{"Baton": h.Baton, "Exists": h.Exists, "FirstPut": h.FirstPut}[name])
	}
	return values
}

// spread is the median, with minimum and maximum when there is more than one value.
func spread(format string, values []float64) string {
	if len(values) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	text := fmt.Sprintf(format, middle)
	if len(sorted) > 1 {
		text += fmt.Sprintf(" ("+format+" to "+format+")", sorted[0], sorted[len(sorted)-1])
	}
	return text
}

// quantile of sorted values, by nearest rank.
func quantile[T any](sorted []T, q float64) T {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// p50 and p99 are in milliseconds, of microseconds.
func p50(us []int64) float64 { return float64(quantile(slices.Sorted(slices.Values(us)), 0.50)) / 1000 }
func p99(us []int64) float64 { return float64(quantile(slices.Sorted(slices.Values(us)), 0.99)) / 1000 }

func mb(bytes int64) int64 { return bytes >> 20 }

// machines says where the parts were measured: once, when all were on one machine with the same programs.
func machines(parts ...machine) string {
	var all []string
	for _, m := range parts {
		if m.Cores == 0 {
			continue // not measured
		}
		var programs []string
		for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
			if name != "walbaton" {
				programs = append(programs, m.Versions[name])
			}
		}
		text := fmt.Sprintf("%d cores (%s), %d MB of memory, Linux %s; %s.", m.Cores, m.CPU, m.MemoryMB, m.Kernel, strings.Join(programs, ", "))
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, "\n")
}

// noise says in plain words whether the machine was quiet.
func noise(drains []drain, pushes []push, handovers []handover, restores []restored) string {
	var others, before []float64
	for _, d := range drains {
		others, before = append(others, d.Load.Others), append(before, d.Load.Before)
	}
	for _, p := range pushes {
		others, before = append(others, p.Load.Others), append(before, p.Load.Before)
	}
	for _, h := range handovers {
		before = append(before, h.Load.Before)
	}
	for _, r := range restores {
		before = append(before, r.Load.Before)
	}
	if len(before) == 0 {
		return ""
	}
	text := fmt.Sprintf("The load average before a run was %s.", spread("%.1f", before))
	if len(others) > 0 && slices.Max(others) > 0.2 {
		text = "**The machine was not quiet: other work ran on it.** " + text +
			fmt.Sprintf(" During drains and pushes that other work used %s cores.", spread("%.2f", others)) +
			" Read the times as upper bounds: they measure the other work, too."
	}
	return text
}

// requests of a node: all of them, and for each segment.
func requests(c count) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.Requests)) {
		n := c.Requests[name]
		text := fmt.Sprintf("%s: %.0f", name, n)
		if c.Segments > 0 {
			text += fmt.Sprintf(" (%.2f)", n/float64(c.Segments))
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
