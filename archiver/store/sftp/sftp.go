// Package sftp keeps an archive in a folder of an SSH server, by SFTP.
//
//	sftp://wal@backup.example:22/srv/wal?key_file=/etc/walbaton/id_ed25519
//
// The keys of the query, all optional:
//
//	key_file          private key; without it those of the SSH agent (SSH_AUTH_SOCK), and ~/.ssh/id_ed25519, id_ecdsa, id_rsa
//	passphrase_file   file with the passphrase of key_file
//	known_hosts_file  without it ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
//
// There are no passwords. A host whose key is not known is refused. The files are read at each connection, so that a
// new key needs no restart. The folder is never created: while it is not there every request is store.ErrNoRoot.
//
// # Written once
//
// A key is a path below the root. Put writes a temp file beside its target, has the server write it to disk
// (fsync@openssh.com) and gives it its name with hardlink@openssh.com, which fails if the name is taken: of many
// writers on many machines one wins, and nothing half-written has a name. A server without one of these extensions
// is refused for writing. SFTP's own rename is not used: OpenSSH falls back to looking first and renaming then where
// a file system has no hard links (process_rename in its sftp-server.c), and two writers could win.
//
// SFTP has no word for "this folder to disk". OpenSSH opens a folder as it opens a file, though, and then fsync@openssh.com makes
// its names durable; so after Put, and when a young object is found, its folder is fsynced this way. A server that
// cannot do it loses, when its power fails, the names that its file system had not written yet (five seconds' worth on ext4),
// although they were acknowledged: mount the archive there with -o dirsync.
//
// # Connections
//
// One SSH connection is shared. Each request has one of its SFTP sessions for itself, up to eight at a time or what MaxSessions of
// the server allows, because a session does one thing after the other there, and one fsync would hold up all. A session whose request was cancelled is thrown away when the server does not
// answer for two seconds. The connection is made when it is needed, made anew after it broke, asked every 15 seconds whether
// it is alive, and closed after two minutes without requests. There is no second try in here: store.Retry decides.
//
// # Permissions
//
// What sftp-server calls its requests: open, close, read, lstat, stat, opendir and readdir to read; mkdir, write, fsync and hardlink besides to write;
// remove besides to delete. An account without remove leaves the temp name of each object behind, a second name for the same bytes; as what writers
// leave that died, it is not listed, and goes when an account that may remove lists the folder a day later.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
)

// Options are what the URL does not say. The zero value is right.
type Options struct {
	// Keepalive is how often the server is asked whether it is alive, and how long it may take to answer. 0 means 15 s.
	Keepalive time.Duration
}

// Store is a folder of an SSH server.
type Store struct {
	root string // absolute, on the server
	url  string
	pool *pool

	mu           sync.Mutex
	ready        map[string]bool // folders that this process has made, or found, and made durable
	mayNotRemove bool            // the server has said so
}

// target is a parsed URL.
type target struct {
	user, host, root                   string
	keyFile, passphraseFile, knownFile string
}

// Open returns the store that rawURL names. It asks no server, and reads no file yet.
func Open(rawURL string, o Options) (*Store, error) {
	to, err := parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if o.Keepalive == 0 {
		o.Keepalive = 15 * time.Second
	}
	return &Store{root: to.root, url: to.String(), pool: &pool{to: to, keepalive: o.Keepalive}, ready: make(map[string]bool)}, nil
}

func parse(rawURL string) (target, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return target{}, errors.New("not a URL") // not err itself, which may show a password
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return target{}, errors.New("the query of the URL does not parse")
	}
	if _, has := u.User.Password(); has {
		return target{}, errors.New("a URL holds no password; use key_file, or an SSH agent")
	}
	switch {
	case u.Scheme != "sftp" || u.Hostname() == "" || u.Fragment != "":
		return target{}, fmt.Errorf("%q is not like sftp://user@host:port/absolute/path", rawURL)
	case u.User.Username() == "":
		return target{}, fmt.Errorf("%q names no user: it is like sftp://user@host/absolute/path", rawURL)
	case u.Path == "":
		return target{}, fmt.Errorf("%q names no folder: it is like sftp://user@host/absolute/path", rawURL)
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	to := target{user: u.User.Username(), host: net.JoinHostPort(u.Hostname(), port), root: path.Clean(u.Path)}
	fields := map[string]*string{"key_file": &to.keyFile, "passphrase_file": &to.passphraseFile, "known_hosts_file": &to.knownFile}
	for name, values := range q {
		field, known := fields[name]
		switch {
		case !known:
			names := []string{"key_file", "known_hosts_file", "passphrase_file"}
			return target{}, fmt.Errorf("unknown query key %q; there are %s", name, strings.Join(names, ", "))
		case len(values) != 1 || values[0] == "":
			return target{}, fmt.Errorf("query key %q wants one value", name)
		case !path.IsAbs(values[0]):
			return target{}, fmt.Errorf("%s: the path %q is not absolute", name, values[0])
		}
		*field = values[0]
	}
	if to.passphraseFile != "" && to.keyFile == "" {
		return target{}, errors.New("passphrase_file goes together with key_file")
	}
	return to, nil
}

// String is the URL without the default port and the names of files.
func (to target) String() string {
	host := to.host
	if bare, ok := strings.CutSuffix(host, ":22"); ok {
		host = bare
	}
	return (&url.URL{Scheme: "sftp", User: url.User(to.user), Host: host, Path: to.root}).String()
}

func (s *Store) String() string { return s.url }

// path is where an object, or a folder, is on the server.
func (s *Store) path(key string) string { return path.Join(s.root, key) }

// do runs f with a session of its own. When ctx ends, f has some time left to end tidily, if the server answers.
func (s *Store) do(ctx context.Context, verb, key string, f func(*session) error) error {
	err := context.Cause(ctx)
	if err == nil {
		err = s.pool.do(ctx, f)
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case cause != nil && !isKind(err):
		err = cause
	}
	return fmt.Errorf("%s %s: %w", verb, key, plain(err))
}

// isKind says whether an error is a fact, which stands even when the context has ended meanwhile.
func isKind(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrExist, fs.ErrNotExist, store.ErrNoRoot}, func(kind error) bool { return errors.Is(err, kind) })
}

// absent is what "no such file" means: that the key is not there, or its root.
func (s *Store) absent(c *session) error {
	switch info, err := c.Stat(s.root); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s on the server", store.ErrNoRoot, s.root)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%w: %s on the server is not a folder", store.ErrNoRoot, s.root)
	}
	return fs.ErrNotExist
}

// find looks for an object, which is a regular file.
func (s *Store) find(c *session, key string) (store.Info, error) {
	info, err := c.Lstat(s.path(key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return store.Info{}, s.absent(c)
	case err != nil:
		return store.Info{}, err
	case info.IsDir():
		return store.Info{}, fs.ErrNotExist // a folder is no object
	case !info.Mode().IsRegular():
		return store.Info{}, errors.New("the name belongs to a special file")
	}
	return store.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// settledAge is when the server's system has written a name by itself, whatever it runs.
const settledAge = time.Hour

// found makes the name of a young object durable: its writer may not have come to that.
func (s *Store) found(c *session, key string, info store.Info) error {
	if time.Since(info.Modified) > settledAge {
		return nil
	}
	return s.syncFolder(c, path.Dir(key))
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, key string) (info store.Info, err error) {
	if err := store.CheckKey(key); err != nil {
		return store.Info{}, fmt.Errorf("head: %w", err)
	}
	err = s.do(ctx, "head", key, func(c *session) error {
		if info, err = s.find(c, key); err != nil {
			return err
		}
		return s.found(c, key, info)
	})
	return info, err
}

// Delete implements store.Store. The folder stays, also when it is empty: another writer may be about to use it.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return s.do(ctx, "delete", key, func(c *session) error {
		// Looked at first: the client's Remove would remove an empty folder too.
		_, err := s.find(c, key)
		if err == nil {
			err = c.Remove(s.path(key))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
