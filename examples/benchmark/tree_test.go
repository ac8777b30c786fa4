package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestParseCPUStat(t *testing.T) {
	user, system, err := parseCPUStat("usage_usec 3500000\nuser_usec 2500000\nsystem_usec 1000000\nnr_periods 0\n")
	if err != nil || user != 2.5 || system != 1 {
		t.Errorf("got %v + %v, %v; want 2.5 + 1", user, system, err)
	}
	for _, broken := range []string{"", "usage_usec 3500000\n", "user_usec 1\n", "user_usec x\nsystem_usec 1\n"} {
		if _, _, err := parseCPUStat(broken); err == nil {
			t.Errorf("%q has no error", broken)
		}
	}
}

func TestUnifiedMount(t *testing.T) {
	for mounts, want := range map[string]string{
		"": "",
		"cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n":                                                       "",
		"proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n":                              "/sys/fs/cgroup",
		"tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\nx /x x\n": "/sys/fs/cgroup/unified",
	} {
		if got := unifiedMount(mounts); got != want {
			t.Errorf("%q: got %q, want %q", mounts, got, want)
		}
	}
}

// TestTree measures a process that is left behind by the one that was started, as pgBackRest's is, with a control group and without.
func TestTree(t *testing.T) {
	can, err := newTree(t.TempDir(), func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	ways := []bool{false}
	if can.group != "" {
		ways = append(ways, true)
	} else {
		t.Log("no control group can be made here: only the way without one is tested")
	}
	if err := can.close(); err != nil {
		t.Fatal(err)
	}
	for _, grouped := range ways {
		t.Run(fmt.Sprintf("control group %v", grouped), func(t *testing.T) {
			dir := t.TempDir()
			grown, err := newTree(dir, func() float64 { return 0 })
			if err != nil {
				t.Fatal(err)
			}
			if !grouped {
				if err := grown.close(); err != nil {
					t.Fatal(err)
				}
				grown.group, grown.open = "", nil
			}
			end := filepath.Join(dir, "end")
			script := `(setsid sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; while [ ! -e "$0" ]; do sleep 0.02; done' "$1" &) ; exit 0`
			cmd := exec.Command("sh", "-c", script, "sh", end)
			cmd.SysProcAttr = &syscall.SysProcAttr{}
			grown.plant(cmd)
			peak := grown.peak()
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			if pids, err := grown.pids(); err != nil || len(pids) == 0 {
				t.Errorf("pids %v, %v: the process that was left behind is not among them", pids, err)
			}
			if err := os.WriteFile(end, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := grown.wither(ctx); err != nil {
				t.Fatal(err)
			}
			user, system, err := grown.cpu()
			if err != nil || user+system <= 0.01 {
				t.Errorf("CPU time %v + %v, %v: more than 0.01 s was used", user, system, err)
			}
			if most := peak(); most <= 0 {
				t.Errorf("peak memory %d", most)
			}
			if err := grown.close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(grown.group); grouped && err == nil {
				t.Errorf("%s is left", grown.group)
			}
		})
	}
}
