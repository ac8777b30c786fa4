package patroni

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ZooKeeper is the section "zookeeper", or "exhibitor", which has the same options but finds the
// hosts by asking Exhibitor (patroni/dcs/zookeeper.py and exhibitor.py of 2.1 to 4.1).
type ZooKeeper struct {
	Hosts       []string // host:port, default port 2181
	Chroot      string   // what stands behind the last host: "" or "/path"
	Exhibitors  []string // host:port to ask for the hosts, when Hosts is empty
	UseSSL      bool
	CACert      string
	Cert        string
	Key         string
	KeyPassword string
	Verify      bool // the servers' certificates; true unless it is switched off
	ACLs        []ZooKeeperACL
	Auth        []ZooKeeperAuth
}

// ZooKeeperACL is one entry of set_acls, which everything that Patroni creates gets. Without
// entries everybody may do everything.
type ZooKeeperACL struct {
	Scheme      string   // x509, unless the key says another (from 4.2 on)
	ID          string   // for x509 the subject of a certificate
	Permissions []string // of CREATE, READ, WRITE, DELETE, ADMIN, ALL
}

// ZooKeeperAuth is one entry of auth_data (from 3.3 on).
type ZooKeeperAuth struct{ Scheme, Credential string }

func zookeeperOf(s section) (ZooKeeper, error) {
	z := zookeeperOptions(s)
	hosts, chroot, found := strings.Cut(strings.Join(s.list("hosts"), ","), "/")
	for h := range strings.SplitSeq(hosts, ",") {
		if h = strings.TrimSpace(h); h != "" {
			z.Hosts = append(z.Hosts, join(splitHostPort(h, 2181)))
		}
	}
	if found && strings.Trim(chroot, "/") != "" {
		z.Chroot = "/" + strings.Trim(chroot, "/")
	}
	if len(z.Hosts) == 0 {
		return z, errors.New("no hosts in it")
	}
	return z, nil
}

func exhibitorOf(s section) (ZooKeeper, error) {
	z := zookeeperOptions(s)
	port, err := strconv.ParseUint(s.text("port"), 10, 16)
	if err != nil {
		return z, fmt.Errorf("port %q is not a port", s.text("port"))
	}
	for _, h := range s.list("hosts") {
		if h != "" {
			z.Exhibitors = append(z.Exhibitors, join(strings.Trim(h, "[]"), int(port)))
		}
	}
	if len(z.Exhibitors) == 0 {
		return z, errors.New("no hosts in it")
	}
	return z, nil
}

func zookeeperOptions(s section) ZooKeeper {
	z := ZooKeeper{
		UseSSL:      s.boolean("use_ssl"),
		CACert:      s.text("cacert"),
		Cert:        s.text("cert"),
		Key:         s.text("key"),
		KeyPassword: s.text("key_password"),
		Verify:      s.text("verify") == "" || s.boolean("verify"),
	}
	acls := s.section("set_acls")
	for _, principal := range slices.Sorted(maps.Keys(acls)) {
		a := ZooKeeperACL{Scheme: "x509", ID: principal}
		if scheme, id, ok := strings.Cut(principal, ":"); ok {
			a.Scheme, a.ID = scheme, id
		}
		for _, p := range acls.list(principal) {
			a.Permissions = append(a.Permissions, strings.ToUpper(p))
		}
		z.ACLs = append(z.ACLs, a)
	}
	auth := s.section("auth_data")
	for _, scheme := range slices.Sorted(maps.Keys(auth)) {
		z.Auth = append(z.Auth, ZooKeeperAuth{Scheme: scheme, Credential: auth.text(scheme)})
	}
	return z
}
