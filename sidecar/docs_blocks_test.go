package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/docs"
)

// maxNotRun is how many blocks of all pages together no test runs.
const maxNotRun = 5

const howToRun = "Write ```sh run=TestDrillPages if an administrator types it on a node of a running cluster: that drill then does (sidecar/drill/pages_test.go). " +
	"Otherwise write run= with the name of the test that runs it; the comment of package docs has all of it"

// Every block of commands in the README and the pages is run by a test that exists and reads that page, or says why it cannot be.
func TestPageBlocks(t *testing.T) {
	root, err := docs.Root()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := docs.Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	readers, notRun := testFiles(t), []string{}
	for _, p := range pages {
		for _, b := range p.Blocks {
			if b.Commands() && b.NotRun() != "" {
				notRun = append(notRun, fmt.Sprintf("%v: %s", b, b.NotRun()))
			}
			if problem := blockProblem(b, readers); problem != "" {
				t.Errorf("%v: %s", b, problem)
			}
		}
	}
	if len(notRun) > maxNotRun {
		t.Errorf("%d blocks say that they are not run, and at most %d may:\n%s", len(notRun), maxNotRun, strings.Join(notRun, "\n"))
	}
}

// testFiles gives the text of the file of each test.
func testFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	walkFiles(t, func(path string, text func() string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range function.FindAllStringSubmatch(text(), -1) {
				files[m[1]] += text() // some names are those of several packages
			}
		}
	})
	return files
}

// blockProblem says what is wrong with a block, or "". readers are the texts of the files of all tests.
func blockProblem(b docs.Block, readers map[string]string) string {
	switch {
	case b.Kind == "":
		return "say what is in this block. " + howToRun + ". What holds no commands is yaml, json, conf, or text"
	case slices.Contains([]string{"bash", "shell", "zsh", "shell-session"}, b.Kind):
		return fmt.Sprintf("%s is called sh here, or console where it shows what is printed. %s", b.Kind, howToRun)
	case !b.Commands() && b.Run != "":
		return fmt.Sprintf("a block of %s holds no commands for %s to run", b.Kind, b.Run)
	case !b.Commands():
		if b.Kind == "text" || b.Kind == "conf" || b.Kind == "ini" {
			if line := commandLine(b.Text); line != "" {
				return fmt.Sprintf("%q looks like a command. %s", line, howToRun)
			}
		}
		return ""
	case b.NotRun() != "" && b.Run != "":
		return "it is run by " + b.Run + ", and says that it is not run"
	case b.NotRun() != "":
		return ""
	case b.Run == "":
		return "nobody runs this block. " + howToRun + `. If no test can: a line "# not run: " and the reason; there is room for five in all pages`
	case b.Kind == "console" && !strings.HasPrefix(b.Text, "$ "):
		return `a block of console begins with "$ " and a command`
	}
	text, ok := readers[b.Run]
	if !ok {
		return fmt.Sprintf("there is no test %s. %s", b.Run, howToRun)
	}
	if !strings.Contains(text, filepath.Base(b.Page)) && !strings.Contains(text, "docs.Pages(") {
		return fmt.Sprintf("%s is to run this block, and its file does not name %s, which it would have to read", b.Run, filepath.Base(b.Page))
	}
	return ""
}

// commandLine is the first line that is a command, or "".
func commandLine(text string) string {
	program := regexp.MustCompile(`^(\$ |sudo |walbaton |walbaton-wal |(psql|pg_\w+|patronictl|kubectl|helm|make|go|docker|podman|systemctl|curl|etcdctl|apt|apt-get|dpkg|age|age-keygen|cp|mkdir|install|export) )`)
	for line := range strings.Lines(text) {
		if program.MatchString(line) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestPageBlockProblem(t *testing.T) {
	readers := map[string]string{"TestDrillPages": "docs.Pages(root)", "TestOther": `readGuide(t, "restore.md")`}
	for want, b := range map[string]docs.Block{
		"":                             {Kind: "sh", Run: "TestDrillPages", Text: "ls\n"},
		"say what is in this block":    {Text: "ls\n"},
		"is called sh here":            {Kind: "bash", Run: "TestDrillPages"},
		"holds no commands for":        {Kind: "yaml", Run: "TestDrillPages"},
		"looks like a command":         {Kind: "text", Text: "walbaton status\n"},
		"and says that it is not run":  {Kind: "sh", Run: "TestDrillPages", Text: "# not run: it is long\n"},
		"nobody runs this block":       {Kind: "sh", Text: "ls\n"},
		"there is no test TestNowhere": {Kind: "sh", Run: "TestNowhere"},
		"does not name operations.md":  {Page: "docs/operations.md", Kind: "sh", Run: "TestOther"},
		`begins with "$ "`:             {Kind: "console", Run: "TestDrillPages", Text: "ls\n"},
	} {
		if got := blockProblem(b, readers); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%+v: %q, want %q", b, got, want)
		}
	}
	for _, fine := range []docs.Block{{Kind: "yaml", Text: "a: 1\n"}, {Kind: "text", Text: "walbaton-wal: it waits\n"}, {Kind: "sh", Text: "# not run: it takes hours\nls\n"},
		{Page: "docs/restore.md", Kind: "sh", Run: "TestOther"}} {
		if got := blockProblem(fine, readers); got != "" {
			t.Errorf("%+v: %q", fine, got)
		}
	}
}
