package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TimelineSpan is what `list` says of one timeline. Commit times are from the headers of its first and last files that have a
// commit, within 64 of its ends; zero where none of those has one. A timeline's first segment begins with its parent's WAL, so its
// first commit may lie before the fork.
type TimelineSpan struct {
	Timeline    wal.Timeline `json:"timeline"`
	Parent      wal.Timeline `json:"parent,omitempty"`
	Fork        string       `json:"fork,omitempty"` // the LSN where it left its parent
	History     bool         `json:"history"`
	First       string       `json:"first,omitempty"`
	Last        string       `json:"last,omitempty"`
	Begin       string       `json:"begin,omitempty"` // LSN of the first byte, and the one after the last
	End         string       `json:"end,omitempty"`
	FirstCommit time.Time    `json:"first_commit,omitzero"`
	LastCommit  time.Time    `json:"last_commit,omitzero"`
	Segments    int          `json:"segments"`
	Runs        int          `json:"runs"` // 1 when the segments are without a gap
	Partials    int          `json:"partials"`
	Backups     int          `json:"backups"`
	Bytes       int64        `json:"bytes"`           // sealed
	PlainBytes  int64        `json:"plain_bytes"`     // of segments
	SealedBytes int64        `json:"sealed_bytes"`    // of segments alone
	Ratio       float64      `json:"ratio,omitempty"` // plain to sealed: 4 means a quarter of the size

	// Encryption is that of the files whose headers were read, which are those at the ends: age, mixed, or nothing. Audit counts them all.
	Encryption string `json:"encryption,omitempty"`
}

// Timelines lists the archive once and says what each timeline has, lowest first. An object whose
// header cannot be read leaves its commit time out: finding damage is Audit's work.
func (a *Archive) Timelines(ctx context.Context) ([]TimelineSpan, error) {
	inv := newInventory()
	for o, err := range a.All(ctx) {
		if err != nil {
			return nil, err
		}
		inv.add(o)
	}
	spans := map[wal.Timeline]*TimelineSpan{}
	for t, has := range inv.timelines {
		s := &TimelineSpan{Timeline: t, Segments: has.segments, Partials: has.partials, Backups: has.backups, Bytes: has.bytes,
			PlainBytes: int64(has.segments) * int64(a.id.SegmentSize), SealedBytes: has.sealed}
		if has.sealed > 0 {
			s.Ratio = math.Round(float64(s.PlainBytes)/float64(has.sealed)*100) / 100
		}
		spans[t] = s
		if has.segments > 0 {
			s.First, s.Last = has.first.String(), has.last.String()
			s.Begin, s.End = has.first.Start().String(), has.last.End().String()
		}
		l := inv.files(a, t)
		var err error
		if s.FirstCommit, err = l.firstCommit(ctx, 0, l.len()-1); err != nil {
			return nil, err
		}
		if s.LastCommit, err = l.lastCommit(ctx, 0, l.len()-1); err != nil {
			return nil, err
		}
		s.Encryption = l.encryption()
	}
	for _, p := range inv.segments.Spans() {
		spans[p.Timeline].Runs++
	}
	if err := a.addParents(ctx, spans); err != nil {
		return nil, err
	}
	out := make([]TimelineSpan, 0, len(spans))
	for _, t := range slices.Sorted(maps.Keys(spans)) {
		out = append(out, *spans[t])
	}
	return out, nil
}

func (a *Archive) addParents(ctx context.Context, spans map[wal.Timeline]*TimelineSpan) error {
	for o, err := range a.Histories(ctx) {
		if err != nil {
			return err
		}
		t := o.Name.Segment.Timeline
		s := spans[t]
		if s == nil {
			s = &TimelineSpan{Timeline: t}
			spans[t] = s
		}
		s.History = true
		s.Bytes += o.Size
		h, _, err := a.checkedHistory(ctx, t)
		if err != nil && !unusable(err) {
			return err
		}
		if k := len(h.Forks); err == nil && k > 0 {
			s.Parent, s.Fork = h.Forks[k-1].Timeline, h.Forks[k-1].End.String()
		}
	}
	return nil
}

// commits reads a file's header for its commit times.
func (a *Archive) commits(ctx context.Context, n wal.Name) (seal.Header, error) {
	h, err := a.Header(ctx, a.Key(n))
	if err != nil && unusable(err) {
		return seal.Header{}, nil
	}
	return h, err
}

// unusable says that the store answered, and what it gave is of no use.
func unusable(err error) bool { return hopeless(spoiled(err)) || errors.Is(err, fs.ErrNotExist) }

// FindArchives gives the system identifiers of the archives below a scope. It takes two requests for each.
func FindArchives(ctx context.Context, src Source) ([]uint64, error) {
	var out []uint64
	prefix := src.Scope + "/"
	for after := ""; ; {
		folder := ""
		for info, err := range src.Store.List(ctx, prefix, after) {
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", src, err)
			}
			folder, _, _ = strings.Cut(info.Key[len(prefix):], "/")
			break
		}
		if folder == "" {
			return out, nil
		}
		id, err := strconv.ParseUint(folder, 10, 64)
		if err == nil {
			_, err = src.Store.Head(ctx, prefix+folder+"/archive.json")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("look into %s: %w", src, err)
			}
		}
		if err == nil {
			out = append(out, id)
		}
		after = prefix + folder + "0" // comes after every key below folder/
	}
}

// Others gives the system identifiers of the other archives under the same scope: of clusters that had this one's name, or
// have it still.
func (a *Archive) Others(ctx context.Context) ([]uint64, error) {
	ids, err := FindArchives(ctx, Source{Store: a.store, Scope: path.Dir(a.root)})
	return slices.DeleteFunc(ids, func(id uint64) bool { return id == a.id.SystemID }), err
}
