//go:build drills

package drill

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// commit is a transaction of the diary: one row, and all that recovery_target_… can name about it.
type commit struct {
	id     int64
	xid    string
	record string // the LSN at which its commit record begins
	after  string // the LSN after it
	at     string // its time, to the microsecond
	rows   []int64
}

// diary writes rows, one transaction after the other, so that it knows to the record what is committed at any LSN, time or xid.
type diary struct {
	s    *Solo
	conn *pgx.Conn
	next int64
	rows []int64 // those that are on the server now
}

// open connects to the server, which may have been restarted or restored since.
func (d *diary) open(ctx context.Context) (err error) {
	if d.conn != nil {
		d.conn.Close(ctx)
	}
	d.conn, err = pgx.Connect(ctx, d.s.DSN())
	return err
}

const keepDiary = `create table ledger (id bigint primary key, pad bytea not null); alter table ledger alter column pad set storage plain;
	create extension pg_walinspect`

// write commits one row.
func (d *diary) write(ctx context.Context) (commit, error) {
	tx, err := d.conn.Begin(ctx)
	if err != nil {
		return commit{}, err
	}
	return d.finish(ctx, tx)
}

// finish writes one row in a transaction that has begun, and commits it.
func (d *diary) finish(ctx context.Context, tx pgx.Tx) (c commit, err error) {
	d.next++
	c.id = d.next
	before := ""
	err = tx.QueryRow(ctx, "insert into ledger values ($1, $2) returning pg_current_xact_id()::text, pg_current_wal_flush_lsn()::text", c.id, pad(c.id)).
		Scan(&c.xid, &before)
	if err != nil {
		return c, err
	}
	if err := tx.Commit(ctx); err != nil {
		return c, err
	}
	d.rows = append(slices.Clone(d.rows), c.id)
	c.rows = d.rows
	conn := tx.Conn()
	err = conn.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text, pg_xact_commit_timestamp($1::text::xid)::text", c.xid).Scan(&c.after, &c.at)
	if err != nil {
		return c, err
	}
	err = conn.QueryRow(ctx, `select start_lsn::text from pg_get_wal_records_info($1, $2)
		where resource_manager = 'Transaction' and record_type = 'COMMIT' and xid = $3::text::xid`, before, c.after, c.xid).Scan(&c.record)
	return c, err
}

// without are the rows that were committed before this one.
func (c commit) without() []int64 {
	return slices.DeleteFunc(slices.Clone(c.rows), func(id int64) bool { return id == c.id })
}

// pitr is the archive that is restored from: four timelines, of which the second has a branch.
//
//	1 --o backup ----x fails
//	                  2 ----o backup --- mistake ----
//	                            3 (restored to before the mistake) ----x fails
//	                                                                    4 ----
type pitr struct {
	*Cluster
	t   *testing.T
	ctx context.Context
	d   *diary

	backup, backup2 string // on timelines 1 and 2
	quiet           string // URL of the archive as it was right after the first failover

	inBackup, ordinary, late, early, named, partial, cut commit // timeline 1
	second, good, mistake, third, last, end              commit
}

func (p *pitr) do(words string, verb func() error) {
	p.t.Helper()
	start := time.Now()
	if err := verb(); err != nil {
		p.t.Fatalf("%s: %v\n%s", words, err, p.Logs(25))
	}
	p.t.Logf("%5.1fs %s", time.Since(start).Seconds(), words)
}

func (p *pitr) write(c *commit) {
	p.t.Helper()
	var err error
	if *c, err = p.d.write(p.ctx); err != nil {
		p.t.Fatal(err)
	}
}

// solo starts a server that archives, and makes nothing else.
func solo(t *testing.T) *pitr {
	t.Helper()
	s := prepare(t, Options{}, drillLimit)
	p := &pitr{Cluster: s.Cluster, t: t, ctx: s.ctx, backup: filepath.Join(s.Dir, "backup1"), backup2: filepath.Join(s.Dir, "backup2")}
	if err := os.Chmod(s.Dir, 0o777); err != nil { // user postgres makes the backups
		t.Fatal(err)
	}
	p.do("a server that archives starts", func() error {
		solo, err := s.NewSolo(p.ctx)
		p.d = &diary{s: solo}
		return err
	})
	return p
}

// begin gives the server its table.
func (p *pitr) begin() {
	p.t.Helper()
	p.do("the server has a table", func() error {
		if err := p.d.open(p.ctx); err != nil {
			return err
		}
		_, err := p.d.conn.Exec(p.ctx, keepDiary)
		return err
	})
}

// story writes the archive.
func (p *pitr) story() {
	s := p.d.s
	var ignored commit
	finish := func() error { return s.FinishSegment(p.ctx) }
	p.begin()
	p.write(&ignored)
	p.write(&ignored)
	p.do("a backup is taken, while two rows are written", func() error {
		return s.CopyBackup(p.ctx, p.backup, func() error {
			p.write(&ignored)
			p.write(&p.inBackup)
			return nil
		})
	})
	for range 3 {
		p.write(&ignored)
	}
	p.write(&p.ordinary)
	p.do("two transactions overlap, and the one that began later commits first", p.overlap)
	p.do("a segment is finished", finish)
	p.write(&p.named)
	p.do("a restore point is made", func() error { return p.restorePoint("before the mistake") })
	for range 2 {
		p.write(&ignored)
	}
	p.do("a segment is finished", finish)
	p.write(&p.partial)
	p.write(&p.cut)

	p.do("the server fails, and goes on on timeline 2", func() error { return s.Fail(p.ctx) })
	p.do("the archive has the history and the .partial, and nothing of timeline 2", func() error { return p.keepQuiet() })
	p.do("the diary goes on", func() error { return p.d.open(p.ctx) })
	p.write(&p.second)
	p.do("a segment is finished", finish)
	p.do("a backup of timeline 2 is taken", func() error { return s.CopyBackup(p.ctx, p.backup2, func() error { return nil }) })
	p.write(&p.good)
	p.write(&p.mistake)
	p.do("a segment is finished", finish)

	p.do("the server is restored in place, to before the mistake", func() error {
		err := errors.Join(s.Halt(p.ctx, "fast"), s.Begin(p.ctx, Recovery{Backup: p.backup, Settings: map[string]string{
			"recovery_target_xid": p.mistake.xid, "recovery_target_inclusive": "off", "recovery_target_action": "promote"}}))
		return errors.Join(err, s.Writable(p.ctx))
	})
	p.do("the diary goes on", func() error { return p.d.open(p.ctx) })
	p.d.rows = p.good.rows
	p.write(&p.third)
	p.do("a segment is finished", finish)
	p.do("the server fails again, and goes on on timeline 4", func() error { return s.Fail(p.ctx) })
	p.do("the diary goes on", func() error { return p.d.open(p.ctx) })
	p.write(&ignored)
	p.do("a segment is finished", finish)
	p.write(&p.last)
	p.write(&p.end)
	p.do("a segment is finished", finish)
	p.do("the server is shut down", func() error { return s.Halt(p.ctx, "fast") })
}

// overlap leaves early with the lower xid and the later commit.
func (p *pitr) overlap() error {
	other, err := pgx.Connect(p.ctx, p.d.s.DSN())
	if err != nil {
		return err
	}
	defer other.Close(p.ctx)
	tx, err := other.Begin(p.ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(p.ctx, "select pg_current_xact_id()"); err != nil {
		return err
	}
	p.write(&p.late)
	p.early, err = p.d.finish(p.ctx, tx)
	return err
}

func (p *pitr) restorePoint(name string) error {
	_, err := p.d.conn.Exec(p.ctx, "select pg_create_restore_point($1)", name)
	return err
}

// keepQuiet copies the archive as it is right after a failover on a quiet cluster.
func (p *pitr) keepQuiet() error {
	s := p.d.s
	if err := s.Archived(p.ctx, "00000002.history"); err != nil {
		return err
	}
	begin, err := query[string](p.ctx, s.DSN(), "select pg_walfile_name(pg_current_wal_lsn())")
	if err != nil {
		return err
	}
	if err := s.Archived(p.ctx, "00000001"+begin[8:]+".partial"); err != nil {
		return err
	}
	objects, err := p.Store.Objects(p.ctx)
	for _, o := range objects {
		if strings.Contains(o.Key, "/wal/00000002/") || strings.HasSuffix(o.Key, "/00000001"+begin[8:]) {
			err = errors.Join(err, fmt.Errorf("the archive has %s already", o.Key))
		}
	}
	from, to := strings.TrimPrefix(p.Store.URL(), "file://"), filepath.Join(p.Dir, "quiet")
	p.quiet = "file://" + to
	return errors.Join(err, Run(s.Command(p.ctx, "cp", "-a", from, to+".part")), os.Rename(to+".part", to))
}

// restored fails the test unless the server has these rows, and no others.
func (p *pitr) restored(t *testing.T, s *Solo, want []int64) {
	t.Helper()
	got, err := Rows(p.ctx, s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if len(want) == 0 {
		t.Fatal(errNoRows)
	}
	if err := Difference(got, contents(want)); err != nil {
		t.Errorf("restored: %v", err)
	}
}

// contents are the digests of rows, by number, as Rows gives them.
func contents(ids []int64) map[int64]string {
	all := map[int64]string{}
	for _, id := range ids {
		sum := md5.Sum(pad(id))
		all[id] = hex.EncodeToString(sum[:])
	}
	return all
}
