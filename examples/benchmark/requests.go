package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// count is what one node asked the store, by kind and result, as its own walbaton_store_requests_total says it.
type count struct {
	Node, Role string
	Segments   int                // that were finished in the time
	Seconds    float64            //
	Requests   map[string]float64 // "put ok": how many
	Received   float64            // bytes of bodies
}

// idle is for how long nothing is done, to count what is asked anyway.
const idle = 30 * time.Second

// One segment of WAL, nearly: rows of random text, then a switch.
const oneSegment = `insert into filler select g, array(select md5(random()::text || g) from generate_series(1, 12)) from generate_series(1, 24000) g;
	truncate filler`

// counts lets a cluster with an archive on MinIO finish segments, one after the other, and then do nothing.
func (b *bench) counts(ctx context.Context) (err error) {
	c, err := b.cluster(ctx, drill.MinIO)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	p, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	if err := p.Exec(ctx, "create table filler (id int, words text[])"); err != nil {
		return err
	}
	if err := b.finish(ctx, c, p, 2); err != nil { // what is asked once is asked before
		return err
	}
	busy, err := counting(ctx, c, p, b.requests, func() error { return b.finish(ctx, c, p, b.requests) })
	if err != nil {
		return err
	}
	quiet, err := counting(ctx, c, p, 0, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(idle):
			return nil
		}
	})
	for _, n := range append(busy, quiet...) {
		b.say("%s, %s, %d segments in %.0f s: %v", n.Node, n.Role, n.Segments, n.Seconds, n.Requests)
	}
	if err != nil {
		return err
	}
	return b.save(ctx, "requests", append(busy, quiet...))
}

// finish finishes that many segments, and waits until no node has one that waits.
func (b *bench) finish(ctx context.Context, c *drill.Cluster, p *drill.Node, segments int) error {
	for range segments {
		if err := p.Exec(ctx, oneSegment); err != nil {
			return err
		}
		if err := p.Exec(ctx, "select pg_switch_wal()"); err != nil {
			return err
		}
	}
	return until(ctx, 2*time.Minute, 200*time.Millisecond, "every node is done", func() (bool, error) {
		for _, n := range c.Nodes {
			ready, err := n.WAL("ready")
			if err != nil || len(ready) > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// counting is what every node asked while do ran.
func counting(ctx context.Context, c *drill.Cluster, primary *drill.Node, segments int, do func() error) ([]count, error) {
	before, err := scrapeAll(ctx, c)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := do(); err != nil {
		return nil, err
	}
	seconds := time.Since(begin).Seconds()
	after, err := scrapeAll(ctx, c)
	if err != nil {
		return nil, err
	}
	var all []count
	for i, n := range c.Nodes {
		one := count{Node: n.Name, Role: "standby", Segments: segments, Seconds: seconds, Requests: map[string]float64{}}
		if n == primary {
			one.Role = "holder"
		}
		for name, value := range after[i] {
			increase := value - before[i][name]
			if labels, ok := strings.CutPrefix(name, "walbaton_store_requests_total{"); ok && increase > 0 {
				one.Requests[words(labels)] = increase
			}
		}
		received := `walbaton_store_bytes_total{direction="received"}`
		one.Received = after[i][received] - before[i][received]
		all = append(all, one)
	}
	return all, nil
}

// words makes `put ok` of `op="put",result="ok"}`.
func words(labels string) string {
	return strings.NewReplacer(`op="`, "", `",result="`, " ", `"}`, "").Replace(labels)
}

func scrapeAll(ctx context.Context, c *drill.Cluster) (all []map[string]float64, err error) {
	for _, n := range c.Nodes {
		address, err := setting(filepath.Join(n.Dir, "walbaton.yml"), "listen")
		if err != nil {
			return nil, err
		}
		values, err := scrape(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", n.Name, err)
		}
		all = append(all, values)
	}
	return all, nil
}
