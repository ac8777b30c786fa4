//go:build drills

package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Patroni alone dies on the primary: another node is promoted, and for a while two primaries take writes and archive. The
// line is the new one's. What the old one wrote beyond the fork goes to orphans.
func TestDrillTwoPrimariesPatroniKilled(t *testing.T) { patroniKilled(t, "primary") }

// The same while a standby ships.
func TestDrillTwoPrimariesPatroniKilledReplica(t *testing.T) { patroniKilled(t, "replica") }

func patroniKilled(t *testing.T, policy string) {
	s := begin(t, Options{Settings: "policy: " + policy + "\n"})
	old := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("Patroni of the primary dies, PostgreSQL goes on", old.KillPatroni)
	s.do("another node is promoted, beside it", func(ctx context.Context) error { return s.Promoted(ctx, old) })
	heir := s.primary()
	var dead []string // what the old primary wrote beyond the fork
	s.do("both take writes and archive, in turn", func(ctx context.Context) error {
		for i := range 6 {
			if _, err := s.write(ctx, heir, i, "of the new primary"); err != nil {
				return err
			}
			file, err := s.write(ctx, old, i, "of the old primary")
			if err != nil {
				return err
			}
			dead = append(dead, file)
		}
		return nil
	})
	s.do("both archivers are told 0", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "all that is finished is .done", func(context.Context) error {
			waiting, err := old.WAL("ready")
			if i := slices.IndexFunc(waiting, func(name string) bool { return slices.Contains(dead, name) }); err == nil && i >= 0 {
				err = fmt.Errorf("%s waits on %s", waiting[i], old.Name)
			}
			return err
		})
	})
	s.do("what the old one wrote beyond the fork is in orphans, and nowhere else", func(ctx context.Context) error {
		for _, name := range dead {
			if err := s.onlyOrphan(ctx, old, name); err != nil {
				return err
			}
		}
		return nil
	})
	s.look()
	if text := old.Log("patroni"); strings.Contains(text, "not archived") {
		t.Errorf("PostgreSQL was told 1:\n%s", grep(text, "not archived"))
	}
	s.quiet()
	s.do("Patroni of the old primary starts again", old.StartPatroni)
	if !s.rejoins(old) {
		s.logged(old, "patroni", "pg_rewind")
	}
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
	s.rowsOf(heir, "of the new primary")
}

// Two servers are promoted to one timeline number, by hand, while Patroni is paused and the primary is dead. Patroni takes
// one of them for the leader, and the archive has its timeline. The other one is refused until an administrator has
// said what walbaton told to say.
func TestDrillTwoPrimariesOneTimeline(t *testing.T) {
	s := begin(t, Options{})
	dead := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("Patroni is paused", s.Pause)
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", dead.Kill)
	promoted := s.Standbys(dead)
	s.do("both standbys are promoted by hand", func(ctx context.Context) error {
		done := make(chan error, len(promoted))
		for _, n := range promoted {
			go func() { done <- n.PromotePostgres(ctx) }()
		}
		return errors.Join(<-done, <-done)
	})
	s.do("both are on one timeline", func(ctx context.Context) error {
		for _, n := range promoted {
			file, err := query[string](ctx, n.DSN(), "select pg_walfile_name(pg_current_wal_insert_lsn())")
			if err == nil && !strings.HasPrefix(file, "00000002") {
				err = fmt.Errorf("%s writes %s", n.Name, file)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	s.do("Patroni takes one for the leader", s.promoted)
	heir := s.primary()
	second := s.Standbys(heir)[slices.IndexFunc(s.Standbys(heir), func(n *Node) bool { return n != dead })]
	var names []string
	s.do("both take writes and archive, in turn", func(ctx context.Context) error {
		for i := range 6 {
			name, err := s.write(ctx, second, i, "of the second primary")
			if err != nil {
				return err
			}
			names = append(names, name)
			if _, err := s.write(ctx, heir, i, "of the leader"); err != nil {
				return err
			}
		}
		return nil
	})
	s.administrator(heir, second, names)
	s.do("the second one's disk is given up: pg_rewind sees one timeline, and nothing to rewind", second.Reinit)
	s.do("the dead primary comes back", dead.Restart)
	s.do("Patroni goes on", s.Unpause)
	s.do("all stream", s.AllStreaming)
	s.do("three more segments are finished", s.finish(3))
	s.said()
	s.wholeTruth()
	s.rowsOf(heir, "of the leader")
}

// A standby whose Patroni is dead is promoted by hand after Patroni has promoted another one. It finds the new timeline's
// history in the archive, so it takes a number of its own; and it writes far more than the leader. Its Patroni comes back and
// rewinds it. Then the cluster takes the same number itself: of what is in orphans, nothing gets on the line.
func TestDrillTwoPrimariesTwoTimelines(t *testing.T) {
	s := begin(t, Options{Settings: "policy: replica\nstopped_wait: 3s\n"})
	dead := s.primary()
	second := s.Standbys(dead)[1]
	s.do("three segments are finished", s.finish(3))
	s.do("Patroni of "+second.Name+" dies, PostgreSQL goes on", second.KillPatroni)
	s.do("kill -9 of the primary: PostgreSQL, Patroni, sidecar", dead.Kill)
	s.do("another node is promoted", s.promoted)
	heir := s.primary()
	s.do("the archive has its history", func(ctx context.Context) error { return s.comes(ctx, "00000002.history", heir) })
	s.do(second.Name+" is promoted by hand", second.PromotePostgres)
	var names []string
	s.do("it finishes 120 segments", func(ctx context.Context) error {
		for i := range 120 {
			name, err := s.write(ctx, second, i, "of the second primary")
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		return nil
	})
	if !strings.HasPrefix(names[0], "00000003") {
		t.Fatalf("%s writes %s: the number was used twice\n%s", second.Name, names[0], grep(second.Log("patroni"), "00000002.history"))
	}
	// pg_rewind of PostgreSQL 15 takes a server that was stopped in recovery to be on the timeline of its last checkpoint, and Patroni gives up
	// when it fails: the checkpoint that follows a promotion is to be there.
	s.do("its checkpoint is on its timeline", func(ctx context.Context) error { return second.Exec(ctx, "checkpoint") })
	s.do("walbaton status says it on the leader's node", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "status tells of both", func(context.Context) error {
			text, code := s.typed(heir, "status")
			if want := fmt.Sprintf("! %s is a primary, and Patroni's leader is %s: ", second.Name, heir.Name); code != 3 || !strings.Contains(text, want) {
				return fmt.Errorf("exit code %d: %s", code, text)
			}
			return nil
		})
	})
	s.look()
	text, _ := s.typed(second, "explain", names[1])
	t.Logf("walbaton explain %s:\n%s", names[1], text)
	s.do("Patroni of the second one starts again", second.StartPatroni)
	s.do("the dead primary comes back", dead.Restart)
	s.do("all stream", s.AllStreaming)
	s.do("what the second one wrote is in orphans, and nowhere else", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "all is in orphans", func(ctx context.Context) error {
			orphans, err := s.orphans(ctx, second)
			missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(orphans, name) })
			if err == nil && len(missing) > 0 {
				err = fmt.Errorf("the orphans of %s lack %d of %d: %v", second.Name, len(missing), len(names), missing)
			}
			return errors.Join(err, s.onlyOrphan(ctx, second, names[0]), s.onlyOrphan(ctx, second, names[len(names)-1]))
		})
	})
	s.do("the second one becomes the leader", s.switchover(second))
	s.do("all stream", s.AllStreaming)
	if file, err := query[string](s.ctx, second.DSN(), "select pg_walfile_name(pg_current_wal_lsn())"); err != nil || file < names[0] || file > names[len(names)-1] {
		t.Logf("it is in %s, and the orphans are %s to %s: no name could be taken (%v)", file, names[0], names[len(names)-1], err)
	}
	s.do("three more segments are finished", s.finish(3))
	s.quiet()
	s.wholeTruth()
}

// administrator ends the dispute about what the second primary wrote, and types what walbaton says.
func (s *scenario) administrator(leader, second *Node, names []string) {
	s.t.Helper()
	var file string
	s.do("walbaton status names a file that needs a person", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "an alarm", func(ctx context.Context) error {
			text, code := s.typed(second, "status")
			at := regexp.MustCompile(`(?m)^! .*walbaton explain ([0-9A-F]{24})`).FindStringSubmatch(text)
			if code != 3 || at == nil {
				return fmt.Errorf("exit code %d: %s", code, text)
			}
			file = at[1]
			return nil
		})
	})
	s.look()
	if !slices.ContainsFunc(names, func(name string) bool { return name >= file }) {
		s.t.Errorf("it names %s, and the second primary finished %v", file, names)
	}
	if _, code := s.push(second, file); code != 1 {
		s.t.Fatalf("push of %s on %s answers %d", file, second.Name, code)
	}
	text, code := s.typed(second, "explain", file)
	s.t.Logf("walbaton explain %s, exit code %d:\n%s", file, code, text)
	says := regexp.MustCompile(`walbaton (resolve --member \S+ --timeline \d+) --reason`).FindStringSubmatch(text)
	if code != 3 || says == nil {
		s.t.Fatalf("walbaton explain %s on %s exits with %d, and says no resolve --member", file, second.Name, code)
	}
	// What the leader's node is told must not be a decision against the cluster's own WAL.
	if text, _ := s.typed(leader, "explain", file); strings.Contains(text, "resolve --member "+leader.Name) {
		s.t.Errorf("walbaton explain %s on the leader %s proposes to give the leader's timeline up:\n%s", file, leader.Name, text)
	}
	copied := filepath.Join(second.Dir, "copied")
	if text, code := s.typed(second, "fetch", file, copied); code != 0 {
		s.t.Errorf("walbaton fetch, as it says, exits with %d: %s", code, text)
	}
	if err := s.differs(copied, filepath.Join(second.PGData(), "pg_wal", file)); err != nil {
		s.t.Error(err)
	}
	text, code = s.typed(second, append(strings.Fields(says[1]), "--reason", "both standbys were promoted by hand", "--yes")...)
	s.t.Logf("walbaton %s, exit code %d:\n%s", says[1], code, text)
	if code != 0 {
		s.t.Fatalf("walbaton %s exits with %d", says[1], code)
	}
	s.do("push answers 0", func(ctx context.Context) error {
		for _, name := range append([]string{file}, names...) {
			if text, code := s.push(second, name); code != 0 {
				return fmt.Errorf("of %s it answers %d: %s", name, code, text)
			}
		}
		return nil
	})
	s.do("what the second one wrote is in orphans, and the archive's is the leader's", func(ctx context.Context) error {
		for _, name := range append([]string{file}, names...) {
			if err := s.orphanBeside(ctx, second, name); err != nil {
				return err
			}
		}
		return nil
	})
	s.do("PostgreSQL's archiver is told so, too, and nothing needs a person any more", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "nothing waits of what was finished by then", func(context.Context) error {
			waiting, err := second.WAL("ready")
			waiting = slices.DeleteFunc(waiting, func(name string) bool { return !slices.Contains(names, name) }) // more comes all the time
			text, _ := s.typed(second, "status")
			if err == nil && (len(waiting) > 0 || strings.Contains(text, "needs a person")) {
				err = fmt.Errorf("%v waits; %s", waiting, text)
			}
			return err
		})
	})
	s.look()
}

// differs is nil when two files can be read and have different content.
func (s *scenario) differs(a, b string) error {
	x, err := os.ReadFile(a)
	y, e := os.ReadFile(b)
	if err = errors.Join(err, e); err == nil && bytes.Equal(x, y) {
		err = fmt.Errorf("%s and %s are the same", a, b)
	}
	return err
}

// write puts a row with a number of its own into a node, whatever Patroni thinks of it, and ends the segment, whose name
// it returns. Another node may have another row of that number.
func (s *scenario) write(ctx context.Context, n *Node, i int, what string) (file string, err error) {
	if err := n.Exec(ctx, fmt.Sprintf("insert into ledger values (%d, convert_to('row %d %s', 'UTF8'))", -1-i, i, what)); err != nil {
		return "", err
	}
	file, err = query[string](ctx, n.DSN(), "select pg_walfile_name(pg_switch_wal())")
	return file, err
}

// rowsOf fails the drill when the node has not the rows which write put there.
func (s *scenario) rowsOf(n *Node, what string) {
	s.t.Helper()
	got, err := query[int](s.ctx, n.DSN(), "select count(*) from ledger where id < 0 and convert_from(pad, 'UTF8') like '%' || $1", what)
	if err != nil || got == 0 {
		s.t.Errorf("%s has %d rows %s: %v", n.Name, got, what, err)
	}
}

// typed is what an administrator sees who types a walbaton command on the node.
func (s *scenario) typed(n *Node, args ...string) (text string, code int) {
	s.t.Helper()
	return s.output(n.Walbaton(s.ctx, args[0], args[1:]...))
}

// push asks by hand what PostgreSQL's archiver asks.
func (s *scenario) push(n *Node, file string) (text string, code int) {
	s.t.Helper()
	cmd := s.Command(s.ctx, n.bin("walbaton-wal"), "push", "--socket", n.Socket(), "pg_wal/"+file)
	cmd.Dir = n.PGData()
	return s.output(n.inside(cmd))
}

func (s *scenario) output(cmd *exec.Cmd) (text string, code int) {
	s.t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// look logs what `walbaton status` shows on every node whose sidecar is there.
func (s *scenario) look() {
	s.t.Helper()
	for _, n := range s.Nodes {
		if _, err := n.Status(s.ctx); err == nil {
			text, code := s.typed(n, "status")
			s.t.Logf("walbaton status on %s, exit code %d:\n%s", n.Name, code, text)
		}
	}
}

// said logs the warnings and errors of every sidecar.
func (s *scenario) said() {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.t.Logf("the sidecar of %s has warned:\n%s%s", n.Name, grep(n.Log("sidecar"), "level=WARN"), grep(n.Log("sidecar"), "level=ERROR"))
	}
}

// quiet fails the drill when a sidecar says that something needs a person.
func (s *scenario) quiet() {
	s.t.Helper()
	s.said()
	for _, n := range s.Nodes {
		if text := n.Log("sidecar"); strings.Contains(text, "needs a person") {
			s.t.Errorf("the sidecar of %s cries for a person:\n%s", n.Name, grep(text, "needs a person"))
		}
	}
}

// orphans are the files of a member that the archive keeps in orphans.
func (s *scenario) orphans(ctx context.Context, n *Node) (names []string, err error) {
	all, err := s.Store.Objects(ctx)
	for _, o := range all {
		if _, of, ok := strings.Cut(o.Key, "/orphans/"+n.Name+"/"); ok {
			name, _, _ := strings.Cut(of, "-")
			names = append(names, name)
		}
	}
	return names, err
}

// onlyOrphan is nil when the archive has a segment of the node in orphans, and none of that name elsewhere.
func (s *scenario) onlyOrphan(ctx context.Context, n *Node, name string) error {
	orphans, err := s.orphans(ctx, n)
	if err == nil && !slices.Contains(orphans, name) {
		err = fmt.Errorf("the orphans of %s lack %s, they are %v", n.Name, name, orphans)
	}
	if by, e := s.putBy(ctx, name); err == nil && (e != nil || by != "") {
		err = fmt.Errorf("the archive has %s from %s: %w", name, by, e)
	}
	return err
}

// orphanBeside is nil when the archive has a segment of the node in orphans, or its place was taken by nobody else's yet,
// and what it has under the name is not the node's.
func (s *scenario) orphanBeside(ctx context.Context, n *Node, name string) error {
	orphans, err := s.orphans(ctx, n)
	if err == nil && !slices.Contains(orphans, name) {
		err = fmt.Errorf("the orphans of %s lack %s, they are %v", n.Name, name, orphans)
	}
	if by, e := s.putBy(ctx, name); err == nil && (e != nil || by == n.Name) {
		err = fmt.Errorf("the archive has %s from %s: %w", name, by, e)
	}
	return err
}

// putBy is the member that put a file into the archive, as the object's own header says; "" when it is not there.
func (s *scenario) putBy(ctx context.Context, name string) (string, error) {
	all, err := s.Store.Objects(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range all {
		if filepath.Base(o.Key) != name {
			continue
		}
		text, err := s.Store.Read(ctx, o.Key)
		if err != nil {
			return "", err
		}
		// A skippable frame (8 bytes of magic and size) of JSON is the beginning.
		var header struct{ Member string }
		err = json.NewDecoder(strings.NewReader(string(text[8:]))).Decode(&header)
		return header.Member, err
	}
	return "", nil
}

// grep are the lines with a word.
func grep(text, word string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[:min(len(lines), 20)], "")
}
