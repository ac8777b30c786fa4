//go:build servers

package consul

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

const mayAll = "11111111-2222-3333-4444-555555555555" // the management token of the tests

// startWithACL starts a Consul that refuses what no policy allows.
func startWithACL(t *testing.T, config ...string) (*server, *api.Client) {
	t.Helper()
	s := newServer(t, append(config, quick,
		fmt.Sprintf(`acl { enabled = true default_policy = "deny" tokens { initial_management = %q agent = %q } }`, mayAll, mayAll))...)
	s.token = mayAll
	s.Start(t)
	return s, s.raw(t)
}

// grant makes a policy of its own, and a token that has it.
func grant(t *testing.T, raw *api.Client, rules []string) (token, policy string) {
	t.Helper()
	name := fmt.Sprintf("p%d", time.Now().UnixNano())
	p, _, err := raw.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: strings.Join(rules, "\n")}, writing(soon(t)))
	if err != nil {
		t.Fatalf("%q: %v", rules, err)
	}
	tok, _, err := raw.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, writing(soon(t)))
	if err != nil {
		t.Fatal(err)
	}
	return tok.SecretID, p.ID
}

// regrant changes a policy. Servers know it at once: they are where the tokens live.
func regrant(t *testing.T, raw *api.Client, policy string, rules []string) {
	t.Helper()
	p, _, err := raw.ACL().PolicyRead(policy, (&api.QueryOptions{}).WithContext(soon(t)))
	if err != nil {
		t.Fatal(err)
	}
	p.Rules = strings.Join(rules, "\n")
	if _, _, err := raw.ACL().PolicyUpdate(p, writing(soon(t))); err != nil {
		t.Fatal(err)
	}
}

// documented reads the policy and the messages of docs/dcs.md.
func documented(t *testing.T) (rules []string, messages []string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Consul\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, block, ok := strings.Cut(section, "```hcl\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !ok || !closed {
		t.Fatal("docs/dcs.md has no section Consul with a policy")
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(.*?)` \\|").FindAllStringSubmatch(section, -1) {
		messages = append(messages, row[1])
	}
	return slices.Collect(strings.SplitSeq(strings.TrimSpace(block), "\n")), messages
}

// life does all that a sidecar does, and says what failed.
func life(t *testing.T, d dcs.DCS) []string {
	t.Helper()
	var said []string
	note := func(err error) bool {
		if err != nil {
			if !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%v is not about a permission", err)
			}
			said = append(said, err.Error())
		}
		return err == nil
	}
	now, err := d.Read(soon(t))
	if note(err) && now.Nodes["leader"].Value != "n1" {
		t.Errorf("read %+v", now)
	}
	if l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 10 * time.Second}); note(err) {
		_, err = d.Claim(soon(t), l)
		note(err)
		_, err = d.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: 10 * time.Second})
		if held := new(dcs.HeldError); !errors.As(err, &held) || held.Lease.Holder != "n1" {
			note(err)
		}
		note(d.Release(soon(t), l))
	}
	if note(d.Announce(soon(t), "n1", "1", 10*time.Second)) {
		note(d.Announce(soon(t), "n1", "2", 10*time.Second))
		note(d.Announce(soon(t), "n1", "", 0))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Wait(ctx, now); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	return said
}

// TestPermissions holds docs/dcs.md to what a real Consul allows: all works with the policy that stands there, without
// any rule of it something fails, with a message that stands there too, and there is no other message.
func TestPermissions(t *testing.T) {
	t.Parallel()
	rules, messages := documented(t)
	s, raw := startWithACL(t)
	put(t, raw, "service/batman/leader", "n1")
	config := func(token string) Config { return Config{Address: s.address, Prefix: "service/batman/", Token: token} }
	all, _ := grant(t, raw, rules)
	if said := life(t, open(t, config(all))); len(said) > 0 {
		t.Errorf("with the documented policy: %q", said)
	}
	if said := life(t, open(t, config(mustToken(t, raw, `key_prefix "service/batman" { policy = "write" }`, `session_prefix "" { policy = "write" }`)))); len(said) > 0 {
		t.Errorf("with Patroni's policy: %q", said)
	}
	own := slices.Concat(rules[:len(rules)-1], []string{`session "test" { policy = "write" }`})
	if said := life(t, open(t, config(mustToken(t, raw, own...)))); len(said) > 0 {
		t.Errorf("with the node's sessions only: %q", said)
	}

	seen := map[string]bool{}
	see := func(what string, said []string, wants ...string) {
		t.Helper()
		t.Logf("%s:\n  %s", what, strings.Join(said, "\n  "))
		if len(said) == 0 {
			t.Errorf("%s: nothing failed", what)
		}
		for _, m := range said {
			seen[m] = true
			if !slices.Contains(messages, m) {
				t.Errorf("%s: docs/dcs.md does not have %q", what, m)
			}
		}
		for _, want := range wants {
			if !slices.ContainsFunc(said, func(m string) bool { return strings.Contains(m, want) }) {
				t.Errorf("%s: nothing names %s", what, want)
			}
		}
	}
	for i, gone := range rules {
		less := slices.Delete(slices.Clone(rules), i, i+1)
		see("without "+gone, life(t, open(t, config(mustToken(t, raw, less...)))), gone)
	}
	see("read only", life(t, open(t, config(mustToken(t, raw, `key_prefix "" { policy = "read" }`, `session_prefix "" { policy = "read" }`)))), "session_prefix")
	see("keys read only", life(t, open(t, config(mustToken(t, raw, `key_prefix "" { policy = "read" }`, `session_prefix "" { policy = "write" }`)))), "walbaton/baton", "walbaton/records/")
	see("another node's sessions", life(t, open(t, config(mustToken(t, raw, append(rules[:3:3], `session "other" { policy = "write" }`)...)))), "session_prefix")
	see("another scope", life(t, open(t, config(mustToken(t, raw, `key_prefix "service/batman2/" { policy = "write" }`, `session_prefix "" { policy = "write" }`)))), "service/batman/")
	_, err := open(t, config("99999999-2222-3333-4444-555555555555")).Read(soon(t))
	see("a token that is not there", []string{err.Error()})
	// Whoever has no token is not even told that keys were left out.
	if err := open(t, config("")).Announce(soon(t), "n1", "1", time.Minute); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without a token: %v", err)
	}

	for _, gone := range []int{1, 3} { // the baton's rule, the sessions' rule
		token, policy := grant(t, raw, rules)
		d := open(t, config(token))
		l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(soon(t), "n1", "1", time.Second); err != nil {
			t.Fatal(err)
		}
		regrant(t, raw, policy, slices.Delete(slices.Clone(rules), gone, gone+1))
		var said []string
		_, err = d.Claim(soon(t), l)
		for _, err := range []error{err, d.Announce(soon(t), "n1", "1", time.Second), d.Release(soon(t), l)} {
			if err != nil {
				said = append(said, err.Error())
			}
		}
		see("taken away: "+rules[gone], said, rules[gone])
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) { // it runs out
			r, err := d.Read(soon(t))
			if err != nil || time.Now().After(end) {
				t.Fatalf("%+v, %v; want the baton free", r.Baton, err)
			}
			if !r.Baton.Held() {
				break
			}
		}
	}
	for _, m := range messages {
		if !seen[m] {
			t.Errorf("docs/dcs.md has %q, which nothing says", m)
		}
	}
}

func mustToken(t *testing.T, raw *api.Client, rules ...string) string {
	t.Helper()
	token, _ := grant(t, raw, rules)
	return token
}

// TestListPolicy is about Consul's stricter mode, in which reading many keys is a right of its own.
func TestListPolicy(t *testing.T) {
	t.Parallel()
	rules, _ := documented(t)
	s, raw := startWithACL(t, `acl { enable_key_list_policy = true }`)
	put(t, raw, "service/batman/leader", "n1")
	config := func(token string) Config { return Config{Address: s.address, Prefix: "service/batman/", Token: token} }
	_, err := open(t, config(mustToken(t, raw, rules...))).Read(soon(t))
	if err == nil || !strings.Contains(err.Error(), `key_prefix "service/batman/" { policy = "list" }`) {
		t.Errorf("with read: %v, want the rule with list", err)
	}
	list := append([]string{strings.Replace(rules[0], "read", "list", 1)}, rules[1:]...)
	if said := life(t, open(t, config(mustToken(t, raw, list...)))); len(said) > 0 {
		t.Errorf("with list: %q", said)
	}
}
