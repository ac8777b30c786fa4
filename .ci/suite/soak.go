package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

// soaked is what a soak writes (sidecar/drill, TestSoak).
type soaked struct {
	Seed    uint64 `json:"seed"`
	DCS     string `json:"dcs"`
	Policy  string `json:"policy"`
	Place   string `json:"place"`
	Changes []struct {
		Kind     string  `json:"kind"`
		Fault    string  `json:"fault"`
		Timeline uint64  `json:"timeline"`
		Seconds  float64 `json:"seconds"`
	} `json:"changes"`
	Oracles int     `json:"oracles"`
	Rows    int     `json:"rows"`
	Lost    int     `json:"lost"`
	Cloned  int     `json:"cloned"`
	Seconds float64 `json:"seconds"`
}

const (
	changesEach = 20 // role changes of one cluster
	soakFile    = "docs/reliability/soak.json"
)

// soak makes role changes in clusters with seeds from first on, plays the simulation, and writes docs/reliability/soak.json.
func (s *suite) soak(ctx context.Context, lanes, changes int, first uint64) (err error) {
	remove, err := s.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if _, err := s.build(ctx, regexp.MustCompile("^$")); err != nil {
		return err
	}
	if out, err := command(ctx, ".ci/build-tools").CombinedOutput(); err != nil {
		return fmt.Errorf("build the servers: %w\n%s", err, out)
	}
	clusters := (changes + changesEach - 1) / changesEach
	seeds := make(chan uint64)
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for seed := range seeds {
				s.drill(ctx, drill{program: "sidecar/drill", test: "TestSoak", args: []string{
					fmt.Sprintf("-soak.seed=%d", seed), fmt.Sprintf("-soak.changes=%d", changesEach), "-soak.report=" + s.report(seed)}})
			}
		})
	}
	for i := range clusters {
		seeds <- first + uint64(i)
	}
	close(seeds)
	wg.Wait()
	if s.seeds > 0 {
		s.simulate(ctx)
	}
	return s.summarise(first, clusters)
}

func (s *suite) report(seed uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("soak-%d.json", seed))
}

// summarise adds up what the clusters went through, holds it to what a soak must be, and writes it down.
func (s *suite) summarise(first uint64, clusters int) error {
	var all []soaked
	kinds, dcs, total, during, rows, oracles := map[string]int{}, map[string]int{}, 0, 0, 0, 0
	for seed := first; seed < first+uint64(clusters); seed++ {
		var one soaked
		text, err := os.ReadFile(s.report(seed))
		if err == nil {
			err = json.Unmarshal(text, &one)
		}
		if err != nil {
			continue // that soak failed, and is told of
		}
		all = append(all, one)
		rows, oracles = rows+one.Rows, oracles+one.Oracles
		for _, c := range one.Changes {
			total, kinds[c.Kind], dcs[one.DCS] = total+1, kinds[c.Kind]+1, dcs[one.DCS]+1
			if c.Fault != "" {
				during++
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		s.tally.say("%4d  %s", kinds[k], k)
	}
	s.tally.say("%d role changes in %d clusters on %v, %d of them during a fault; %d rows compared in %d restores", total, len(all), dcs, during, rows, oracles)
	if most := slices.Max(append(slices.Collect(maps.Values(kinds)), 0)); len(kinds) < 8 || most*10 > total*3 || during*2 < total {
		s.tally.fail("soak", fmt.Sprintf("%d kinds, the most frequent %d times of %d, %d during a fault: want 8 kinds, none above 30 %%, half during a fault", len(kinds), most, total, during))
	}
	text, err := json.MarshalIndent(map[string]any{"at": time.Now().UTC().Format(time.RFC3339), "simulated_seeds": s.seeds, "clusters": all}, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(soakFile), 0o755); err != nil {
		return err
	}
	return os.WriteFile(soakFile, append(text, '\n'), 0o644)
}
