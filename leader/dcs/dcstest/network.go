package dcstest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Way is a direction in which a Network carries.
type Way int

// The two ways.
const (
	Requests Way = iota // to the server
	Answers             // to the client
)

// Network stands between a server and the clients that dial the network's address. It carries bytes, whatever they mean, in
// the pieces that it reads: nearly always what the other side wrote at once. So a fault can be had at each moment of a call:
// when so many pieces have passed, either way.
type Network struct {
	Address string // host:port

	server  string
	running sync.WaitGroup

	mu     sync.Mutex // held while bytes are written: what tests send fits into the buffers of a socket
	closed bool
	held   [2]bool
	lines  map[*line]struct{}
	fault  func() // comes when so many pieces have passed
	left   int
}

// line is one connection of a client's, and the one that carries it on.
type line struct {
	ends     [2]*net.TCPConn // where requests and answers go; no server while the network was never whole since the client dialed
	kept     [2][]byte
	ended    [2]bool // nothing comes after what is kept
	stranded bool    // the client is gone, what it sent is not
}

// NewNetwork is one to a server's host:port. It ends with t.
func NewNetwork(t testing.TB, server string) *Network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{Address: l.Addr().String(), server: server, lines: map[*line]struct{}{}}
	n.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.accept(conn.(*net.TCPConn))
		}
	})
	t.Cleanup(func() {
		l.Close()
		n.mu.Lock()
		n.closed = true
		n.cut()
		n.mu.Unlock()
		n.running.Wait()
	})
	return n
}

// Cut breaks every open connection, on both sides, with what is on its way. New ones work.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut()
}

// Hold holds back all that goes these ways, and new connections, as a network does that loses packets: nobody is told.
func (n *Network) Hold(ways ...Way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hold(ways)
}

// Mend ends Hold. What was held back is delivered, as TCP does by sending again.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = [2]bool{}
	for l := range n.lines {
		if l.ends[Requests] == nil {
			n.connect(l)
		}
		n.deliver(l, Requests)
		n.deliver(l, Answers)
	}
}

// Strand breaks every connection for the client only, and ends Hold. What it had sent and was held back is still on its way: Late
// delivers it.
func (n *Network) Strand() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = [2]bool{}
	for l := range n.lines {
		if len(l.kept[Requests]) > 0 && l.ends[Requests] != nil {
			l.stranded = true
			l.ends[Answers].SetLinger(0)
			l.ends[Answers].Close()
		} else {
			n.drop(l, true)
		}
	}
}

// Late delivers what Strand left on its way, and says how much that was.
func (n *Network) Late() (bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.lines {
		if l.stranded {
			bytes += len(l.kept[Requests])
			l.ends[Requests].Write(l.kept[Requests])
			l.kept[Requests] = nil
		}
	}
	if bytes == 0 {
		return 0
	}
	time.Sleep(200 * time.Millisecond) // the server carries it out
	for l := range n.lines {
		if l.stranded {
			n.drop(l, true)
		}
	}
	return bytes
}

// CutAfter is Cut when so many more pieces have passed; the next one is lost. struck takes it back and says whether it has come.
func (n *Network) CutAfter(pieces int) (struck func() bool) { return n.after(pieces, n.cut) }

// HoldAfter is Hold when so many more pieces have passed.
func (n *Network) HoldAfter(pieces int, ways ...Way) (struck func() bool) {
	return n.after(pieces, func() { n.hold(ways) })
}

// StrandAfter holds requests back when so many more pieces have passed, and is Strand a moment later, when whatever is sent at once
// has been sent.
func (n *Network) StrandAfter(pieces int) (struck func() bool) {
	done := make(chan struct{})
	come := n.after(pieces, func() {
		n.hold([]Way{Requests})
		time.AfterFunc(50*time.Millisecond, func() {
			n.Strand()
			close(done)
		})
	})
	return func() bool {
		if !come() {
			return false
		}
		<-done
		return true
	}
}

func (n *Network) after(pieces int, fault func()) (struck func() bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left, n.fault = pieces, fault
	return func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		come := n.fault == nil
		n.fault = nil
		return come
	}
}

// What follows expects the lock, but for accept and carry.

func (n *Network) cut() {
	for l := range n.lines {
		n.drop(l, true)
	}
}

func (n *Network) hold(ways []Way) {
	for _, w := range ways {
		n.held[w] = true
	}
}

func (n *Network) accept(client *net.TCPConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		client.Close()
		return
	}
	l := &line{ends: [2]*net.TCPConn{Answers: client}}
	n.lines[l] = struct{}{}
	if n.held == [2]bool{} {
		n.connect(l)
	}
	n.running.Go(func() { n.carry(l, Requests, client) })
}

func (n *Network) connect(l *line) {
	conn, err := net.DialTimeout("tcp", n.server, time.Second)
	if err != nil {
		n.drop(l, true)
		return
	}
	server := conn.(*net.TCPConn)
	l.ends[Requests] = server
	n.running.Go(func() { n.carry(l, Answers, server) })
}

func (n *Network) carry(l *line, w Way, from *net.TCPConn) {
	buffer := make([]byte, 64<<10)
	for {
		size, err := from.Read(buffer)
		n.mu.Lock()
		if size > 0 {
			n.piece(l, w, buffer[:size])
		}
		if err != nil {
			l.ended[w] = true
			n.deliver(l, w)
		}
		n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (n *Network) piece(l *line, w Way, b []byte) {
	switch {
	case n.fault == nil:
	case n.left > 0:
		n.left--
	default:
		come := n.fault
		n.fault = nil
		come()
	}
	l.kept[w] = append(l.kept[w], b...)
	n.deliver(l, w)
}

// deliver passes on what is kept. The end of one way is the end of both, as nobody here closes one only; who gave up before the
// network was whole has never reached the server.
func (n *Network) deliver(l *line, w Way) {
	if _, open := n.lines[l]; !open || l.stranded {
		return
	}
	if l.ends[w] == nil {
		if l.ended[w] {
			n.drop(l, false)
		}
		return
	}
	if n.held[w] {
		return
	}
	l.ends[w].Write(l.kept[w]) // its end shows on the other way
	l.kept[w] = nil
	if l.ended[w] {
		n.drop(l, false)
	}
}

// drop closes both sides; a reset tells them that something is lost.
func (n *Network) drop(l *line, reset bool) {
	delete(n.lines, l)
	for _, c := range l.ends {
		if c != nil {
			if reset {
				c.SetLinger(0)
			}
			c.Close()
		}
	}
}
