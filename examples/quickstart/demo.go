package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// demo is the show: each act is a method that says what happens, lets it happen, and says what was seen.
type demo struct {
	out     io.Writer
	end     func() // called when nobody reads what is printed
	begin   time.Time
	cluster *drill.Cluster

	writer   *drill.Writer
	base     *drill.Base
	stopLoad func() // ends the writer and pgbench; may be called twice

	waiting  int              // segments that only the primary knew to be unarchived when it was killed
	killed   *drill.Node      // the primary that was killed
	rows     map[int64]string // of the ledger, before the accident
	accident time.Time
	objects  int
	restored *drill.Server
}

// waitingSegments is how many finished segments wait for the archive before the primary is killed.
const waitingSegments = 10

func (d *demo) show(ctx context.Context) error {
	defer func() { d.stopLoad() }()
	for _, act := range []func(context.Context) error{
		d.start, d.load, d.outage, d.kill, d.back, d.mistake, d.restore,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.summary()
	return nil
}

func (d *demo) start(ctx context.Context) (err error) {
	d.act("Start a cluster: etcd, PostgreSQL with Patroni on n1, n2 and n3, a sidecar beside each.")
	if d.cluster, err = drill.New(ctx, drill.Options{SegmentMB: 16}); err != nil {
		return err
	}
	d.note("everything is below %s; the archive is %s", d.cluster.Dir, d.cluster.Store.URL())
	d.note("n1 makes the database; n2 and n3 clone it and follow")
	if err := d.cluster.Start(ctx); err != nil {
		return err
	}
	return d.status(ctx)
}

func (d *demo) load(ctx context.Context) error {
	d.act("Put it under load: pgbench, and a writer that numbers its rows and remembers which were acknowledged.")
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	if err := drill.Run(d.pgbench(ctx, p, "-i", "-q", "-s", "5")); err != nil {
		return err
	}
	if d.writer, err = d.cluster.Write(ctx, 6<<20); err != nil {
		return err
	}
	bench, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for bench.Err() == nil { // a failover ends pgbench; it begins again with the new primary
			if p, err := d.cluster.Primary(bench); err == nil {
				drill.Run(d.pgbench(bench, p, "-n", "-c", "2", "-R", "100", "-T", "600"))
			}
		}
	})
	d.stopLoad = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		d.writer.Stop()
	})
	d.note("and take a base backup, as you would every night; from here on the archive must have every segment")
	if d.base, err = d.cluster.TakeBase(ctx); err != nil {
		return err
	}
	if err := d.cluster.Finish(ctx, 2); err != nil {
		return err
	}
	return d.status(ctx)
}

func (d *demo) outage(ctx context.Context) error {
	d.act("The archive goes away: its folder is no longer there. The database must not notice, and it does not.")
	if err := d.cluster.StopStore(ctx); err != nil {
		return err
	}
	d.note("write until %d segments of WAL are finished, 16 MB each", waitingSegments)
	if err := d.cluster.Finish(ctx, waitingSegments); err != nil {
		return err
	}
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	ready, err := p.WAL("ready")
	if err != nil {
		return err
	}
	d.waiting = len(ready)
	d.note("%d finished segments wait on %s; with a plain archive_command only %s would know that they must be archived", d.waiting, p.Name, p.Name)
	return d.status(ctx)
}

func (d *demo) kill(ctx context.Context) (err error) {
	if d.killed, err = d.cluster.Primary(ctx); err != nil {
		return err
	}
	d.act("kill -9 of everything on %s, PostgreSQL, Patroni and sidecar. Its disk is gone for good. Patroni must promote another node.", d.killed.Name)
	start := time.Now()
	if err := d.killed.Kill(ctx); err != nil {
		return err
	}
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	d.note("%s is the primary %.0f s later, on a new timeline", p.Name, time.Since(start).Seconds())
	if err := d.cluster.Streaming(ctx, 1); err != nil {
		return err
	}
	d.note("%s may still be listed below: what it last said of itself takes a while to expire", d.killed.Name)
	return d.status(ctx)
}

func (d *demo) back(ctx context.Context) error {
	d.act("The archive comes back. The surviving nodes still have what the dead one had not archived, and ship it.")
	if err := d.cluster.StartStore(ctx); err != nil {
		return err
	}
	if err := d.cluster.Finish(ctx, 2); err != nil {
		return err
	}
	if err := d.whole(ctx); err != nil {
		return err
	}
	if err := d.status(ctx); err != nil {
		return err
	}
	d.note("walbaton verify --deep reads every object and follows the line over the change of timelines:")
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	return d.print(p.Walbaton(ctx, "verify", "--deep"))
}

// whole waits until the archive has every segment since the base backup.
func (d *demo) whole(ctx context.Context) error {
	missing, err := d.cluster.Settle(ctx, d.base, time.Minute)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("the archive lacks %d files, the first is %s", len(missing), missing[0])
	}
	return err
}

func (d *demo) mistake(ctx context.Context) error {
	d.stopLoad()
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	if d.rows, err = drill.Rows(ctx, p.DSN()); err != nil {
		return err
	}
	d.act("Somebody deletes all %d rows of the ledger.", len(d.rows))
	d.accident = time.Now()
	if err := p.Exec(ctx, "select pg_sleep(1); delete from ledger"); err != nil {
		return err
	}
	return d.whole(ctx)
}

func (d *demo) restore(ctx context.Context) (err error) {
	d.act("Restore a new server from the base backup and the archive, to %s, just before that.", d.accident.UTC().Format("15:04:05 MST"))
	start := time.Now()
	if d.restored, err = d.base.Restore(ctx, drill.ByWalbaton, d.accident); err != nil {
		return err
	}
	d.note("it took %.0f s", time.Since(start).Seconds())
	got, err := drill.Rows(ctx, d.restored.DSN())
	if err != nil {
		return err
	}
	if err := drill.Difference(got, d.rows); err != nil {
		return fmt.Errorf("compare the restored rows with those before the accident: %w", err)
	}
	objects, err := d.cluster.Store.Objects(ctx)
	d.objects = len(objects)
	return err
}

func (d *demo) summary() {
	acked, lost := d.writer.Acked(), 0
	for id := range acked {
		if _, ok := d.rows[id]; !ok {
			lost++
		}
	}
	d.act("What you saw, in %.0f s", time.Since(d.begin).Seconds())
	d.say("  segments that waited when %s was killed   %6d", d.killed.Name, d.waiting)
	d.say("  of them missing in the archive now       %6d", 0)
	d.say("  files in the archive                     %6d, each written once", d.objects)
	d.say("  rows in the ledger before the accident   %6d", len(d.rows))
	d.say("  of them on the restored server           %6d, byte for byte the same", len(d.rows))
	if lost > 0 {
		d.say("\n  %d of %d acknowledged rows died with %s before a standby had them: asynchronous replication, not the archive.",
			lost, len(acked), d.killed.Name)
	}
	d.say("\nWith `archive_command = cp` the same faults leave a hole of all segments that waited, and a restore ends before it\n" +
		"(go test -tags drills -v -run Control ./sidecar/drill shows it).")
}

// kept says how to use what is still running.
func (d *demo) kept() {
	d.say("\nThe cluster runs on.")
	for _, n := range d.cluster.Nodes {
		if n != d.killed {
			d.say("  %s: psql '%s'", n.Name, n.DSN())
		}
	}
	if d.restored != nil {
		d.say("  restored: psql '%s'", d.restored.DSN())
	}
	if p, err := d.cluster.Primary(context.Background()); err == nil {
		for _, verb := range []string{"status", "doctor"} {
			d.say("  %s", strings.Join(p.Walbaton(context.Background(), verb).Args, " "))
		}
		d.say("  in a browser: %s", p.Page())
	}
	d.say("Stop it with:\n  bin/quickstart stop %s", d.cluster.Dir)
}
