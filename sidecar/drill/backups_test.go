//go:build drills

package drill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each way to take a base backup that docs/base-backups.md describes, by the page's own commands: backup, more rows, restore to a
// time by walbaton-wal fetch, rows compared. And what the page says about the .backup file is so.
func TestDrillBaseBackups(t *testing.T) {
	p, g := solo(t), readGuide(t, "base-backups.md")
	p.begin()
	p.write(new(commit))
	primary := "a copy between `pg_backup_start` and `pg_backup_stop` on the primary"
	for i, tc := range []struct {
		name, heading, row string
		standby            bool
	}{
		{name: "pg_basebackup -X none", heading: "pg_basebackup", row: "pg_basebackup from the primary, any `-X`"},
		{name: "pg_basebackup -X stream", heading: "pg_basebackup with its WAL", row: "pg_basebackup from the primary, any `-X`"},
		{name: "pgBackRest", heading: "pgBackRest", row: "pgBackRest from the primary"},
		{name: "a copy", heading: "A copy of the files", row: primary},
		{name: "a copy of a standby", heading: "A copy of the files", row: strings.Replace(primary, "the primary", "a standby", 1), standby: true},
		{name: "pg_basebackup of a standby", heading: "pg_basebackup", row: "pg_basebackup from a standby", standby: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from := p.d.s
			if tc.standby {
				from = p.standby(t)
			}
			values := map[string]string{"PGDATA": from.Data(), "PGHOST": from.Dir, "PGPORT": fmt.Sprint(from.port), "STANZA": "shop",
				"BACKUP": filepath.Join(p.Dir, fmt.Sprint("page", i)), "REPO": filepath.Join(p.Dir, "repo")}
			if err := errors.Join(os.MkdirAll(values["REPO"], 0o755), p.own(values["REPO"])); err != nil {
				t.Fatal(err)
			}
			before := p.labels(t)
			p.write(new(commit))
			sh := p.newShell(p.ctx, t, fmt.Sprint("shell", i))
			sh.do(g.variables(t, values))
			sh.section(g, tc.heading)
			want, listed := false, false
			for _, row := range g.Rows {
				if row[0] == tc.row {
					want, listed = row[1] == "yes", true
				}
			}
			var at commit
			p.write(new(commit))
			p.write(&at)
			p.write(new(commit))
			if err := p.d.s.FinishSegment(p.ctx); err != nil {
				t.Fatal(err)
			}
			if got := p.labels(t) > before; !listed || got != want {
				t.Errorf("it left a .backup file: %v; the page says %v (if at all: %v)", got, want, listed)
			}
			server := p.recover(t, target{settings: map[string]string{"recovery_target_time": at.at}, backup: values["BACKUP"]})
			if err := server.Writable(p.ctx); err != nil {
				t.Fatal(err)
			}
			p.restored(t, server, at.rows)
		})
	}
	p.everyBlock(t, "docs/base-backups.md")
}

// standby starts one that streams from the server.
func (p *pitr) standby(t *testing.T) *Solo {
	t.Helper()
	if !exists(p.backup) {
		if err := p.d.s.CopyBackup(p.ctx, p.backup, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	s, err := p.Standby(p.ctx, p.d.s, p.backup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s
}

// labels counts the .backup files in the archive.
func (p *pitr) labels(t *testing.T) (n int) {
	t.Helper()
	objects, err := p.Store.Objects(p.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if strings.HasSuffix(o.Key, ".backup") {
			n++
		}
	}
	return n
}
