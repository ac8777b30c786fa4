package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// machine is what the numbers of a part depend on.
type machine struct {
	Date     string // of the end of the part, UTC
	Cores    int
	CPU      string // its name
	MemoryMB int64
	Kernel   string
	Versions map[string]string // by program, what it says of itself; walbaton's is the commit
}

func thisMachine(ctx context.Context) machine {
	m := machine{
		Date:     time.Now().UTC().Format("2006-01-02 15:04"),
		Cores:    runtime.NumCPU(),
		CPU:      field("/proc/cpuinfo", "model name"),
		MemoryMB: kilobytes("/proc/meminfo", "MemTotal") >> 10,
		Versions: map[string]string{"Go": runtime.Version()},
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	for name, command := range map[string][]string{
		"PostgreSQL": {"/usr/lib/postgresql/15/bin/postgres", "--version"},
		"Patroni":    {"patroni", "--version"},
		"etcd":       {"etcd", "--version"},
		"pgBackRest": {"pgbackrest", "version"},
		walG:         {walGProgram, "--version"},
		barman:       {barmanCloud, "--version"},
		"walbaton":   {"git", "log", "-1", "--format=commit %h"},
	} {
		if _, err := exec.LookPath(command[0]); err != nil && (name == walG || name == barman) {
			continue // it need not be there
		}
		out, err := drill.Output(exec.CommandContext(ctx, command[0], command[1:]...))
		if err != nil {
			out = "unknown"
		}
		m.Versions[name], _, _ = strings.Cut(out, "\n")
	}
	if home, err := os.UserHomeDir(); err == nil {
		if found, err := filepath.Glob(filepath.Join(home, ".cache/walbaton/tools/minio@*")); err == nil && len(found) == 1 {
			m.Versions["MinIO"] = filepath.Base(found[0]) // as .ci/build-tools names it
		}
	}
	return m
}

// save writes the results of a part so far, with the machine that they were measured on, and the page.
func (b *bench) save(ctx context.Context, part string, result any) error {
	text, err := json.MarshalIndent(map[string]any{"Machine": thisMachine(ctx), "Result": result}, "", "\t")
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(b.docs, "benchmark", part+".json"), append(text, '\n'), 0o644)
	return errors.Join(err, b.page())
}

// load is how busy the machine was around a run.
type load struct {
	Before, After float64 // the load average of the last minute; it includes what was measured just before
	Others        float64 `json:",omitempty"` // cores that were busy with anything but what was measured: the rest of the machine, and the kernel's own threads
}

// meter measures a run: the time, and the CPU time of the whole machine.
type meter struct {
	begin time.Time
	busy  float64
	load  load
}

func startMeter() meter {
	return meter{begin: time.Now(), busy: machineCPU() - ownCPU(), load: load{Before: loadAverage()}}
}

// stop ends the run. measured is the CPU time in seconds of what was measured and still runs.
func (m meter) stop(measured float64) (seconds float64, l load) {
	seconds = time.Since(m.begin).Seconds()
	m.load.After = loadAverage()
	m.load.Others = max(0, (machineCPU()-ownCPU()-m.busy-measured)/seconds)
	return seconds, m.load
}

// ownCPU is the CPU time in seconds of this program, and of those that it started and that have ended.
func ownCPU() float64 { return rusage(syscall.RUSAGE_SELF) + rusage(syscall.RUSAGE_CHILDREN) }

// rusage is the CPU time in seconds of this program, or of its children that have ended.
func rusage(who int) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	one, _, _ := strings.Cut(string(text), " ")
	value, err := strconv.ParseFloat(one, 64)
	if err != nil {
		return -1
	}
	return value
}

// ticks a second of /proc's times: USER_HZ is 100 on every architecture that Go runs on (proc(5)).
const ticks = 100

// machineCPU is the time in seconds that all cores were not idle since the machine started (first line of /proc/stat).
func machineCPU() (seconds float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, word := range strings.Fields(line)[1:] {
		value, err := strconv.ParseFloat(word, 64)
		if idle := i == 3 || i == 4; err == nil && !idle && i < 8 { // 3 idle, 4 waits for a disk, 8 and 9 are counted in 0 and 1
			seconds += value / ticks
		}
	}
	return seconds
}

// processCPU is the time in seconds that a process has used: user and system (proc_pid_stat(5)).
func processCPU(pid int) (user, system float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name of the program may have spaces
	words := strings.Fields(rest)
	if user, err = strconv.ParseFloat(words[11], 64); err != nil {
		return 0, 0, err
	}
	system, err = strconv.ParseFloat(words[12], 64)
	return user / ticks, system / ticks, err
}

// field is the text after a name and a colon in a file such as /proc/<pid>/status.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// kilobytes is a field that is a number of kB, or 0.
func kilobytes(path, name string) int64 {
	number, _, _ := strings.Cut(field(path, name), " ")
	kB, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return kB
}

// changed is when a file's inode last changed: for an object of a folder, when it got its name.
func changed(path string) (time.Time, error) {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		return time.Time{}, err
	}
	return time.Unix(s.Ctim.Unix()), nil
}

// scrape reads the metrics of a sidecar: name and labels as they are written, but for the names of cluster and node, to the value.
func scrape(ctx context.Context, address string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(number, 64); err == nil {
			values[unnamed(name)] = value
		}
	}
	return values, err
}

// unnamed takes the labels member and scope, which all metrics of a sidecar have, from a name with its labels.
func unnamed(name string) string {
	name, labels, ok := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	if !ok {
		return name
	}
	kept := slices.DeleteFunc(strings.Split(labels, ","), func(l string) bool {
		return strings.HasPrefix(l, "member=") || strings.HasPrefix(l, "scope=")
	})
	if len(kept) == 0 {
		return name
	}
	return name + "{" + strings.Join(kept, ",") + "}"
}

// until calls ok every so often until it says true.
func until(ctx context.Context, limit, every time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-time.After(every):
		}
	}
}
