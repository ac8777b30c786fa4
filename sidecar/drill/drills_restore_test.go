//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// recoveryFault is something that goes wrong while a PostgreSQL recovers, until somebody mends it.
type recoveryFault struct {
	name     string
	sidecar  bool                   // answers walbaton-wal, and prefetches; otherwise walbaton fetch reads the archive
	timeline string                 // recovery_target_timeline; "": latest
	at       func(p *told) string   // the file at whose turn it begins; nil: before the start
	command  func(s *server) string // restore_command, where it is another one
	begin    func(s *server)
	mend     func(s *server)
	says     string // in PostgreSQL's log
}

// middle is a segment in the middle of timeline 1, number that of the next timeline, which a promotion looks for.
func middle(p *told) string { return p.names[3] }
func number(*told) string   { return "00000002.history" }

const cannotSay = "cannot say whether the archive has "

// A recovery that cannot go on stops: it is never taken for the end of the WAL. When the fault is mended PostgreSQL is started again, goes on,
// and has every row; its new timeline has a number of its own.
func (f recoveryFault) test(p *told) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		s := p.restoring(t, "restore: {patience: 3s, prefetch: 2MB}\nstall_timeout: 3s\n")
		s.sidecarRuns = f.sidecar
		want := p.all
		if f.timeline != "" {
			s.settings["recovery_target_timeline"], want = f.timeline, p.first
		}
		command := s.fetch()
		if f.command != nil {
			command = f.command(s)
		}
		check := func() {}
		if s.wire == nil {
			check = s.untouched()
		}
		s.settings["restore_command"] = command
		if f.at == nil {
			f.begin(s)
			s.recover("recovery.signal")
		} else {
			name := f.at(p)
			s.gate(name, command)
			s.recover("recovery.signal")
			s.asked(name)
			f.begin(s)
			s.open(name)
		}
		s.stopped(f.says)
		f.mend(s)
		s.again()
		s.done(want)
		check()
	}
}

// away takes the folder of the archive away, as if its disk were not mounted any more, and brings it back.
func away(s *server) {
	path := strings.TrimPrefix(s.url, "file://")
	s.must("unmount the archive", errors.Join(os.Rename(path, path+"-away"), os.Chmod(path+"-away", 0)))
}

func back(s *server) {
	path := strings.TrimPrefix(s.url, "file://")
	s.must("mount the archive", errors.Join(os.Chmod(path+"-away", 0o755), os.Rename(path+"-away", path)))
}

// lost takes a segment out of the archive, and found puts it back.
func lost(s *server) {
	path := s.object(middle(s.p))
	s.must("lose a segment", os.Rename(path, filepath.Join(s.Dir, "lost")))
}

func found(s *server) {
	s.must("find a segment", os.Rename(filepath.Join(s.Dir, "lost"), s.object(middle(s.p))))
}

func (s *server) object(name string) string { return filepath.Join(s.folder(), "wal", name[:8], name) }

// damage keeps the segment, and leaves one with another bit.
func damage(s *server) {
	path := s.object(middle(s.p))
	b, err := os.ReadFile(path)
	s.must("damage a segment", err)
	lost(s)
	b[len(b)/2] ^= 4
	s.must("damage a segment", os.WriteFile(path, b, 0o644))
}

func repaired(s *server) {
	s.must("remove the damaged one", os.Remove(s.object(middle(s.p))))
	found(s)
}

// alone is restore_command where walbaton-wal is, and walbaton is not, neither beside it nor in PATH.
func alone(s *server) string {
	dir := filepath.Join(s.Dir, "alone")
	s.must("install walbaton-wal alone", errors.Join(os.Mkdir(dir, 0o755), Run(s.Command(s.p.ctx, "cp", s.c.Bin("walbaton-wal"), s.Dir))))
	s.must("install walbaton-wal alone", os.Rename(filepath.Join(s.Dir, "walbaton-wal"), filepath.Join(dir, "walbaton-wal")))
	return "PATH=/usr/bin:/bin; exec " + filepath.Join(dir, "walbaton-wal") + " fetch %f %p"
}

// install gives it walbaton.
func install(s *server) {
	s.must("install walbaton", Run(s.p.Command(s.p.ctx, "cp", s.c.Bin("walbaton"), filepath.Join(s.Dir, "alone.walbaton"))))
	s.must("install walbaton", os.Rename(filepath.Join(s.Dir, "alone.walbaton"), filepath.Join(s.Dir, "alone", "walbaton")))
}

// deaf listens at the socket, accepts, and never answers. It ends with the test, or before.
func (s *server) deaf() (end func()) {
	l, err := net.Listen("unix", s.Socket())
	s.must("listen", err)
	s.must("let everybody in", os.Chmod(s.Socket(), 0o666))
	end = func() { l.Close() }
	s.t.Cleanup(end)
	go func() {
		var calls []net.Conn // one that nobody holds is closed by the runtime
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range calls {
					c.Close()
				}
				return
			}
			calls = append(calls, c)
		}
	}()
	return end
}

// Recoveries of a real PostgreSQL, from files, with everything that DESIGN section 8 names.
func TestDrillRestoreFaults(t *testing.T) {
	p := tell(t, Options{})
	none := func(*server) {}
	t.Run("faults", func(t *testing.T) {
		for _, f := range []recoveryFault{
			{name: "the store goes down in the middle", at: middle, begin: away, mend: back, says: cannotSay},
			{name: "the store goes down in the middle, a sidecar", sidecar: true, at: middle, begin: away, mend: back, says: cannotSay},
			{name: "the store goes down before the promotion", timeline: "1", at: number, begin: away, mend: back, says: cannotSay + "00000002.history"},
			{name: "the store goes down before the promotion, a sidecar", sidecar: true, timeline: "1", at: number, begin: away, mend: back, says: cannotSay + "00000002.history"},
			{name: "a wrong prefix", says: "check archive.url and scope",
				begin: func(s *server) {
					s.must("make a folder", Run(s.Command(p.ctx, "mkdir", filepath.Join(s.Dir, "wrong"))))
					s.configure("file://"+filepath.Join(s.Dir, "wrong"), "")
				}, mend: func(s *server) { s.configure(s.url, "") }},
			{name: "a hole", at: middle, begin: lost, mend: found, says: "has a hole: "},
			{name: "a hole, a sidecar", sidecar: true, begin: lost, mend: found, says: "has a hole: "},
			{name: "a damaged object", at: middle, begin: damage, mend: repaired, says: cannotSay},
			{name: "a damaged object, a sidecar", sidecar: true, begin: damage, mend: repaired, says: cannotSay},
			{name: "walbaton is missing", command: alone, begin: none, mend: install, says: "walbaton cannot be executed"},
			{name: "walbaton-wal is missing", command: func(s *server) string { return filepath.Join(s.Dir, "walbaton-wal") + " fetch %f %p" }, begin: none,
				mend: func(s *server) {
					s.must("install both", Run(s.Command(p.ctx, "cp", s.c.Bin("walbaton-wal"), s.c.Bin("walbaton"), s.Dir)))
				}, says: "command not found"},
			{name: "the socket never answers, and walbaton is missing", command: alone, begin: func(s *server) { s.ends = s.deaf() },
				mend: func(s *server) { s.ends(); install(s) }, says: "has been silent for 5s"},
		} {
			t.Run(f.name, f.test(p))
		}
		t.Run("the socket never answers", func(t *testing.T) { silentSocket(t, p) })
		t.Run("a standby streams while the store is down", func(t *testing.T) { standbyStreams(t, p, false, away, back) })
		t.Run("a standby streams while the store is down, a sidecar", func(t *testing.T) { standbyStreams(t, p, true, away, back) })
		t.Run("a standby catches up from the archive, and then streams", func(t *testing.T) { standbyCatchesUp(t, p) })
		t.Run("a full disk", func(t *testing.T) { fullDisk(t, p, false, "") })
		t.Run("a full disk, a sidecar", func(t *testing.T) { fullDisk(t, p, true, "") })
		t.Run("a disk that stays full", func(t *testing.T) { fullDisk(t, p, false, "restore: {patience: 3s}\n") })
		t.Run("restore_from", func(t *testing.T) { otherArchive(t, p) })
	})
}

// A sidecar that hangs is passed over: walbaton fetch reads the archive.
func silentSocket(t *testing.T, p *told) {
	t.Parallel()
	s := p.restoring(t, "")
	s.gate(middle(p), s.fetch())
	s.recover("recovery.signal")
	s.asked(middle(p))
	end := s.deaf()
	begin := time.Now()
	next := p.names[4]
	s.must("close the next gate", os.WriteFile(s.at("gate."+next), nil, 0o644))
	s.open(middle(p))
	s.asked(next)
	if took := time.Since(begin); took < 4*time.Second {
		t.Errorf("the silent socket took %v, so nobody asked it", took)
	}
	end()
	s.open(next)
	s.done(p.all)
}

// streaming are the settings of a standby of the living server.
func (s *server) streaming() {
	s.settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", s.p.primary.port)
	s.settings["wal_retrieve_retry_interval"] = "500ms"
	s.settings["hot_standby"] = "on"
}

func (s *server) streams(rows []int64) {
	s.t.Helper()
	s.must("wait for the stream", s.reach(s.p.ctx, "the standby streams", func(ctx context.Context) error {
		state, err := query[string](ctx, s.DSN(), "select coalesce((select status from pg_stat_wal_receiver), 'no receiver')")
		if err == nil && state != "streaming" {
			err = errors.New(state)
		}
		if err != nil {
			return err
		}
		got, err := Rows(ctx, s.DSN())
		if err == nil {
			err = Difference(got, contents(rows))
		}
		return err
	}))
}

// A standby goes on without its archive, and when it is promoted then, it takes a number that nobody has.
func standbyStreams(t *testing.T, p *told, sidecar bool, begin, mend func(*server)) {
	t.Parallel()
	s := p.restoring(t, "restore: {prefetch: 2MB}\n")
	s.streaming()
	s.gate(middle(p), s.fetch())
	s.sidecarRuns = sidecar
	s.recover("standby.signal")
	s.asked(middle(p))
	begin(s)
	s.open(middle(p))
	s.streams(p.live)
	if !strings.Contains(s.Log("postgres"), "(the standby streams, and asks again)") {
		t.Error("PostgreSQL's log does not say why it streams")
	}
	_, err := query[any](p.ctx, s.DSN(), "select pg_promote(wait => false)")
	s.must("promote", err)
	s.done(p.live)
	mend(s)
}

// A standby that is far behind is given prefetched segments; when it streams, none are left.
func standbyCatchesUp(t *testing.T, p *told) {
	t.Parallel()
	s := p.restoring(t, "")
	s.streaming()
	s.sidecarRuns = true
	s.recover("standby.signal")
	s.streams(p.live)
	given := s.given()
	if given["window"]+given["waited"] < 6 {
		t.Errorf("of 11 segments were given %v", given)
	}
	s.must("wait for the window's end", until(p.ctx, clusterLimit, "nothing is prefetched any more", func(context.Context) error {
		left, err := filepath.Glob(s.Data() + "-walbaton/prefetch/*.prefetched")
		if len(left) > 0 {
			err = fmt.Errorf("there is %v", left)
		}
		return err
	}))
}

// given is how many segments the sidecar gave, by where they came from.
func (s *server) given() map[string]int {
	s.t.Helper()
	_, body, err := get(s.p.ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.web))
	s.must("ask for metrics", err)
	counts := map[string]int{}
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(line, `walbaton_fetch_segments_total{from="`)
		if !ok {
			continue
		}
		from, rest, _ := strings.Cut(rest, `"`)
		_, value, _ := strings.Cut(rest, "} ")
		n := 0
		if _, err := fmt.Sscan(value, &n); err != nil {
			s.t.Fatal(err)
		}
		counts[from] = n
	}
	return counts
}

// pg_wal has room for a few segments. Recovery waits while walbaton has patience, and says so; when there is room it goes on.
func fullDisk(t *testing.T, p *told, sidecar bool, settings string) {
	t.Parallel()
	if os.Getenv("WALBATON_LANE") == "" {
		t.Fatal("this is the machine's own namespace, where nothing may be mounted: see Node.mount")
	}
	s := p.restoring(t, settings)
	disk := filepath.Join(s.Dir, smallDisk)
	s.must("make a small disk", errors.Join(os.Mkdir(disk, 0o755), syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=5m"), s.c.own(disk)))
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	s.must("put pg_wal there", Run(s.Command(p.ctx, "sh", "-c", `mv "$1/pg_wal" "$2/" && ln -s "$2/pg_wal" "$1/pg_wal"`, "sh", s.Data(), disk)))
	s.sidecarRuns = sidecar
	s.settings["restore_command"] = s.fetch()
	s.recover("recovery.signal")
	log := "postgres"
	if sidecar {
		log = "sidecar"
	}
	s.must("wait for the error", until(p.ctx, clusterLimit, "the full disk is told", func(context.Context) error {
		if !strings.Contains(s.Log(log), "no space left on device") {
			return errors.New("not yet")
		}
		return nil
	}))
	if settings != "" {
		s.stopped("no space left on device")
	}
	s.whole()
	s.must("make the disk larger", syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
	if settings != "" {
		s.again()
	}
	s.done(p.all)
}

// A clone has an archive of its own, and reads that of its origin. Both go on to a timeline 3, and neither is given the other's.
func otherArchive(t *testing.T, p *told) {
	t.Parallel()
	s := p.restoring(t, "")
	origin := s.url
	own := filepath.Join(s.Dir, "own")
	s.must("make an archive", Run(s.Command(p.ctx, "mkdir", own)))
	text, err := os.ReadFile(s.config())
	s.must("read walbaton.yml", err)
	s.must("write walbaton.yml", os.WriteFile(s.config(), []byte(strings.Replace(string(text), "scope: drill", "scope: clone", 1)), 0o644))
	s.configure("file://"+own, fmt.Sprintf("restore_from: [%q]\n", origin+"#drill"))
	s.sidecarRuns = true
	s.recover("recovery.signal")
	s.done(p.all)
	d := &diary{s: s.Solo, next: 1000, rows: p.all}
	s.must("write to the clone", d.open(p.ctx))
	_, err = d.write(p.ctx)
	s.must("write to the clone", err)
	name, err := query[string](p.ctx, s.DSN(), "select pg_walfile_name(pg_switch_wal())")
	s.must("finish a segment", err)
	s.must("wait for its own archive", until(p.ctx, clusterLimit, "the clone's own archive has "+name, func(context.Context) error {
		if !exists(filepath.Join(own, "clone", p.id, "wal", name[:8], name)) {
			return errors.New("it has not")
		}
		return nil
	}))
	if exists(filepath.Join(s.folder(), "history", "00000003.history")) {
		t.Error("the clone wrote into its origin's archive")
	}
	// The origin goes on to a timeline 3 of its own: another server is restored from its archive.
	s.must("stop the clone", errors.Join(s.Halt(p.ctx, "fast"), s.sidecar.terminate(p.ctx, 20*time.Second)))
	s.must("place the backup again", errors.Join(os.RemoveAll(s.Data()), Run(s.Command(p.ctx, "cp", "-a", "--reflink=auto", p.backup, s.Data()))))
	s.twin()
	s.recover("recovery.signal")
	s.must("wait for the end of recovery", s.Writable(p.ctx))
	s.has(d.rows)
}

// twin gives the origin a timeline 3, by a restore from its archive alone.
func (s *server) twin() {
	s.t.Helper()
	o := &server{p: s.p, t: s.t, url: s.url}
	var err error
	o.Solo, err = s.p.solo("", s.url)
	s.must("make the origin's next server", err)
	defer func() { s.must("stop it", o.Stop()) }()
	s.must("place the backup", Run(o.Command(s.p.ctx, "cp", "-a", "--reflink=auto", s.p.backup, o.Data())))
	o.settings = map[string]string{"recovery_target_timeline": "latest"}
	o.sidecarRuns = true
	o.recover("recovery.signal")
	o.done(s.p.all)
	_, err = query[string](s.p.ctx, o.DSN(), "select pg_walfile_name(pg_switch_wal())")
	s.must("finish a segment", err)
	s.must("wait for its history", until(s.p.ctx, clusterLimit, "the origin's archive has timeline 3", func(context.Context) error {
		if entries, err := os.ReadDir(filepath.Join(s.folder(), "wal", "00000003")); err != nil || len(entries) == 0 {
			return errors.New("it has not")
		}
		return nil
	}))
}
