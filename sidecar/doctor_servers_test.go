//go:build servers

package main

import (
	"context"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
	"github.com/walbaton/walbaton/leader/patroni"
	"github.com/walbaton/walbaton/sidecar/doctor"
)

// What doctor asks a real server: what is in effect, where it was set, and what waits for a restart.
func TestDoctorAsksPostgres(t *testing.T) {
	c := newCluster(t)
	one := c.node("one")
	c.run("initdb", "-D", one.dir, "-U", "postgres", "-A", "trust", "--wal-segsize=1", "-N")
	cfg := Config{Name: "n1", Socket: "/nowhere/socket"}
	cfg.Postgres.DataDir = one.dir
	cfg.Patroni.PostgreSQL = patroni.PostgreSQL{Superuser: patroni.Credentials{Username: "postgres"}}
	g := &gatherer{cfg: cfg, here: true, facts: &doctor.Facts{}}
	here := doctor.Node{Name: "n1", Here: true}
	if got := g.askSQL(t.Context(), here); got.Err != "it does not run" {
		t.Errorf("stopped: got %+v", got)
	}
	one.start()
	one.sql("alter system set restore_command = 'walbaton-wal fetch %f %p'")
	one.sql("alter system set max_connections = 17")
	one.sql("select pg_reload_conf()")
	there := doctor.Node{Name: "n2", Host: "127.0.0.1", Port: one.port}
	want := map[string]doctor.Setting{
		"archive_mode":    {Value: "on"},
		"archive_command": {Value: "/bin/true"},
		"archive_library": {},
		"restore_command": {Value: "walbaton-wal fetch %f %p", File: filepath.Join(one.dir, "postgresql.auto.conf")},
		"max_connections": {Value: "100", Pending: true, File: filepath.Join(one.dir, "postgresql.conf")},
	}
	for _, n := range []doctor.Node{here, there} {
		var got doctor.SQL
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if got = g.askSQL(t.Context(), n); got.Settings["restore_command"].Value != "" && got.Settings["max_connections"].Pending {
				break // it has reloaded
			}
		}
		version, _ := strconv.Atoi(one.sql("show server_version_num"))
		if got.Err != "" || got.Version != version || got.SystemID == 0 || got.Exact <= 0 || got.Offset.Abs() > time.Second {
			t.Errorf("%s: got %+v", n.Name, got)
		}
		for name, w := range want {
			if s, is := got.Settings[name]; s.Value != w.Value || s.Pending != w.Pending || w.File != "" && filepath.Base(s.File) != filepath.Base(w.File) && !s.Pending || !is && name != "archive_library" {
				t.Errorf("%s: %s: got %+v, want %+v", n.Name, name, s, w)
			}
		}
	}
	there.Port = 1
	if got := g.askSQL(t.Context(), there); got.Err != "connection refused" {
		t.Errorf("nobody there: got %+v", got)
	}
	pid := readServerFiles(one.dir).postmaster.pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	if got := g.askSQL(ctx, here); got.Err == "" || time.Since(begin) > 3*time.Second {
		t.Errorf("hung: got %+v after %v", got, time.Since(begin))
	}
}

// An archive on MinIO: proven, with the store's time; refused to those with a wrong secret; and one that reads alone may not put.
func TestDoctorAsksS3(t *testing.T) {
	server, err := servers.MinIO(t.Context(), servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	ask := func(access, secret string) doctor.Archive {
		one := ArchiveConfig{URL: server.URL("wal", ""), Codec: "zstd", AccessKeyID: access, SecretAccessKey: secret}
		cfg := Config{Scope: "shop", Name: "n1", Archive: one, StallTimeout: time.Minute}
		return examineArchive(t.Context(), cfg, one, testSystemID)
	}
	if got := ask(servers.AccessKey, servers.SecretKey); got.Err != "" || got.Proof != doctor.Proven || got.Exact < time.Second || got.Offset.Abs() > 5*time.Second || got.Begun {
		t.Errorf("got %+v", got)
	}
	if got := ask(servers.AccessKey, "wrong"); got.Err == "" || got.Hint == "" {
		t.Errorf("wrong secret: got %+v", got)
	}
	role, err := server.AssumeRole(t.Context(), `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"], "Resource": ["arn:aws:s3:::wal", "arn:aws:s3:::wal/*"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range role.Environ() {
		t.Setenv(name, value)
	}
	if got := ask("", ""); got.Err != "" || got.Proof != doctor.NoProof || !got.Refused || got.ProofErr == "" {
		t.Errorf("a reader: got %+v", got)
	}
}
