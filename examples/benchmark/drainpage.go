package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"text/template"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// group is the drains with the same tool and settings.
type group struct {
	tool
	Runs []drain
}

func groups(all []drain) (gs []group) {
	for _, runs := range gather(all, func(d drain) tool { return d.tool }) {
		gs = append(gs, group{runs[0].tool, runs})
	}
	return gs
}

// find gives the group with these settings; one without runs when it was not measured.
func find(all []drain, t tool) group {
	gs := groups(all)
	if i := slices.IndexFunc(gs, func(g group) bool { return g.tool == t }); i >= 0 {
		return gs[i]
	}
	return group{tool: t}
}

func (g group) Rate() []float64 { return values(g.Runs, drain.rate) }
func (g group) CPU() []float64  { return values(g.Runs, drain.cpu) }
func (g group) Store() []float64 { // of MinIO, milliseconds a segment
	return values(g.Runs, func(d drain) float64 { return 1000 * d.Store / float64(d.Segments) })
}
func (g group) Anon() []float64 {
	return values(g.Runs, func(d drain) float64 { return float64(d.PeakAnon) / (1 << 20) })
}
func (g group) Stored() []float64 { // percent of the plain bytes
	return values(g.Runs, func(d drain) float64 { return 100 * float64(d.Stored) / float64(d.Plain) })
}

// pair is walbaton beside another tool: of each round one run of either.
type pair struct{ Ours, Theirs group }

// ratios of what was measured in the same round.
func (p pair) ratios(of func(drain) float64) (all []float64) {
	for i := range min(len(p.Ours.Runs), len(p.Theirs.Runs)) {
		all = append(all, of(p.Ours.Runs[i])/of(p.Theirs.Runs[i]))
	}
	return all
}

func (p pair) Rates() []float64 { return p.ratios(drain.rate) }
func (p pair) CPUs() []float64  { return p.ratios(drain.cpu) }

// Name says at what settings the two meet.
func (p pair) Name() string {
	name := fmt.Sprintf("%s, %d at a time", p.Ours.Codec, p.Ours.Workers)
	if p.Theirs.Level != 0 {
		name += fmt.Sprintf("; %s at level %d", p.Theirs.Tool, p.Theirs.Level)
	}
	return name
}

// pairs are those that were measured at equal codec and parallelism.
func pairs(all []drain) (ps []pair) {
	for _, codec := range []string{"lz4", "zstd", "none"} {
		for _, workers := range []int{1, 2, 4} {
			ours := find(all, files(walbaton, codec, workers, 0))
			for _, other := range []tool{files(pgBack, codec, workers, 0), files(pgBack, codec, workers, 1), files(walG, codec, workers, 0)} {
				if p := (pair{ours, find(all, other)}); len(p.Rates()) > 0 {
					ps = append(ps, p)
				}
			}
		}
	}
	return ps
}

// files is a tool that archives to files.
func files(name, codec string, workers, level int) tool {
	return tool{Tool: name, Place: drill.Files, Codec: codec, Level: level, Workers: workers}
}

// best is each tool as its manual recommends it.
type best struct {
	group
	Setting string
}

func bests(all []drain) (found []best) {
	for _, b := range []best{
		{group{tool: files(walbaton, "zstd", 4, 0)}, "the defaults: zstd at its fastest level, 4 workers"},
		{group{tool: files(pgBack, "zstd", 2, 0)}, "its user guide recommends `compress-type=zst`, and calls the default of 1 process “almost never appropriate”; as many processes as cores, `archive-async=y`"},
		{group{tool: files(walG, "lz4", 16, 0)}, "the defaults: lz4, `WALG_UPLOAD_CONCURRENCY=16`"},
		{group{tool: files(copying, "none", 0, 0)}, "the command in PostgreSQL's manual. It syncs nothing: when the machine crashes, PostgreSQL has removed segments that are not on the disk of the archive"},
		{group{tool: tool{Tool: walbaton, Place: drill.MinIO, Codec: "zstd", Workers: 4}}, "the defaults"},
		{group{tool: tool{Tool: barman, Place: drill.MinIO, Codec: "none"}}, "`barman-cloud-wal-archive` with its defaults. It starts Python for each segment; here it archives the first 40 only"},
	} {
		if b.group = find(all, b.tool); len(b.Runs) > 0 {
			found = append(found, b)
		}
	}
	return found
}

// uncompressed are the tools that store the segments as they are in files, beside dd, which does no more than write and sync them.
func uncompressed(all []drain) (ps []pair) {
	for _, g := range groups(all) {
		if p := (pair{g, find(all, files(floor, "none", 0, 0))}); g.Codec == "none" && g.Place == drill.Files && len(p.Rates()) > 0 {
			ps = append(ps, p)
		}
	}
	slices.SortStableFunc(ps, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.Ours.Tool, b.Ours.Tool), cmp.Compare(a.Ours.Workers, b.Ours.Workers))
	})
	return ps
}

// codecs are the groups of which one a tool, codec and level is enough: they store the same.
func codecs(all []drain) (gs []group) {
	for _, g := range groups(all) {
		same := func(o group) bool { return o.Tool == g.Tool && o.Codec == g.Codec && o.Level == g.Level }
		if !slices.ContainsFunc(gs, same) && g.Tool != barman {
			gs = append(gs, g)
		}
	}
	slices.SortStableFunc(gs, func(a, b group) int { return cmp.Compare(median(a.Stored()), median(b.Stored())) })
	return gs
}

// measuredTool says whether a tool was there.
func measuredTool(all []drain, name string) bool {
	return slices.ContainsFunc(all, func(d drain) bool { return d.Tool == name })
}

// wholeMachine says whether some runs have the CPU time of the whole machine.
func wholeMachine(all []drain) bool {
	return slices.ContainsFunc(all, func(d drain) bool { return d.Whole })
}

// drainGoals are those of issue 6 about the drain, as far as they were measured.
func drainGoals(all []drain) (gs []goal) {
	limits := map[string]struct{ rate, cpu float64 }{"lz4": {2, 0.5}, "zstd": {1.7, 0.55}}
	for _, p := range pairs(all) {
		limit, ok := limits[p.Ours.Codec]
		if !ok || p.Theirs.Tool != pgBack || p.Theirs.Level != 0 || p.Ours.Codec == "zstd" && p.Ours.Workers != 2 {
			continue
		}
		gs = append(gs,
			goal{What: p.Name() + ": segments/s, as a multiple of pgBackRest's", Got: median(p.Rates()), Limit: limit.rate, Unit: " ×", AtLeast: true},
			goal{What: p.Name() + ": CPU time a segment, as a multiple of pgBackRest's", Got: median(p.CPUs()), Limit: limit.cpu, Unit: " ×"})
	}
	for _, p := range uncompressed(all) {
		if p.Ours.Tool == walbaton && p.Ours.Workers == 4 {
			gs = append(gs, goal{What: "files without compression, 4 workers: segments/s, as a multiple of `dd`'s", Got: median(p.Rates()), Limit: 0.8, Unit: " ×", AtLeast: true})
		}
	}
	peak, ours := 0.0, false
	for _, g := range groups(all) {
		if g.Tool == walbaton && g.Workers == 4 {
			peak, ours = max(peak, slices.Max(g.Anon())), true
		}
	}
	if ours {
		gs = append(gs, goal{What: "anonymous memory with 4 workers, the largest of all runs", Got: peak, Limit: 160, Unit: " MB"})
	}
	return gs
}

// drainPlots shows the tools on files: each at two segments at a time or without such a setting, and walbaton as it is by default.
func drainPlots(raw []byte) (map[string]string, error) {
	var m measured[drain]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	var rates, cpus []bar
	for _, g := range groups(m.Result) {
		if g.Place != drill.Files || g.Workers != 0 && g.Workers != 2 && g.tool != files(walbaton, "zstd", 4, 0) && g.Tool != walG {
			continue
		}
		rates = append(rates, bar{Label: g.String(), Values: g.Rate(), Ours: g.Tool == walbaton})
		cpus = append(cpus, bar{Label: g.String(), Values: g.CPU(), Ours: g.Tool == walbaton})
	}
	order := func(a, b bar) int { return cmp.Compare(median(b.Values), median(a.Values)) }
	slices.SortStableFunc(rates, order)
	slices.SortStableFunc(cpus, order)
	return map[string]string{
		"drain-rate": barChart("Drain to files: segments a second", "more is better", rates),
		"drain-cpu":  barChart("Drain to files: CPU time of a segment", "ms, less is better", cpus),
	}, nil
}

// drainFuncs are what the drain's template needs.
func drainFuncs() template.FuncMap {
	return template.FuncMap{"groups": groups, "pairs": pairs, "bests": bests, "uncompressed": uncompressed, "codecs": codecs, "measuredTool": measuredTool, "wholeMachine": wholeMachine, "goals": drainGoals}
}
