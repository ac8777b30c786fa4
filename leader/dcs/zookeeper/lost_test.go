//go:build servers

package zookeeper

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// network stands between one client and the server. It may lose the answers of the server, or
// keep what the client sends and deliver it late.
type network struct {
	address string
	server  string

	mu     sync.Mutex
	lose   bool // nothing reaches the client
	keep   bool // nothing reaches the server
	closed bool
	kept   []func()
	conns  []net.Conn
	wg     sync.WaitGroup
}

func newNetwork(t *testing.T, s *server) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{address: l.Addr().String(), server: s.address}
	n.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.wg.Go(func() { n.carry(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		n.mu.Lock()
		n.closed = true
		for _, c := range n.conns {
			c.Close()
		}
		n.mu.Unlock()
		n.wg.Wait()
	})
	return n
}

func (n *network) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", n.server)
	if err != nil {
		return
	}
	n.mu.Lock()
	n.conns = append(n.conns, client, server)
	if n.closed {
		client.Close()
		server.Close()
	}
	n.mu.Unlock()
	n.wg.Go(func() {
		io.Copy(part(func(b []byte) { n.toClient(client, b) }), server)
		client.Close()
	})
	io.Copy(part(func(b []byte) { n.toServer(server, b) }), client)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.kept) == 0 { // else the late delivery needs the connection
		server.Close()
	}
}

type part func(b []byte)

func (p part) Write(b []byte) (int, error) {
	p(b)
	return len(b), nil
}

func (n *network) toClient(c net.Conn, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.lose {
		c.Write(b)
	}
}

func (n *network) toServer(c net.Conn, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keep {
		b = append([]byte(nil), b...)
		n.kept = append(n.kept, func() { c.Write(b) })
		return
	}
	c.Write(b)
}

func (n *network) set(lose, keep bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose, n.keep = lose, keep
}

// late delivers what was kept.
func (n *network) late() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, send := range n.kept {
		send()
	}
	n.kept = nil
	time.Sleep(100 * time.Millisecond) // the server has it
}

// claimThrough claims while the network is bad; the session is there before.
func claimThrough(t *testing.T, d *Client, n *network, lose, keep bool, l dcs.Lease) {
	t.Helper()
	d.claims.sem <- struct{}{}
	_, err := d.prepare(soon(t), l)
	<-d.claims.sem
	if err != nil {
		t.Fatal(err)
	}
	n.set(lose, keep)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = d.Claim(ctx, l)
	n.set(false, false)
	var held *dcs.HeldError
	if err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, &held) {
		t.Fatalf("got %v, want an error that says nothing", err)
	}
}

// TestClaimAnswerLost is about P4: an answer that is lost must neither strand the baton nor
// give it twice.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	clients := func(t *testing.T) (d, other *Client, n *network) {
		n = newNetwork(t, s)
		d = open(t, Config{Hosts: []string{n.address}, Prefix: prefixOf(t)})
		other = open(t, Config{Hosts: []string{s.address}, Prefix: prefixOf(t)})
		l, err := other.Claim(soon(t), dcs.Lease{Holder: "n9", TTL: time.Minute}) // makes the directories
		if err == nil {
			err = other.Release(soon(t), l)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d, other, n
	}
	want := dcs.Lease{Holder: "n1", TTL: 30 * time.Second}
	var held *dcs.HeldError
	t.Run("the retry recognises its own znode", func(t *testing.T) {
		d, other, n := clients(t)
		claimThrough(t, d, n, true, false, want)
		r, err := other.Read(soon(t))
		if err != nil || r.Baton.Holder != "n1" {
			t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
		}
		l, err := d.Claim(soon(t), want)
		if err != nil || l.Epoch != r.Baton.Epoch {
			t.Fatalf("retry: %+v, %v; want epoch %d", l, err, r.Baton.Epoch)
		}
		if err := d.Release(soon(t), l); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("nobody goes on: it is free after its TTL", func(t *testing.T) {
		d, other, n := clients(t)
		claimThrough(t, d, n, true, false, dcs.Lease{Holder: "n1", TTL: time.Second})
		if _, err := other.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 30 * time.Second}); !errors.As(err, &held) {
			t.Fatalf("another process of the same name: %v, want it held", err)
		}
		time.Sleep(2500 * time.Millisecond)
		if _, err := other.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 30 * time.Second}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Claim(soon(t), want); !errors.As(err, &held) {
			t.Errorf("the first one, later: %v, want it held", err)
		}
	})
	t.Run("a claim carried out after the retry changes nothing", func(t *testing.T) {
		d, other, n := clients(t)
		claimThrough(t, d, n, false, true, want)
		l, err := d.Claim(soon(t), want)
		if err != nil {
			t.Fatal(err)
		}
		n.late()
		if got, err := d.Claim(soon(t), l); err != nil || got != l {
			t.Errorf("extension: %+v, %v", got, err)
		}
		if err := d.Release(soon(t), l); err != nil {
			t.Fatal(err)
		}
		if r, err := other.Read(soon(t)); err != nil || r.Baton.Held() {
			t.Errorf("after the release: %+v, %v", r.Baton, err)
		}
	})
	t.Run("a claim carried out after the baton went to another is void", func(t *testing.T) {
		d, other, n := clients(t)
		claimThrough(t, d, n, false, true, want)
		theirs, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Claim(soon(t), want); !errors.As(err, &held) {
			t.Fatalf("retry: %v, want it held", err)
		}
		if err := other.Release(soon(t), theirs); err != nil {
			t.Fatal(err)
		}
		n.late() // its session was closed with the answer that n2 holds it
		if r, err := other.Read(soon(t)); err != nil || r.Baton.Held() {
			t.Errorf("after the late claim: %+v, %v", r.Baton, err)
		}
	})
}

// TestCutOff: a holder that is cut off loses the baton by the server's clock; connected again it
// learns that.
func TestCutOff(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	n := newNetwork(t, s)
	d := open(t, Config{Hosts: []string{n.address}, Prefix: "/service/batman/"})
	other := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	n.set(true, true)
	start := time.Now()
	var theirs dcs.Lease
	for err = errors.New(""); err != nil; time.Sleep(20 * time.Millisecond) {
		if theirs, err = other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute}); err != nil && time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 1900*time.Millisecond {
		t.Errorf("it was free after %v", took)
	}
	n.set(false, false)
	for end := time.Now().Add(10 * time.Second); !errors.Is(err, dcs.ErrLost); _, err = d.Claim(soon(t), l) {
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if _, err := other.Claim(soon(t), theirs); err != nil {
		t.Errorf("the successor: %v", err)
	}
}

// TestLateRecord: a write whose answer was lost, and that is carried out late, does not undo a
// newer one.
func TestLateRecord(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	n := newNetwork(t, s)
	d := open(t, Config{Hosts: []string{n.address}, Prefix: "/service/batman/"})
	other := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	say := func(v string) error { return d.Announce(soon(t), "n1", v, time.Minute) }
	value := func() string {
		r, err := other.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return r.Records["n1"].Value
	}
	for i, keep := range []bool{true, false, true, false} {
		if err := say("new"); err != nil {
			t.Fatal(err)
		}
		n.set(!keep, keep)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := d.Announce(ctx, "n1", "old", time.Minute); err == nil {
			t.Error("announced without an answer")
		}
		cancel()
		n.set(false, false)
		if err := say("new"); err != nil {
			t.Fatal(err)
		}
		n.late()
		if got := value(); got != "new" {
			t.Errorf("round %d: record %q, want the newer one", i, got)
		}
	}
}
