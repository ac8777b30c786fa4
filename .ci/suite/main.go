// Suite is `make test`: every test of the project on real servers, the simulation of 2,000 clusters, and the drills.
//
// It builds walbaton, the drills and the tests of the demo once. Drills wait in one queue and run in lanes, side by side: each in a network and
// process namespace of its own, so that ports are free and nothing outlives it. Meanwhile .ci/build-tools builds the
// servers that are missing; then the packages' tests and the simulation run, and the drills that need such a server.
//
// With -dcs it runs the drills 1 to 10 on other DCS instead, with -full those that take too long for every day, too, and with -soak random
// role changes on random clusters (soak.go).
//
// It prints a line for each package and drill, what occurred in the simulation, all that a failing test wrote, the ten
// slowest tests and, at the very end, "N passed, N failed". A skipped test has failed: nothing may be left out in silence.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

type suite struct {
	dir   string // bin/, the drills' test programs, and the folders of running drills
	tally *tally
	seeds int
	full  bool // the drills named TestDrillFull, too
}

func main() {
	lanes := flag.Int("lanes", 3, "drills that run side by side")
	drills := flag.String("drills", ".", "run only drills that match this `regexp`")
	matrix := flag.String("dcs", "", "run the drills 1 to 10 once on each of these DCS, separated by commas, and nothing else")
	soak := flag.Int("soak", 0, "make that many role changes in random clusters, and play -seeds; nothing else")
	first := flag.Uint64("first", 1, "the first seed of -soak")
	full := flag.Bool("full", false, "run the drills that only `make full` runs, too: those named TestDrillFull")
	packages := flag.Bool("packages", true, "run the tests of the packages and the simulation, too")
	seeds := flag.Int("seeds", 2000, "seeds of the simulation")
	limit := flag.Duration("limit", 80*time.Minute, "give up after this time")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()

	s := &suite{tally: newTally(os.Stdout), seeds: *seeds, full: *full}
	var err error
	if *soak > 0 {
		err = s.soak(ctx, *lanes, *soak, *first)
	} else {
		err = s.run(ctx, *lanes, *drills, *matrix, *packages && *matrix == "")
	}
	if err != nil {
		s.tally.fail("make test", err.Error())
	}
	if s.tally.summary() > 0 {
		os.Exit(1)
	}
}

func (s *suite) run(ctx context.Context, lanes int, match, matrix string, packages bool) (err error) {
	pattern, err := regexp.Compile(match)
	if err != nil {
		return err
	}
	remove, err := s.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	drills, err := s.build(ctx, pattern)
	if err != nil {
		return err
	}
	if matrix != "" {
		drills = times(drills, strings.Split(matrix, ","))
	}
	if len(drills) == 0 {
		return fmt.Errorf("no drill matches -drills %q", match) // a typing error, not a success
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	tools := make(chan struct{}) // closed when the servers are built
	wg.Go(func() {
		defer close(tools)
		if out, err := command(ctx, ".ci/build-tools").CombinedOutput(); err != nil {
			s.tally.fail(".ci/build-tools", fmt.Sprintf("%s%v", out, err))
		}
	})
	if packages {
		wg.Go(func() {
			<-tools
			s.goTest(ctx, "-tags", "servers", "./...", "./.ci/suite")
			s.goTest(ctx, "-race", "-short", "./leader/...", "./archiver/...")
			s.simulate(ctx)
		})
	}
	queue := make(chan drill)
	for range lanes {
		wg.Go(func() {
			for d := range queue {
				s.drill(ctx, d)
			}
		})
	}
	for _, needTools := range []bool{false, true} {
		if needTools {
			<-tools
		}
		for _, d := range drills {
			if d.needsTools() == needTools {
				queue <- d
			}
		}
	}
	close(queue)
	return nil
}

// folder makes the folder of a run. It is in /tmp, whatever TMPDIR says: user postgres must be able to search every folder above its
// data.
func (s *suite) folder() (remove func() error, err error) {
	if s.dir, err = os.MkdirTemp("/tmp", "walbaton-suite-"); err != nil {
		return nil, err
	}
	return func() error { return os.RemoveAll(s.dir) }, os.Chmod(s.dir, 0o755)
}

// drill is a test named TestDrill… or TestDemo…, which needs a machine of its own.
type drill struct {
	program, test string
	dcs           string   // instead of etcd, where the test does not name one
	args          []string // more, of the test program
}

// needsTools says whether a drill needs a server that .ci/build-tools builds.
func (d drill) needsTools() bool {
	for _, word := range []string{"MinIO", "Cut", "Consul", "Kubernetes"} {
		if strings.Contains(d.test, word) {
			return true
		}
	}
	return d.dcs == "consul" || d.dcs == "kubernetes"
}

// numbered are the drills of the matrix: 1 to 10, without those that choose their DCS or have no walbaton.
var numbered = regexp.MustCompile(`^TestDrill(0[1-9]|10)`)

// times gives each numbered drill once for each DCS.
func times(drills []drill, dcs []string) (all []drill) {
	chooses := regexp.MustCompile(`Consul|Kubernetes|ZooKeeper|Rest|Control`)
	for _, d := range drills {
		if !numbered.MatchString(d.test) || chooses.MatchString(d.test) {
			continue
		}
		for _, name := range dcs {
			d.dcs = name
			all = append(all, d)
		}
	}
	return all
}

// build builds walbaton, walbaton-wal and the programs with drills, and returns those drills that match.
func (s *suite) build(ctx context.Context, match *regexp.Regexp) (drills []drill, err error) {
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return nil, err
	}
	programs := []string{"sidecar/drill", "examples/quickstart"}
	builds := [][]string{
		{"build", "-o", filepath.Join(bin, "walbaton"), "./sidecar"},
		{"build", "-o", filepath.Join(bin, "walbaton-wal"), "./sidecar/walbaton-wal"},
	}
	for _, p := range programs {
		builds = append(builds, []string{"test", "-c", "-tags", "drills", "-o", s.program(p), "./" + p})
	}
	for _, args := range builds {
		cmd := command(ctx, "go", args...)
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, p := range programs {
		list, err := command(ctx, s.program(p), "-test.list", "^Test(Drill|Demo)").Output()
		if err != nil {
			return nil, fmt.Errorf("list the drills of %s: %w", p, err)
		}
		for _, test := range strings.Fields(string(list)) {
			if match.MatchString(test) && (s.full || !strings.HasPrefix(test, "TestDrillFull")) {
				drills = append(drills, drill{program: p, test: test})
			}
		}
	}
	return drills, nil
}

// program is the path of a built test program.
func (s *suite) program(pkg string) string { return filepath.Join(s.dir, filepath.Base(pkg)+".test") }

// contained begins a command whose processes end with it, because they have a process namespace of their own; the shared
// memory a killed PostgreSQL leaves (the kernel has 4,096 segments) ends with it, too. The shell
// stays as process 1 in there: it waits for orphans, which PostgreSQL leaves behind when it is killed.
var contained = []string{"unshare", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"}

// drill runs one drill in a network namespace, too.
func (s *suite) drill(ctx context.Context, d drill) {
	pkg := d.program
	if d.dcs != "" {
		pkg += " on " + d.dcs
	}
	args := append([]string{"tool", "test2json", "-t", "-p", pkg}, contained...)
	args = append(args, "--net", "sh", "-c", `mount -t tmpfs shm /dev/shm && ip link set lo up && "$@"; exit $?`, "lane",
		s.program(d.program), "-test.v=test2json", "-test.timeout=2h", "-test.run", "^"+d.test+"$")
	args = append(args, d.args...)
	cmd := command(ctx, "go", args...)
	cmd.Env = append(cmd.Env, "WALBATON_LANE=1", "WALBATON_DRILLS="+s.dir, "WALBATON_BIN="+filepath.Join(s.dir, "bin"), "WALBATON_DRILL_DCS="+d.dcs)
	s.read(cmd, d.test, true)
}

// goTest runs tests of packages; the drills, which depend on time, come first when processors are short.
func (s *suite) goTest(ctx context.Context, args ...string) {
	all := append(contained[1:len(contained):len(contained)], "sh", "-c", `"$@"; exit $?`, "packages",
		"nice", "-n", "5", "go", "test", "-json", "-timeout", "30m")
	s.read(command(ctx, contained[0], append(all, args...)...), "go test "+strings.Join(args, " "), false)
}

// simulate plays the seeds that count, and prints how often everything in them occurred.
func (s *suite) simulate(ctx context.Context) {
	begin := time.Now()
	var text bytes.Buffer
	cmd := command(ctx, "nice", "-n", "5", "go", "test", "-v", "-count=1", "-timeout", "0", "./sidecar/sim",
		"-run", "^TestSeeds$", fmt.Sprintf("-sim.seeds=%d", s.seeds), "-sim.procs=2")
	cmd.Stdout, cmd.Stderr = &text, &text
	if s.seeds > 10_000 {
		cmd.Stderr = os.Stderr // it takes hours, and says how far it is
	}
	err := cmd.Run()
	out := text.Bytes()
	s.tally.add(result{name: fmt.Sprintf("sidecar/sim %d seeds", s.seeds), seconds: time.Since(begin).Seconds(), passed: err == nil}, string(out))
	if err == nil {
		s.tally.say("pass sidecar/sim, %d seeds, in which occurred\n%s", s.seeds, out)
	}
}

// read runs a command whose output is that of `go test -json`; see tally.read.
func (s *suite) read(cmd *exec.Cmd, title string, alone bool) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.tally.fail(title, err.Error())
		return
	}
	failed := s.tally.read(out, alone)
	if err := cmd.Wait(); err != nil && failed == 0 {
		s.tally.fail(title, strings.TrimSpace(fmt.Sprintf("%v\n%s", err, stderr.String())))
	}
}

// command is a program that is killed when the context ends, with its process group.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// lines calls f for every line of r, however long.
func lines(r io.Reader, f func(line []byte)) {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadBytes('\n')
		if len(line) > 0 {
			f(line)
		}
		if err != nil {
			return
		}
	}
}
