package zookeeper

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	dialTimeout = 5 * time.Second // for one host, with its TLS handshake
	smallBuffer = 256 << 10       // for a session that moves one value; the library would take 3 MB
)

var (
	errCut     = errors.New("connection was lost") // the end of a reading session
	errExpired = errors.New("session has ended")   // a lease was not extended in time, by our clock or the server's
)

// session is one session of the library, with what the library lacks: calls that end with their
// context, a time after which it ends by itself, and an end from which it does not come back. (The
// library would silently go on with a new session; a request meant for the old one must not be
// carried out there.)
type session struct {
	conn  *zk.Conn
	tls   *tls.Config
	rota  *rota
	once  bool              // ends with its connection
	touch func(path string) // is told of watch events, before any later answer is given; must not block
	busy  chan struct{}     // one entry for each call under way

	ctx    context.Context // of dials
	cancel context.CancelFunc
	up     chan struct{} // closed when the server has opened the session
	over   chan struct{} // closed when it is to end

	mu       sync.Mutex
	wire     *wire // the present connection
	id       int64
	granted  time.Duration // the session's time, by the server's word
	failure  error         // what the last try to connect met
	why      error         // why it is over
	deadline time.Time     // with timer, of a lease
	timer    *time.Timer
}

// options of a session.
type options struct {
	ttl   time.Duration
	lease bool // ends when it was not extended for the granted time
	touch func(path string)
}

// open gives a session that the server has opened, and that has said who it is.
func (c *Client) open(ctx context.Context, o options) (*session, error) {
	s, err := c.begin(o)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	select {
	case <-s.up:
		for _, a := range c.auth {
			if err = add(ctx, s, a); err != nil {
				err = fmt.Errorf("authenticate by %s: %w", a.Scheme, err)
				break
			}
		}
	case <-s.over:
		err = s.reason()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		c.hosts.skip(s.rota.host())
		s.end(err)
		if why := s.lastFailure(); why != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", ctx.Err(), why)
		}
		return nil, fmt.Errorf("connect to %s: %w", s.rota.host(), err)
	}
	return s, nil
}

func add(ctx context.Context, s *session, a Auth) error {
	_, err := call(ctx, s, func(conn *zk.Conn) (struct{}, error) {
		return struct{}{}, conn.AddAuth(a.Scheme, []byte(a.Credential))
	})
	return err
}

// begin starts the library and the goroutine that ends it.
func (c *Client) begin(o options) (*session, error) {
	s := &session{
		tls: c.tls, once: !o.lease, touch: o.touch,
		up: make(chan struct{}), over: make(chan struct{}),
	}
	s.rota = &rota{hosts: c.hosts, at: c.hosts.start() - 1, s: s}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	calls, largest := 16, 0 // at once; answers of any size
	if o.lease {
		calls, largest = 1, smallBuffer
	}
	s.busy = make(chan struct{}, calls)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.cancel()
		return nil, errClosed
	}
	timeout := (o.ttl + time.Millisecond - 1).Truncate(time.Millisecond)
	conn, events, err := zk.Connect(c.hosts.all, timeout,
		zk.WithDialer(s.dial), zk.WithHostProvider(s.rota), zk.WithEventCallback(s.event),
		zk.WithLogger(silent{}), zk.WithLogInfo(false), // errors come back from the calls
		zk.WithMaxConnBufferSize(smallBuffer), zk.WithMaxBufferSize(largest))
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.conn = conn
	if o.lease {
		s.mu.Lock()
		s.deadline = time.Now().Add(o.ttl)
		s.timer = time.AfterFunc(o.ttl, s.expire)
		s.mu.Unlock()
	}
	c.sessions[s] = struct{}{}
	c.running.Go(func() {
		<-s.over
		s.shut(events)
		c.mu.Lock()
		delete(c.sessions, s)
		c.mu.Unlock()
	})
	return s, nil
}

// shut ends the library: in order if it is connected, so that the server drops our znodes at
// once, else by force. It returns when nothing of it runs any more.
func (s *session) shut(events <-chan zk.Event) {
	s.conn.Close() // waits for the answer, some seconds at most
	s.cancel()
	s.cut()
	for range events { // closed when the library's loop has ended
	}
	for range cap(s.busy) { // every call has returned, and there will be no other
		s.busy <- struct{}{}
	}
}

// end makes the session end, on the side. The first reason stays.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(why)
}

func (s *session) endLocked(why error) {
	if s.why != nil {
		return
	}
	s.why = why
	close(s.over)
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

func (s *session) ended() bool { return s.reason() != nil }

func (s *session) lastFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// expire is the timer's: a call of it that was under way when the lease was extended does nothing.
func (s *session) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.deadline) {
		s.endLocked(errExpired)
	}
}

// extend moves the end to the granted time from now; false when the lease has ended.
func (s *session) extend() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return 0, false
	}
	s.deadline = time.Now().Add(s.granted)
	s.timer.Reset(s.granted)
	return s.granted, true
}

// opened says which session the server opened, and for how long.
func (s *session) opened() (id int64, granted time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id, s.granted
}

// event runs inside the library, between two packets.
func (s *session) event(e zk.Event) {
	if e.Type > 0 && s.touch != nil {
		s.touch(e.Path)
	}
	if e.Type != zk.EventSession {
		return
	}
	switch e.State {
	case zk.StateHasSession:
		s.mu.Lock()
		s.id, s.granted = s.wire.granted()
		s.mu.Unlock()
		select {
		case <-s.up:
		default:
			close(s.up)
		}
	case zk.StateExpired:
		s.end(errExpired)
	case zk.StateDisconnected:
		if s.once && s.rota.connected() {
			s.end(errCut)
		}
	}
}

// dial is the library's only way to the network. A session that is over gets no connection.
func (s *session) dial(_, address string, _ time.Duration) (net.Conn, error) {
	conn, err := s.connect(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.why != nil && (s.once || s.why == errExpired) {
		conn.raw.Close()
		err = s.why
	}
	if err != nil {
		s.failure = err
		return nil, err
	}
	s.failure = nil
	s.wire = conn
	return conn, nil
}

func (s *session) connect(address string) (*wire, error) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if s.tls == nil {
		return &wire{Conn: raw, raw: raw}, nil
	}
	t := s.tls.Clone()
	t.ServerName, _, _ = net.SplitHostPort(address)
	secure := tls.Client(raw, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return &wire{Conn: secure, raw: raw}, nil
}

// cut breaks the connection. All calls under way end, and the library goes to the next host.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wire != nil {
		s.wire.raw.Close()
	}
}

// call makes one request of the library. It ends with ctx, and then cuts the connection, so
// that the request does, too; whether it was carried out is not known.
func call[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	select {
	case s.busy <- struct{}{}:
	case <-s.over:
		return none, s.reason()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := f(s.conn)
		<-s.busy
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		if a.err != nil && ctx.Err() != nil {
			return none, ctx.Err()
		}
		return a.v, s.explain(a.err)
	case <-ctx.Done():
		if s.once {
			s.end(errCut)
		}
		s.cut()
		return none, ctx.Err()
	}
}

// explain says more than the library does about a connection that could not be made.
func (s *session) explain(err error) error {
	if errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrConnectionClosed) {
		if why := s.lastFailure(); why != nil {
			return fmt.Errorf("%w: %w", err, why)
		}
	}
	return err
}

// wire notes what the server granted: the first answer on a connection holds its length and a
// version (4 bytes each), the session's time in milliseconds (4) and its number (8). The library
// keeps the time to itself.
type wire struct {
	net.Conn
	raw  net.Conn // without TLS, whose Close may wait
	head []byte
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if missing := 20 - len(w.head); missing > 0 {
		w.head = append(w.head, b[:min(n, missing)]...)
	}
	return n, err
}

// granted is called between the first answer and the next read.
func (w *wire) granted() (id int64, d time.Duration) {
	if len(w.head) < 20 {
		return 0, 0
	}
	d = time.Duration(binary.BigEndian.Uint32(w.head[8:])) * time.Millisecond
	return int64(binary.BigEndian.Uint64(w.head[12:])), d
}

// silent is a log that nobody reads.
type silent struct{}

func (silent) Printf(string, ...any) {}
