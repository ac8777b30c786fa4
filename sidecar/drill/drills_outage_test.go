//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Drill 3: three switchovers while the store is down take as long as with archive_command = /bin/true, and lose nothing.
func TestDrill03SwitchoverAlways(t *testing.T) { switchoverWithoutStore(t, "always") }

// Drill 3 with archive_mode=on.
func TestDrill03SwitchoverOn(t *testing.T) { switchoverWithoutStore(t, "on") }

// The bound is wide, since other drills run beside this one; the benchmark has the numbers of a quiet machine.
const switchoverSlack = 3 * time.Second

func switchoverWithoutStore(t *testing.T, mode string) {
	reference := begin(t, Options{Archiver: Nothing, ArchiveMode: mode})
	want := reference.switchovers()
	reference.end()

	s := begin(t, Options{ArchiveMode: mode})
	s.do("three segments are finished", s.finish(3))
	s.do("the store goes away", s.StopStore)
	s.do("five segments are finished that nobody can archive", s.finish(5))
	got := s.switchovers()
	t.Logf("writable after %v, with /bin/true after %v", got, want)
	if limit := median(want) + switchoverSlack; median(got) > limit {
		t.Errorf("writable after %v, want at most %v", median(got), limit)
	}
	s.do("the store comes back", s.StartStore)
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// switchovers are the times from the wish for a switchover until the other node takes writes, three times.
func (s *scenario) switchovers() []time.Duration {
	s.t.Helper()
	var took []time.Duration
	for range 3 {
		to := s.Standbys(s.primary())[0]
		s.do(to.Name+" becomes the primary", func(ctx context.Context) error {
			answered := make(chan error, 1)
			start := time.Now()
			go func() { answered <- s.Switchover(ctx, to) }() // Patroni answers up to a second later
			err := until(ctx, failoverLimit, to.Name+" takes writes", to.writable)
			took = append(took, time.Since(start).Round(10*time.Millisecond))
			return errors.Join(err, <-answered)
		})
		s.do("the old primary becomes a standby", s.AllStreaming)
		s.do("two segments are finished", s.finish(2))
	}
	return took
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

// end takes the cluster away before the drill ends, for another one.
func (s *scenario) end() {
	s.t.Helper()
	s.writer.Stop()
	s.watching()
	s.do("the cluster goes", func(context.Context) error { return s.Stop() })
}

// Drill 6: kill -9 of the sidecar in the middle of uploads, and of MinIO.
func TestDrill06KilledDuringUploadsMinIO(t *testing.T) {
	s := begin(t, Options{Place: MinIO})
	s.killSidecars()
	for range 3 {
		s.backlog(12)
		s.do("MinIO is killed in the middle of uploads", s.amidUploads(s.StopStore))
		s.do("MinIO comes back", s.StartStore)
	}
	s.wholeTruth()
}

// Drill 6 with a folder.
func TestDrill06KilledDuringUploads(t *testing.T) {
	s := begin(t, Options{})
	s.killSidecars()
	s.wholeTruth()
}

// killSidecars kills the sidecar of the primary, which ships, then all three at once, then the primary's again.
func (s *scenario) killSidecars() {
	s.t.Helper()
	p := s.primary()
	for _, victims := range [][]*Node{{p}, s.Nodes, {p}} {
		s.backlog(12)
		s.do(fmt.Sprintf("%d sidecars are killed in the middle of uploads", len(victims)), s.amidUploads(func(ctx context.Context) (err error) {
			for _, n := range victims {
				err = errors.Join(err, n.KillSidecar(ctx))
			}
			return err
		}))
		s.do("they start again", func(ctx context.Context) (err error) {
			for _, n := range victims {
				err = errors.Join(err, n.StartSidecar(ctx))
			}
			return err
		})
	}
}

// backlog lets segments wait for the store, and brings it back.
func (s *scenario) backlog(segments int) {
	s.t.Helper()
	s.do("the store goes away", s.StopStore)
	s.do(fmt.Sprintf("%d segments are finished", segments), s.finish(segments))
	s.do("the store comes back", s.StartStore)
}

// amidUploads is the verb that waits for the next new segment in the archive and does something at once.
func (s *scenario) amidUploads(verb func(context.Context) error) func(context.Context) error {
	segments := func(ctx context.Context) (int, error) {
		all, err := s.Store.Objects(ctx)
		return len(slices.DeleteFunc(all, func(o Object) bool { return !kept(o.Key) || !strings.Contains(o.Key, "/wal/") })), err
	}
	return func(ctx context.Context) error {
		before, err := segments(ctx)
		if err != nil {
			return err
		}
		for now := before; now <= before; {
			if now, err = segments(ctx); err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			time.Sleep(2 * time.Millisecond)
		}
		return verb(ctx)
	}
}

// Drill 7: etcd, or the DCS that was chosen, is away for a minute. Without failsafe_mode the primary steps down, and is promoted again.
func TestDrill07EtcdAway(t *testing.T) {
	s := begin(t, Options{})
	s.do("three segments are finished", s.finish(3))
	s.do("the DCS goes away", s.StopDCS)
	s.do("the primary steps down", s.nobodyWrites)
	s.do("a minute passes", pass(57*time.Second))
	s.do("the DCS comes back", s.StartDCS)
	s.do("a node takes writes again", s.promoted)
	s.do("all are back", s.AllStreaming)
	s.do("five segments are finished", s.finish(5))
	s.wholeTruth()
}

// Drill 7 with failsafe_mode: the primary goes on, and so does the archive.
func TestDrill07EtcdAwayFailsafe(t *testing.T) {
	s := begin(t, Options{Failsafe: true})
	s.do("Patroni's members know each other without etcd", s.failsafe)
	s.do("three segments are finished", s.finish(3))
	s.do("the DCS goes away", s.StopDCS)
	s.do("a minute passes", pass(60*time.Second))
	missing, err := s.Settle(s.ctx, s.base, 20*time.Second)
	if err != nil || len(missing) > 0 {
		t.Fatalf("without the DCS the archive lacks %d files: %v, %v", len(missing), missing, err)
	}
	t.Log("the archive has every segment of this minute")
	s.do("the DCS comes back", s.StartDCS)
	s.do("all are there", s.AllStreaming)
	s.do("five segments are finished", s.finish(5))
	s.wholeTruth()
}

// pass is the verb that lets time go by.
func pass(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
}

// Drill 10: a base backup of the primary while a standby ships. The end of the backup waits for its label and its last
// segment, and gets them.
func TestDrill10BackupWhileStandbyShips(t *testing.T) {
	s := begin(t, Options{Settings: "policy: replica\n"})
	s.do("a standby has the baton", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "a standby has the baton", s.standbyShips)
	})
	s.do("three segments are finished", s.finish(3))
	s.backupHasAll()
	if err := s.standbyShips(s.ctx); err != nil {
		t.Error(err)
	}

	s.do("the store goes away", s.StopStore)
	backup := make(chan error, 1)
	go func() {
		_, err := s.TakeBase(s.ctx)
		backup <- err
	}()
	s.do("a backup begins, and cannot end", pass(10*time.Second))
	select {
	case err := <-backup:
		t.Fatalf("a backup ended without a store: %v", err)
	default:
	}
	s.do("the store comes back", s.StartStore)
	s.do("the backup ends", func(ctx context.Context) error {
		select {
		case err := <-backup:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	s.wholeTruth()
}

// backupHasAll takes the base backup from which the drill will recover, and looks at once whether the archive has its label.
func (s *scenario) backupHasAll() {
	s.t.Helper()
	labels := func(ctx context.Context) (n int, err error) {
		all, err := s.Store.Objects(ctx)
		for _, o := range all {
			if strings.HasSuffix(o.Key, ".backup") {
				n++
			}
		}
		return n, err
	}
	before, err := labels(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	s.do("a base backup is taken", func(ctx context.Context) (err error) {
		s.base, err = s.TakeBase(ctx)
		return err
	})
	after, err := labels(s.ctx)
	if err != nil || after != before+1 {
		s.t.Fatalf("the archive has %d backup labels, %v; want %d", after, err, before+1)
	}
}

// standbyShips is nil when the baton is with a standby.
func (s *scenario) standbyShips(ctx context.Context) error {
	holder, err := s.Holder(ctx)
	if err != nil {
		return err
	}
	p, err := s.Primary(ctx)
	if err == nil && holder == p {
		err = fmt.Errorf("%s has the baton, and is the primary", p.Name)
	}
	return err
}
