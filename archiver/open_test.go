package archiver

import (
	"testing"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/store/mem"
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
