//go:build servers

package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// grant is one permission on one znode.
type grant struct {
	path       string
	permission string
}

func (g grant) String() string {
	return fmt.Sprintf("permission denied: the ACL of %s lacks %s", g.path, g.permission)
}

func (g grant) bit() int32 {
	return map[string]int32{"READ": zk.PermRead, "WRITE": zk.PermWrite, "CREATE": zk.PermCreate, "DELETE": zk.PermDelete}[g.permission]
}

func (g grant) ephemeral() bool {
	return strings.HasSuffix(g.path, "/baton") || strings.Contains(g.path, "/records/")
}

// documented reads the table of docs/dcs.md.
func documented(t *testing.T) (all []grant) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/dcs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## ZooKeeper\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.Contains(cells[1], "`/") {
			continue
		}
		g := grant{strings.Split(cells[1], "`")[1], strings.TrimSpace(cells[2])}
		if want := "`" + g.String() + "`"; strings.TrimSpace(cells[4]) != want {
			t.Errorf("docs/dcs.md says %s, want %s", cells[4], want)
		}
		all = append(all, g)
	}
	return all
}

// place is a ZooKeeper whose administrator gives walbaton what is in grants, and nothing else.
type place struct {
	s      *server
	admin  raw
	grants []grant
	made   int // how many of our directories the administrator made
}

// directories of ours, from the top.
func directories() []string {
	return []string{"/walbaton", "/walbaton/service", "/walbaton/service/batman", "/walbaton/service/batman/records"}
}

func (p place) permissions(path string) (bits int32) {
	for _, g := range p.grants {
		if g.path == path {
			bits |= g.bit()
		}
	}
	return bits
}

func (p place) acl(path string) []zk.ACL {
	acl := zk.DigestACL(zk.PermAll, "admin", "top secret")
	if bits := p.permissions(path); bits != 0 {
		acl = append(acl, zk.DigestACL(bits, "walbaton", "pa$s")...)
	}
	return acl
}

// build makes everything anew.
func (p place) build(t *testing.T) {
	t.Helper()
	p.clear(t, "/walbaton")
	p.clear(t, "/service")
	if _, err := p.admin.SetACL("/", p.acl("/"), -1); err != nil {
		t.Fatal(err)
	}
	scope := "/service/batman"
	for _, path := range slices.Concat([]string{"/service", scope, scope + "/members", scope + "/optime", scope + "/leader", scope + "/members/n1",
		scope + "/status"}, directories()[:p.made]) {
		if _, err := p.admin.Create(path, []byte("{}"), 0, p.acl(path)); err != nil {
			t.Fatalf("create %s: %v", path, err)
		}
	}
}

func (p place) clear(t *testing.T, dir string) {
	t.Helper()
	names, _, err := p.admin.Children(dir)
	for _, name := range names {
		p.clear(t, path.Join(dir, name))
	}
	if err == nil {
		err = p.admin.Delete(dir, -1)
	}
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		t.Fatalf("clear %s: %v", dir, err)
	}
}

// client is a sidecar. The znodes that it makes carry what is granted on any of them.
func (p place) client(t *testing.T) *Client {
	own := int32(0)
	for _, g := range p.grants {
		if g.ephemeral() {
			own |= g.bit()
		}
	}
	if p.made < len(directories()) { // the same ACL is on the directories that it makes
		own |= zk.PermCreate | zk.PermDelete
	}
	acl := []ACL{{"digest", zk.DigestACL(0, "admin", "top secret")[0].ID, Read | Write | Create | Delete | Admin}}
	if own != 0 {
		acl = append(acl, ACL{"digest", zk.DigestACL(0, "walbaton", "pa$s")[0].ID, Permissions(own)})
	}
	return open(t, Config{Hosts: []string{p.s.address}, Prefix: "/service/batman/", Auth: []Auth{{"digest", "walbaton:pa$s"}}, ACL: acl})
}

// everything is all that sidecars do.
func (p place) everything(t *testing.T) error {
	d, next, peer := p.client(t), p.client(t), p.client(t)
	var errs []error
	note := func(err error) {
		var held *dcs.HeldError
		if err != nil && !errors.As(err, &held) {
			errs = append(errs, err)
		}
	}
	ctx := soon(t)
	long := time.Minute
	take := func(d *Client, holder string) dcs.Lease {
		l, err := d.Claim(ctx, dcs.Lease{Holder: holder, TTL: long})
		note(err)
		return l
	}
	note(peer.Announce(ctx, "n2", "1", long))
	now, err := d.Read(ctx)
	note(err)
	if l := take(d, "n1"); l.Epoch != 0 {
		_, err := d.Claim(ctx, l)
		note(err)
		take(peer, "n2")
		note(d.Release(ctx, l))
	}
	l := take(peer, "n2")
	take(d, "n1")
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := d.Wait(short, now); !errors.Is(err, context.DeadlineExceeded) {
		note(err)
	}
	_, err = d.Read(ctx)
	note(err)
	note(peer.Release(ctx, l))
	note(d.Announce(ctx, "n1", "1", long))
	note(d.Announce(ctx, "n1", "2", long))
	note(next.Announce(ctx, "n1", "3", long))
	_, err = d.Read(ctx)
	note(err)
	note(next.Announce(ctx, "n1", "", 0))
	for _, c := range []*Client{d, next, peer} {
		note(c.Close())
	}
	return errors.Join(errs...)
}

// TestPermissions runs everything with exactly the permissions of docs/dcs.md, and without each in
// turn.
func TestPermissions(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	admin := s.raw(t)
	if err := admin.AddAuth("digest", []byte("admin:top secret")); err != nil {
		t.Fatal(err)
	}
	all := documented(t)
	if len(all) < 10 {
		t.Fatalf("docs/dcs.md has %d permissions", len(all))
	}
	top := func(g grant) bool {
		return g.permission == "CREATE" && slices.Contains([]string{"/", "/walbaton", "/walbaton/service"}, g.path)
	}
	below := slices.DeleteFunc(slices.Clone(all), top)
	p := place{s: s, admin: admin, grants: below, made: len(directories())}
	p.build(t)
	if err := p.everything(t); err != nil {
		t.Errorf("with exactly what is documented: %v", err)
	}
	for _, g := range all {
		p := place{s: s, admin: admin, grants: below, made: len(directories())}
		if top(g) { // everything below has to be made
			p.made = slices.Index(append([]string{"/"}, directories()...), g.path)
			p.grants = append(slices.Clone(below), g)
			p.build(t)
			if err := p.everything(t); err != nil {
				t.Errorf("directories below %s are to be made: %v", g.path, err)
			}
		}
		p.grants = slices.DeleteFunc(slices.Clone(p.grants), func(x grant) bool {
			return x == g || x.ephemeral() && g.ephemeral() && x.permission == g.permission // one ACL
		})
		p.build(t)
		if err := p.everything(t); err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error()+"\n", g.String()+"\n") {
			t.Errorf("without %s on %s: %v", g.permission, g.path, err)
		}
	}
	p.build(t)
	nobody := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/", Auth: []Auth{{"digest", "walbaton:secret"}}})
	if _, err := nobody.Read(soon(t)); !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "secret") {
		t.Errorf("with a wrong password: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	odd := open(t, Config{Hosts: []string{s.address}, Prefix: "/service/batman/", Auth: []Auth{{"unheard", "x:secret"}}})
	if _, err := odd.Read(ctx); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "unheard") {
		t.Errorf("with an unknown scheme: %v", err)
	}
}
