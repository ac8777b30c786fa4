//go:build drills

package drill

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// through is a fault of the way to MinIO, and mended its end.
func through(w wireState) func(*server) { return func(s *server) { s.wire.set(w) } }

// The same from MinIO, where the store can be silent, too, and fall silent in the middle of a download.
func TestDrillRestoreFaultsMinIO(t *testing.T) {
	p := tell(t, Options{Place: MinIO})
	down, silent, half, mended := through(wireState{down: true}), through(wireState{silent: true}), through(wireState{after: 2000}), through(wireState{})
	t.Run("faults", func(t *testing.T) {
		for _, f := range []recoveryFault{
			{name: "the store goes down in the middle", at: middle, begin: down, mend: mended, says: cannotSay},
			{name: "the store goes down in the middle, a sidecar", sidecar: true, at: middle, begin: down, mend: mended, says: cannotSay},
			{name: "the store falls silent in the middle", at: middle, begin: silent, mend: mended, says: cannotSay},
			{name: "the store falls silent in the middle, a sidecar", sidecar: true, at: middle, begin: silent, mend: mended, says: cannotSay},
			{name: "a download falls silent", at: middle, begin: half, mend: mended, says: cannotSay},
			{name: "the store falls silent before the promotion", timeline: "1", at: number, begin: silent, mend: mended, says: cannotSay + "00000002.history"},
			{name: "the store falls silent before the promotion, a sidecar", sidecar: true, timeline: "1", at: number, begin: silent, mend: mended, says: cannotSay + "00000002.history"},
			{name: "a wrong prefix", says: "check archive.url and scope",
				begin: func(s *server) { s.configure(strings.Replace(s.url, "?", "-wrong?", 1), "") },
				mend:  func(s *server) { s.configure(s.url, "") }},
		} {
			t.Run(f.name, f.test(p))
		}
		for name, fault := range map[string]func(*server){"the store is silent": silent, "a download falls silent": half} {
			for by, sidecar := range map[string]bool{"walbaton fetch": false, "a sidecar": true} {
				t.Run("a fast shutdown while "+name+", "+by, func(t *testing.T) { fastShutdown(t, p, fault, sidecar) })
			}
		}
		t.Run("SIGTERM", func(t *testing.T) { terminated(t, p) })
		t.Run("a standby streams while the store is silent", func(t *testing.T) { standbyStreams(t, p, false, silent, mended) })
		t.Run("a standby streams while the store is silent, a sidecar", func(t *testing.T) { standbyStreams(t, p, true, silent, mended) })
		t.Run("a store that is far away", func(t *testing.T) { farAway(t, p) })
	})
}

// PostgreSQL that is told to stop does so, also while walbaton waits for a store that is silent, and no half file is left. When it is
// started again with the store back, it goes on.
func fastShutdown(t *testing.T, p *told, fault func(*server), sidecar bool) {
	t.Parallel()
	s := p.restoring(t, "restore: {prefetch: 2MB}\n")
	s.sidecarRuns = sidecar
	s.gate(middle(p), s.fetch())
	s.recover("recovery.signal")
	s.asked(middle(p))
	fault(s)
	s.open(middle(p))
	if sidecar { // which may have had it in its window; what comes after that it has not
		s.must("wait for a segment that hangs", s.reach(p.ctx, "a call hangs", s.hangs))
	} else {
		s.must("wait for walbaton fetch", s.reach(p.ctx, "walbaton fetch runs", func(context.Context) error { return s.runs("walbaton") }))
	}
	begin := time.Now()
	s.must("stop PostgreSQL", s.Halt(p.ctx, "fast"))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("PostgreSQL took %v to stop", took)
	}
	log := s.Log("postgres")
	if strings.Contains(log, "selected new timeline ID") || strings.Contains(log, "could not restore file") || !exists(s.at("recovery.signal")) {
		t.Error("the shutdown was taken for something else")
	}
	s.must("wait until nothing works there", until(p.ctx, clusterLimit, "all of it has ended", func(context.Context) error {
		if left := Below(s.Data()); len(left) > 0 {
			return errors.New("something runs")
		}
		return nil
	}))
	s.whole()
	s.wire.set(wireState{})
	s.again()
	s.done(p.all)
}

// runs says whether a program of that name works in the data directory.
func (s *server) runs(name string) error {
	for _, pid := range Below(s.Data()) {
		if exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil && filepath.Base(exe) == name {
			return nil
		}
	}
	return errors.New("none")
}

// hangs says whether one call of walbaton-wal has taken two seconds by now.
func (s *server) hangs(context.Context) error {
	for _, pid := range Below(s.Data()) {
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
		if err != nil || filepath.Base(exe) != "walbaton-wal" {
			continue
		}
		time.Sleep(2 * time.Second)
		if now, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil && now == exe {
			return nil
		}
	}
	return errors.New("none")
}

// walbaton fetch that is told to stop exits with 143, which PostgreSQL takes for a shutdown, and leaves nothing.
func terminated(t *testing.T, p *told) {
	t.Parallel()
	s := p.restoring(t, "")
	s.must("write recovery.signal", s.signal("recovery.signal"))
	s.wire.set(wireState{after: 2000})
	for _, program := range []string{"walbaton", "walbaton-wal"} {
		cmd := s.Command(p.ctx, program, "fetch", middle(p), "pg_wal/RECOVERYXLOG")
		cmd.Dir = s.Data()
		process, err := launch(cmd)
		s.must("start "+program, err)
		s.must("wait for it", until(p.ctx, clusterLimit, "the download hangs", func(context.Context) error {
			s.wire.mu.Lock()
			defer s.wire.mu.Unlock()
			if !s.wire.state.silent {
				return errors.New("it does not yet")
			}
			return nil
		}))
		s.must("end it", process.terminate(p.ctx, 10*time.Second))
		status := process.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if code := status.ExitStatus(); code != 143 && status.Signal() != syscall.SIGTERM {
			t.Errorf("%s exits with %d, %v", program, code, status.Signal())
		}
		s.whole()
		if exists(s.at("pg_wal/RECOVERYXLOG")) {
			t.Errorf("%s left a file", program)
		}
	}
}

// Each answer of the store takes 100 ms. Most segments are there when PostgreSQL asks.
func farAway(t *testing.T, p *told) {
	t.Parallel()
	s := p.restoring(t, "")
	s.wire.set(wireState{delay: 100 * time.Millisecond})
	s.sidecarRuns = true
	s.settings["restore_command"] = "sleep 0.2; " + s.fetch() // a replay that takes its time
	s.recover("recovery.signal")
	s.done(p.all)
	given := s.given()
	t.Logf("segments were given by %v", given)
	if sum := given["window"] + given["waited"] + given["archive"]; given["window"]*2 < sum {
		t.Errorf("of %d segments, %d were there", sum, given["window"])
	}
}
