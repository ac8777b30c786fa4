package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// volume is the disk as the write sequences see it: an os.Root, or in tests one that fails on demand. It has seven methods, one for each
// system call that a test lets fail.
type volume interface {
	exists(name string) (bool, error)
	create(name string, perm fs.FileMode) (file, error) // fails if the name is taken
	mkdir(name string, perm fs.FileMode) error
	link(from, to string) error
	rename(from, to string) error
	remove(name string) error
	syncDir(dir string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

func create(v volume, name string, src io.Reader, perm fs.FileMode) error {
	dir := path.Dir(name)
	taken, err := v.exists(name)
	if err != nil {
		return err
	}
	if taken {
		return existing(v, dir)
	}
	temp, err := writeTemp(v, dir, src, perm)
	if err != nil {
		return err
	}
	linked := v.link(temp, name)
	// The temp name goes before the folder is fsynced: one fsync for both. If it cannot be removed
	// the file is no worse for its second name, which Sweep will find.
	_ = v.remove(temp)
	switch {
	case linked == nil:
		return v.syncDir(dir)
	case errors.Is(linked, fs.ErrExist):
		return existing(v, dir)
	}
	return linked
}

// existing makes the taken name in dir durable. Only then the answer may be fs.ErrExist.
func existing(v volume, dir string) error {
	if err := v.syncDir(dir); err != nil {
		return err
	}
	return fs.ErrExist
}

func replace(v volume, name string, src io.Reader, perm fs.FileMode) error {
	if err := give(v, name, src, perm); err != nil {
		return err
	}
	return v.syncDir(path.Dir(name))
}

func give(v volume, name string, src io.Reader, perm fs.FileMode) error {
	temp, err := writeTemp(v, path.Dir(name), src, perm)
	if err != nil {
		return err
	}
	if err := v.rename(temp, name); err != nil {
		return and(err, v.remove(temp))
	}
	return nil
}

// writeTemp writes src into a new file of the folder dir whose content is durable and whose name is not.
func writeTemp(v volume, dir string, src io.Reader, perm fs.FileMode) (string, error) {
	temp := path.Join(dir, NewTemp())
	f, err := v.create(temp, perm)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Sync()
	}
	// A file system may report a lost write only here (NFS, quota).
	err = and(err, f.Close())
	if err != nil {
		return "", and(err, v.remove(temp))
	}
	return temp, nil
}

// and joins what went wrong with what went wrong after it, on one line.
func and(err, later error) error {
	if err == nil || later == nil {
		return errors.Join(err, later)
	}
	return fmt.Errorf("%w; then %w", err, later)
}

func mkdirAll(v volume, dir string, perm fs.FileMode) error {
	if dir = path.Clean(dir); dir == "." {
		return nil
	} else if !filepath.IsLocal(dir) {
		return fs.ErrInvalid
	}
	parent := path.Dir(dir)
	if err := mkdirAll(v, parent, perm); err != nil {
		return err
	}
	// That something else than a folder has the name shows at the next use of it.
	if err := v.mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return v.syncDir(parent)
}

// disk is the real volume.
type disk struct{ root *os.Root }

func (d disk) exists(name string) (bool, error) {
	_, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (d disk) create(name string, perm fs.FileMode) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File in an interface is not nil
	}
	return f, nil
}

func (d disk) mkdir(name string, perm fs.FileMode) error { return d.root.Mkdir(name, perm) }
func (d disk) link(from, to string) error                { return d.root.Link(from, to) }
func (d disk) rename(from, to string) error              { return d.root.Rename(from, to) }
func (d disk) remove(name string) error                  { return d.root.Remove(name) }

func (d disk) syncDir(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return and(f.Sync(), f.Close())
}
