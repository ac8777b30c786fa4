package main

import (
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
	"github.com/walbaton/walbaton/leader/dcs/static"
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
// but asks DNS where the configuration has etcd found there.
func openDCS(cfg Config) (dcs.DCS, error) {
	if cfg.static() {
		return static.New(cfg.Name, ""), nil
	}
	p := cfg.Patroni
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
	case "etcd":
		return nil, withHint(configError("patroni_config", "Patroni uses etcd by its old API (section etcd), which keeps its keys apart from those of the new one"),
			"rename the section etcd to etcd3 on every node, as Patroni's documentation describes; "+dcsHint)
	case "kubernetes":
		return openKubernetes(cfg)
	case "":
		return nil, withHint(configError("patroni_config", "Patroni's configuration names no DCS"), dcsHint)
	}
	return nil, withHint(configError("patroni_config", "Patroni uses %s, which is not yet in this version", p.DCS.Kind), dcsHint)
}

// dnsTimeout is for finding etcd in DNS, once.
const dnsTimeout = 10 * time.Second

const dcsHint = "what works: a section etcd3 with hosts or a section kubernetes in Patroni's configuration; --dcs-kind static for a single PostgreSQL without Patroni"
