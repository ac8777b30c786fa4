//go:build servers

package gcs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/gcs"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

func start(t *testing.T, run func(context.Context, servers.Options) (*servers.Server, error), o servers.Options) *servers.Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Buckets = []string{"wal"}
	server, err := run(t.Context(), o)
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

func openOn(t *testing.T, server *servers.Server, bucket, prefix, more string) *gcs.Store {
	t.Helper()
	s, err := gcs.Open(t.Context(), server.CloudURL("gcs://"+bucket, prefix)+more, gcs.Options{ResumableAbove: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServers(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", tls), func(t *testing.T) {
			server, more := start(t, servers.FakeGCSInMemory, servers.Options{TLS: tls}), ""
			if tls { // the fake asks for no token, and the driver would send none without credentials
				more = "&credentials_file=" + url.QueryEscape(serviceAccount(t, newStub(t).server.URL+"/token"))
			}
			var n atomic.Int64
			storetest.Run(t, func(t *testing.T) (a, b store.Store) {
				prefix := fmt.Sprintf("prefix %d", n.Add(1))
				return openOn(t, server, "wal", prefix, more), openOn(t, server, "wal", prefix, more)
			}, storetest.Options{Large: 6 << 20, Broken: map[string]storetest.Broken{
				"missing bucket": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store { return openOn(t, server, "other", "", more) }},
			}})
		})
	}
}

// The faults of TestRecovery, with a server that keeps sessions and conditions as Google's does.
func TestServerRecovers(t *testing.T) {
	const small, large = 1 << 20, 20 << 20
	server := start(t, servers.FakeGCSInMemory, servers.Options{})
	for i, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil
	}{
		{"reset in the middle of a put", small, storetest.Spoil{ResetBefore: small / 2}},
		{"reset in the middle of a chunk", large, storetest.Spoil{ResetBefore: 100 << 10}},
		{"answers lost", small, storetest.Spoil{ResetAfter: true}},
		{"answers lost of a large put", large, storetest.Spoil{ResetAfter: true}},
		{"answers cut", small, storetest.Spoil{CutAnswer: 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := storetest.NewProxy(t, server.Endpoint)
			through := *server
			through.Endpoint = proxy.URL
			storetest.Recovers(t, proxy, openOn(t, &through, "wal", fmt.Sprint("recovers ", i), ""), test.size, test.spoil, func(r storetest.Request) string {
				return r.Method + r.Query.Get("uploadType") + r.Query.Get("alt") + r.Header.Get("Content-Range")
			})
		})
	}
}

// A server that is down says nothing about keys, and one that comes back is used again.
func TestServerComesBack(t *testing.T) {
	o := servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}}
	server, err := servers.FakeGCS(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := openOn(t, server, "wal", "", "")
	if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
		t.Error(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "key"); !storetest.Is(err, storetest.ErrUnclear) {
		t.Errorf("head of a killed server: got %v, want an error without a kind", err)
	}
	o.Address = server.Address
	start(t, servers.FakeGCS, o)
	if err := store.Retry(s, store.Backoff{}).Put(t.Context(), "key", strings.NewReader("data")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put after the restart: got %v, want fs.ErrExist", err)
	}
}

// What was damaged on the way does not become an object: the server looks at the checksum, in either way to put.
func TestServerChecks(t *testing.T) {
	server := start(t, servers.FakeGCSInMemory, servers.Options{})
	to, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	through := *server
	damage := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		body, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Error(err)
		}
		r.Out.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("0123"), []byte("O123"), 1)))
	}, ModifyResponse: func(answer *http.Response) error { // the chunks of an upload come here, too
		if at := answer.Header.Get("Location"); at != "" {
			answer.Header.Set("Location", through.Endpoint+strings.TrimPrefix(at, server.Endpoint))
		}
		return nil
	}}
	proxy := httptest.NewServer(damage)
	defer proxy.Close()
	through.Endpoint = proxy.URL
	for _, v := range openOn(t, &through, "wal", "damaged", "").Variants(1 << 30) {
		err := v.Store.Put(t.Context(), v.Name, bytes.NewReader(bytes.Repeat([]byte("0123456789"), 1000)))
		if !storetest.Is(err, storetest.ErrUnclear) {
			t.Errorf("%s: got %v, want an error without a kind", v.Name, err)
		}
		if _, err := openOn(t, server, "wal", "damaged", "").Head(t.Context(), v.Name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: head: got %v, want fs.ErrNotExist", v.Name, err)
		}
	}
}
