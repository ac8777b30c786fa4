//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// docs/coming-from.md, by its own commands: a cluster that archives with pgBackRest archives with both for a while, through two switchovers, then with walbaton
// alone, and then goes back. While both run each has every segment that the other has; the first base backup of that time leads out of walbaton's archive
// with every row.
func TestDrillComingFrom(t *testing.T) {
	s := prepare(t, Options{Bare: true, ArchiveMode: "on"}, 6*time.Minute)
	s.do("three nodes start", s.Start)
	n := s.primary()
	conf := s.pgBackRest()
	s.do("they archive with pgBackRest", func(ctx context.Context) error {
		err := Run(n.pgbackrest(ctx, "stanza-create"))
		return errors.Join(err, s.Configure(ctx, `{"postgresql": {"parameters": {"archive_command": "pgbackrest --stanza=shop archive-push %p", "restore_command": "pgbackrest --stanza=shop archive-get %f %p"}}}`))
	})
	s.populate(drillRate)

	g := readGuide(t, "coming-from.md")
	client, backup := s.Bin("walbaton-wal"), filepath.Join(n.Dir, "rehearsal")
	// The sockets of three nodes on one machine differ; in the commands there is none, since Patroni's environment names it.
	sh := s.newShell(s.ctx, t, "shell", append(s.dcs.env(n), "WALBATON_CONFIG="+n.config(), "WALBATON_SOCKET=/run/walbaton/walbaton.sock", "PGBACKREST_CONFIG="+conf)...)
	sh.do(g.variables(t, map[string]string{"STANZA": "shop", "CONF": conf, "CLIENT": client, "BACKUP": backup, "PGHOST": n.host(), "PGPORT": fmt.Sprint(n.port())}))
	const shows = `walbaton setup --archive-mode on --archive-command "$BOTH" --restore-command "$OLD": 3`
	sh.section(g, "1. Start the sidecars")
	sh.section(g, "2. Both at once", shows)
	both := fmt.Sprintf(`sh -c 'pgbackrest --stanza=shop archive-push "$0" && %s push "$0"' %%p`, client)
	s.inEffect("archive_command", both, s.Nodes...)
	s.bothOrNone(both)
	began := s.ended()

	sh.section(g, "3. The first base backup that both lead out of")
	s.do("it is the base backup that everything is restored from", func(ctx context.Context) (err error) {
		s.base, err = s.baseIn(ctx, backup, n)
		return err
	})
	for _, to := range []*Node{s.Nodes[1], n} {
		s.do("another node becomes the primary", s.switchover(to))
		s.do("two segments are finished", s.finish(2))
		s.do("all stream", s.AllStreaming)
	}
	upTo := s.ended()
	s.do("what is in one archive is in the other", func(ctx context.Context) error {
		return until(ctx, time.Minute, "both have the same", func(ctx context.Context) error { return s.sameAsPgBackRest(ctx, began, upTo) })
	})
	s.again()

	sh.section(g, "4. Switch the old one off", "walbaton setup: 3")
	s.inEffect("archive_mode", "always", s.Nodes...)
	s.inEffect("archive_command", client+" push %p", s.Nodes...)
	for _, verb := range []string{"check", "backup"} {
		if out, err := n.pgbackrest(s.ctx, "--archive-check", verb).CombinedOutput(); err == nil || !strings.Contains(string(out), "[067]") {
			t.Errorf("pgbackrest %s does not refuse always: %v\n%s", verb, err, out)
		}
	}
	s.do("three segments are finished", s.finish(3))
	s.wholeTruth()

	sh.section(g, "5. Going back")
	s.inEffect("archive_command", "pgbackrest --stanza=shop archive-push %p", s.Nodes...)
	s.inEffect("archive_mode", "on", s.Nodes...)
	s.everyBlock(t, "docs/coming-from.md")
}

// pgBackRest makes the configuration of pgBackRest on every node, with one repository, and gives that of the primary.
func (s *scenario) pgBackRest() string {
	s.t.Helper()
	for _, n := range s.Nodes {
		text := fmt.Sprintf("[global]\nrepo1-path=%s\nrepo1-retention-full=9\nstart-fast=y\nlog-level-file=off\nlog-level-console=warn\nlock-path=%s/lock\ncompress-type=lz4\n\n[shop]\npg1-path=%s\npg1-socket-path=%s\npg1-port=%d\n",
			s.repo(), n.Dir, n.PGData(), n.Dir, n.port())
		path := filepath.Join(n.Dir, "pgbackrest.conf")
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), s.own(path)); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := s.folder("repo"); err != nil {
		s.t.Fatal(err)
	}
	return filepath.Join(s.primary().Dir, "pgbackrest.conf")
}

func (s *scenario) repo() string { return filepath.Join(s.Dir, "repo") }

// pgbackrest is a command of it as an administrator types it on the node.
func (n *Node) pgbackrest(ctx context.Context, args ...string) *exec.Cmd {
	return n.inside(n.c.command(ctx, n.Dir, n.environment(), append([]string{"pgbackrest", "--stanza=shop"}, args...)...))
}

// ended is the last segment that the primary has archived.
func (s *scenario) ended() (name string) {
	s.t.Helper()
	name, err := query[string](s.ctx, s.primary().DSN(), `select substr(max(name), 1, 24) from pg_ls_archive_statusdir() where name ~ '^[0-9A-F]{24}\.done$'`)
	if err != nil || len(name) != 24 {
		s.t.Fatal(name, err)
	}
	return name
}

// bothOrNone runs the command of the page as PostgreSQL and as Patroni 3.0 does (shlex.split, no shell), and cuts each of the archives off: then it must fail.
func (s *scenario) bothOrNone(both string) {
	s.t.Helper()
	n := s.primary()
	command := strings.ReplaceAll(both, "%p", filepath.Join(n.PGData(), "pg_wal", s.ended()))
	run := func(env []string, argv ...string) error {
		cmd := n.inside(n.c.command(s.ctx, n.PGData(), append(n.environment(), env...), argv...))
		return Run(cmd)
	}
	const likePatroni = "import shlex, subprocess, sys; sys.exit(subprocess.call(shlex.split(sys.argv[1])))"
	for _, caller := range [][]string{{"sh", "-c"}, {"/usr/bin/python3", "-c", likePatroni}} {
		if err := run(nil, append(caller, command)...); err != nil {
			s.t.Errorf("as %s calls it: %v", caller[0], err)
		}
	}
	for _, cut := range []string{"WALBATON_SOCKET=" + n.Dir + "/none", "PGBACKREST_CONFIG=" + n.Dir + "/none"} {
		if err := run([]string{cut}, "sh", "-c", command); err == nil {
			s.t.Errorf("%s: one archive is cut off, and the command says that both have the file", cut)
		}
	}
	for _, plain := range []string{"true && false", "false && true"} { // why the page has sh -c: to true, && is an argument
		if err := run(nil, "/usr/bin/python3", "-c", likePatroni, plain); (err == nil) != strings.HasPrefix(plain, "true") {
			s.t.Errorf("%s: %v", plain, err)
		}
	}
}

// again holds the page to what it says of pgBackRest when it is asked twice, and by a standby: the same content is taken, another is refused with 45.
func (s *scenario) again() {
	s.t.Helper()
	n, name := s.Standbys(s.primary())[0], s.ended()
	mine := filepath.Join(n.PGData(), "pg_wal", name)
	if err := Run(n.pgbackrest(s.ctx, "archive-push", mine)); err != nil {
		s.t.Errorf("the same content again: %v", err)
	}
	text, err := os.ReadFile(mine)
	if err != nil {
		s.t.Fatal(err)
	}
	other := filepath.Join(n.Dir, name)
	text[len(text)-1] ^= 1
	if err := errors.Join(os.WriteFile(other, text, 0o644), s.own(other)); err != nil {
		s.t.Fatal(err)
	}
	if out, err := n.pgbackrest(s.ctx, "archive-push", other).CombinedOutput(); err == nil || !strings.Contains(string(out), "[045]") {
		s.t.Errorf("another content is not refused: %v\n%s", err, out)
	}
}

// cutOff says whether a segment is the last one of its timeline and the next timeline begins in it. A node that leaves the timeline may push it, under its
// full name; pgBackRest takes it, and walbaton only where it must (row 5 of docs/push.md): all that counts of it is in the next timeline's.
func cutOff(name string, archive []string) bool {
	after := func(a string) bool { return len(a) == 24 && a[:8] == name[:8] && a > name }
	twin := func(a string) bool { return len(a) == 24 && a[:8] > name[:8] && a[8:] == name[8:] }
	return len(name) == 24 && slices.ContainsFunc(archive, twin) && !slices.ContainsFunc(archive, after)
}

// sameAsPgBackRest is nil when both archives have the same histories, and the same segments above one and up to another.
func (s *scenario) sameAsPgBackRest(ctx context.Context, above, upTo string) error {
	objects, err := s.Store.Objects(ctx)
	if err != nil {
		return err
	}
	var ours, theirs []string
	name := regexp.MustCompile(`^([0-9A-F]{24}|[0-9A-F]{8}\.history)(-[0-9a-f]{40}(\.lz4)?)?$`)
	add := func(to *[]string, path string) {
		if m := name.FindStringSubmatch(filepath.Base(path)); m != nil && (strings.HasSuffix(m[1], ".history") || m[1][8:] > above[8:] && m[1][8:] <= upTo[8:]) && !slices.Contains(*to, m[1]) {
			*to = append(*to, m[1])
		}
	}
	for _, o := range objects {
		if strings.HasPrefix(o.Key, s.base.Folder()+"/wal/") || strings.HasPrefix(o.Key, s.base.Folder()+"/history/") {
			add(&ours, o.Key)
		}
	}
	err = filepath.WalkDir(filepath.Join(s.repo(), "archive/shop"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			add(&theirs, path)
		}
		return err
	})
	slices.Sort(ours)
	slices.Sort(theirs)
	theirs = slices.DeleteFunc(theirs, func(name string) bool { return !slices.Contains(ours, name) && cutOff(name, ours) })
	if err == nil && (!slices.Equal(ours, theirs) || len(ours) < 6) {
		err = fmt.Errorf("walbaton's archive has\n%v, pgBackRest's\n%v", ours, theirs)
	}
	return err
}
