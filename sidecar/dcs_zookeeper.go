package main

import (
	"context"
	"net/http"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/zookeeper"
	"github.com/walbaton/walbaton/leader/patroni"
)

// openZooKeeper takes the section zookeeper or exhibitor. It does not connect, but asks
// Exhibitor for the hosts.
func openZooKeeper(cfg Config) (dcs.DCS, error) {
	p := cfg.Patroni
	z := p.DCS.ZooKeeper
	hosts := z.Hosts
	if len(z.Exhibitors) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), dnsTimeout)
		defer cancel()
		var err error
		if hosts, err = zookeeper.Discover(ctx, http.DefaultClient, z.Exhibitors); err != nil {
			return nil, configError("patroni_config", "%w", err)
		}
	}
	c := zookeeper.Config{Hosts: hosts, Chroot: z.Chroot, Prefix: p.Path()}
	if z.UseSSL {
		c.TLS = &zookeeper.TLS{CACert: z.CACert, Cert: z.Cert, Key: z.Key, KeyPassword: z.KeyPassword, Insecure: !z.Verify}
	}
	for _, a := range z.Auth {
		c.Auth = append(c.Auth, zookeeper.Auth(a))
	}
	for _, a := range z.ACLs {
		c.ACL = append(c.ACL, zookeeper.ACL{Scheme: a.Scheme, ID: a.ID, Permissions: zookeeperPermissions(a)})
	}
	d, err := zookeeper.New(c)
	if err != nil {
		return nil, withHint(configError("patroni_config", "%w", err),
			"see the section "+p.DCS.Kind+" of Patroni's configuration; this user must be able to read the files that it names")
	}
	return d, nil
}

func zookeeperPermissions(a patroni.ZooKeeperACL) (all zookeeper.Permissions) {
	names := map[string]zookeeper.Permissions{
		"READ": zookeeper.Read, "WRITE": zookeeper.Write, "CREATE": zookeeper.Create, "DELETE": zookeeper.Delete, "ADMIN": zookeeper.Admin,
		"ALL": zookeeper.Read | zookeeper.Write | zookeeper.Create | zookeeper.Delete | zookeeper.Admin,
	}
	for _, p := range a.Permissions {
		all |= names[p]
	}
	return all
}
