//go:build servers

package gcs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/gcs"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// permissionOf is what Google asks of who makes a request (Google Cloud documentation, "IAM permissions for JSON methods").
func permissionOf(r storetest.Request) string {
	_, object, ofObjects := strings.Cut(r.Path, "/b/wal/o")
	switch {
	case strings.HasPrefix(r.Path, "/upload/"):
		return "storage.objects.create"
	case r.Method == http.MethodDelete:
		return "storage.objects.delete"
	case ofObjects && object == "":
		return "storage.objects.list"
	case ofObjects:
		return "storage.objects.get"
	}
	return "storage.buckets.get"
}

// guard lets through what permissions allow, and answers 403 to the rest as Google does. fake-gcs-server has no accounts.
func guard(permissions []string) func(storetest.Request) storetest.Spoil {
	return func(r storetest.Request) storetest.Spoil {
		p := permissionOf(r)
		if slices.Contains(permissions, p) {
			return storetest.Spoil{}
		}
		return storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			message := fmt.Sprintf("walbaton@p.iam.example does not have %s access. Permission '%s' denied on resource (or it may not exist).", p, p)
			if r.URL.Query().Get("alt") == "media" { // no JSON there
				http.Error(w, message, http.StatusForbidden)
				return
			}
			fail(w, http.StatusForbidden, "forbidden", message)
		}}
	}
}

// documented reads from docs/stores.md the permissions of each kind of host, and those that the page explains.
func documented(t *testing.T) (ofHosts map[string][]string, explained []string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Google")
	section, _, _ = strings.Cut(section, "\n## ")
	permission := regexp.MustCompile("`(storage\\.[a-z.]+)`")
	ofHosts = make(map[string][]string)
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		who := strings.TrimSpace(cells[1])
		if m := permission.FindStringSubmatch(who); m != nil {
			explained = append(explained, m[1])
			continue
		}
		for _, m := range permission.FindAllStringSubmatch(cells[2], -1) {
			ofHosts[who] = append(ofHosts[who], m[1])
		}
	}
	return ofHosts, explained
}

// The permissions of docs/stores.md are enough for whom they are for, and none of them is too much: without any one of
// them what needs it is refused.
func TestPermissions(t *testing.T) {
	server := start(t, servers.FakeGCSInMemory, servers.Options{})
	proxy := storetest.NewProxy(t, server.Endpoint)
	full := openOn(t, server, "wal", "", "")
	with := func(permissions []string) *gcs.Store {
		proxy.Spoil(guard(permissions))
		through := *server
		through.Endpoint = proxy.URL
		return openOn(t, &through, "wal", "", "")
	}
	ofHosts, explained := documented(t)
	needs := map[string][]storetest.Right{
		"storage.objects.get":    {storetest.Get, storetest.Head, storetest.Miss},
		"storage.objects.list":   {storetest.List, storetest.Miss},
		"storage.objects.create": {storetest.Put},
		"storage.objects.delete": {storetest.Delete},
		"storage.buckets.get":    {},
	}
	asked := make(map[string]bool)
	for who, may := range map[string][]storetest.Right{"a restore host": storetest.Restores(), "a sidecar": storetest.Ships(), "who deletes": storetest.Expires()} {
		permissions := ofHosts[who]
		if len(permissions) == 0 {
			t.Fatalf("docs/stores.md has no permissions of %s", who)
		}
		t.Run(who, func(t *testing.T) { storetest.Permissions(t, full, with(permissions), may) })
		for _, r := range proxy.Requests() {
			asked[permissionOf(r)] = true
		}
		for _, permission := range permissions {
			t.Run(who+" without "+permission, func(t *testing.T) {
				left := slices.DeleteFunc(slices.Clone(may), func(r storetest.Right) bool { return slices.Contains(needs[permission], r) })
				cut := slices.DeleteFunc(slices.Clone(permissions), func(p string) bool { return p == permission })
				for right, err := range storetest.Permissions(t, full, with(cut), left) {
					if !strings.Contains(err.Error(), "permission denied (403") || !strings.Contains(err.Error(), " does not have ") {
						t.Errorf("%s: %v, which is not what docs/stores.md says", right, err)
					}
				}
			})
		}
	}
	t.Run("what is deleted", func(t *testing.T) {
		if hides, err := store.Hides(t.Context(), with(ofHosts["who deletes"])); hides || err != nil {
			t.Errorf("with storage.buckets.get: got %v, %v", hides, err)
		}
		if _, err := store.Hides(t.Context(), with(ofHosts["a sidecar"])); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without storage.buckets.get: got %v, want fs.ErrPermission", err)
		}
	})
	for _, r := range proxy.Requests() {
		asked[permissionOf(r)] = true
	}
	for permission := range asked {
		if !slices.Contains(explained, permission) {
			t.Errorf("the driver makes requests that need %s, and docs/stores.md does not say what for", permission)
		}
	}
	if len(explained) != len(asked) {
		t.Errorf("docs/stores.md explains %v; asked for were %v", explained, asked)
	}
}
