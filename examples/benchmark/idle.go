package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// idled is what one sidecar of a cluster used while nothing was to be done.
type idled struct {
	Node, Role string
	Seconds    float64
	CPU        float64            // seconds
	Anon       int64              // bytes: the largest RssAnon of a sample a second
	DCS        map[string]float64 // requests, by kind, as its own walbaton_dcs_requests_total says it
	Written    map[string]int     // how often etcd got a new value for a key below walbaton/ with this node's name, or the baton
	Store      map[string]float64 // requests, by kind and result
	Load       load
}

// How long a cluster settles and is then watched.
const (
	idleSettle = 30 * time.Second
	idleTime   = 2 * time.Minute
	idleLong   = 10 * time.Minute
)

// idles watches three nodes that do nothing, with Patroni's default times.
func (b *bench) idles(ctx context.Context) (err error) {
	c, err := b.cluster(ctx, drill.MinIO)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := errors.Join(defaultTimes(ctx, c.Nodes[0]), c.AllStreaming(ctx)); err != nil {
		return err
	}
	primary, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	if err := primary.Exec(ctx, "create table filler (id int, words text[])"); err != nil {
		return err
	}
	if err := b.finish(ctx, c, primary, 2); err != nil { // what is done once is done before
		return err
	}
	keys, err := watch(ctx, c)
	if err != nil {
		return err
	}
	defer keys.stop()
	takes := idleTime
	if b.full {
		takes = idleLong
	}
	b.say("the cluster settles, and then nothing is done for %v", takes)
	if err := doNothing(ctx, idleSettle, func() {}); err != nil {
		return err
	}
	all, err := idling(ctx, c, primary, keys, takes)
	for _, i := range all {
		b.say("%s, %s: %.3f %% of a core, %.1f MB anonymous; an hour: DCS %s; written %v; store %s; others used %.2f cores",
			i.Node, i.Role, i.Percent(), float64(i.Anon)/(1<<20), i.hourly(i.DCS), i.Written, i.hourly(i.Store), i.Load.Others)
	}
	if err != nil {
		return err
	}
	return b.save(ctx, "idle", all)
}

// defaultTimes gives Patroni the times that it has where nobody sets them; those of drills are shorter.
func defaultTimes(ctx context.Context, n *drill.Node) error {
	address, err := setting(filepath.Join(n.Dir, "patroni.yml"), "listen") // its first one is that of the REST API
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+address+"/config", strings.NewReader(`{"ttl": 30, "loop_wait": 10, "retry_timeout": 10}`))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("set Patroni's times: %s", resp.Status)
	}
	return nil
}

// doNothing calls each once a second until the time is over.
func doNothing(ctx context.Context, takes time.Duration, each func()) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for over := time.After(takes); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-second.C:
			each()
		case <-over:
			return nil
		}
	}
}

// idling is what every sidecar used in that time.
func idling(ctx context.Context, c *drill.Cluster, primary *drill.Node, k *keys, takes time.Duration) (all []idled, err error) {
	pids := make([]int, len(c.Nodes))
	before := make([]float64, len(c.Nodes))
	for i, n := range c.Nodes {
		if pids[i], err = sidecarOf(n); err != nil {
			return nil, err
		}
		one := idled{Node: n.Name, Role: "standby"}
		if n == primary {
			one.Role = "holder"
		}
		all = append(all, one)
	}
	counters, err := scrapeAll(ctx, c)
	if err != nil {
		return nil, err
	}
	for i, pid := range pids {
		user, system, err := processCPU(pid)
		if err != nil {
			return nil, err
		}
		before[i] = user + system
	}
	begin, m, used := time.Now(), startMeter(), 0.0
	err = doNothing(ctx, takes, func() {
		for i, pid := range pids {
			all[i].Anon = max(all[i].Anon, kilobytes(fmt.Sprintf("/proc/%d/status", pid), "RssAnon")<<10)
		}
	})
	if err != nil {
		return nil, err
	}
	for i, pid := range pids {
		user, system, err := processCPU(pid)
		if err != nil {
			return nil, err
		}
		all[i].CPU = user + system - before[i]
		used += all[i].CPU
	}
	seconds, l := m.stop(used)
	end := time.Now()
	after, err := scrapeAll(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Seconds, all[i].Load = seconds, l
		all[i].DCS = increases(counters[i], after[i], "walbaton_dcs_requests_total{")
		all[i].Store = increases(counters[i], after[i], "walbaton_store_requests_total{")
		all[i].Written = k.written(all[i], begin, end)
	}
	return all, nil
}

// written counts the values that a sidecar wrote: its record, and the baton where it holds it.
func (k *keys) written(i idled, begin, end time.Time) map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]int{}
	for _, w := range k.all {
		name, ours := strings.CutPrefix(w.key, "walbaton/")
		if ours && w.at.After(begin) && w.at.Before(end) && (filepath.Base(name) == i.Node || name == "baton" && i.Role == "holder") {
			all[name]++
		}
	}
	return all
}

// sidecarOf is the process of a node's sidecar.
func sidecarOf(n *drill.Node) (int, error) {
	for _, pid := range drill.Below(n.Dir) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := bytes.Split(line, []byte{0}); err == nil && len(words) > 1 && filepath.Base(string(words[0])) == "walbaton" && string(words[1]) == "sidecar" {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s has no sidecar", n.Name)
}

// Percent of a core.
func (i idled) Percent() float64 { return 100 * i.CPU / i.Seconds }

// hourly are counts for an hour.
func (i idled) hourly(counts map[string]float64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s: %.0f", name, counts[name]*3600/i.Seconds))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// DCSHourly and StoreHourly are requests in an hour.
func (i idled) DCSHourly() string   { return i.hourly(i.DCS) }
func (i idled) StoreHourly() string { return i.hourly(i.Store) }

// Writes are the values that etcd got in the time.
func (i idled) Writes() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(i.Written)) {
		all = append(all, fmt.Sprintf("%s: %d", name, i.Written[name]))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func idleFuncs() template.FuncMap {
	return template.FuncMap{"megabytes": megabytes, "goals": idleGoals}
}

// idleGoals are for the worst sidecar. What it writes is its record, or the baton: both only when they change.
func idleGoals(all []idled) []goal {
	cpu := goal{What: "CPU of a sidecar", Limit: 0.3, Unit: " % of a core"}
	anon := goal{What: "anonymous memory of a sidecar", Limit: 64, Unit: " MB"}
	writes := goal{What: "values written to the DCS, besides renewals"}
	for _, i := range all {
		cpu.Got, anon.Got = max(cpu.Got, i.Percent()), max(anon.Got, float64(i.Anon)/(1<<20))
		for _, n := range i.Written {
			writes.Got += float64(n)
		}
	}
	return []goal{cpu, anon, writes}
}
