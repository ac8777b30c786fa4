package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/etcd"
	"github.com/walbaton/walbaton/leader/dcs/rest"
	"github.com/walbaton/walbaton/leader/dcs/static"
	"github.com/walbaton/walbaton/leader/patroni"
)

// openStore opens the archive that a URL names and puts around it what every store needs: a limit for
// silence, counters, and further tries. It does not ask the store yet. metrics may be nil.
func openStore(ctx context.Context, rawURL string, cfg Config, metrics *store.Metrics, log *slog.Logger) (store.Store, error) {
	s, err := openDriver(ctx, rawURL, cfg.Archive)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return surround(s, cfg, metrics, log), nil
}

func surround(s store.Store, cfg Config, metrics *store.Metrics, log *slog.Logger) store.Store {
	s = store.Stall(s, cfg.StallTimeout)
	if metrics != nil {
		s = store.Meter(s, metrics) // inside Retry: each try is a request
	}
	return store.Retry(s, store.Backoff{Log: log})
}

func openDriver(ctx context.Context, rawURL string, a ArchiveConfig) (store.Store, error) {
	scheme, _, found := strings.Cut(rawURL, ":")
	if !found {
		scheme = ""
	}
	switch scheme {
	case "file", "":
		s, err := file.Open(rawURL)
		if err != nil {
			return nil, withHint(err, "an archive is file:///absolute/folder or s3://bucket/prefix")
		}
		return s, nil
	case "s3":
		s, err := s3.Open(ctx, rawURL, s3.Options{AccessKey: a.AccessKeyID, SecretKey: a.SecretAccessKey})
		if err != nil {
			return nil, withHint(err, "an archive in S3 is s3://bucket/prefix?region=NAME, or with &endpoint=https://host:port of another server; docs/configuration.md has all keys")
		}
		return s, nil
	case "sftp", "gcs", "gs", "azure", "azblob":
		return nil, withHint(fmt.Errorf("open archive: %s is not yet in this version", scheme), storeHint)
	}
	return nil, withHint(fmt.Errorf("open archive: nothing is known of %q", scheme+":"), storeHint)
}

const storeHint = "what works: file:///absolute/folder and s3://bucket/prefix, also with ?endpoint= of a server that speaks S3"

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
		e := p.DCS.Etcd3
		endpoints := e.Endpoints()
		if len(endpoints) == 0 && e.SRV != "" {
			ctx, cancel := context.WithTimeout(context.Background(), dnsTimeout)
			defer cancel()
			var err error
			if endpoints, err = etcd.Discover(ctx, net.DefaultResolver.LookupSRV, e.SRV, e.SRVSuffix); err != nil {
				return nil, configError("patroni_config", "%w", err)
			}
		}
		d, err := etcd.New(etcd.Config{Endpoints: endpoints, Prefix: p.Path(), Username: e.Username, Password: e.Password, CACert: e.CACert, Cert: e.Cert, Key: e.Key})
		if err != nil {
			return nil, withHint(configError("patroni_config", "%w", err), "see the section etcd3 of Patroni's configuration; this user must be able to read the files that it names")
		}
		return d, nil
	case "consul":
		return openConsul(cfg)
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

// dnsTimeout is for finding etcd in DNS, once.
const dnsTimeout = 10 * time.Second

const dcsHint = "what works: a section etcd3, consul, kubernetes or zookeeper in Patroni's configuration; --dcs-kind rest, which reads Patroni's REST API and has no baton; --dcs-kind static for a single PostgreSQL without Patroni"

// restHint names the way out where nobody but Patroni can read the DCS.
const restHint = "give --dcs-kind rest: then Patroni's REST API is read, and there is no baton: the running primary ships"

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
