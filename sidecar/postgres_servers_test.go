//go:build servers

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
	"github.com/walbaton/walbaton/leader/patroni"
)

// cluster is a primary and what follows it, run as the user postgres below a folder that it can reach.
type cluster struct {
	t    *testing.T
	bin  string
	root string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(bins) == 0 {
		t.Fatalf("no PostgreSQL in /usr/lib/postgresql (%v): install one, such as postgresql-15", err)
	}
	root, err := os.MkdirTemp("/tmp", "walbaton-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t, filepath.Dir(bins[len(bins)-1]), root}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a PostgreSQL program as a user that may: PostgreSQL refuses root.
func (c *cluster) run(program string, args ...string) string {
	c.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.root, &out, &out
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: postgresUser(c.t)}
	}
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func postgresUser(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// node is one server.
type node struct {
	*cluster
	dir  string
	port int
}

func (c *cluster) node(name string) *node {
	c.t.Helper()
	_, text, err := net.SplitHostPort(dcstest.FreeAddresses(c.t, 1)[0])
	if err != nil {
		c.t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		c.t.Fatal(err)
	}
	return &node{c, filepath.Join(c.root, name), port}
}

func (n *node) start() {
	n.t.Helper()
	log := filepath.Join(n.root, filepath.Base(n.dir)+".log")
	options := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s -c archive_mode=on -c archive_command=/bin/true -c hot_standby=on", n.port, n.root)
	n.run("pg_ctl", "-D", n.dir, "-l", log, "-w", "-t", "60", "-o", options, "start")
	n.t.Cleanup(func() {
		if exists(filepath.Join(n.dir, "postmaster.pid")) {
			n.run("pg_ctl", "-D", n.dir, "-m", "immediate", "-w", "stop")
		}
	})
}

func (n *node) sql(query string) string {
	n.t.Helper()
	return strings.TrimSpace(n.run("psql", "-XAtq", "-h", "127.0.0.1", "-p", strconv.Itoa(n.port), "-U", "postgres", "-c", query, "postgres"))
}

// reader is what the sidecar of this node would use.
func (n *node) reader() *postgres {
	cfg := Config{Postgres: PostgresConfig{DataDir: n.dir}}
	cfg.Patroni.PostgreSQL = patroni.PostgreSQL{Superuser: patroni.Credentials{Username: "postgres"}}
	p := newPostgres(cfg, discard(), nil)
	n.t.Cleanup(p.close)
	return p
}

func (n *node) lsn(query string) string { return n.sql("select " + query) }

// until reads until the reading is as it should be.
func until(t *testing.T, p *postgres, what string, ok func(archiver.Server) bool) archiver.Server {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		s := p.Read(t.Context())
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %+v", what, s)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestPostgresReadings(t *testing.T) {
	c := newCluster(t)
	one, two := c.node("one"), c.node("two")
	c.run("initdb", "-D", one.dir, "-U", "postgres", "-A", "trust", "--wal-segsize=1", "-N")

	p := one.reader()
	stopped := p.Read(t.Context())
	if stopped.State != archiver.ServerStopped || stopped.SystemID == 0 || stopped.Timeline != 1 || stopped.SegmentSize != 1<<20 || stopped.Flush == 0 || stopped.Major == 0 {
		t.Errorf("before the start: got %+v", stopped)
	}
	one.start()
	t0 := time.Now()
	s := p.Read(t.Context())
	t.Logf("first reading with SQL took %v", time.Since(t0))
	version, _ := strconv.Atoi(one.sql("show server_version_num"))
	if s.State != archiver.ServerPrimary || !s.SQL || s.SystemID != stopped.SystemID || s.Timeline != 1 || s.ArchiveMode != "on" ||
		s.Version != version || s.Major != version/10000 || s.Receiver != (archiver.Receiver{}) {
		t.Errorf("primary: got %+v", s)
	}
	// At the boundary of a segment the timeline is still right, and the LSN the exact one.
	one.sql("select pg_switch_wal()")
	if s = p.Read(t.Context()); s.Timeline != 1 || s.Flush.String() != one.lsn("pg_current_wal_flush_lsn()") {
		t.Errorf("after a switch: got %+v, want flush %s", s, one.lsn("pg_current_wal_flush_lsn()"))
	}
	t0 = time.Now()
	for range 100 {
		p.Read(t.Context())
	}
	t.Logf("a reading takes %v", time.Since(t0)/100)

	c.run("pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(one.port), "-U", "postgres", "-D", two.dir, "-R", "-c", "fast")
	two.start()
	q := two.reader()
	s = until(t, q, "standby streams", func(s archiver.Server) bool { return s.Receiver.Streaming })
	want := archiver.Receiver{Streaming: true, Timeline: 1, Host: "127.0.0.1", Port: one.port}
	if s.State != archiver.ServerStandby || !s.SQL || s.Timeline != 1 || s.Receiver != want || s.SystemID != stopped.SystemID {
		t.Errorf("standby: got %+v, want receiver %+v", s, want)
	}
	flush := one.lsn("pg_current_wal_flush_lsn()")
	until(t, q, "standby flushes "+flush, func(s archiver.Server) bool { return s.Flush.String() == flush })

	// A DSN that leads to the other node is refused, and the files answer. The two were started within a
	// minute of each other, so the primary's start is moved in the standby's postmaster.pid.
	t.Run("wrong server", func(t *testing.T) { wrongServer(t, one, two) })
	t.Run("hung", func(t *testing.T) { hung(t, two) })
	t.Run("smart shutdown", func(t *testing.T) { smartShutdown(t, one, p) })
	t.Run("promotion", func(t *testing.T) { promotion(t, two, q) })
}

func wrongServer(t *testing.T, one, two *node) {
	path := filepath.Join(two.dir, "postmaster.pid")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	started, _ := strconv.Atoi(lines[2])
	lines[2] = strconv.Itoa(started - 3600)
	changed := []byte(strings.Join(lines, "\n"))
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(path, b, 0o600)
	r := two.reader()
	r.sql.dsn = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", one.port)
	if s := r.Read(t.Context()); s.State != archiver.ServerStandby || s.SQL {
		t.Errorf("asking the primary for the standby: got %+v", s)
	}
}

// hung: a postmaster that is stopped by a signal accepts connections, in the kernel, and answers none.
func hung(t *testing.T, two *node) {
	pid := readServerFiles(two.dir).postmaster.pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	r := two.reader()
	for i := range 2 {
		t0 := time.Now()
		s := r.Read(t.Context())
		took := time.Since(t0)
		t.Logf("reading %d of a hung server took %v", i, took)
		if s.State != archiver.ServerStandby || s.SQL || s.SystemID == 0 || s.Timeline != 1 {
			t.Errorf("hung: got %+v", s)
		}
		if limit := postgresSQL + 500*time.Millisecond; i == 0 && took > limit {
			t.Errorf("hung: took %v, want at most %v", took, limit)
		} else if i == 1 && took > 100*time.Millisecond {
			t.Errorf("hung: the second reading asks again and takes %v", took)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r.retry = time.Time{}
	t0 := time.Now()
	r.Read(ctx)
	if took := time.Since(t0); took > 500*time.Millisecond {
		t.Errorf("hung: a caller with 50 ms waited %v", took)
	}
}

// Our connection must not hold up a smart shutdown, which waits for all clients.
func smartShutdown(t *testing.T, one *node, p *postgres) {
	if s := p.Read(t.Context()); !s.SQL {
		t.Fatalf("before: got %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t0 := time.Now()
	one.run("pg_ctl", "-D", one.dir, "-m", "smart", "-w", "-t", "30", "stop")
	t.Logf("smart shutdown took %v", time.Since(t0))
	until(t, p, "stopped", func(s archiver.Server) bool { return s.State == archiver.ServerStopped })
	if s := p.Server(); s.ArchiveMode != "on" || s.Timeline != 1 {
		t.Errorf("stopped: got %+v", s)
	}
	cancel()
	<-done
}

// The new timeline is known at once, before the checkpoint that writes it to pg_control.
func promotion(t *testing.T, two *node, q *postgres) {
	until(t, q, "receiver is gone", func(s archiver.Server) bool { return !s.Receiver.Streaming })
	two.run("pg_ctl", "-D", two.dir, "-w", "-t", "30", "promote")
	s := until(t, q, "promoted", func(s archiver.Server) bool { return s.State == archiver.ServerPrimary && s.SQL })
	if s.Timeline != 2 {
		t.Errorf("right after the promotion: got %+v, want timeline 2", s)
	}
	pid := readServerFiles(two.dir).postmaster.pid
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	s = until(t, q, "crashed", func(s archiver.Server) bool { return s.State == archiver.ServerStopped })
	if s.Timeline != 2 || s.SQL {
		t.Errorf("after a crash: got %+v, want timeline 2", s)
	}
}
