//go:build drills

package drill

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// wire is the way to a store: it can be cut, fall silent, be slow, or fall silent in the middle of a download.
type wire struct {
	address string
	to      string
	l       net.Listener

	mu      sync.Mutex
	changed chan struct{} // closed when the state is another one
	state   wireState
	conns   map[net.Conn]bool
	running sync.WaitGroup
}

type wireState struct {
	down   bool
	silent bool
	delay  time.Duration // before each piece of an answer
	after  int64         // bytes of answers until it is silent; 0: never
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), to: to, l: l, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	w.running.Go(w.accept)
	t.Cleanup(func() {
		l.Close()
		w.set(wireState{down: true})
		w.running.Wait()
	})
	return w
}

// set changes how it is from now on. One that is down has no connections.
func (w *wire) set(s wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	close(w.changed)
	w.changed = make(chan struct{})
	if s.down {
		for c := range w.conns {
			c.Close()
		}
	}
}

func (w *wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		w.running.Go(func() { w.serve(c) })
	}
}

func (w *wire) serve(c net.Conn) {
	defer c.Close()
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer server.Close()
	if !w.know(c, server) {
		return
	}
	defer w.forget(c, server)
	w.running.Go(func() {
		defer server.Close()
		defer c.Close()
		w.copy(server, c, false)
	})
	w.copy(c, server, true)
}

func (w *wire) know(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.state.down
}

func (w *wire) forget(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
	}
}

var errCut = errors.New("cut")

func (w *wire) copy(to, from net.Conn, answers bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		for rest := b[:n]; len(rest) > 0; {
			k, err := w.pass(len(rest), answers)
			if err != nil {
				return
			}
			if _, err := to.Write(rest[:k]); err != nil {
				return
			}
			rest = rest[k:]
		}
	}
}

// pass waits until bytes may go on, and says how many of them: a wire that falls silent in the middle of a download must not let all of it through first.
func (w *wire) pass(n int, answers bool) (int, error) {
	for {
		w.mu.Lock()
		s, changed := w.state, w.changed
		if answers && s.after > 0 && !s.silent {
			n = int(min(int64(n), s.after))
			w.state.after -= int64(n)
			w.state.silent = w.state.after <= 0
		}
		w.mu.Unlock()
		if s.down {
			return 0, errCut
		}
		if !s.silent {
			if answers {
				time.Sleep(s.delay)
			}
			return n, nil
		}
		<-changed
	}
}
