package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The pages for people are held to the code: rows, settings, verbs, exit codes, metrics, dependencies, tests and links that they
// name must exist, and those that exist must be named.

// page gives the text of a file of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tableRows gives the cells of every table row of a page, without the headings.
func tableRows(text string) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// testNames gives every test of the repository, whatever its build tags.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)\(`)
	walkFiles(t, func(path string, text func() string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range function.FindAllStringSubmatch(text(), -1) {
				names[m[1]] = true
			}
		}
	})
	return names
}

// walkFiles calls f for every file that is part of the repository or will be.
func walkFiles(t *testing.T, f func(path string, text func() string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && (d.Name() == ".git" || d.Name() == "bin") {
				return filepath.SkipDir
			}
			return err
		}
		f(path, func() string { return page(t, strings.TrimPrefix(path, "../")) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// namedTests are the tests that a text names.
func namedTests(text string) []string {
	return regexp.MustCompile(`\b(?:Test|Fuzz|Example)[A-Z]\w+`).FindAllString(text, -1)
}

// archiverRows reads the list of rows from package archiver's source.
func archiverRows(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../archiver/metrics.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || v.Names[0].Name != "rows" {
			return true
		}
		for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
			s, err := strconv.Unquote(e.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, s)
		}
		return false
	})
	if len(rows) == 0 {
		t.Fatal("no rows found in archiver/metrics.go")
	}
	return rows
}

// docs/push.md has every row of the table exactly once, and what proves a row exists.
func TestPushPage(t *testing.T) {
	text, want := page(t, "docs/push.md"), archiverRows(t)
	var listed []string
	for _, cells := range tableRows(text)[1:] {
		name, link, _ := strings.Cut(strings.TrimPrefix(cells[0], "["), "]")
		if link != "(#row-"+name+")" {
			t.Errorf("row %s links to %q", name, link)
		}
		listed = append(listed, name)
	}
	if !slices.Equal(listed, want) {
		t.Errorf("the table has the rows %v, want %v", listed, want)
	}
	sections := strings.Split(text, "\n### Row ")[1:]
	judge, tests := page(t, "archiver/judge_test.go"), testNames(t)
	var described []string
	for _, s := range sections {
		name, body, _ := strings.Cut(s, "\n")
		described = append(described, name)
		for _, part := range []string{"**Situation.** ", "**Answer.** ", "**What you see.** ", "**What to do.** ", "\nProven by: "} {
			if strings.Count(body, part) != 1 {
				t.Errorf("row %s: %d times %q, want once", name, strings.Count(body, part), part)
			}
		}
		_, proof, _ := strings.Cut(body, "\nProven by: ")
		named := namedTests(proof)
		if !slices.Contains(named, "TestJudge") {
			t.Errorf("row %s: TestJudge is not named", name)
		}
		for _, n := range named {
			if !tests[n] {
				t.Errorf("row %s is proven by %s, which does not exist", name, n)
			}
		}
		if !strings.Contains(judge, `"`+name+`",`) {
			t.Errorf("TestJudge does not reach row %s", name)
		}
	}
	if !slices.Equal(described, want) {
		t.Errorf("described are the rows %v, want %v", described, want)
	}
}

// imported gives the modules of go.mod that a package of ours imports, tests and all.
func imported(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	format := `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`
	packages := strings.Fields(goList(t, "-tags", "servers,drills", "-f", format, module+"...", module+".ci/suite", module+".ci/sizes"))
	for _, p := range packages {
		best := ""
		for _, r := range mod.Require {
			if (p == r.Path || strings.HasPrefix(p, r.Path+"/")) && len(r.Path) > len(best) {
				best = r.Path
			}
		}
		if best != "" {
			used[best] = true
		}
	}
	var names []string
	for n := range used {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// docs/dependencies.md has one line for each module that we import ourselves, in order.
func TestDependenciesPage(t *testing.T) {
	var got []string
	for _, cells := range tableRows(page(t, "docs/dependencies.md"))[1:] {
		got = append(got, strings.Trim(cells[0], "`"))
		if len(cells) != 3 || cells[1] == "" || cells[2] == "" {
			t.Errorf("%s: say what it is for, and why we do not do it ourselves", cells[0])
		}
	}
	if want := imported(t); !slices.Equal(got, want) {
		t.Errorf("the page has\n%v, want\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// docs/acceptance.md says of each line what proves it, or "not yet".
func TestAcceptancePage(t *testing.T) {
	text, tests := page(t, "docs/acceptance.md"), testNames(t)
	proven, open := 0, 0
	for _, cells := range tableRows(text) {
		if len(cells) != 3 {
			t.Errorf("%q has %d cells, want 3", cells, len(cells))
			continue
		}
		switch {
		case cells[2] == "state":
		case cells[2] == "proven" && cells[1] != "":
			proven++
		case strings.HasPrefix(cells[2], "not yet"):
			open++
		default:
			t.Errorf("%s: proof %q, state %q", cells[0], cells[1], cells[2])
		}
	}
	for _, n := range namedTests(text) {
		if !tests[n] {
			t.Errorf("%s is named and does not exist", n)
		}
	}
	if want := fmt.Sprintf("%d lines are proven, %d are not yet.", proven, open); !strings.Contains(text, want) {
		t.Errorf("the page does not say: %s", want)
	}
}

// docs/reliability.md names, for every bug, what would have found it, and nothing that does not exist.
func TestReliabilityPage(t *testing.T) {
	text, tests := page(t, "docs/reliability.md"), testNames(t)
	for _, n := range namedTests(text) {
		if !tests[n] {
			t.Errorf("%s is named and does not exist", n)
		}
	}
	bugs := 0
	file := regexp.MustCompile("`([\\w/-]+)` of the mutants|`([\\w/.-]+\\.txt)`")
	for _, cells := range tableRows(text) {
		if len(cells) != 4 || !regexp.MustCompile(`^[0-9a-f]{7}$`).MatchString(cells[2]) {
			continue
		}
		bugs++
		m := file.FindStringSubmatch(cells[3])
		switch {
		case m != nil && m[1] != "":
			page(t, ".ci/mutants/testdata/"+m[1]+".patch")
		case m != nil:
			page(t, m[2])
		case len(namedTests(cells[3])) == 0:
			t.Errorf("%s: nothing would have found it", cells[0])
		}
	}
	if bugs < 10 {
		t.Errorf("%d bugs with a commit", bugs)
	}
}

// The README has every verb and every exit code, and no metric that there is not (TestMetricsPage has all).
func TestReadme(t *testing.T) {
	text := page(t, "README.md")
	for _, c := range verbs(world{}) {
		if !strings.Contains(text, "\n| `walbaton "+c.Name()) {
			t.Errorf("the table of verbs lacks %s", c.Name())
		}
	}
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitFound, exitSignal, exitCannotSay} {
		if !strings.Contains(text, fmt.Sprintf("\n| %d |", code)) {
			t.Errorf("the table of exit codes lacks %d", code)
		}
	}
	for _, name := range regexp.MustCompile("`walbaton_[a-z_]+`").FindAllString(text, -1) {
		if !strings.Contains(page(t, "docs/metrics.md"), "\n| "+name) {
			t.Errorf("there is no metric %s", name)
		}
	}
	namespaced := regexp.MustCompile(`Namespace:\s+"walbaton"`)
	walkFiles(t, func(path string, source func() string) {
		if filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") && strings.Contains(source(), "prometheus/client_golang") && namespaced.MatchString(source()) {
			t.Errorf("%s: give metrics their whole name, so that one can search for it", path)
		}
	})
}

// Links in pages go to files that exist, and headings in them.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchor := regexp.MustCompile("[^a-z0-9 _-]")
	walkFiles(t, func(path string, text func() string) {
		if filepath.Ext(path) != ".md" || strings.Contains(path, "testdata") {
			return
		}
		for _, m := range link.FindAllStringSubmatch(text(), -1) {
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
				continue
			}
			if m[2] == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(page(t, strings.TrimPrefix(target, "../")), -1) {
				anchors = append(anchors, strings.ReplaceAll(anchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, m[2]) {
				t.Errorf("%s links to #%s, which %s does not have", path, m[2], target)
			}
		}
	})
}

// A test that a page names exists.
func TestPagesNameTests(t *testing.T) {
	tests := testNames(t)
	walkFiles(t, func(path string, text func() string) {
		if filepath.Ext(path) != ".md" || strings.Contains(path, "testdata") {
			return
		}
		for _, n := range namedTests(text()) {
			if !tests[n] && n != "TestDrill" { // how the drills' names begin
				t.Errorf("%s names %s, which does not exist", path, n)
			}
		}
	})
}

// Who reads docs/README.md, or what it links to, finds every page.
func TestPagesAreFound(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+\.md)(?:#[^)\s]*)?\)`)
	found, next := map[string]bool{}, []string{"../docs/README.md"}
	for len(next) > 0 {
		path := next[0]
		next = next[1:]
		if found[path] {
			continue
		}
		found[path] = true
		for _, m := range link.FindAllStringSubmatch(page(t, strings.TrimPrefix(path, "../")), -1) {
			if !strings.Contains(m[1], "://") {
				next = append(next, filepath.Join(filepath.Dir(path), m[1]))
			}
		}
	}
	walkFiles(t, func(path string, _ func() string) {
		if ours := strings.HasPrefix(path, "../docs/") || strings.HasPrefix(path, "../helm/"); ours && filepath.Ext(path) == ".md" && !found[path] {
			t.Errorf("nobody finds %s: link to it from docs/README.md, or from a page that it names", path)
		}
	})
}
