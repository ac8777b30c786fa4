//go:build drills

package drill

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// target is a recovery target, and the rows that are there when it is reached.
type target struct {
	name     string
	settings map[string]string
	want     []int64
	quiet    bool   // from the archive as it was right after a failover
	backup2  bool   // from the backup of timeline 2
	backup   string // from another one
	sidecar  bool   // a sidecar answers walbaton-wal; otherwise walbaton fetch reads the archive
}

func (p *pitr) targets() []target {
	set := func(words ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(words); i += 2 {
			m["recovery_target"+words[i]] = words[i+1]
		}
		return m
	}
	return []target{
		{name: "time", settings: set("_time", p.ordinary.at), want: p.ordinary.rows},
		{name: "time, by a sidecar", settings: set("_time", p.ordinary.at), want: p.ordinary.rows, sidecar: true},
		{name: "time, exclusive", settings: set("_time", p.ordinary.at, "_inclusive", "off"), want: p.ordinary.without()},
		{name: "time on the newest timeline, across all promotions", settings: set("_time", p.last.at), want: p.last.rows},
		{name: "time on the newest timeline, by a sidecar", settings: set("_time", p.last.at), want: p.last.rows, sidecar: true},
		{name: "time between two promotions", settings: set("_time", p.second.at), want: p.second.rows},
		{name: "LSN", settings: set("_lsn", p.ordinary.record), want: p.ordinary.rows},
		{name: "LSN, exclusive", settings: set("_lsn", p.ordinary.record, "_inclusive", "off"), want: p.ordinary.without()},
		{name: "LSN after a promotion, by a sidecar", settings: set("_lsn", p.third.record), want: p.third.rows, sidecar: true},
		{name: "LSN of the branch, which the newest timeline left", settings: set("_lsn", p.mistake.record, "_timeline", "2"), want: p.mistake.rows},
		{name: "name", settings: set("_name", "before the mistake"), want: p.named.rows},
		{name: "xid", settings: set("_xid", p.ordinary.xid), want: p.ordinary.rows},
		{name: "xid, exclusive", settings: set("_xid", p.ordinary.xid, "_inclusive", "off"), want: p.ordinary.without()},
		{name: "xid of the one that began later and committed first", settings: set("_xid", p.late.xid), want: p.late.rows},
		{name: "xid of the one that began first and committed later", settings: set("_xid", p.early.xid), want: p.early.rows},
		{name: "xid of the branch", settings: set("_xid", p.mistake.xid, "_timeline", "2"), want: p.mistake.rows},
		{name: "xid after the branch", settings: set("_xid", p.third.xid), want: p.third.rows},
		{name: "immediate", settings: set("", "immediate"), want: p.inBackup.rows},
		{name: "latest", settings: set("_timeline", "latest"), want: p.end.rows},
		{name: "latest from a backup of timeline 2, by a sidecar", settings: set("_timeline", "latest"), want: p.end.rows, backup2: true, sidecar: true},
		{name: "timeline 1, which ends in a .partial", settings: set("_timeline", "1"), want: p.cut.rows},
		{name: "timeline current of a backup of timeline 1", settings: set("_timeline", "current"), want: p.cut.rows},
		{name: "timeline current of a backup of timeline 2", settings: set("_timeline", "current"), want: p.mistake.rows, backup2: true},
		{name: "timeline 2, by a sidecar", settings: set("_timeline", "2"), want: p.mistake.rows, sidecar: true},
		{name: "after a failover on a quiet cluster: latest", settings: set("_timeline", "latest"), want: p.cut.rows, quiet: true},
		{name: "after a failover on a quiet cluster: latest, by a sidecar", settings: set("_timeline", "latest"), want: p.cut.rows, quiet: true, sidecar: true},
		{name: "after a failover on a quiet cluster: time", settings: set("_time", p.partial.at), want: p.partial.rows, quiet: true},
		{name: "after a failover on a quiet cluster: timeline 1", settings: set("_timeline", "1"), want: p.cut.rows, quiet: true},
	}
}

// Recoveries of a real PostgreSQL to every kind of target have the rows which were committed there, and no others.
func TestDrillPITR(t *testing.T) {
	p := solo(t)
	p.story()
	t.Run("targets", func(t *testing.T) {
		for _, tg := range p.targets() {
			t.Run(tg.name, func(t *testing.T) {
				t.Parallel()
				s := p.recover(t, tg)
				if err := s.Writable(p.ctx); err != nil {
					t.Fatal(err)
				}
				p.restored(t, s, tg.want)
			})
		}
		t.Run("a target that there is not", p.noSuchTarget)
		t.Run("a timeline that there is not", p.noSuchTimeline)
		t.Run("action pause", p.pause)
		t.Run("action shutdown", p.shutdown)
		t.Run("commands", p.commands)
		t.Run("as locate says", p.located)
	})
}

// recover begins a recovery. One by a sidecar has the archive to itself: the server goes on from there, and archives.
func (p *pitr) recover(t *testing.T, tg target) *Solo {
	t.Helper()
	r := Recovery{Backup: p.backup, Archive: p.Store.URL(), Sidecar: tg.sidecar, Settings: map[string]string{"recovery_target_action": "promote"}}
	maps.Copy(r.Settings, tg.settings)
	if tg.backup2 {
		r.Backup = p.backup2
	}
	if tg.backup != "" {
		r.Backup = tg.backup
	}
	if tg.quiet {
		r.Archive = p.quiet
	}
	if tg.sidecar {
		to := filepath.Join(p.Dir, "archive of "+filepath.Base(t.Name()))
		if err := Run(p.Command(p.ctx, "cp", "-a", strings.TrimPrefix(r.Archive, "file://"), to)); err != nil {
			t.Fatal(err)
		}
		r.Archive = "file://" + to
	} else {
		r.Settings["archive_mode"] = "off"
	}
	s, err := p.Recover(p.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Log("postgres"), s.Log("sidecar"))
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// PostgreSQL stops, and is not promoted, when it does not find what it was told to stop at.
func (p *pitr) noSuchTarget(t *testing.T) {
	t.Parallel()
	for _, settings := range []map[string]string{
		{"recovery_target_name": "nobody made it"},
		{"recovery_target_time": p.end.at}, // nothing was committed after it, so nobody knows whether it is reached
	} {
		s := p.recover(t, target{settings: settings})
		p.stopped(t, s, "recovery ended before configured recovery target was reached")
	}
}

func (p *pitr) noSuchTimeline(t *testing.T) {
	t.Parallel()
	s := p.recover(t, target{settings: map[string]string{"recovery_target_timeline": "9"}})
	p.stopped(t, s, "recovery target timeline 9 does not exist")
}

// stopped fails the test unless recovery has ended the server with these words, and can go on.
func (p *pitr) stopped(t *testing.T, s *Solo, words string) {
	t.Helper()
	if err := s.Ended(p.ctx); err != nil {
		t.Fatal(err)
	}
	if log := s.Log("postgres"); !strings.Contains(log, words) || !exists(filepath.Join(s.Data(), "recovery.signal")) {
		t.Errorf("PostgreSQL does not say %q, or recovery.signal is gone", words)
	}
}

// pause: the server answers questions, recovery goes on when it is told to, and ends in a promotion.
func (p *pitr) pause(t *testing.T) {
	t.Parallel()
	s := p.recover(t, target{settings: map[string]string{"recovery_target_xid": p.ordinary.xid, "recovery_target_action": "pause"}})
	p.paused(t, s)
	p.restored(t, s, p.ordinary.rows)
	if _, err := query[any](p.ctx, s.DSN(), "select pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(p.ctx); err != nil {
		t.Fatal(err)
	}
	p.restored(t, s, p.ordinary.rows)
}

func (p *pitr) paused(t *testing.T, s *Solo) {
	t.Helper()
	err := s.reach(p.ctx, "recovery pauses", func(ctx context.Context) error {
		state, err := query[string](ctx, s.DSN(), "select pg_get_wal_replay_pause_state()")
		if err == nil && state != "paused" {
			err = errors.New(state)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shutdown: the server stops at the target, stays in recovery, and goes on to a later one when it is started again.
func (p *pitr) shutdown(t *testing.T) {
	t.Parallel()
	tg := target{settings: map[string]string{"recovery_target_lsn": p.ordinary.record, "recovery_target_action": "shutdown"}}
	s := p.recover(t, tg)
	p.stopped(t, s, "shutdown at recovery target")
	settings := map[string]string{"archive_mode": "off", "recovery_target_xid": p.second.xid, "recovery_target_action": "promote"}
	if err := errors.Join(s.Launch(settings), s.Writable(p.ctx)); err != nil {
		t.Fatal(err)
	}
	p.restored(t, s, p.second.rows)
}

// commands: archive_cleanup_command names the segment that a restart begins with, and nothing before it is asked for again.
// recovery_end_command runs once, at the end.
func (p *pitr) commands(t *testing.T) {
	t.Parallel()
	fetch := p.Bin("walbaton-wal") + " fetch %f %p"
	settings := map[string]string{
		"recovery_target_xid": p.third.xid, "recovery_target_action": "pause", "archive_mode": "off",
		"restore_command":         "echo %f >>../log/asked.log; " + fetch,
		"archive_cleanup_command": "echo %r >>../log/cleanup.log",
		"recovery_end_command":    "echo %r >>../log/end.log",
	}
	s := p.recover(t, target{settings: settings})
	p.paused(t, s)
	if err := Run(s.Command(p.ctx, "psql", "-Xqc", "checkpoint")); err != nil { // a restartpoint
		t.Fatal(err)
	}
	cleaned := strings.Fields(s.Log("cleanup"))
	if len(cleaned) == 0 {
		t.Fatal("archive_cleanup_command did not run at a restartpoint")
	}
	oldest := cleaned[len(cleaned)-1]
	control, err := Output(s.Command(p.ctx, "pg_controldata"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`REDO WAL file: +` + oldest).MatchString(control) {
		t.Errorf("archive_cleanup_command was given %s, and pg_control says:\n%s", oldest, control)
	}
	if err := errors.Join(s.Halt(p.ctx, "fast"), os.Remove(filepath.Join(s.Dir, "log/asked.log"))); err != nil {
		t.Fatal(err)
	}
	settings["recovery_target_action"] = "promote"
	if s.Log("end") != "" {
		t.Error("recovery_end_command ran before the end")
	}
	if err := errors.Join(s.Launch(settings), s.Writable(p.ctx)); err != nil {
		t.Fatal(err)
	}
	p.restored(t, s, p.third.rows)
	for _, name := range strings.Fields(s.Log("asked")) {
		if len(name) == 24 && name[8:] < oldest[8:] {
			t.Errorf("a restart asked for %s, which archive_cleanup_command may have removed: %%r was %s", name, oldest)
		}
	}
	if got := len(strings.Fields(s.Log("end"))); got != 1 {
		t.Errorf("recovery_end_command ran %d times, want once", got)
	}
}
