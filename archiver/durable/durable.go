// Package durable is the one way in which walbaton writes a file that must survive a power loss.
//
// A write goes to a temp file in the folder of its target, is fsynced there, gets its name in one
// step, and then the folder is fsynced. A reader sees no file or the whole file, never a half.
//
//	root, err := os.OpenRoot("/backup/wal")                 // the caller's; durable never creates it
//	err = durable.MkdirAll(root, "wal/00000001", 0o750)     // once for each folder and process
//	err = durable.Create(root, "wal/00000001/0000…01", body, 0o640)
//	if errors.Is(err, fs.ErrExist) { … }                    // taken; and what is there is durable
//	err = durable.Replace(root, "report.json", body, 0o644)
//	err = durable.Give(root, "pg_wal/RECOVERYXLOG", body, 0o600)      // to somebody who would ask again
//	err = durable.Move("/spool/000…07", root, "pg_wal/RECOVERYXLOG")  // the same, of what is there already
//
// Create gives the name with link(2), so of many writers, in any number of processes, exactly one
// wins. Replace gives it with rename(2), so the last one wins. The file system must know hard links
// for Create.
//
// When nil is returned the file is durable, and so is its name (but for Give and Move). After an error
//   - no temp file is left, unless removing it failed too or the process died: IsTemp knows such
//     names, whoever lists a folder skips them, and Sweep removes the old ones;
//   - the name holds what it held before, with one exception: when only the fsync of the folder
//     failed, the whole file stands under its name and may be gone after a power loss. It is not
//     taken away again, because another writer may already have found it and counted on it.
//
// Every function works inside an *os.Root and blocks as long as the disk does. To end a write early,
// let src.Read return an error (a cancelled context's): it comes back as it is, wrapped.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Create writes src to its end into the new file name and makes it durable. perm is cut by the umask.
// It is an error that is fs.ErrExist when the name is taken, by whatever it is; what holds the name
// has then been made durable too: its content was before it got the name, and the folder is fsynced.
// A taken name costs no write, unless the other writer came in meanwhile.
func Create(root *os.Root, name string, src io.Reader, perm fs.FileMode) error {
	return wrap("create", name, create(disk{root}, name, src, perm))
}

// Replace writes src to its end into the file name and makes it durable, in place of what was there.
// perm is cut by the umask.
func Replace(root *os.Root, name string, src io.Reader, perm fs.FileMode) error {
	return wrap("replace", name, replace(disk{root}, name, src, perm))
}

// Give is Replace for a file that whoever wants it asks for again after a power loss, as a recovery does: the content is durable before it gets
// the name, the name is not. To fsync the folder, too, would wait for what others write on the disk; PostgreSQL does it when it keeps the file
// (KeepFileRestoredFromArchive in xlogarchive.c).
func Give(root *os.Root, name string, src io.Reader, perm fs.FileMode) error {
	return wrap("give", name, give(disk{root}, name, src, perm))
}

// Move is Give of the file at path, whose content is durable already: what Give wrote is. syscall.EXDEV says that path is on another file
// system: copy it then.
func Move(path string, root *os.Root, name string) error {
	return wrap("move to", name, move(path, root, name))
}

func move(from string, root *os.Root, name string) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return and(unix.Renameat(unix.AT_FDCWD, from, int(dir.Fd()), path.Base(name)), dir.Close())
}

// MkdirAll makes the folder dir and those above it inside root, as far as they are missing, durably.
// It fsyncs the folder above each of them, found or made: whoever made it may not have come to that.
func MkdirAll(root *os.Root, dir string, perm fs.FileMode) error {
	return wrap("make folder", dir, mkdirAll(disk{root}, dir, perm))
}

// SyncDir makes the names in the folder dir of root durable; "." is root itself.
func SyncDir(root *os.Root, dir string) error {
	return wrap("sync folder", dir, disk{root}.syncDir(dir))
}

const (
	tempPrefix = ".walbaton-"
	tempSuffix = ".tmp"
)

// NewTemp returns a file name that IsTemp knows and that no other writer has: 26 random letters (130 bits).
func NewTemp() string { return tempPrefix + rand.Text() + tempSuffix }

// IsTemp says whether base, a file name without folder, is one of a temp file of this package.
func IsTemp(base string) bool {
	middle, ok := strings.CutPrefix(base, tempPrefix)
	if !ok {
		return false
	}
	middle, ok = strings.CutSuffix(middle, tempSuffix)
	return ok && len(middle) == 26 && strings.Trim(middle, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// Sweep removes the temp files in the folder dir of root that were last written before the given time
// (choose it longer ago than any write can take) and says how many. Such a file is what a process
// that died has left. A folder that is not there has none.
func Sweep(root *os.Root, dir string, before time.Time) (removed int, err error) {
	f, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, wrap("sweep folder", dir, err)
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if !e.Type().IsRegular() || !IsTemp(e.Name()) {
				continue
			}
			info, err := root.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its writer was alive, and is done
			} else if err != nil {
				return removed, wrap("sweep folder", dir, err)
			}
			if !info.ModTime().Before(before) {
				continue
			}
			if err := root.Remove(name); err == nil {
				removed++
			} else if !errors.Is(err, fs.ErrNotExist) {
				return removed, wrap("sweep folder", dir, err)
			}
		}
		if err == io.EOF {
			return removed, nil
		} else if err != nil {
			return removed, wrap("sweep folder", dir, err)
		}
	}
}

func wrap(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, name, err)
}
