//go:build servers

package sftp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// documented reads the accounts of docs/stores.md: the lines of each Match block, by user.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	_, block, ok := strings.Cut(readFile(t, "../../../docs/stores.md"), "```sshd_config\n")
	if !ok {
		t.Fatal("docs/stores.md has no sshd_config")
	}
	block, _, _ = strings.Cut(block, "```")
	accounts, user := make(map[string][]string), ""
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "Match User "); ok {
			user = name
		} else if user != "" && line != "" {
			accounts[user] = append(accounts[user], line)
		}
	}
	return accounts
}

// without is an account's configuration without one request of its list.
func without(config []string, request string) []string {
	config = slices.Clone(config)
	config[0] = regexp.MustCompile(`\b`+request+`,|,`+request+`\b`).ReplaceAllString(config[0], "")
	return config
}

// The accounts of docs/stores.md are enough for whom they are for, may no more, and nothing that the nodes' list permits is too much.
func TestAccounts(t *testing.T) {
	accounts := documented(t)
	write, read, expire := accounts["walbaton"], accounts["walbaton-restore"], accounts["walbaton-expire"]
	_, list, _ := strings.Cut(write[0], " -p ")
	requests := strings.Split(list, ",")
	configs := [][]string{nil, write, read, expire}
	for _, request := range requests {
		configs = append(configs, without(write, request))
	}
	server := start(t, configs...)
	full := open(t, server.URL(0))
	for i, may := range [][]storetest.Right{storetest.Ships(), storetest.Restores(), storetest.Expires()} {
		t.Run(fmt.Sprint(configs[i+1][0]), func(t *testing.T) {
			for right, err := range storetest.Permissions(t, full, open(t, server.URL(i+1)), may) {
				t.Logf("%s: %v", right, err)
			}
		})
	}
	// What the nodes lose with each request, and what they are told: docs/stores.md has the words.
	const mayOnlyRead, offersNo = "permission denied (the account may only read there, or the folder", "permission denied (the SFTP server offers this account no "
	loses := map[string]struct {
		rights []storetest.Right
		put    string
	}{
		"open":     {[]storetest.Right{storetest.Get, storetest.Put}, mayOnlyRead},
		"close":    {[]storetest.Right{storetest.Put}, "permission denied"},
		"read":     {[]storetest.Right{storetest.Get}, ""},
		"write":    {[]storetest.Right{storetest.Put}, "write: permission denied"},
		"lstat":    {[]storetest.Right{storetest.Get, storetest.Head, storetest.Miss, storetest.Put}, "permission denied"},
		"stat":     {[]storetest.Right{storetest.Miss, storetest.Put}, "permission denied"},
		"opendir":  {[]storetest.Right{storetest.List}, ""},
		"readdir":  {[]storetest.Right{storetest.List}, ""},
		"mkdir":    {[]storetest.Right{storetest.Put}, mayOnlyRead},
		"fsync":    {[]storetest.Right{storetest.Put}, offersNo + "fsync@openssh.com"},
		"hardlink": {[]storetest.Right{storetest.Put}, offersNo + "hardlink@openssh.com"},
	}
	for i, request := range requests {
		lost, known := loses[request]
		if !known {
			t.Errorf("nobody knows what %s is for", request)
			continue
		}
		t.Run("without "+request, func(t *testing.T) {
			left := slices.DeleteFunc(storetest.Ships(), func(r storetest.Right) bool { return slices.Contains(lost.rights, r) })
			refused := storetest.Permissions(t, full, open(t, server.URL(i+4)), left)
			if err := refused[storetest.Put]; lost.put != "" && (err == nil || !strings.Contains(err.Error(), lost.put)) {
				t.Errorf("put: got %v, want it to say %q", err, lost.put)
			}
		})
	}
}

// The proof of a sidecar whose account may not delete passes, and its probes stay. A read-only account and a server without
// hard links are told why nothing can be put.
func TestProof(t *testing.T) {
	accounts := documented(t)
	server := start(t, accounts["walbaton"], accounts["walbaton-restore"], []string{"ForceCommand internal-sftp -P hardlink"}, []string{"ForceCommand internal-sftp -P fsync"})
	for i, want := range []string{"", "does not let us write", "offers this account no hardlink@openssh.com", "offers this account no fsync@openssh.com"} {
		err := store.Prove(t.Context(), open(t, server.URL(i)), "scope/probe/n1", 0)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want)):
			t.Errorf("got %v, want %q", err, want)
		}
	}
	probes, err := os.ReadDir(filepath.Join(server.Data, "scope/probe/n1"))
	if err != nil || len(probes) == 0 {
		t.Errorf("got %d probes of an account that may not delete, %v", len(probes), err)
	}
}

// Whom a file or folder belongs to counts, whatever the account may ask.
func TestFilesOfOthers(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(0))
	if err := s.Put(t.Context(), "folder/key", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	chmod := func(name string, mode os.FileMode) {
		if err := os.Chmod(filepath.Join(server.Data, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want fs.ErrPermission and %q", err, what)
		}
	}
	chmod("folder", 0o555)
	want("create a file: permission denied (the account may only read there, or the folder is another's)", s.Put(t.Context(), "folder/new", strings.NewReader("data")))
	want("make folder folder/below: permission denied", s.Put(t.Context(), "folder/below/new", strings.NewReader("data")))
	want("delete folder/key", s.Delete(t.Context(), "folder/key"))
	chmod("folder", 0o755)
	chmod("folder/key", 0)
	_, err := s.Get(t.Context(), "folder/key", 0, -1)
	want("get folder/key", err)
	chmod("folder", 0)
	for _, err = range s.List(t.Context(), "", "") {
	}
	want("list", err)
	_, err = s.Head(t.Context(), "folder/absent")
	want("head folder/absent", err)
	chmod("folder", 0o755)
}

// What writers leave that died, or that may not remove, is never listed, and goes when it is a day old.
func TestTempFiles(t *testing.T) {
	accounts := documented(t)
	server := start(t, accounts["walbaton-expire"], accounts["walbaton"])
	s, node := open(t, server.URL(0)), open(t, server.URL(1))
	if err := node.Put(t.Context(), "wal/key", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(server.Data, "wal"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	list := func(s store.Store) {
		t.Helper()
		var keys []string
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		if !slices.Equal(keys, []string{"wal/key"}) {
			t.Errorf("got keys %q", keys)
		}
	}
	list(s)
	if n := count(); n != 2 {
		t.Errorf("got %d names, want the object's and the one that its writer could not remove", n)
	}
	old := time.Now().Add(-25 * time.Hour)
	entries, _ := os.ReadDir(filepath.Join(server.Data, "wal"))
	for _, e := range entries {
		if durable.IsTemp(e.Name()) {
			if err := os.Chtimes(filepath.Join(server.Data, "wal", e.Name()), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	list(node)
	if n := count(); n != 2 {
		t.Errorf("got %d names after a listing by who may not remove, want 2", n)
	}
	list(s)
	if n := count(); n != 1 {
		t.Errorf("got %d names after a listing by who may remove, want 1", n)
	}
	r, err := s.Get(t.Context(), "wal/key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || got.String() != "data" {
		t.Errorf("got %q, %v", got.String(), err)
	}
}

// After a put the object and its name are on disk: first the file is fsynced, then it gets its name, and then the folder is fsynced. So says
// OpenSSH's own log. Who finds an object, or finds a name taken, has its folder fsynced too.
func TestFsync(t *testing.T) {
	self, err := user.Current() // has a shell, which sends the log to a file
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	log := writeFile(t, filepath.Join(dir, "log"), "")
	server, err := servers.SSHD(t.Context(), servers.SSHDOptions{Dir: dir, Accounts: []servers.Account{{User: self.Username,
		Config: []string{"ForceCommand /usr/lib/openssh/sftp-server -e -l VERBOSE 2>>" + log}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	// what says what was linked and fsynced since it was last asked.
	done := 0
	what := func() (steps []string) {
		text := readFile(t, log)
		for line := range strings.Lines(text[done:]) {
			for _, verb := range []string{"hardlink", "fsync"} {
				if _, names, ok := strings.Cut(line, verb+" "); ok {
					names = strings.TrimSpace(strings.ReplaceAll(names, server.Data, ""))
					steps = append(steps, verb+" "+regexp.MustCompile(`\.walbaton-\w+\.tmp`).ReplaceAllString(names, "TEMP"))
				}
			}
		}
		done = len(text)
		return steps
	}
	s := open(t, server.URL(0))
	for _, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"first put", func() error { return s.Put(t.Context(), "wal/key", strings.NewReader("data")) },
			[]string{`fsync ""`, `fsync "/wal/TEMP"`, `hardlink old "/wal/TEMP" new "/wal/key"`, `fsync "/wal"`}},
		{"second put", func() error { return s.Put(t.Context(), "wal/other", strings.NewReader("data")) },
			[]string{`fsync "/wal/TEMP"`, `hardlink old "/wal/TEMP" new "/wal/other"`, `fsync "/wal"`}},
		{"put on a taken name", func() error {
			if err := s.Put(t.Context(), "wal/key", strings.NewReader("data")); !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		}, []string{`fsync "/wal"`}},
		{"head", func() error { _, err := s.Head(t.Context(), "wal/key"); return err }, []string{`fsync "/wal"`}},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := what(); !slices.Equal(got, step.want) {
			t.Errorf("%s: got %q, want %q", step.name, got, step.want)
		}
	}
}
