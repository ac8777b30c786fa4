package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	"github.com/walbaton/walbaton/leader/dcs"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
	"github.com/walbaton/walbaton/leader/dcs/static"
	"github.com/walbaton/walbaton/sidecar/web"
)

// testCluster is a Patroni scope and an archive in memory, for whole sidecars under testing/synctest: every loop of app runs,
// on a clock that jumps. What cannot wait in there is handed in: the listeners are pipes, PostgreSQL is a value, and pg_wal
// is a real folder of which the test says when it has changed.
type testCluster struct {
	t     *testing.T
	scope *dcsmem.Server // nil: a single PostgreSQL without Patroni
	store *storemem.Store
	far   *farArchive                                        // a second archive; nil: there is one
	spoil atomic.Pointer[func(storemem.Call) storemem.Fault] // requests to the archive, of all nodes

	rest bool // dcs.kind of the sidecars that are made from now on
}

func newTestCluster(t *testing.T) *testCluster {
	c := &testCluster{t: t, scope: dcsmem.New(time.Now), store: storemem.New("archive")}
	c.heal()
	c.scope.Put("initialize", fmt.Sprint(uint64(testSystemID)))
	return c
}

// spoils does the same to every request to the archive; heal ends it.
func (c *testCluster) spoils(f storemem.Fault) {
	c.spoilsSome(func(storemem.Call) storemem.Fault { return f })
}
func (c *testCluster) heal() { c.spoils(storemem.Fault{}) }

func (c *testCluster) spoilsSome(f func(storemem.Call) storemem.Fault) { c.spoil.Store(&f) }

// patroni writes what Patroni would: the leader key and every member's.
func (c *testCluster) patroni(leader string, timeline wal.Timeline, members ...string) {
	for _, m := range members {
		role, more := "replica", `,"replication_state":"streaming"`
		if m == leader {
			role, more = "primary", ""
		}
		c.scope.Put("members/"+m, fmt.Sprintf(`{"conn_url":"postgres://%s:5432/postgres","state":"running","role":%q,"version":"4.1.4","xlog_location":100000,"timeline":%d%s}`,
			m, role, timeline, more))
	}
	c.scope.Put("leader", leader)
}

// reading is what stands in the DCS.
func (c *testCluster) reading() dcs.Reading {
	r, err := c.scope.Client().Read(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// archived says whether the archive has a file of timeline t.
func (c *testCluster) archived(name string) bool {
	for info, err := range c.store.List(c.t.Context(), fmt.Sprintf("shop/%d/", uint64(testSystemID)), "") {
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.HasSuffix(info.Key, "/"+name) {
			return true
		}
	}
	return false
}

// sidecar is one node: an app with its loops, and a server that does as the test says.
type sidecar struct {
	*app
	t      *testing.T
	server *testServer
	woken  chan error // pg_wal has changed; an error ends the watch
	cut    atomic.Int32
	log    *logBuffer
	read   int // lines of it that a test has looked at

	webFront, socketFront *pipeListener

	mu    sync.Mutex
	wrote []time.Time // when its record in the DCS became another one

	cancel context.CancelFunc
	done   chan error
}

// newSidecar makes a node that does not run yet. Its server has an empty pg_wal.
func (c *testCluster) newSidecar(name string) *sidecar {
	t := c.t
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, sub := range []string{"global", "pg_wal/archive_status"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir, "global/pg_control", string(controlFile(1<<20)))
	cfg, err := loadConfig(sources{func(string) string { return "" }, map[string]string{"archive": "file:///nowhere", "scope": "shop", "name": name,
		"dcs-kind": "static", "postgres-data-dir": dir, "workers": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	var d dcs.DCS = static.New(name, "")
	s := &sidecar{t: t, woken: make(chan error, 1), log: &logBuffer{}, done: make(chan error, 1),
		webFront: newPipeListener(name + ":9847"), socketFront: newPipeListener("/run/" + name)}
	log := newLogger(s.log, 0)
	s.app = blankApp(cfg, log)
	if s.web, err = web.New(s.webFront, web.Options{}, log); err != nil {
		t.Fatal(err)
	}
	s.socket = &socketServer{s.socketFront, func(net.Conn) error { return nil }, nil, log}
	wire := func(call storemem.Call) storemem.Fault { return (*c.spoil.Load())(call) }
	s.app.stores = []*oneStore{{required: true, store: surround(storemem.NewFaults(c.store, wire), cfg, store.NewMetrics(s.metrics), log)}}
	if c.far != nil {
		s.app.stores = c.far.stores(c.store, name, cfg, log)
	}
	if c.scope != nil {
		s.cfg.DCS.Kind = ""
		var scope dcs.DCS = &noted{c.scope.Client(), s}
		if c.rest {
			s.cfg.DCS.Kind, scope = "rest", hearsay{static.New(name, ""), scope}
		}
		d = dcsmem.NewFaulty(scope, func(dcsmem.Op) dcsmem.Fault { return dcsmem.Fault(s.cut.Load()) })
	}
	if err := s.join(d); err != nil {
		t.Fatal(err)
	}
	s.server = &testServer{change: s.serverChanged, srv: archiver.Server{State: archiver.ServerUnknown}}
	s.pg, s.watch = s.server, s.watchFolder
	s.restorer, err = archiver.NewRestorer(archiver.RestoreOptions{Own: archiver.Source{Store: s.app.main(), Scope: "shop"}, DataDir: dir,
		Oracle: s.scope, Kept: filepath.Join(cfg.KeepDir, "histories"), Member: name, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// primary and standby say what the server is; w says how far it is.
func (s *sidecar) primary(w *waltest.Writer) { s.is(w, archiver.ServerPrimary, "") }

func (s *sidecar) standby(w *waltest.Writer, of string) { s.is(w, archiver.ServerStandby, of) }

func (s *sidecar) stopped(w *waltest.Writer) { s.is(w, archiver.ServerStopped, "") }

func (s *sidecar) is(w *waltest.Writer, state archiver.ServerState, sender string) {
	line := w.History()
	srv := archiver.Server{State: state, SQL: state != archiver.ServerStopped, SystemID: testSystemID, Major: 15, SegmentSize: 1 << 20,
		Timeline: line.Timeline, Flush: w.Pos(), ArchiveMode: "always"}
	if sender != "" {
		srv.Receiver = archiver.Receiver{Streaming: true, Timeline: line.Timeline, Host: sender, Port: 5432}
	}
	if line.Timeline > 1 {
		s.file(wal.HistoryName(line.Timeline).String(), line.Bytes())
	}
	for _, g := range w.Full() {
		if !exists(filepath.Join(s.pgWAL(), g.String())) {
			s.file(g.String(), w.Segment(g))
		}
	}
	s.server.set(srv)
	s.look(nil)
}

// file puts a file into pg_wal that PostgreSQL wants archived.
func (s *sidecar) file(name string, b []byte) {
	s.t.Helper()
	writeFile(s.t, s.pgWAL(), name, string(b))
	writeFile(s.t, filepath.Join(s.pgWAL(), "archive_status"), name+".ready", "")
}

// look tells the sidecar that pg_wal has changed; an error ends its watch.
func (s *sidecar) look(err error) {
	select {
	case s.woken <- err:
	default:
	}
}

func (s *sidecar) watchFolder(ctx context.Context, wake func()) error {
	wake()
	for {
		select {
		case err := <-s.woken:
			if err != nil {
				return err
			}
			wake()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sidecar) start() {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel = cancel
	go func() { s.done <- s.Run(ctx) }()
}

// stop ends the sidecar and says how long that took.
func (s *sidecar) stop() time.Duration {
	s.t.Helper()
	began := time.Now()
	s.cancel()
	if err := <-s.done; err != nil {
		s.t.Errorf("%s: Run returned %v", s.cfg.Name, err)
	}
	return time.Since(began)
}

// push is walbaton-wal push: what the socket answers, without the dots, and after how long.
func (s *sidecar) push(name string) (answer string, took time.Duration) {
	began := time.Now()
	c := s.socketFront.dial()
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%q %q %q \"\"\n", "walbaton/1", "push", filepath.Join(s.pgWAL(), name)); err != nil {
		return err.Error(), time.Since(began)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		line = err.Error()
	}
	return strings.TrimLeft(strings.TrimSpace(line), "."), time.Since(began)
}

// ready asks /readyz over HTTP.
func (s *sidecar) readyz() string {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.webFront.dial(), nil }}}
	r, err := client.Get("http://" + s.cfg.Name + "/readyz")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// metric is the value of a metric without labels.
func (s *sidecar) metric(name string) float64 {
	s.t.Helper()
	families, err := s.gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
}

// until waits until something holds, and says how long that took.
func (s *sidecar) until(limit time.Duration, what string, holds func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			s.t.Fatalf("%s: within %v it did not come that %s; log:\n%s", s.cfg.Name, limit, what, strings.Join(s.log.lines(), "\n"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func (s *sidecar) holds() bool { return s.elector.Status().Holding }

// testServer is a PostgreSQL whose state the test sets.
type testServer struct {
	change func()
	mu     sync.Mutex
	srv    archiver.Server
}

func (s *testServer) Run(ctx context.Context) { <-ctx.Done() }

func (s *testServer) Read(context.Context) archiver.Server { return s.Server() }

func (s *testServer) Commands() commands {
	return commands{"/usr/local/bin/walbaton-wal push %p", "/usr/local/bin/walbaton-wal fetch %f %p"}
}

func (s *testServer) Server() archiver.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

func (s *testServer) set(srv archiver.Server) {
	s.mu.Lock()
	s.srv = srv
	s.mu.Unlock()
	s.change()
}

// hearsay is what package rest makes of Patroni's REST API: Patroni's keys, and the own record and baton.
type hearsay struct {
	*static.DCS
	scope dcs.DCS
}

func (h hearsay) Read(ctx context.Context) (dcs.Reading, error) {
	said, err := h.scope.Read(ctx)
	if err != nil {
		return dcs.Reading{}, err
	}
	r, err := h.DCS.Read(ctx)
	r.Nodes, r.Revision = said.Nodes, said.Revision
	return r, err
}

func (h hearsay) Wait(ctx context.Context, since dcs.Reading) error { return h.scope.Wait(ctx, since) }

// noted is a DCS that takes a millisecond for each request, as none takes no time, and remembers when a record was written
// with another content than before.
type noted struct {
	dcs.DCS
	s *sidecar
}

func (n *noted) Read(ctx context.Context) (dcs.Reading, error) {
	if err := sleep(ctx, time.Millisecond); err != nil {
		return dcs.Reading{}, err
	}
	return n.DCS.Read(ctx)
}

func (n *noted) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if err := sleep(ctx, time.Millisecond); err != nil {
		return dcs.Lease{}, err
	}
	return n.DCS.Claim(ctx, l)
}

func (n *noted) Release(ctx context.Context, l dcs.Lease) error {
	if err := sleep(ctx, time.Millisecond); err != nil {
		return err
	}
	return n.DCS.Release(ctx, l)
}

func (n *noted) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := sleep(ctx, time.Millisecond); err != nil {
		return err
	}
	before, err := n.DCS.Read(ctx)
	if err == nil && ttl > 0 && before.Records[member].Value != value {
		n.s.mu.Lock()
		n.s.wrote = append(n.s.wrote, time.Now())
		n.s.mu.Unlock()
	}
	return n.DCS.Announce(ctx, member, value, ttl)
}

func (s *sidecar) writes() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrote)
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// lines gives the lines without their times.
func (b *logBuffer) lines() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range strings.Lines(b.text.String()) {
		_, l, _ = strings.Cut(strings.TrimSpace(l), " ")
		out = append(out, l)
	}
	return out
}

// count says how many lines have this message.
func (b *logBuffer) count(msg string) (n int) {
	for _, l := range b.lines() {
		if strings.Contains(l, fmt.Sprintf("msg=%q", msg)) {
			n++
		}
	}
	return n
}

// pipeListener is a net.Listener whose connections are pipes.
type pipeListener struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener(name string) *pipeListener {
	return &pipeListener{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr  { return l }
func (l *pipeListener) Network() string { return "pipe" }
func (l *pipeListener) String() string  { return l.name }

// dial gives the client's end of a connection; a closed one when nobody listens.
func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.closed:
		client.Close()
	}
	return client
}
