package archiver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

const (
	systemID = 7710542482846769188
	segSize  = wal.SegmentSize(1 << 20)
)

// prepared is an archive that a test fills as it likes.
type prepared struct {
	t      *testing.T
	store  *mem.Store
	sealer *seal.Sealer // of segments and .partial files
	clear  *seal.Sealer // of the other files
	keys   []seal.Identity
	a      *archiver.Archive
	before map[string][]byte // what was changed since begin, nil where nothing was
}

// prepare begins an archive whose first floor is the start of the segment.
func prepare(t *testing.T, floor wal.Segment) *prepared {
	t.Helper()
	p := &prepared{t: t, store: mem.New(t.Name())}
	var err error
	var to []seal.Recipient
	if strings.Contains(t.Name(), "/encrypted/") {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		to, p.keys = []seal.Recipient{id.Recipient()}, []seal.Identity{id}
	}
	if p.sealer, err = seal.New(seal.Zstd, to...); err != nil {
		t.Fatal(err)
	}
	if p.clear, err = seal.New(seal.Zstd); err != nil {
		t.Fatal(err)
	}
	p.floor(floor)
	return p
}

// floor begins the archive, or begins it anew with another first floor.
func (p *prepared) floor(floor wal.Segment) {
	p.t.Helper()
	id := archiver.Identity{Scope: "main", SystemID: systemID, SegmentSize: segSize, Member: "n1", Created: time.Unix(1e9, 0).UTC(),
		Floor: archiver.Floor{Timeline: floor.Timeline, LSN: floor.Start()}}
	p.delete("main/7710542482846769188/archive.json")
	if err := archiver.CreateArchive(p.t.Context(), p.store, id); err != nil {
		p.t.Fatal(err)
	}
	p.open()
}

// undo puts everything back as it was when begin was called: making or copying a whole archive for each case takes
// longer than the case.
func (p *prepared) undo() {
	p.store.Unmount(false)
	for key, object := range p.before {
		if err := p.store.Delete(context.Background(), key); err != nil {
			p.t.Fatal(err)
		}
		if object != nil {
			p.write(key, object)
		}
	}
	clear(p.before)
	p.open()
}

func (p *prepared) begin(t *testing.T) {
	p.t, p.before = t, map[string][]byte{}
}

// remember keeps an object before it is changed.
func (p *prepared) remember(key string) {
	if _, known := p.before[key]; known || p.before == nil {
		return
	}
	p.before[key] = nil
	if _, err := p.store.Head(p.t.Context(), key); err == nil {
		p.before[key] = p.get(key)
	}
}

func (p *prepared) write(key string, object []byte) {
	if err := p.store.Put(context.Background(), key, archiver.Bytes(object)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *prepared) delete(key string) {
	p.t.Helper()
	p.remember(key)
	if err := p.store.Delete(p.t.Context(), key); err != nil {
		p.t.Fatal(err)
	}
}

func (p *prepared) open() {
	p.t.Helper()
	var err error
	if p.a, err = archiver.OpenArchive(context.Background(), p.store, "main", systemID, p.keys...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *prepared) source() archiver.Source {
	return archiver.Source{Store: p.store, Scope: "main", Keys: p.keys}
}

// object seals plain bytes as h says; the system identifier is the cluster's unless h has one.
func (p *prepared) object(h seal.Header, plain []byte) []byte {
	p.t.Helper()
	if h.SystemID == 0 {
		h.SystemID = systemID
	}
	sealer := p.sealer
	if strings.HasSuffix(h.Name, ".history") || strings.HasSuffix(h.Name, ".backup") {
		sealer = p.clear
	}
	packed, err := sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		p.t.Fatal(err)
	}
	defer packed.Close()
	sealed, err := packed.Seal(h)
	if err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, sealed.Size())
	if _, err := io.ReadFull(sealed, b); err != nil {
		p.t.Fatal(err)
	}
	return b
}

// put stores a file as the archiver would.
func (p *prepared) put(n wal.Name, plain []byte) {
	p.set(p.a.Key(n), p.object(seal.Header{Name: n.String()}, plain))
}

// set stores bytes under a key, in place of what was there.
func (p *prepared) set(key string, object []byte) {
	p.t.Helper()
	p.delete(key)
	p.write(key, object)
}

func (p *prepared) get(key string) []byte {
	p.t.Helper()
	info, err := p.store.Head(p.t.Context(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := p.store.Get(p.t.Context(), key, 0, -1)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, info.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *prepared) remove(n wal.Name) { p.delete(p.a.Key(n)) }

// fill puts every finished segment of w's line, and its history.
func (p *prepared) fill(w *waltest.Writer) {
	for _, s := range w.Full() {
		p.put(wal.SegmentName(s), w.Segment(s))
	}
	if h := w.History(); len(h.Forks) > 0 {
		p.put(wal.HistoryName(h.Timeline), h.Bytes())
	}
}

func seg(t wal.Timeline, no uint64) wal.Segment {
	return wal.Segment{Timeline: t, Size: segSize, No: no}
}

func segName(t wal.Timeline, no uint64) wal.Name { return wal.SegmentName(seg(t, no)) }

func partialName(t wal.Timeline, no uint64) wal.Name {
	return wal.Name{Kind: wal.KindPartial, Segment: seg(t, no)}
}

// forked is a cluster with two promotions, each inside a segment: timeline 1 from segment 1 to the middle of 5, 2 to
// the middle of 9, and 3 up to 12.
func forked() (one, two, three *waltest.Writer) {
	one = waltest.New(systemID, segSize)
	one.Commit(time.Unix(1_700_000_000, 0))
	one.Fill(4)
	one.Record(200_000)
	two = one.Fork(2)
	two.Fill(4)
	two.Record(300_000)
	three = two.Fork(3)
	three.Fill(2)
	three.Commit(time.Unix(1_700_000_900, 0))
	three.Fill(2)
	return one, two, three
}

// dataDir makes a data directory with a pg_control of PostgreSQL 15 and the given files.
func dataDir(t *testing.T, id uint64, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	b := make([]byte, 8192)
	le := binary.LittleEndian
	le.PutUint64(b, id)
	le.PutUint32(b[8:], 1300)
	le.PutUint32(b[12:], 202209061)
	le.PutUint32(b[228:], uint32(segSize))
	le.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	for _, d := range []string{"global", "pg_wal"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "global", "pg_control"), b)
	for _, f := range files {
		writeFile(t, filepath.Join(dir, f), nil)
	}
	return dir
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
