package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	storemem "github.com/walbaton/walbaton/archiver/store/mem"
	dcsmem "github.com/walbaton/walbaton/leader/dcs/mem"
)

// chapter takes the lines since the last one.
func (s *sidecar) chapter() (lines []string) {
	all := s.log.lines()
	lines = all[s.told:]
	s.told = len(all)
	return lines
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
			for _, n := range []*sidecar{n1, n2} {
				got, want := normal(n.chapter()), strings.Join(slices.Sorted(slices.Values(want[n])), "\n")
				slices.Sort(got) // what happens at one time is told in any order
				if got := strings.Join(got, "\n"); got != want {
					t.Errorf("%s, %s: got\n%s\nwant\n%s", chapter, n.cfg.Name, got, want)
				}
			}
		}
		work := func(d time.Duration) { // a segment every ten seconds, on both nodes
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
				w.Fill(1)
				n1.primary(w)
				n2.standby(w, "n1")
			}
		}
		begin := func(member string) []string {
			return []string{
				`level=INFO msg="the sidecar runs" member=` + member + ` scope=shop archive=mem://archive socket=/run/walbaton/walbaton.sock listen=` + member + `:9847`,
				`level=INFO msg="the archive keeps the first writer's object: proven" archive=mem://archive`,
				`level=INFO msg="the archive is open" archive=mem://archive/shop/7710542482846769188 floor=0/100000`,
			}
		}
		const took, gave = `level=INFO msg="took the baton" term=T rule=`, `level=INFO msg="gave the baton back" term=T why="`
		const away, back = `level=WARN msg="the archive does not answer" archive=mem://archive/shop/7710542482846769188 why="`,
			`level=INFO msg="the archive answers again" archive=mem://archive/shop/7710542482846769188`

		n1.start()
		time.Sleep(5 * time.Second)
		told("the first node starts", map[*sidecar][]string{n1: append(begin("n1"), took+`policy why="it is the leader"`)})
		n2.start()
		work(10 * time.Minute)
		told("the second node starts, and all is well", map[*sidecar][]string{n2: begin("n2")})

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

		n2.cut.Store(int32(dcsmem.Drop))
		time.Sleep(time.Minute)
		n2.cut.Store(int32(dcsmem.None))
		time.Sleep(time.Minute)
		told("the DCS is away for one node", map[*sidecar][]string{n2: {
			`level=WARN msg="the DCS does not answer" dcs=mem op=OP error="OP: network fault: drop"`,
			`level=WARN msg="lost the baton" term=T why="the lease could not be renewed in time"`,
			`level=INFO msg="the DCS answers again" dcs=mem`,
			took + `policy why="it is the leader"`,
		}})

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
		{`term=\d+`, "term=T"}, {`put shop/\S+/wal/\S+/[0-9A-F]{24}`, "put SEGMENT"}, {`lacks \d+ segments?`, "lacks N"}, {`op=\w+ error="\w+:`, `op=OP error="OP:`},
	} {
		for i, l := range lines {
			lines[i] = regexp.MustCompile(r.from).ReplaceAllString(l, r.to)
		}
	}
	return lines
}
