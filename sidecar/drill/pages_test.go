//go:build drills

package drill

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/docs"
)

// TestDrillPages types what stands in the README and the pages, on a real cluster. It begins with a Patroni cluster that knows nothing of walbaton; the
// README installs it on every node, and the other pages find the cluster as the README leaves it, one after the other, by name.
//
// The nodes are machines (machine.go), so what is typed is what stands there, to the letter, but for values of variables (values, below). A person is
// user postgres on n1, in a folder of the page's own that has what the checkout has, and may use sudo. A comment before a block says where else it is typed:
//
//	<!-- every node -->        on n1, n2 and n3
//	<!-- the primary -->       where PostgreSQL is the primary now, and so on: <!-- a standby -->
//	<!-- where one builds -->  as whoever runs this test, in the checkout
//
// Every command must succeed, but for those whose comment says "exits with 3", or another code. A block of console must print what stands there, sooner or later: a person looks again.
func TestDrillPages(t *testing.T) {
	s := prepare(t, Options{Archiver: Nobody, Machines: true, DCS: Etcd, Scope: "shop", SegmentMB: 16}, 8*time.Minute)
	s.do("three nodes start, without walbaton", s.Start)
	pages, err := docs.Pages(checkout(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		blocks := p.Of(t.Name())
		if len(blocks) == 0 {
			continue
		}
		t.Log("---", p.Name)
		r := &reader{scenario: s, page: p, shells: map[string]*shell{}}
		values := r.values()
		for _, b := range blocks {
			r.follow(b, values)
		}
	}
}

// reader is somebody who follows a page.
type reader struct {
	*scenario
	page   docs.Page
	shells map[string]*shell // by node
}

// values are those that the page's variables get instead of the ones that stand there. What has to be there for them is made first.
func (r *reader) values() map[string]string {
	r.t.Helper()
	if r.page.Name != "docs/verify.md" {
		return nil
	}
	p := r.primary()
	r.segments(2)
	at, err := query[string](r.ctx, p.DSN(), "select clock_timestamp()::text")
	if err != nil {
		r.t.Fatal(err)
	}
	lsn, err := query[string](r.ctx, p.DSN(), "select pg_current_wal_lsn()::text")
	if err != nil {
		r.t.Fatal(err)
	}
	lost := r.segments(4)[2]
	r.do("the archive loses a segment", func(context.Context) error {
		found, err := filepath.Glob(strings.TrimPrefix(r.Store.URL(), "file://") + "/*/*/wal/*/" + lost)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("it has %d of %s", len(found), lost)
		}
		if err != nil {
			return err
		}
		return os.Remove(found[0])
	})
	return map[string]string{"TARGET": at, "LSN": lsn, "FIRST": lost, "LAST": lost}
}

// segments finishes a few, each with a commit, waits until every node knows that they are archived, and gives their names.
func (r *reader) segments(n int) (names []string) {
	r.t.Helper()
	r.do(fmt.Sprintf("%d segments are finished", n), func(ctx context.Context) error {
		for range n {
			if _, err := query[string](ctx, r.primary().DSN(), "select txid_current()::text"); err != nil {
				return err
			}
			name, err := query[string](ctx, r.primary().DSN(), "select pg_walfile_name(pg_switch_wal())")
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		return until(ctx, clusterLimit, "every node knows that they are archived", func(context.Context) error {
			for _, n := range r.Nodes {
				done, err := n.WAL("done")
				for _, name := range names {
					if err == nil && !slices.Contains(done, name) {
						err = fmt.Errorf("%s does not know it of %s", n.Name, name)
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	return names
}

// follow types one block where it belongs.
func (r *reader) follow(b docs.Block, values map[string]string) {
	r.t.Helper()
	r.step = "type " + b.String()
	text := assign(b.Text, values)
	p := r.primary()
	switch b.Where {
	case "every node":
		for _, n := range r.Nodes {
			r.typed(b, text, r.shell(n))
		}
	case "the primary":
		r.typed(b, text, r.shell(p))
	case "a standby":
		r.typed(b, text, r.shell(r.Standbys(p)[0]))
	case "where one builds":
		r.build(text)
	case "":
		r.typed(b, text, r.shell(r.Nodes[0]))
	default:
		r.t.Fatalf("%v: %q is no place that TestDrillPages knows", b, b.Where)
	}
}

// typed types a block in a shell.
func (r *reader) typed(b docs.Block, text string, sh *shell) {
	r.t.Helper()
	if b.Kind == "sh" {
		var fails []string
		for _, m := range failing.FindAllStringSubmatch(text, -1) {
			fails = append(fails, m[1]+": "+m[2])
		}
		sh.do(text, fails...)
		return
	}
	for _, c := range commands(text) {
		r.prints(b, c, sh)
	}
}

// prints types a command until it prints what the page says.
func (r *reader) prints(b docs.Block, c command, sh *shell) {
	r.t.Helper()
	err := until(r.ctx, 30*time.Second, b.String()+" prints what stands there", func(context.Context) (err error) {
		out, failed := sh.run(c.text)
		missing := lacks(out, c.prints)
		switch {
		case len(failed) > 0:
			err = fmt.Errorf("a command of the page failed: %s", strings.Join(failed, ", "))
		case len(missing) > 0:
			err = fmt.Errorf("it does not print these lines, or the like:\n%s", strings.Join(missing, "\n"))
		default:
			return nil
		}
		time.Sleep(time.Second)
		return fmt.Errorf("%w; it prints\n%s", err, out)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// shell is a person's on a node, who has opened it to follow this page.
func (r *reader) shell(n *Node) *shell {
	r.t.Helper()
	if sh := r.shells[n.Name]; sh != nil {
		return sh
	}
	name := n.Name + "-" + strings.NewReplacer("/", "-", ".md", "").Replace(r.page.Name)
	sh := r.shellOn(r.ctx, r.t, n, name, append(r.dcs.env(n),
		"PATH="+strings.Join([]string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", pgBin}, ":"),
		"HOME="+filepath.Join(r.Dir, name), "PGHOST="+n.host(), fmt.Sprintf("PGPORT=%d", n.port()), "PGUSER=postgres", "ETCDCTL_API=3",
		fmt.Sprintf("ETCDCTL_ENDPOINTS=http://%s:%d", r.host(atDCS), r.port(portDCS)))...)
	sh.do("ln -s /mnt/source/* .\n") // the page is read in a copy of the checkout
	r.shells[n.Name] = sh
	return sh
}

// build runs commands in the checkout, where what they build has a folder that git ignores.
func (r *reader) build(text string) {
	r.t.Helper()
	cmd := exec.CommandContext(r.ctx, "bash", "-eu", "-c", text)
	cmd.Dir = checkout(r.t)
	r.t.Logf("$ %s", strings.TrimSpace(text))
	if err := Run(cmd); err != nil {
		r.t.Fatal(err)
	}
}

// command is one of a console block, with what the page says that it prints.
type command struct {
	text   string
	prints []string
}

// commands takes a console block apart. A command goes on in the next line behind a backslash.
func commands(text string) (all []command) {
	more := false
	for line := range strings.Lines(text) {
		bare, begins := strings.CutPrefix(line, "$ ")
		switch {
		case begins:
			all = append(all, command{text: bare})
		case more:
			all[len(all)-1].text += line
		case strings.TrimSpace(line) != "":
			all[len(all)-1].prints = append(all[len(all)-1].prints, line)
		}
		more = (begins || more) && strings.HasSuffix(line, "\\\n")
	}
	return all
}

var (
	failing = regexp.MustCompile(`(?m)^(\S.*?) +#.*exits with (\d+)`)
	numbers = regexp.MustCompile(`[0-9A-F]*[0-9][0-9A-F]*(\.#)?`)
	times   = regexp.MustCompile(`\b(\d+h)?(\d+m)?\d+(\.\d+)?m?s\b`)
	gaps    = regexp.MustCompile(`[ \t]+`)
)

// shape is a line without what differs each time: numbers, names of segments, and the width of columns.
func shape(line string) string {
	line = times.ReplaceAllString(line, "#")
	return strings.TrimSpace(gaps.ReplaceAllString(numbers.ReplaceAllString(line, "#"), " "))
}

// lacks are the lines of want that out has nothing like.
func lacks(out string, want []string) (missing []string) {
	var have []string
	for line := range strings.Lines(out) {
		have = append(have, shape(line))
	}
	for _, w := range want {
		if !slices.Contains(have, shape(w)) {
			missing = append(missing, strings.TrimRight(w, "\n"))
		}
	}
	return missing
}

// What a page prints is compared but for numbers.
func TestShape(t *testing.T) {
	for a, b := range map[string]string{
		"whole from 0/3000000 to 0/4000000 (000000020000000000000003); nothing waits here": "whole from 0/A000028  to 0/5000000 (00000003000000000000000A); nothing waits here\n",
		"n3      primary  running  2   holds it":                                           "n1 primary running 12 holds it",
		"took a file from this node 2s ago":                                                "took a file from this node 1m12s ago",
		"it took 350ms":                                                                    "it took 1.5s",
	} {
		if shape(a) != shape(b) {
			t.Errorf("%q and %q", shape(a), shape(b))
		}
	}
	got := commands("$ a \\\n  b\nx\n\n$ c\n")
	if len(got) != 2 || got[0].text != "a \\\n  b\n" || len(got[0].prints) != 1 || got[1].text != "c\n" {
		t.Errorf("got %+v", got)
	}
	if m := lacks("n1 leads\nrest\n", []string{"n3 leads", "n3 follows"}); len(m) != 1 || m[0] != "n3 follows" {
		t.Errorf("missing are %q", m)
	}
}
