package main

import (
	"strings"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/static"
)

// openDCS opens the store that Patroni's configuration names. It does not connect yet,
// but asks DNS where the configuration has etcd found there, and Exhibitor where ZooKeeper.
func openDCS(cfg Config) (dcs.DCS, error) {
	if cfg.static() {
		return static.New(cfg.Name, ""), nil
	}
	p := cfg.Patroni
	if cfg.rest() {
		return openREST(cfg.Name, p)
	}
	switch p.DCS.Kind {
	case "etcd3":
		return openEtcd(cfg)
	case "consul":
		return openConsul(cfg)
	case "kubernetes":
		return openKubernetes(cfg)
	case "zookeeper", "exhibitor":
		return openZooKeeper(cfg)
	case "etcd":
		return nil, withHint(configError("patroni_config", "Patroni uses etcd by its old API (section etcd), which keeps its keys apart from those of the new one"),
			"rename the section etcd to etcd3 on every node, as Patroni's documentation describes; or "+restHint)
	case "raft":
		return nil, withHint(configError("patroni_config", "Patroni keeps its keys to itself (section raft)"), restHint)
	case "":
		return nil, withHint(configError("patroni_config", "Patroni's configuration names no DCS"), dcsHint)
	}
	return nil, withHint(configError("patroni_config", "Patroni uses %s, which is not yet in this version", p.DCS.Kind), dcsHint)
}

// withRights adds to what a driver says of a right that is missing where all of them stand.
func withRights(reason string) string {
	if strings.Contains(reason, "permission denied") {
		reason += " (docs/dcs.md has all that the sidecar must be allowed, and what to type)"
	}
	return reason
}

const dcsHint = "what works: a section etcd3, consul, kubernetes or zookeeper in Patroni's configuration; --dcs-kind rest, which reads Patroni's REST API and has no baton; --dcs-kind static for a single PostgreSQL without Patroni"

// restHint names the way out where nobody but Patroni can read the DCS.
const restHint = "give --dcs-kind rest: then Patroni's REST API is read, and there is no baton: the running primary ships"
