// Mutants asks whether the tests would notice if walbaton were wrong.
//
//	go run ./.ci/mutants                  # all of them
//	go run ./.ci/mutants -only baton      # those whose names match
//	go run ./.ci/mutants -check           # do they all apply, and build?
//
// Each testdata/*.patch breaks one rule on purpose; its first lines say which. It is applied to a copy of the checkout,
// where the tests of the packages that it touches run, and, if they all pass, the first 500 seeds of the simulation.
// The first test or seed that fails has caught it. The run fails when nothing catches a mutant, and when
// one does not apply or does not build any more: then the code has moved on, and the patch has to follow.
//
// To make one, change the code, then
//
//	git diff -U1 > .ci/mutants/testdata/name.patch && git checkout -- .
//
// and write above it, in words, what is wrong now. One line of context keeps it applicable for long.
package main

import (
	"bufio"
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
	"slices"
	"strings"
	"syscall"
	"time"
)

// chunk is how many seeds are played before it is looked whether one has caught the mutant.
const chunk = 50

type run struct {
	dir   string // the copy
	seeds int
	check bool
}

// mutant is one patch.
type mutant struct {
	name     string
	path     string
	rule     string   // its first line
	packages []string // that it touches, as patterns
}

func main() {
	only := flag.String("only", ".", "run only mutants that match this `regexp`")
	seeds := flag.Int("seeds", 500, "seeds of the simulation, for a mutant that no test catches")
	check := flag.Bool("check", false, "only look whether they apply and build")
	limit := flag.Duration("limit", time.Hour, "give up after this time")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := all(ctx, *only, &run{seeds: *seeds, check: *check}); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func all(ctx context.Context, only string, r *run) (err error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	mutants, err := read(match)
	if err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "walbaton-mutants-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := r.copyTree(ctx); err != nil {
		return err
	}
	if err := r.sound(ctx, mutants); err != nil {
		return err
	}
	begin, alive := time.Now(), []string{}
	for _, m := range mutants {
		start := time.Now()
		by, err := r.try(ctx, m)
		switch {
		case err != nil:
			by = "ERROR: " + err.Error()
			alive = append(alive, m.name)
		case by == "" && !r.check:
			by = "NOBODY caught it: " + m.rule
			alive = append(alive, m.name)
		}
		fmt.Printf("%5.0fs  %-34s %s\n", time.Since(start).Seconds(), m.name, by)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(alive) > 0 {
		return fmt.Errorf("%d of %d live: %s", len(alive), len(mutants), strings.Join(alive, ", "))
	}
	verdict := "all caught"
	if r.check {
		verdict = "all apply and build"
	}
	fmt.Printf("%d mutants, %s, after %v\n", len(mutants), verdict, time.Since(begin).Round(time.Second))
	return nil
}

var target = regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)`)

// read reads the patches.
func read(match *regexp.Regexp) (mutants []mutant, err error) {
	paths, err := filepath.Glob(".ci/mutants/testdata/*.patch")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".patch")}
		if !match.MatchString(m.name) {
			continue
		}
		if m.path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m.rule, _, _ = strings.Cut(string(b), "\n")
		for _, file := range target.FindAllStringSubmatch(string(b), -1) {
			if p := "./" + filepath.Dir(file[1]); !slices.Contains(m.packages, p) {
				m.packages = append(m.packages, p)
			}
		}
		if len(m.packages) == 0 || strings.HasPrefix(m.rule, "diff ") {
			return nil, fmt.Errorf("read %s: want a line that says what it breaks, then a diff", path)
		}
		mutants = append(mutants, m)
	}
	if len(mutants) == 0 {
		return nil, errors.New("no mutant is named so; they are in .ci/mutants/testdata, and this runs in the checkout")
	}
	return mutants, nil
}

// copyTree copies what git knows or would add.
func (r *run) copyTree(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the files of the checkout: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		info, err := os.Lstat(name)
		if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // deleted, and not yet committed
		} else if err != nil {
			return err
		}
		if err := copyFile(name, filepath.Join(r.dir, name), info.Mode().Perm()); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return nil
}

func copyFile(from, to string, perm os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, perm)
}

// sound makes sure that all patches apply, and that the tests pass without them: otherwise nothing would be caught.
func (r *run) sound(ctx context.Context, mutants []mutant) error {
	var stale, packages []string
	for _, m := range mutants {
		if out, err := r.command(ctx, "git", "apply", "--check", m.path).CombinedOutput(); err != nil {
			stale = append(stale, fmt.Sprintf("%s does not apply any more:\n%s", m.name, out))
		}
		packages = append(packages, m.packages...)
	}
	if len(stale) > 0 {
		return errors.New(strings.Join(stale, "\n"))
	}
	if r.check {
		return nil
	}
	slices.Sort(packages)
	start := time.Now()
	by, err := r.test(ctx, slices.Compact(packages))
	if err != nil {
		return err
	}
	if by != "" {
		return fmt.Errorf("%s fails without any mutant", by)
	}
	fmt.Printf("%5.0fs  without any mutant all pass\n", time.Since(start).Seconds())
	return nil
}

// try applies one mutant, says who catches it, and takes it back.
func (r *run) try(ctx context.Context, m mutant) (by string, err error) {
	if out, err := r.command(ctx, "git", "apply", m.path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("apply: %w\n%s", err, out)
	}
	defer func() {
		out, e := r.command(context.WithoutCancel(ctx), "git", "apply", "-R", m.path).CombinedOutput()
		if e != nil {
			err = errors.Join(err, fmt.Errorf("take back: %w\n%s", e, out))
		}
	}()
	if out, err := r.command(ctx, "go", append([]string{"build", "-o", os.DevNull}, m.packages...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not build:\n%s", out)
	}
	if r.check {
		return "applies and builds", nil
	}
	if by, err = r.test(ctx, m.packages); by != "" || err != nil {
		return by, err
	}
	return r.simulate(ctx)
}

var (
	failedTest = regexp.MustCompile(`^\s*--- FAIL: (\S+)`)
	failedSeed = regexp.MustCompile(`seed (\d+): (.*)`)
	brokenPkg  = regexp.MustCompile(`^(FAIL\s+\S+|panic: .*)`)
)

// test runs the tests of packages until one fails, and gives its name; "" when all pass.
func (r *run) test(ctx context.Context, packages []string) (by string, err error) {
	args := append([]string{"test", "-failfast", "-vet=off", "-timeout", "5m"}, packages...)
	return r.first(r.command(ctx, "go", args...), func(line string) string {
		if strings.Contains(line, "[build failed]") {
			return ""
		}
		if m := failedTest.FindStringSubmatch(line); m != nil {
			return m[1]
		}
		return brokenPkg.FindString(line)
	})
}

// simulate plays seeds until one fails, and names it.
func (r *run) simulate(ctx context.Context) (by string, err error) {
	program := filepath.Join(r.dir, "sim.test")
	if out, err := r.command(ctx, "go", "test", "-c", "-o", program, "./sidecar/sim").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the simulation: %w\n%s", err, out)
	}
	for first := 1; first <= r.seeds && by == "" && err == nil; first += chunk {
		cmd := r.command(ctx, program, "-test.run", "^TestSeeds$", fmt.Sprintf("-sim.first=%d", first), fmt.Sprintf("-sim.seeds=%d", min(chunk, r.seeds-first+1)))
		cmd.Dir = filepath.Join(r.dir, "sidecar/sim")
		by, err = r.first(cmd, func(line string) string {
			if m := failedSeed.FindStringSubmatch(line); m != nil {
				return "seed " + m[1] + " " + m[2][:min(100, len(m[2]))]
			}
			return brokenPkg.FindString(line)
		})
	}
	return by, err
}

// first runs a command whose output names what failed, and gives the first name. It is an error that the
// command fails and names nothing, or the other way around.
func (r *run) first(cmd *exec.Cmd, name func(line string) string) (by string, err error) {
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		w.Close()
		ended <- err
	}()
	var text strings.Builder
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if by == "" {
			by = name(lines.Text())
			text.WriteString(lines.Text() + "\n")
		}
	}
	if _, err := io.Copy(io.Discard, out); err != nil { // after a line that is too long
		return "", err
	}
	if err := <-ended; err != nil && by == "" {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text.String())
	}
	return by, nil
}

// command is a program that works in the copy, and ends with the context, with its process group.
func (r *run) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(r.dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}
