package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/walbaton/walbaton/archiver/queue"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// maxSmall bounds histories and backup labels; PostgreSQL's own are a few hundred bytes.
const maxSmall = 1 << 20

// errRecycled means that PostgreSQL replaced the file while we read it: read it again.
var errRecycled = errors.New("file was replaced while it was read")

// local is what this node has in one folder: pg_wal, or the folder of files set aside. It
// remembers what it read, and believes its memory only while the file is the very same one.
type local struct {
	q        *queue.Queue
	size     wal.SegmentSize
	systemID uint64

	mu       sync.Mutex
	found    *queue.Listing             // by the last scan
	files    map[wal.Name]*localFile    // of these, those that were read or asked about; and what is new
	fresh    []wal.Name                 // what is new: names that came up after the last scan, and are not in found
	reading  map[wal.Name]chan struct{} // closed when that reading has ended
	archived map[wal.Segment]wal.Joint  // of files that are gone, and that the archive has
	lines    map[wal.Timeline]lineFile  // histories as they were last read
}

// lineFile is a history file that was read.
type lineFile struct {
	ident   queue.Ident
	history wal.History
}

// localFile is one file as the last read saw it.
type localFile struct {
	read   *content // nil until the file was read
	sealed bool     // the archive has this content (covered)
}

// content is what reading a file to its end said about it.
type content struct {
	ident  queue.Ident
	digest seal.Digest
	size   int64
	good   bool // may be shipped under this name
	state  wal.State
	end    wal.LSN // of the good records
	why    string  // when it is not good
	report wal.Report

	joint    wal.Joint // of a segment
	proven   bool      // a segment that fits its history and the segments beside it (prove)
	disputed bool      // not good, or the segment beside it is not: they do not fit
}

func newLocal(q *queue.Queue, size wal.SegmentSize, systemID uint64) *local {
	return &local{q: q, size: size, systemID: systemID, found: &queue.Listing{}, files: map[wal.Name]*localFile{},
		reading: map[wal.Name]chan struct{}{}, archived: map[wal.Segment]wal.Joint{}, lines: map[wal.Timeline]lineFile{}}
}

// history gives pg_wal's history of t, read anew only when the file is another one: every push asks for it, again and again.
func (l *local) history(t wal.Timeline) (wal.History, error) {
	id, err := l.q.Ident(wal.HistoryName(t))
	if err != nil {
		return wal.History{}, err
	}
	l.mu.Lock()
	known, ok := l.lines[t]
	l.mu.Unlock()
	if !ok || known.ident != id {
		known.ident = id
		if known.history, _, err = l.q.History(t); err != nil {
			return wal.History{}, err
		}
		l.mu.Lock()
		l.lines[t] = known
		l.mu.Unlock()
	}
	h := known.history
	h.Forks = slices.Clone(h.Forks)
	return h, nil
}

// scan reads the folder once. What is gone is forgotten.
func (l *local) scan() error {
	found, err := l.q.Scan()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found, l.fresh = found, nil
	for n := range l.files {
		if f, ok := found.Find(n); !ok || f.Gone {
			l.forget(n)
		}
	}
	l.tidy()
	return nil
}

// entry gives what is remembered of n, for a caller that holds mu.
func (l *local) entry(n wal.Name) *localFile {
	e := l.files[n]
	if e == nil {
		e = &localFile{}
		l.files[n] = e
		if f, ok := l.found.Find(n); !ok || f.Gone {
			l.fresh = append(l.fresh, n)
		}
	}
	return e
}

// has says whether n is known to be there.
func (l *local) has(n wal.Name) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files[n] != nil {
		return true
	}
	f, ok := l.found.Find(n)
	return ok && !f.Gone
}

// revalidate drops what was read of files that are no longer the same: a rewind or a clone puts other
// files under the same names.
func (l *local) revalidate() {
	for k := range l.names() {
		if k.read == nil {
			continue
		}
		id, err := l.q.Ident(k.name)
		if err == nil && id == k.read.ident {
			continue
		}
		l.mu.Lock()
		if f := l.files[k.name]; f != nil && f.read == k.read {
			f.read, f.sealed = nil, false
		}
		l.mu.Unlock()
	}
}

// touch makes a name known before the next scan finds it, and says whether its file is there.
func (l *local) touch(n wal.Name) (queue.Ident, error) {
	id, err := l.q.Ident(n)
	if err != nil {
		return queue.Ident{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry(n)
	return id, nil
}

// known is one file.
type known struct {
	name   wal.Name
	status queue.Status
	read   *content
	sealed bool
	kept   bool // set aside, not in pg_wal
}

// names gives every known file, histories first, then in the order of the WAL. They are those of the last scan before the first one, and each
// is as it is when its turn comes. Nothing is held for them: there may be a million.
func (l *local) names() iter.Seq[known] {
	return func(yield func(known) bool) {
		l.mu.Lock()
		found, fresh := l.found, slices.Clone(l.fresh)
		l.mu.Unlock()
		slices.SortFunc(fresh, queue.Order)
		for f := range found.All() {
			if f.Gone {
				continue
			}
			for len(fresh) > 0 && queue.Order(fresh[0], f.Name) < 0 {
				if !yield(l.know(fresh[0], queue.None)) {
					return
				}
				fresh = fresh[1:]
			}
			if !yield(l.know(f.Name, f.Status)) {
				return
			}
		}
		for _, n := range fresh {
			if !yield(l.know(n, queue.None)) {
				return
			}
		}
	}
}

func (l *local) know(n wal.Name, s queue.Status) known {
	k := known{name: n, status: s}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[n]; f != nil {
		k.read, k.sealed = f.read, f.sealed
	}
	return k
}

// recall gives what was read of n, if the file is still the very same.
func (l *local) recall(n wal.Name, id queue.Ident) (c *content, sealed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[n]
	if f == nil || f.read == nil || f.read.ident != id {
		return nil, false
	}
	return f.read, f.sealed
}

// cover notes that the archive has this very content of n.
func (l *local) cover(n wal.Name, c *content) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[n]; f != nil && f.read != nil && f.read.ident == c.ident {
		f.sealed = true
	}
}

// check reads n unless memory holds, and says what it is.
func (l *local) check(n wal.Name) (*content, error) {
	id, err := l.touch(n)
	if err != nil {
		return nil, err
	}
	if c, _ := l.recall(n, id); c != nil {
		return c, nil
	}
	d := seal.NewDigest()
	return l.read(n, func(r io.Reader, _ int64) (seal.Digest, error) {
		_, err := io.Copy(d, r)
		return d.Sum(), err
	})
}

// load reads n, checks it and packs it for shipping in the same pass over its bytes.
func (l *local) load(n wal.Name, s *seal.Sealer) (*content, *seal.Packed, error) {
	if _, err := l.touch(n); err != nil {
		return nil, nil, err
	}
	var packed *seal.Packed
	c, err := l.read(n, func(r io.Reader, size int64) (seal.Digest, error) {
		p, err := s.Pack(r, size)
		if err != nil {
			return seal.Digest{}, err
		}
		packed = p
		return p.Digest(), nil
	})
	if err != nil && packed != nil {
		packed.Close()
		packed = nil
	}
	return c, packed, err
}

// read passes the file once through the check and through eat, which digests it.
func (l *local) read(n wal.Name, eat func(io.Reader, int64) (seal.Digest, error)) (*content, error) {
	defer l.beginRead(n)()
	f, id, err := l.q.Open(n)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &content{ident: id, size: id.Size}
	judge := newInspector(n, l.systemID, id.Size)
	if c.digest, err = eat(io.TeeReader(f, judge), id.Size); err != nil {
		return nil, fmt.Errorf("read %v: %w", n, err)
	}
	// The name is looked at again: PostgreSQL recycles a segment by renaming its inode, and
	// what we read may by now be the beginning of another segment.
	now, err := l.q.Ident(n)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil || now != id {
		return nil, fmt.Errorf("read %v: %w", n, errRecycled)
	}
	judge.conclude(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(n)
	if e.read == nil || e.read.ident != c.ident {
		e.sealed = false
	}
	e.read = c
	return c, nil
}

// inspector says whether a file is what its name says, from the bytes written to it (promise P3).
type inspector struct {
	name    wal.Name
	size    int64
	checker *wal.Checker // segments and partial segments
	small   bytes.Buffer // histories and backup labels
}

func newInspector(n wal.Name, systemID uint64, size int64) *inspector {
	i := &inspector{name: n, size: size}
	if n.Kind == wal.KindSegment || n.Kind == wal.KindPartial {
		i.checker = wal.NewChecker(n.Segment, systemID)
	}
	return i
}

// Write takes the next bytes. It never fails.
func (i *inspector) Write(p []byte) (int, error) {
	if i.checker != nil {
		return i.checker.Write(p)
	}
	if room := maxSmall + 1 - i.small.Len(); room > 0 {
		i.small.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// conclude fills in what the bytes said.
func (i *inspector) conclude(c *content) {
	c.state = wal.Complete
	switch i.name.Kind {
	case wal.KindSegment, wal.KindPartial:
		c.report, c.joint = i.checker.Report(), i.checker.Joint()
		c.state, c.end, c.why = c.report.State, c.report.End, c.report.Why
		c.good = c.state == wal.Complete || i.name.Kind == wal.KindPartial && c.state == wal.Cut
		if !c.good && c.why == "" {
			c.why = c.state.String()
		}
	case wal.KindHistory:
		_, err := wal.ParseHistory(i.name.Segment.Timeline, bytes.NewReader(i.small.Bytes()))
		c.good = err == nil && i.size <= maxSmall && i.size > 0
		if err != nil {
			c.why = err.Error()
		}
	case wal.KindBackup:
		c.good = i.size <= maxSmall && bytes.Contains(i.small.Bytes(), []byte("START WAL LOCATION"))
	}
	if !c.good && c.state == wal.Complete {
		c.state = wal.Damaged
		if c.why == "" {
			c.why = "not a " + i.name.Kind.String() + " file"
		}
	}
}
