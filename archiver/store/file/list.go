package file

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
	"syscall"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
)

// List implements store.Store. It reads only folders that can hold a key that is asked for, one at
// a time, so its memory is that of the largest one.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		l := lister{ctx: ctx, prefix: prefix, after: after, yield: yield}
		if err := l.run(s); err != nil && !errors.Is(err, errStopped) {
			yield(store.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// errStopped ends a listing that its caller does not want to go on.
var errStopped = errors.New("stopped")

type lister struct {
	ctx           context.Context
	root          *os.Root
	prefix, after string
	yield         func(store.Info, error) bool
}

func (l *lister) run(s *Store) error {
	root, err := s.enter(l.ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	l.root = root
	dir, _ := path.Split(l.prefix)
	if dir != "" && store.CheckKey(strings.TrimSuffix(dir, "/")) != nil {
		return nil // no key begins like this
	}
	return l.folder(dir)
}

// folder yields the objects below dir, which is empty or ends in a slash.
func (l *lister) folder(dir string) error {
	names, err := l.names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := context.Cause(l.ctx); err != nil {
			return err
		}
		if strings.HasSuffix(name, "/") {
			if err := l.folder(dir + name); err != nil {
				return err
			}
			continue
		}
		info, err := l.root.Lstat(dir + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		} else if err != nil {
			return err
		}
		if !l.yield(store.Info{Key: dir + name, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return errStopped
		}
	}
	return nil
}

// names returns what in dir is asked for, in the order of the keys: there a folder's place is that of its
// name with the slash, which it is returned with.
func (l *lister) names(dir string) ([]string, error) {
	f, err := l.root.Open(path.Join(".", dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil // nothing begins like this
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return nil, err
	}
	var names []string
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if name, ok := l.wanted(dir, e); ok {
				names = append(names, name)
			}
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if err := context.Cause(l.ctx); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

func (l *lister) wanted(dir string, e fs.DirEntry) (name string, ok bool) {
	name = e.Name()
	key := dir + name
	if store.CheckKey(key) != nil || durable.IsTemp(name) {
		return "", false
	}
	switch {
	case e.IsDir():
		if key == "lost+found" { // of the file system whose root this is; not ours to read
			return "", false
		}
		key += "/"
		below := strings.HasPrefix(key, l.prefix) || strings.HasPrefix(l.prefix, key)
		return name + "/", below && (key > l.after || strings.HasPrefix(l.after, key))
	case e.Type().IsRegular():
		return name, strings.HasPrefix(key, l.prefix) && key > l.after
	}
	return "", false
}
