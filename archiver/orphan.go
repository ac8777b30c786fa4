package archiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// orphan keeps the copy of n that l has in orphans/, whatever it is: WAL that the line left is somebody's
// committed data until a person says otherwise.
func (a *Archiver) orphan(ctx context.Context, l *local, n wal.Name) error {
	c, packed, err := l.load(n, a.sealer)
	if err != nil {
		return err
	}
	defer packed.Close()
	a.mu.Lock()
	done := a.orphaned[n] == c.digest
	a.mu.Unlock()
	if done {
		return nil
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return fmt.Errorf("seal %v: %w", n, err)
	}
	defer sealed.Close()
	key := a.archive.OrphanKey(a.o.Member, n, c.digest)
	err = a.archive.Put(ctx, key, sealed)
	if errors.Is(err, fs.ErrExist) {
		// The digest is part of the key; the header says whether the object is whole enough to be read.
		var h seal.Header
		if h, err = a.archive.Header(ctx, key); err == nil && h.Digest != c.digest {
			err = fmt.Errorf("%s holds other content", key)
		}
	}
	if err != nil {
		a.note(err)
		return err
	}
	a.mu.Lock()
	a.orphaned[n] = c.digest
	a.mu.Unlock()
	a.m.orphans.Inc()
	a.log.Warn("kept in orphans", "file", n.String(), "digest", c.digest.String())
	return nil
}

// adoption is when orphans/ was looked through: since then nothing may have become adoptable.
type adoption struct {
	term uint64
	line wal.Timeline
	news int // of coverage
}

// AdoptOrphans puts under its own name what lies in orphans/ and is on the line now: it was put
// there while another line was the cluster's. It is a step of Lead, and looks once a term, and again when the line has
// changed, or when the archive got the first segment of a timeline.
func (a *Archiver) AdoptOrphans(ctx context.Context) error {
	line := a.line(a.scope.Last())
	now := adoption{a.Term(), line.Timeline, a.cover.changes()}
	a.mu.Lock()
	done := a.adopted == now
	a.mu.Unlock()
	if done {
		return nil
	}
	prefix := a.archive.root + "/orphans/"
	for info, err := range a.archive.store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("look for orphans: %w", err)
		}
		base := path.Base(info.Key)
		name, _, ok := strings.Cut(base, "-")
		if !ok {
			continue
		}
		n, err := wal.ParseName(name, a.archive.SegmentSize())
		if err != nil || n.Kind != wal.KindSegment || !line.Holds(n.Segment) || a.cover.has(n) || a.archive.BelowFloor(n) || a.setAsideFor(info.Key, n) {
			continue
		}
		if p := a.permit(ctx, n); !p.ok || p.opens {
			continue // an orphan opens no timeline: it may be of another server that took the same number
		}
		if _, err := a.local.q.Ident(n); err == nil {
			continue // our own copy goes first
		}
		if err := a.adopt(ctx, info.Key, n); err != nil {
			a.log.Warn("orphan not adopted", "key", info.Key, "why", err)
		}
	}
	a.mu.Lock()
	a.adopted = now
	a.mu.Unlock()
	return nil
}

func (a *Archiver) adopt(ctx context.Context, key string, n wal.Name) error {
	h, r, err := a.archive.Open(ctx, key)
	if err != nil {
		return err
	}
	defer r.Close()
	checker := wal.NewChecker(n.Segment, a.local.systemID)
	packed, err := a.sealer.Pack(io.TeeReader(r, checker), h.Size)
	if err != nil {
		return err
	}
	defer packed.Close()
	report := checker.Report()
	if report.State != wal.Complete {
		return fmt.Errorf("%w: %s", errBadCopy, report.Why)
	}
	c, err := a.prove(ctx, a.local, n, &content{report: report, joint: checker.Joint()})
	if err != nil {
		return err
	}
	if !c.good {
		return fmt.Errorf("%w: %s", errBadCopy, c.why)
	}
	sealed, err := packed.Seal(a.header(n, c))
	if err != nil {
		return err
	}
	defer sealed.Close()
	if err := a.archive.Put(ctx, a.archive.Key(n), sealed); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	a.cover.add(n)
	a.log.Info("adopted from orphans", "file", n.String())
	return nil
}

// samePrefix says whether our copy of n and the archive's are the same bytes up to end.
func (a *Archiver) samePrefix(ctx context.Context, n wal.Name, end wal.LSN) (bool, error) {
	f, _, err := a.local.q.Open(n)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, r, err := a.archive.Open(ctx, a.archive.Key(n))
	if err != nil {
		return false, err
	}
	defer r.Close()
	return equalUpTo(f, r, int64(end-n.Segment.Start()))
}

// equalUpTo compares the first n bytes of two readers.
func equalUpTo(x, y io.Reader, n int64) (bool, error) {
	bx, by := bufio.NewReaderSize(io.LimitReader(x, n), 1<<16), bufio.NewReaderSize(io.LimitReader(y, n), 1<<16)
	var cx, cy [1 << 14]byte
	for {
		kx, ex := io.ReadFull(bx, cx[:])
		ky, ey := io.ReadFull(by, cy[:])
		if !bytes.Equal(cx[:kx], cy[:ky]) {
			return false, nil
		}
		if ex != nil || ey != nil {
			for _, err := range []error{ex, ey} {
				if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
					return false, err
				}
			}
			return kx == ky, nil
		}
	}
}
