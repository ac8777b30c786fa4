//go:build drills

package drill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/restore.md on one server: without walbaton, from an archive of all codecs; WAL that is missing and was found; and the messages that
// the page explains.
func TestDrillRunbookAlone(t *testing.T) {
	p := solo(t)
	p.begin()
	p.write(new(commit))
	p.do("a backup is taken, while a row is written", func() error {
		return p.d.s.CopyBackup(p.ctx, p.backup, func() error { p.write(new(commit)); return nil })
	})
	var at, cut commit
	for _, codec := range []string{"zstd", "lz4", "none"} {
		p.do("the archive goes on with codec "+codec, func() error { return p.codec(codec) })
		p.write(new(commit))
		p.write(&at)
		p.do("a segment is finished", func() error { return p.d.s.FinishSegment(p.ctx) })
	}
	p.write(&cut)
	p.do("the server fails, and goes on on timeline 2", func() error { return p.d.s.Fail(p.ctx) })
	p.do("the archive has the .partial", func() error { return p.keepQuiet() })
	p.do("the diary goes on", func() error { return p.d.open(p.ctx) })
	p.write(new(commit))
	p.do("a segment is finished", func() error { return p.d.s.FinishSegment(p.ctx) })

	t.Run("without walbaton", func(t *testing.T) {
		sh, g := p.person(t, map[string]string{"TARGET": cut.at})
		sh.do("WALBATON_ARCHIVE=file:///nowhere") // nobody can ask walbaton
		sh.section(g, runbookByHand)
		p.recovers(t, sh, g, cut.rows)
		p.script(t, sh)
	})
	t.Run("words", words)
	t.Run("messages", func(t *testing.T) { p.messages(t, at) })
	t.Run("WAL is missing", func(t *testing.T) { p.missing(t, at) })
	p.everyBlock(t, "docs/restore.md")
}

// person is somebody with a shell who has read section 1.
func (p *pitr) person(t *testing.T, mine map[string]string) (*shell, *guide) {
	t.Helper()
	no := p.solos.Add(1) // its port is nobody else's
	dir, err := p.folder(fmt.Sprint("person", no))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"SCOPE": p.o.Scope, "ARCHIVE": p.Store.URL(), "BACKUP": p.backup, "NEW": filepath.Join(dir, "restored"), "PGBIN": pgBin,
		"NEWPORT": fmt.Sprint(p.port(portSolos + int(no))), "SOCKETS": dir, "DATABASE": dbName, "TABLE": "ledger", "PGDATA": p.d.s.Data()}
	for name, value := range mine {
		values[name] = value
	}
	g, first := runbook(t, values)
	sh := p.newShell(p.ctx, t, filepath.Base(dir), "WALBATON_SOCKET="+filepath.Join(dir, "none"))
	sh.do(first)
	return sh, g
}

// recovers runs the section about recovery, and compares the rows.
func (p *pitr) recovers(t *testing.T, sh *shell, g *guide, want []int64) {
	t.Helper()
	for _, b := range g.blocks(t, runbookRecover, "sh") {
		if !strings.Contains(b.Text, "pg_ctl restart") { // it was not too early
			sh.do(b.Text)
		}
	}
	got := strings.Fields(sh.do("restored -Atc 'select id from ledger order by id' postgres\n"))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the restored server has the rows %v, want %v", got, want)
	}
	sh.do("pg_ctl stop -D \"$NEW\" -m immediate\n")
}

// script asks the script of the page what it answers in the cases that matter.
func (p *pitr) script(t *testing.T, sh *shell) {
	t.Helper()
	out := sh.do(`set -- $(ls "$A/wal/00000001" | grep -E '^[0-9A-F]{24}$' | tail -n 1)
mv "$A/wal/00000001/$1" "$A/hidden"
for name in "$1" 0000000100000000000000FF 00000009.history; do (exec "$SOCKETS/restore-wal" "$name" asked) && echo "$name: 0" || echo "$name: $?"; done
mv "$A/hidden" "$A/wal/00000001/$1"
(exec "$SOCKETS/restore-wal" "$1" asked) && echo "whole: $?"
(exec "$SOCKETS/restore-wal" "$(ls "$A/wal/00000001" | sed -n s/.partial//p)" asked) && echo "cut: $?"
: >"$A/wal/00000001/0000000100000000000000FE"
(exec "$SOCKETS/restore-wal" 0000000100000000000000FE asked) || echo "damaged: $?"
rm "$A/wal/00000001/0000000100000000000000FE"
`, `(exec`, `echo`)
	for _, want := range []string{": 200\n0000000100000000000000FF: 1\n00000009.history: 1\n", "whole: 0\ncut: 0\n", "damaged: 200\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the script says\n%s, want %q", out, want)
		}
	}
}

// codec makes the sidecar write with another one.
func (p *pitr) codec(name string) error {
	s := p.d.s
	s.sidecar.kill()
	text, err := os.ReadFile(s.config())
	if err != nil {
		return err
	}
	text = []byte(strings.NewReplacer("archive: {", "archive: {codec: "+name+", ", "codec: zstd, ", "", "codec: lz4, ", "").Replace(string(text)))
	return errors.Join(os.WriteFile(s.config(), text, 0o644), s.StartSidecar(p.ctx))
}

// words: each message that the page explains is one of PostgreSQL's or of walbaton's, to the letter, but for names and numbers.
func words(t *testing.T) {
	g := readGuide(t, "restore.md")
	said, err := os.ReadFile(filepath.Join(pgBin, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob(filepath.Join(checkout(t), "archiver/*.go"))
	if err != nil || len(sources) == 0 {
		t.Fatal(sources, err)
	}
	for _, f := range sources {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, text...)
	}
	n := 0
	for _, row := range g.Rows[slices.IndexFunc(g.Rows, func(r []string) bool { return r[0] == "message" }):] {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[0], -1) {
			for _, part := range regexp.MustCompile(`\d+|"\.\.\."|from archive: |'`).Split(m[1], -1) {
				n++
				if !strings.Contains(string(said), strings.TrimSpace(part)) {
					t.Errorf("nobody says %q of %q", part, m[1])
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d pieces of messages were found", n)
	}
}

// messages provokes what the page explains.
func (p *pitr) messages(t *testing.T, at commit) {
	_, g := p.person(t, nil)
	explained := ""
	for _, row := range g.Rows {
		explained += row[0] + "\n"
	}
	for name, tc := range map[string]struct {
		mine map[string]string
		say  string // in restore.log
	}{
		"all is well":            {map[string]string{"TARGET": at.at}, "recovery stopping before commit of transaction"},
		"the target is too late": {map[string]string{"TARGET": "2100-01-01 00:00:00+00"}, "recovery ended before configured recovery target was reached"},
		"the target is too old":  {map[string]string{"TARGET": "2000-01-01 00:00:00+00"}, "requested recovery stop point is before consistent recovery point"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(explained, tc.say) {
				t.Fatalf("the page does not explain %q", tc.say)
			}
			sh, g := p.person(t, tc.mine)
			blocks := g.blocks(t, runbookRecover, "sh")
			for _, b := range blocks[:3] {
				sh.do(b.Text, "pg_ctl start: 1", "psql: 2")
			}
			if out := sh.do("cat \"$NEW/restore.log\"\n"); !strings.Contains(out, tc.say) {
				t.Errorf("PostgreSQL does not say %q:\n%s", tc.say, out)
			}
			sh.do("pg_ctl stop -D \"$NEW\" -m immediate\n", "pg_ctl stop: 1")
		})
	}
}

// missing: a segment is lost from the archive, and found in an old copy of pg_wal.
func (p *pitr) missing(t *testing.T, at commit) {
	s := p.d.s
	found := filepath.Join(p.Dir, "found")
	sh, g := p.person(t, map[string]string{"TARGET": at.at, "NAME": "", "FOUND": found})
	sh.section(g, runbookLook)
	sh.do("export WALBATON_CONFIG=" + s.config() + "\n")
	out := sh.do(`A=$(ls -d "${ARCHIVE#file://}/$SCOPE"/[0-9]*)
NAME=$(ls "$A/wal/00000001" | grep -E '^[0-9A-F]{24}$' | tail -n 2 | head -n 1)
mkdir -p "$FOUND"; zstd -dqc "$A/wal/00000001/$NAME" >"$FOUND/$NAME" || lz4 -dqc "$A/wal/00000001/$NAME" >"$FOUND/$NAME"
rm "$A/wal/00000001/$NAME"
echo "$NAME"
`, "zstd")
	name := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	// The sidecar that put it would not look for it again; PostgreSQL has not removed it yet.
	s.sidecar.kill()
	for _, left := range []string{name, "archive_status/" + name + ".done"} {
		if err := os.Remove(filepath.Join(s.Data(), "pg_wal", left)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := s.StartSidecar(p.ctx); err != nil {
		t.Fatal(err)
	}
	blocks := g.blocks(t, runbookHole, "sh")
	if out := sh.do(blocks[0].Text, "walbaton verify: 3"); !strings.Contains(out, name) {
		t.Errorf("walbaton verify does not name %s", name)
	}
	sh.do(blocks[1].Text, "walbaton verify: 3")
}
