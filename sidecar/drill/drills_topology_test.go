//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Patroni's maintenance mode: the primary is restarted by hand, killed and started by hand, and handed over, and what it
// finishes is archived all the time.
func TestDrillPause(t *testing.T) {
	s := begin(t, Options{})
	p := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("Patroni is paused", s.Pause)
	s.do("the primary is restarted by hand", p.RestartPostgres)
	s.shipped()
	s.do("kill -9 of PostgreSQL alone", p.KillPostgres)
	s.do("Patroni gives the leader key up, and starts nothing", s.leaderIs(""))
	s.look()
	s.do("it is started by hand", p.StartPostgres)
	s.do("and is the leader again", s.leaderIs(p.Name))
	s.shipped()
	s.do("all stream again", s.AllStreaming)
	to := s.Standbys(p)[0]
	s.do("a switchover to "+to.Name, s.switchover(to))
	s.shipped()
	s.look()
	s.quiet()
	s.do("Patroni goes on", s.Unpause)
	s.do("all stream", s.AllStreaming)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// leaderIs is the verb that waits until that member has the leader key, or nobody.
func (s *scenario) leaderIs(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, failoverLimit, fmt.Sprintf("the leader is %q", name), func(ctx context.Context) error {
			_, body, err := get(ctx, s.Nodes[2].rest()+"/cluster")
			leader := ""
			if at := regexp.MustCompile(`"name": "(\w+)", "role": "leader"`).FindSubmatch(body); at != nil {
				leader = string(at[1])
			}
			if err == nil && leader != name {
				err = fmt.Errorf("Patroni says %s", body)
			}
			return err
		})
	}
}

// shipped ends a segment, and waits until the archive has it.
func (s *scenario) shipped() {
	s.t.Helper()
	s.do("what is finished is archived", func(ctx context.Context) error {
		if err := s.Finish(ctx, 2); err != nil {
			return err
		}
		missing, err := s.Settle(ctx, s.base, 30*time.Second)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("the archive lacks %v", missing)
		}
		return err
	})
}

// Cascading: n3 streams from n2, and has the baton. It does not stream from the leader, so it opens no timeline; the leader
// does. n2 dies and comes back. With archive_mode=on no PostgreSQL of a standby asks about a segment: the sidecar finds out
// alone what the leader has put.
func TestDrillCascade(t *testing.T) {
	s := begin(t, Options{ArchiveMode: "on", Settings: "policy: replica\n", Tags: map[string]string{"n3": "replicatefrom: n2, walbaton: designated"}})
	n1, n2, n3 := s.Nodes[0], s.Nodes[1], s.Nodes[2]
	s.do("n3 streams from n2", s.streamsFrom(n3, n2))
	s.do("n3 has the baton", s.holds(n3))
	s.do("three segments are finished", s.finish(3))
	s.archivedBy(n3)

	s.do("kill -9 of PostgreSQL of the primary; Patroni promotes it to a new timeline", n1.KillPostgres)
	s.do("it takes writes again", s.promoted)
	if p := s.primary(); p != n1 {
		t.Fatalf("%s is the primary, not n1", p.Name)
	}
	s.do("n3 streams from n2", s.streamsFrom(n3, n2))
	s.do("the new timeline is opened by the leader, and not by n3", s.openedBy(2, n1))
	s.do("n3 has the baton", s.holds(n3))
	s.archivedBy(n3)
	s.look()

	s.do("kill -9 of n2: PostgreSQL, Patroni, sidecar", n2.Kill)
	s.do("n3 streams from the primary", s.streamsFrom(n3, n1))
	s.shipped()
	s.do("n2 comes back", n2.Restart)
	s.do("n3 streams from n2", s.streamsFrom(n3, n2))
	s.do("all stream", s.AllStreaming)
	s.do("n3 has the baton", s.holds(n3)) // while it did not stream, the leader had it
	s.archivedBy(n3)
	s.quiet()
	s.wholeTruth()
}

// streamsFrom is the verb that waits until a node streams from another.
func (s *scenario) streamsFrom(n, from *Node) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, clusterLimit, n.Name+" streams from "+from.Name, func(ctx context.Context) error {
			port, err := query[int](ctx, n.DSN(), "select coalesce((select sender_port from pg_stat_wal_receiver where status = 'streaming'), 0)")
			if err == nil && port != from.port() {
				err = fmt.Errorf("it streams from port %d", port)
			}
			return err
		})
	}
}

// archivedBy ends segments until the archive has one from that node: while it does not stream, the leader may have the baton.
func (s *scenario) archivedBy(n *Node) {
	s.t.Helper()
	s.do("what is finished is archived by "+n.Name, func(ctx context.Context) error {
		return until(ctx, failoverLimit, n.Name+" archives", func(ctx context.Context) error {
			name, err := query[string](ctx, s.primary().DSN(), "select pg_walfile_name(pg_switch_wal())")
			if err != nil {
				return err
			}
			if err = s.comes(ctx, name, n); err != nil {
				text, _ := s.typed(n, "explain", name)
				s.t.Logf("walbaton explain %s on %s:\n%s", name, n.Name, text)
			}
			return err
		})
	})
}

// openedBy is the verb that waits until the archive has a timeline's history and its first segment from a node.
func (s *scenario) openedBy(timeline uint64, by *Node) func(context.Context) error {
	return func(ctx context.Context) error {
		at, err := line(filepath.Join(by.PGData(), "pg_wal"), timeline)
		if err != nil {
			return err
		}
		first := segmentName(timeline, at[len(at)-1].lsn/s.segmentSize(), s.segmentSize())
		return errors.Join(s.comes(ctx, fmt.Sprintf("%08X.history", timeline), by), s.comes(ctx, first, by))
	}
}

// comes waits until the archive has a file, and says whose it is when it is not the node's.
func (s *scenario) comes(ctx context.Context, name string, from *Node) error {
	by := ""
	err := until(ctx, 30*time.Second, "the archive has "+name, func(ctx context.Context) (err error) {
		if by, err = s.putBy(ctx, name); err == nil && by == "" {
			err = errors.New("it has not")
		}
		return err
	})
	if err == nil && by != from.Name {
		err = fmt.Errorf("the archive has %s from %s, not from %s", name, by, from.Name)
	}
	return err
}

// A member that never streams, as Patroni's tag nostream makes it since 3.3: it reads the archive only. Debian's Patroni 3.0
// has no such tag; here the node's role for replication is one that does not exist. It has no WAL that the archive lacks,
// so it must not have the baton, though it is designated and runs close behind.
func TestDrillNoStream(t *testing.T) {
	s := begin(t, Options{Settings: "policy: replica\n", Tags: map[string]string{"n2": "walbaton: designated"}})
	n2, n3 := s.Nodes[1], s.Nodes[2]
	s.do("the designated n2 has the baton", s.holds(n2))
	s.do("its role for replication is taken away", func(ctx context.Context) error {
		if err := n2.Edit("patroni.yml", "replication: {username: replicator,", "replication: {username: nobody,"); err != nil {
			return err
		}
		return n2.Restart(ctx)
	})
	s.do("n2 reads the archive only", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "n2 replays", func(ctx context.Context) error {
			_, err := query[string](ctx, n2.DSN(), "select pg_last_wal_replay_lsn()::text")
			return err
		})
	})
	s.do("n3 has the baton", s.holds(n3))
	s.archivedBy(n3)
	for range 3 {
		s.do("n2 follows", func(ctx context.Context) error { return s.caughtUp(ctx, s.primary(), n2) })
		s.archivedBy(n3)
	}
	s.look()
	s.quiet()
	s.takenAtMost(6)
	s.do("n2 goes: it would wait for the end of a segment", n2.Kill)
	s.wholeTruth()
}

// The policy changes from primary to replica, one node after the other, under load and with a switchover in the middle.
func TestDrillPolicyChange(t *testing.T) {
	s := begin(t, Options{Settings: "policy: primary\n"})
	s.do("the primary has the baton", s.holds(s.primary()))
	change := func(n *Node) {
		s.do("policy: replica, on "+n.Name, func(ctx context.Context) error {
			return errors.Join(n.Edit("walbaton.yml", "policy: primary", "policy: replica"), n.RestartSidecar(ctx))
		})
		s.shipped()
		s.look()
	}
	change(s.Standbys(s.primary())[0])
	s.do("a switchover to the changed node", s.switchover(s.Standbys(s.primary())[0]))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.shipped()
	s.look()
	change(s.Standbys(s.primary())[0])
	change(s.Standbys(s.primary())[1])
	s.do("a standby has the baton", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "a standby has the baton", s.standbyShips)
	})
	s.quiet()
	s.takenAtMost(12)
	s.wholeTruth()
}

// takenAtMost fails the drill when the baton went from hand to hand more often than that.
func (s *scenario) takenAtMost(terms int) {
	s.t.Helper()
	taken := 0
	for _, n := range s.Nodes {
		taken += strings.Count(n.Log("sidecar"), "took the baton")
	}
	if taken > terms {
		s.t.Errorf("the baton was taken %d times, want at most %d", taken, terms)
		for _, n := range s.Nodes {
			s.t.Logf("sidecar of %s:\n%s", n.Name, grep(n.Log("sidecar"), "the baton"))
		}
	}
	s.t.Logf("the baton was taken %d times", taken)
}

// oldRelease is the commit with which the first release of this project was proven.
const oldRelease = "f40cf83"

// A rolling change from the first release to this one, one node after the other, and back on one of them, under load and with switchovers between
// nodes of the two.
func TestDrillFullVersionChange(t *testing.T) {
	old := buildRelease(t, oldRelease)
	s := begin(t, Options{Binaries: old, Settings: "policy: replica\n"})
	s.do("a standby has the baton", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "a standby has the baton", s.standbyShips)
	})
	now := filepath.Join(s.Dir, "new")
	s.do("this release is built", func(ctx context.Context) error {
		if err := os.Mkdir(now, 0o755); err != nil {
			return err
		}
		if from := os.Getenv("WALBATON_BIN"); from != "" {
			return Run(exec.CommandContext(ctx, "cp", filepath.Join(from, "walbaton"), filepath.Join(from, "walbaton-wal"), now))
		}
		return Build(ctx, now)
	})
	change := func(n *Node) {
		s.do("the new release, on "+n.Name, func(ctx context.Context) error {
			return errors.Join(n.Install(now), n.RestartSidecar(ctx))
		})
		s.shipped()
		s.look()
	}
	first := s.Standbys(s.primary())[0]
	change(first)
	s.do("a switchover to the node with the new release", s.switchover(first))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.shipped()
	second := s.Standbys(s.primary())[0]
	s.do("a switchover to a node with the old release", s.switchover(second))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.shipped()
	for _, n := range s.Nodes {
		if n != first {
			change(n)
		}
	}
	s.do("one node goes back to the old release", func(ctx context.Context) error {
		return errors.Join(second.Install(s.Bin("")), second.RestartSidecar(ctx)) // what New copied there
	})
	s.shipped()
	s.do("a switchover away from it", s.switchover(first))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.shipped()
	s.do("a switchover back to it", s.switchover(second))
	s.do("the old primary becomes a standby", s.AllStreaming)
	s.shipped()
	s.do("a standby has the baton", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "a standby has the baton", s.standbyShips)
	})
	s.quiet()
	s.takenAtMost(24)
	s.wholeTruth()
}

// buildRelease builds walbaton and walbaton-wal of an older commit of this repository, with the libraries of today: a drill has no
// network to get others.
func buildRelease(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	source, bin := filepath.Join(dir, "source"), filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(source, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		t.Fatal(err)
	}
	here, err := Output(exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel"))
	if err != nil {
		t.Fatal(err)
	}
	here = strings.TrimSpace(here)
	get := exec.CommandContext(t.Context(), "sh", "-c", `git archive "$1" >"$2.tar" && tar -x -C "$2" -f "$2.tar"`, "sh", commit, source)
	get.Dir = here
	if err := Run(get); err != nil {
		t.Fatalf("commit %s is needed, so a clone with its history: %v", commit, err)
	}
	for name, pkg := range map[string]string{"walbaton": "./sidecar", "walbaton-wal": "./sidecar/walbaton-wal"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-modfile="+filepath.Join(here, "go.mod"), "-o", filepath.Join(bin, name), pkg)
		cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
		if err := Run(cmd); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}
