package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestPushMessages writes down what PostgreSQL's log shows for every row of docs/push.md, one page to read all of it:
// testdata/push.golden. Nothing in it is a copy: real calls are answered over a real pg_wal, with a clock that jumps.
func TestPushMessages(t *testing.T) {
	var page strings.Builder
	page.WriteString("What PostgreSQL's log shows when walbaton-wal push exits with 1, by row of docs/push.md. With 0 it shows nothing.\n")
	told := map[string]bool{}
	for _, c := range slices.Concat(storedMessages(), conflictMessages(), oursMessages(), shipMessages()) {
		n, name := c.set(t)
		r := n.told(name)
		if r.Row != c.row {
			t.Errorf("%s: got %+v, want row %s", c.title, r, c.row)
		}
		line := r.Line(name.String())
		if (line == "") != (r.Code == 0) || strings.Contains(line, "\n") || strings.Count(line, "not archived") > 1 {
			t.Errorf("%s: exit %d with %q, want one line, and none with 0", c.title, r.Code, line)
		}
		if line != "" {
			line = "\n        walbaton-wal: " + strings.NewReplacer(n.o.KeepDir, "/keep_dir", n.dir, "/data/pg_wal").Replace(line)
		}
		told[r.Row] = true
		fmt.Fprintf(&page, "\nrow %-3s %s: exit %d%s\n", r.Row, c.title, r.Code, line)
	}
	for _, row := range rows {
		if !told[row] {
			t.Errorf("no message shows row %s", row)
		}
	}
	CompareGolden(t, "push", page.String())
}

// pushMessage is a push that is answered by a row.
type pushMessage struct {
	row, title string
	set        func(t *testing.T) (*testNode, wal.Name)
}

// told answers a push as PostgreSQL gets it; the second that passes between two looks takes no time.
func (n *testNode) told(name wal.Name) Reply {
	n.t.Helper()
	now := n.o.Now()
	n.o.Now = func() time.Time { return now }
	n.o.Limits = testLimits
	call := n.NewCall(name)
	for range 100 {
		n.Confirm(n.t.Context())
		if n.Term() != 0 {
			for _, g := range n.Shippable() {
				n.Ship(n.t.Context(), g) //nolint // what went wrong is what the push tells
			}
		}
		if r, done := call.Step(n.t.Context()); done {
			return r
		}
		now = now.Add(time.Second)
	}
	n.t.Fatalf("a push of %v was not answered", name)
	return Reply{}
}

// alone is a leader n1 whose archive has nothing yet but that it was begun; it holds the baton.
func alone(t *testing.T, segments int) (*waltest.Writer, *testNode) {
	w := newWriter()
	w.Fill(segments)
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	n.BeginTerm(t.Context(), 1, Set{})
	return w, n
}

// elsewhere is the WAL of another server that had the same names.
func elsewhere(segments int) *waltest.Writer {
	other := waltest.New(testSystem, 1<<20)
	other.Commit(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	other.Fill(segments)
	return other
}

func storedMessages() []pushMessage {
	label := wal.Name{Kind: wal.KindBackup, Segment: seg2(1, 1), Offset: 0x28}
	return []pushMessage{
		{"1", "below the floor", func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 2)
			n.Archive().floors = []Floor{{Timeline: 1, LSN: w.Full()[0].End()}}
			return n, wal.SegmentName(w.Full()[0])
		}},
		{"2", "stored before", func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 2)
			n.shipAll(1)
			return n, wal.SegmentName(w.Full()[0])
		}},
		{"3", "a backup label, the archive does not answer", func(t *testing.T) (*testNode, wal.Name) {
			_, n := alone(t, 1)
			n.write(label.String(), []byte("START WAL LOCATION: 0/100028"), ".ready")
			n.calls.fail(true)
			return n, label
		}},
		{"3", "a backup label that differs from the archive's", func(t *testing.T) (*testNode, wal.Name) {
			_, n := alone(t, 1)
			n.write(label.String(), []byte("START WAL LOCATION: 0/100028"), ".ready")
			n.put(label, []byte("START WAL LOCATION: 0/100060"))
			return n, label
		}},
		{"4a", "a history that another node has to store", func(t *testing.T) (*testNode, wal.Name) {
			w, _, n := pair(t, 2)
			fork := w.Fork(2)
			n.sees(func(c *Cluster, s *Server) { c.Line = fork.History(); s.Receiver = Receiver{} })
			n.has(wal.HistoryName(2), fork.History().Bytes())
			return n, wal.HistoryName(2)
		}},
		{"4b", "a history off the line, and the archive has another one", func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 2)
			n.sees(func(c *Cluster, _ *Server) {
				c.Line = wal.History{Timeline: 4, Forks: []wal.Fork{{Timeline: 1, End: w.Pos()}}}
			})
			n.put(wal.HistoryName(3), wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: w.Pos() - 8}}}.Bytes())
			n.has(wal.HistoryName(3), wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: w.Pos()}}}.Bytes())
			return n, wal.HistoryName(3)
		}},
		{"4c", "a history of the line, and the archive has another one", func(t *testing.T) (*testNode, wal.Name) {
			w, n1, n := pair(t, 2)
			fork := w.Fork(2)
			n1.put(wal.HistoryName(2), fork.History().Bytes())
			n.sees(func(c *Cluster, _ *Server) { c.Line = fork.History() })
			n.has(wal.HistoryName(2), append([]byte("# written elsewhere\n"), fork.History().Bytes()...))
			return n, wal.HistoryName(2)
		}},
	}
}

func conflictMessages() []pushMessage {
	differs := func(theirs func(w *waltest.Writer, g wal.Segment) []byte) func(t *testing.T) (*testNode, wal.Name) {
		return func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 2)
			g := w.Full()[0]
			n.put(wal.SegmentName(g), theirs(w, g))
			return n, wal.SegmentName(g)
		}
	}
	branch := func(t *testing.T) (*testNode, wal.Name) {
		w := newWriter()
		w.Fill(2)
		s := mem.New("x")
		n1 := newTestNode(t, s, "n1", w)
		n1.copyFrom(w, ".ready")
		n1.shipAll(1)
		fork := w.Fork(2)
		w.Fill(2)
		n := newTestNode(t, s, "n2", fork)
		n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopped })
		g := fork.Current().On(1)
		n.write(g.String(), w.Segment(g), ".ready")
		return n, wal.SegmentName(g)
	}
	return []pushMessage{
		{"5", "a segment on a branch", branch},
		{"5", "a segment on a branch, and its copy cannot be put into orphans/", func(t *testing.T) (*testNode, wal.Name) {
			n, name := branch(t)
			n.calls.spoil(func(c mem.Call) mem.Fault { return mem.Fault{Drop: c.Op == mem.OpPut} })
			return n, name
		}},
		{"6a", "ours is damaged, the archive's is whole", func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 2)
			g := w.Full()[0]
			n.put(wal.SegmentName(g), w.Segment(g))
			n.has(wal.SegmentName(g), waltest.Flip(w.Segment(g), 300_000))
			return n, wal.SegmentName(g)
		}},
		{"6b", "the archive's is damaged, ours is whole", differs(func(w *waltest.Writer, g wal.Segment) []byte { return waltest.Flip(w.Segment(g), 300_000) })},
		{"6c", "both are whole", differs(func(_ *waltest.Writer, g wal.Segment) []byte { return elsewhere(1).Segment(g) })},
		{"6c", "both are whole, and an administrator decided for the archive's", func(t *testing.T) (*testNode, wal.Name) {
			n, name := differs(func(_ *waltest.Writer, g wal.Segment) []byte { return elsewhere(1).Segment(g) })(t)
			if _, err := n.Resolve(t.Context(), order(KeepArchive, name)); err != nil {
				t.Fatal(err)
			}
			return n, name
		}},
	}
}

func oursMessages() []pushMessage {
	stopped := func(t *testing.T, keepDir string) (*testNode, wal.Name) {
		w, _, n := pair(t, 3)
		w.Fill(1)
		n.copyFrom(w, ".ready")
		n.sees(func(c *Cluster, s *Server) {
			c.LeaderLive, s.State, s.SQL, s.Receiver = false, ServerStopped, false, Receiver{}
		})
		if keepDir != "" {
			n.o.KeepDir = filepath.Join(n.o.KeepDir, keepDir)
		}
		return n, wal.SegmentName(w.Full()[3])
	}
	spoiled := func(b func(w *waltest.Writer, g wal.Segment) []byte) func(t *testing.T) (*testNode, wal.Name) {
		return func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 3)
			n.shipAll(1)
			w.Fill(1)
			n.copyFrom(w, ".ready")
			g := w.Full()[3]
			n.write(g.String(), b(w, g), "")
			return n, wal.SegmentName(g)
		}
	}
	return []pushMessage{
		{"7", "PostgreSQL is stopped", func(t *testing.T) (*testNode, wal.Name) { return stopped(t, "") }},
		{"7", "PostgreSQL is stopped, and keep_dir is not there", func(t *testing.T) (*testNode, wal.Name) { return stopped(t, "gone") }},
		{"8", "our records end early", spoiled(func(w *waltest.Writer, g wal.Segment) []byte { return waltest.Zero(w.Segment(g), 400_000) })},
		{"9", "our copy is damaged", spoiled(func(w *waltest.Writer, g wal.Segment) []byte { return waltest.Flip(w.Segment(g), 300_000) })},
		{"9", "our copy is another segment", spoiled(func(w *waltest.Writer, g wal.Segment) []byte { return w.Segment(g.Prev()) })},
		{"9", "our copy is of another cluster", spoiled(func(_ *waltest.Writer, g wal.Segment) []byte {
			other := waltest.New(testSystem+1, 1<<20)
			other.Fill(6)
			return other.Segment(g)
		})},
		{"9", "our copy has another size", spoiled(func(w *waltest.Writer, g wal.Segment) []byte { return append(w.Segment(g), 0) })},
		{"9", "our history is none", func(t *testing.T) (*testNode, wal.Name) {
			_, n := alone(t, 1)
			n.has(wal.HistoryName(2), []byte("x\n"))
			return n, wal.HistoryName(2)
		}},
	}
}

func shipMessages() []pushMessage {
	silent := func(t *testing.T) (*testNode, wal.Name) {
		w, n := alone(t, 2)
		n.shipAll(1)
		w.Fill(1)
		n.copyFrom(w, ".ready")
		n.calls.fail(true)
		return n, wal.SegmentName(w.Full()[2])
	}
	waiting := func(change func(n *testNode)) func(t *testing.T) (*testNode, wal.Name) {
		return func(t *testing.T) (*testNode, wal.Name) {
			w, _, n := pair(t, 2)
			w.Fill(1)
			n.copyFrom(w, ".ready")
			if err := n.List(t.Context()); err != nil {
				t.Fatal(err)
			}
			change(n)
			return n, wal.SegmentName(w.Full()[2])
		}
	}
	return []pushMessage{
		{"10", "PostgreSQL is stopping", func(t *testing.T) (*testNode, wal.Name) {
			n, name := silent(t)
			n.sees(func(_ *Cluster, s *Server) { s.State = ServerStopping })
			return n, name
		}},
		{"11", "ours to ship, and the archive does not answer", func(t *testing.T) (*testNode, wal.Name) {
			return silent(t)
		}},
		{"11", "ours to ship, and the archive refuses it", func(t *testing.T) (*testNode, wal.Name) {
			n, name := silent(t)
			n.calls.spoil(func(mem.Call) mem.Fault { return mem.Fault{Drop: true, Err: os.ErrPermission} })
			return n, name
		}},
		{"12", "another node's to ship", waiting(func(*testNode) {})},
		{"12", "another node's to ship, and the archive does not answer", waiting(func(n *testNode) { n.calls.fail(true) })},
		{"12", "this node was asked to ship it without the baton", waiting(func(n *testNode) { n.Ship(n.t.Context(), wal.SegmentName(seg2(1, 3))) })},
		{"12", "the DCS does not answer, and this node follows", waiting(func(n *testNode) { n.silent = true })},
		{"13", "pg_wal has no such file", func(t *testing.T) (*testNode, wal.Name) {
			_, n := alone(t, 1)
			return n, wal.SegmentName(seg2(1, 0x99))
		}},
		{"13", "a folder has its name", func(t *testing.T) (*testNode, wal.Name) {
			_, n := alone(t, 1)
			name := wal.SegmentName(seg2(1, 0x99))
			if err := os.Mkdir(filepath.Join(n.dir, name.String()), 0o700); err != nil {
				t.Fatal(err)
			}
			return n, name
		}},
		{"13", "pg_wal is gone", func(t *testing.T) (*testNode, wal.Name) {
			w, n := alone(t, 1)
			if err := errors.Join(os.Rename(n.dir, n.dir+".old"), os.Mkdir(n.dir, 0o700)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(n.dir + ".old") })
			if err := os.WriteFile(filepath.Join(n.dir+".old", "x"), bytes.Repeat([]byte("x"), 8), 0o600); err != nil {
				t.Fatal(err)
			}
			return n, wal.SegmentName(w.Full()[0].Next())
		}},
	}
}
