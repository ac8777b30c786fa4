//go:build drills

package drill

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guide is a page of docs/ whose commands are run as a person does who reads it from the top: block after block, in one shell. The first block
// sets variables; a test gives them its own values, and changes nothing else.
type guide struct {
	name     string
	sections map[string][]block // by heading
	order    []string
	rows     [][]string // the cells of all its tables
}

// block is a fenced block of a page. where is the comment before it that says on which node it is typed.
type block struct{ kind, where, text string }

// readGuide reads docs/<name>.
func readGuide(t *testing.T, name string) *guide {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout(t), "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	g := &guide{name: name, sections: map[string][]block{}}
	heading, where := "", ""
	var open *block
	for line := range strings.Lines(string(text)) {
		switch {
		case open != nil && strings.TrimSpace(line) == "```":
			g.sections[heading] = append(g.sections[heading], *open)
			open, where = nil, ""
		case open != nil:
			open.text += line
		case strings.HasPrefix(line, "```"):
			open = &block{kind: strings.TrimSpace(line[3:]), where: where}
		case strings.HasPrefix(line, "<!-- "):
			where = strings.TrimSuffix(strings.TrimSpace(line[5:]), " -->")
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimSpace(line[3:])
			g.order = append(g.order, heading)
		case strings.HasPrefix(line, "| "):
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			g.rows = append(g.rows, cells)
		}
	}
	return g
}

// checkout is the folder of go.mod: the suite starts drills there, and go test in their package.
func checkout(t *testing.T) string {
	t.Helper()
	dir, err := checkoutFolder()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// blocks are those of a section of one kind, "sh" or "yaml".
func (g *guide) blocks(t *testing.T, heading, kind string) []block {
	t.Helper()
	all := slices.DeleteFunc(slices.Clone(g.sections[heading]), func(b block) bool { return b.kind != kind })
	if len(all) == 0 {
		t.Fatalf("docs/%s has no block of %s below %q; its headings are %q", g.name, kind, heading, g.order)
	}
	return all
}

var assignment = regexp.MustCompile(`(?m)^([A-Z]+)=(\S+|'[^']*'|"[^"]*") *(#.*)?$`)

// variables is the first block of a page with other values. Each variable must be known to the test, and the other way round.
func (g *guide) variables(t *testing.T, values map[string]string) string {
	t.Helper()
	first := g.blocks(t, g.order[0], "sh")[0].text
	seen := map[string]bool{}
	out := assignment.ReplaceAllStringFunc(first, func(line string) string {
		name, _, _ := strings.Cut(line, "=")
		seen[name] = true
		value, ok := values[name]
		if !ok {
			t.Fatalf("docs/%s: the test has no value for %s", g.name, name)
		}
		return name + "='" + value + "'"
	})
	for name := range values {
		if !seen[name] {
			t.Fatalf("docs/%s does not set %s in its first block", g.name, name)
		}
	}
	return out
}

// shell is a person's shell that stays open, as user postgres.
type shell struct {
	t      *testing.T
	dir    string
	in     io.WriteCloser
	out    *bufio.Reader
	blocks int
	end    func()
}

// newShell starts one in a folder of the cluster, with an environment besides that of every command here.
func (c *Cluster) newShell(ctx context.Context, t *testing.T, name string, env ...string) *shell {
	t.Helper()
	dir, err := c.folder(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.command(ctx, dir, append(c.Store.Env(), env...), "bash", "--noprofile", "--norc")
	s := &shell{t: t, dir: dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	s.end = func() { s.in.Close(); cmd.Wait() }
	t.Cleanup(s.end)
	return s
}

// do runs one block, and gives what it wrote. The test fails when one of its commands does, but for those that a person would see fail as well: each is
// named by words of it, with its exit code ("walbaton verify": 3).
func (s *shell) do(text string, fails ...string) string {
	s.t.Helper()
	s.blocks++
	file := filepath.Join(s.dir, fmt.Sprintf("block%d.sh", s.blocks))
	if err := os.WriteFile(file, []byte("trap 'echo \"$BASH_COMMAND: $?\" >&3' ERR\n"+text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("$ %s", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  "))
	fmt.Fprintf(s.in, ". %s </dev/null >%s.out 2>&1 3>%s.failed; trap - ERR; echo block is done\n", file, file, file)
	_, err := s.out.ReadString('\n')
	out, _ := os.ReadFile(file + ".out") // what there is of it explains an error
	failed, _ := os.ReadFile(file + ".failed")
	if len(out) > 0 {
		s.t.Logf("%s", out)
	}
	if err != nil {
		s.t.Fatalf("the shell has ended in this block: %v", err)
	}
	for line := range strings.Lines(string(failed)) {
		line = strings.TrimSpace(line)
		known := slices.ContainsFunc(fails, func(f string) bool {
			command, code, _ := strings.Cut(f, ": ")
			return strings.Contains(line, command) && strings.HasSuffix(line, ": "+code)
		})
		if !known {
			s.t.Fatalf("a command of the page failed: %s", line)
		}
	}
	return string(out)
}

// section runs the blocks of a section, all of them.
func (s *shell) section(g *guide, heading string, fails ...string) (out string) {
	s.t.Helper()
	for _, b := range g.blocks(s.t, heading, "sh") {
		out += s.do(b.text, fails...)
	}
	return out
}
