package drill

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Scrape is the text of the node's /metrics.
func (n *Node) Scrape(ctx context.Context) (string, error) {
	code, body, err := get(ctx, "http://"+n.listen()+"/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("metrics of %s: %d", n.Name, code)
	}
	return string(body), err
}

// Scrapes are what a Prometheus would see of the cluster: each is given to take, the text of each node by its name, "" for one that does not answer, once in
// every, until the function that is returned is called. It gives the first error of take.
func (c *Cluster) Scrapes(ctx context.Context, every time.Duration, take func(map[string]string) error) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ctx.Err() == nil && failed == nil {
			texts := map[string]string{}
			for _, n := range c.Nodes {
				texts[n.Name], _ = n.Scrape(ctx) // one that does not answer is down
			}
			if ctx.Err() == nil {
				failed = take(texts)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return sync.OnceValue(func() error {
		cancel()
		wg.Wait()
		return failed
	})
}

// value finds a series in the text of a node's metrics: by its name, and by a label and its value as they are written, `mode="on"`, or "".
func value(text, name, label string) (float64, bool) {
	for line := range strings.Lines(text) {
		labels, ok := strings.CutPrefix(line, name+"{")
		if !ok || !strings.Contains(labels, label) {
			continue
		}
		_, number, _ := strings.Cut(strings.TrimSpace(labels), "} ")
		v, err := strconv.ParseFloat(number, 64)
		return v, err == nil
	}
	return 0, false
}
