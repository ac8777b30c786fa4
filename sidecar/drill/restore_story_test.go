//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// told is an archive that recoveries with faults begin with. Its server lives: standbys stream from it.
//
//	1 --o backup -- 7 segments --x fails
//	                              2 -- 4 segments -- a row that is not archived
type told struct {
	*Cluster
	ctx     context.Context
	primary *Solo
	d       *diary
	backup  string
	id      string   // system identifier
	names   []string // segments of timeline 1 that are archived, after the backup

	first, all, live []int64 // rows at the end of timeline 1, of the archive, of the server
}

// tell writes the archive.
func tell(t *testing.T, o Options) *told {
	t.Helper()
	s := prepare(t, o, drillLimit)
	p := &told{Cluster: s.Cluster, ctx: s.ctx, backup: filepath.Join(s.Dir, "backup")}
	if err := os.Chmod(s.Dir, 0o777); err != nil { // user postgres makes the backup
		t.Fatal(err)
	}
	begin := time.Now()
	if err := p.write(); err != nil {
		t.Fatalf("write the archive: %v\n%s", err, p.Logs(25))
	}
	t.Logf("%5.1fs the archive has two timelines", time.Since(begin).Seconds())
	return p
}

func (p *told) write() (err error) {
	if p.primary, err = p.NewSolo(p.ctx); err != nil {
		return err
	}
	s := p.primary
	p.d = &diary{s: s}
	if err := p.d.open(p.ctx); err != nil {
		return err
	}
	for _, sql := range []string{keepDiary, "alter system set wal_keep_size = '1GB'", "select pg_reload_conf()"} {
		if _, err := p.d.conn.Exec(p.ctx, sql); err != nil {
			return err
		}
	}
	if p.id, err = query[string](p.ctx, s.DSN(), "select system_identifier::text from pg_control_system()"); err != nil {
		return err
	}
	if err := s.CopyBackup(p.ctx, p.backup, func() error { return nil }); err != nil {
		return err
	}
	if p.names, err = p.segments(7); err != nil {
		return err
	}
	if _, err := p.d.write(p.ctx); err != nil {
		return err
	}
	p.first = p.d.rows
	if err := errors.Join(s.Fail(p.ctx), p.d.open(p.ctx)); err != nil {
		return err
	}
	if _, err := p.segments(4); err != nil {
		return err
	}
	p.all = p.d.rows
	_, err = p.d.write(p.ctx)
	p.live = p.d.rows
	return err
}

// segments writes rows into so many segments, and waits until the archive has them.
func (p *told) segments(n int) (names []string, err error) {
	for range n {
		for range 3 {
			if _, err := p.d.write(p.ctx); err != nil {
				return nil, err
			}
		}
		name, err := query[string](p.ctx, p.primary.DSN(), "select pg_walfile_name(pg_switch_wal())")
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, p.primary.Archived(p.ctx, names...) // they are put side by side, so the last may be there first
}

// server is one that is restored from a copy of the archive, which is its own.
type server struct {
	*Solo
	p    *told
	t    *testing.T
	wire *wire  // the way to MinIO
	url  string // of the archive

	ends        func() // of a fault
	sidecarRuns bool
	settings    map[string]string
}

// restoring makes a server and an archive of its own, and starts nothing. settings are more lines of its walbaton.yml.
func (p *told) restoring(t *testing.T, settings string) *server {
	t.Helper()
	s := &server{p: p, t: t}
	name := strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(t.Name()[strings.Index(t.Name(), "/")+1:])
	s.copyArchive(name)
	var err error
	if s.Solo, err = p.solo("", s.url); err != nil {
		t.Fatal(err)
	}
	s.configure(s.url, settings)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- postgres\n%s\n--- sidecar\n%s", s.Log("postgres"), s.Log("sidecar"))
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	s.must("place the backup", Run(s.Command(p.ctx, "cp", "-a", "--reflink=auto", p.backup, s.Data())))
	s.settings = map[string]string{"archive_mode": "off", "recovery_target_timeline": "latest"}
	return s
}

// copyArchive gives the server an archive that nobody else writes to, behind a wire of its own where it is MinIO's.
func (s *server) copyArchive(name string) {
	s.t.Helper()
	if folder, ok := strings.CutPrefix(s.p.Store.URL(), "file://"); ok {
		to := filepath.Join(s.p.Dir, "archive-"+name)
		s.must("copy the archive", Run(s.p.Command(s.p.ctx, "cp", "-a", folder, to)))
		s.url = "file://" + to
	} else {
		m := s.p.Store.(*minioStore)
		s.wire = newWire(s.t, strings.TrimPrefix(m.endpoint, "http://"))
		objects, err := m.Objects(s.p.ctx)
		s.must("list the archive", err)
		for _, o := range objects {
			_, err := m.client.CopyObject(s.p.ctx, &s3.CopyObjectInput{Bucket: aws.String(bucket), Key: aws.String(name + "/" + o.Key),
				CopySource: aws.String(bucket + "/" + minioPrefix + o.Key)})
			s.must("copy the archive", err)
		}
		s.url = fmt.Sprintf("s3://%s/%s?endpoint=http://%s&path_style=true", bucket, name, s.wire.address)
	}
}

// configure writes walbaton.yml with another archive, and more lines.
func (s *server) configure(url, more string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config())
	s.must("read walbaton.yml", err)
	lines := strings.SplitN(string(text), "\n", 2)
	s.must("write walbaton.yml", os.WriteFile(s.config(), []byte(fmt.Sprintf("archive: {url: %q}\n", url)+lines[1]+more), 0o644))
}

// folder of the archive of our cluster, which is in files.
func (s *server) folder() string {
	return filepath.Join(strings.TrimPrefix(s.url, "file://"), "drill", s.p.id)
}

// gate is restore_command that stops at one file until it is opened. The rest is what command does.
func (s *server) gate(name, command string) {
	s.t.Helper()
	s.must("close the gate", os.WriteFile(s.at("gate."+name), nil, 0o644))
	s.settings["restore_command"] = "touch asked.%f; while [ -e gate.%f ]; do sleep 0.05; done; " + command
}

func (s *server) at(name string) string { return filepath.Join(s.Data(), name) }

// asked waits until PostgreSQL asks for a file.
func (s *server) asked(name string) {
	s.t.Helper()
	s.must("wait for the gate", s.reach(s.p.ctx, "PostgreSQL asks for "+name, func(context.Context) error {
		if !exists(s.at("asked." + name)) {
			return errors.New("it has not")
		}
		return nil
	}))
}

func (s *server) open(name string) {
	s.t.Helper()
	s.must("open the gate", os.Remove(s.at("gate."+name)))
}

func (s *server) fetch() string { return "exec " + s.c.Bin("walbaton-wal") + " fetch %f %p" }

// recover starts recovery: of a point in time, or of a standby.
func (s *server) recover(signal string) {
	s.t.Helper()
	if s.sidecarRuns {
		s.must("start the sidecar", s.StartSidecar(s.p.ctx))
		s.must("wait for the sidecar", until(s.p.ctx, clusterLimit, "the sidecar listens", func(context.Context) error {
			if !exists(s.Socket()) {
				return errors.New("no socket")
			}
			return nil
		}))
		s.settings["archive_mode"] = "on"
	}
	s.must("write "+signal, s.signal(signal))
	s.must("start PostgreSQL", s.Launch(s.settings))
}

func (s *server) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// stopped fails the test unless PostgreSQL stops by itself, was not promoted, and says why.
func (s *server) stopped(says string) {
	s.t.Helper()
	s.must("wait for the end", s.Ended(s.p.ctx))
	log := s.Log("postgres")
	if !strings.Contains(log, says) {
		s.t.Errorf("PostgreSQL's log does not say %q", says)
	}
	if !exists(s.at("recovery.signal")) || strings.Contains(log, "selected new timeline ID") || strings.Contains(log, "archive recovery complete") {
		s.t.Error("the recovery has ended, or the server was promoted")
	}
	s.whole()
}

// whole fails the test when half a file, or one under a name of ours, is in pg_wal.
func (s *server) whole() {
	s.t.Helper()
	entries, err := os.ReadDir(s.at("pg_wal"))
	s.must("read pg_wal", err)
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		s.must("read pg_wal", err)
		segment := len(e.Name()) == 24 || e.Name() == "RECOVERYXLOG"
		if segment && info.Size() != 1<<20 || strings.HasPrefix(e.Name(), ".walbaton") {
			s.t.Errorf("pg_wal has %s with %d bytes", e.Name(), info.Size())
		}
	}
}

// again starts PostgreSQL once more: recovery goes on.
func (s *server) again() {
	s.t.Helper()
	s.must("start PostgreSQL again", s.Launch(s.settings))
}

// done waits until recovery has ended, and fails the test unless it has these rows, on a timeline whose number nobody has.
func (s *server) done(rows []int64) {
	s.t.Helper()
	s.must("wait for the end of recovery", s.Writable(s.p.ctx))
	s.has(rows)
	name, err := query[string](s.p.ctx, s.DSN(), "select pg_walfile_name(pg_current_wal_lsn())")
	s.must("ask for the timeline", err)
	if got := name[:8]; got != "00000003" {
		s.t.Errorf("it is on timeline %s, and the archive has 1 and 2", got)
	}
}

func (s *server) has(rows []int64) {
	s.t.Helper()
	got, err := Rows(s.p.ctx, s.DSN())
	s.must("read the rows", err)
	if len(rows) == 0 {
		s.t.Fatal(errNoRows)
	}
	if err := Difference(got, contents(rows)); err != nil {
		s.t.Errorf("restored: %v", err)
	}
}

// untouched remembers the archive of files, and gives what fails the test when one of its objects changed.
func (s *server) untouched() (check func()) {
	s.t.Helper()
	was := s.digests()
	return func() {
		s.t.Helper()
		now := s.digests()
		for name := range maps.Keys(was) {
			if now[name] != was[name] {
				s.t.Errorf("%s of the archive is another one, or gone", name)
			}
		}
	}
}

func (s *server) digests() map[string]string {
	s.t.Helper()
	out, err := Output(s.p.Command(s.p.ctx, "sh", "-c", `cd "$1" && find . -type f ! -name '.walbaton*' ! -path '*/probe/*' -exec md5sum {} +`, "sh", strings.TrimPrefix(s.url, "file://")))
	s.must("read the archive", err)
	all := map[string]string{}
	for line := range strings.Lines(out) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		all[name] = sum
	}
	return all
}
