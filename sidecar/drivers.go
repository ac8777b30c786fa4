package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/azure"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/store/gcs"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/sftp"
)

// openStore opens the archive that a URL names and puts around it what every store needs: a limit for
// silence, counters, and further tries. It does not ask the store yet. metrics may be nil.
//
// bandwidth is nil when there is no limit.
func openStore(ctx context.Context, rawURL string, cfg Config, metrics *store.Metrics, bandwidth *store.Bandwidth, log *slog.Logger) (store.Store, error) {
	s, err := openDriver(ctx, rawURL, cfg.Archive)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	if bandwidth != nil {
		s = store.Limit(s, bandwidth)
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
	case "sftp":
		s, err := sftp.Open(rawURL, sftp.Options{})
		if err != nil {
			return nil, withHint(err, "an archive on an SSH server is sftp://user@host:port/absolute/path?key_file=/path/of/the/private/key; docs/stores.md has all keys")
		}
		return s, nil
	case "gcs", "gs":
		s, err := gcs.Open(ctx, rawURL, gcs.Options{})
		if err != nil {
			return nil, withHint(err, "an archive at Google is gcs://bucket/prefix, also with ?credentials_file=/path/key.json; docs/stores.md has all keys")
		}
		return s, nil
	case "azure", "azblob":
		s, err := azure.Open(rawURL, azure.Options{AccountKey: a.AccountKey, SASToken: a.SASToken})
		if err != nil {
			return nil, withHint(err, "an archive in Azure is azure://account/container/prefix, with sas_token_file or account_key_file, or an identity of this machine; docs/stores.md has all keys")
		}
		return s, nil
	}
	return nil, withHint(fmt.Errorf("open archive: nothing is known of %q", scheme+":"), storeHint)
}

const storeHint = "what works: file:///absolute/folder, s3://bucket/prefix, sftp://user@host/absolute/path, gcs://bucket/prefix and azure://account/container/prefix; docs/stores.md has their keys"
