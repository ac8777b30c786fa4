package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

// ask says words to the socket and gives the answer.
func (s *sidecar) ask(words ...string) Answer {
	s.t.Helper()
	c := s.socketFront.dial()
	defer c.Close()
	line := strconv.Quote("walbaton/1")
	for _, w := range words {
		line += " " + strconv.Quote(w)
	}
	if _, err := fmt.Fprintln(c, line); err != nil {
		s.t.Fatal(err)
	}
	a, err := readAnswer(bufio.NewReader(c), func() {})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// expire asks for one, and gives what is said of the only archive.
func (s *sidecar) expire(req expireRequest) (expireStep, expireAnswer, Answer) {
	s.t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		s.t.Fatal(err)
	}
	a := s.ask("expire", string(b))
	var out expireAnswer
	if a.Code == 0 {
		if err := json.Unmarshal([]byte(a.Message), &out); err != nil || len(out.Archives) != 1 {
			s.t.Fatalf("%v: %s", err, a.Message)
		}
		return out.Archives[0], out, a
	}
	return expireStep{}, out, a
}

// backupFile is the history file of a backup that takes a record of w now.
func backupFile(w *waltest.Writer) (string, []byte) {
	start := w.Pos()
	w.Commit(time.Now())
	g := wal.SegmentSize(1<<20).At(w.History().Timeline, start)
	n := wal.Name{Kind: wal.KindBackup, Segment: g, Offset: uint32(start - g.Start())}
	now := time.Now().UTC().Format("2006-01-02 15:04:05 MST")
	return n.String(), fmt.Appendf(nil, "START WAL LOCATION: %v (file %v)\nSTOP WAL LOCATION: %v (file %v)\nSTART TIME: %s\nLABEL: nightly\nSTOP TIME: %s\n", start, g, w.Pos(), g, now, now)
}

// shipped waits until the archive has the last that w has finished, and what comes before it or a floor in its place.
func (s *sidecar) shipped(c *testCluster, w *waltest.Writer) {
	s.t.Helper()
	s.until(time.Minute, "all segments are in the archive", func() bool {
		site, _ := s.current()
		return site != nil && !slices.ContainsFunc(w.Full(), func(g wal.Segment) bool {
			return !c.archived(g.String()) && !site.archiver.Archive().BelowFloor(wal.SegmentName(g))
		})
	})
}

// TestExpireOverSocket: every node plans, the holder of the baton alone deletes; and what was deleted is waited for by nobody.
func TestExpireOverSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(5)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		n1.shipped(c, w)
		before := expireRequest{Before: w.Full()[4].String(), By: "bob"}
		if _, _, a := n1.expire(before); a.Code != exitFailed || !strings.Contains(a.Message, "--without-backups") {
			t.Errorf("without a backup: %+v", a)
		}
		name, label := backupFile(w)
		w.Fill(2)
		n1.file(name, label)
		n1.primary(w)
		n2.standby(w, "n1")
		n1.shipped(c, w)
		n1.until(time.Minute, "the backup's file is in the archive", func() bool { return c.archived(name) })
		before.Before = w.Full()[len(w.Full())-1].String()

		st, out, _ := n2.expire(before)
		if st.Plan.Objects != 5 || !strings.Contains(out.NotHere, "n1 holds the baton") {
			t.Errorf("n2 plans %+v, and says %q", st.Plan, out.NotHere)
		}
		before.Run = true
		if _, _, a := n2.expire(before); a.Code != exitFailed || !strings.Contains(a.Message, "n1 holds the baton") || !c.archived(w.Full()[0].String()) {
			t.Errorf("n2 was told %+v", a)
		}
		before.Shown = map[string]string{st.Plan.Archive: "0/1"}
		if _, _, a := n1.expire(before); a.Code != exitFailed || !strings.Contains(a.Message, "not what was shown") || !c.archived(w.Full()[0].String()) {
			t.Errorf("another plan than was shown: %+v", a)
		}
		before.Shown[st.Plan.Archive] = st.Plan.From
		st, _, a := n1.expire(before)
		if st.Done == nil || st.Error != "" || st.Done.Deleted != 5 || c.archived(w.Full()[4].String()) || !c.archived(w.Full()[5].String()) || !c.archived(name) {
			t.Errorf("n1 did %+v, %+v", st, a)
		}
		if st.Done != nil && st.Done.Raised[0].By != "bob" {
			t.Errorf("the floor says %+v", st.Done.Raised)
		}
		for _, s := range []*sidecar{n1, n2} {
			time.Sleep(2 * time.Minute)
			if answer, _ := s.push(w.Full()[1].String()); answer != `0 ""` {
				t.Errorf("%s, a push of what was deleted: %s", s.cfg.Name, answer)
			}
			if st := s.Status(); len(st.Alarms) > 0 || st.Archive.Waiting > 0 {
				t.Errorf("%s: %+v, alarms %+v", s.cfg.Name, st.Archive, st.Alarms)
			}
		}
		if got := n1.Status().Archive.Floor; got != st.Plan.From {
			t.Errorf("status says the floor is %s, want %s", got, st.Plan.From)
		}
		if c.archived(w.Full()[1].String()) {
			t.Error("what was deleted came back")
		}
		for _, bad := range []string{"00000002.history", "000000020000000000000008", "9999/0", "2999-01-01T00:00:00Z"} {
			if _, _, a := n1.expire(expireRequest{Before: bad}); a.Code == 0 || a.Message == "" {
				t.Errorf("%s: %+v", bad, a)
			}
		}
		n2.stop()
		n1.stop()
	})
}

// TestExpireSeveral: each archive has its own plan; one that does not answer gets the floor when it is back, and the next run deletes there.
func TestExpireSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newFarCluster(t, true), newTestWriter(8)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.shipped(c, w)
		name := func(i int) string { return w.Full()[i].String() }
		n1.until(time.Minute, "the far archive has all", func() bool { return c.far.has(t, name(7)) })
		n1.until(time.Minute, "the baton is taken", n1.holds)
		run := func(keep int) (out expireAnswer) {
			b, err := json.Marshal(expireRequest{Before: name(keep), WithoutBackups: true, Run: true})
			if err != nil {
				t.Fatal(err)
			}
			a := n1.ask("expire", string(b))
			if err := json.Unmarshal([]byte(a.Message), &out); a.Code != 0 || err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			return out
		}
		if out := run(2); len(out.Archives) != 2 || c.archived(name(1)) || c.far.has(t, name(1)) || !c.archived(name(2)) || !c.far.has(t, name(2)) {
			t.Errorf("both: %+v", out)
		}
		c.far.spoils(func(string, string) storemem.Fault { return storemem.Fault{Drop: true} })
		time.Sleep(time.Minute)
		c.far.spoils(func(_, archive string) storemem.Fault { return storemem.Fault{Drop: archive == "far"} })
		time.Sleep(time.Minute)
		if out := run(4); len(out.Archives) != 1 || c.archived(name(3)) || !c.far.has(t, name(3)) {
			t.Errorf("one alone: %+v", out)
		}
		c.far.heal()
		n1.until(5*time.Minute, "the far archive answers", func() bool { s, _ := n1.current(); return len(s.archiver.Answering()) == 2 })
		time.Sleep(time.Minute)
		if out := run(4); len(out.Archives) != 2 || c.far.has(t, name(3)) || !c.far.has(t, name(4)) || c.archived(name(3)) {
			t.Errorf("when it is back: %+v", out)
		}
		n1.stop()
	})
}

// TestExpireEndsWithTheTerm: a holder that cannot reach the DCS any more stops deleting before somebody else may hold the baton; the next run finishes.
func TestExpireEndsWithTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(200)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		n1.shipped(c, w)
		n1.until(time.Minute, "the baton is taken", n1.holds)
		deletes, last := 0, time.Time{}
		c.spoilsSome(func(call storemem.Call) storemem.Fault {
			if call.Op == storemem.OpDelete {
				deletes, last = deletes+1, time.Now()
				return storemem.Fault{Delay: 2 * time.Second}
			}
			return storemem.Fault{}
		})
		req := expireRequest{Before: w.Full()[198].String(), WithoutBackups: true, Run: true}
		got := make(chan expireStep)
		go func() {
			st, _, _ := n1.expire(req)
			got <- st
		}()
		n1.until(time.Minute, "it deletes", func() bool { return deletes > 10 })
		n1.cut.Store(int32(dcsmem.Hang))
		n1.until(n1.cfg.TTL, "the term ends", func() bool { return !n1.holds() })
		over := time.Now()
		st := <-got
		if st.Done == nil || st.Error == "" || !strings.Contains(st.Error, "baton: ") || time.Since(over) > time.Second || last.After(over) {
			t.Errorf("it ended with %q, %v after the term; the last delete was sent %v before its end", st.Error, time.Since(over), over.Sub(last))
		}
		n1.cut.Store(int32(dcsmem.None))
		c.heal()
		n1.until(time.Minute, "the baton is taken again", n1.holds)
		st, _, a := n1.expire(req)
		if st.Error != "" || len(st.Plan.Raise) != 0 || st.Done == nil || st.Done.Deleted+deletes < 198 || c.archived(w.Full()[197].String()) {
			t.Errorf("the next run: %+v, %+v", st, a)
		}
		n1.stop()
	})
}

// TestRetention: with retention.keep the holder expires once in its time what no restore needs, also across a hand-over; what it
// cannot do it says once.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), waltest.New(testSystemID, 1<<20)
		w.Fill(1)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		for _, s := range []*sidecar{n1, n2} {
			s.cfg.Retention = RetentionConfig{Mode: retentionOff, Keep: 30 * time.Minute, Every: 10 * time.Minute}
		}
		n1.primary(w)
		n2.standby(w, "n1")
		n1.start()
		n2.start()
		lead := n1
		floors := map[string]bool{}
		for d := range 10 {
			if d == 1 {
				lead.until(time.Minute, "it is said that there is no backup", func() bool { return lead.log.count("retention expires nothing") == 1 })
			}
			if d >= 1 {
				name, label := backupFile(w)
				lead.file(name, label)
			}
			w.Commit(time.Now())
			w.Fill(2)
			n1.is(w, n1.server.Server().State, n1.server.Server().Receiver.Host)
			n2.is(w, n2.server.Server().State, n2.server.Server().Receiver.Host)
			lead.shipped(c, w)
			if d == 6 { // a hand-over
				fork := w.Fork(2)
				n1.standby(fork, "n2")
				n2.primary(fork)
				c.patroni("n2", 2, "n1", "n2")
				lead, w = n2, fork
				n2.until(time.Minute, "n2 holds the baton", n2.holds)
			}
			for range 10 {
				time.Sleep(time.Minute)
				floors[lead.Status().Archive.Floor] = true
			}
		}
		if got := lead.log.count("retention expires nothing") + n1.log.count("retention expires nothing"); got > 2 {
			t.Errorf("%d times it was said that nothing can be expired", got)
		}
		runs := strings.Count(strings.Join(append(n1.log.lines(), n2.log.lines()...), "\n"), "msg=expired ")
		// From the fifth time on there is a backup that is old enough, and each time another one.
		if runs < 5 || runs > 7 || len(floors) < 6 {
			t.Errorf("it expired %d times in ten times its time, floors %v", runs, floors)
		}
		if n1.metric("walbaton_retention_failed") != 0 || n2.metric("walbaton_retention_last_run_timestamp_seconds") == 0 {
			t.Error("the metrics do not say that it works")
		}
		n2.stop()
		n1.stop()
	})
}

// TestStandbyOnly: nothing goes before every member has told its restart point, then all below the lowest; a member that is gone counts on for a while.
func TestStandbyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(12)
		c.patroni("n1", 1, "n1", "n2", "n3")
		var all []*sidecar
		for _, name := range []string{"n1", "n2", "n3"} {
			s := c.newSidecar(name)
			s.cfg.Retention = RetentionConfig{Mode: retentionStandby, Every: time.Minute}
			s.retention.grace = 20 * time.Minute
			if name == "n1" {
				s.primary(w)
				srv := s.server.Server()
				srv.Redo = w.Full()[10].Start() + 100
				s.server.set(srv)
			} else {
				s.standby(w, "n1")
			}
			s.start()
			all = append(all, s)
		}
		n1, n2, n3 := all[0], all[1], all[2]
		n1.shipped(c, w)
		name := func(i int) string { return w.Full()[i].String() }
		if a := n2.ask("cleanup", name(8), "/data"); a != (Answer{}) {
			t.Errorf("cleanup: %+v", a)
		}
		for arg, code := range map[string]int{"x": exitUsage, "00000002.history": exitUsage, "000000000000000000000000": 0} {
			if a := n3.ask("cleanup", arg, ""); a.Code != code || code != 0 && !strings.Contains(a.Message, "archive_cleanup_command") {
				t.Errorf("cleanup %s: %+v", arg, a)
			}
		}
		time.Sleep(3 * time.Minute)
		// Twice, when the first look was before n2 had told its own.
		if said := n1.log.count("retention expires nothing"); !c.archived(name(0)) || said < 1 || said > 2 || !strings.Contains(strings.Join(n1.log.lines(), "\n"), "the restart point of n3 is not known") {
			t.Errorf("n3 has told nothing; n1's log:\n%s", strings.Join(n1.log.lines(), "\n"))
		}
		if st, other := n1.Status(), n2.Status(); !strings.Contains(strings.Join(st.notes(), "\n"), "retention expires nothing: ") || other.RetentionWhy != "" {
			t.Errorf("the holder's status notes %q, another one's has %q", st.notes(), other.RetentionWhy)
		}
		n3.ask("cleanup", name(5), "/data")
		n1.until(3*time.Minute, "it expires", func() bool { return !c.archived(name(0)) })
		time.Sleep(time.Minute)
		if c.archived(name(4)) || !c.archived(name(5)) {
			t.Error("it is not kept from n3's restart point on")
		}
		var seen []string
		for _, m := range n2.Status().Members {
			seen = append(seen, m.Restart)
		}
		if want := []string{name(10), name(8), name(5)}; !slices.Equal(seen, want) {
			t.Errorf("the restart points are %v, want %v", seen, want)
		}
		n3.stop()
		c.scope.Delete("members/n3")
		n2.ask("cleanup", name(9), "/data")
		time.Sleep(10 * time.Minute)
		if !c.archived(name(5)) {
			t.Error("n3 is gone for a short while, and what it needs too")
		}
		time.Sleep(12 * time.Minute)
		if c.archived(name(8)) || !c.archived(name(9)) {
			t.Error("n3 is gone for long, and it is not kept from n2's restart point on")
		}
		n2.stop()
		n1.stop()
	})
}
