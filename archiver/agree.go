package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// agreement is what several archives say about one content of a file.
type agreement struct {
	same    int    // archives that have it
	differs bool   // one has other content under this name, or a damaged object
	lacks   string // a required one that answered and has none, and should
	silent  string // required ones that do not say, and why
}

// agree asks every required archive for the digest of its copy. That a listing had the name does not say whose content it is.
func (a *Archiver) agree(ctx context.Context, n wal.Name, c *content) (g agreement) {
	key := a.archive.Key(n)
	var silent []string
	for _, t := range a.targets {
		if !t.Required {
			continue
		}
		if why := a.whySilent(t); why != "" {
			if !a.belowFloorOf(t, n) {
				silent = append(silent, why)
			}
			continue
		}
		h, err := t.archive.Header(ctx, key)
		a.noteOf(t, err)
		switch {
		case damaged(err):
			a.cover.addTo(t.index, n)
			g.differs = true
		case errors.Is(err, fs.ErrNotExist) && a.belowFloorOf(t, n):
		case errors.Is(err, fs.ErrNotExist):
			a.cover.forgetIn(t.index, n)
			g.lacks = t.Name
		case err != nil:
			silent = append(silent, "archive "+t.Name+" does not answer ("+err.Error()+")")
		default:
			a.cover.addTo(t.index, n)
			if h.Digest == c.digest && h.Size == c.size {
				g.same++
			} else {
				g.differs = true
			}
		}
	}
	g.silent = strings.Join(silent, "; ")
	return g
}

// compareAll is compare for several archives: ours is the archive's when every required one has it, and another one as soon as one of them has another.
func (a *Archiver) compareAll(ctx context.Context, l *local, n wal.Name, c *content) (same bool, err error) {
	g := a.agree(ctx, n, c)
	switch {
	case g.differs:
		return false, nil
	case g.lacks == "" && g.silent == "":
		a.stored(l, n, c, false)
		return true, nil
	case g.same > 0 && n.Kind == wal.KindSegment:
		a.cover.vouch(vouch{n.Segment.Timeline, l == a.keep})
	}
	switch {
	case g.lacks != "" && g.same > 0:
		return false, fmt.Errorf("%w: archive %s lacks it: %w", errOneLacks, g.lacks, fs.ErrNotExist)
	case g.lacks != "":
		return false, fs.ErrNotExist
	}
	return false, fmt.Errorf("%w: %s", errOneLacks, g.silent)
}

// notEverywhere says which required archives have nothing under the name n, or do not say; "" when all have.
func (a *Archiver) notEverywhere(ctx context.Context, n wal.Name, c *content) string {
	if a.targets == nil {
		return ""
	}
	g := a.agree(ctx, n, c)
	if g.lacks != "" {
		return "archive " + g.lacks + " lacks it"
	}
	return g.silent
}

// matches is compare where it is about whose WAL the archive has, and not about whether ours is stored: one archive is enough to tell.
func (a *Archiver) matches(ctx context.Context, l *local, n wal.Name, c *content) (same bool, err error) {
	same, err = a.compare(ctx, l, n, c)
	if a.targets == nil || err == nil || !a.cover.hasAny(n) {
		return same, err
	}
	if g := a.agree(ctx, n, c); g.same > 0 && !g.differs {
		return true, nil
	}
	return false, err
}

// clashes says whether an archive that is known to have a name has other content than ours: then no other one is to get ours.
func (a *Archiver) clashes(ctx context.Context, n wal.Name, c *content) bool {
	return a.targets != nil && a.cover.hasAny(n) && a.agree(ctx, n, c).differs
}

// sameObject says whether one of several archives has the content of a sealed body under its key.
func (t *target) sameObject(ctx context.Context, key string, body store.Body) (bool, error) {
	ours, err := seal.ReadHeader(section(body))
	if err != nil {
		return false, err
	}
	theirs, err := t.archive.Header(ctx, key)
	if damaged(err) {
		return false, nil
	}
	return err == nil && theirs.Digest == ours.Digest && theirs.Size == ours.Size, err
}

// clash notes that an archive has n with another content than the others.
func (a *Archiver) clash(t *target, n wal.Name) {
	a.mu.Lock()
	known := t.conflict[n]
	t.conflict[n] = true
	a.mu.Unlock()
	if !known {
		a.log.Error("an archive has other content under a name than the others", "archive", t.Name, "file", n.String(), "required", t.Required)
	}
}
