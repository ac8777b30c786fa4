package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// slowed is one run: a sidecar ships all segments that wait to MinIO behind a proxy that is slow and fails.
type slowed struct {
	Workers  int
	Delay    float64 // milliseconds that the proxy waits before it passes a request on; 0: it does not fail either
	Segments int
	Seconds  float64 // from the first segment that MinIO stored to the last
	FirstPut float64 // seconds from the start of the process
	Requests int
	Failed   map[string]int // of these, by how
	CPU      float64        // seconds of the sidecar
	Load     load
	Command  string
}

// The store that is measured.
const (
	slowDelay   = 50 * time.Millisecond
	slowShare   = 0.01 // of the requests fail
	slowEach    = 150  // segments for each worker, so that runs take about the same time
	mostWorkers = 16
)

// slows are runs with more and more workers, and one without delay.
func (b *bench) slows(ctx context.Context) (err error) {
	each := min(b.segments, slowEach)
	s, err := b.newSmall(ctx, each*mostWorkers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var all []slowed
	for range b.rounds {
		for _, workers := range []int{0, 1, 2, 4, 8, mostWorkers} {
			delay, share := slowDelay, slowShare
			if workers == 0 { // one, and a store that is good
				workers, delay, share = 1, 0, 0
			}
			if _, err := s.choose(ctx, each*workers); err != nil {
				return err
			}
			r, err := s.slow(ctx, workers, each*workers, delay, share)
			if err != nil {
				return fmt.Errorf("%d workers: %w", workers, err)
			}
			b.say("%d workers, %.0f ms: %.1f segments/s, %d requests, failed %v, CPU %.1f s; others used %.2f cores",
				r.Workers, r.Delay, r.Rate(), r.Requests, r.Failed, r.CPU, r.Load.Others)
			all = append(all, r)
			if err := b.save(ctx, "slow", all); err != nil {
				return err
			}
		}
	}
	return nil
}

// slow is one run.
func (s *small) slow(ctx context.Context, workers, segments int, delay time.Duration, share float64) (r slowed, err error) {
	car, err := s.newSidecar(ctx, drill.MinIO, "zstd")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, car.close()) }()
	place, err := url.Parse(car.archive.Store.URL())
	if err != nil {
		return r, err
	}
	query := place.Query()
	proxy, err := newSlowStore(query.Get("endpoint"), delay, share, segments)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, proxy.close()) }()
	query.Set("endpoint", proxy.url)
	place.RawQuery = query.Encode()
	car.cmd.Args = append(car.cmd.Args, "--archive", place.String(), "--workers", fmt.Sprint(workers)) // the last one counts
	if err := s.warm(ctx, s.names[:segments]); err != nil {
		return r, err
	}
	r = slowed{Workers: workers, Delay: float64(delay.Milliseconds()), Segments: segments, Command: strings.Join(car.cmd.Args, " ")}
	store := storeCPU(car.archive)
	begin, m := time.Now(), startMeter()
	if err := car.start(); err != nil {
		return r, err
	}
	err = until(ctx, 5*time.Minute, 20*time.Millisecond, "every segment is stored", func() (bool, error) {
		return proxy.done(), car.runs()
	})
	if err != nil {
		return r, err
	}
	user, system, err := processCPU(car.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	r.CPU = user + system
	_, r.Load = m.stop(r.CPU + storeCPU(car.archive) - store)
	first, last := proxy.times()
	r.Seconds, r.FirstPut = last.Sub(first).Seconds(), first.Sub(begin).Seconds()
	r.Requests, r.Failed = proxy.counted()
	_, err = stored(ctx, car.archive, s.names[:segments])
	return r, err
}

// Rate is segments a second: the first one only begins the time.
func (r slowed) Rate() float64 { return float64(r.Segments-1) / r.Seconds }

// slowGroup is the runs with one number of workers.
type slowGroup struct {
	Workers int
	Runs    []slowed
	Ideal   float64 // segments a second
}

// slowTable is what one worker does alone, and the groups.
type slowTable struct {
	Alone  []float64 // milliseconds a segment, of one worker without delay
	Groups []slowGroup
}

func slowTableOf(all []slowed) (t slowTable) {
	for _, runs := range gather(all, func(r slowed) [2]float64 { return [2]float64{r.Delay, float64(r.Workers)} }) {
		if runs[0].Delay == 0 {
			t.Alone = values(runs, func(r slowed) float64 { return 1000 / r.Rate() })
			continue
		}
		t.Groups = append(t.Groups, slowGroup{Workers: runs[0].Workers, Runs: runs})
	}
	if len(t.Alone) > 0 {
		for i, g := range t.Groups {
			t.Groups[i].Ideal = 1000 * float64(g.Workers) / (g.Runs[0].Delay + median(t.Alone))
		}
	}
	return t
}

func (g slowGroup) Rate() []float64 { return values(g.Runs, slowed.Rate) }
func (g slowGroup) CPU() []float64 { // milliseconds a segment
	return values(g.Runs, func(r slowed) float64 { return 1000 * r.CPU / float64(r.Segments) })
}
func (g slowGroup) Requests() []float64 { // a segment
	return values(g.Runs, func(r slowed) float64 { return float64(r.Requests) / float64(r.Segments) })
}
func (g slowGroup) Share() []float64 { // of the ideal, in percent
	return values(g.Runs, func(r slowed) float64 { return 100 * r.Rate() / g.Ideal })
}

func slowFuncs() template.FuncMap {
	return template.FuncMap{"slowTable": slowTableOf, "failed": func(r slowed) int {
		n := 0
		for _, times := range r.Failed {
			n += times
		}
		return n
	}}
}

func slowPlots(raw []byte) (map[string]string, error) {
	var m measured[slowed]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	measured, ideal := line{Label: "measured"}, line{Label: "ideal: workers / (50 ms + the time alone)"}
	for _, g := range slowTableOf(m.Result).Groups {
		measured.Points = append(measured.Points, point{float64(g.Workers), g.Rate()})
		ideal.Points = append(ideal.Points, point{float64(g.Workers), []float64{g.Ideal}})
	}
	title := "A store that takes 50 ms a request, of which 1 % fail: segments of 1 MB"
	return map[string]string{"slow": lineChart(title, axes{X: "workers", Y: "segments/s"}, []line{measured, ideal})}, nil
}
