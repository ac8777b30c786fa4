package archiver

import (
	"context"
	"errors"
	"fmt"

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

// sealedJoint is lineJoint for such a copy of s: the joint of ours, if that is known to be the same.
func (a *Archiver) sealedJoint(ctx context.Context, s wal.Segment, theirs seal.Digest) (wal.Joint, error) {
	ours, err := a.neighbour(ctx, s, true)
	if err != nil || !ours.sealed && ours.digest != theirs {
		return wal.Joint{}, err
	}
	return ours.joint, nil
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
