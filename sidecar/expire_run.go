package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// expireRequest is what the socket's word "expire" takes, as JSON.
type expireRequest struct {
	Before         string            `json:"before"` // as ParseCutoff reads it, times with their zone
	WithoutBackups bool              `json:"without_backups,omitempty"`
	By             string            `json:"by"`
	Run            bool              `json:"run"`             // false: only plan
	Shown          map[string]string `json:"shown,omitempty"` // with Run: of each archive, from where on the user was told that it is kept
}

// expireAnswer is what it gets.
type expireAnswer struct {
	Archives []expireStep `json:"archives"`
	NotHere  string       `json:"not_here,omitempty"` // why this node may not carry it out, and who may
}

// expireStep is about one archive.
type expireStep struct {
	Plan  *archiver.ExpirePlan `json:"plan"`
	Done  *archiver.Expired    `json:"done,omitempty"`
	Error string               `json:"error,omitempty"`
}

// expireTime bounds the planning: a listing of each archive, twice.
const expireTime = 10 * time.Minute

// Expire answers `walbaton expire`: request is an expireRequest, the message an expireAnswer, both as JSON.
func (a *app) Expire(ctx context.Context, request string) Answer {
	var req expireRequest
	d := json.NewDecoder(bytes.NewReader([]byte(request)))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return Answer{exitUsage, fmt.Sprintf("expire: read the request: %v", err)}
	}
	s, why := a.current()
	if s == nil {
		return Answer{exitFailed, "expire: the archive is not open: " + why + " (walbaton status says more)"}
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	cutoff, err := archiver.ParseCutoff(req.Before, s.archiver.Archive().SegmentSize())
	if err != nil {
		return Answer{exitUsage, "expire: --before: " + err.Error()}
	}
	o := archiver.ExpireOptions{Before: cutoff, WithoutBackups: req.WithoutBackups}
	if v, ok := a.elector.View(); ok {
		o.Needs, _ = restartPoints(v, s.archiver.Archive().SegmentSize())
	}
	var out expireAnswer
	if !req.Run {
		out.NotHere = a.notHere()
		out.Archives, err = a.planExpire(ctx, s, o)
	} else {
		err = a.tenure.within(ctx, func(ctx context.Context, epoch uint64) error {
			out.Archives, err = a.expireAll(ctx, s, o, epoch, req)
			return err
		})
		if errors.Is(err, errNoTerm) {
			err = errors.New("expire: " + a.notHere())
		}
	}
	if err != nil {
		return Answer{exitFailed, err.Error()}
	}
	return answerJSON(out)
}

// notHere says why this node may delete nothing now, "" when it may.
func (a *app) notHere() string {
	err := a.tenure.within(context.Background(), func(context.Context, uint64) error { return nil })
	switch holder := a.elector.Status().Holder; {
	case err == nil && !a.ships():
		return "only a running primary deletes, and this PostgreSQL is none"
	case err == nil:
		return ""
	case holder == "" || holder == a.cfg.Name:
		return "nobody holds the baton just now, and only its holder deletes (walbaton status says why)"
	default:
		return fmt.Sprintf("%s holds the baton, and only its holder deletes: run it on that node", holder)
	}
}

// expireLine is the line as the DCS tells it now: what is kept is decided along it.
func (a *app) expireLine(ctx context.Context, s *site) (wal.History, error) {
	c, err := a.scope.Read(ctx)
	if err != nil {
		return wal.History{}, fmt.Errorf("expire: the DCS does not answer, so nobody knows which timeline is the cluster's: %w", err)
	}
	if c.NoDCS && c.Line.Timeline == 0 && a.pg.Server().State == archiver.ServerPrimary {
		c.Line = s.archiver.OwnHistory()
	}
	if c.Line.Timeline == 0 {
		return wal.History{}, errors.New("expire: the leader is not known just now, so nobody knows which timeline is the cluster's")
	}
	return c.Line, nil
}

// planExpire plans for each archive that answers.
func (a *app) planExpire(ctx context.Context, s *site, o archiver.ExpireOptions) ([]expireStep, error) {
	ctx, cancel := context.WithTimeout(ctx, expireTime)
	defer cancel()
	var err error
	if o.Line, err = a.expireLine(ctx, s); err != nil {
		return nil, err
	}
	archives := s.archiver.Answering()
	if len(archives) == 0 {
		return nil, errors.New("expire: the archive does not answer (walbaton status says more)")
	}
	var steps []expireStep
	for _, ar := range archives {
		p, err := ar.PlanExpire(ctx, o)
		if err != nil {
			return nil, withExpireHint(err)
		}
		steps = append(steps, expireStep{Plan: p})
	}
	return steps, nil
}

// withExpireHint puts what to type behind an error that people read; it may go through the socket, so it is part of the text.
func withExpireHint(err error) error {
	switch {
	case errors.Is(err, archiver.ErrNoBackup):
		return fmt.Errorf("%w; backups of a standby and snapshots of a disk leave no such file: with those, say --without-backups "+
			"(retention.without_backups), and keep the backups themselves no longer than the WAL", err)
	case errors.Is(err, archiver.ErrMayNotDelete):
		return fmt.Errorf("%w; the floor is raised and counts, and what lies below it stays: give this user the right to delete "+
			"(docs/stores.md names it for each store), and run it again", err)
	}
	return err
}

// expireAll plans anew and carries it out, inside a term. The error is about what kept it from beginning; each step has its own.
func (a *app) expireAll(ctx context.Context, s *site, o archiver.ExpireOptions, epoch uint64, req expireRequest) ([]expireStep, error) {
	if !a.expiring.TryLock() {
		return nil, errors.New("expire: another expire is at work; try again when it is done")
	}
	defer a.expiring.Unlock()
	if !a.ships() {
		return nil, errors.New("expire: " + a.notHere())
	}
	steps, err := a.planExpire(ctx, s, o)
	if err != nil {
		return nil, err
	}
	for _, st := range steps {
		if shown, ok := req.Shown[st.Plan.Archive]; req.Shown != nil && (!ok || shown != st.Plan.From) {
			return nil, fmt.Errorf("expire: %s would now be kept from %s on, which is not what was shown: look again", st.Plan.Archive, st.Plan.From)
		}
	}
	for i := range steps {
		st := &steps[i]
		if st.Plan.Empty() {
			continue
		}
		archive := s.archiver.Answering()
		at := slices.IndexFunc(archive, func(ar *archiver.Archive) bool { return ar.String() == st.Plan.Archive })
		if at < 0 {
			st.Error = "expire: " + st.Plan.Archive + " does not answer any more"
			continue
		}
		done, err := archive[at].Expire(ctx, st.Plan, archiver.Expirer{Held: a.stillHeld(epoch), By: req.By})
		if st.Done = &done; err != nil {
			st.Error = withExpireHint(err).Error()
		}
		a.retention.count(done)
		a.log.Info("expired", "archive", st.Plan.Archive, "from", st.Plan.From, "deleted", done.Deleted, "bytes", done.Bytes, "by", req.By, "error", st.Error)
	}
	if err := s.archiver.FloorsRaised(ctx); err != nil && ctx.Err() == nil {
		a.log.Debug("floors not read", "error", err)
	}
	return steps, nil
}

// restartPoints gives the LSN from which each member would go on after a restart, and the members of which nobody knows it.
func restartPoints(v leader.View, size wal.SegmentSize) (needs map[string]wal.LSN, unknown []string) {
	names := map[string]bool{}
	for name := range v.Cluster.Members {
		names[name] = true
	}
	for name := range v.Records {
		names[name] = true
	}
	needs = map[string]wal.LSN{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		r, ok := v.Records[name]
		if !ok || r.Restart == nil || !r.Readable() || r.SystemID != v.SystemID() {
			unknown = append(unknown, name)
			continue
		}
		needs[name] = wal.Segment{Timeline: wal.Timeline(r.Restart.Timeline), Size: size, No: r.Restart.No}.Start()
	}
	return needs, unknown
}

// lowest gives the least of the restart points.
func lowest(needs map[string]wal.LSN) (at wal.LSN, member string) {
	at = wal.MaxLSN
	for _, m := range slices.Sorted(maps.Keys(needs)) {
		if needs[m] < at {
			at, member = needs[m], m
		}
	}
	return at, member
}

func listed(names []string) string { return strings.Join(names, ", ") }
