package main

import (
	"cmp"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/rest"
	"github.com/walbaton/walbaton/leader/patroni"
)

// openREST takes what patronictl takes for requests to a REST API: its own section, and what it lacks from restapi
// (patroni/request.py).
func openREST(member string, p patroni.Config) (dcs.DCS, error) {
	c := rest.Config{Member: member, Scope: p.Scope, URL: p.RestAPI.URL(), Insecure: p.Ctl.Insecure,
		CACert: cmp.Or(p.Ctl.CACert, p.RestAPI.CAFile), Cert: p.Ctl.CertFile, Key: p.Ctl.KeyFile}
	if c.Cert == "" {
		c.Cert, c.Key = p.RestAPI.CertFile, p.RestAPI.KeyFile
	}
	if c.URL == "" {
		return nil, withHint(configError("patroni_config", "Patroni's configuration has no restapi.listen or restapi.connect_address"), "--dcs-kind rest asks this Patroni's REST API, so its address must be known")
	}
	d, err := rest.New(c)
	if err != nil {
		return nil, withHint(configError("patroni_config", "%w", err), "see the sections restapi and ctl of Patroni's configuration; this user must be able to read the files that they name")
	}
	return d, nil
}
