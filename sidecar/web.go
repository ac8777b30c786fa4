package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// webSources are what the web server shows. They are called at the same time, from any
// request, and must not wait for a network.
type webSources struct {
	Gatherer prometheus.Gatherer
	Ready    func() error // nil, or in one sentence why not
	Status   func() any   // what /status.json shows
}

// webServer serves /metrics, /livez, /readyz and /status.json.
type webServer struct {
	listener net.Listener
	log      *slog.Logger
}

// listenWeb takes the address, so that a port that is taken is known before anything else starts.
func listenWeb(ctx context.Context, address string, log *slog.Logger) (*webServer, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, withHint(fmt.Errorf("listen for web requests on %s: %w", address, bare(err)), "give another address with --listen; several clusters on one host need one each")
	}
	return &webServer{l, log}, nil
}

// Address is where the server listens.
func (s *webServer) Address() string { return s.listener.Addr().String() }

// Close gives the address back where Serve was not called.
func (s *webServer) Close() error { return s.listener.Close() }

// Serve answers until ctx ends; then requests get two seconds to finish.
func (s *webServer) Serve(ctx context.Context, src webSources) error {
	server := &http.Server{
		Handler:           webHandler(src),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var closer sync.WaitGroup
	closed := make(chan struct{})
	closer.Go(func() {
		select {
		case <-ctx.Done():
		case <-closed:
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close() //nolint // nothing is left to do about a connection that will not close
		}
	})
	err := server.Serve(s.listener)
	close(closed)
	closer.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve web requests: %w", err)
}

func webHandler(src webSources) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(src.Gatherer, promhttp.HandlerOpts{}))
	// The process lives if it answers. A probe that looked at the network would restart every
	// sidecar when the store is down, which helps nobody.
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := src.Ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.MarshalIndent(src.Status(), "", "  ")
		if err != nil {
			plain(w, http.StatusInternalServerError, "write status: "+err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(b, '\n')) // the client went away
	})
	return mux
}

func plain(w http.ResponseWriter, code int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, s) // the client went away
}
