//go:build drills

package drill

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

//go:embed testdata/patroni_fetch.py
var patroniFetch string

// Patroni rewinds a former primary that has recycled the WAL which pg_rewind reads: that from before the fork comes from the archive,
// that from beyond it from the member's own orphans.
func TestDrillRewindFetches(t *testing.T) {
	s := begin(t, Options{})
	old := s.primary()
	s.do("three segments are finished", s.finish(3))
	s.do("Patroni of the primary dies, PostgreSQL goes on", old.KillPatroni)
	s.do("another node is promoted, beside it", func(ctx context.Context) error { return s.Promoted(ctx, old) })
	heir := s.primary()
	s.do("the standbys leave the old primary; nobody has a slot there any more", func(ctx context.Context) error {
		return until(ctx, clusterLimit, "no slot is left", func(ctx context.Context) error {
			if err := old.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"); err != nil {
				return err
			}
			left, err := query[int](ctx, old.DSN(), "select count(*)::int from pg_replication_slots")
			if err == nil && left > 0 {
				err = fmt.Errorf("%d are", left)
			}
			return err
		})
	})
	begin, end := s.forkOf(heir), ""
	s.do("it finishes 24 segments that nobody will ever want", func(ctx context.Context) error {
		for i := range 24 {
			file, err := s.write(ctx, old, i, "beyond the fork")
			if err != nil {
				return err
			}
			end = file
		}
		return s.told(ctx, old, end)
	})
	s.do("its checkpoints recycle what it has told the archive", func(ctx context.Context) error {
		for range 2 {
			if err := old.Exec(ctx, "checkpoint"); err != nil {
				return err
			}
		}
		left, err := old.WAL("")
		if slices.Contains(left, begin) {
			err = fmt.Errorf("%s still has %s, in which the line left: this drill proves nothing", old.Name, begin)
		}
		return err
	})
	// While PostgreSQL runs: one that is shut down Patroni starts as a standby first, and what it replays then of its own WAL no rewind mends.
	s.do("Patroni starts again, and stops it", old.StartPatroni)
	s.do("it rewinds the old primary, which streams", s.AllStreaming)
	s.logged(old, "patroni", "pg_rewind exit code=0", "is this member's own copy, from ")
	if text := old.Log("patroni"); strings.Contains(text, "bootstrap from leader") {
		t.Errorf("it was cloned:\n%s", grep(text, "bootstrap"))
	}
	s.do("three more segments are finished", s.finish(3))
	s.wholeTruth()
}

// forkOf is the segment of timeline 1 in which timeline 2 of the new primary began.
func (s *scenario) forkOf(heir *Node) (name string) {
	s.t.Helper()
	s.do("the fork is known", func(context.Context) error {
		at, err := line(filepath.Join(heir.PGData(), "pg_wal"), 2)
		if err == nil {
			name = segmentName(1, at[1].lsn/s.segmentSize(), s.segmentSize())
		}
		return err
	})
	return name
}

// told waits until a node's archiver was told 0 for a segment.
func (s *scenario) told(ctx context.Context, n *Node, name string) error {
	return until(ctx, clusterLimit, n.Name+" may remove "+name, func(context.Context) error {
		done, err := n.WAL("done")
		if err == nil && !slices.Contains(done, name) {
			err = errors.New("it is not .done")
		}
		return err
	})
}

// rewound is a server that has to be rewound, and the one that took its place. What pg_rewind needs is not in pg_wal.
type rewound struct {
	*pitr
	heir *Solo
	data string // a copy of the data directory that is to be rewound
}

// pg_rewind --restore-target-wal gets its WAL with and without a sidecar, and so does Patroni's own fetch.
func TestDrillRewindByHand(t *testing.T) {
	r := &rewound{pitr: solo(t)}
	r.diverge()
	s := r.d.s
	wal := filepath.Join(s.Data(), "pg_wal")
	conninfo := strings.ReplaceAll(r.heir.DSN(), " sslmode=disable connect_timeout=3", "")
	rewind := []string{"pg_rewind", "--no-sync", "-D", s.Data(), "--source-server", conninfo}
	for name, tc := range map[string]struct {
		command []string
		sidecar bool
		want    string // "": it must fail
	}{
		"without the archive":                 {command: rewind},
		"pg_rewind, by walbaton fetch":        {command: append(rewind, "--restore-target-wal"), want: "Done!"},
		"pg_rewind, by a sidecar":             {command: append(rewind, "--restore-target-wal"), sidecar: true, want: "Done!"},
		"Patroni's own fetch, without one":    {command: []string{"/usr/bin/python3", "-c", patroniFetch, pgBin, s.Data(), conninfo}, want: "Trying to fetch the missing wal"},
		"Patroni's own fetch, from a sidecar": {command: []string{"/usr/bin/python3", "-c", patroniFetch, pgBin, s.Data(), conninfo}, sidecar: true, want: "Trying to fetch the missing wal"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(s.Data()), Run(s.Command(r.ctx, "cp", "-a", r.data, s.Data()))); err != nil {
				t.Fatal(err)
			}
			if tc.sidecar {
				if err := s.StartSidecar(r.ctx); err != nil {
					t.Fatal(err)
				}
				defer s.sidecar.kill()
			}
			cmd := s.Command(r.ctx, tc.command[0], tc.command[1:]...)
			out, err := cmd.CombinedOutput()
			if tc.want == "" {
				if err == nil || !strings.Contains(string(out), "could not open file") {
					t.Fatalf("pg_rewind needs nothing from the archive, so this test proves nothing: %v\n%s", err, out)
				}
				return
			}
			if err != nil || !strings.Contains(string(out), tc.want) {
				t.Fatalf("%v: %v\n%s", cmd.Args[0], err, out)
			}
			if left, err := filepath.Glob(wal + "/RECOVERY*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			r.follows(t)
		})
	}
}

// diverge ends with the old server shut down, and a new one that was promoted beside it.
func (r *rewound) diverge() {
	s := r.d.s
	r.begin()
	for range 3 {
		r.write(new(commit))
	}
	r.do("a segment is finished", func() error { return s.FinishSegment(r.ctx) })
	r.do("a standby is made", func() (err error) {
		if err := s.CopyBackup(r.ctx, r.backup, func() error { return nil }); err != nil {
			return err
		}
		r.heir, err = r.Standby(r.ctx, s, r.backup)
		return err
	})
	r.t.Cleanup(func() { r.heir.Stop() })
	r.write(new(commit))
	r.do("it is promoted, beside the primary", func() error {
		lsn, err := query[string](r.ctx, s.DSN(), "select pg_current_wal_flush_lsn()::text")
		return errors.Join(err, r.heir.Replayed(r.ctx, lsn), r.heir.Promote(r.ctx))
	})
	fork := ""
	r.do("the old primary goes on, and recycles what it had in common with the new one", func() (err error) {
		if fork, err = query[string](r.ctx, s.DSN(), "select pg_walfile_name(pg_current_wal_lsn())"); err != nil {
			return err
		}
		for range 6 {
			r.write(new(commit))
			if err := s.FinishSegment(r.ctx); err != nil {
				return err
			}
		}
		for range 2 {
			if err := Run(s.Command(r.ctx, "psql", "-Xqc", "checkpoint")); err != nil {
				return err
			}
		}
		if exists(filepath.Join(s.Data(), "pg_wal", fork)) {
			return fmt.Errorf("it still has %s: this drill proves nothing", fork)
		}
		return nil
	})
	r.do("it is shut down, and its sidecar", func() error {
		err := s.Halt(r.ctx, "fast")
		s.sidecar.kill()
		r.data = filepath.Join(r.Dir, "before the rewind")
		conf := fmt.Sprintf("restore_command = '%s fetch %%f %%p'\n", r.Bin("walbaton-wal"))
		return errors.Join(err, s.Set(conf), Run(s.Command(r.ctx, "cp", "-a", s.Data(), r.data)))
	})
}

// follows proves that the rewound server streams from the new primary, and has its rows.
func (r *rewound) follows(t *testing.T) {
	t.Helper()
	s := r.d.s
	if err := s.Follow(r.ctx, &r.heir.Server); err != nil {
		t.Fatal(err)
	}
	_, err := query[int64](r.ctx, r.heir.DSN(), "insert into ledger select coalesce(max(id), 0) + 1, 'after the rewind' from ledger returning id")
	if err != nil {
		t.Fatal(err)
	}
	lsn, err := query[string](r.ctx, r.heir.DSN(), "select pg_current_wal_flush_lsn()::text")
	if err := errors.Join(err, s.Replayed(r.ctx, lsn)); err != nil {
		t.Fatal(err)
	}
	got, err := Rows(r.ctx, s.DSN())
	want, err2 := Rows(r.ctx, r.heir.DSN())
	if err := errors.Join(err, err2, Difference(got, want)); err != nil || len(want) == 0 {
		t.Errorf("the rewound server, against %d rows of the new primary: %v", len(want), err)
	}
	if err := s.Halt(r.ctx, "fast"); err != nil {
		t.Fatal(err)
	}
}
