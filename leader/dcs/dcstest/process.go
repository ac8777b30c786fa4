package dcstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is the program of a server under test. A driver's Server embeds it and adds Start, which calls Launch and waits
// until the server answers.
type Process struct {
	Log string // file that the program's output is appended to

	cmd *exec.Cmd
}

// Launch starts the program. It ends with t at the latest. why says where the program comes from.
func (p *Process) Launch(t testing.TB, why string, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s (%s): %v", cmd.Path, why, err)
	}
	p.cmd = cmd
	t.Cleanup(func() {
		if p.cmd == cmd {
			p.Kill(t)
		}
	})
}

// Said is the end of what the program has written, for a test that fails.
func (p *Process) Said() string {
	log, _ := os.ReadFile(p.Log) // it may not have begun
	return string(log[max(0, len(log)-4000):])
}

// Kill ends the program at once.
func (p *Process) Kill(testing.TB) {
	p.cmd.Process.Kill()
	p.cmd.Wait() // says that it was killed
	p.cmd = nil
}

// Hang returns when every thread has stopped: the signal takes its time.
func (p *Process) Hang(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	for end := time.Now().Add(10 * time.Second); p.running(t); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not stop", p.cmd.Path)
		}
	}
}

func (p *Process) running(t testing.TB) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %s: %v", p.cmd.Path, err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err == nil && !strings.Contains(string(stat), ") T ") {
			return true
		}
	}
	return false
}

// Resume ends Hang.
func (p *Process) Resume(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

func (p *Process) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// FreeAddresses finds so many free loopback addresses. Their ports are below those that Linux gives to outgoing connections and to
// port 0 (32768 on), so that nobody gets one before the server listens, or while it is restarted.
func FreeAddresses(t testing.TB, n int) []string {
	t.Helper()
	var free []string
	for try := 0; len(free) < n; try++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err != nil && try < 1000 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // when all are found, or two might be the same
		free = append(free, l.Addr().String())
	}
	return free
}

// Tool finds a program that .ci/build-tools built.
func Tool(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("WALBATON_TOOLS")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(home, ".cache/walbaton/tools")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no %s: .ci/build-tools builds it", path)
	}
	return path
}
