package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	storemem "github.com/walbaton/walbaton/archiver/store/mem"
)

// The lines that a story has again and again, as normal leaves them.
const (
	took = `level=INFO msg="took the baton" term=T rule=`
	gave = `level=INFO msg="gave the baton back" term=T why="`
	away = `level=WARN msg="the archive does not answer" archive=mem://archive/shop/7710542482846769188 why="`
	back = `level=INFO msg="the archive answers again" archive=mem://archive/shop/7710542482846769188`
)

func linesOfStart(member string) []string {
	return []string{
		`level=INFO msg="the sidecar runs" member=` + member + ` scope=shop archive=mem://archive encrypted_to=0 socket=/run/walbaton/walbaton.sock listen=` + member + `:9847`,
		`level=INFO msg="the archive keeps the first writer's object: proven" archive=mem://archive`,
		`level=INFO msg="the archive is open" archive=mem://archive/shop/7710542482846769188 floor=0/100000`,
	}
}

// told compares what was logged since the last call. What happens at one time is told in any order.
func (s *sidecar) told(chapter string, want []string) {
	s.t.Helper()
	all := s.log.lines()
	got := normal(all[s.read:])
	s.read = len(all)
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		s.t.Errorf("%s, %s: got\n%s\nwant\n%s", chapter, s.cfg.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLogOneLineAChange plays a day of a cluster: each change of state is one line, on the node that it happens to, and says what
// happened. What is the same as before writes nothing.
func TestLogOneLineAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(2)
		c.patroni("n1", 1, "n1", "n2")
		n1, n2 := c.newSidecar("n1"), c.newSidecar("n2")
		n1.primary(w)
		n2.standby(w, "n1")
		told := func(chapter string, want map[*sidecar][]string) {
			t.Helper()
			n1.told(chapter, want[n1])
			n2.told(chapter, want[n2])
		}
		work := func(d time.Duration) { // a segment every ten seconds, on both nodes
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
				w.Fill(1)
				n1.primary(w)
				n2.standby(w, "n1")
			}
		}

		n1.start()
		time.Sleep(5 * time.Second)
		told("the first node starts", map[*sidecar][]string{n1: append(linesOfStart("n1"), took+`policy why="it is the leader"`)})
		n2.start()
		work(10 * time.Minute)
		told("the second node starts, and all is well", map[*sidecar][]string{n2: linesOfStart("n2")})

		c.spoils(storemem.Fault{Drop: true})
		work(10 * time.Minute)
		told("the archive is away", map[*sidecar][]string{
			n1: {away + `put SEGMENT: connection reset by fault (try 5, the last)"`, gave + `nobody may hold it now: the leader n1 does not reach the archive"`},
			n2: {took + `free why="it was free for 15s and the archive lacks N that we have"`, away + `list shop/7710542482846769188/history/: connection reset by fault (try 5, the last)"`},
		})
		c.heal()
		work(time.Minute)
		told("the archive is back", map[*sidecar][]string{
			n1: {back, took + `policy why="it is the leader"`},
			n2: {back, gave + `n1 is next: it is the leader"`},
		})

		fork := w.Fork(2)
		fork.Fill(2)
		n1.stopped(w)
		n2.primary(fork)
		c.patroni("n2", 2, "n1", "n2")
		time.Sleep(30 * time.Second)
		n1.standby(fork, "n2")
		time.Sleep(time.Minute)
		told("another node leads", map[*sidecar][]string{
			n1: {gave + `n2 is next: it is the leader"`},
			n2: {took + `policy why="it is the leader"`},
		})

		n1.stop()
		n2.stop()
		told("both stop", map[*sidecar][]string{
			n1: {`level=INFO msg="the sidecar stops"`},
			n2: {`level=INFO msg="the sidecar stops"`, gave + `the sidecar stops"`},
		})
	})
}

// normal replaces what a run of the same story may have otherwise.
func normal(lines []string) []string {
	for _, r := range []struct{ from, to string }{
		{`term=\d+`, "term=T"}, {`put shop/\S+/wal/\S+/[0-9A-F]{24}`, "put SEGMENT"}, {`lacks \d+ segments?`, "lacks N"},
	} {
		for i, l := range lines {
			lines[i] = regexp.MustCompile(r.from).ReplaceAllString(l, r.to)
		}
	}
	return lines
}
