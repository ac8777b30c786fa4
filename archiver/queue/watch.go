package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/archiver/wal"
)

// RescanEvery is how often Watch and Poll call wake when they saw nothing: as often as PostgreSQL's own
// archiver looks (pgarch.c, PGARCH_AUTOWAKE_INTERVAL).
const RescanEvery = time.Minute

// ErrNoInotify says that the kernel gives this process no more inotify instances or watches
// (fs.inotify.max_user_instances and max_user_watches). Poll does without.
var ErrNoInotify = errors.New("inotify is not to be had")

// folderEvents are names that appear, by rename too (recycled segments, history files), and the folder's own
// end. Not IN_MODIFY: every write of WAL would wake us.
const folderEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// Watch calls wake once when it begins to watch, then after each batch of events that may mean a new WAL
// file or a new status, when events were lost, when archive_status came back, and every RescanEvery.
// What only says that a file is archived (.ready renamed to .done) wakes nobody. wake is called by the
// goroutine that called Watch, and must not block for long.
//
// Watch blocks until ctx ends (its error is returned then), pg_wal is replaced (ErrReplaced, within a second)
// or the watching fails (ErrNoInotify: use Poll).
func (q *Queue) Watch(ctx context.Context, wake func()) error {
	w, err := q.newWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", q.dir, err)
	}
	// Closing the file ends a Read that waits.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(closed); w.file.Close() })
	defer func() {
		if stop() {
			w.file.Close()
		} else {
			<-closed
		}
	}()
	err = w.run(ctx, wake)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("watch %s: %w", q.dir, err)
}

// watcher is an inotify instance with a watch on pg_wal and, while it exists, one on archive_status.
type watcher struct {
	q      *Queue
	file   *os.File
	wal    int // watch descriptors
	status int // 0 while there is none: the kernel counts from 1
}

func (q *Queue) newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, noInotify(err)
	}
	w := &watcher{q: q, file: os.NewFile(uintptr(fd), "inotify")}
	if w.wal, err = w.add(q.dir); err == nil {
		_, err = w.refresh()
	}
	if err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

func noInotify(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %w", ErrNoInotify, err)
	}
	return err
}

// add watches a path, or finds out that it is watched already: then the descriptor is the same.
func (w *watcher) add(path string) (wd int, err error) {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := conn.Control(func(fd uintptr) { wd, err = unix.InotifyAddWatch(int(fd), path, folderEvents) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, noInotify(&fs.PathError{Op: "inotify_add_watch", Path: path, Err: err})
	}
	return wd, nil
}

// refresh makes sure that the folders which are there now are the ones that are watched. It says whether
// archive_status is another one than before.
func (w *watcher) refresh() (changed bool, err error) {
	if err := w.q.Check(); err != nil {
		return false, err
	}
	wd, err := w.add(filepath.Join(w.q.dir, statusDir))
	if errors.Is(err, fs.ErrNotExist) {
		wd, err = 0, nil
	}
	if err != nil || wd == w.status {
		return false, err
	}
	if old := w.status; old != 0 {
		// It may have been moved away and live on. EINVAL: it is gone, and its watch with it.
		if conn, err := w.file.SyscallConn(); err == nil {
			_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(old)) })
		}
	}
	w.status = wd
	return true, nil
}

func (w *watcher) run(ctx context.Context, wake func()) error {
	wake()
	last, looked := time.Now(), time.Now()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if err := w.file.SetReadDeadline(time.Now().Add(w.q.tick)); err != nil {
			return err
		}
		n, err := w.file.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		news, folders := w.parse(buf[:n])
		// Not every change of folders is an event: a removed one that somebody has open makes none.
		if folders || time.Since(looked) >= w.q.tick {
			looked = time.Now()
			changed, err := w.refresh()
			if err != nil {
				return err
			}
			news = news || changed
		}
		if news || time.Since(last) >= w.q.rescan {
			last = time.Now()
			wake()
		}
	}
	return ctx.Err()
}

// parse says whether the events mean that there may be something new, and whether a watched folder may have
// come or gone.
func (w *watcher) parse(events []byte) (news, folders bool) {
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(events)))
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:end])
		events = events[end:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			news, folders = true, true
		case mask&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0:
			folders = true
		case wd == w.wal:
			if name == statusDir {
				folders = true
			} else if _, err := wal.ParseName(name, w.q.size); err == nil {
				news = true
			}
		case wd == w.status:
			_, status, ok := w.q.parseStatus(name)
			news = news || ok && (status == Ready || mask&unix.IN_CREATE != 0)
		}
	}
	return news, folders
}

// Poll is Watch without inotify: every second it looks whether one of the folders has changed.
func (q *Queue) Poll(ctx context.Context, wake func()) error {
	tick := time.NewTicker(q.tick)
	defer tick.Stop()
	last, seen := time.Now(), q.changed()
	wake()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := q.Check(); err != nil {
			return fmt.Errorf("poll %s: %w", q.dir, err)
		}
		// A change within the resolution of the file system's clock after the last look is seen one
		// rescan later.
		if now := q.changed(); now != seen || time.Since(last) >= q.rescan {
			last, seen = time.Now(), now
			wake()
		}
	}
}

// changed returns when a name was last made, renamed or removed in each of the folders.
func (q *Queue) changed() (at [2]time.Time) {
	for i, dir := range []string{".", statusDir} {
		if info, err := q.root.Stat(dir); err == nil {
			at[i] = info.ModTime()
		}
	}
	return at
}
