package main

import (
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver"
	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// commits is WAL with a commit in the first and in the last of some segments, so that windows have times.
func commits(begin time.Time, segments int) *waltest.Writer {
	w := waltest.New(testSystemID, 1<<20)
	for i := range segments {
		w.Commit(begin.Add(time.Duration(i) * time.Minute))
		w.Fill(1)
	}
	return w
}

// archivedSoon waits until the archive has all finished segments.
func archivedSoon(c *testCluster, s *sidecar, w *waltest.Writer) {
	last := w.Full()[len(w.Full())-1].String()
	s.until(time.Minute, "all is in the archive", func() bool { return c.archived(last) && s.holds() && s.Status().Archive.Waiting == 0 })
}

// later is until with long steps: a look at all metrics takes longer than a look at one field.
func (s *sidecar) later(limit time.Duration, what string, holds func() bool) {
	s.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(limit / 20) {
		if time.Since(began) > limit {
			s.t.Fatalf("%s: within %v it did not come that %s; log:\n%s", s.cfg.Name, limit, what, strings.Join(s.log.lines(), "\n"))
		}
	}
}

func (c *testCluster) remove(t *testing.T, g wal.Segment) {
	t.Helper()
	key := "shop/7710542482846769188/wal/" + g.Timeline.String() + "/" + g.String()
	if _, err := c.store.Head(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := c.store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// TestHolderVerifies: the holder of the baton looks at the archive soon after its term began and every verify_every; a hole is in the status, the metrics and the log, and
// once it is acknowledged in none of them as a problem, and in all of them as known. A node without the baton looks at nothing.
func TestHolderVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC)
		c, w := newTestCluster(t), commits(begin, 6)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.cfg.VerifyEvery = 10 * time.Minute
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		archivedSoon(c, n1, w)
		if v := n1.Status().Archive.Verify; v == nil || !v.At.IsZero() {
			t.Errorf("right after the beginning: %+v", v)
		}
		n1.later(verifyAfter+time.Minute, "the archive was looked at", func() bool { return n1.metric("walbaton_verify_last_timestamp_seconds") > 0 })
		st := n1.Status()
		if v := st.Archive.Verify; v.Problems != 0 || v.Missing != 0 || len(st.problems()) != 0 && strings.Contains(st.problems()[0], "the archive") {
			t.Errorf("in order: %+v, %q", v, st.problems())
		}
		if got, want := st.window(), "You can restore to any moment from 1999-12-31 23:00:00Z to 1999-12-31 23:05:00Z, with a base backup from in between"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		// What is shipped later counts at once, before the next look.
		w.Commit(begin.Add(time.Hour))
		w.Fill(1)
		n1.primary(w)
		archivedSoon(c, n1, w)
		n1.later(time.Minute, "the window grows", func() bool { return strings.Contains(n1.Status().window(), "to 2000-01-01 00:00:00Z") })
		if got := n2.Status(); got.Archive.Verify != nil || got.window() != "what can be restored n1 knows, which holds the baton: walbaton status there" {
			t.Errorf("the other node says %q", got.window())
		}
		for _, m := range []string{"walbaton_verify_last_timestamp_seconds", "walbaton_verify_missing_segments", "walbaton_restore_to_timestamp_seconds"} {
			if n2.metric(m) != 0 {
				t.Errorf("the other node has %s", m)
			}
		}

		c.remove(t, w.Full()[2])
		n1.later(n1.cfg.VerifyEvery+time.Minute, "the hole is found", func() bool { return n1.metric("walbaton_verify_missing_segments") == 1 })
		st = n1.Status()
		if !strings.Contains(strings.Join(st.problems(), "\n"), "the archive: 000000010000000000000003 is missing") {
			t.Errorf("problems: %q", st.problems())
		}
		want := "You can restore to any moment from 1999-12-31 23:03:00Z to 2000-01-01 00:00:00Z, with a base backup from in between\n" +
			"          and from 1999-12-31 23:00:00Z to 1999-12-31 23:01:00Z; between 0/300000 and 0/400000 WAL is missing"
		if got := st.window(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := n1.log.count("verify finds what a recovery would stop at"); n != 1 {
			t.Errorf("it was said %d times", n)
		}
		a := n1.site.archiver.Archive()
		n := wal.SegmentName(w.Full()[2])
		if _, err := a.Acknowledge(t.Context(), n, n, archiver.Acknowledgment{Reason: "known", By: "ann", At: begin}); err != nil {
			t.Fatal(err)
		}
		n1.later(n1.cfg.VerifyEvery+time.Minute, "it is known", func() bool { return n1.metric("walbaton_verify_missing_segments") == 0 })
		if n1.metric("walbaton_verify_acknowledged_segments") != 1 || n1.metric("walbaton_verify_acknowledged_holes") != 1 || n1.metric("walbaton_verify_problems") != 0 {
			t.Error("the hole became silent")
		}
		time.Sleep(3 * n1.cfg.VerifyEvery)
		st = n1.Status()
		if got := strings.Join(st.notes(), "\n"); !strings.Contains(got, "a hole in the archive is acknowledged: 000000010000000000000003; acknowledged 1999-12-31 23:00:00Z by ann: known") {
			t.Errorf("notes: %q", got)
		}
		if strings.Contains(strings.Join(st.problems(), "\n"), "the archive:") || st.window() != want {
			t.Errorf("problems %q, window %q", st.problems(), st.window())
		}
		if n := n1.log.count("verify finds what a recovery would stop at"); n != 1 {
			t.Errorf("it was said %d times, though it is acknowledged", n)
		}
		n2.stop()
		n1.stop()
	})
}

// TestVerifyDisturbsNothing: while the look at the archive hangs, segments are shipped and pushes answered, and the sidecar ends at once. It takes few requests.
func TestVerifyDisturbsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), commits(time.Unix(1_000_000_000, 0), 3)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.cfg.VerifyEvery = 5 * time.Minute
		n1.primary(w)
		var mu sync.Mutex
		lists, gets := 0, 0
		hang := false
		c.spoilsSome(func(call storemem.Call) storemem.Fault {
			mu.Lock()
			defer mu.Unlock()
			whole := call.Op == storemem.OpList && path.Base(call.Key) == "wal" // nobody else lists all timelines
			if whole {
				lists++
			}
			if call.Op == storemem.OpGet {
				gets++
			}
			return storemem.Fault{Hang: hang && whole}
		})
		n1.start()
		archivedSoon(c, n1, w)
		n1.later(verifyAfter+time.Minute, "the archive was looked at", func() bool { return n1.metric("walbaton_verify_last_timestamp_seconds") > 0 })
		mu.Lock()
		first := gets
		mu.Unlock()
		time.Sleep(10 * n1.cfg.VerifyEvery)
		mu.Lock()
		if lists < 10 || lists > 12 || gets-first > 10*8 {
			t.Errorf("in ten times verify_every %d listings and %d reads, want a listing for each and some headers", lists, gets-first)
		}
		before := lists
		hang = true
		mu.Unlock()
		n1.later(n1.cfg.VerifyEvery+time.Minute, "a look hangs", func() bool { mu.Lock(); defer mu.Unlock(); return lists > before })
		w.Fill(2)
		n1.primary(w)
		last := w.Full()[4].String()
		if took := n1.until(10*time.Second, "it ships meanwhile", func() bool { return c.archived(last) }); took > 5*time.Second {
			t.Errorf("it took %v to ship", took)
		}
		if answer, took := n1.push(last); answer != `0 ""` || took > 5*time.Second {
			t.Errorf("push: %q after %v", answer, took)
		}
		if took := n1.stop(); took > 5*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

// TestVerifyEndsWithTheTerm: nothing is asked of the archive by a node that has lost the baton, and what it knew is not shown any more.
func TestVerifyEndsWithTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), commits(time.Unix(1_000_000_000, 0), 3)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		archivedSoon(c, n1, w)
		n1.later(verifyAfter+time.Minute, "n1 looked at it", func() bool { return n1.metric("walbaton_verify_last_timestamp_seconds") > 0 })
		c.patroni("n2", 1, "n1", "n2")
		n2.primary(w)
		n1.standby(w, "n2")
		n2.until(time.Minute, "n2 has the baton", n2.holds)
		if n1.metric("walbaton_verify_last_timestamp_seconds") != 0 || n1.Status().Archive.Verify != nil {
			t.Error("n1 still says what it knew")
		}
		n2.later(verifyAfter+time.Minute, "n2 looked at it", func() bool { return n2.metric("walbaton_verify_last_timestamp_seconds") > 0 })
		n2.stop()
		n1.stop()
	})
}

// Of several archives the status counts what all of them lack, and says which. What is known of one that could not be looked at stays.
func TestVerifySeveral(t *testing.T) {
	hole := archiver.Problem{Kind: archiver.ProblemHole, Name: "000000010000000000000003", Why: "000000010000000000000003 is missing", Count: 1}
	known := hole
	known.Acknowledged = &archiver.Acknowledgment{By: "ann", Reason: "disk"}
	history := archiver.Problem{Kind: archiver.ProblemMissingHistory, Name: "00000002.history", Why: "is missing", Count: 2}
	near := &archiver.Audit{Problems: []archiver.Problem{hole, history}, ProblemCount: 2, Count: archiver.AuditCount{Missing: 1}}
	far := &archiver.Audit{Problems: []archiver.Problem{known}, ProblemCount: 1, Acknowledged: 1, Count: archiver.AuditCount{Missing: 1, Known: 1}}
	s := &site{}
	var v verified
	v.begin(s)
	v.keep([]look{{"near", near}, {"far", far}}, time.Now(), "")
	v.keep([]look{{"near", near}}, time.Now(), "far is silent")
	looks, _, _, failed, _ := v.of(s)
	st := Status{Archive: ArchiveStatus{Verify: &VerifyStatus{Failed: failed}}}
	for _, l := range looks {
		st.Archive.Verify.add(l)
	}
	if got := *st.Archive.Verify; got.Missing != 1 || got.Acknowledged != 1 || got.Histories != 2 || got.Holes != 2 || got.KnownHoles != 1 || got.Problems != 2 || failed == "" {
		t.Errorf("counted %+v", got)
	}
	if got := strings.Join(st.Archive.Verify.problems(), "\n"); got != "the archive near: 000000010000000000000003 is missing (walbaton verify says more)\n"+
		"the archive near: 00000002.history is missing (walbaton verify says more)" {
		t.Errorf("problems: %s", got)
	}
	if got := strings.Join(st.Archive.Verify.notes(), "\n"); !strings.HasPrefix(got, "a hole in the archive far is acknowledged: 000000010000000000000003; ") {
		t.Errorf("notes: %s", got)
	}
	if v.open(s) != "near 000000010000000000000003 (hole) and 1 more" || v.open(&site{}) != "" {
		t.Errorf("open: %q, of another site %q", v.open(s), v.open(&site{}))
	}
}
