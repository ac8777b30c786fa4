//go:build servers

package sftp_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/sftp"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// start starts a server with these accounts, all of the first user, each with lines of sshd_config of its own.
func start(t *testing.T, accounts ...[]string) *servers.SSH {
	t.Helper()
	return startIn(t, folder(t), accounts...)
}

// folder is one that other users get into.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startIn(t *testing.T, dir string, accounts ...[]string) *servers.SSH {
	t.Helper()
	user, _, err := servers.Users()
	if err != nil {
		t.Fatal(err)
	}
	o := servers.SSHDOptions{Dir: dir}
	for _, config := range accounts {
		o.Accounts = append(o.Accounts, servers.Account{User: user, Config: config})
	}
	server, err := servers.SSHD(t.Context(), o)
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

func open(t *testing.T, url string) *sftp.Store {
	t.Helper()
	s, err := sftp.Open(url, sftp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at is url with another folder below its own.
func at(url, folder string) string {
	before, query, _ := strings.Cut(url, "?")
	return before + "/" + folder + "?" + query
}

// with is url with another value of a key of its query.
func with(t *testing.T, rawURL, key, value string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestServer(t *testing.T) {
	server := start(t, nil)
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		name := fmt.Sprintf("root %d", n.Add(1))
		dir := filepath.Join(server.Data, name)
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		url := at(server.URL(0), strings.ReplaceAll(name, " ", "%20"))
		return open(t, url), open(t, url)
	}, storetest.Options{Broken: map[string]storetest.Broken{
		"missing root": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store { return open(t, at(server.URL(0), "missing")) }},
		"wrong key": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
			other := filepath.Join(t.TempDir(), "other")
			if err := servers.NewKey(other); err != nil {
				t.Fatal(err)
			}
			return open(t, with(t, server.URL(0), "key_file", other))
		}},
	}})
}

// trust writes a known_hosts file for another address of a server.
func trust(t *testing.T, server *servers.SSH, file, address string) {
	t.Helper()
	data, err := os.ReadFile(server.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(server.Addresses[0], ":")
	_, other, _ := strings.Cut(address, ":")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(data), port, other)), 0o600); err != nil {
		t.Fatal(err)
	}
}
