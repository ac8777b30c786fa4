package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// ErrReplaced says that pg_wal is no longer the folder that was opened. It is never fs.ErrNotExist.
var ErrReplaced = errors.New("pg_wal is no longer the folder that was opened")

const (
	statusDir   = "archive_status"
	readySuffix = ".ready"
	doneSuffix  = ".done"

	// historyMax is more than any history: a line of the file has some 50 bytes.
	historyMax = 1 << 20
)

// Queue is an open pg_wal. Its methods may be called concurrently.
type Queue struct {
	dir  string // absolute, of pg_wal as it was given
	size wal.SegmentSize
	root *os.Root
	self fs.FileInfo // of root

	tick, rescan time.Duration // of Watch and Poll

	mu    sync.Mutex
	last  *Listing     // nil when it cannot be given again
	times [2]time.Time // when the folders had changed that last is of
}

// Open opens pg_wal, a folder or a symlink to one. size decides what is a segment's name.
func Open(dir string, size wal.SegmentSize) (*Queue, error) {
	if !size.Valid() {
		return nil, fmt.Errorf("open %s: segment size %d is not a power of two from 1 MiB to 1 GiB", dir, size)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open pg_wal: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err // which names the folder
	}
	self, err := root.Stat(".")
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("open pg_wal: %w", err)
	}
	return &Queue{dir: dir, size: size, root: root, self: self, tick: time.Second, rescan: RescanEvery}, nil
}

// Close lets go of the folder. Everything fails afterwards; files that were opened stay open.
func (q *Queue) Close() error { return q.root.Close() }

// Check returns nil while the folder that was opened is the one that its path leads to, else ErrReplaced.
func (q *Queue) Check() error {
	now, err := os.Stat(q.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is gone", ErrReplaced, q.dir)
	case err != nil:
		return fmt.Errorf("check pg_wal: %w", err)
	case !os.SameFile(now, q.self):
		return fmt.Errorf("%w: %s leads to another one", ErrReplaced, q.dir)
	}
	return nil
}

// Status is what archive_status says about a file.
type Status uint8

const (
	None  Status = iota // no status file
	Ready               // .ready: PostgreSQL waits for it to be archived
	Done                // .done: it may be removed; wins over .ready, as in PostgreSQL
)

func (s Status) String() string {
	switch s {
	case None:
		return "none"
	case Ready:
		return "ready"
	case Done:
		return "done"
	}
	return fmt.Sprintf("status %d", s)
}

// File is a WAL file, or a status file whose WAL file is gone.
type File struct {
	Name   wal.Name
	Status Status
	Gone   bool // there is a status file and no WAL file
}

// Scan reads both folders once and returns their files. What it holds for each is some bits. Folders that are as they were are not read again.
func (q *Queue) Scan() (*Listing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	begin, times := time.Now(), q.changed()
	if q.last != nil && times == q.times && q.Check() == nil {
		return q.last, nil
	}
	files, err := q.scan()
	// A folder that was removed reads as an empty one, or as missing.
	if replaced := q.Check(); replaced != nil {
		return nil, replaced
	}
	if err != nil {
		return nil, err
	}
	files.sorted()
	if q.last = nil; settled(times, begin) {
		q.last, q.times = files, times
	}
	return files, nil
}

// settled says whether folders that changed then, and that were read after begin, have other times once they change again: file systems
// count in steps of some milliseconds, FAT and old NFS servers of two seconds.
func settled(times [2]time.Time, begin time.Time) bool {
	for _, t := range times {
		if t.IsZero() || begin.Sub(t) < 3*time.Second {
			return false
		}
	}
	return true
}

// scan notes the status files, and then the WAL files.
func (q *Queue) scan() (*Listing, error) {
	files := &Listing{size: q.size, pages: map[place]*page{}}
	err := eachRegular(q.root, statusDir, func(base string) {
		if n, s, ok := q.parseStatus(base); ok {
			files.note(n, s, true)
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("scan %s: %w", statusDir, err)
	}
	err = eachRegular(q.root, ".", func(base string) {
		if n, err := wal.ParseName(base, q.size); err == nil {
			files.note(n, None, false)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("scan pg_wal: %w", err)
	}
	return files, nil
}

// parseStatus reads the name of a status file.
func (q *Queue) parseStatus(base string) (wal.Name, Status, bool) {
	status := Ready
	name, ok := strings.CutSuffix(base, readySuffix)
	if !ok {
		status = Done
		name, ok = strings.CutSuffix(base, doneSuffix)
	}
	if !ok {
		return wal.Name{}, None, false
	}
	n, err := wal.ParseName(name, q.size)
	return n, status, err == nil
}

// Ident tells one content of a name from another: PostgreSQL recycles a segment by giving its file another
// name and overwriting it. It is comparable.
type Ident struct {
	Dev, Inode   uint64
	Size         int64 // bytes
	Mtime, Ctime int64 // ns since 1970
}

func identOf(info fs.FileInfo) (Ident, error) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Ident{}, errors.New("no inode number")
	}
	if !info.Mode().IsRegular() {
		return Ident{}, fmt.Errorf("not a regular file: %s", info.Mode())
	}
	return Ident{Dev: s.Dev, Inode: s.Ino, Size: s.Size, Mtime: s.Mtim.Nano(), Ctime: s.Ctim.Nano()}, nil
}

// Ident looks at the file that has the name now. It is fs.ErrNotExist when there is none.
func (q *Queue) Ident(n wal.Name) (Ident, error) {
	info, err := q.root.Lstat(n.String())
	if err != nil {
		return Ident{}, q.missing("look at", n, err)
	}
	id, err := identOf(info)
	if err != nil {
		return Ident{}, fmt.Errorf("look at %s: %w", n, err)
	}
	return id, nil
}

// Open opens the file for reading and says what it is. It opens regular files only and follows no symlink.
// It is fs.ErrNotExist when there is none.
func (q *Queue) Open(n wal.Name) (*os.File, Ident, error) {
	// An os.Root follows symlinks inside itself, whatever the flags say. One that is put there between these
	// two calls gets the Ident of its target, which the name never has.
	if _, err := q.Ident(n); err != nil {
		return nil, Ident{}, err
	}
	// O_NONBLOCK: opening a pipe would wait for its writer.
	f, err := q.root.OpenFile(n.String(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Ident{}, q.missing("open", n, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, Ident{}, fmt.Errorf("open %s: %w", n, err)
	}
	id, err := identOf(info)
	if err != nil {
		f.Close()
		return nil, Ident{}, fmt.Errorf("open %s: %w", n, err)
	}
	return f, id, nil
}

// MarkReady renames the .done file of n to .ready; a .ready file that is there as well is replaced.
// It is fs.ErrNotExist when there is no .done file. The rename is not fsynced: after a power loss it may be
// undone, and the next Scan sees it.
func (q *Queue) MarkReady(n wal.Name) error { return q.mark(n, doneSuffix, readySuffix) }

// MarkDone renames the .ready file of n to .done, like MarkReady. What is lost in a power loss is archived
// once more.
func (q *Queue) MarkDone(n wal.Name) error { return q.mark(n, readySuffix, doneSuffix) }

func (q *Queue) mark(n wal.Name, from, to string) error {
	base := statusDir + "/" + n.String()
	if err := q.root.Rename(base+from, base+to); err != nil {
		return q.missing("mark "+to[1:], n, err)
	}
	return nil
}

// History reads pg_wal/<t>.history. It is fs.ErrNotExist when there is none.
func (q *Queue) History(t wal.Timeline) (wal.History, []byte, error) {
	n := wal.HistoryName(t)
	f, _, err := q.Open(n)
	if err != nil {
		return wal.History{}, nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, historyMax+1))
	if err != nil {
		return wal.History{}, nil, fmt.Errorf("read %s: %w", n, err)
	}
	if len(raw) > historyMax {
		return wal.History{}, nil, fmt.Errorf("read %s: more than %d bytes", n, historyMax)
	}
	h, err := wal.ParseHistory(t, bytes.NewReader(raw))
	if err != nil {
		return wal.History{}, nil, fmt.Errorf("read %s: %w", n, err)
	}
	return h, raw, nil
}

// missing says what err means for n: that a name is not there is believed only if the folder still is.
func (q *Queue) missing(verb string, n wal.Name, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if replaced := q.Check(); replaced != nil {
			err = replaced
		}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err // the name is said already
	}
	return fmt.Errorf("%s %s: %w", verb, n, err)
}
