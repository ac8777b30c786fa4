package archiver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// site is one of several archives of a test: its store, and the faults of the way to it from one node.
type testTarget struct {
	name     string
	required bool
	store    store.Store
	calls    *calls
	floor    uint64 // number of the segment it begins with; 0: it was not begun
}

// newSeveralNode is newTestNode for several archives.
func newSeveralNode(t *testing.T, self string, w *waltest.Writer, targets ...*testTarget) *testNode {
	t.Helper()
	n := newTestNode(t, mem.New("unused"), "n1", w) // only for its folder and its view of the cluster
	n.cluster.Self = self
	if self != "n1" {
		n.srv.State, n.srv.Receiver = ServerStandby, Receiver{Streaming: true, Timeline: 1, Host: "10.0.0.1", Port: 5432}
	}
	q, err := queue.Open(n.dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	to, keys := encryption(t)
	var all []Target
	for _, tt := range targets {
		tt.calls = &calls{n: map[mem.Op]int{}}
		counted := mem.NewFaults(tt.store, tt.calls.decide)
		all = append(all, Target{Name: tt.name, Required: tt.required, Open: func(ctx context.Context) (*Archive, error) {
			if tt.floor == 0 {
				return nil, ErrNoArchive
			}
			id := Identity{Scope: "lab", SystemID: testSystem, SegmentSize: 1 << 20, Floor: Floor{Timeline: 1, LSN: wal.LSN(tt.floor) << 20}, Member: "n1"}
			_ = CreateArchive(ctx, tt.store, id)
			return OpenArchive(ctx, counted, "lab", testSystem, keys...)
		}})
	}
	o := Options{Member: self, Workers: 2, Codec: seal.Zstd, Limits: Limits{PushWait: 2 * time.Second, ShutdownWait: time.Second, StoppedWait: time.Second},
		Grace: time.Second, KeepDir: t.TempDir(), EncryptTo: to}
	a, err := NewSeveral(t.Context(), all, q, n, n.server, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	n.Archiver = a
	a.LiftAll(t.Context())
	return n
}

func twoTargets(secondRequired bool) (x, y *testTarget) {
	return &testTarget{name: "near", required: true, store: mem.New("near"), floor: 1}, &testTarget{name: "far", required: secondRequired, store: mem.New("far"), floor: 1}
}

// objects gives the sealed objects below wal/ and history/, by name.
func (tt *testTarget) objects(t *testing.T) map[string][]byte {
	t.Helper()
	a, err := OpenArchive(t.Context(), tt.store, "lab", testSystem)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, folder := range []string{"/wal/", "/history/"} {
		for info, err := range tt.store.List(t.Context(), a.root+folder, "") {
			if err != nil {
				t.Fatal(err)
			}
			r, err := tt.store.Get(t.Context(), info.Key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if _, err := b.ReadFrom(r); err != nil {
				t.Fatal(err)
			}
			r.Close()
			out[filepath.Base(info.Key)] = b.Bytes()
		}
	}
	return out
}

// wantWhole expects the very same objects in both.
func wantWhole(t *testing.T, x, y *testTarget, count int) {
	t.Helper()
	ox, oy := x.objects(t), y.objects(t)
	if len(ox) != count || len(oy) != count {
		t.Fatalf("objects: %s has %d, %s has %d, want %d in each", x.name, len(ox), y.name, len(oy), count)
	}
	for name := range ox {
		if !bytes.Equal(ox[name], oy[name]) {
			t.Errorf("%s is not the same object in both archives", name)
		}
	}
}

// Every required archive gets the one sealed object by one put, and a push is acknowledged after that.
func TestSeveralArchivesGetOneSealedObject(t *testing.T) {
	w := newWriter()
	w.Fill(4)
	x, y := twoTargets(true)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	x.calls.take()
	y.calls.take()
	n.shipAll(1)
	for _, s := range w.Full() {
		n.wantPush(wal.SegmentName(s), 0, "2")
	}
	wantWhole(t, x, y, len(w.Full()))
	for _, tt := range []*testTarget{x, y} {
		if got := tt.calls.take(); got[mem.OpPut] != len(w.Full()) {
			t.Errorf("%s: %d puts for %d segments", tt.name, got[mem.OpPut], len(w.Full()))
		}
	}
}

// A required archive that is down holds up pushes, which name it, and nothing else: the other one gets all files, once. When it answers again it gets
// them from pg_wal.
func TestRequiredArchiveDown(t *testing.T) {
	w := newWriter()
	w.Fill(5)
	x, y := twoTargets(true)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	y.calls.fail(true)
	n.shipAll(1)
	full := w.Full()
	if got := len(x.objects(t)); got != len(full) {
		t.Fatalf("the archive that answers has %d of %d segments", got, len(full))
	}
	if ok, why := n.StoreAnswers(); !ok || !strings.Contains(why, "far") {
		t.Errorf("store answers: %v (%s), want that it does, and that far is named", ok, why)
	}
	x.calls.take()
	y.calls.take()
	r := n.Push(t.Context(), wal.SegmentName(full[2]))
	if r.Code != 1 || !strings.Contains(r.Why, "archive far does not answer") {
		t.Errorf("push while a required archive is down: got %+v, want 1 and its name", r)
	}
	if got := n.Shippable(); len(got) != 0 {
		t.Errorf("shippable while only the silent archive lacks files: %v, want none", got)
	}
	if puts := x.calls.take()[mem.OpPut] + y.calls.take()[mem.OpPut]; puts != 0 {
		t.Errorf("%d puts while the files wait, want none", puts)
	}
	st := n.State()
	if len(st.Archives) != 2 || st.Archives[1].Answers || st.Archives[1].Lacks != len(full) || st.Misses.Len() != len(full) {
		t.Errorf("state: %+v, want that far is silent and lacks %d", st.Archives, len(full))
	}

	y.calls.fail(false)
	n.LiftAll(t.Context())
	n.shipAll(2)
	for _, s := range full {
		n.wantPush(wal.SegmentName(s), 0, "2")
	}
	if got := len(y.objects(t)); got != len(full) {
		t.Errorf("the archive that came back has %d of %d segments", got, len(full))
	}
	if got := y.calls.take()[mem.OpPut]; got > len(full)+1 { // and the probe
		t.Errorf("%d puts for %d segments", got, len(full))
	}
}

// An optional archive holds up nobody. When it answers again it is filled with the very objects of the other one, though pg_wal has the files no more.
func TestOptionalArchiveDown(t *testing.T) {
	w := newWriter()
	w.Fill(70) // more than a batch
	x, y := twoTargets(false)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	y.calls.fail(true)
	n.shipAll(1)
	full := w.Full()
	for _, s := range full {
		n.wantPush(wal.SegmentName(s), 0, "2")
		if err := os.Remove(filepath.Join(n.dir, s.String())); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	if err := n.FillAll(t.Context()); err != nil || len(y.objects(t)) != 0 {
		t.Fatalf("fill of a silent archive: %v", err)
	}
	y.calls.fail(false)
	n.LiftAll(t.Context())
	if err := n.FillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, x, y, len(full))
	if st := n.State(); st.Archives[1].Lacks != 0 || st.Archives[1].Filled != len(full) {
		t.Errorf("state: %+v, want %d files filled", st.Archives[1], len(full))
	}
	x.calls.take()
	y.calls.take()
	if err := n.FillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := x.calls.take(); len(got) != 0 {
		t.Errorf("an archive that lacks nothing costs requests: %v", got)
	}
}

// Without the baton nothing is filled: two nodes would copy the same files.
func TestFillNeedsTheBaton(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	x, y := twoTargets(false)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	y.calls.fail(true)
	n.shipAll(1)
	n.EndTerm()
	y.calls.fail(false)
	n.LiftAll(t.Context())
	if err := n.FillAll(t.Context()); err != nil || len(y.objects(t)) != 0 {
		t.Errorf("filled without the baton: %d objects (%v)", len(y.objects(t)), err)
	}
}

// An archive that is added later begins later: what lies below its own floor it need not have.
func TestArchiveAddedLater(t *testing.T) {
	w := newWriter()
	w.Fill(6)
	x, y := twoTargets(true)
	y.floor = 0
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	n.shipAll(1)
	full := w.Full()
	if r := n.Push(t.Context(), wal.SegmentName(full[0])); r.Code != 1 || !strings.Contains(r.Why, "archive far") {
		t.Errorf("push while nobody knows where far begins: got %+v, want 1", r)
	}
	y.floor = 4
	n.LiftAll(t.Context())
	n.shipAll(2)
	for _, s := range full {
		n.wantPush(wal.SegmentName(s), 0, "2")
	}
	if got, want := len(y.objects(t)), len(full)-3; got != want {
		t.Errorf("the archive that begins with segment 4 has %d segments, want %d", got, want)
	}
	if n.belowFloor(wal.SegmentName(full[0])) {
		t.Error("a file that one archive promises counts as below the floor")
	}
	if err := n.FillAll(t.Context()); err != nil || len(y.objects(t)) != len(full)-3 {
		t.Errorf("filled below the floor: %d objects (%v)", len(y.objects(t)), err)
	}
}

// A damaged object is not copied, and another archive's good one is.
func TestDamagedObjectIsNotCopied(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	x, y := twoTargets(false)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	y.calls.fail(true)
	n.shipAll(1)
	s := w.Full()[1]
	a := n.archive
	b := x.objects(t)[s.String()]
	b[len(b)-5] ^= 1
	ctx := t.Context()
	if err := errors.Join(x.store.Delete(ctx, a.Key(wal.SegmentName(s))), x.store.Put(ctx, a.Key(wal.SegmentName(s)), Bytes(b))); err != nil {
		t.Fatal(err)
	}
	y.calls.fail(false)
	n.LiftAll(ctx)
	if err := n.FillAll(ctx); err != nil {
		t.Fatal(err)
	}
	got := y.objects(t)
	if _, there := got[s.String()]; there || len(got) != len(w.Full())-1 {
		t.Errorf("the other archive has %d of %d objects, the damaged one: %v", len(got), len(w.Full()), there)
	}
}

// Where one archive has another server's segment, ours goes to none: the row of a file that differs answers, and a person decides.
func TestArchivesDiffer(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	other := newWriter()
	other.Commit(time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC))
	other.Fill(2)
	x, y := twoTargets(true)
	n := newSeveralNode(t, "n1", w, x, y)
	// Its own node put other WAL of that name into far alone.
	foreign := newSeveralNode(t, "n1", other, &testTarget{name: "far", required: true, store: y.store, floor: 1})
	foreign.copyFrom(other, ".ready")
	foreign.shipAll(1)
	before := y.objects(t)

	n.copyFrom(w, ".ready")
	n.shipAll(1)
	name := wal.SegmentName(w.Full()[0])
	n.wantPush(name, 1, "6c")
	if _, there := x.objects(t)[name.String()]; there {
		t.Errorf("near got %v, though far has another one", name)
	}
	for k, b := range y.objects(t) {
		if !bytes.Equal(b, before[k]) {
			t.Errorf("far's %s was changed", k)
		}
	}
	if len(n.Alarms()) == 0 {
		t.Error("no alarm")
	}
}

// A standby is answered when all required archives have the file, and not before.
func TestStandbyWaitsForEveryRequiredArchive(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	x, y := twoTargets(true)
	n1 := newSeveralNode(t, "n1", w, x, y)
	n1.copyFrom(w, ".ready")
	y.calls.fail(true)
	n1.shipAll(1)

	x2, y2 := *x, *y
	n2 := newSeveralNode(t, "n2", w, &x2, &y2)
	n2.copyFrom(w, ".ready")
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.Confirm(t.Context())
	name := wal.SegmentName(w.Full()[1])
	if r := n2.Push(t.Context(), name); r.Code != 1 {
		t.Errorf("push on a standby: got %+v, want 1: far lacks it", r)
	}
	if has := n2.State().Misses; has.Len() != len(w.Full()) {
		t.Errorf("the standby misses %d segments, want %d", has.Len(), len(w.Full()))
	}
	y.calls.fail(false)
	n1.LiftAll(t.Context())
	n1.shipAll(2)
	if err := n2.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	n2.wantPush(name, 0, "2")
}

// The record says which archives this node does not reach: at once without the baton, and later with it, so that the others can find out first.
func TestSilentArchiveInTheRecord(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	x, y := twoTargets(true)
	n := newSeveralNode(t, "n1", w, x, y)
	now := time.Now()
	n.o.Now = func() time.Time { return now }
	n.copyFrom(w, ".ready")
	y.calls.fail(true)
	now = now.Add(askEvery)
	n.LiftAll(t.Context()) // asks for a sign of life
	if got := n.State().Silent; got != 1 {
		t.Errorf("silent archives without the baton: %d, want 1", got)
	}
	n.BeginTerm(t.Context(), 1, Set{})
	if got := n.State().Silent; got != 0 {
		t.Errorf("silent archives at once with the baton: %d, want 0", got)
	}
	now = now.Add(giveUpAfter)
	if got := n.State().Silent; got != 1 {
		t.Errorf("silent archives after a while with the baton: %d, want 1", got)
	}
	x.calls.fail(true)
	if err := n.Ship(t.Context(), wal.SegmentName(w.Full()[0])); err == nil {
		t.Error("shipped though no archive answers")
	}
	if ok, _ := n.StoreAnswers(); ok {
		t.Error("all required archives are silent, and the store answers")
	}
}

// An archive that is up again in the middle of a put did not get that file: it is not stored yet.
func TestArchiveComesUpDuringAPut(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	x, y := twoTargets(true)
	n := newSeveralNode(t, "n1", w, x, y)
	n.copyFrom(w, ".ready")
	name := wal.SegmentName(w.Full()[0])
	n.BeginTerm(t.Context(), 1, Set{})
	y.calls.fail(true)
	if err := n.List(t.Context()); err != nil { // far is known to be silent
		t.Fatal(err)
	}
	x.calls.spoil(func(c mem.Call) mem.Fault {
		if c.Op == mem.OpPut {
			y.calls.fail(false)
			n.LiftAll(context.Background())
		}
		return mem.Fault{}
	})
	err := n.Ship(t.Context(), name)
	if _, there := y.objects(t)[name.String()]; there || err == nil || n.cover.has(name) {
		t.Errorf("shipped (%v) and covered %v, though far has it: %v", err, n.cover.has(name), there)
	}
	x.calls.spoil(nil)
	n.shipAll(1)
	n.wantPush(name, 0, "2")
	wantWhole(t, x, y, len(w.Full()))
}

// That one archive has better than our damaged copy is no reason to let go of it while another one has nothing.
func TestDamagedCopyWaitsForEveryArchive(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	x, y := twoTargets(true)
	n1 := newSeveralNode(t, "n1", w, x, y)
	n1.copyFrom(w, ".ready")
	y.calls.fail(true)
	n1.shipAll(1)
	x2, y2 := *x, *y
	n2 := newSeveralNode(t, "n2", w, &x2, &y2)
	s := w.Full()[1]
	n2.write(s.String(), waltest.Flip(w.Segment(s), 300_000), ".ready")
	if err := errors.Join(n2.Rescan(), n2.List(t.Context())); err != nil {
		t.Fatal(err)
	}
	name := wal.SegmentName(s)
	n2.sees(func(c *Cluster, _ *Server) { c.Marks[1] = s.No + 1 })
	if r := n2.Push(t.Context(), name); r.Code != 1 {
		t.Errorf("push of a damaged copy while far lacks the segment: got %+v, want 1", r)
	}
	y.calls.fail(false)
	n1.LiftAll(t.Context())
	n1.shipAll(2)
	n2.wantPush(name, 0, "6a")
}
