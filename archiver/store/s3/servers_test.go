//go:build servers

package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

type starter = func(context.Context, servers.Options) (*servers.Server, error)

func start(t *testing.T, start starter, tls bool) *servers.Server {
	t.Helper()
	server, err := start(t.Context(), servers.Options{Dir: t.TempDir(), TLS: tls, Buckets: []string{"wal"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// 5 MiB is the smallest part that servers take, other than the last.
var options = s3.Options{AccessKey: servers.AccessKey, SecretKey: servers.SecretKey, MultipartAbove: 4 << 20, PartSize: 5 << 20}

func openOn(t *testing.T, server *servers.Server, bucket, prefix string, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), server.URL(bucket, prefix), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServers(t *testing.T) {
	for name, run := range map[string]starter{"versitygw": servers.VersityGW, "MinIO": servers.MinIO} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tls=%v", name, tls), func(t *testing.T) {
				server := start(t, run, tls)
				var n atomic.Int64
				storetest.Run(t, func(t *testing.T) (a, b store.Store) {
					prefix := fmt.Sprintf("prefix %d", n.Add(1))
					return openOn(t, server, "wal", prefix, options), openOn(t, server, "wal", prefix, options)
				}, storetest.Options{Large: 6 << 20, Broken: map[string]storetest.Broken{
					"wrong access key": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
						return openOn(t, server, "wal", "", s3.Options{AccessKey: "nobody", SecretKey: servers.SecretKey})
					}},
					"wrong secret": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
						return openOn(t, server, "wal", "", s3.Options{AccessKey: servers.AccessKey, SecretKey: "wrong-secret"})
					}},
					"missing bucket": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
						return openOn(t, server, "other", "", options)
					}},
				}})
			})
		}
	}
}

// rclone serves S3 and ignores the condition: the proof must see it, each way.
func TestProofRefusesRclone(t *testing.T) {
	s := openOn(t, start(t, servers.Rclone, false), "wal", "prefix", options)
	for _, v := range s.Variants(16 << 20) {
		err := store.Prove(t.Context(), v.Store, "scope/1", 0)
		if !errors.Is(err, store.ErrNotExclusive) {
			t.Errorf("%s: got %v, want ErrNotExclusive", v.Name, err)
		}
	}
	err := store.Prove(t.Context(), store.Retry(s, store.Backoff{}), "scope/1", 16<<20)
	if !errors.Is(err, store.ErrNotExclusive) {
		t.Errorf("decorated: got %v, want ErrNotExclusive", err)
	}
	t.Log(err)
}

// A server that is down says nothing about keys, and one that comes back is used again.
func TestServerComesBack(t *testing.T) {
	o := servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}}
	server, err := servers.VersityGW(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := openOn(t, server, "wal", "", options)
	if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
		t.Error(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "key"); err == nil || isKind(err) {
		t.Errorf("head of a killed server: got %v, want an error without a kind", err)
	}
	o.Address = server.Address
	if server, err = servers.VersityGW(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	if err := store.Retry(s, store.Backoff{}).Put(t.Context(), "key", strings.NewReader("data")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put after the restart: got %v, want fs.ErrExist", err)
	}
}

// Through TLS the driver trusts what it was told to, and nothing else.
func TestUnknownAuthority(t *testing.T) {
	server := start(t, servers.VersityGW, true)
	trusted := server.CAFile
	server.CAFile = ""
	s := openOn(t, server, "wal", "", options)
	if err := s.Put(t.Context(), "key", strings.NewReader("data")); err == nil || isKind(err) {
		t.Errorf("put without ca_file: got %v, want a certificate error", err)
	}
	if _, err := os.Stat(filepath.Clean(trusted)); err != nil {
		t.Error(err)
	}
}
