package archiver

import (
	"testing"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestBeginsWhenTheServerRuns: the leader key is there before the first server runs. A floor from where
// initdb stood would promise WAL that is gone.
func TestBeginsWhenTheServerRuns(t *testing.T) {
	n := newTestNode(t, mem.New("x"), "n1", waltest.New(testSystem, 1<<20))
	q, err := queue.Open(n.dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	s := mem.New("x")
	id := Identity{Scope: "lab", Member: "n1"}
	for _, step := range []struct {
		state ServerState
		begun bool
	}{{ServerUnknown, false}, {ServerStarting, false}, {ServerStopped, false}, {ServerPrimary, true}, {ServerStarting, true}} {
		srv := n.server()
		srv.State = step.state
		if _, err := Prepare(t.Context(), s, id, srv, q, n); (err == nil) != step.begun {
			t.Errorf("%v: got %v, want the archive begun: %v", step.state, err, step.begun)
		}
	}
}

// TestFirstFloorOfAStandbyCluster: what a clone brought along, as .done, is archived, too: a base backup of the standby leader
// begins there. On a primary another archive has it, and a base backup begins at a checkpoint of its own.
func TestFirstFloorOfAStandbyCluster(t *testing.T) {
	w := waltest.New(testSystem, 1<<20)
	w.Fill(6)
	for state, want := range map[ServerState]wal.LSN{ServerStandby: 3 << 20, ServerPrimary: 5 << 20} {
		n := newTestNode(t, mem.New("x"), "n1", w)
		for _, g := range w.Full() {
			switch {
			case g.No >= 5:
				n.write(g.String(), w.Segment(g), ".ready")
			case g.No != 2: // a gap: segment 1 is from before the clone
				n.write(g.String(), w.Segment(g), ".done")
			}
		}
		q, err := queue.Open(n.dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		srv := n.server()
		srv.State = state
		a, err := Prepare(t.Context(), mem.New("y"), Identity{Scope: "lab", Member: "n1"}, srv, q, n)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Identity().Floor.LSN; got != want || !a.Begun() {
			t.Errorf("%s: the floor is %v, want %v", state, got, want)
		}
	}
}
