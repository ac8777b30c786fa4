//go:build servers

package azure_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/azure"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

func start(t *testing.T, o servers.Options) *servers.Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Buckets = []string{"wal"}
	server, err := servers.Azurite(t.Context(), o)
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

var withKey = azure.Options{AccountKey: servers.AzureAccountKey, BlocksAbove: 4 << 20, BlockSize: 1 << 20}

func openOn(t *testing.T, server *servers.Server, container, prefix string, o azure.Options) *azure.Store {
	t.Helper()
	return open(t, server.CloudURL("azure://"+servers.AzureAccount+"/"+container, prefix), o)
}

func TestServer(t *testing.T) {
	server := start(t, servers.Options{})
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		prefix := fmt.Sprintf("prefix %d", n.Add(1))
		return openOn(t, server, "wal", prefix, withKey), openOn(t, server, "wal", prefix, withKey)
	}, storetest.Options{Large: 6 << 20, Broken: map[string]storetest.Broken{
		"missing container": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store { return openOn(t, server, "other", "", withKey) }},
		"wrong key": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
			return openOn(t, server, "wal", "", azure.Options{AccountKey: accountKey})
		}},
		"wrong token": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
			return openOn(t, server, "wal", "", azure.Options{SASToken: sasToken})
		}},
	}})
}

// Through TLS the driver does the same, and trusts what it was told to and nothing else.
func TestServerTLS(t *testing.T) {
	server := start(t, servers.Options{TLS: true})
	s := openOn(t, server, "wal", "", withKey)
	if err := store.Prove(t.Context(), s, "tls", 1<<30); err != nil {
		t.Error(err)
	}
	for key, size := range map[string]int{"small": 1 << 20, "large": 6 << 20, "empty": 0} {
		if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, size))); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if err := storetest.Read(s.Get(t.Context(), key, 0, -1)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	server.CAFile = ""
	err := openOn(t, server, "wal", "", withKey).Put(t.Context(), "key", strings.NewReader("data"))
	if !storetest.Is(err, storetest.ErrUnclear) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("put without ca_file: got %v, want a certificate error", err)
	}
}

// The faults of TestRecovery, with a server that keeps blocks and conditions as Azure does.
func TestServerRecovers(t *testing.T) {
	const small, large = 1 << 20, 6 << 20
	server := start(t, servers.Options{})
	for i, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil
	}{
		{"reset in the middle of a put", small, storetest.Spoil{ResetBefore: small / 2}},
		{"reset in the middle of a block", large, storetest.Spoil{ResetBefore: 100 << 10}},
		{"answers lost", small, storetest.Spoil{ResetAfter: true}},
		{"answers lost of a large put", large, storetest.Spoil{ResetAfter: true}},
		{"answers cut", small, storetest.Spoil{CutAnswer: 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := storetest.NewProxy(t, "http://"+server.Address)
			through := *server
			through.Endpoint = proxy.URL + "/" + servers.AzureAccount
			s := openOn(t, &through, "wal", fmt.Sprint("recovers ", i), withKey)
			storetest.Recovers(t, proxy, s, test.size, test.spoil, func(r storetest.Request) string { return r.Method + r.Query.Get("comp") })
		})
	}
}

// A server that is down says nothing about keys, and one that comes back is used again.
func TestServerComesBack(t *testing.T) {
	o := servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}}
	server, err := servers.Azurite(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := openOn(t, server, "wal", "", withKey)
	if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
		t.Error(err)
	}
	if err := server.Stop(); err != nil { // killed, it may forget: it writes its index behind
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "key"); !storetest.Is(err, storetest.ErrUnclear) {
		t.Errorf("head of a stopped server: got %v, want an error without a kind", err)
	}
	o.Address = server.Address
	start(t, o)
	if err := store.Retry(s, store.Backoff{}).Put(t.Context(), "key", strings.NewReader("data")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put after the restart: got %v, want fs.ErrExist", err)
	}
}

// What was damaged on the way does not become a blob: the server looks at the MD5, in either way to put.
func TestServerChecks(t *testing.T) {
	server := start(t, servers.Options{})
	at, err := url.Parse("http://" + server.Address)
	if err != nil {
		t.Fatal(err)
	}
	damage := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(at)
		r.Out.Host = r.In.Host
		body, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Error(err)
		}
		r.Out.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("0123"), []byte("O123"), 1)))
	}}
	proxy := httptest.NewServer(damage)
	defer proxy.Close()
	through := *server
	through.Endpoint = proxy.URL + "/" + servers.AzureAccount
	for _, v := range openOn(t, &through, "wal", "damaged", withKey).Variants(1 << 30) {
		err := v.Store.Put(t.Context(), v.Name, bytes.NewReader(bytes.Repeat([]byte("0123456789"), 1000)))
		if !storetest.Is(err, storetest.ErrUnclear) || !strings.Contains(err.Error(), "MD5") {
			t.Errorf("%s: got %v, want an error without a kind", v.Name, err)
		}
		if _, err := openOn(t, server, "wal", "damaged", withKey).Head(t.Context(), v.Name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: head: got %v, want fs.ErrNotExist", v.Name, err)
		}
	}
}

// documented reads from docs/stores.md which letters the SAS token of each kind of host has.
func documented(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Azure")
	found := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| ([a-z ]+) \\| `([a-z]+)` \\|").FindAllStringSubmatch(section, -1) {
		found[m[1]] = m[2]
	}
	return found
}

// The SAS tokens of docs/stores.md are enough for whom they are for, and nothing in them is too much: without any one of
// their letters what needs it is refused.
func TestPermissions(t *testing.T) {
	server := start(t, servers.Options{})
	full := openOn(t, server, "wal", "", withKey)
	with := func(t *testing.T, letters string) *azure.Store {
		token, err := server.SAS("wal", letters)
		if err != nil {
			t.Fatal(err)
		}
		return openOn(t, server, "wal", "", azure.Options{SASToken: token, BlocksAbove: withKey.BlocksAbove, BlockSize: withKey.BlockSize})
	}
	tokens := documented(t)
	needs := map[rune][]storetest.Right{
		'r': {storetest.Get, storetest.Head, storetest.Miss},
		'l': {storetest.List},
		'c': {storetest.Put},
		'd': {storetest.Delete},
	}
	for who, may := range map[string][]storetest.Right{"a restore host": storetest.Restores(), "a sidecar": storetest.Ships(), "who deletes": storetest.Expires()} {
		letters, ok := tokens[who]
		if !ok {
			t.Fatalf("docs/stores.md has no SAS token of %s", who)
		}
		t.Run(who, func(t *testing.T) { storetest.Permissions(t, full, with(t, letters), may) })
		for _, letter := range letters {
			if letter == 'r' && slices.Contains(may, storetest.Put) {
				continue // below: a second put cannot be told from a refused one then
			}
			t.Run(who+" without "+string(letter), func(t *testing.T) {
				left := slices.DeleteFunc(slices.Clone(may), func(r storetest.Right) bool { return slices.Contains(needs[letter], r) })
				for right, err := range storetest.Permissions(t, full, with(t, strings.ReplaceAll(letters, string(letter), "")), left) {
					if !strings.Contains(err.Error(), "permission denied (403 AuthorizationPermissionMismatch") {
						t.Errorf("%s: %v, which is not what docs/stores.md says", right, err)
					}
				}
			})
		}
	}
	t.Run("a sidecar without r", func(t *testing.T) {
		s := with(t, strings.ReplaceAll(tokens["a sidecar"], "r", ""))
		if err := s.Put(t.Context(), "unread", strings.NewReader("data")); err != nil {
			t.Errorf("put: %v", err)
		}
		_, head := s.Head(t.Context(), "unread")
		for _, err := range []error{head, storetest.Read(s.Get(t.Context(), "unread", 0, -1)), s.Put(t.Context(), "unread", strings.NewReader("data"))} {
			if !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want fs.ErrPermission", err)
			}
		}
	})
	t.Run("large", func(t *testing.T) {
		large := bytes.NewReader(make([]byte, 5<<20))
		if err := with(t, tokens["a sidecar"]+"w").Put(t.Context(), "large", large); err != nil {
			t.Errorf("with w: %v", err)
		}
	})
}

// A blob with a lease is protected, from deletion and from being written; soft delete is a property of the account.
func TestLeaseAndSoftDelete(t *testing.T) {
	server := start(t, servers.Options{})
	s := openOn(t, server, "wal", "", withKey)
	if err := s.Put(t.Context(), "leased", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	container, err := server.Container("wal")
	if err != nil {
		t.Fatal(err)
	}
	holder, err := lease.NewBlobClient(container.NewBlobClient("leased"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.AcquireLease(t.Context(), -1, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "leased"); !errors.Is(err, store.ErrProtected) {
		t.Errorf("delete: got %v, want ErrProtected", err)
	}
	if err := s.Put(t.Context(), "leased", strings.NewReader("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put: got %v, want fs.ErrExist", err)
	}
	key, err := service.NewSharedKeyCredential(servers.AzureAccount, servers.AzureAccountKey)
	if err != nil {
		t.Fatal(err)
	}
	account, err := service.NewClientWithSharedKeyCredential(server.Endpoint, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, soft := range []bool{false, true} {
		_, err := account.SetProperties(t.Context(), &service.SetPropertiesOptions{DeleteRetentionPolicy: &service.RetentionPolicy{Enabled: &soft, Days: to.Ptr(int32(7))}})
		if err != nil {
			t.Fatal(err)
		}
		if hides, err := s.Hides(t.Context()); hides != soft || err != nil {
			t.Errorf("soft delete %v: got %v, %v", soft, hides, err)
		}
	}
}
