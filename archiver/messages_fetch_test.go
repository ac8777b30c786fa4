package archiver_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
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
	if !strings.Contains(t.Name(), "/encrypted/") { // the words for damage are others there
		archiver.CompareGolden(t, "fetch", b.String())
	}
}

// TestFetchToNowhere: that the folder for the file is not there must not be taken for "not in the archive".
func TestFetchToNowhere(t *testing.T) {
	p := prepare(t, seg(1, 1))
	one, two, _ := forked()
	p.fill(one)
	p.put(wal.HistoryName(2), two.History().Bytes())
	for _, signal := range []string{recovery, standby, ""} {
		files := []string{signal}
		if signal == "" {
			files = nil
		}
		dir := dataDir(t, systemID, files...)
		r, err := archiver.NewRestorer(archiver.RestoreOptions{Own: p.source(), DataDir: dir, Recovery: 50 * time.Millisecond, Standby: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{segName(1, 3).String(), "00000002.history"} {
			out := r.Fetch(t.Context(), name, filepath.Join(dir, "nowhere", "RECOVERYXLOG"))
			if want := map[string]int{recovery: archiver.CannotSay, standby: 1, "": 1}[signal]; out.Code != want || !strings.HasPrefix(out.Why, "cannot say whether the archive has "+name) {
				t.Errorf("%s with %q: exit %d: %s; want %d, and that nobody can say", name, signal, out.Code, out.Why, want)
			}
		}
	}
}
