package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary stand in for walbaton where a script runs it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"walbaton": main})
}

// TestScript runs both programs as users type them; the scripts are in testdata/script. Set
// UPDATE_SCRIPTS=1 to write what the programs say into the scripts that compare it.
func TestScript(t *testing.T) {
	bin := filepath.Dir(buildClient(t))
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"dispute": disputeCmd, "primary": primaryCmd, "archive": archiveCmd, "sealed": sealedCmd, "silent": silentCmd()},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("WAL", filepath.Join(bin, "walbaton-wal")) // for scripts that empty PATH
			return nil
		},
	})
}

// silentCmd is the script command "silent": without an argument it starts a server that takes
// connections and never answers, and puts its address into $SILENT; "silent asked" waits until
// somebody has connected, so that a script knows a program to be in the middle of its work.
func silentCmd() func(*testscript.TestScript, bool, []string) {
	var asked chan struct{}
	return func(ts *testscript.TestScript, _ bool, args []string) {
		if len(args) == 1 && args[0] == "asked" {
			select {
			case <-asked:
			case <-time.After(time.Minute):
				ts.Fatalf("nobody has connected to %s", ts.Getenv("SILENT"))
			}
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv("SILENT", l.Addr().String())
		asked = make(chan struct{})
		first, done := asked, make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			close(first) // also where none came: the script's next step tells
			if err == nil {
				_, _ = io.Copy(io.Discard, conn) // ends with the program
				conn.Close()
			}
		}()
		ts.Defer(func() { l.Close(); <-done })
	}
}

// buildClient builds walbaton-wal and gives its path.
func buildClient(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "walbaton-wal")
	build := exec.Command("go", "build", "-o", bin, "./walbaton-wal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build walbaton-wal: %v\n%s", err, out)
	}
	return bin
}

// The client and the socket server speak the same language.
func TestClientAndSocket(t *testing.T) {
	path, _ := serve(t, echoAnswers())
	client, dir := buildClient(t), t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"push", "--socket", path, "pg_wal/0A"}, 0, "walbaton-wal: push " + dir + "/pg_wal/0A\n"},
		{[]string{"push", "--socket", path, "/wal/0 \"\u00e4\n"}, 0, "walbaton-wal: push /wal/0 \"\u00e4\n\n"},
		{[]string{"cleanup", "--socket", path, "000000020000000000000007"}, 0, "walbaton-wal: cleanup 000000020000000000000007\n"},
		{[]string{"fetch", "--socket", path, "00000002.history", "pg_wal/R"}, 1, "walbaton-wal: fetch 00000002.history to " + dir + "/pg_wal/R\n"},
	} {
		var stderr strings.Builder
		cmd := exec.Command(client, tc.args...)
		cmd.Dir, cmd.Env, cmd.Stderr = dir, []string{}, &stderr
		_ = cmd.Run() // the code tells
		if got := cmd.ProcessState.ExitCode(); got != tc.code || stderr.String() != tc.want {
			t.Errorf("%q: exit %d and %q, want %d and %q", tc.args, got, stderr.String(), tc.code, tc.want)
		}
	}
}
