// Package file keeps an archive in a folder: a local disk, or a share that knows hard links.
//
//	s, err := file.Open("file:///backup/wal") // or the path alone
//
// A key is a path below the root. Put writes a temp file, fsyncs it, gives it its name with
// link(2), which fails if the name is taken, and fsyncs the folder (package durable). So of many
// writers on many machines one wins, and nothing half-written has a name. What Put, Head and Get find
// is made durable before they say so, in case its writer has not come to that yet.
//
// The root is never created. While it is not there every request is store.ErrNoRoot; it is opened anew for
// each request, so that a disk may be mounted later, or unmounted. A mount point that is there
// without its disk cannot be told from an empty archive here: archive.json is for that.
//
// Symbolic links are not listed, and not followed out of the root. Temp files, which only a
// process that died leaves, are not listed either; those older than a day go when the next process first
// puts something into their folder.
//
// A disk that hangs (a dead NFS server) holds the calls on it: a context cannot call them back.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
)

const (
	filePerm   = 0o640
	folderPerm = 0o750
	// tempAge is longer than any put takes.
	tempAge = 24 * time.Hour
	// settledAge is when the system has written a file and its name by itself; Linux does it
	// within a minute (vm.dirty_expire_centisecs).
	settledAge = time.Hour
)

// Store is a folder.
type Store struct {
	root string

	mu    sync.Mutex
	ready map[string]bool // folders that this process has made durable and swept
}

// Open returns the store in a folder, given as an absolute path or a file:// URL. It does not touch it.
func Open(rawURL string) (*Store, error) {
	root := rawURL
	if strings.HasPrefix(rawURL, "file:") {
		u, err := url.Parse(rawURL)
		if err != nil {
			return nil, fmt.Errorf("open archive %q: %w", rawURL, err.(*url.Error).Err)
		}
		if u.Host != "" && u.Host != "localhost" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, fmt.Errorf("open archive %s: it is not like file:///absolute/folder", u.Redacted())
		}
		root = u.Path
	}
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("open archive %q: the path is not absolute", root)
	}
	return &Store{root: filepath.Clean(root), ready: make(map[string]bool)}, nil
}

func (s *Store) String() string { return (&url.URL{Scheme: "file", Path: s.root}).String() }

// enter begins a request: the caller closes the root.
func (s *Store) enter(ctx context.Context) (*os.Root, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", store.ErrNoRoot, s.root)
	case err == nil:
		return root, nil
	}
	if info, statErr := os.Stat(s.root); statErr == nil && !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a folder", store.ErrNoRoot, s.root)
	}
	return nil, err
}

func (s *Store) enterKey(ctx context.Context, key string) (*os.Root, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, err
	}
	return s.enter(ctx)
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	if err := s.put(ctx, key, b); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, b store.Body) error {
	root, err := s.enterKey(ctx, key)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := s.makeReady(root, path.Dir(key)); err != nil {
		return err
	}
	body, err := store.Exact(ctx, b)
	if err != nil {
		return err
	}
	err = durable.Create(root, key, body, filePerm)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return taken(root, key, err)
	case errors.Is(err, fs.ErrNotExist):
		// The folder went away under us, with its root perhaps. "Not there" is no answer to a put.
		s.forget(path.Dir(key))
		return fmt.Errorf("folder lost: %v", err)
	case isLink(err):
		return fmt.Errorf("%w (the archive needs a file system with hard links)", err)
	}
	return err
}

// taken says that key is taken, when an object has it and is durable. err is durable.Create's.
func taken(root *os.Root, key string, err error) error {
	// Joined to fs.ErrExist is why the folder could not be fsynced, which must not read like a taken key.
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) && len(joined.Unwrap()) > 1 {
		return fmt.Errorf("taken, perhaps not durably: %v", err)
	}
	info, err := root.Lstat(key)
	switch {
	case err != nil:
		return fmt.Errorf("taken, and then: %v", err) // deleted since; the next try will know
	case !info.Mode().IsRegular():
		return fmt.Errorf("the name belongs to a %s", kind(info))
	}
	return fs.ErrExist
}

func kind(info fs.FileInfo) string {
	if info.IsDir() {
		return "folder"
	}
	return "special file"
}

func isLink(err error) bool {
	link := new(os.LinkError)
	return errors.As(err, &link)
}

// makeReady makes a folder and those above it, durably, and removes the temp files of processes that
// died, once for each folder.
func (s *Store) makeReady(root *os.Root, dir string) error {
	s.mu.Lock()
	ready := s.ready[dir]
	s.mu.Unlock()
	if ready {
		if _, err := root.Lstat(dir); err == nil {
			return nil
		}
	}
	if err := durable.MkdirAll(root, dir, folderPerm); err != nil {
		return err
	}
	// Only tidiness: temp files are harmless, and the folder may be another's.
	_, _ = durable.Sweep(root, dir, time.Now().Add(-tempAge))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready[dir] = true
	return nil
}

func (s *Store) forget(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ready, dir)
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, key string) (store.Info, error) {
	root, err := s.enterKey(ctx, key)
	if err != nil {
		return store.Info{}, fmt.Errorf("head %s: %w", key, err)
	}
	defer root.Close()
	info, err := root.Stat(key)
	if err = found(root, key, info, err); err != nil {
		return store.Info{}, fmt.Errorf("head %s: %w", key, err)
	}
	return store.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// found turns what looking for an object brought into the store's words, and makes a young one durable.
func found(root *os.Root, key string, info fs.FileInfo, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fs.ErrNotExist
	case err != nil:
		return err
	case info.IsDir():
		return fs.ErrNotExist // a folder is no object
	case !info.Mode().IsRegular():
		return fmt.Errorf("the name belongs to a %s", kind(info))
	case time.Since(info.ModTime()) < settledAge:
		return durable.SyncDir(root, path.Dir(key))
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	r, err := s.get(ctx, key, from, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	if err := store.CheckRange(from); err != nil {
		return nil, err
	}
	root, err := s.enterKey(ctx, key)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Not blocking: a named pipe must not hold us. It makes no difference to a regular file.
	f, err := root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	var info fs.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	if err = found(root, key, info, err); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	left := max(0, info.Size()-from)
	if n >= 0 {
		left = min(left, n)
	}
	return &reader{ctx: ctx, f: f, key: key, at: from, left: left}, nil
}

type reader struct {
	ctx      context.Context
	f        *os.File
	key      string
	at, left int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if err := context.Cause(r.ctx); err != nil {
		return 0, fmt.Errorf("get %s: %w", r.key, err)
	}
	n, err := r.f.ReadAt(p[:min(int64(len(p)), r.left)], r.at)
	r.at += int64(n)
	r.left -= int64(n)
	switch {
	case r.left == 0:
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("get %s: the file has become shorter: %w", r.key, io.ErrUnexpectedEOF)
	case err != nil:
		return n, fmt.Errorf("get %s: %w", r.key, err)
	}
	return n, nil
}

func (r *reader) Close() error { return r.f.Close() }

// Delete implements store.Store. The folder stays, also when it is empty: another writer may be about to
// use it. The removal is not fsynced: an object that comes back after a power loss is as it was.
func (s *Store) Delete(ctx context.Context, key string) error {
	root, err := s.enterKey(ctx, key)
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	defer root.Close()
	info, err := root.Lstat(key)
	if err == nil && info.IsDir() {
		return nil // no object
	}
	err = cmp.Or(err, root.Remove(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}
