package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options say who may look, and how. The zero value is HTTP for everybody who reaches the address.
type Options struct {
	Username, Password string // both or neither
	Cert, Key          string // files in PEM; both or neither
}

// Server serves the sidecar's address.
type Server struct {
	listener net.Listener
	o        Options
	tls      *tls.Config // nil: HTTP
	log      *slog.Logger
}

// New makes a server for a listener, which is its own from now on. A certificate that cannot be read is an error.
func New(l net.Listener, o Options, log *slog.Logger) (*Server, error) {
	s := &Server{listener: l, o: o, log: log}
	if o.Cert == "" {
		return s, nil
	}
	c, err := readCertificate(o.Cert, o.Key, log)
	if err != nil {
		return nil, err
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close gives the address back where Serve was not called.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends; then pages are hung up on, and requests get two seconds to finish.
func (s *Server) Serve(ctx context.Context, src Sources) error {
	server := &http.Server{
		Handler:           Handler(src, s.o),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // events extend it
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig:         s.tls,
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
	var err error
	if s.tls != nil {
		err = server.ServeTLS(s.listener, "", "")
	} else {
		err = server.Serve(s.listener)
	}
	close(closed)
	closer.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve web requests: %w", err)
}
