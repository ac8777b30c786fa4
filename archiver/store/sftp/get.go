package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
)

// What is read from the server at once, in bytes: little at first, because many want only the header of an object, then more.
const (
	firstRead = 64 << 10
	mostRead  = 4 << 20
)

// Get implements store.Store. A reader that nobody reads holds nothing on the server: each stretch that it reads is a
// request of its own, which opens the file, reads and closes it. Objects never change.
func (s *Store) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if err := store.CheckRange(from); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r := &reader{s: s, ctx: ctx, key: key, at: from, next: firstRead}
	err := s.do(ctx, "get", key, func(c *session) error {
		info, err := s.find(c, key)
		if err != nil {
			return err
		}
		if err := s.found(c, key, info); err != nil {
			return err
		}
		r.left = max(0, info.Size-from)
		if n >= 0 {
			r.left = min(r.left, n)
		}
		return r.fill(c)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

type reader struct {
	s      *Store
	ctx    context.Context
	key    string
	at     int64  // offset of the first byte that is not in have yet
	left   int64  // how many there are from at on
	next   int    // how many are read next
	have   []byte // read, and not given out
	buf    []byte
	err    error
	closed bool
}

// fill reads the next stretch.
func (r *reader) fill(c *session) error {
	n := int(min(r.left, int64(r.next)))
	if n == 0 {
		return nil
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	f, err := c.Open(r.s.path(r.key))
	if err != nil {
		return err
	}
	got, err := f.ReadAt(r.buf[:n], r.at)
	_ = f.Close() // after an error the whole session may go
	switch {
	case got == n:
	case err == io.EOF:
		return fmt.Errorf("the file has become shorter: %w", io.ErrUnexpectedEOF)
	default:
		return err
	}
	r.have = r.buf[:n]
	r.at += int64(n)
	r.left -= int64(n)
	r.next = min(4*r.next, mostRead)
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	switch {
	case r.closed:
		return 0, fmt.Errorf("get %s: %w", r.key, os.ErrClosed)
	case r.err != nil:
		return 0, r.err
	case len(p) == 0:
		return 0, nil
	case len(r.have) == 0 && r.left == 0:
		return 0, io.EOF
	}
	if len(r.have) == 0 {
		if r.err = r.s.do(r.ctx, "get", r.key, r.fill); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.closed, r.have, r.buf = true, nil, nil
	return nil
}

// List implements store.Store. It reads only folders that can hold a key that is asked for, one at a time, so its memory
// is that of the largest one.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		l := lister{s: s, ctx: ctx, prefix: prefix, after: after, yield: yield}
		dir, _ := path.Split(prefix)
		if dir != "" && store.CheckKey(strings.TrimSuffix(dir, "/")) != nil {
			dir = "" // no key begins like this; the root is still looked at
		}
		if err := l.folder(dir); err != nil && !errors.Is(err, errStopped) {
			yield(store.Info{}, err)
		}
	}
}

// errStopped ends a listing that its caller does not want to go on.
var errStopped = errors.New("stopped")

type lister struct {
	s             *Store
	ctx           context.Context
	prefix, after string
	yield         func(store.Info, error) bool
}

// folder yields the objects below dir, which is empty or ends in a slash.
func (l *lister) folder(dir string) error {
	var wanted []store.Info
	err := l.s.do(l.ctx, "list", l.prefix, func(c *session) (err error) {
		wanted, err = l.read(c, dir)
		return err
	})
	if err != nil {
		return err
	}
	for _, info := range wanted {
		switch {
		case strings.HasSuffix(info.Key, "/"):
			if err := l.folder(info.Key); err != nil {
				return err
			}
		case !l.yield(info, nil):
			return errStopped
		}
	}
	return nil
}

// read returns what in dir is asked for, in the order of the keys: there a folder's place is that of its name with the
// slash, which it is returned with.
func (l *lister) read(c *session, dir string) ([]store.Info, error) {
	entries, err := c.ReadDirContext(l.ctx, l.s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.s.absent(c); errors.Is(err, fs.ErrNotExist) {
			return nil, nil // nothing begins like this
		}
	}
	if err != nil {
		return nil, err
	}
	var wanted []store.Info
	for _, e := range entries {
		if durable.IsTemp(e.Name()) {
			l.s.sweep(c, dir, e)
			continue
		}
		if key, ok := l.wanted(dir, e); ok {
			wanted = append(wanted, store.Info{Key: key, Size: e.Size(), Modified: e.ModTime()})
		}
	}
	slices.SortFunc(wanted, func(a, b store.Info) int { return strings.Compare(a.Key, b.Key) })
	return wanted, nil
}

func (l *lister) wanted(dir string, e fs.FileInfo) (key string, ok bool) {
	key = dir + e.Name()
	if store.CheckKey(key) != nil {
		return "", false
	}
	switch {
	case e.IsDir():
		if key == "lost+found" { // of the file system whose root this is; not ours to read
			return "", false
		}
		key += "/"
		below := strings.HasPrefix(key, l.prefix) || strings.HasPrefix(l.prefix, key)
		return key, below && (key > l.after || strings.HasPrefix(l.after, key))
	case e.Mode().IsRegular():
		return key, strings.HasPrefix(key, l.prefix) && key > l.after
	}
	return "", false
}

// tempAge is longer than any put takes.
const tempAge = 24 * time.Hour

// sweep removes an old temp file that a listing comes by, where the account may: a writer that died left it, or one that may not remove.
func (s *Store) sweep(c *session, dir string, e fs.FileInfo) {
	s.mu.Lock()
	mayNot := s.mayNotRemove
	s.mu.Unlock()
	if mayNot || !e.Mode().IsRegular() || time.Since(e.ModTime()) < tempAge {
		return
	}
	if err := c.Remove(s.path(dir + e.Name())); errors.Is(err, fs.ErrPermission) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mayNotRemove = true
	}
}
