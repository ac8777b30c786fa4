package main

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/walbaton/walbaton/"

// importRules says which of our packages each of our packages may import. A key that ends in * is for every
// package below it that has no key of its own. Nothing imports the program, and leader and archiver never
// meet but in it. A driver is a leaf: it knows its interface, the helper that makes files durable, and what stores behind HTTP share.
func importRules() map[string][]string {
	return map[string][]string{
		"leader":                 {"leader/dcs", "leader/patroni"},
		"leader/leadertest":      {"leader", "leader/dcs", "leader/dcs/dcstest"},
		"leader/patroni":         {"leader/dcs"},
		"leader/patroni/restapi": {"leader/dcs", "leader/patroni"},
		"leader/dcs":             {},
		"leader/dcs/*":           {"leader/dcs"},
		"leader/dcs/rest":        {"leader/dcs", "leader/dcs/static"}, // the baton of one node
		"archiver":               {"archiver/durable", "archiver/queue", "archiver/seal", "archiver/store", "archiver/wal", "archiver/window"},
		"archiver/wal":           {},
		"archiver/wal/*":         {"archiver/wal"},
		"archiver/queue":         {"archiver/wal"},
		"archiver/seal":          {},
		"archiver/durable":       {},
		"archiver/window":        {"archiver/durable", "archiver/wal"},
		"archiver/store":         {},
		"archiver/store/remote":  {"archiver/store"},
		"archiver/store/*":       {"archiver/store", "archiver/store/remote", "archiver/durable"},
		"sidecar":                {"*"},
		"sidecar/doctor":         {"leader", "archiver/wal"},
		"sidecar/setup":          {},
		"sidecar/rehearsal":      {"leader/patroni/restapi", "archiver", "archiver/durable", "archiver/wal"},
		"sidecar/wiring":         {"leader", "archiver", "archiver/wal"},
		"sidecar/web":            {},
		"sidecar/web/*":          {},
		"sidecar/sim":            {"*"},
		"sidecar/walbaton-wal":   {},
		"sidecar/monitoring":     {},
		"sidecar/drill":          {"docs"}, // an oracle that used our code would share our mistakes
		"docs":                   {},
		"examples/*":             {"sidecar/drill"},
		"examples/benchmark":     {"sidecar/drill", "archiver", "archiver/seal", "archiver/store/s3", "archiver/wal", "archiver/wal/waltest"}, // it makes 10,000 segments
		"packaging":              {},
		"helm/pods":              {},
		".ci/*":                  {},
		"helm":                   {}, // it has tests only
	}
}

func TestImports(t *testing.T) {
	rules := importRules()
	out := goList(t, "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"...")
	for line := range strings.Lines(out) {
		words := strings.Fields(strings.ReplaceAll(line, module, "./"))
		name := strings.TrimPrefix(words[0], "./")
		allowed, ok := ruleOf(rules, name)
		if !ok {
			t.Errorf("%s has no rule: say in importRules what it may import", name)
			continue
		}
		for _, imported := range words[1:] {
			imported, ours := strings.CutPrefix(imported, "./")
			if ours && !slices.Contains(allowed, imported) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s; it may import %v", name, imported, allowed)
			}
		}
	}
}

func ruleOf(rules map[string][]string, name string) ([]string, bool) {
	if allowed, ok := rules[name]; ok {
		return allowed, true
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if allowed, ok := rules[dir+"/*"]; ok {
			return allowed, true
		}
	}
	return nil, false
}

// Tests may use more, but leader and archiver stay apart there too.
func TestRoomsStayApart(t *testing.T) {
	for room, other := range map[string]string{"leader": "archiver", "archiver": "leader"} {
		out := goList(t, "-test", "-deps", "-f", `{{.ImportPath}}`, module+room+"/...")
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, module+other) || strings.HasPrefix(line, module+"sidecar") {
				t.Errorf("a test of %s depends on %s", room, strings.TrimSpace(line))
			}
		}
	}
}

// The small client is started for every segment.
func TestClientUsesTheStandardLibraryOnly(t *testing.T) {
	out := goList(t, "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, "./walbaton-wal")
	if got, want := strings.Fields(out), []string{module + "sidecar/walbaton-wal"}; !slices.Equal(got, want) {
		t.Errorf("walbaton-wal depends on %v, want itself only", got)
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}
