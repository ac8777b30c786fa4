//go:build drills

package drill

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// TestMain runs the drills in network, memory and process namespaces of their own, where all ports are free and nothing outlives
// them. `make test` has made them already, and says so.
func TestMain(m *testing.M) {
	if os.Getenv("WALBATON_LANE") != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	args := append([]string{"--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", `mount -t tmpfs shm /dev/shm && ip link set lo up && "$@"; exit $?`, "lane"}, os.Args...)
	cmd := exec.Command("unshare", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "WALBATON_LANE=1")
	err := cmd.Run()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		os.Exit(failed.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
