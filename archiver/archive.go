package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// FormatVersion is the layout of the archive that this program reads and writes.
const FormatVersion = 1

// ErrFormat means that the archive was written by a program that we do not understand, or for another server.
var ErrFormat = errors.New("the archive does not fit")

// Identity is what archive.json says. It is written once, by Patroni's leader, and never changed.
type Identity struct {
	Format      int             `json:"format"`
	Scope       string          `json:"scope"`
	SystemID    uint64          `json:"system_identifier,string"`
	SegmentSize wal.SegmentSize `json:"segment_size"`
	Floor       Floor           `json:"floor"` // the first floor
	Member      string          `json:"created_by"`
	Created     time.Time       `json:"created"`
	Software    string          `json:"software,omitempty"`
}

// Floor is a place below which the archive promises nothing. It carries the ancestors of its
// timeline, so that nothing else is needed to say what lies below it.
type Floor struct {
	Timeline  wal.Timeline
	LSN       wal.LSN
	Ancestors []wal.Timeline // of Timeline, oldest first
	// Alone is for a branch that was expired: its ancestors, which may be the line's, stay.
	Alone  bool
	Raised time.Time // zero for the first floor
	By     string    // member, and who asked it to
}

type floorJSON struct {
	Timeline  wal.Timeline   `json:"timeline"`
	LSN       string         `json:"lsn"`
	Ancestors []wal.Timeline `json:"ancestors,omitempty"`
	Alone     bool           `json:"alone,omitempty"`
	Raised    time.Time      `json:"raised,omitzero"`
	By        string         `json:"by,omitempty"`
}

// MarshalJSON writes the LSN as people read it.
func (f Floor) MarshalJSON() ([]byte, error) {
	return json.Marshal(floorJSON{f.Timeline, f.LSN.String(), f.Ancestors, f.Alone, f.Raised, f.By})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (f *Floor) UnmarshalJSON(b []byte) error {
	var j floorJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	lsn, err := wal.ParseLSN(j.LSN)
	if err != nil {
		return err
	}
	*f = Floor{j.Timeline, lsn, j.Ancestors, j.Alone, j.Raised, j.By}
	return nil
}

// Covers says whether s lies below the floor (DESIGN section 3).
func (f Floor) Covers(s wal.Segment) bool {
	return s.End() <= f.LSN && (s.Timeline == f.Timeline || slices.Contains(f.Ancestors, s.Timeline))
}

// Archive is the folder of one PostgreSQL cluster, <scope>/<system identifier>, in one store:
// its keys, its identity, its floors. It decides nothing about who may write.
type Archive struct {
	store store.Store
	root  string
	id    Identity
	begun bool
	keys  []seal.Identity // open what is encrypted; none where nobody restores

	mu     sync.Mutex
	floors []Floor // replaced, never changed
}

// OpenArchive reads archive.json and the floors. fs.ErrNotExist means that the store answered and
// has no such archive; ErrFormat that the archive is not ours to touch. The keys open encrypted objects; all
// but the bytes of segments can be read without.
func OpenArchive(ctx context.Context, s store.Store, scope string, systemID uint64, keys ...seal.Identity) (*Archive, error) {
	a := &Archive{store: s, root: path.Join(scope, strconv.FormatUint(systemID, 10)), keys: keys}
	b, err := a.read(ctx, a.root+"/archive.json")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", a, err)
	}
	if err := json.Unmarshal(b, &a.id); err != nil {
		return nil, fmt.Errorf("open %s: %w: its archive.json does not parse: %w", a, ErrFormat, err)
	}
	switch {
	case a.id.Format != FormatVersion:
		return nil, fmt.Errorf("open %s: %w: its archive.json has format %d, and this program knows %d", a, ErrFormat, a.id.Format, FormatVersion)
	case a.id.SystemID != systemID:
		return nil, fmt.Errorf("open %s: %w: its archive.json names system identifier %d", a, ErrFormat, a.id.SystemID)
	case !a.id.SegmentSize.Valid():
		return nil, fmt.Errorf("open %s: %w: its archive.json names segments of %d bytes", a, ErrFormat, a.id.SegmentSize)
	}
	if err := a.ReadFloors(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// CreateArchive writes archive.json. fs.ErrExist means that somebody was faster; open it then.
func CreateArchive(ctx context.Context, s store.Store, id Identity) error {
	id.Format = FormatVersion
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	key := path.Join(id.Scope, strconv.FormatUint(id.SystemID, 10), "archive.json")
	if err := s.Put(ctx, key, Bytes(append(b, '\n'))); err != nil {
		return fmt.Errorf("begin the archive: %w", err)
	}
	return nil
}

// Begun says whether this very Archive was begun by the Prepare that returned it.
func (a *Archive) Begun() bool { return a.begun }

// Identity gives what archive.json said.
func (a *Archive) Identity() Identity { return a.id }

// Floors gives the first floor and all later ones.
func (a *Archive) Floors() []Floor {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.floors
}

// SegmentSize is that of every segment in the archive.
func (a *Archive) SegmentSize() wal.SegmentSize { return a.id.SegmentSize }

// Store is where the archive lives.
func (a *Archive) Store() store.Store { return a.store }

// String names the archive for people; secrets are left out.
func (a *Archive) String() string { return strings.TrimSuffix(a.store.String(), "/") + "/" + a.root }

// BelowFloor says whether the archive promises nothing about n. A history never is.
func (a *Archive) BelowFloor(n wal.Name) bool {
	if n.Kind == wal.KindHistory {
		return false
	}
	return slices.ContainsFunc(a.Floors(), func(f Floor) bool { return f.Covers(n.Segment) })
}

// Key is where n lives: one name, one key, whatever the codec.
func (a *Archive) Key(n wal.Name) string {
	if n.Kind == wal.KindHistory {
		return a.root + "/history/" + n.String()
	}
	return a.root + "/wal/" + n.Segment.Timeline.String() + "/" + n.String()
}

// OrphanKey is where a copy of n is kept that is off the line. Two different copies never collide.
func (a *Archive) OrphanKey(member string, n wal.Name, d seal.Digest) string {
	return a.root + "/orphans/" + member + "/" + n.String() + "-" + d.String()
}

// Put writes a sealed object under key: fs.ErrExist when there is one.
func (a *Archive) Put(ctx context.Context, key string, body store.Body) error {
	return a.store.Put(ctx, key, body)
}

// Header reads the first bytes of an object: enough to compare its content with ours.
// fs.ErrNotExist: the archive answered, and has none. seal.ErrFormat, seal.ErrDamaged: it has one that cannot be used.
func (a *Archive) Header(ctx context.Context, key string) (seal.Header, error) {
	r, err := a.store.Get(ctx, key, 0, seal.HeaderRange)
	if err != nil {
		return seal.Header{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, seal.HeaderRange))
	if err != nil {
		return seal.Header{}, err
	}
	h, err := seal.ReadHeader(bytes.NewReader(b))
	if err != nil {
		return seal.Header{}, fmt.Errorf("read header of %s: %w", key, err)
	}
	return h, nil
}

// Open gives the plain bytes of an object. The last Read fails when they are not what was sealed. An error, also seal.ErrEncrypted
// when no key fits, comes with the header if that could be read.
func (a *Archive) Open(ctx context.Context, key string) (seal.Header, io.ReadCloser, error) {
	r, err := a.store.Get(ctx, key, 0, -1)
	if err != nil {
		return seal.Header{}, nil, err
	}
	h, plain, err := seal.Open(r, a.keys...)
	if err != nil {
		return h, nil, errors.Join(fmt.Errorf("open %s: %w", key, err), r.Close())
	}
	return h, &both{plain, r}, nil
}

// Check reads an object to its end, and says whether it is what was sealed as far as that can be told without a key.
func (a *Archive) Check(ctx context.Context, key string) (seal.Header, error) {
	r, err := a.store.Get(ctx, key, 0, -1)
	if err != nil {
		return seal.Header{}, err
	}
	defer r.Close()
	h, err := seal.Check(r)
	if err != nil {
		return h, fmt.Errorf("check %s: %w", key, err)
	}
	return h, nil
}

// History reads a history from the archive, and its bytes as PostgreSQL wrote them.
func (a *Archive) History(ctx context.Context, t wal.Timeline) (wal.History, []byte, error) {
	_, r, err := a.Open(ctx, a.Key(wal.HistoryName(t)))
	if err != nil {
		return wal.History{}, nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return wal.History{}, nil, fmt.Errorf("read %v.history: %w", t, err)
	}
	h, err := wal.ParseHistory(t, bytes.NewReader(b))
	return h, b, err
}

// Object is a file that a listing found.
type Object struct {
	Name     wal.Name
	Size     int64 // sealed
	Modified time.Time
}

// List gives the files of timeline t from segment number `from` on, in LSN order; .partial and
// .backup files come after their segment. Keys that are no WAL names are passed over.
func (a *Archive) List(ctx context.Context, t wal.Timeline, from uint64) iter.Seq2[Object, error] {
	prefix := a.root + "/wal/" + t.String() + "/"
	after := ""
	if from > 0 {
		// The files of the segment before are after its own key, so start at its last possible one.
		after = prefix + wal.Segment{Timeline: t, Size: a.id.SegmentSize, No: from - 1}.String() + "~"
	}
	return a.list(ctx, prefix, after)
}

// Histories gives the history files, lowest timeline first.
func (a *Archive) Histories(ctx context.Context) iter.Seq2[Object, error] {
	return a.list(ctx, a.root+"/history/", "")
}

// All gives every file below wal/, timeline by timeline.
func (a *Archive) All(ctx context.Context) iter.Seq2[Object, error] {
	return a.list(ctx, a.root+"/wal/", "")
}

func (a *Archive) list(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for info, err := range a.store.List(ctx, prefix, after) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			n, err := wal.ParseName(path.Base(info.Key), a.id.SegmentSize)
			if err != nil || a.Key(n) != info.Key {
				continue
			}
			if !yield(Object{n, info.Size, info.Modified}, nil) {
				return
			}
		}
	}
}

// Opened says whether somebody opened the timeline of n: the archive has one of its segments, or, when n is the
// history, has that.
func (a *Archive) Opened(ctx context.Context, n wal.Name) (bool, error) {
	if n.Kind == wal.KindHistory {
		_, err := a.store.Head(ctx, a.Key(n))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	for o, err := range a.List(ctx, n.Segment.Timeline, 0) {
		if err != nil {
			return false, err
		}
		if o.Name.Kind == wal.KindSegment {
			return true, nil
		}
	}
	return false, nil
}

func (a *Archive) probeKey(member string) string { return a.root + "/probe/" + member }

// probe asks whether the store takes files: it puts one small object.
func (a *Archive) probe(ctx context.Context, member string) error {
	key := a.probeKey(member)
	if err := a.store.Delete(ctx, key); err != nil {
		return fmt.Errorf("probe the archive: %w", err)
	}
	if err := a.store.Put(ctx, key, Bytes([]byte("walbaton\n"))); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("probe the archive: %w", err)
	}
	return nil
}

func (a *Archive) read(ctx context.Context, key string) ([]byte, error) {
	r, err := a.store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 1<<20))
}

// both closes the plain reader and what it reads from.
type both struct {
	io.ReadCloser
	under io.Closer
}

func (b *both) Close() error { return errors.Join(b.ReadCloser.Close(), b.under.Close()) }

// Bytes makes a store.Body of a small file.
func Bytes(b []byte) store.Body { return &bytesBody{bytes.NewReader(b), int64(len(b))} }

type bytesBody struct {
	*bytes.Reader
	size int64
}

func (b *bytesBody) Size() int64 { return b.size }
