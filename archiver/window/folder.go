package window

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver/durable"
)

// folder is where the files are. It is locked: two windows in one place would take each other's files away.
type folder struct {
	dir  string
	lock *os.File
}

const suffix = ".prefetched"

var errShared = errors.New("another sidecar prefetches into it; each needs a folder of its own")

// openFolder makes the folder, locks it, and removes what a process that was killed has left there.
func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errShared
		}
		return nil, err
	}
	f := &folder{dir, lock}
	if err := f.clean(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// clean removes our files and no other ones: the folder may have been named by mistake.
func (f *folder) clean() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = durable.Sweep(root, ".", time.Now())
	return err
}

// path of a file. No two have the same: one that was dropped may still be written while its segment is fetched again.
func (f *folder) path(k Key, count int) string {
	return filepath.Join(f.dir, fmt.Sprintf("%s-%d%s", k.Segment, count, suffix))
}

// diskFree is how many bytes may still be written to the disk of a folder.
func diskFree(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func (f *folder) close() { f.lock.Close() }

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
