package storetest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Relay stands between a driver and a server that does not speak HTTP. It passes bytes, cuts connections, and goes silent.
type Relay struct {
	Address string // 127.0.0.1:port

	listener net.Listener
	mu       sync.Mutex
	target   string
	conns    map[net.Conn]bool
	silent   bool
	left     int64 // bytes towards the server until all is cut, when limited
	limited  bool
	changed  chan struct{} // closed and made anew when silent changes
	wg       sync.WaitGroup
}

// NewRelay starts a relay to the server at target. It stops with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Address: l.Addr().String(), listener: l, target: target, conns: make(map[net.Conn]bool), changed: make(chan struct{})}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.Silence(false)
		r.Cut()
		r.wg.Wait()
	})
	return r
}

// Cut resets every connection.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// CutAfter cuts once so many more bytes have gone to the server.
func (r *Relay) CutAfter(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.limited = bytes, true
}

// Silence holds back, or lets go on, all bytes both ways: nobody is told anything.
func (r *Relay) Silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent != on {
		r.silent = on
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.DialTimeout("tcp", r.target, 5*time.Second)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns[in], r.conns[out] = true, true
		r.mu.Unlock()
		r.wg.Go(func() { r.pass(out, in, true) })
		r.wg.Go(func() { r.pass(in, out, false) })
	}
}

func (r *Relay) pass(to, from net.Conn, up bool) {
	defer func() {
		_, _ = to.Close(), from.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, from)
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			r.hold()
			if up && r.spent(int64(n)) {
				r.Cut()
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold waits while there is silence.
func (r *Relay) hold() {
	for {
		r.mu.Lock()
		silent, changed := r.silent, r.changed
		r.mu.Unlock()
		if !silent {
			return
		}
		<-changed
	}
}

// spent says whether the bytes that may pass are used up.
func (r *Relay) spent(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.limited {
		return false
	}
	if r.left -= n; r.left <= 0 {
		r.limited = false
		return true
	}
	return false
}
