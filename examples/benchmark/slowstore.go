package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

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
