package sftp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	dialTime  = 20 * time.Second // to connect and to log in
	idleLimit = 2 * time.Minute  // without requests, after which the connection is closed
)

// pool keeps one SSH connection to the server, and makes a new one when it is gone.
type pool struct {
	to        target
	keepalive time.Duration

	mu      sync.Mutex
	current *line
	dialing *dialing
}

// dialing is one attempt to connect, which all requests wait for together.
type dialing struct {
	done chan struct{}
	line *line
	err  error
}

// line is one SSH connection.
type line struct {
	conn   net.Conn
	client *ssh.Client
	slots  chan struct{} // as many as there may be sessions in use
	gone   chan struct{} // closed when the connection has ended, with why
	why    error

	mu       sync.Mutex
	idle     []*session
	sessions int // open, or being opened
	requests int // that use it
	used     time.Time
	closed   bool // by us
}

// line returns the live connection; the caller leaves it. Connecting is no one request's business: it goes
// on when the one that began it has been cancelled.
func (p *pool) line(ctx context.Context) (*line, error) {
	p.mu.Lock()
	if p.current != nil && p.current.enter() {
		defer p.mu.Unlock()
		return p.current, nil
	}
	d := p.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		go p.dial(d)
	}
	p.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if d.err != nil {
		return nil, d.err
	}
	if !d.line.enter() {
		return nil, d.line.lost()
	}
	return d.line, nil
}

func (p *pool) dial(d *dialing) {
	d.line, d.err = p.connect()
	p.mu.Lock()
	p.current, p.dialing = d.line, nil
	p.mu.Unlock()
	close(d.done)
}

// enter begins a request, unless the connection has ended.
func (l *line) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gone:
		return false
	default:
	}
	if l.closed {
		return false
	}
	l.requests++
	return true
}

func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests--
	l.used = time.Now()
}

func (l *line) lost() error {
	<-l.gone
	return fmt.Errorf("the connection was lost: %w", l.why)
}

// connect dials, checks the host's key and logs in, within dialTime.
func (p *pool) connect() (*line, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	signers, release, err := p.to.signers(ctx)
	if err != nil {
		return nil, unclear(err)
	}
	defer release()
	host, err := p.to.knownHost()
	if err != nil {
		return nil, unclear(err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.to.host)
	if err != nil {
		return nil, unclear(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	config := &ssh.ClientConfig{User: p.to.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: host.check, HostKeyAlgorithms: host.algorithms}
	inner, channels, requests, err := ssh.NewClientConn(conn, p.to.host, config)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, p.to.refused(err, host, signers)
	}
	l := &line{conn: conn, client: ssh.NewClient(inner, channels, requests), slots: make(chan struct{}, maxSessions),
		gone: make(chan struct{}), used: time.Now()}
	go func() {
		l.why = l.client.Wait()
		close(l.gone)
	}()
	go l.keep(p.keepalive)
	return l, nil
}

// refused says why there is no connection.
func (to target) refused(err error, host *knownHost, signers []ssh.Signer) error {
	switch {
	case host.err != nil:
		return unclear(host.err)
	case strings.Contains(err.Error(), "unable to authenticate"): // the words of x/crypto/ssh, which has no type for it
		var keys []string
		for _, s := range signers {
			keys = append(keys, s.PublicKey().Type()+" "+ssh.FingerprintSHA256(s.PublicKey()))
		}
		return fmt.Errorf("log in as %s: %w (the server accepts none of our keys: %s)", to.user, fs.ErrPermission, strings.Join(keys, ", "))
	}
	return fmt.Errorf("connect to %s: %w", to.host, unclear(err))
}

// unclear is an error without its kind: that a key file of ours is not there must not read as if an object were not.
func unclear(err error) error { return errors.New(err.Error()) }

// keep asks the server from time to time whether it is alive, and closes the connection when it does not say so, or when
// nobody has used it for long. It ends with the connection.
func (l *line) keep(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
		}
		if l.unused() {
			l.close()
			continue
		}
		late := time.AfterFunc(every, l.close)
		_, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			l.close()
		}
	}
}

// unused says that nobody has used the connection for long, and keeps it from being used again.
func (l *line) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = l.closed || l.requests == 0 && time.Since(l.used) > idleLimit
	return l.closed
}

// close ends the connection, with all that goes on on it.
func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.conn.Close()
}

// knownHost is what is known of a host's keys.
type knownHost struct {
	known      ssh.HostKeyCallback
	files      []string
	algorithms []string // those of its known keys; nil: all
	err        error    // why its key was refused
}

func (to target) knownHost() (*knownHost, error) {
	files, err := to.knownFiles()
	if err != nil {
		return nil, err
	}
	h := &knownHost{files: files}
	if h.known, err = knownhosts.New(files...); err != nil {
		return nil, err
	}
	// A server with several keys would show one that is not in the file, unless it is told which are. The package says
	// which it knows only to somebody who comes with another.
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	stranger, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	var mismatch *knownhosts.KeyError
	if errors.As(h.known(to.host, &net.TCPAddr{}, stranger), &mismatch) {
		for _, key := range mismatch.Want {
			h.algorithms = append(h.algorithms, algorithmsOf(key)...)
		}
	}
	return h, nil
}

// check is an ssh.HostKeyCallback.
func (h *knownHost) check(address string, remote net.Addr, key ssh.PublicKey) error {
	err := h.known(address, remote, key)
	var mismatch *knownhosts.KeyError
	switch print := key.Type() + " " + ssh.FingerprintSHA256(key); {
	case err == nil:
		return nil
	case !errors.As(err, &mismatch):
		h.err = fmt.Errorf("the key of %s is refused (%s): %w", address, print, err)
	case len(mismatch.Want) == 0:
		h.err = fmt.Errorf("the host %s is not known: it is not in %s. Its key is %s: compare it with ssh-keygen -lf on the server's /etc/ssh/ssh_host_*_key.pub, then add the line: %s",
			knownhosts.Normalize(address), strings.Join(h.files, " nor "), print, knownhosts.Line([]string{address}, key))
	default:
		want := mismatch.Want[0]
		h.err = fmt.Errorf("the key of %s has changed: it is %s now, and another one stands in %s:%d. Somebody else may be answering; if the server was set up anew, put the new key there",
			knownhosts.Normalize(address), print, want.Filename, want.Line)
	}
	return h.err
}
