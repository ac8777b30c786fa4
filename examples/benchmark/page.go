package main

import (
	"bytes"
	"embed"
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

//go:embed page/*.md.tmpl
var pageFiles embed.FS

// measured is a part as it was saved.
type measured[T any] struct {
	Machine machine
	Result  []T
}

// section makes a part's section of the page, from page/NAME.md.tmpl and the raw numbers in NAME.json. funcs are what its template
// needs besides pageFuncs.
func section[T any](funcs template.FuncMap) func(name string, raw []byte) (string, error) {
	return func(name string, raw []byte) (string, error) {
		var m measured[T]
		if err := json.Unmarshal(raw, &m); err != nil {
			return "", err
		}
		return render(name, funcs, m)
	}
}

// pageFuncs are what every template may use.
func pageFuncs() template.FuncMap {
	return template.FuncMap{"spread": spread, "p50": p50, "p99": p99, "p999": p999, "mb": mb, "next": func(i int) int { return i + 1 }}
}

func render(name string, funcs template.FuncMap, data any) (string, error) {
	file := name + ".md.tmpl"
	t, err := template.New(file).Funcs(pageFuncs()).Funcs(funcs).ParseFS(pageFiles, "page/"+file)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = t.Execute(&text, data)
	return text.String(), err
}

// page writes benchmark.md from the raw numbers. A part that was never measured is missing in it.
func (b *bench) page() error {
	var sections, raw []string
	var machines []machine
	var loads []load
	for _, p := range b.parts() {
		text, err := os.ReadFile(filepath.Join(b.docs, "benchmark", p.name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		section, err := p.section(p.name, text)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if p.plots != nil {
			plots, err := p.plots(text)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			for name, svg := range plots {
				if err := os.WriteFile(filepath.Join(b.docs, "benchmark", name+".svg"), []byte(svg), 0o644); err != nil {
					return err
				}
			}
		}
		var m measured[any]
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		sections, raw, machines, loads = append(sections, section), append(raw, p.name+".json"), append(machines, m.Machine), append(loads, loadsIn(m.Result)...)
	}
	text, err := render("head", nil, map[string]any{"Machines": places(machines), "Noise": noise(loads), "Sections": sections, "Raw": raw})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.docs, "benchmark.md"), []byte(text), 0o644)
}

// spread is the median, with minimum and maximum when there is more than one value.
func spread(format string, values []float64) string {
	if len(values) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(values))
	text := fmt.Sprintf(format, median(values))
	if len(sorted) > 1 {
		text += fmt.Sprintf(" ("+format+" to "+format+")", sorted[0], sorted[len(sorted)-1])
	}
	return text
}

// quantile of sorted values, by nearest rank.
func quantile[T any](sorted []T, q float64) T {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// p50, p99 and p999 are in milliseconds, of microseconds.
func p50(us []int64) float64 { return float64(quantile(slices.Sorted(slices.Values(us)), 0.50)) / 1000 }
func p99(us []int64) float64 { return float64(quantile(slices.Sorted(slices.Values(us)), 0.99)) / 1000 }
func p999(us []int64) float64 {
	return float64(quantile(slices.Sorted(slices.Values(us)), 0.999)) / 1000
}

func mb(bytes int64) int64 { return bytes >> 20 }

// places says where the parts were measured: once, when all were on one machine with the same programs.
func places(machines []machine) string {
	var all []string
	for _, m := range machines {
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

// loadsIn are all loads in some raw numbers, wherever they are.
func loadsIn(raw any) (all []load) {
	switch raw := raw.(type) {
	case []any:
		for _, one := range raw {
			all = append(all, loadsIn(one)...)
		}
	case map[string]any:
		if l, ok := raw["Load"].(map[string]any); ok {
			before, _ := l["Before"].(float64)
			others, _ := l["Others"].(float64)
			all = append(all, load{Before: before, Others: others})
		}
		for _, name := range slices.Sorted(maps.Keys(raw)) {
			all = append(all, loadsIn(raw[name])...)
		}
	}
	return all
}

// noise says in plain words whether the machine was quiet.
func noise(loads []load) string {
	if len(loads) == 0 {
		return ""
	}
	var others, before []float64
	for _, l := range loads {
		others, before = append(others, l.Others), append(before, l.Before)
	}
	text := fmt.Sprintf("The load average before a run was %s.", spread("%.1f", before))
	if slices.Max(others) > 0.2 {
		text = "**The machine was not quiet: other work ran on it.** " + text +
			fmt.Sprintf(" During some runs that other work used %s cores.", spread("%.2f", others)) +
			" Read the times as upper bounds: they measure the other work, too."
	}
	return text
}
