package archiver

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/store/mem"
)

// TestLastFileIsSeenSoon: a promotion makes its files one after the other, and the one to ship comes last. It is not kept waiting by those before it.
func TestLastFileIsSeenSoon(t *testing.T) { synctest.Test(t, testLastFileIsSeenSoon) }

func testLastFileIsSeenSoon(t *testing.T) {
	n := newTestNode(t, mem.New("x"), "n1", newWriter())
	events := make(chan struct{})
	n.o.Watch = func(ctx context.Context, wake func()) error {
		for {
			select {
			case <-events:
				wake()
			case <-ctx.Done():
				return nil
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.watch(ctx) }()
	synctest.Wait()
	for _, name := range []string{"000000020000000000000002", "00000002.history", "000000010000000000000002.partial"} {
		n.write(name, []byte("x"), "")
		events <- struct{}{}
		time.Sleep(9 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	synctest.Wait()
	if got := len(slices.Collect(n.local.names())); got != 3 {
		t.Errorf("%d files are known 29 ms after the last of 3", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRestAfter: a small folder is read again soon, a large one is left alone for longer.
func TestRestAfter(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0:                      20 * time.Millisecond,
		5 * time.Millisecond:   50 * time.Millisecond,
		100 * time.Millisecond: 200 * time.Millisecond,
	} {
		if got := restAfter(took); got != want {
			t.Errorf("restAfter(%v) = %v, want %v", took, got, want)
		}
	}
}
