package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// standby is what one node asked the store, by kind and result, and the CPU time that its sidecar took, as its own metrics say. The
// holder of the baton is there, too, to compare.
type standby struct {
	Node, Role string
	Segments   int                // that were finished in the time
	Seconds    float64            //
	Requests   map[string]float64 // "put ok": how many
	Received   float64            // bytes of bodies
	CPU        float64            // seconds
}

// nothing is for how long nothing is done, to count what is asked anyway.
const nothing = 30 * time.Second

// One segment of WAL, nearly: rows of random text, then a switch.
const oneSegment = `insert into filler select g, array(select md5(random()::text || g) from generate_series(1, 12)) from generate_series(1, 24000) g;
	truncate filler`

// standbys lets a cluster with an archive on MinIO finish segments, one after the other, and then do nothing.
func (b *bench) standbys(ctx context.Context) (err error) {
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
	busy, err := counting(ctx, c, p, b.confirmed, func() error { return b.finish(ctx, c, p, b.confirmed) })
	if err != nil {
		return err
	}
	quiet, err := counting(ctx, c, p, 0, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(nothing):
			return nil
		}
	})
	for _, n := range append(busy, quiet...) {
		b.say("%s, %s, %d segments in %.0f s: %v; %.2f s of CPU", n.Node, n.Role, n.Segments, n.Seconds, n.Requests, n.CPU)
	}
	if err != nil {
		return err
	}
	return b.save(ctx, "standby", append(busy, quiet...))
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
func counting(ctx context.Context, c *drill.Cluster, primary *drill.Node, segments int, do func() error) ([]standby, error) {
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
	var all []standby
	for i, n := range c.Nodes {
		one := standby{Node: n.Name, Role: "standby", Segments: segments, Seconds: seconds, Requests: increases(before[i], after[i], "walbaton_store_requests_total{")}
		if n == primary {
			one.Role = "holder"
		}
		increase := func(name string) float64 { return after[i][name] - before[i][name] }
		one.Received = increase(`walbaton_store_bytes_total{direction="received"}`)
		one.CPU = increase("process_cpu_seconds_total")
		all = append(all, one)
	}
	return all, nil
}

// increases are those of a counter, by its labels.
func increases(before, after map[string]float64, counter string) map[string]float64 {
	all := map[string]float64{}
	for name, value := range after {
		if labels, ok := strings.CutPrefix(name, counter); ok && value > before[name] {
			all[words(labels)] = value - before[name]
		}
	}
	return all
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

// asked is what a node asked a store: all requests, and for each segment.
func asked(requests map[string]float64, segments int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		n := requests[name]
		text := fmt.Sprintf("%s: %.0f", name, n)
		if segments > 0 {
			text += fmt.Sprintf(" (%.2f)", n/float64(segments))
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// Asked is in words what the node asked the store.
func (s standby) Asked() string { return asked(s.Requests, s.Segments) }

// ReceivedEach is bytes for each segment, MillisecondsEach the sidecar's CPU time.
func (s standby) ReceivedEach() float64     { return s.Received / float64(s.Segments) }
func (s standby) MillisecondsEach() float64 { return 1000 * s.CPU / float64(s.Segments) }

// standbyGoals are for the standbys: the worst of them counts, and what any of them asked at any time.
func standbyGoals(all []standby) []goal {
	gets := goal{What: "GETs of a standby for each segment", Limit: 1}
	bytes := goal{What: "bytes that such a GET reads", Limit: 16 << 10}
	others := map[string]float64{}
	for _, s := range all {
		if s.Role != "standby" {
			continue
		}
		kinds := map[string]float64{}
		for name, n := range s.Requests {
			kind, _, _ := strings.Cut(name, " ")
			kinds[kind] += n
			others[kind] += n
		}
		if s.Segments > 0 {
			gets.Got = max(gets.Got, kinds["get"]/float64(s.Segments))
			bytes.Got = max(bytes.Got, s.Received/max(1, kinds["get"]))
		}
	}
	return []goal{gets, bytes, {What: "LISTs of all standbys", Got: others["list"]}, {What: "PUTs of all standbys", Got: others["put"]}}
}
