package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that the cluster started, in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended and was waited for
}

// spawn starts a program as user postgres in dir.
func (c *Cluster) spawn(name, dir string, env []string, argv ...string) (*process, error) {
	return c.logged(name, dir, c.command(context.Background(), dir, env, argv...))
}

// logged starts a program whose output is appended to <dir>/log/<name>.log.
func (c *Cluster) logged(name, dir string, cmd *exec.Cmd) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := launch(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// launch starts a command and waits for it on the side.
func launch(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		cmd.Wait() // how a killed program ended is of no interest
	}()
	return p, nil
}

// command is a program with a small environment, run as user postgres in dir.
func (c *Cluster) command(ctx context.Context, dir string, env []string, argv ...string) *exec.Cmd {
	name := argv[0]
	for _, bin := range []string{filepath.Join(c.Dir, "bin"), pgBin} { // neither is in our own PATH
		if path := filepath.Join(bin, name); exists(path) {
			name = path
			break
		}
	}
	cmd := exec.CommandContext(ctx, name, argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + filepath.Join(c.Dir, "bin") + ":" + pgBin + ":/usr/local/bin:/usr/bin:/bin",
		"HOME=" + c.Dir, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC",
	}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.cred}
	return cmd
}

// Command is a program of walbaton's or PostgreSQL's, or any other, run as user postgres with the archive's credentials.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return c.command(ctx, c.Dir, c.Store.Env(), append([]string{name}, args...)...)
}

// kill ends the process at once and waits for it; a process that has ended already is fine.
func (p *process) kill() {
	if p == nil {
		return
	}
	select {
	case <-p.done: // its number may be another's by now
		return
	default:
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may be gone
	<-p.done
}

// terminate sends SIGTERM and waits until the process has ended; after limit it kills it, and that is an error.
func (p *process) terminate(ctx context.Context, limit time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		p.kill()
		return fmt.Errorf("it still ran after %v", limit)
	}
}

// signal sends a signal to the process and its group.
func (p *process) signal(s syscall.Signal) error { return syscall.Kill(-p.cmd.Process.Pid, s) }

// folder makes a folder that belongs to user postgres, with a log folder in it.
func (c *Cluster) folder(name string) (string, error) {
	dir := filepath.Join(c.Dir, name)
	for _, d := range []string{dir, filepath.Join(dir, "log")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
		if err := c.own(d); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// own gives a file or folder to user postgres.
func (c *Cluster) own(path string) error {
	if c.cred == nil {
		return nil
	}
	return os.Chown(path, int(c.cred.Uid), int(c.cred.Gid))
}

// credential is user postgres when we are root, since PostgreSQL refuses to run as root, and otherwise nobody else.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Below returns the processes whose working directory is dir or below it, lowest number first: a parent mostly comes
// before its children. PostgreSQL's processes and what its archiver calls work in the data directory.
func Below(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")) // fails for a zombie, too
		if err != nil {
			continue
		}
		if cwd == dir || strings.HasPrefix(cwd, dir+"/") {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// killBelow sends SIGKILL to every process below dir until none is left.
func killBelow(dir string) {
	for {
		pids := Below(dir)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL) // it may be gone
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// signalBelow sends a signal to every process below dir, those that they start meanwhile included.
func signalBelow(dir string, s syscall.Signal) error {
	told := map[int]bool{}
	for more := true; more; {
		more = false
		for _, pid := range Below(dir) {
			if !told[pid] {
				told[pid], more = true, true
				if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
					return err
				}
			}
		}
	}
	return nil
}

// Run runs a command to its end; the error has what it wrote.
func Run(cmd *exec.Cmd) error {
	_, err := Output(cmd)
	return err
}

// Output runs a command to its end and returns what it wrote to stdout; the error has what it wrote to stderr.
func Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

// until calls ok every 50 ms until it returns nil. When that takes longer than limit, the error says what was waited
// for and what ok said last.
func until(ctx context.Context, limit time.Duration, what string, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := errors.New("not yet")
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %w", what, context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// exists says whether there is a file of that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
