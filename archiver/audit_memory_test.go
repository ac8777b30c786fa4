package archiver_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// blocks is an AuditMemory.
type blocks struct {
	mu   sync.Mutex
	good map[archiver.AuditBlock]bool
	full func(n int)
}

func (b *blocks) Known(k archiver.AuditBlock) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.good[k]
}

func (b *blocks) Good(k archiver.AuditBlock) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.good[k] = true
	if b.full != nil {
		b.full(len(b.good))
	}
	return nil
}

// long is an archive of 69 segments on timeline 1, forked in the 70th, and some 30 on timeline 2.
func long(t *testing.T) *prepared {
	p := prepare(t, seg(1, 1))
	one := waltest.New(systemID, segSize)
	one.Fill(69)
	one.Record(100_000)
	two := one.Fork(2)
	two.Fill(30)
	p.fill(two)
	return p
}

// An interrupted deep audit goes on where it was; what was bad, what is another object now, and what follows it, is looked at again.
func TestAuditGoesOn(t *testing.T) {
	p := long(t)
	p.put(segName(1, 40), p.get(p.a.Key(segName(1, 41)))) // bad, and in the block from 32 on
	m := &blocks{good: map[archiver.AuditBlock]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	m.full = func(n int) {
		if n == 2 {
			cancel()
		}
	}
	if _, err := p.a.Audit(ctx, archiver.AuditOptions{Deep: true, Workers: 1, Memory: m}); err == nil {
		t.Fatal("it was not interrupted")
	}
	m.full = nil
	full := audit(t, p, archiver.AuditOptions{Deep: true})
	rest := audit(t, p, archiver.AuditOptions{Deep: true, Memory: m})
	if found(rest) != found(full) || rest.Count.Remembered == 0 || rest.Count.Opened+rest.Count.Remembered != full.Count.Opened {
		t.Errorf("%q, %d opened and %d remembered; without memory %q, %d", found(rest), rest.Count.Opened, rest.Count.Remembered, found(full), full.Count.Opened)
	}
	// Once more: all but the block of the bad one, and the history.
	again := audit(t, p, archiver.AuditOptions{Deep: true, Memory: m})
	if found(again) != found(full) || again.Count.Opened != 31+1 {
		t.Errorf("%q, %d opened, want 32", found(again), again.Count.Opened)
	}
	// The bad one is another one now: its block is opened again, and the one behind it, since its first segment was held against that one.
	good := waltest.New(systemID, segSize)
	good.Fill(41)
	p.put(segName(1, 40), good.Segment(seg(1, 40)))
	last := 0
	rep, err := p.a.Audit(t.Context(), archiver.AuditOptions{Deep: true, Memory: m, Progress: func(done, all int) { last = all - done }})
	if err != nil || !rep.Whole || rep.Count.Opened != 32+6+1 || last != 0 {
		t.Errorf("mended: %v, %q, %d opened, want 39; %d left", err, found(rep), rep.Count.Opened, last)
	}
	if rep = audit(t, p, archiver.AuditOptions{Deep: true, Memory: m}); rep.Count.Opened != 1 {
		t.Errorf("all is known: %d opened, want the history alone", rep.Count.Opened)
	}
	// Another question is another memory.
	if rep = audit(t, p, archiver.AuditOptions{Deep: true, Memory: m, Since: seg(1, 50).Start()}); rep.Count.Remembered != 0 {
		t.Errorf("since: %d remembered", rep.Count.Remembered)
	}
}

// What lies before Since is neither opened nor missed, whatever timeline it is of.
func TestAuditSince(t *testing.T) {
	p := good(t)
	p.remove(segName(1, 3))
	p.remove(segName(3, 10))
	p.put(segName(2, 6), []byte("x"))
	for since, want := range map[wal.LSN]string{
		0:                        "damaged 000000020000000000000006\nhole 000000010000000000000003\nhole 00000003000000000000000A",
		seg(1, 3).Start() + 1:    "damaged 000000020000000000000006\nhole 000000010000000000000003\nhole 00000003000000000000000A",
		seg(1, 4).Start():        "damaged 000000020000000000000006\nhole 00000003000000000000000A",
		seg(1, 7).Start():        "hole 00000003000000000000000A",
		seg(1, 11).Start() + 100: "",
		seg(1, 99).Start():       "",
	} {
		for _, deep := range []bool{false, true} {
			rep := audit(t, p, archiver.AuditOptions{Since: since, Deep: deep})
			if got := found(rep); got != want {
				t.Errorf("since %v, deep %v: got %q, want %q", since, deep, got, want)
			}
		}
	}
	gets := []string{}
	s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
		if c.Op == mem.OpGet && strings.Contains(c.Key, "/wal/") {
			gets = append(gets, c.Key[len(c.Key)-24:])
		}
		return mem.Fault{}
	})
	a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Audit(t.Context(), archiver.AuditOptions{Since: seg(1, 12).Start(), Deep: true, Workers: 1}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"00000003000000000000000B", "00000003000000000000000C"}; !slices.Equal(gets, want) {
		t.Errorf("read %q, want the last segment and the one before it", gets)
	}
}

// A listing and the histories are all that an audit of names takes.
func TestAuditNames(t *testing.T) {
	p := good(t)
	p.remove(segName(2, 6))
	p.put(segName(2, 7), []byte("not looked at"))
	var calls []mem.Call
	s := mem.NewFaults(p.store, func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} })
	a, err := archiver.OpenArchive(t.Context(), s, "main", systemID)
	if err != nil {
		t.Fatal(err)
	}
	calls = nil
	rep, err := a.Audit(t.Context(), archiver.AuditOptions{Names: true})
	if err != nil || found(rep) != "hole 000000020000000000000006" || !strings.Contains(rep.NotChecked, "headers and contents") {
		t.Fatalf("%v, %q, not checked: %q", err, found(rep), rep.NotChecked)
	}
	for _, c := range calls {
		if c.Op == mem.OpGet && !strings.Contains(c.Key, "/history/") {
			t.Errorf("it read %s", c.Key)
		}
	}
	if len(calls) > 10 {
		t.Errorf("%d requests", len(calls))
	}
}

// A deep audit follows the records from a timeline into the one that grew from it: a first segment that another server wrote is whole, and does not go on
// where the parent's last one ends.
func TestAuditAcrossAFork(t *testing.T) {
	for name, tc := range map[string]struct {
		salt uint64 // of the server that was promoted; 0 is the one whose WAL timeline 1 has
		want string
	}{"its own": {0, ""}, "another server's": {3, "bad-wal 000000020000000000000005"}} {
		p := prepare(t, seg(1, 1))
		one := waltest.New(systemID, segSize)
		one.Fill(3)
		other := one.Clone(tc.salt)
		for _, w := range []*waltest.Writer{one, other} {
			w.Fill(1)
			w.Record(50_000)
		}
		two := other.Fork(2)
		two.Fill(2)
		p.fill(one)
		for _, s := range two.Full() {
			if s.Timeline == 2 {
				p.put(wal.SegmentName(s), two.Segment(s))
			}
		}
		p.put(wal.HistoryName(2), two.History().Bytes())
		if got := found(audit(t, p, archiver.AuditOptions{})); got != "" {
			t.Errorf("%s, shallow: %q", name, got)
		}
		if got := found(audit(t, p, archiver.AuditOptions{Deep: true})); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
		if got := found(audit(t, p, archiver.AuditOptions{Deep: true, Since: seg(1, 5).Start()})); got != tc.want {
			t.Errorf("%s, from there on: got %q, want %q", name, got, tc.want)
		}
	}
}
