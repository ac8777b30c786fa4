package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Sources are what the server shows. They are called at the same time, from any request. Only Cluster may wait for a network.
type Sources struct {
	Gatherer prometheus.Gatherer
	Ready    func() error                  // nil, or in one sentence why not
	Status   func() any                    // what /status.json shows
	Cluster  func(ctx context.Context) any // what the page shows; it has its own limits of time
	Changed  func() <-chan struct{}        // closed when Cluster has something new to say that should not wait; it is asked for before Cluster
}

// Handler answers every path of the package comment.
func Handler(src Sources, o Options) http.Handler {
	mux := http.NewServeMux()
	shared := newShare(src)
	// The process lives if it answers. A probe that looked at the network would restart every
	// sidecar when the store is down, which helps nobody.
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		switch err := src.Ready(); {
		case err == nil:
			plain(w, http.StatusOK, "ready")
		case !o.knows(r):
			plain(w, http.StatusServiceUnavailable, "not ready; why is told to who gives the password")
		default:
			plain(w, http.StatusServiceUnavailable, err.Error())
		}
	})
	mux.Handle("GET /metrics", o.guard(promhttp.HandlerFor(src.Gatherer, promhttp.HandlerOpts{})))
	mux.Handle("GET /status.json", o.guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		document(w, src.Status())
	})))
	mux.Handle("GET /cluster.json", o.guard(http.HandlerFunc(shared.once)))
	mux.Handle("GET /events", o.guard(http.HandlerFunc(shared.events)))
	mux.Handle("GET /{$}", o.guard(newPage()))
	return mux
}

// guard asks for the password, where there is one.
func (o Options) guard(h http.Handler) http.Handler {
	if o.Username == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !o.knows(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="walbaton", charset="UTF-8"`)
			plain(w, http.StatusUnauthorized, "this sidecar asks for web.username and web.password")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// knows says whether a request has the right name and password. It takes as long for a wrong one.
func (o Options) knows(r *http.Request) bool {
	if o.Username == "" {
		return true
	}
	name, password, _ := r.BasicAuth()
	same := func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return subtle.ConstantTimeCompare(x[:], y[:])
	}
	return same(name, o.Username)&same(password, o.Password) == 1
}

// document writes JSON for people and programs.
func document(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		plain(w, http.StatusInternalServerError, "write status: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n')) // the client went away
}

func plain(w http.ResponseWriter, code int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, s) // the client went away
}
