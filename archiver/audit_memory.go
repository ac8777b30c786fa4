package archiver

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/walbaton/walbaton/archiver/wal"
)

// AuditMemory remembers what a deep audit found to be good, so that an interrupted one can go on. It is called from several
// goroutines. What was bad is never remembered, and so looked at again.
type AuditMemory interface {
	// Known says whether this very block was good.
	Known(b AuditBlock) bool
	// Good is told of a block that is. An error ends the audit.
	Good(b AuditBlock) error
}

// AuditBlock is up to 32 segments of one timeline.
type AuditBlock struct {
	Timeline wal.Timeline `json:"timeline"`
	No       uint64       `json:"block"` // of its first segment, divided by 32
	// Print depends on the names, sizes and times of the block's objects and of those that come before it, and on the history by which they
	// were judged. Nothing in an archive is overwritten, so an object that is another one now has another time.
	Print uint64 `json:"print,string"`
}

// block is what AuditBlock names.
type block struct {
	timeline wal.Timeline
	no       uint64
}

func blockOf(s wal.Segment) block { return block{s.Timeline, s.No / chainLength} }

// fingerprints tells for each block which objects a listing found in it: some 50 bytes for 32 segments. It is nil where nobody asks.
type fingerprints map[block]uint64

func (f fingerprints) add(o Object) {
	if f == nil || o.Name.Kind != wal.KindSegment {
		return
	}
	b := blockOf(o.Name.Segment)
	h := fnv.New64a()
	var n [32]byte
	le := binary.LittleEndian
	le.PutUint64(n[:], f[b])
	le.PutUint64(n[8:], o.Name.Segment.No)
	le.PutUint64(n[16:], uint64(o.Size))
	le.PutUint64(n[24:], uint64(o.Modified.UnixNano()))
	h.Write(n[:])
	f[b] = h.Sum64()
}

// print is what is to be remembered of a block whose first segment is s.
func (x *auditor) print(s wal.Segment) AuditBlock {
	b := blockOf(s)
	h := fnv.New64a()
	before := block{}
	if p, ok := x.predecessor(s); ok {
		before = blockOf(p)
	}
	history, _ := x.ancestry(s.Timeline)
	fmt.Fprint(h, x.prints[b], before, x.prints[before], x.o.Since, history.Forks)
	return AuditBlock{b.timeline, b.no, h.Sum64()}
}
