package sftp_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/sftp"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func TestOpen(t *testing.T) {
	for url, want := range map[string]string{
		"sftp://wal@h/srv/wal":                                 "sftp://wal@h/srv/wal",
		"sftp://wal@h:22/srv//wal/":                            "sftp://wal@h/srv/wal",
		"sftp://wal@[::1]:2222/?key_file=/k":                   "sftp://wal@[::1]:2222/",
		"sftp://wal@h/a%20b?key_file=/k&known_hosts_file=/kh":  "sftp://wal@h/a%20b",
		"sftp://h/srv/wal":                                     "names no user",
		"sftp://wal@h":                                         "names no folder",
		"sftp:///srv/wal":                                      "is not like sftp://user@host",
		"sftp://wal@h/srv#x":                                   "is not like sftp://user@host",
		"sftp:wal@h/srv":                                       "is not like sftp://user@host",
		"sftp://wal:hush@h/srv/wal":                            "holds no password",
		"sftp://wal:hush@h:x/srv/wal":                          "not a URL",
		"sftp://wal@h/srv?key=/k":                              `unknown query key "key"; there are key_file, known_hosts_file, passphrase_file`,
		"sftp://wal@h/srv?key_file=":                           "wants one value",
		"sftp://wal@h/srv?key_file=id_rsa":                     "not absolute",
		"sftp://wal@h/srv?passphrase_file=/p":                  "goes together with key_file",
		"sftp://wal@h/srv?key_file=/k&key_file=/l":             "wants one value",
		"sftp://wal@h/srv?key_file=/k;known_hosts_file=/hosts": "does not parse",
	} {
		s, err := sftp.Open(url, sftp.Options{})
		switch {
		case err == nil && s.String() != want:
			t.Errorf("open %s: got %s, want %s", url, s, want)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("open %s: got %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("open %s: %v tells a secret", url, err)
		}
	}
}

// docs/stores.md has a row for each key of the URL, and the message for a wrong one names them all.
func TestKeysDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## SFTP\n")
	_, err = sftp.Open("sftp://u@h/p?nonsense=1", sftp.Options{})
	_, known, ok := strings.Cut(fmt.Sprint(err), "there are ")
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, key := range strings.Split(known, ", ") {
		if !strings.Contains(section, "\n| `"+key+"` |") {
			t.Errorf("docs/stores.md has no row for %s", key)
		}
	}
}

func TestStore(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		s := newStub(t, "SSH-2.0-OpenSSH_9.2p1")
		return s.open(t), s.open(t)
	}, storetest.Options{Rounds: rounds, Broken: map[string]storetest.Broken{
		"missing root": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
			s := newStub(t, "SSH-2.0-OpenSSH_9.2p1")
			if err := os.Remove(s.dir); err != nil {
				t.Fatal(err)
			}
			return s.open(t)
		}},
	}})
}

// What goes over the wire, and in which order: nothing has a name before it is on disk, and the folder is fsynced after that. (STYLE: tests assert the number of remote calls.)
func TestRequests(t *testing.T) {
	stub := newStub(t, "SSH-2.0-OpenSSH_9.2p1")
	s := stub.open(t)
	put := func(key string) func() error {
		return func() error {
			err := s.Put(t.Context(), key, strings.NewReader("data"))
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			return err
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"first put", put("wal/1"), "lstat /wal/1, mkdir /wal, open , fsync , create /wal/TEMP, fsync /wal/TEMP, hardlink /wal/1, open /wal, fsync /wal, remove /wal/TEMP"},
		{"second put", put("wal/2"), "lstat /wal/2, create /wal/TEMP, fsync /wal/TEMP, hardlink /wal/2, open /wal, fsync /wal, remove /wal/TEMP"},
		{"put on a taken name", put("wal/2"), "lstat /wal/2, open /wal, fsync /wal"},
		{"head", func() error { _, err := s.Head(t.Context(), "wal/1"); return err }, "lstat /wal/1, open /wal, fsync /wal"},
		{"header", func() error {
			r, err := s.Get(t.Context(), "wal/1", 0, 4096)
			if err != nil {
				return err
			}
			return r.Close()
		}, "lstat /wal/1, open /wal, fsync /wal, open /wal/1"},
		{"list", func() error {
			for _, err := range s.List(t.Context(), "wal/", "") {
				if err != nil {
					return err
				}
			}
			return nil
		}, "opendir /wal"},
		{"delete", func() error { return s.Delete(t.Context(), "wal/1") }, "lstat /wal/1, remove /wal/1"},
		{"delete again", func() error { return s.Delete(t.Context(), "wal/1") }, "lstat /wal/1, stat "},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := strings.Join(stub.seen(), ", "); got != step.want {
			t.Errorf("%s: got %s\nwant %s", step.name, got, step.want)
		}
	}
}

// A server's "failure" is never taken for a fact, and a disk that cannot be written fails the put.
func TestFailures(t *testing.T) {
	for _, test := range []struct {
		name, banner, request, of string
		status                    int
		want                      string // "" means that the put succeeds
	}{
		{"the link fails", "OpenSSH_9.2", "hardlink", "/wal/1", statusFailure, "hard link:"},
		{"no hard links", "OpenSSH_9.2", "hardlink", "/wal/1", statusDenied, "file system with hard links"},
		{"a full disk", "OpenSSH_9.2", "fsync", "/wal/TEMP", statusFailure, "fsync:"},
		{"the folder cannot be fsynced", "OpenSSH_9.2", "fsync", "/wal", statusFailure, "fsync folder:"},
		{"another server cannot fsync folders", "mod_sftp", "fsync", "/wal", statusFailure, ""},
		{"a system that cannot open folders", "OpenSSH_9.2", "open", "/wal", statusFailure, ""},
		{"temp files stay", "OpenSSH_9.2", "remove", "/wal/TEMP", statusDenied, ""},
		{"look is refused", "OpenSSH_9.2", "lstat", "/wal/1", statusDenied, "permission denied"},
		{"no new folder", "OpenSSH_9.2", "mkdir", "/wal", statusDenied, "make folder wal: permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stub := newStub(t, "SSH-2.0-"+test.banner)
			stub.fail = func(request, name string) int {
				if request == test.request && name == test.of {
					return test.status
				}
				return 0
			}
			err := stub.open(t).Put(t.Context(), "wal/1", strings.NewReader("data"))
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
				t.Errorf("%v reads like an answer about the key", err)
			}
		})
	}
}

// What goes wrong before we are logged in says nothing about objects: a key file that is not there least of all.
func TestNotLoggedIn(t *testing.T) {
	stub := newStub(t, "SSH-2.0-OpenSSH_9.2p1")
	for _, broken := range []string{
		strings.Replace(stub.url, "key_file=", "key_file=/missing", 1),
		strings.Replace(stub.url, "known_hosts_file=", "known_hosts_file=/missing", 1),
		"sftp://wal@127.0.0.1:1/wal?" + strings.SplitN(stub.url, "?", 2)[1],
	} {
		s, err := sftp.Open(broken, sftp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Head(t.Context(), "key")
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrNoRoot) {
			t.Errorf("got %v, want an error without a kind", err)
		}
	}
}
