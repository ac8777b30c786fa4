package sim

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// Tally counts what occurred, over any number of seeds.
type Tally struct {
	mu    sync.Mutex
	n     map[string]int
	seeds int
}

// NewTally is a Tally with nothing in it.
func NewTally() *Tally { return &Tally{n: map[string]int{}} }

func (t *Tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what]++
}

// Seed counts a seed that was played.
func (t *Tally) Seed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds++
}

// Add takes over what was counted elsewhere.
func (t *Tally) Add(seeds int, n map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds += seeds
	for what, k := range n {
		t.n[what] += k
	}
}

// Seeds is how many were played.
func (t *Tally) Seeds() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seeds
}

// Mean is how often something occurred in a seed.
func (t *Tally) Mean(what string) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(t.n[what]) / float64(max(t.seeds, 1))
}

// Count is how often something occurred.
func (t *Tally) Count(what string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[what]
}

// Print writes the table.
func (t *Tally) Print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(w, "%d seeds\n", t.seeds)
	for _, k := range slices.Sorted(maps.Keys(t.n)) {
		fmt.Fprintf(w, "%-44s %9d  %7.2f a seed\n", k, t.n[k], float64(t.n[k])/float64(max(t.seeds, 1)))
	}
}

func (c *cluster) count(what string) { c.tally.add(what) }

func (c *cluster) fault(what string) { c.tally.add("fault: " + what) }

// row counts a push that was answered without a sidecar to judge it.
func (c *cluster) row(row string, code int) {
	c.count("row: " + row)
	c.answer(row, code)
}

func (c *cluster) answer(row string, code int) {
	c.count(fmt.Sprintf("answer: %d by row %s", code, row))
}

func (c *cluster) endTally(cause string) {
	if cause != "killed" {
		c.tally.add("term end: " + cause)
	}
}
