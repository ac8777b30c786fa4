//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rehearsed is the part of report.json that the oracle can judge, read without walbaton's own code.
type rehearsed struct {
	Verdict string   `json:"verdict"`
	Why     []string `json:"why"`
	Left    []string `json:"left_behind"`
	Rounds  []struct {
		Verdict     string    `json:"verdict"`
		AskedAt     time.Time `json:"asked_at"`
		From        string    `json:"from"`
		To          string    `json:"to"`
		OldTimeline int       `json:"old_timeline"`
		NewTimeline int       `json:"new_timeline"`
		QuietFrom   float64   `json:"no_writes_from"`
		QuietTo     float64   `json:"no_writes_to"`
		FirstFile   string    `json:"first_segment"`
		Holder      string    `json:"holder"`
		Rows        struct {
			Acknowledged, Lost int
		} `json:"rows"`
		Timelines []struct {
			Timeline int      `json:"timeline"`
			First    string   `json:"first"`
			Last     string   `json:"last"`
			Segments int      `json:"segments"`
			Missing  []string `json:"missing"`
		} `json:"timelines"`
	} `json:"rounds"`
	Restore *struct {
		Rows, Missing, Extra, Changed int
		Failed                        string
	} `json:"restore"`
}

// TestDrillRehearsal: `walbaton drill switchover` on a cluster under load, as an administrator types it. Its report says what the harness sees, it leaves
// nothing behind, also when it is interrupted in the middle of a switchover, and a paused cluster is refused.
func TestDrillRehearsal(t *testing.T) {
	s := beginFor(t, Options{}, drillLimit, drillRate/4)
	dir, err := s.folder("rehearsal")
	if err != nil {
		t.Fatal(err)
	}
	old := s.primary()
	s.do("all is in order", s.fit)
	s.do("the cluster is paused", s.Pause)
	s.do("a drill is refused", func(ctx context.Context) error {
		out, code := s.rehearse(ctx, dir, "refused")
		if code != 1 || !strings.Contains(out, "Patroni is paused") {
			return fmt.Errorf("exit %d: %s", code, out)
		}
		return nil
	})
	s.do("the cluster goes on", s.Unpause)

	var rep rehearsed
	s.do("a switchover is rehearsed, as docs/drill.md has it", func(ctx context.Context) error {
		out, code := outcome(s.pageCommand(ctx, commandOf(t, "drill.md"), dir))
		t.Log("\n" + out)
		if rep, err = s.report(dir, "out", 1); err == nil && (code != 0 || rep.Verdict != "passed") {
			err = fmt.Errorf("exit %d, %s: %v", code, rep.Verdict, rep.Why)
		}
		return err
	})
	s.rehearsedTruly(rep, old, dir)
	if r := rep.Restore; r == nil || r.Failed != "" || r.Rows < rep.Rounds[0].Rows.Acknowledged || r.Missing+r.Extra+r.Changed > 0 {
		t.Errorf("restore: %+v", r)
	}

	s.do("all is in order", s.fit)
	old = s.primary()
	s.do("a kill is rehearsed: Patroni and the postmaster of the primary", func(ctx context.Context) error {
		kill := fmt.Sprintf(`pkill -9 -f %[1]s/$WALBATON_DRILL_PRIMARY/patroni.yml; kill -9 $(head -1 %[1]s/$WALBATON_DRILL_PRIMARY/pgdata/postmaster.pid)`, s.Dir)
		out, code := s.rehearse(ctx, dir, "kill", "--kill-command", kill)
		t.Log("\n" + out)
		if rep, err = s.report(dir, "kill", 1); err != nil {
			return err
		}
		// Asynchronous replication may lose rows, and then it says so.
		switch lost := rep.Rounds[0].Rows.Lost; {
		case lost == 0 && (code != 0 || rep.Verdict != "passed"):
			return fmt.Errorf("exit %d, %s: %v", code, rep.Verdict, rep.Why)
		case lost > 0 && (code != 3 || rep.Verdict != "failed" || !strings.Contains(strings.Join(rep.Why, " "), "asynchronous replication")):
			return fmt.Errorf("%d lost, and exit %d, %s: %v", lost, code, rep.Verdict, rep.Why)
		}
		return nil
	})
	s.rehearsedTruly(rep, old, dir)
	s.do("the old primary comes back", old.Restart)
	s.rejoins(old)

	s.do("all is in order", s.fit)
	s.do("two in a row", func(ctx context.Context) error {
		out, code := s.rehearse(ctx, dir, "two", "--repeat", "2", "--write", "1s")
		rep, err := s.report(dir, "two", 2)
		if err == nil && (code != 0 || rep.Verdict != "passed" || rep.Rounds[1].From != rep.Rounds[0].To || rep.Rounds[1].To != s.primary().Name || rep.Rounds[1].NewTimeline != rep.Rounds[0].OldTimeline+2) {
			err = fmt.Errorf("exit %d: %s", code, out)
		}
		return err
	})
	for _, at := range []string{"copying the cluster", "writing 50 rows a second", "asking Patroni for a switchover"} {
		s.do("all is in order", s.fit)
		s.do("a drill is interrupted when it is "+at, func(ctx context.Context) error { return s.interrupted(ctx, dir, at) })
		s.do("all stream", s.AllStreaming)
		s.nothingLeft(dir)
	}
	s.settle()
	if err := s.watching(); err != nil {
		t.Error(err)
	}
	server := s.restore(ByHand)
	s.do("every row is there", func(ctx context.Context) error { return s.Compare(ctx, server) })
}

// fit waits until Patroni and the sidecar of the first node know that all is in order: what they tell is a little late, and a drill would be refused before.
func (s *scenario) fit(ctx context.Context) error {
	return until(ctx, clusterLimit, "all is known to be in order", func(ctx context.Context) error {
		_, body, err := get(ctx, s.primary().rest()+"/cluster")
		if err != nil {
			return err
		}
		status, err := s.Nodes[0].Status(ctx)
		if err != nil {
			return err
		}
		var patroni struct {
			Members []struct {
				State    string
				Timeline int
			}
		}
		var sidecar struct {
			Ready   bool
			Baton   struct{ Holder string }
			Members []struct {
				Sidecar bool
				Store   bool `json:"store_answers"`
			}
		}
		if err := errors.Join(json.Unmarshal(body, &patroni), json.Unmarshal(status, &sidecar)); err != nil {
			return err
		}
		fine := sidecar.Ready && sidecar.Baton.Holder != "" && len(sidecar.Members) == nodes
		for _, m := range sidecar.Members {
			fine = fine && m.Sidecar && m.Store
		}
		for _, m := range patroni.Members {
			fine = fine && m.Timeline == patroni.Members[0].Timeline && (m.State == "running" || m.State == "streaming")
		}
		if !fine {
			return fmt.Errorf("%s %s", body, status)
		}
		return nil
	})
}

// commandOf is the first block of commands of a page in docs/.
func commandOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout(t), "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n```sh")
	_, rest, _ = strings.Cut(rest, "\n")
	commands, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatalf("docs/%s has no block of commands", name)
	}
	return commands
}

// pageCommand is a command of a page, in a shell on the first node where everything is configured as the README has it. The scratch folder is dir.
func (s *scenario) pageCommand(ctx context.Context, text, dir string) *exec.Cmd {
	cmd := s.Nodes[0].Walbaton(ctx, "version")
	cmd.Path, cmd.Args, cmd.Dir = "/bin/sh", []string{"sh", "-c", text}, filepath.Join(dir, "log")
	cmd.Env = append(cmd.Env, "WALBATON_CONFIG="+s.Nodes[0].config(), "TMPDIR="+dir)
	return cmd
}

// drillCommand is the verb as user postgres types it on the first node.
func (s *scenario) drillCommand(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	return s.Nodes[0].Walbaton(ctx, "drill", append([]string{"switchover", "--yes", "--write", "4s", "--wait", "1m", "--scratch", dir, "--report", filepath.Join(dir, "log", name)}, args...)...)
}

// rehearse runs it.
func (s *scenario) rehearse(ctx context.Context, dir, name string, args ...string) (string, int) {
	return outcome(s.drillCommand(ctx, dir, name, args...))
}

// outcome runs a command, and gives all that it wrote and its exit code.
func outcome(cmd *exec.Cmd) (string, int) {
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return fmt.Sprintf("%s%v", out, err), -1
	}
	if failed != nil {
		return string(out), failed.ExitCode()
	}
	return string(out), 0
}

func (s *scenario) report(dir, name string, rounds int) (rep rehearsed, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "log", name, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &rep)
	}
	if err == nil && len(rep.Rounds) != rounds {
		err = fmt.Errorf("%d rounds: %s", len(rep.Rounds), text)
	}
	return rep, err
}

// rehearsedTruly compares a report with what the harness itself sees.
func (s *scenario) rehearsedTruly(rep rehearsed, old *Node, dir string) {
	s.t.Helper()
	rd, now := rep.Rounds[0], s.primary()
	if rd.From != old.Name || rd.To != now.Name || rd.To == rd.From || rd.NewTimeline != rd.OldTimeline+1 {
		s.t.Errorf("the report has %s to %s, timeline %d to %d; the harness sees %s to %s", rd.From, rd.To, rd.OldTimeline, rd.NewTimeline, old.Name, now.Name)
	}
	objects, err := s.Store.Objects(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	have := map[string]bool{}
	for _, o := range objects {
		have[filepath.Base(o.Key)] = true
	}
	if !have[rd.FirstFile] || !strings.HasPrefix(rd.FirstFile, fmt.Sprintf("%08X", rd.NewTimeline)) || rd.Holder == "" {
		s.t.Errorf("the first segment after the change is %q, shipped by %q", rd.FirstFile, rd.Holder)
	}
	if len(rd.Timelines) != 2 || !have[fmt.Sprintf("%08X.history", rd.NewTimeline)] {
		s.t.Errorf("timelines: %+v", rd.Timelines)
	}
	for _, l := range rd.Timelines {
		_, first, err1 := parseSegment(l.First, s.segmentSize())
		_, last, err2 := parseSegment(l.Last, s.segmentSize())
		if err := errors.Join(err1, err2); err != nil || len(l.Missing) > 0 || !have[l.First] || !have[l.Last] || int(last-first)+1 != l.Segments {
			s.t.Errorf("timeline %+v, %v", l, err)
		}
	}
	if rd.Rows.Acknowledged < 200 {
		s.t.Errorf("%d rows were acknowledged", rd.Rows.Acknowledged)
	}
	got, want := rd.QuietTo-rd.QuietFrom, s.withoutWrites(rd.AskedAt).Seconds()
	s.t.Logf("without writes: %.2f s by the report, %.2f s by the harness", got, want)
	if math.Abs(got-want) > 2 {
		s.t.Errorf("%.2f s without writes, and the harness had %.2f s", got, want)
	}
	if len(rep.Left) > 0 {
		s.t.Errorf("it left behind: %v", rep.Left)
	}
	s.nothingLeft(dir)
}

// withoutWrites is the longest time between two transactions of the harness' own writer after a moment.
func (s *scenario) withoutWrites(after time.Time) (longest time.Duration) {
	var all []time.Time
	for _, a := range s.writer.Acked() {
		all = append(all, a.At)
	}
	slices.SortFunc(all, time.Time.Compare)
	for i := 1; i < len(all); i++ {
		if gap := all[i].Sub(all[i-1]); all[i].After(after) && gap > longest {
			longest = gap
		}
	}
	return longest
}

// nothingLeft looks for what a drill makes: schemas, folders, processes.
func (s *scenario) nothingLeft(dir string) {
	s.t.Helper()
	n, err := query[int](s.ctx, s.primary().DSN(), `select count(*) from pg_namespace where nspname like 'walbaton%'`)
	if err != nil || n > 0 {
		s.t.Errorf("%d schemas are left, %v", n, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 { // log
		s.t.Errorf("left in the scratch folder: %v, %v", entries, err)
	}
	if pids := Below(dir); len(pids) > 0 {
		s.t.Errorf("processes are left: %v", pids)
	}
	if out, err := exec.Command("pgrep", "-af", "walbaton drill").Output(); err == nil {
		s.t.Errorf("processes are left: %s", out)
	}
}

// interrupted sends SIGINT when a drill says that it is at something, with a copy of the cluster, or what there is of it, in the scratch folder.
func (s *scenario) interrupted(ctx context.Context, dir, at string) error {
	cmd := s.drillCommand(ctx, dir, "interrupted", "--restore")
	log, err := os.Create(filepath.Join(dir, "log", "interrupted.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	defer p.kill()
	said := func() string {
		text, _ := os.ReadFile(log.Name())
		return string(text)
	}
	err = until(ctx, time.Minute, "it is "+at, func(context.Context) error {
		if !strings.Contains(said(), at) {
			return errors.New(said())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		return fmt.Errorf("in the scratch folder: %v, %v", entries, err)
	}
	if err := syscall.Kill(cmd.Process.Pid, syscall.SIGINT); err != nil { // to it alone, as systemd does
		return err
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		return fmt.Errorf("it goes on: %s", said())
	}
	s.t.Log("\n" + said())
	if code := cmd.ProcessState.ExitCode(); code != 143 || !strings.Contains(said(), "not run") {
		return fmt.Errorf("exit %d: %s", code, said())
	}
	return nil
}
