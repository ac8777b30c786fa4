package archiver

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write what the program says into testdata/*.golden")

// CompareGolden holds text against testdata/<name>.golden, a page for reviewers; with -update it writes the page.
func CompareGolden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not what the program says now; look at it, and write it with -update. Got\n%s", path, text)
	}
}
