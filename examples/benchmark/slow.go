package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
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
	store := car.storeCPU()
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
	_, r.Load = m.stop(r.CPU + car.storeCPU() - store)
	first, last := proxy.times()
	r.Seconds, r.FirstPut = last.Sub(first).Seconds(), first.Sub(begin).Seconds()
	r.Requests, r.Failed = proxy.counted()
	_, err = car.check(ctx, s.names[:segments])
	return r, err
}

// Rate is segments a second: the first one only begins the time.
func (r slowed) Rate() float64 { return float64(r.Segments-1) / r.Seconds }

// The ways in which a request fails.
const (
	failBusy  = "503 SlowDown"
	failReset = "reset before it was passed on"
	failLost  = "reset after it was carried out"
)

// slowStore is a proxy before an S3 server. It holds each request back, and some of them fail, as those of S3 do at times.
type slowStore struct {
	url    string
	delay  time.Duration
	share  float64
	want   int
	server *http.Server
	proxy  *httputil.ReverseProxy
	served chan error

	mu       sync.Mutex
	chance   *rand.Rand // seeded: how many fail, and how, is the same in each run
	requests int
	failed   map[string]int
	stored   map[string]time.Time // when the server had stored a segment, by its name
}

func newSlowStore(endpoint string, delay time.Duration, share float64, want int) (*slowStore, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &slowStore{url: "http://" + l.Addr().String(), delay: delay, share: share, want: want, served: make(chan error, 1),
		chance: rand.New(rand.NewPCG(1, 2)), failed: map[string]int{}, stored: map[string]time.Time{}}
	s.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		Transport:      &http.Transport{MaxIdleConnsPerHost: 2 * mostWorkers},
		ModifyResponse: s.note,
	}
	s.server = &http.Server{Handler: s}
	go func() { s.served <- s.server.Serve(l) }()
	return s, nil
}

func (s *slowStore) close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// ServeHTTP waits, and then passes the request on or fails.
func (s *slowStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fails := s.draw()
	select {
	case <-time.After(s.delay):
	case <-r.Context().Done():
		return
	}
	switch fails {
	case failBusy:
		_, _ = io.Copy(io.Discard, r.Body) // as S3 does; whoever ends early gets a reset instead
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
	case failReset:
		reset(w)
	case failLost:
		s.proxy.ServeHTTP(nobody{http.Header{}}, r)
		reset(w)
	default:
		s.proxy.ServeHTTP(w, r)
	}
}

// draw counts a request, and gives how it fails; "" when it does not. Half of those that fail are answered.
func (s *slowStore) draw() (fails string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.chance.Float64() >= s.share {
		return ""
	}
	fails = []string{failBusy, failBusy, failReset, failLost}[s.chance.IntN(4)]
	s.failed[fails]++
	return fails
}

// note keeps when a segment was stored. A retry of one that is there is no news: it is refused.
func (s *slowStore) note(resp *http.Response) error {
	if resp.Request.Method != http.MethodPut || resp.StatusCode != http.StatusOK || !strings.Contains(resp.Request.URL.Path, "/wal/0") {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := path.Base(resp.Request.URL.Path)
	if _, twice := s.stored[name]; twice {
		return fmt.Errorf("%s was stored twice", name)
	}
	s.stored[name] = time.Now()
	return nil
}

func (s *slowStore) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored) >= s.want
}

func (s *slowStore) times() (first, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.stored {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last
}

func (s *slowStore) counted() (requests int, failed map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.failed
}

// reset ends a connection as a server does that dies: the client reads ECONNRESET.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// nobody takes an answer that is lost.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n nobody) WriteHeader(int)             {}

// slowGroup is the runs with one number of workers.
type slowGroup struct {
	Workers int
	Runs    []slowed
	Ideal   float64 // segments a second
}

// Slow is the table: what one worker does alone, and the groups.
type slowTable struct {
	Alone  []float64 // milliseconds a segment, of one worker without delay
	Groups []slowGroup
}

func slowTableOf(all []slowed) (t slowTable) {
	for _, r := range all {
		if r.Delay == 0 {
			t.Alone = append(t.Alone, 1000/r.Rate())
			continue
		}
		i := slices.IndexFunc(t.Groups, func(g slowGroup) bool { return g.Workers == r.Workers })
		if i < 0 {
			i = len(t.Groups)
			t.Groups = append(t.Groups, slowGroup{Workers: r.Workers})
		}
		t.Groups[i].Runs = append(t.Groups[i].Runs, r)
	}
	if len(t.Alone) > 0 {
		for i, g := range t.Groups {
			t.Groups[i].Ideal = 1000 * float64(g.Workers) / (g.Runs[0].Delay + median(t.Alone))
		}
	}
	return t
}

func (g slowGroup) values(of func(slowed) float64) (all []float64) {
	for _, r := range g.Runs {
		all = append(all, of(r))
	}
	return all
}

func (g slowGroup) Rate() []float64 { return g.values(slowed.Rate) }
func (g slowGroup) CPU() []float64 { // milliseconds a segment
	return g.values(func(r slowed) float64 { return 1000 * r.CPU / float64(r.Segments) })
}
func (g slowGroup) Requests() []float64 { // a segment
	return g.values(func(r slowed) float64 { return float64(r.Requests) / float64(r.Segments) })
}
func (g slowGroup) Share() []float64 { // of the ideal, in percent
	return g.values(func(r slowed) float64 { return 100 * r.Rate() / g.Ideal })
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
