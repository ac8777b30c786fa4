//go:build servers

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/sidecar/setup"
)

// What setup reads of a real PostgreSQL: what is in effect, the file that says it last, and what waits for a restart.
func TestSettingsOfAServer(t *testing.T) {
	c := newCluster(t)
	n := c.node("n1")
	c.run("initdb", "-D", n.dir, "-U", "postgres", "-A", "trust", "-N")
	conf := filepath.Join(n.dir, "postgresql.conf")
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("restore_command = 'first'\nRestore_Command = 'it''s 100%%'\narchive_library = ''\n")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.start()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", n.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{"alter system set archive_command = 'cp %p /old/%f'", "alter system set max_connections = 99", "select pg_reload_conf()", "select pg_sleep(0.5)"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	got, err := settingsOf(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	want := inForce{pending: []string{"max_connections"}, values: map[string]setup.Value{
		"archive_mode":    {InEffect: "on"}, // of the command line, as the next
		"archive_command": {InEffect: "/bin/true", File: filepath.Join(n.dir, "postgresql.auto.conf"), InFile: "cp %p /old/%f"},
		"restore_command": {InEffect: "it's 100%%", File: conf, InFile: "it's 100%%"},
		"archive_library": {File: conf},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}
