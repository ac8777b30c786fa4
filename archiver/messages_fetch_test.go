package archiver_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver"
)

// fetchPage collects what each caller of fetch is told, by situation, for testdata/fetch.golden.
type fetchPage map[string]string

func (p fetchPage) add(situation, caller string, out archiver.Outcome, dataDir string) {
	line := ""
	if out.Why != "" {
		line = ": " + strings.ReplaceAll(out.Why, dataDir, "/data")
	}
	p[situation] += fmt.Sprintf("  %-10s exit %d%s\n", caller, out.Code, line)
}

func (p fetchPage) compare(t *testing.T) {
	t.Helper()
	var b strings.Builder
	b.WriteString("What restore_command says and exits with, by situation and by who calls it.\n")
	for _, situation := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "\n%s\n%s", situation, p[situation])
		if strings.Contains(p[situation], "\n\n") || strings.Count(p[situation], "\n") != 3 {
			t.Errorf("%s: somebody is told more than one line:\n%s", situation, p[situation])
		}
	}
	archiver.CompareGolden(t, "fetch", b.String())
}
