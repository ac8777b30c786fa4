//go:build servers

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/patroni"
)

func read(t *testing.T, c *Client) dcs.Reading {
	t.Helper()
	r, err := c.Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func claim(t *testing.T, c *Client, l dcs.Lease) dcs.Lease {
	t.Helper()
	got, err := c.Claim(soon(t), l)
	if err != nil {
		t.Fatalf("Claim(%+v): %v", l, err)
	}
	return got
}

// quiet checks that nothing that happens within d ends a Wait.
func quiet(t *testing.T, c *Client, since dcs.Reading, d time.Duration, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Wait(ctx, since) }()
	meanwhile()
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a renewal ended the wait: %v", err)
	}
}

// Nothing is deleted when a leader dies: it is over when its record has not changed for its ttl.
func leaderAges(t *testing.T, n *namespace) {
	n.ttl = "3"
	c := n.client(t)
	n.put(t, "leader", "n1")
	n.put(t, "status", `{"optime":1}`)
	first := read(t, c)
	quiet(t, c, first, 5*time.Second, func() {
		for range 4 {
			time.Sleep(time.Second)
			n.put(t, "leader", "n1") // renewed, as in each loop
			n.put(t, "status", `{"optime":2,"slots":{"n2":3},"retain_slots":["n2"]}`)
		}
	})
	now := read(t, c)
	if now.Nodes["leader"].Token != first.Nodes["leader"].Token || now.Nodes["leader"].Value != "n1" {
		t.Errorf("renewed: %+v, before %+v", now.Nodes["leader"], first.Nodes["leader"])
	}
	if got := now.Nodes["status"].Value; got != `{"optime":2,"retain_slots":["n2"],"slots":{"n2":3}}` {
		t.Errorf("status %s", got)
	}
	n.put(t, "status", `{"optime":5}`) // is no sign of life
	if err := c.Wait(soon(t), now); err != nil {
		t.Fatal(err)
	}
	gone := read(t, c)
	if l, ok := gone.Nodes["leader"]; ok {
		t.Fatalf("the leader is %+v, want none", l)
	}
	if fresh := read(t, n.client(t)); fresh.Nodes["leader"].Value != "n1" {
		t.Error("a client that has just started must wait the whole ttl")
	}
	cluster, err := patroni.Parse(gone.Nodes)
	if err != nil || cluster.Leader != "" || cluster.Optime != 5 {
		t.Errorf("%+v, %v", cluster, err)
	}
	n.put(t, "leader", "n1") // it was only slow
	if err := c.Wait(soon(t), gone); err != nil {
		t.Fatal(err)
	}
	if again := read(t, c).Nodes["leader"]; again.Value != "n1" || again.Token != first.Nodes["leader"].Token {
		t.Errorf("renewed late: %+v, want the same tenure as %+v", again, first.Nodes["leader"])
	}
	n.put(t, "leader", "n2") // no deletion in between
	if next := read(t, c).Nodes["leader"]; next.Value != "n2" || next.Token == first.Nodes["leader"].Token {
		t.Errorf("the next leader: %+v after %+v", next, first.Nodes["leader"])
	}
}

// What Patroni 3.0.2 writes is understood; what has its labels only is left out.
func patronisObjects(t *testing.T, n *namespace) {
	for key, value := range map[string]string{
		"leader": "n1", "status": `{"optime":67395656}`, "failsafe": `{"n1":"http://10.0.0.4:8008/patroni"}`,
		"initialize": "7268616322854375442", "config": `{"ttl":20,"pause":true}`,
		"history": `[[1,50331648,"no recovery target specified","2026-01-14T10:09:57+00:00","n1"]]`,
		"sync":    `{"leader":"n1","sync_standby":"n2","quorum":"0"}`, "failover": `{"leader":"n1","member":"n2"}`,
		"members/n1": `{"state":"running","role":"master","conn_url":"postgres://10.0.0.4:5432/postgres","timeline":2}`,
	} {
		n.put(t, key, value)
	}
	spec := object{"containers": []object{{"name": "postgres", "image": "none"}}}
	n.do(t, "POST", n.path("pods"), object{"metadata": object{"name": "n2", "labels": n.labels()}, "spec": spec})
	path, _ := n.object("leader")
	for name, labels := range map[string]object{"batman-backup": n.labels(), "other": {"application": "patroni", "cluster-name": "other"}} {
		n.do(t, "POST", path, object{"metadata": object{"name": name, "labels": labels, "annotations": object{"leader": "x", "config": "x"}}})
	}
	r := read(t, n.client(t))
	got, err := patroni.Parse(r.Nodes)
	if err != nil || len(got.Warnings) > 0 {
		t.Fatal(err, got.Warnings)
	}
	if got.Leader != "n1" || got.LeaderToken == 0 || got.SystemID != 7268616322854375442 || got.TTL != 20*time.Second || !got.Paused ||
		got.Optime != 67395656 || len(got.History) != 1 || len(got.Members) != 1 || got.Members["n1"].Timeline != 2 {
		t.Errorf("got %+v", got)
	}
	want := map[string]string{"sync": `{"leader":"n1","quorum":0,"sync_standby":"n2"}`, "failover": `{"leader":"n1","member":"n2"}`}
	for key, want := range want {
		if r.Nodes[key].Value != want {
			t.Errorf("%s is %s, want %s", key, r.Nodes[key].Value, want)
		}
	}
	if len(r.Nodes) != 9 {
		t.Errorf("nodes %v", r.Nodes)
	}
}

// Groups of one Citus cluster have one scope.
func citus(t *testing.T, n *namespace) {
	group := func(no int) *namespace { g := *n; g.group = &no; return &g }
	zero, two := group(0), group(2)
	n.put(t, "leader", "nobody's")
	zero.put(t, "leader", "coordinator")
	zero.put(t, "members/coordinator", "{}")
	two.put(t, "leader", "worker")
	two.put(t, "members/worker", "{}")
	a, b := zero.client(t), two.client(t)
	claim(t, a, dcs.Lease{Holder: "coordinator", TTL: 30 * time.Second})
	claim(t, b, dcs.Lease{Holder: "worker", TTL: 30 * time.Second})
	if err := b.Announce(soon(t), "worker", "{}", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for who, c := range map[string]*Client{"coordinator": a, "worker": b} {
		r := read(t, c)
		if _, ok := r.Nodes["members/"+who]; !ok || len(r.Nodes) != 2 || r.Nodes["leader"].Value != who || r.Baton.Holder != who {
			t.Errorf("%s: %+v", who, r)
		}
	}
	whole := n.client(t)
	if r := read(t, whole); r.Baton.Held() || len(r.Records) != 0 {
		t.Errorf("without a group: %+v", r)
	}
}

// A claimant takes the baton only after it has itself seen it unchanged for its duration.
func freshClient(t *testing.T, n *namespace) {
	holder := n.client(t)
	l := claim(t, holder, dcs.Lease{Holder: "n1", TTL: 2 * time.Second})
	time.Sleep(3 * time.Second)
	next := n.client(t)
	start := time.Now()
	for {
		got, err := next.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: 30 * time.Second})
		var held *dcs.HeldError
		if err == nil {
			if waited := time.Since(start); waited < 2*time.Second {
				t.Errorf("took it after %v", waited)
			}
			if got.Epoch <= l.Epoch {
				t.Errorf("epoch %d after %d", got.Epoch, l.Epoch)
			}
			break
		}
		if !errors.As(err, &held) || time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, err := holder.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
		t.Errorf("the former holder's extension: %v", err)
	}
}

// Somebody deletes the Lease, or writes nonsense into it.
func leaseTampered(t *testing.T, n *namespace) {
	c, other := n.client(t), n.client(t)
	l := claim(t, c, dcs.Lease{Holder: "n1", TTL: 30 * time.Second})
	now := read(t, other)
	n.do(t, "DELETE", n.leasePath("batman-walbaton"), nil)
	if err := other.Wait(soon(t), now); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Claim(soon(t), l); !errors.Is(err, dcs.ErrLost) {
		t.Fatalf("extension of a deleted Lease: %v", err)
	}
	next := claim(t, other, dcs.Lease{Holder: "n2", TTL: 30 * time.Second})
	if next.Epoch <= l.Epoch {
		t.Errorf("epoch %d after %d and a deletion", next.Epoch, l.Epoch)
	}
	n.do(t, "PATCH", n.leasePath("batman-walbaton"), object{"spec": object{"holderIdentity": "stranger", "leaseDurationSeconds": nil}, "metadata": object{"annotations": nil}})
	if _, err := other.Claim(soon(t), next); !errors.Is(err, dcs.ErrLost) {
		t.Fatalf("extension of somebody else's: %v", err)
	}
	if b := read(t, c).Baton; b.Holder != "stranger" {
		t.Errorf("the baton is %+v", b)
	}
	// A record's Lease too: it is written again.
	if err := c.Announce(soon(t), "n1", "1", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	n.do(t, "DELETE", n.leasePath("batman-walbaton-n1"), nil)
	if err := c.Announce(soon(t), "n1", "1", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if r := read(t, other).Records; r["n1"].Value != "1" {
		t.Errorf("records %v", r)
	}
	// The name is another scope's.
	n.do(t, "POST", n.leasePath(""), object{"metadata": object{"name": "batman-walbaton-n9"}})
	if err := c.Announce(soon(t), "n9", "1", 30*time.Second); err == nil || !strings.Contains(err.Error(), "another scope's") {
		t.Errorf("a foreign Lease: %v", err)
	}
}

// Extensions and unchanged records are renewals: they end no Wait, and keep alive.
func renewalsAreQuiet(t *testing.T, n *namespace) {
	c, other := n.client(t), n.client(t)
	l := claim(t, c, dcs.Lease{Holder: "n1", TTL: 3 * time.Second})
	announce := func() {
		t.Helper()
		if err := c.Announce(soon(t), "n1", "1", 3*time.Second); err != nil {
			t.Error(err)
		}
	}
	announce()
	now := read(t, other)
	quiet(t, other, now, 5*time.Second, func() {
		for range 4 {
			time.Sleep(time.Second)
			l = claim(t, c, l)
			announce()
		}
	})
	if r := read(t, other); r.Baton != now.Baton || r.Records["n1"] != now.Records["n1"] {
		t.Errorf("now %+v, before %+v", r, now)
	}
}

// tokenRotates takes a token away and puts another one into the file, as Kubernetes does.
func tokenRotates(t *testing.T, n *namespace) {
	bound := func(name string) string {
		made := n.do(t, "POST", n.path("secrets"), object{"metadata": object{"name": name}})
		uid := made["metadata"].(map[string]any)["uid"]
		return n.token(t, object{"kind": "Secret", "apiVersion": "v1", "name": name, "uid": uid})
	}
	first, second := bound("first"), bound("second")
	writeFile(t, n.tokenFile, first)
	c := n.client(t)
	l := claim(t, c, dcs.Lease{Holder: "n1", TTL: 5 * time.Minute})
	writeFile(t, n.tokenFile, second)
	n.do(t, "DELETE", n.path("secrets/first"), nil)
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) { // the server remembers it for 10 s
		code, _, err := n.As(first, "GET", n.leasePath(""), nil)
		if err == nil && code == http.StatusUnauthorized {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the first token still works: %d %v", code, err)
		}
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(500 * time.Millisecond) { // client-go reads the file once a minute
		_, err := c.Claim(soon(t), l)
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "does not accept our token") || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	read(t, c)
}

// everything makes every kind of request, twice, and returns the first error of each.
func everything(t *testing.T, c *Client) []error {
	var errs []error
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	r, err := c.Read(soon(t))
	try(err)
	if err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := c.Wait(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
			try(err)
		}
	}
	l, err := c.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 30 * time.Second})
	try(err)
	if err == nil {
		_, err = c.Claim(soon(t), l)
		try(err)
		try(c.Release(soon(t), l))
	}
	for _, ttl := range []time.Duration{30 * time.Second, 30 * time.Second, 0} {
		try(c.Announce(soon(t), "n1", "1", ttl))
	}
	return errs
}

// permissions takes away each verb of the Role in docs/dcs.md in turn. All other tests run with it.
func permissions(t *testing.T, n *namespace) {
	text, err := os.ReadFile("../../../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string // what the table says, in this mode
	for line := range strings.Lines(string(text)) {
		verb, on, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || !strings.HasPrefix(verb, "`") {
			continue
		}
		on, _, _ = strings.Cut(on, " | ")
		for word := range strings.SplitSeq(on, "`") {
			if slices.Contains([]string{"pods", "leases", n.names().kind}, word) {
				listed = append(listed, strings.Trim(verb, "`")+" "+word)
			}
		}
	}
	var ruled []string
	for _, rule := range n.role(t, "", "")["rules"].([]object) {
		for _, verb := range rule["verbs"].([]string) {
			ruled = append(ruled, verb+" "+rule["resources"].([]string)[0])
		}
	}
	slices.Sort(listed)
	slices.Sort(ruled)
	if !slices.Equal(listed, ruled) {
		t.Errorf("docs/dcs.md: the table says %q, the Role %q", listed, ruled)
	}
	if errs := everything(t, n.client(t)); len(errs) > 0 {
		t.Fatalf("with the whole Role: %v", errs)
	}
	for _, right := range ruled {
		verb, resource, _ := strings.Cut(right, " ")
		n.do(t, "PUT", n.rbac("roles/walbaton"), n.role(t, verb, resource))
		if verb == "create" { // only where there is none
			n.do(t, "DELETE", n.leasePath(""), nil)
		}
		want := fmt.Sprintf("permission denied: a Role must allow the verb %s on %s in namespace %s", verb, resource, n.name)
		var errs []error
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // until the server knows
			errs = everything(t, n.client(t))
			if len(errs) > 0 || time.Now().After(end) {
				break
			}
		}
		text, _ := json.Marshal(fmt.Sprint(errs))
		if !strings.Contains(string(text), want) {
			t.Errorf("without %s: %s, want %q", right, text, want)
		}
		n.do(t, "PUT", n.rbac("roles/walbaton"), n.role(t, "", ""))
		for end := time.Now().Add(20 * time.Second); len(everything(t, n.client(t))) > 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("with %s again: %v", right, everything(t, n.client(t)))
			}
		}
	}
}

func (n *namespace) names() names { return namesOf(n.config()) }

// lateExtension is handled by the server after its end by our clock.
func lateExtension(t *testing.T, n *namespace) {
	c := n.client(t)
	l := claim(t, c, dcs.Lease{Holder: "n1", TTL: time.Second})
	n.Hang(t)
	done := make(chan error, 1)
	go func() { _, err := c.Claim(soon(t), l); done <- err }()
	time.Sleep(2 * time.Second)
	n.Resume(t)
	if err := <-done; !errors.Is(err, dcs.ErrLost) {
		t.Errorf("the late extension: %v, want ErrLost", err)
	}
	if b := read(t, n.client(t)).Baton; b.Held() {
		t.Errorf("the baton is %+v, want it given back", b)
	}
}

// tooOld is a reading from before what the server remembers.
func tooOld(t *testing.T, n *namespace) {
	c := n.client(t)
	n.put(t, "leader", "n1")
	old := read(t, c)
	c.watches.close()
	n.put(t, "leader", "n2")
	n.Kill(t)
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{n.Etcd}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	resp, err := raw.Get(soon(t), "/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Compact(soon(t), resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	if err := n.client(t).Wait(soon(t), old); err != nil {
		t.Errorf("wait from a revision that is gone: %v", err)
	}
	now := read(t, c)
	if now.Nodes["leader"].Value != "n2" {
		t.Errorf("leader %+v", now.Nodes["leader"])
	}
	quiet(t, c, now, time.Second, func() {})
}

// A watch that the server ends is a reason to read again, nothing else.
func watchEnds(t *testing.T, n *namespace) {
	c := n.client(t)
	now := read(t, c)
	done := make(chan error, 1)
	go func() { done <- c.Wait(soon(t), now) }()
	time.Sleep(300 * time.Millisecond)
	c.reader.reset()
	if err := <-done; err != nil {
		t.Error(err)
	}
	quiet(t, c, read(t, c), time.Second, func() {})
}
