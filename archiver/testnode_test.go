package archiver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

const testSystem = 7710524633316114262

// testNode is an Archiver with a real pg_wal on disk, over a store in memory that counts requests.
type testNode struct {
	t testing.TB
	*Archiver
	dir   string
	calls *calls

	mu      sync.Mutex
	cluster Cluster
	srv     Server
	silent  bool // the DCS does not answer
}

// calls counts requests by operation, and can make the store fail.
type calls struct {
	mu   sync.Mutex
	n    map[mem.Op]int
	down bool
	keys []string
	bad  func(mem.Call) mem.Fault // beside down
}

func (c *calls) decide(call mem.Call) mem.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[call.Op]++
	c.keys = append(c.keys, string(call.Op)+" "+call.Key)
	if c.bad != nil {
		return c.bad(call)
	}
	return mem.Fault{Drop: c.down}
}

// take gives the counts since the last time.
func (c *calls) take() map[mem.Op]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n, c.keys = map[mem.Op]int{}, nil
	return n
}

// spoil says what happens to each request from now on.
func (c *calls) spoil(bad func(mem.Call) mem.Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad = bad
}

func (c *calls) fail(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// newTestNode begins the archive at the segment that w writes first, with n1 as Patroni's leader.
func newTestNode(t testing.TB, s store.Store, self string, w *waltest.Writer) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: t.TempDir(), calls: &calls{n: map[mem.Op]int{}}}
	if err := os.Mkdir(filepath.Join(n.dir, "archive_status"), 0o700); err != nil {
		t.Fatal(err)
	}
	line := w.History()
	n.cluster = Cluster{Answered: true, Self: self, Leader: "n1", LeaderHost: "10.0.0.1", LeaderPort: 5432, LeaderLive: true, Line: line, LeaderTimeline: line.Timeline, Marks: map[wal.Timeline]uint64{}}
	n.srv = Server{State: ServerStandby, SQL: true, SystemID: testSystem, SegmentSize: 1 << 20, Timeline: line.Timeline, Flush: w.Pos(), ArchiveMode: "always",
		Receiver: Receiver{Streaming: true, Timeline: line.Timeline, Host: "10.0.0.1", Port: 5432}}
	if self == "n1" {
		n.srv.State, n.srv.Receiver = ServerPrimary, Receiver{}
	}
	q, err := queue.Open(n.dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	counted := mem.NewFaults(s, n.calls.decide)
	if self == "n1" {
		id := Identity{Scope: "lab", SystemID: testSystem, SegmentSize: 1 << 20, Floor: Floor{Timeline: 1, LSN: 1 << 20}, Member: self}
		if err := CreateArchive(t.Context(), s, id); err != nil {
			t.Fatal(err)
		}
	}
	to, keys := encryption(t)
	a, err := OpenArchive(t.Context(), counted, "lab", testSystem, keys...)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Member: self, Workers: 2, Codec: seal.Zstd, Limits: Limits{PushWait: 2 * time.Second, ShutdownWait: time.Second, StoppedWait: time.Second},
		Grace: time.Second, KeepDir: t.TempDir(), EncryptTo: to}
	if n.Archiver, err = New(a, q, n, n.server, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	n.calls.take()
	return n
}

func (n *testNode) server() Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.srv
}

// Last and Read make the node its own Scope.
func (n *testNode) Last() Cluster {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.cluster
	c.Answered = !n.silent
	return c
}

func (n *testNode) Read(context.Context) (Cluster, error) {
	c := n.Last()
	if !c.Answered {
		return c, context.DeadlineExceeded
	}
	return c, nil
}

// sees changes what the node knows of the cluster and its server.
func (n *testNode) sees(f func(*Cluster, *Server)) {
	n.mu.Lock()
	f(&n.cluster, &n.srv)
	n.cluster.LeaderTimeline = n.cluster.Line.Timeline
	n.mu.Unlock()
	n.Wake()
}

// write puts a file into pg_wal, with a status suffix or none.
func (n *testNode) write(name string, b []byte, status string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), b, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if status != "" {
		if err := os.WriteFile(filepath.Join(n.dir, "archive_status", name+status), nil, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
}

// copyFrom puts the finished segments of w into pg_wal that are not there yet.
func (n *testNode) copyFrom(w *waltest.Writer, status string) {
	n.t.Helper()
	for _, s := range w.Full() {
		if _, err := os.Stat(filepath.Join(n.dir, s.String())); err != nil {
			n.write(s.String(), w.Segment(s), status)
		}
	}
	n.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
	if err := n.Rescan(); err != nil {
		n.t.Fatal(err)
	}
}

// status gives the suffixes that archive_status has for a name.
func (n *testNode) status(name string) string {
	var out string
	for _, suffix := range []string{".ready", ".done"} {
		if _, err := os.Stat(filepath.Join(n.dir, "archive_status", name+suffix)); err == nil {
			out += suffix
		}
	}
	return out
}

// workers says how many upload at a time.
func (n *testNode) workers(count int) { n.o.Workers, n.slots = count, make(chan struct{}, count) }

// shipAll is a term: listing and one pass over all that can be shipped.
func (n *testNode) shipAll(term uint64) {
	n.t.Helper()
	n.BeginTerm(n.t.Context(), term, Set{})
	if err := n.List(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	for {
		names := n.Shippable()
		if len(names) == 0 {
			return
		}
		for _, name := range names {
			if err := n.Ship(n.t.Context(), name); err != nil {
				n.t.Logf("ship %v: %v", name, err)
			}
		}
	}
}

// stored gives the plain bytes of every file below wal/ and history/.
func stored(t testing.TB, a *Archive) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, list := range []func(context.Context) map[string][]byte{
		func(ctx context.Context) map[string][]byte { return readAll(t, ctx, a, a.root+"/wal/") },
		func(ctx context.Context) map[string][]byte { return readAll(t, ctx, a, a.root+"/history/") },
	} {
		maps.Copy(out, list(t.Context()))
	}
	return out
}

func readAll(t testing.TB, ctx context.Context, a *Archive, prefix string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for info, err := range a.store.List(ctx, prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		object, err := a.store.Get(ctx, info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		h, r, err := seal.Open(object, testIdentity()) // also where the node has none
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		b.Grow(int(h.Size) + bytes.MinRead) // growing to a segment costs more than reading it
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		object.Close()
		r.Close()
		out[filepath.Base(info.Key)] = b.Bytes()
	}
	return out
}

func newWriter() *waltest.Writer {
	w := waltest.New(testSystem, 1<<20)
	w.Commit(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	return w
}

// orphans gives what a member has in orphans/, by name without the digest.
func (n *testNode) orphans(member string) map[string][]byte {
	n.t.Helper()
	out := map[string][]byte{}
	for name, b := range readAll(n.t, n.t.Context(), n.Archive(), n.Archive().root+"/orphans/"+member+"/") {
		name, _, _ = strings.Cut(name, "-")
		out[name] = b
	}
	return out
}

// order is a complete one about a file.
func order(d Decision, n wal.Name) Order {
	return Order{Decision: d, Name: n, Reason: "seen with pg_waldump", By: "ann"}
}

// pair is a leader n1 that has shipped all it has, and a standby n2 that has listed the archive.
func pair(t *testing.T, segments int) (w *waltest.Writer, n1, n2 *testNode) {
	t.Helper()
	w = newWriter()
	w.Fill(segments)
	s := mem.New("x")
	n1, n2 = newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.shipAll(1)
	return w, n1, n2
}

// has writes a file into pg_wal of a node that knows what the archive has.
func (n *testNode) has(name wal.Name, b []byte) {
	n.t.Helper()
	n.write(name.String(), b, ".ready")
	if err := errors.Join(n.Rescan(), n.List(n.t.Context())); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) wantPush(name wal.Name, code int, row string) {
	n.t.Helper()
	if r := n.Push(n.t.Context(), name); r.Code != code || r.Row != row {
		n.t.Fatalf("push %v: got %+v, want %d by row %s", name, r, code, row)
	}
}

// wantDecided resolves, and expects the very next push to be answered 0 by the row, with our copy in
// orphans/, the archive's untouched and no alarm left.
func (n *testNode) wantDecided(name wal.Name, row string, ours []byte) {
	n.t.Helper()
	before := n.raw(name)
	n.wantPush(name, 1, row)
	if got := n.Alarms(); len(got) != 1 || got[0].Row != row {
		n.t.Errorf("alarms: got %v, want one of row %s", got, row)
	}
	p, err := n.Resolve(n.t.Context(), order(KeepArchive, name))
	if err != nil || p.Row != row || p.Already {
		n.t.Fatalf("resolve %v: got %+v (%v), want row %s", name, p, err, row)
	}
	if got := n.Alarms(); len(got) != 0 {
		n.t.Errorf("alarms after the decision: got %v, want none", got)
	}
	n.wantPush(name, 0, row)
	if !bytes.Equal(n.orphans(n.o.Member)[name.String()], ours) {
		n.t.Errorf("orphans/ has not our copy of %v", name)
	}
	if !bytes.Equal(n.raw(name), before) {
		n.t.Errorf("the archive's %v was changed", name)
	}
	if got := n.Alarms(); len(got) != 0 {
		n.t.Errorf("alarms after the push: got %v, want none", got)
	}
}

// raw gives the object as it lies in the store.
func (n *testNode) raw(name wal.Name) []byte {
	n.t.Helper()
	b, err := n.Archive().read(n.t.Context(), n.Archive().Key(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	return b
}

// put stores plain bytes under a name, whatever they are.
func (n *testNode) put(name wal.Name, plain []byte) {
	n.t.Helper()
	packed, err := n.sealerOf(name).Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		n.t.Fatal(err)
	}
	defer packed.Close()
	sealed, err := packed.Seal(seal.Header{Name: name.String(), SystemID: testSystem, Member: "n9"})
	if err != nil {
		n.t.Fatal(err)
	}
	defer sealed.Close()
	if err := n.Archive().Put(n.t.Context(), n.Archive().Key(name), sealed); err != nil {
		n.t.Fatal(err)
	}
}

func seg2(t wal.Timeline, no uint64) wal.Segment {
	return wal.Segment{Timeline: t, Size: 1 << 20, No: no}
}
