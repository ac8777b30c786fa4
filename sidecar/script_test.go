package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary stand in for walbaton where a script runs it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"walbaton": main})
}

// TestScript runs both programs as users type them; the scripts are in testdata/script. Set
// UPDATE_SCRIPTS=1 to write what the programs say into the scripts that compare it.
func TestScript(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./walbaton-wal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build walbaton-wal: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("WAL", filepath.Join(bin, "walbaton-wal")) // for scripts that empty PATH
			return nil
		},
	})
}
