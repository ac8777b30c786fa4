package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

func samplePlan(o Options) *Plan {
	f := healthy()
	f.node.Timeline = 3
	return &Plan{r: New(o), archive: "s3://wal/prod/shop/7710597796492160055", facts: f, lead: member{name: "n1", host: "10.0.0.1", port: 5432, rest: "http://10.0.0.1:8008"},
		members: []member{{name: "n1"}, {name: "n2"}, {name: "n3"}}, schema: "walbaton_drill_20261128_231500_abcdef",
		server: server{database: "postgres", segment: 16 << 20, size: 12 << 30}}
}

// TestPlanText: who is asked reads exactly what will be done.
func TestPlanText(t *testing.T) {
	got := samplePlan(Options{Restore: &RestoreOptions{Scratch: "/var/tmp"}, Candidate: "n2"}).String()
	want := `cluster   shop, system identifier 7710597796492160055, timeline 3
primary   n1 (10.0.0.1:5432), replicas n2, n3
archive   s3://wal/prod/shop/7710597796492160055
baton     n1 holds it

This drill will:
  1. copy the whole cluster from n1 with pg_basebackup, into a new folder below /var/tmp, about 12 GB
  2. make the schema walbaton_drill_20261128_231500_abcdef in the database postgres, with one small table
  3. write 50 rows a second into it, and end a segment (16 MB) every 3s with pg_switch_wal
  4. after 10s, ask Patroni to make n2 the primary in place of n1 (POST http://10.0.0.1:8008/switchover)
  5. go on writing for 10s, until the new timeline is in the archive and the members follow
  6. make a restore point, recover the copy from the archive up to it, and compare every row
  7. drop the schema, and remove the folder

Every connection to the primary ends, and nobody can write until another one takes over: mostly some seconds.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	p := samplePlan(Options{Command: "reboot", Rounds: 3})
	p.server.left = []string{"walbaton_drill_old"}
	for _, want := range []string{"run this: reboot", "3 times in all", "drop schema walbaton_drill_old cascade", "5. do the last", "6. drop the schema\n"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, p)
		}
	}
}

func TestLacks(t *testing.T) {
	all := server{database: "d", may: rights{true, true, true}}
	none := server{database: "d"}
	if got := all.lacks(true); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if with, without := none.lacks(true), none.lacks(false); len(with) != 3 || len(without) != 2 || !strings.Contains(with[0], "grant create on database d") {
		t.Errorf("got %q and %q", with, without)
	}
}

// TestRoom: a folder is refused that is not there, whose path no socket fits into, or that is too small.
func TestRoom(t *testing.T) {
	deep := "/tmp/" + strings.Repeat("x", 90)
	for dir, want := range map[string]string{t.TempDir() + "/nothing": "cannot be used", deep: "too long for a socket", "/": "has room for"} {
		got := strings.Join((&RestoreOptions{Scratch: dir}).room(server{size: 1 << 60}), "; ")
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
	}
}

// TestRunCommand: the command sees whom it is about, what it says comes back, and it ends with its context, with all that it started.
func TestRunCommand(t *testing.T) {
	lead := member{name: "n1", host: "10.0.0.1", port: 5433}
	if got := runCommand(t.Context(), "echo $WALBATON_DRILL_PRIMARY $WALBATON_DRILL_HOST $WALBATON_DRILL_PORT; echo and more >&2", lead); got != (answer{"n1 10.0.0.1 5433 and more", nil}) {
		t.Errorf("got %+v", got)
	}
	for command, want := range map[string]bool{"exit 1": false, "exit 255": false, "no-such-program-at-all": true, "true": false} {
		if got := runCommand(t.Context(), command, lead); definite(got.err) != want {
			t.Errorf("%s: %v is definite: %v, want %v", command, got.err, !want, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began, file := time.Now(), filepath.Join(t.TempDir(), "pid")
	got := runCommand(ctx, "sleep 60 & echo $! > "+file+"; wait", lead)
	if got.err == nil || time.Since(began) > 4*time.Second {
		t.Errorf("got %+v after %v", got, time.Since(began))
	}
	pid, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		b, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/comm") // gone is what is wanted
		return strings.TrimSpace(string(b))
	}
	for end := time.Now().Add(5 * time.Second); name() == "sleep" && time.Now().Before(end); {
		state, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if strings.Contains(string(state), ") Z ") {
			return // it has ended, and nobody waited for it yet
		}
		time.Sleep(10 * time.Millisecond)
	}
	if name() == "sleep" {
		t.Error("what the command started runs on")
	}
}

// TestDefinite: a refusal of Patroni is one; that it gave up waiting is none.
func TestDefinite(t *testing.T) {
	for code, want := range map[int]bool{412: true, 400: true, 401: true, 503: false} {
		if got := definite(fmt.Errorf("switch over: %w", &restapi.StatusError{Code: code})); got != want {
			t.Errorf("%d: got %v, want %v", code, got, want)
		}
	}
	if definite(errors.New("connection reset")) || definite(context.Canceled) {
		t.Error("a broken connection says nothing")
	}
}

// fakeServer is a scratch folder with a program instead of PostgreSQL.
func fakeServer(t *testing.T, script string) *scratch {
	t.Helper()
	program := filepath.Join(t.TempDir(), "postgres")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := newScratch(&RestoreOptions{Scratch: t.TempDir(), Command: "'/usr/bin/walbaton' fetch %f %p"}, map[string]string{"postgres": program})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScratchServer: a restored server that stops says why, one that hangs is ended, and the folder goes with it. What it is told is all its own.
func TestScratchServer(t *testing.T) {
	r := recovery{target: "walbaton_drill_x", timeline: 26, settings: map[string]string{"max_connections": "300"}, user: "postgres", database: "postgres"}
	s := fakeServer(t, "echo 'x FATAL:  recovery ended before configured recovery target was reached' >&2; exit 1\n")
	if err := os.WriteFile(filepath.Join(s.data(), "postgresql.auto.conf"), []byte("archive_command = 'rm -rf /'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.recover(t.Context(), r)
	if err == nil || !strings.HasSuffix(err.Error(), "the restored server stopped: recovery ended before configured recovery target was reached") {
		t.Errorf("got %v", err)
	}
	conf, err := os.ReadFile(filepath.Join(s.dir, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"restore_command = '''/usr/bin/walbaton'' fetch %f %p'\n", "recovery_target_timeline = '26'\n", "listen_addresses = ''\n", "max_connections = '300'\n", "archive_mode = 'off'\n"} {
		if !strings.Contains(string(conf), want) {
			t.Errorf("postgresql.conf lacks %q:\n%s", want, conf)
		}
	}
	if auto, err := os.ReadFile(filepath.Join(s.data(), "postgresql.auto.conf")); err != nil || len(auto) > 0 {
		t.Errorf("the cluster's own settings count: %s, %v", auto, err)
	}
	hangs := fakeServer(t, "exec sleep 60\n")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := hangs.recover(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	for _, s := range []*scratch{s, hangs} {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) || s.server.ProcessState == nil {
			t.Errorf("left: %v, %v", err, s.server)
		}
	}
}

func TestSize(t *testing.T) {
	var got []string
	for _, n := range []int64{0, 1023, 1 << 20, 5 << 29, 3 << 50} {
		got = append(got, size(n))
	}
	if want := []string{"0 B", "1023 B", "1 MB", "2.5 GB", "3 PB"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
