package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// This file is about encrypted objects on nodes without an identity that opens them, which is how nodes are meant to be. Headers are in the
// clear, so all that compares digests works as ever. Where the bytes of the archive's copy would be looked at, this is what is known of it:
// that it is what was once sealed, and that who sealed it had found it good (P3), or an administrator had accepted it by name.

// contrastSealed is contrast for such a copy.
func (a *Archiver) contrastSealed(ctx context.Context, n wal.Name, ours *content) (Contrast, error) {
	h, err := a.checkOther(ctx, n, ours.digest)
	if err == nil {
		err = checkHeader(h, n, a.local.systemID, a.archive.SegmentSize())
	}
	var w *wrongObject
	accepted := err == nil && a.decisions.of(copyOf{n.String(), h.Digest}).Accept // although our check refused it
	broken := damaged(err) || errors.As(err, &w) || accepted
	whole := ours.good || ours.disputed
	switch {
	case broken && whole:
		return TheirsDamaged, nil
	case broken:
		return NotCompared, nil
	case err != nil:
		a.note(err)
		return NotCompared, err
	case ours.state == wal.Damaged && ours.report.State == wal.Damaged, ours.end <= n.Segment.Start():
		return TheirsHolds, nil // nothing of ours is of use
	case whole, ours.state == wal.Damaged:
		return BothWhole, nil // one that is whole and does not fit the segment beside it may be another server's
	}
	return TheirsSealed, nil
}

// sealedJoint is lineJoint for such a copy of s: the joint of ours, if that is known to be the same, or of an orphan of ours that was adopted.
func (a *Archiver) sealedJoint(ctx context.Context, s wal.Segment, theirs seal.Digest) (wal.Joint, error) {
	a.mu.Lock()
	c, known := a.mine[a.archive.OrphanKey(a.o.Member, wal.SegmentName(s), theirs)]
	a.mu.Unlock()
	if known {
		return c.joint, nil
	}
	ours, err := a.neighbour(ctx, s, true)
	if err != nil || !ours.sealed && ours.digest != theirs {
		return wal.Joint{}, err
	}
	return ours.joint, nil
}

// mostMine bounds what is remembered of orphans: some 600 bytes each.
const mostMine = 4096

// remember keeps what an orphan holds, for when it is on the line again and nobody here can open it.
func (a *Archiver) remember(key string, n wal.Name, c *content) {
	if len(a.o.EncryptTo) == 0 || n.Kind != wal.KindSegment {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mine) < mostMine {
		a.mine[key] = *c
	}
}

// adoptSealed adopts an orphan that cannot be opened here, as it is, when this Archiver put it there itself: then it knows what is in it.
func (a *Archiver) adoptSealed(ctx context.Context, key string, n wal.Name, line wal.History, locked error) error {
	a.mu.Lock()
	c, known := a.mine[key]
	a.mu.Unlock()
	if !known {
		return locked
	}
	if err := a.belongs(ctx, n, line, &content{report: c.report, joint: c.joint}); err != nil {
		return err
	}
	kept, err := a.keepOrphan(ctx, key)
	if err != nil {
		return err
	}
	defer kept.Close()
	if err := checkHeader(kept.Header, n, a.local.systemID, a.archive.SegmentSize()); err != nil || kept.Header.Digest != c.digest {
		return fmt.Errorf("%w: its header tells of another file", errBadCopy)
	}
	return a.take(ctx, n, kept)
}

// keepOrphan reads a sealed object, whole, from the first archive that has it.
func (a *Archiver) keepOrphan(ctx context.Context, key string) (*seal.Kept, error) {
	archives := []*Archive{a.archive}
	if a.targets != nil {
		archives = nil
		for _, t := range a.reached() {
			archives = append(archives, t.archive)
		}
	}
	size := int64(a.archive.SegmentSize())
	failed := error(fs.ErrNotExist)
	for _, in := range archives {
		r, err := in.store.Get(ctx, key, 0, -1)
		if err == nil {
			var kept *seal.Kept
			kept, err = a.sealer.Keep(r, size+size/8+seal.HeaderRange)
			r.Close() // the object was held against its digests
			if err == nil {
				return kept, nil
			}
		}
		failed = err
	}
	return nil, failed
}

// locked is the error of a restore for a file that is there, and that no key here opens.
func (a *Archive) locked(err error) error {
	why := "no identity is configured here that would open it: name the file with one in identities"
	switch {
	case errors.Is(err, seal.ErrWrongIdentity) && len(a.keys) == 1:
		why = "the identity here does not open it, for it was encrypted to others: name the file with the right one in identities"
	case errors.Is(err, seal.ErrWrongIdentity):
		why = fmt.Sprintf("none of the %d identities here opens it, for it was encrypted to others: name the file with the right one in identities", len(a.keys))
	}
	return wrong(seal.ErrEncrypted, "%s has it encrypted with age, and %s", a, why)
}
