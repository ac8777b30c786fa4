// Package leadertest holds the suite of drivers that needs an Elector: a sidecar that is frozen past its term, by a paused
// machine or a debugger, must delete nothing and open no timeline when it wakes.
//
// Frozen runs a child process, which is the test program once more: it takes part in the election as a sidecar does, and does
// nothing in its terms but what is forbidden outside them. The parent stops it with SIGSTOP, lets its lease run out, gives the
// baton and the leader key to another, and wakes it. A driver adds, beside its other suites:
//
//	func TestMain(m *testing.M) {
//		leadertest.Main(m, func(c Config) (dcs.DCS, error) { return New(c) })
//	}
//
//	func TestFrozen(t *testing.T) {
//		leadertest.Frozen(t, func(t *testing.T, test func(*testing.T, dcstest.Scope, Config)) {
//			s := startServer(t, nil)
//			test(t, scope(t, s, s.raw(t)), Config{Endpoints: []string{s.url}, Prefix: prefixOf(t)})
//		})
//	}
//
// The configuration goes to the child as JSON, so it may be any type that survives that.
//
// # What is under way
//
// No check of a process can cover the moment after it: a process that is frozen between its last look and the request that
// it makes will make that request when it wakes. So the child notes with all that it does when its last look had ended;
// what was looked at before the freeze and is done after it is allowed. That is one batch of deletes and one object
// of a new timeline, and neither does harm: the floor was put before the deletes of what is below it, and a put
// replaces nothing. All that the child would have to look again for is forbidden.
package leadertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// Runner calls test with a fresh scope on a server of its own, and what the child has to open.
type Runner[C any] func(t *testing.T, test func(t *testing.T, s dcstest.Scope, c C))

// childEnv holds an order as JSON, in a child.
const childEnv = "WALBATON_LEADERTEST_CHILD"

// Main is what a driver's TestMain calls: it runs the tests, or in a child process the sidecar that they freeze.
func Main[C any](m *testing.M, open func(C) (dcs.DCS, error)) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runChild(ctx, text, open); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// self is the child's member name; other that of the node that takes over.
const (
	self  = "n1"
	other = "n2"
)

// patience bounds what must come true.
const patience = 30 * time.Second

// Frozen tests that what was frozen past its term keeps still. Each scope needs a Server of its own.
func Frozen[C any](t *testing.T, r Runner[C]) {
	for _, c := range []struct {
		name   string
		freeze func(t *testing.T, s dcstest.Scope, p *process)
	}{
		{"at any moment", func(t *testing.T, s dcstest.Scope, p *process) {
			p.freeze(t)
		}},
		{"with readings under way", func(t *testing.T, s dcstest.Scope, p *process) {
			s.Server.Hang(t)
			time.Sleep(300 * time.Millisecond) // until both loops wait for an answer
			p.freeze(t)
			s.Server.Resume(t) // the answers, true as yet, wait in the sockets
		}},
		{"while the server restarts", func(t *testing.T, s dcstest.Scope, p *process) {
			p.freeze(t)
			s.Server.Kill(t)
			s.Server.Start(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for a lease to end
			r(t, func(t *testing.T, s dcstest.Scope, config C) {
				lead(t, s, self)
				p := startChild(t, s.TTL, config)
				n2 := s.Client(t)
				for range 3 {
					p.acts(t)
					c.freeze(t, s, p)
					takeOver(t, s, n2, p)
				}
				p.acts(t) // in a new term
			})
		})
	}
}

// takeOver gives baton and leader key to the other node while the child is frozen, wakes it, and gives them back.
func takeOver(t *testing.T, s dcstest.Scope, n2 dcs.DCS, p *process) {
	t.Helper()
	frozen, at := p.read(t), time.Now() // the process stands still: it has looked at nothing at this moment
	var l dcs.Lease
	until(t, s.TTL+s.Slack+patience, "the frozen one's lease runs out", func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		l, err = n2.Claim(ctx, dcs.Lease{Holder: other, TTL: 90 * time.Second})
		return err
	})
	lead(t, s, other)
	p.signal(t, syscall.SIGCONT)
	p.lives(t)
	if late := p.read(t).forbiddenSince(frozen, at); len(late) > 0 {
		t.Errorf("%d things done after another took over in term %d, the first: %s", len(late), l.Epoch, late[0])
	}
	lead(t, s, self)
	if err := n2.Release(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

// lead gives the leader key to a member, as a new key.
func lead(t *testing.T, s dcstest.Scope, member string) {
	t.Helper()
	s.Delete(t, "leader")
	s.Put(t, "members/"+member, `{"role":"primary","state":"running","timeline":1}`)
	s.Put(t, "leader", member)
}

// process is the child, seen from its parent.
type process struct {
	cmd     *exec.Cmd
	journal string
	seen    []uint64 // numbers of the terms and leaderships that it worked in
}

func startChild[C any](t *testing.T, ttl time.Duration, config C) *process {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &process{journal: filepath.Join(dir, "journal")}
	order, err := json.Marshal(order{Config: raw, Journal: p.journal, TTL: max(ttl, 3*time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(order))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait() // says that it was killed
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("the child:\n%s", said)
		}
	})
	return p
}

// freeze returns when every thread has stopped: the signal takes its time.
func (p *process) freeze(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	until(t, patience, "the child stops", func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil || len(tasks) == 0 {
			t.Fatalf("no threads of the child: %v", err)
		}
		for _, task := range tasks {
			if stat, err := os.ReadFile(task); err == nil && !bytes.Contains(stat, []byte(") T ")) {
				return fmt.Errorf("%s", stat)
			}
		}
		return nil
	})
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// acts waits until the child deletes and opens, in a term and a leadership that it had not before.
func (p *process) acts(t *testing.T) {
	t.Helper()
	until(t, patience, "the child works in a new term", func() error {
		now := p.read(t)
		var numbers []uint64
		for _, kind := range []string{kindDelete, kindOpen} {
			done := 0
			for _, n := range now {
				if n.kind == kind && n.done && !slices.Contains(p.seen, n.number) {
					done++
					numbers = append(numbers, n.number)
				}
			}
			if done < 20 {
				return fmt.Errorf("%d of 20 %ss", done, kind)
			}
		}
		p.seen = append(p.seen, slices.Compact(numbers)...)
		return nil
	})
}

// lives waits until the child has been awake for a second and has looked around.
func (p *process) lives(t *testing.T) {
	t.Helper()
	before := p.read(t).pulses()
	until(t, patience, "the child wakes", func() error {
		if n := p.read(t).pulses() - before; n < 10 {
			return fmt.Errorf("%d of 10 pulses", n)
		}
		return nil
	})
}

// read gives the journal. A line that is being written counts as not there.
func (p *process) read(t *testing.T) notes {
	t.Helper()
	f, err := os.Open(p.journal)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	var out notes
	for line := range strings.Lines(string(all)) {
		if n, ok := parseNote(line); ok {
			out = append(out, n)
		}
	}
	return out
}

func until(t *testing.T, d time.Duration, what string, true func() error) {
	t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(50 * time.Millisecond) {
		err := true()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, d, err)
		}
	}
}
