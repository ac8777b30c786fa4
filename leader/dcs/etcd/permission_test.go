//go:build servers

package etcd

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/leader/dcs"
)

// grant is one permission of a role, as docs/dcs.md has it.
type grant struct {
	key    string
	prefix bool
	kind   clientv3.PermissionType
}

// documented reads the permissions and the messages of the section etcd of docs/dcs.md.
func documented(t *testing.T) (grants []grant, messages []string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## etcd\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile(`grant-permission walbaton (--prefix=true )?(read|readwrite) (\S+)`).FindAllStringSubmatch(section, -1) {
		g := grant{key: m[3], prefix: m[1] != "", kind: clientv3.PermissionType(clientv3.PermRead)}
		if m[2] == "readwrite" {
			g.kind = clientv3.PermissionType(clientv3.PermReadWrite)
		}
		grants = append(grants, g)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		messages = append(messages, m[1])
	}
	if len(grants) < 3 || len(messages) < 5 {
		t.Fatalf("docs/dcs.md has %d permissions and %d messages for etcd", len(grants), len(messages))
	}
	return grants, messages
}

// user makes a user whose role has these permissions.
func user(t *testing.T, root *clientv3.Client, name string, grants []grant) {
	t.Helper()
	add := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u, err := root.UserAdd(soon(t), name, "secret")
	add(u, err)
	r, err := root.RoleAdd(soon(t), name)
	add(r, err)
	for _, g := range grants {
		end := ""
		if g.prefix {
			end = clientv3.GetPrefixRangeEnd(g.key)
		}
		p, err := root.RoleGrantPermission(soon(t), name, g.key, end, g.kind)
		add(p, err)
	}
	o, err := root.UserGrantRole(soon(t), name, name)
	add(o, err)
}

// life does everything that a sidecar does, and gives what was refused.
func life(t *testing.T, d *Client) (said []string) {
	t.Helper()
	see := func(err error) {
		if err != nil {
			said = append(said, err.Error())
		}
	}
	r, err := d.Read(soon(t))
	see(err)
	if err == nil {
		if n := r.Nodes["leader"].Value; n != "n1" {
			t.Errorf("read %q", n)
		}
	}
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 5 * time.Second})
	see(err)
	if err == nil {
		_, err = d.Claim(soon(t), l)
		see(err)
	}
	for _, value := range []string{"1", "2", "2"} {
		see(d.Announce(soon(t), "n1", value, 5*time.Second))
	}
	see(d.Announce(soon(t), "n1", "", 0))
	see(d.Release(soon(t), l))
	return slices.Compact(said)
}

// TestPermissions holds docs/dcs.md to what a real etcd allows: all works with the role that stands there, without any
// permission of it something fails, with a message that stands there too, and there is no other message.
func TestPermissions(t *testing.T) {
	t.Parallel()
	grants, messages := documented(t)
	s := startServer(t, nil)
	raw := s.raw(t)
	put(t, raw, "/service/batman/leader", "n1")
	administrator(t, raw)
	config := func(user, password string) Config {
		return Config{Endpoints: []string{s.url}, Prefix: "/service/batman/", Username: user, Password: password}
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{s.url}, Username: "root", Password: "top secret", DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	user(t, root, "exactly", grants)
	if said := life(t, open(t, config("exactly", "secret"))); len(said) > 0 {
		t.Errorf("with the documented role: %q", said)
	}
	if said := life(t, open(t, config("patroni", "pa$s"))); len(said) > 0 {
		t.Errorf("with Patroni's role: %q", said)
	}
	seen := map[string]bool{}
	see := func(what string, said []string, want string) {
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
			if !strings.Contains(m, want) {
				t.Errorf("%s: %q does not name %s", what, m, want)
			}
		}
	}
	for i, gone := range grants {
		name := "without" + gone.key
		user(t, root, name, slices.Delete(slices.Clone(grants), i, i+1))
		see("without "+gone.key, life(t, open(t, config(name, "secret"))), gone.key)
	}
	// Taken away from a holder.
	user(t, root, "holder", grants)
	d := open(t, config("holder", "secret"))
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.RoleRevokePermission(soon(t), "holder", "/service/batman/walbaton/baton", ""); err != nil {
		t.Fatal(err)
	}
	see("taken away", []string{d.Release(soon(t), l).Error()}, "release baton")
	for name, c := range map[string]Config{"wrong password": config("exactly", "x"), "no user": config("", "")} {
		_, err := open(t, c).Read(soon(t))
		see(name, []string{err.Error()}, "read scope")
	}
	for _, m := range messages {
		if !seen[m] {
			t.Errorf("docs/dcs.md has %q, which never came", m)
		}
	}
}
