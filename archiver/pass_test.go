package archiver

import (
	"fmt"
	"os"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestOnePassOverTheFile: one pass over the bytes does check and digest, and compression where it is shipped. The kernel
// counts, so that no way of reading a segment goes unseen; the store is in memory, and no test runs beside this one.
func TestOnePassOverTheFile(t *testing.T) {
	const segments = 4
	w := newWriter()
	w.Fill(segments)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n2.copyFrom(w, ".ready")
	for _, c := range []struct {
		what   string
		passes int
		do     func()
	}{
		{"shipping", 1, func() { n1.shipAll(1) }},
		{"pushing what was shipped", 0, func() {
			for _, g := range w.Full() {
				n1.wantPush(wal.SegmentName(g), 0, "2")
			}
		}},
		{"listing", 0, func() {
			if err := n2.List(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"confirming", 1, func() { n2.Confirm(t.Context()) }},
		{"confirming again", 0, func() { n2.Confirm(t.Context()) }},
		{"pushing what was compared", 0, func() {
			for _, g := range w.Full() {
				n2.wantPush(wal.SegmentName(g), 0, "2")
			}
		}},
	} {
		before := bytesRead(t)
		c.do()
		got := bytesRead(t) - before
		// Anything else that is read, like what /proc says, is a fraction of a segment.
		if want := c.passes * segments << 20; got < want || got > want+1<<19 {
			t.Errorf("%s read %d bytes of %d segments, want %d passes over each, %d bytes", c.what, got, segments, c.passes, want)
		}
	}
	if got := len(stored(t, n1.Archive())); got != segments {
		t.Errorf("the archive has %d files, want %d", got, segments)
	}
}

// bytesRead is what this process has read since it began, from files or anything else (rchar in proc_pid_io(5)).
func bytesRead(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatalf("read /proc/self/io: %v in %q", err, b)
	}
	return n
}
