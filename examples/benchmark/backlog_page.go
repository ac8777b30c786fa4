package main

import (
	"encoding/json"
	"fmt"
	"text/template"
)

// backlogGroup is the runs with one number of files.
type backlogGroup struct {
	Files int
	Runs  []backlogged
	base  *backlogGroup    // the one with the fewest files
	reads map[string]reads // of the last run under strace
}

func backlogGroups(all []backlogged) (gs []*backlogGroup) {
	for _, runs := range gather(all, func(r backlogged) int { return r.Files }) {
		g := &backlogGroup{Files: runs[0].Files}
		for _, r := range runs {
			if r.Reads != nil {
				g.reads = r.Reads
			} else {
				g.Runs = append(g.Runs, r)
			}
		}
		gs = append(gs, g)
		g.base = gs[0]
	}
	return gs
}

func (g *backlogGroup) FirstPut() []float64 {
	return values(g.Runs, func(r backlogged) float64 { return r.FirstPut })
}
func (g *backlogGroup) Put() []float64 {
	return values(g.Runs, func(r backlogged) float64 { return float64(r.Put) })
}
func (g *backlogGroup) Seconds() []float64 {
	return values(g.Runs, func(r backlogged) float64 { return r.Seconds })
}
func (g *backlogGroup) CPU() []float64 { // milliseconds a segment
	return values(g.Runs, func(r backlogged) float64 { return 1000 * r.CPU / float64(r.Put) })
}
func (g *backlogGroup) Anon() []float64 { // MB
	return values(g.Runs, func(r backlogged) float64 { return float64(r.PeakAnon) / (1 << 20) })
}

// PerFile is how many bytes the median is above the smallest backlog's, for each file more.
func (g *backlogGroup) PerFile() string {
	if g.Files <= g.base.Files || len(g.Runs) == 0 || len(g.base.Runs) == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", g.perFile())
}

func (g *backlogGroup) perFile() float64 {
	return (median(g.Anon()) - median(g.base.Anon())) * (1 << 20) / float64(g.Files-g.base.Files)
}

// Reads are the scans of a directory, of these before the first put, and the calls.
func (g *backlogGroup) Reads(directory string) string {
	r, ok := g.reads[directory]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d (%d), %s calls", r.Scans, r.Before, comma(r.Calls))
}

func comma(n int) string { return tickText(float64(n)) }

func backlogFuncs() template.FuncMap {
	return template.FuncMap{"backlogGroups": backlogGroups, "comma": comma, "goesOn": goesOn.Seconds, "goals": backlogGoals,
		"last": func(all []backlogged) int { return len(all) - 1 }, "megabytes": megabytes}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }

// backlogPlots are two: what the goals are about.
func backlogPlots(raw []byte) (map[string]string, error) {
	var m measured[backlogged]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	first, anon, goal := line{Label: "walbaton"}, line{Label: "walbaton"}, line{Label: "the goal"}
	for _, g := range backlogGroups(m.Result) {
		if len(g.Runs) == 0 || len(g.base.Runs) == 0 {
			continue
		}
		x := float64(g.Files)
		first.Points = append(first.Points, point{x, g.FirstPut()})
		anon.Points = append(anon.Points, point{x, g.Anon()})
		goal.Points = append(goal.Points, point{x, []float64{mostMemory(g.Files)}})
	}
	x := "files that wait"
	return map[string]string{
		"backlog-first":  lineChart("Time to the first PUT", axes{X: x, Y: "seconds from the start of the process", LogX: true, LogY: true}, []line{first}),
		"backlog-memory": lineChart("Anonymous memory at peak", axes{X: x, Y: "MB", LogX: true}, []line{anon, goal}),
	}, nil
}

// mostMemory is the goal in MB: what four workers may take, and 48 bytes for each file that waits.
func mostMemory(files int) float64 { return 160 + 48*float64(files)/(1<<20) }

// backlogGoals are for 100,000 files and for the largest backlog.
func backlogGoals(all []backlogged) (gs []goal) {
	for _, g := range backlogGroups(all) {
		if g.Files < 100_000 || len(g.Runs) == 0 || len(g.base.Runs) == 0 {
			continue
		}
		text := comma(g.Files) + " files: "
		if g.Files == 100_000 {
			gs = append(gs, goal{What: text + "first PUT", Got: median(g.FirstPut()), Limit: 1, Unit: " s"})
		}
		if r, ok := g.reads["archive_status"]; ok {
			gs = append(gs, goal{What: text + "scans of `archive_status` until the run ended", Got: float64(r.Scans), Limit: 1})
		}
		gs = append(gs, goal{What: text + "anonymous memory", Got: median(g.Anon()), Limit: mostMemory(g.Files), Unit: " MB"})
	}
	return gs
}
