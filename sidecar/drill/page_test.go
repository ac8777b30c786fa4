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

	"github.com/walbaton/walbaton/docs"
)

// guide is a page of docs/ whose commands are run as a person does who reads it from the top: block after block, in one shell. The first block
// sets variables; a test gives them its own values, and changes nothing else.
type guide struct{ docs.Page }

// readGuide reads docs/<name>.
func readGuide(t *testing.T, name string) *guide {
	t.Helper()
	p, err := docs.Read(checkout(t), "docs/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return &guide{p}
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
func (g *guide) blocks(t *testing.T, heading, kind string) []docs.Block {
	t.Helper()
	all := slices.DeleteFunc(slices.Clone(g.Blocks), func(b docs.Block) bool { return b.Section != heading || b.Kind != kind })
	if len(all) == 0 {
		t.Fatalf("%s has no block of %s below %q; its headings are %q", g.Name, kind, heading, g.Sections)
	}
	return all
}

var assignment = regexp.MustCompile(`(?m)^([A-Z]+)=(\S+|'[^']*'|"[^"]*") *(#.*)?$`)

// variables is the first block of a page with other values. Each variable must be known to the test, and the other way round.
func (g *guide) variables(t *testing.T, values map[string]string) string {
	t.Helper()
	first := g.blocks(t, g.Sections[0], "sh")[0].Text
	set := map[string]bool{}
	for _, m := range assignment.FindAllStringSubmatch(first, -1) {
		set[m[1]] = true
		if _, ok := values[m[1]]; !ok {
			t.Fatalf("%s: the test has no value for %s", g.Name, m[1])
		}
	}
	for name := range values {
		if !set[name] {
			t.Fatalf("%s does not set %s in its first block", g.Name, name)
		}
	}
	return assign(first, values)
}

// assign gives the variables that a block sets other values.
func assign(text string, values map[string]string) string {
	return assignment.ReplaceAllStringFunc(text, func(line string) string {
		name, _, _ := strings.Cut(line, "=")
		if value, ok := values[name]; ok {
			return name + "='" + value + "'"
		}
		return line
	})
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
	return c.shellOn(ctx, t, nil, name, env...)
}

// shellOn starts one on a node that is a machine of its own.
func (c *Cluster) shellOn(ctx context.Context, t *testing.T, n *Node, name string, env ...string) *shell {
	t.Helper()
	dir, err := c.folder(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.inside(c.command(ctx, dir, append(c.Store.Env(), env...), "bash", "--noprofile", "--norc"))
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
	out, failed := s.run(text)
	for _, line := range failed {
		known := slices.ContainsFunc(fails, func(f string) bool {
			command, code, _ := strings.Cut(f, ": ")
			return strings.Contains(line, command) && strings.HasSuffix(line, ": "+code)
		})
		if !known {
			s.t.Fatalf("a command of the page failed: %s", line)
		}
	}
	return out
}

// run runs one block, and gives what it wrote, and the commands that failed, with their exit codes.
func (s *shell) run(text string) (string, []string) {
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
	return string(out), slices.DeleteFunc(strings.Split(string(failed), "\n"), func(line string) bool { return line == "" })
}

// section runs the blocks of a section, all of them.
func (s *shell) section(g *guide, heading string, fails ...string) (out string) {
	s.t.Helper()
	for _, b := range g.blocks(s.t, heading, "sh") {
		out += s.do(b.Text, fails...)
	}
	return out
}

// types types the blocks of a page that bear the drill's name, on a node, and gives what they wrote.
func (s *scenario) types(n *Node, page string, values map[string]string) string {
	s.t.Helper()
	p, err := docs.Read(checkout(s.t), page)
	if err != nil {
		s.t.Fatal(err)
	}
	sh := s.newShell(s.ctx, s.t, n.Name+"-"+strings.TrimSuffix(filepath.Base(page), ".md"),
		append(s.dcs.env(n), "WALBATON_CONFIG="+n.config(), "WALBATON_SOCKET="+n.Socket())...)
	var out strings.Builder
	for _, b := range p.Of(s.t.Name()) {
		out.WriteString(sh.do(assign(b.Text, values)))
	}
	s.everyBlock(s.t, page)
	return out.String()
}

// everyBlock fails the test unless it has typed all blocks of a page that bear its name, whatever values their variables had.
func (c *Cluster) everyBlock(t *testing.T, page string) {
	t.Helper()
	p, err := docs.Read(checkout(t), page)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(c.Dir, "*", "block*.sh")) // shell.do writes them
	if err != nil {
		t.Fatal(err)
	}
	bare := func(text string) string { return assignment.ReplaceAllString(text, "$1=") }
	var typed strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		typed.WriteString(bare(string(text)))
	}
	all := p.Of(t.Name())
	for _, b := range all {
		if !strings.Contains(typed.String(), bare(b.Text)) {
			t.Errorf("%v: %s has not typed this block", b, t.Name())
		}
	}
	if len(all) == 0 {
		t.Errorf("%s has no block for %s", page, t.Name())
	}
}
