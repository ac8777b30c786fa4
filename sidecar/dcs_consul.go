package main

import (
	"strings"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/consul"
)

// openConsul opens the scope at the agent that Patroni asks.
func openConsul(cfg Config) (dcs.DCS, error) {
	c := cfg.Patroni.DCS.Consul
	d, err := consul.New(consul.Config{
		Address: c.Address, Scheme: c.Scheme, Prefix: strings.TrimPrefix(cfg.Patroni.Path(), "/"), Token: c.Token, Datacenter: c.Datacenter,
		CACert: c.CACert, Cert: c.Cert, Key: c.Key, Insecure: c.Insecure,
	})
	if err != nil {
		return nil, withHint(configError("patroni_config", "%w", err), "see the section consul of Patroni's configuration; this user must be able to read the files that it names")
	}
	return d, nil
}
