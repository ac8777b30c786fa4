package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// This file plays many seeds in several processes: each has its own memory to collect, and one that panics ends alone.

var reportTo = flag.String("sim.report", "", "write what came of it here, for the process that asked")

// chunk is how many seeds one process plays.
const chunk = 100

// outcome is what one of the processes hands back.
type outcome struct {
	Seeds  int
	Tally  map[string]int
	Broken []broken
}

func handBack(t *testing.T, tally *Tally, all []broken) {
	b, err := json.Marshal(outcome{tally.seeds, tally.n, all})
	if err == nil {
		err = os.WriteFile(*reportTo, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// spread plays n seeds in other processes of this program.
func spread(t *testing.T, tally *Tally, n int) {
	dir := t.TempDir()
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	began, bad := time.Now(), 0
	for range *procs {
		wg.Go(func() {
			for i := range next {
				o, err := playElsewhere(t, filepath.Join(dir, fmt.Sprint(i)), *first+uint64(i), min(chunk, n-i))
				mu.Lock()
				if err != nil {
					t.Errorf("seeds from %d: %v", *first+uint64(i), err)
					fmt.Fprintf(os.Stderr, "seeds from %d: %v\n", *first+uint64(i), err)
				}
				for _, b := range o.Broken {
					bad++
					t.Error(b)
					fmt.Fprintln(os.Stderr, b)
				}
				tally.Add(o.Seeds, o.Tally)
				fmt.Fprintf(os.Stderr, "%s: %d of %d seeds played, %d broke a promise, %.1f a second\n",
					time.Since(began).Round(time.Second), tally.Seeds(), n, bad, float64(tally.Seeds())/time.Since(began).Seconds())
				mu.Unlock()
			}
		})
	}
	for i := 0; i < n && (*limit == 0 || time.Since(began) < *limit); i += chunk {
		next <- i
	}
	close(next)
	wg.Wait()
}

func playElsewhere(t *testing.T, path string, from uint64, n int) (outcome, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSeeds$", "-test.timeout=0", fmt.Sprintf("-sim.seeds=%d", n),
		fmt.Sprintf("-sim.first=%d", from), "-sim.report="+path)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("%w: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return outcome{}, err
	}
	var o outcome
	return o, json.Unmarshal(b, &o)
}
