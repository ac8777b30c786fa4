package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// tree is the processes of one run: those that are started in it, and all that they start and leave behind. It is a control group of its own
// (cgroup v2), because pgBackRest's asynchronous process is nobody's child. Where none can be made, its CPU time is that of the whole machine
// but this program's and the store's, and its processes are those that name the run's folder.
type tree struct {
	group string   // the control group's folder; "" without one
	open  *os.File // that folder
	named string   // the run's folder
	begun float64  // seconds that the rest of the machine had used when it began
	store func() float64
}

// newTree makes one. store is the CPU time in seconds of the store, which is no part of it.
func newTree(folder string, store func() float64) (*tree, error) {
	t := &tree{named: folder, store: store}
	t.begun = t.rest()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	root := unifiedMount(string(mounts))
	if root == "" {
		return t, nil
	}
	group, err := os.MkdirTemp(root, "walbaton-benchmark-")
	if err != nil { // read-only, in many containers
		return t, nil
	}
	if t.open, err = os.Open(group); err != nil {
		return nil, errors.Join(err, os.Remove(group))
	}
	t.group = group
	return t, nil
}

// unifiedMount finds cgroup v2 in /proc/self/mounts.
func unifiedMount(mounts string) string {
	for line := range strings.Lines(mounts) {
		if words := strings.Fields(line); len(words) > 2 && words[2] == "cgroup2" {
			return words[1]
		}
	}
	return ""
}

// plant makes a command begin in the tree.
func (t *tree) plant(cmd *exec.Cmd) {
	if t.open != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(t.open.Fd())
	}
}

// cpu is the time in seconds that all of it has used so far.
func (t *tree) cpu() (user, system float64, err error) {
	if t.group == "" {
		return t.rest() - t.begun, 0, nil
	}
	text, err := os.ReadFile(filepath.Join(t.group, "cpu.stat"))
	if err != nil {
		return 0, 0, err
	}
	return parseCPUStat(string(text))
}

// rest is the CPU time in seconds of the machine without this program and the store.
func (t *tree) rest() float64 {
	return machineCPU() - rusage(syscall.RUSAGE_SELF) - t.store()
}

// parseCPUStat reads a cpu.stat of cgroup v2.
func parseCPUStat(text string) (user, system float64, err error) {
	found := map[string]float64{}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		us, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read cpu.stat: %w", err)
		}
		found[name] = us / 1e6
	}
	user, hasUser := found["user_usec"]
	system, hasSystem := found["system_usec"]
	if !hasUser || !hasSystem {
		return 0, 0, fmt.Errorf("read cpu.stat: no user_usec and system_usec in %q", text)
	}
	return user, system, nil
}

// pids are its processes.
func (t *tree) pids() (all []int, err error) {
	if t.group == "" {
		all, err = naming(t.named)
		store := drill.Below(filepath.Join(t.named, "store"))
		return slices.DeleteFunc(all, func(pid int) bool { return slices.Contains(store, pid) }), err
	}
	text, err := os.ReadFile(filepath.Join(t.group, "cgroup.procs"))
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("read cgroup.procs: %w", err)
		}
		all = append(all, pid)
	}
	return all, err
}

// naming are the processes with a text in their command line.
func naming(text string) (all []int, err error) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		line, err := os.ReadFile(path) // fails when the process has ended
		pid, number := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && number == nil && strings.Contains(string(line), text) {
			all = append(all, pid)
		}
	}
	return all, err
}

// anonymous is the memory of all of it just now, in bytes. A process that has not yet become the program that it is to run shows this program's.
func (t *tree) anonymous() (sum int64) {
	self, err := os.Executable()
	if err != nil {
		return 0
	}
	pids, err := t.pids()
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe == self {
			continue
		}
		sum += kilobytes(fmt.Sprintf("/proc/%d/status", pid), "RssAnon") << 10
	}
	return sum
}

// peak samples the memory until the function that it returns is called, which gives the most.
func (t *tree) peak() (stop func() int64) {
	end, most := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		for every := time.Tick(100 * time.Millisecond); ; {
			peak = max(peak, t.anonymous())
			select {
			case <-every:
			case <-end:
				most <- peak
				return
			}
		}
	}()
	return func() int64 { close(end); return <-most }
}

// wither waits until all of it has ended by itself.
func (t *tree) wither(ctx context.Context) error {
	return until(ctx, time.Minute, 10*time.Millisecond, "all processes of the run have ended", func() (bool, error) {
		pids, err := t.pids()
		return len(pids) == 0, err
	})
}

// close ends what is left of it, and removes it.
func (t *tree) close() error {
	if t.group == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := os.WriteFile(filepath.Join(t.group, "cgroup.kill"), []byte("1"), 0)
	return errors.Join(err, t.wither(ctx), t.open.Close(), os.Remove(t.group))
}
