//go:build servers

package zookeeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

func (s *server) zxid(t *testing.T) string {
	t.Helper()
	answer, err := s.ask("srvr")
	m := regexp.MustCompile(`Zxid: (\S+)`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("%q, %v", answer, err)
	}
	return m[1]
}

// TestTransactions: an extension, and a reading, is a transaction; neither changes anything, nor
// wakes anybody.
func TestTransactions(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	d, other := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"}), open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	if _, err := d.Read(soon(t)); err != nil {
		t.Fatal(err)
	}
	empty := s.zxid(t)
	if r, err := d.Read(soon(t)); err != nil || len(r.Nodes) > 0 || s.zxid(t) == empty {
		t.Errorf("a reading of a scope that is not there: %+v, %v, zxid %s", r, err, empty)
	}
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	now, err := other.Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	before := s.zxid(t)
	if _, err := d.Claim(soon(t), l); err != nil {
		t.Fatal(err)
	}
	extended := s.zxid(t)
	if extended == before {
		t.Errorf("the extension was no transaction: zxid %s", extended)
	}
	if _, err := d.Read(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s.zxid(t) == extended {
		t.Errorf("the reading was no transaction: zxid %s", extended)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := other.Wait(ctx, now); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v, want the deadline", err)
	}
	again, err := other.Read(soon(t))
	if err != nil || again.Baton != now.Baton {
		t.Errorf("the baton was %+v and is %+v, %v", now.Baton, again.Baton, err)
	}
}

// TestOneRevision writes two keys in one transaction, again and again: a reading shows both or
// neither.
func TestOneRevision(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	r := s.raw(t)
	for _, key := range []string{"leader", "history", "members/n1"} {
		r.put(t, "/service/batman/"+key, "0")
	}
	d := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			v := []byte(fmt.Sprint(i))
			if _, err := r.Multi(&zk.SetDataRequest{Path: "/service/batman/leader", Data: v, Version: -1},
				&zk.SetDataRequest{Path: "/service/batman/members/n1", Data: v, Version: -1},
				&zk.SetDataRequest{Path: "/service/batman/history", Data: v, Version: -1}); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	last := ""
	for range 300 {
		got, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		l, h, m := got.Nodes["leader"].Value, got.Nodes["history"].Value, got.Nodes["members/n1"].Value
		if l != h || l != m {
			t.Fatalf("leader %s, history %s, member %s", l, h, m)
		}
		last = l
	}
	cancel()
	wg.Wait()
	t.Logf("300 readings during %s writes", last)
}

// TestDeletedByHand: who deletes the znode ends the lease, and what is made in its place is not ours.
func TestDeletedByHand(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	r := s.raw(t)
	d, other := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"}), open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	want := dcs.Lease{Holder: "n1", TTL: 30 * time.Second}
	for _, successor := range []bool{false, true} {
		l, err := d.Claim(soon(t), want)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(soon(t), "n1", "1", want.TTL); err != nil {
			t.Fatal(err)
		}
		r.remove(t, d.baton())
		r.remove(t, d.record("n1"))
		var theirs dcs.Lease
		if successor {
			if theirs, err = other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: 30 * time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := d.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
			t.Errorf("successor %v: extended to %+v, %v; want ErrLost", successor, got, err)
		}
		if err := d.Announce(soon(t), "n1", "1", want.TTL); err != nil {
			t.Error(err)
		}
		now, err := d.Read(soon(t))
		if err != nil || now.Records["n1"].Value != "1" || now.Baton.Held() != successor {
			t.Errorf("successor %v: %+v, %v; want the record again", successor, now, err)
		}
		if successor {
			if _, err := other.Claim(soon(t), theirs); err != nil {
				t.Errorf("the successor: %v", err)
			}
		}
	}
}

// TestTimeOfSessions: the server's limits hold, and are told.
func TestTimeOfSessions(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil, "minSessionTimeout=3000", "maxSessionTimeout=5000")
	d := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
	if err != nil || l.TTL != 3*time.Second {
		t.Errorf("asked for 1 s: %+v, %v; want 3 s", l, err)
	}
	if err := d.Release(soon(t), l); err != nil {
		t.Error(err)
	}
	const want = "sessions of 5s at most"
	if l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 6 * time.Second}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("asked for 6 s: %+v, %v", l, err)
	}
	if err := d.Announce(soon(t), "n1", "1", 6*time.Second); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a record of 6 s: %v", err)
	}
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() || len(r.Records) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestFrozenClient stops a process that holds the baton for longer than its lease. It wakes up to find
// that it is lost, and the successor undisturbed.
func TestFrozenClient(t *testing.T) {
	if address := os.Getenv("WALBATON_FROZEN"); address != "" {
		holdOn(t, address)
		return
	}
	t.Parallel()
	s := startServer(t, nil)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFrozenClient$", "-test.v")
	cmd.Env = append(os.Environ(), "WALBATON_FROZEN="+s.address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	next := func(word string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), "error") {
				t.Fatal(lines.Text())
			}
			if strings.Contains(lines.Text(), word) {
				return
			}
		}
		t.Fatalf("the process did not say %q", word)
	}
	next("extended")
	d := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	want := dcs.Lease{Holder: "n2", TTL: 30 * time.Second}
	var held *dcs.HeldError
	if _, err := d.Claim(soon(t), want); !errors.As(err, &held) {
		t.Fatalf("while it runs: %v, want it held", err)
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	var l dcs.Lease
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if l, err = d.Claim(soon(t), want); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	cmd.Process.Signal(syscall.SIGCONT)
	next("lost")
	if _, err := d.Claim(soon(t), l); err != nil {
		t.Errorf("the successor: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // its record ends about then
		r, err := d.Read(soon(t))
		if err != nil || r.Baton.Holder != "n2" {
			t.Fatalf("got %+v, %v; want n2's baton", r, err)
		}
		if len(r.Records) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("its record is still there: %+v", r.Records)
		}
	}
}

// holdOn is the process that gets frozen.
func holdOn(t *testing.T, address string) {
	d := open(t, Config{Hosts: []string{address}, Prefix: "/service/batman/"})
	l, err := d.Claim(t.Context(), dcs.Lease{Holder: "n1", TTL: 2 * time.Second})
	if err == nil {
		err = d.Announce(t.Context(), "n1", "1", 2*time.Second)
	}
	if err != nil {
		t.Fatal("error:", err)
	}
	for !errors.Is(err, dcs.ErrLost) {
		if err == nil {
			fmt.Println("extended")
		}
		time.Sleep(100 * time.Millisecond)
		_, err = d.Claim(soon(t), l)
	}
	fmt.Println("lost")
	d.Release(soon(t), l)
}

// TestThreeServers takes one away, by a stop or a kill: the client finds the others, and its
// session goes along.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	var settings, hosts []string
	servers := make([]*server, 3)
	for i := range servers {
		settings = append(settings, fmt.Sprintf("server.%d=%s:%s", i+1, freeAddress(t), strings.TrimPrefix(freeAddress(t), "127.0.0.1:")))
	}
	for i := range servers {
		servers[i] = newServer(t, nil, settings...)
		if err := os.MkdirAll(servers[i].dir+"/data", 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, servers[i].dir+"/data/myid", fmt.Sprint(i+1))
		hosts = append(hosts, servers[i].address)
		servers[i].launch(t)
	}
	for _, s := range servers {
		s.waitReady(t)
	}
	d := open(t, Config{Hosts: hosts, Prefix: "/service/batman/"})
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	outages := map[string][2]func(s *server){
		"hung":   {func(s *server) { s.Hang(t) }, func(s *server) { s.Resume(t) }},
		"killed": {func(s *server) { s.Kill(t) }, func(s *server) { s.Start(t) }},
	}
	for name, o := range outages {
		for i, s := range servers {
			// With a leader that hangs the others elect none for tens of seconds: no client can help that.
			if answer, _ := s.ask("srvr"); name == "hung" && strings.Contains(answer, "Mode: leader") {
				continue
			}
			o[0](s)
			start := time.Now()
			for good := 0; good < 3; time.Sleep(300 * time.Millisecond) { // an election takes a moment
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
				_, err := d.Claim(ctx, l)
				if err == nil {
					_, err = d.Read(ctx)
				}
				cancel()
				good++
				if err != nil {
					good = 0
				}
				if errors.Is(err, dcs.ErrLost) || err != nil && time.Since(start) > 45*time.Second {
					t.Fatalf("server %d %s, after %v: %v", i, name, time.Since(start), err)
				}
			}
			t.Logf("server %d %s: extended again after %v", i, name, time.Since(start))
			o[1](s)
			s.raw(t).put(t, fmt.Sprintf("/back/%d", i), name) // with two of three away there would be no quorum
		}
	}
}

// TestASCII looks at the bytes.
func TestASCII(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	d := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	const odd = "größe \U0001f418\xff/\n"
	if _, err := d.Claim(soon(t), dcs.Lease{Holder: odd, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(soon(t), odd, `{"v":1}`, time.Minute); err != nil {
		t.Fatal(err)
	}
	r := s.raw(t)
	names, _, err := r.Children(d.records())
	if err != nil || len(names) != 1 || dcs.CheckValue(names[0]) != nil {
		t.Fatalf("records %q, %v", names, err)
	}
	value, baton, err := r.Get(d.baton())
	if err != nil || dcs.CheckValue(string(value)) != nil {
		t.Errorf("baton %q, %v", value, err)
	}
	_, record, err := r.Get(d.records() + "/" + names[0])
	if err != nil || record.EphemeralOwner == 0 || baton.EphemeralOwner == 0 || record.EphemeralOwner == baton.EphemeralOwner {
		t.Errorf("owners %x and %x, %v: want two sessions", record.EphemeralOwner, baton.EphemeralOwner, err)
	}
}

// TestCloseEndsAll does not run beside others: it counts goroutines.
func TestCloseEndsAll(t *testing.T) {
	s := startServer(t, nil)
	before := runtime.NumGoroutine()
	for i := range 6 {
		d, err := New(Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(soon(t), "n1", "1", time.Minute); err != nil {
			t.Fatal(err)
		}
		now, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		d.Wait(ctx, now)
		cancel()
		if i%2 == 1 { // with calls under way
			s.Hang(t)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			d.Read(ctx)
			d.Announce(ctx, "n1", "2", time.Minute)
			cancel()
		}
		start := time.Now()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("close took %v", took)
		}
		if i%2 == 1 {
			s.Resume(t)
			r := s.raw(t)
			for _, path := range []string{d.baton(), d.record("n1")} { // its session may still be open
				if err := r.Delete(path, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
					t.Fatal(err)
				}
			}
			r.Close()
		}
		if _, err := d.Read(soon(t)); err == nil {
			t.Error("a closed client reads")
		}
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	s := startServer(b, nil)
	d := open(b, Config{Hosts: []string{s.address}, Prefix: "/service/batman/"})
	ctx := b.Context()
	l, err := d.Claim(ctx, dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Read":               func() error { _, err := d.Read(ctx); return err },
		"Extend":             func() error { _, err := d.Claim(ctx, l); return err },
		"Announce unchanged": func() error { return d.Announce(ctx, "n1", "1", time.Minute) },
		"Announce another":   func() error { return d.Announce(ctx, "n1", time.Now().String()[:27], time.Minute) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
