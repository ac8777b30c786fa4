package main

import (
	"context"
	"net"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/etcd"
)

// dnsTimeout is for finding etcd in DNS, once.
const dnsTimeout = 10 * time.Second

// openEtcd makes a client of etcd's v3 API, which Patroni calls etcd3.
func openEtcd(cfg Config) (dcs.DCS, error) {
	e := cfg.Patroni.DCS.Etcd3
	endpoints := e.Endpoints()
	if len(endpoints) == 0 && e.SRV != "" {
		ctx, cancel := context.WithTimeout(context.Background(), dnsTimeout)
		defer cancel()
		var err error
		if endpoints, err = etcd.Discover(ctx, net.DefaultResolver.LookupSRV, e.SRV, e.SRVSuffix); err != nil {
			return nil, configError("patroni_config", "%w", err)
		}
	}
	d, err := etcd.New(etcd.Config{Endpoints: endpoints, Prefix: cfg.Patroni.Path(), Username: e.Username, Password: e.Password, CACert: e.CACert, Cert: e.Cert, Key: e.Key})
	if err != nil {
		return nil, withHint(configError("patroni_config", "%w", err), "see the section etcd3 of Patroni's configuration; this user must be able to read the files that it names")
	}
	return d, nil
}
