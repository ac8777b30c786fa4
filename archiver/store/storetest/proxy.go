package storetest

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between a driver and its HTTP server. It counts requests, and spoils chosen ones.
// Signatures stay valid: the server sees the Host that the driver has signed. Where an answer sends the driver on (Location), it is
// to the proxy.
type Proxy struct {
	URL string // what the driver is given as its endpoint

	forward *httputil.ReverseProxy

	mu       sync.Mutex
	requests []Request
	spoil    func(Request) Spoil
}

// Request is one that has come to the proxy.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
}

// Spoil is what happens to a request. The zero Spoil forwards it.
type Spoil struct {
	Answer      http.HandlerFunc // instead of the server's
	ResetBefore int64            // the connection is reset after so many bytes of the request's body; the server sees nothing
	ResetAfter  bool             // the server does it, and the connection is reset instead of its answer
	CutAnswer   int64            // the connection is reset after so many bytes of the answer's body
}

// NewProxy starts a proxy to the server at the URL target. It stops with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			if rest, ok := strings.CutPrefix(answer.Header.Get("Location"), target); ok {
				answer.Header.Set("Location", p.URL+rest)
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	server.Config.ErrorLog = p.forward.ErrorLog
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Spoil asks f, from now on, what happens to each request. nil lets all pass.
func (p *Proxy) Spoil(f func(Request) Spoil) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = f
}

// Requests returns those that came since the last call.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	request := Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}
	p.mu.Lock()
	p.requests = append(p.requests, request)
	var spoil Spoil
	if p.spoil != nil {
		spoil = p.spoil(request)
	}
	p.mu.Unlock()
	switch {
	case spoil.Answer != nil:
		spoil.Answer(w, r)
	case spoil.ResetBefore > 0:
		_, _ = io.CopyN(io.Discard, r.Body, spoil.ResetBefore) // a shorter body is reset at its end
		reset(w)
	case spoil.ResetAfter:
		p.forward.ServeHTTP(httptest.NewRecorder(), r)
		reset(w)
	case spoil.CutAnswer > 0:
		answer := httptest.NewRecorder()
		p.forward.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		body := answer.Body.Bytes()
		_, _ = w.Write(body[:min(spoil.CutAnswer, int64(len(body)))])
		_ = http.NewResponseController(w).Flush()
		reset(w)
	default:
		p.forward.ServeHTTP(w, r)
	}
}

// reset ends the connection as a firewall or a dying server does. Lingering for no time makes the kernel send RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
