//go:build servers

package wal_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// These tests need PostgreSQL 15 in Debian's place, and root or the user postgres. They fail without.
const (
	bin    = "/usr/lib/postgresql/15/bin/"
	settle = time.Minute // the longest wait for a server
)

// server is a PostgreSQL that listens on a unix socket in its own folder, and archives nothing, so that
// pg_wal keeps every segment.
type server struct {
	t       *testing.T
	dir     string // with data/ and the socket
	size    wal.SegmentSize
	control wal.Control
}

// shared returns a folder that the user postgres may write to.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "walbaton-wal-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// try runs one of PostgreSQL's programs as the user postgres, in UTC and English.
func try(ctx context.Context, dir, name string, args ...string) (stdout string, err error) {
	args = append([]string{bin + name}, args...)
	if os.Getuid() == 0 {
		args = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir = dir
	c.Env = []string{"PATH=/usr/bin:/bin", "TZ=UTC", "LC_ALL=C", "PGHOST=" + dir, "PGDATABASE=postgres", "PGUSER=postgres"}
	var out, fail bytes.Buffer
	c.Stdout, c.Stderr = &out, &fail
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, fail.String())
	}
	return out.String(), nil
}

func (s *server) run(name string, args ...string) string {
	s.t.Helper()
	out, err := try(s.t.Context(), s.dir, name, args...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		s.t.Fatalf("%v\n%s", err, log)
	}
	return out
}

// initdb makes a cluster with segments of mebibytes MiB and starts it with more settings.
func initdb(t *testing.T, mebibytes int, settings ...string) *server {
	t.Helper()
	s := &server{t: t, dir: shared(t), size: wal.SegmentSize(mebibytes) * mib}
	s.run("initdb", "-D", "data", "-U", "postgres", "-N", "-k", "-E", "UTF8", "--locale=C", "--wal-segsize", strconv.Itoa(mebibytes))
	s.configure(append([]string{"archive_mode=always", "wal_log_hints=on", "max_prepared_transactions=4", "autovacuum=off"}, settings...)...)
	s.start()
	return s
}

func (s *server) configure(settings ...string) {
	s.t.Helper()
	settings = append(settings, "listen_addresses=''", "unix_socket_directories='"+s.dir+"'", "fsync=off",
		"wal_keep_size=2GB",
		fmt.Sprintf("min_wal_size=%dMB", 16*s.size/mib), "log_timezone=UTC", "hot_standby=on", "checkpoint_timeout=1h")
	f, err := os.OpenFile(filepath.Join(s.dir, "data", "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Join(settings, "\n") + "\n"); err != nil {
		s.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) start() {
	s.t.Helper()
	s.run("pg_ctl", "-D", "data", "-l", "log", "-w", "-s", "start")
	s.t.Cleanup(func() {
		// The test's context has ended; a server that was stopped before is no error.
		_, _ = try(context.Background(), s.dir, "pg_ctl", "-D", "data", "-w", "-s", "-m", "immediate", "stop")
	})
	s.control = s.readControl()
}

func (s *server) stop(mode string) {
	s.t.Helper()
	s.run("pg_ctl", "-D", "data", "-w", "-s", "-m", mode, "stop")
}

func (s *server) sql(format string, args ...any) string {
	s.t.Helper()
	return strings.TrimSpace(s.run("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", fmt.Sprintf(format, args...)))
}

func (s *server) lsn(format string, args ...any) wal.LSN {
	s.t.Helper()
	l, err := wal.ParseLSN(s.sql(format, args...))
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *server) readControl() wal.Control {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.dir, "data", "global", "pg_control"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	c, err := wal.ReadControl(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *server) path(name string) string { return filepath.Join(s.dir, "data", "pg_wal", name) }

func (s *server) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// names returns the WAL names of pg_wal in the archiver's order.
func (s *server) names() []wal.Name {
	s.t.Helper()
	entries, err := os.ReadDir(s.path(""))
	if err != nil {
		s.t.Fatal(err)
	}
	var names []wal.Name
	for _, e := range entries {
		if n, err := wal.ParseName(e.Name(), s.size); err == nil {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, wal.Name.Compare)
	return names
}

// dump runs pg_waldump on one file. It exits 1 when the records end before the file does.
func (s *server) dump(file string) string {
	s.t.Helper()
	out, _ := try(s.t.Context(), s.dir, "pg_waldump", file)
	return out
}

// checkUpTo checks every segment of the timeline that ends at or before lsn, in order, against pg_waldump.
func (s *server) checkUpTo(timeline wal.Timeline, lsn wal.LSN, h wal.History) []wal.Report {
	s.t.Helper()
	var all []wal.Report
	var before wal.Joint
	for _, n := range s.names() {
		if n.Kind != wal.KindSegment || n.Segment.Timeline != timeline || n.Segment.End() > lsn {
			continue
		}
		c := wal.NewChecker(n.Segment, s.control.SystemID)
		b := s.read(n.String())
		if _, err := c.Write(b); err != nil {
			s.t.Fatal(err)
		}
		r, j := c.Report(), c.Joint()
		if len(all) > 0 {
			both, err := wal.Join(before, j)
			if err != nil {
				s.t.Errorf("%v does not follow: %v", n, err)
			}
			j = both
		}
		if r.State != wal.Complete || r.Major != 15 || !h.Explains(n.Segment, r) {
			s.t.Errorf("%v: %+v", n, r)
		}
		compareDump(s.t, s.dump(s.path(n.String())), n.Segment, r)
		all, before = append(all, r), j
	}
	return all
}

// work writes heap, index, COPY, prepared transactions, long records and switches.
func (s *server) work() {
	s.t.Helper()
	s.sql(`create table if not exists t (id bigserial primary key, v text)`)
	s.sql(`create index if not exists t_v on t (v)`)
	s.sql(`insert into t (v) select md5(i::text) from generate_series(1, 4000) i`)
	s.sql(`copy (select 'line ' || i from generate_series(1, 20000) i) to '%s/rows'`, s.dir)
	s.sql(`copy t (v) from '%s/rows'`, s.dir)
	s.sql(`update t set v = v || 'x' where id %% 7 = 0`)
	s.sql(`select pg_switch_wal()`)
	s.sql(`delete from t where id %% 3 = 0`)
	s.sql(`vacuum t`)
	s.sql(`select pg_logical_emit_message(false, 'p', repeat('long', 800000))`)
	for i := range 20 {
		s.sql(`begin; insert into t (v) values ('%d'); rollback`, i)
		s.sql(`insert into t (v) values ('%d')`, i)
	}
	s.sql(`begin; insert into t (v) values ('p'); prepare transaction 'a'`)
	s.sql(`begin; insert into t (v) values ('q'); prepare transaction 'b'`)
	s.sql(`commit prepared 'a'`)
	s.sql(`rollback prepared 'b'`)
	s.sql(`select pg_switch_wal()`)
}

func TestServer(t *testing.T) {
	s := initdb(t, 1)
	s.work()
	s.sql(`checkpoint`)
	s.work()
	end := s.lsn(`select pg_current_wal_flush_lsn()`)
	all := s.checkUpTo(1, end, wal.History{Timeline: 1})
	var switches, runOn, inside, commits int
	for _, r := range all {
		if r.Switch {
			switches++
		}
		if r.Continues {
			runOn++
		}
		if r.Records == 0 {
			inside++
		}
		if !r.FirstCommit.IsZero() {
			commits++
		}
	}
	t.Logf("%d segments: %d end in a switch, %d in a record that runs on, %d lie inside one record, %d have commits", len(all), switches, runOn, inside, commits)
	if len(all) < 20 || switches < 4 || runOn < 10 || inside < 2 || commits < 4 {
		t.Errorf("the server did not write what this test is about")
	}
	// The one that is being written ends where the server says. It is asked before and after, as it may write by itself.
	s.sql(`insert into t (v) values ('the last')`)
	current := s.size.At(1, end)
	from := s.lsn(`select pg_current_wal_flush_lsn()`)
	r := check(t, s.read(current.String()), current, s.control.SystemID)
	to := s.lsn(`select pg_current_wal_flush_lsn()`)
	if r.State != wal.Cut || r.End < from || r.End > to {
		t.Errorf("the current segment: %v up to %v (%s), want a cut from %v to %v", r.State, r.End, r.Why, from, to)
	}
	// And the next ones are recycled or fresh.
	for _, n := range s.names() {
		if n.Segment.Start() >= to {
			if r := check(t, s.read(n.String()), n.Segment, s.control.SystemID); r.State != wal.Foreign {
				t.Errorf("%v, not yet in use: %v, %s", n, r.State, r.Why)
			}
		}
	}
	// Where pg_waldump stops in a file that is cut or damaged, so does the check.
	s.compareBroken()
}

func (s *server) compareBroken() {
	s.t.Helper()
	names := s.names()
	dense, old := names[4].Segment, s.read(names[2].String())
	b := s.read(dense.String())
	file := filepath.Join(shared(s.t), dense.String())
	for _, off := range []int{100_000, 300_003, 8192 * 50, 8192*60 + 4000, 999_999} {
		for what, broken := range map[string][]byte{"zeros": waltest.Zero(b, off), "an old file": waltest.Over(old, b, off), "a bit": waltest.Flip(b, off)} {
			if err := os.WriteFile(file, broken, 0o644); err != nil {
				s.t.Fatal(err)
			}
			r := check(s.t, broken, dense, s.control.SystemID)
			if want := map[bool]wal.State{true: wal.Damaged, false: wal.Cut}[what == "a bit"]; r.State != want {
				s.t.Errorf("%s from %d: %v (%s), want %v", what, off, r.State, r.Why, want)
			}
			compareDump(s.t, s.dump(file), dense, r)
		}
	}
}

func TestControlOfServer(t *testing.T) {
	s := initdb(t, 16)
	s.sql(`create table t (i int)`)
	s.sql(`checkpoint`)
	for _, mode := range []string{"", "fast", "immediate"} {
		if mode != "" {
			s.stop(mode)
		}
		compareControl(t, s.run("pg_controldata", "-D", "data"), s.readControl(), 15)
		if mode == "fast" {
			s.start()
		}
	}
	if s.readControl().State != wal.DBInProduction {
		t.Errorf("after a crash: %v", s.readControl().State)
	}
}

func TestWalfileName(t *testing.T) {
	for _, mebibytes := range []int{1, 16, 64} {
		s := initdb(t, mebibytes)
		for _, lsn := range []wal.LSN{1, 0xFFFFF, 0x100000, 0x100001, 0xFFFFFFFF, 0x1_00000000, 0x1_00000001, 0x16_B374D848, 0x7F_03FFFFFF, 0x7F_04000000, 0xFFFFFFFF_FFFFFFFE} {
			// Up to 16 the function names the segment before a boundary.
			if got, want := s.size.Before(1, lsn).String(), s.sql(`select pg_walfile_name('%v')`, lsn); got != want {
				t.Errorf("%d MiB, %v: got %v, pg_walfile_name says %v", mebibytes, lsn, got, want)
			}
		}
	}
}

// A switch whose record is split over two pages or two segments; in the latter case the second has nothing but its end.
func TestSplitSwitch(t *testing.T) {
	// Without standbys nothing but the test writes WAL.
	s := initdb(t, 1, "archive_mode=off", "wal_level=minimal", "max_wal_senders=0")
	insert := func() wal.LSN { return s.lsn(`select pg_current_wal_insert_lsn()`) }
	emit := func(n int) { s.sql(`select pg_logical_emit_message(false, 'p', repeat('x', %d))`, n) }
	// A message of n bytes makes a record of 24 + 5 + 24 + 2 + n (xl_logical_message, and the prefix with its zero).
	const around = 24 + 5 + 24 + 2
	// to brings the WAL to a position in the page before a boundary.
	to := func(target wal.LSN) {
		t.Helper()
		for {
			left := int(target - insert())
			switch {
			case left <= 0:
				t.Fatalf("the WAL is at %v, after %v", insert(), target)
			case left > 20_000:
				emit((left - 12_000) / pageSize * (pageSize - 24))
			case left > 8000:
				emit(3000)
			case insert()/pageSize != (target-1)/pageSize:
				emit(300)
			default:
				emit(left - around)
				if got := insert(); got != target {
					t.Fatalf("the WAL is at %v, not at %v", got, target)
				}
				return
			}
		}
	}
	for _, room := range []wal.LSN{8, 16, 24, 32} {
		first := s.size.At(1, insert()).Next()
		to(first.End() - room)
		s.sql(`select pg_switch_wal()`)
		s.sql(`select pg_logical_emit_message(true, 'p', 'flushed')`)
		r := check(t, s.read(first.String()), first, s.control.SystemID)
		compareDump(t, s.dump(s.path(first.String())), first, r)
		n := check(t, s.read(first.Next().String()), first.Next(), s.control.SystemID)
		if r.State != wal.Complete || r.Switch != (room >= 24) || r.Continues != (room < 24) {
			t.Errorf("%d bytes left: %+v", room, r)
		}
		if room < 24 && (n.State != wal.Complete || !n.Switch || n.Records != 0) {
			t.Errorf("%d bytes left, next: %+v", room, n)
		}

		page := s.size.At(1, insert()).Next().Next()
		to(page.Start() + mib/2 - room)
		s.sql(`select pg_switch_wal()`)
		if r := check(t, s.read(page.String()), page, s.control.SystemID); r.State != wal.Complete || !r.Switch {
			t.Errorf("%d bytes left of a page: %+v", room, r)
		} else {
			compareDump(t, s.dump(s.path(page.String())), page, r)
		}
	}
	s.checkUpTo(1, s.lsn(`select pg_current_wal_flush_lsn()`), wal.History{Timeline: 1})
}

// tear writes a record over four segments, crashes, and loses all from page 40 of the third on. It returns where the
// record starts.
func (s *server) tear() (lost wal.LSN) {
	s.t.Helper()
	s.sql(`insert into t values (1)`)
	lost = s.lsn(`select pg_current_wal_insert_lsn()`)
	s.sql(`select pg_logical_emit_message(false, 'p', repeat('long', 800000))`)
	s.sql(`insert into t values (2)`)
	s.stop("immediate")
	third := s.size.At(1, lost).Next().Next()
	if err := os.WriteFile(s.path(third.String()), waltest.Zero(s.read(third.String()), 40*pageSize), 0o600); err != nil {
		s.t.Fatal(err)
	}
	for _, n := range s.names() {
		if n.Segment.No > third.No {
			if err := os.Remove(s.path(n.String())); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	if r := check(s.t, s.read(third.String()), third, s.control.SystemID); r.State != wal.Cut || r.End != third.Start() {
		s.t.Errorf("before recovery: %v up to %v, %s", r.State, r.End, r.Why)
	}
	return lost
}

// checkTorn checks the segment in which a server has gone on after tear.
func (s *server) checkTorn(third wal.Segment) wal.Report {
	s.t.Helper()
	s.sql(`insert into t values (3)`)
	s.sql(`select pg_switch_wal()`)
	s.sql(`insert into t values (4)`)
	if dump := s.dump(s.path(third.String())); !strings.Contains(dump, "OVERWRITE_CONTRECORD") {
		s.t.Errorf("no record was overwritten:\n%s", dump)
	}
	r := check(s.t, s.read(third.String()), third, s.control.SystemID)
	if r.State != wal.Complete || !r.Switch || r.First != third.Start()+40*pageSize+24 {
		s.t.Errorf("after recovery: %+v", r)
	}
	return r
}

// A crash that loses the end of a record: the server goes on at the first page that is missing.
func TestCrashInsideARecord(t *testing.T) {
	s := initdb(t, 1)
	s.sql(`create table t (i int)`)
	s.sql(`checkpoint`)
	for range 2 {
		lost := s.tear()
		s.start()
		s.checkTorn(s.size.At(1, lost).Next().Next())
	}
	s.checkUpTo(1, s.lsn(`select pg_current_wal_flush_lsn()`), wal.History{Timeline: 1})
}

// The same, but recovery ends on a new timeline: since 13.9, 14.6 and 15 the fork is where the lost record began, and
// nothing tells of it. What is left of the record lies on the old timeline, on good pages.
func TestPromotionInsideARecord(t *testing.T) {
	s := initdb(t, 1)
	s.sql(`create table t (i int)`)
	s.sql(`checkpoint`)
	lost := s.tear()
	s.configure("restore_command='false'")
	if err := os.WriteFile(filepath.Join(s.dir, "data", "recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until(`select not pg_is_in_recovery()`)
	s.sql(`insert into t select generate_series(1, 1000)`)
	s.sql(`select pg_switch_wal()`)
	s.sql(`insert into t values (4)`)
	h, err := wal.ParseHistory(2, bytes.NewReader(s.read("00000002.history")))
	if err != nil {
		t.Fatal(err)
	}
	first := s.size.At(2, lost)
	fork, _ := h.End(1)
	if fork < lost || s.size.At(2, fork) != first {
		t.Fatalf("the fork is at %v, the lost record was at %v", fork, lost)
	}
	if all := s.checkUpTo(2, first.End(), h); len(all) != 1 || !all[0].Switch || all[0].FirstTimeline != 1 || all[0].LastTimeline != 2 {
		t.Errorf("the first segment of the new timeline: %+v", all)
	}
	// It was ready before the crash, and so it is not called .partial.
	r := check(t, s.read(first.On(1).String()), first.On(1), s.control.SystemID)
	if r.State != wal.Complete || !r.Continues || r.Last != fork && r.Last != fork+24 || h.Holds(first.On(1)) {
		t.Errorf("the old timeline's: %+v, the fork is at %v", r, fork)
	}
}

// clone makes a standby of s, which streams.
func (s *server) clone() *server {
	s.t.Helper()
	c := &server{t: s.t, dir: shared(s.t), size: s.size}
	s.run("pg_basebackup", "-D", filepath.Join(c.dir, "data"), "-X", "stream", "-c", "fast", "-R")
	c.configure("primary_conninfo='host=" + s.dir + " user=postgres'")
	c.start()
	return c
}

// until waits for a query to say t.
func (s *server) until(format string, args ...any) {
	s.t.Helper()
	for end := time.Now().Add(settle); s.sql(format, args...) != "t"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("it never came true: "+format, args...)
		}
	}
}

func TestPromotion(t *testing.T) {
	primary := initdb(t, 1)
	primary.work()
	promoted, follower := primary.clone(), primary.clone()
	primary.work()
	primary.sql(`insert into t (v) values ('the last')`)
	at := primary.lsn(`select pg_current_wal_flush_lsn()`)
	primary.stop("immediate")
	for _, s := range []*server{promoted, follower} {
		s.until(`select pg_last_wal_replay_lsn() >= '%v'`, at)
	}
	follower.sql(`alter system set primary_conninfo = 'host=%s user=postgres'`, promoted.dir)
	follower.sql(`select pg_reload_conf()`)
	promoted.sql(`select pg_promote()`)
	promoted.work()
	end := promoted.lsn(`select pg_current_wal_flush_lsn()`)
	follower.until(`select pg_last_wal_replay_lsn() >= '%v'`, end)

	raw := promoted.read("00000002.history")
	h, err := wal.ParseHistory(2, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Bytes(), raw) {
		t.Errorf("written as %q, want %q", h.Bytes(), raw)
	}
	fork, _ := h.End(1)
	if fork%mib == 0 {
		t.Fatalf("the fork is at %v, the end of a segment: the test needs another", fork)
	}
	left := wal.SegmentSize(mib).At(1, fork)

	partial := check(t, promoted.read(left.String()+".partial"), left, primary.control.SystemID)
	full := check(t, follower.read(left.String()), left, primary.control.SystemID)
	for what, r := range map[string]wal.Report{"the .partial": partial, "the follower's": full} {
		if r.State != wal.Cut || r.End != fork || !h.Explains(left, r) || h.Holds(left) {
			t.Errorf("%s: %v up to %v (%s), want a cut at %v", what, r.State, r.End, r.Why, fork)
		}
	}
	for _, s := range []*server{promoted, follower} {
		if all := s.checkUpTo(1, left.Start(), h); len(all) < 5 {
			t.Errorf("only %d segments of timeline 1", len(all))
		}
		all := s.checkUpTo(2, end, h)
		if len(all) < 5 || all[0].FirstTimeline != 1 || all[0].LastTimeline != 2 {
			t.Errorf("%d segments of timeline 2", len(all))
		}
	}
	compareControl(t, promoted.run("pg_controldata", "-D", "data"), promoted.readControl(), 15)
	compareControl(t, follower.run("pg_controldata", "-D", "data"), follower.readControl(), 15)
}

// What waltest writes, pg_waldump reads.
func TestMadeWAL(t *testing.T) {
	s := &server{t: t, dir: shared(t), size: mib}
	w := waltest.New(cluster, mib)
	w.Record(10)
	w.Commit(time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC))
	w.Switch()
	w.Fill(1)
	w.Record(2 * mib)
	w.Commit(time.Date(2026, 2, 3, 4, 5, 7, 0, time.UTC))
	w.Crash(20000)
	c := w.Fork(2)
	c.Fill(2)
	c.Pad(16)
	c.Switch()
	for _, segment := range c.Full() {
		file := filepath.Join(s.dir, segment.String())
		if err := os.WriteFile(file, c.Segment(segment), 0o644); err != nil {
			t.Fatal(err)
		}
		dump := s.dump(file)
		r := check(t, c.Segment(segment), segment, cluster)
		if r.State != wal.Complete {
			t.Errorf("%v: %+v", segment, r)
		}
		compareDump(t, dump, segment, r)
	}
}
