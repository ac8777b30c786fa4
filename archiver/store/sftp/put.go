package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/pkg/sftp"

	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
)

// The extensions that a put needs, with version 1 (OpenSSH's PROTOCOL file, section 4).
const (
	extHardlink = "hardlink@openssh.com"
	extFsync    = "fsync@openssh.com"
)

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return s.do(ctx, "put", key, func(c *session) error { return s.put(ctx, c, key, b) })
}

func (s *Store) put(ctx context.Context, c *session, key string, b store.Body) error {
	if err := s.taken(c, key); err != nil {
		return err
	}
	body, err := store.Exact(ctx, b)
	if err != nil {
		return err
	}
	if err := s.makeReady(c, path.Dir(key)); err != nil {
		return err
	}
	temp := s.path(path.Join(path.Dir(key), durable.NewTemp()))
	f, err := c.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.forget(path.Dir(key)) // the folder went away under us, with its root perhaps
		if err := s.absent(c); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return errors.New("folder lost") // "not there" is no answer to a put
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("create a file: %w (the account may only read there, or the folder is another's)", err)
	case err != nil:
		return fmt.Errorf("create temp file: %w", err)
	}
	// Tidiness: List removes what stays.
	defer func() { _ = c.Remove(temp) }()
	err = write(c, f, body)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.Link(temp, s.path(key)); err != nil {
		return s.linkFailed(c, key, err)
	}
	return s.syncFolder(c, path.Dir(key))
}

// write writes the body to disk. Only here the extensions are asked for, when the server has let us create a file: from a
// read-only account OpenSSH hides them.
func write(c *session, f *sftp.File, body io.Reader) error {
	for _, name := range []string{extHardlink, extFsync} {
		if version, ok := c.HasExtension(name); !ok || version != "1" {
			return fmt.Errorf("%w (the SFTP server offers this account no %s, without which nothing can be written once)", fs.ErrPermission, name)
		}
	}
	if _, err := f.ReadFromWithConcurrency(body, 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	return nil
}

// taken returns nil when the key is free, fs.ErrExist when an object has it and is durable.
func (s *Store) taken(c *session, key string) error {
	info, err := c.Lstat(s.path(key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("the name belongs to a folder")
	case !info.Mode().IsRegular():
		return errors.New("the name belongs to a special file")
	}
	if err := s.syncFolder(c, path.Dir(key)); err != nil {
		return fmt.Errorf("taken, perhaps not durably: %v", err)
	}
	return fs.ErrExist
}

// linkFailed finds out why. SFTP says of a taken name only "failure", as of everything else.
func (s *Store) linkFailed(c *session, key string, err error) error {
	if !answered(err) {
		return err
	}
	if taken := s.taken(c, key); taken != nil {
		return taken
	}
	return fmt.Errorf("hard link: %w (the archive needs a file system with hard links)", err)
}

// makeReady makes the folder dir of keys and those above it, as far as they are missing, and their names durable, once for
// each folder and process. The root is not made.
func (s *Store) makeReady(c *session, dir string) error {
	if dir == "." {
		return nil
	}
	s.mu.Lock()
	ready := s.ready[dir]
	s.mu.Unlock()
	if ready {
		return nil
	}
	made := ""
	for element := range strings.SplitSeq(dir, "/") {
		above := made
		made = path.Join(made, element)
		if err := s.makeFolder(c, made); err != nil {
			return err
		}
		if err := s.syncFolder(c, above); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready[dir] = true
	return nil
}

func (s *Store) makeFolder(c *session, dir string) error {
	err := c.Mkdir(s.path(dir))
	if err == nil || !answered(err) {
		return err
	}
	info, statErr := c.Stat(s.path(dir)) // that it exists is only "failure" here, too
	switch {
	case statErr == nil && info.IsDir():
		return nil
	case statErr == nil:
		return fmt.Errorf("the name %s belongs to a file", dir)
	case errors.Is(statErr, fs.ErrPermission):
		return fmt.Errorf("look at folder %s: %w", dir, statErr)
	case errors.Is(err, fs.ErrNotExist):
		if err := s.absent(c); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return fmt.Errorf("make folder %s: the one above it is lost", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("make folder %s: %w (the account may only read there, or the folder above is another's)", dir, err)
	}
	return fmt.Errorf("make folder %s: %w", dir, err)
}

func (s *Store) forget(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ready, dir)
}

// syncFolder makes the names in a folder durable, where the server can: see the package comment. An account that may only
// read, and servers other than OpenSSH, may answer what they like.
func (s *Store) syncFolder(c *session, dir string) error {
	if _, ok := c.HasExtension(extFsync); !ok {
		return nil
	}
	f, err := c.Open(s.path(dir))
	opened := err == nil
	if opened {
		err = f.Sync()
		_ = f.Close() // nothing was written through it
	}
	var status *sftp.StatusError
	failed := opened && c.openSSH && errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure // EIO, ENOSPC
	if err == nil || answered(err) && !failed {
		return nil
	}
	return fmt.Errorf("fsync folder: %w", err)
}
