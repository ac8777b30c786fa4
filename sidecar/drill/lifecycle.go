package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The life of a cluster, seen by who administers it: it is shut down, forgotten, built anew, upgraded, restored, promoted.

// ShutDown stops Patroni of all nodes in order, the standbys first, as an administrator does. The sidecars run on.
func (c *Cluster) ShutDown(ctx context.Context) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	for _, n := range append(c.Standbys(leader), leader) {
		if err := n.StopPatroni(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Forget is `patronictl remove`: the DCS forgets all about the cluster. What an administrator has to type is typed.
func (c *Cluster) Forget(ctx context.Context) error {
	n := c.Nodes[0]
	cmd := n.inside(c.command(ctx, n.Dir, c.dcs.env(n), "patronictl", "-c", filepath.Join(n.Dir, "patroni.yml"), "remove", c.o.Scope))
	cmd.Stdin = strings.NewReader(c.o.Scope + "\nYes I am aware\n")
	return Run(cmd)
}

// LoseDisks empties the data directories of nodes that are shut down.
func (c *Cluster) LoseDisks(nodes ...*Node) (err error) {
	for _, n := range nodes {
		err = errors.Join(err, os.RemoveAll(n.PGData()))
	}
	return err
}

// Upgrade is pg_upgrade on a node that was the primary and is shut down: into a new data directory, which takes the place of the
// old one. From PostgreSQL 15 to 15, but the new system identifier is as new as with any other version.
func (n *Node) Upgrade(ctx context.Context) error {
	old, upgraded := n.PGData(), n.PGData()+".upgraded"
	run := func(argv ...string) error { return Run(n.inside(n.c.command(ctx, n.Dir, nil, argv...))) }
	err := run("initdb", "-D", upgraded, "-U", "postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--wal-segsize", fmt.Sprint(n.c.o.SegmentMB))
	if err != nil {
		return err
	}
	if err := run("pg_upgrade", "-U", "postgres", "-b", pgBin, "-B", pgBin, "-d", old, "-D", upgraded); err != nil {
		return err
	}
	return errors.Join(os.Rename(old, old+".old"), os.Rename(upgraded, old))
}

// BootstrapFrom makes Patroni restore a base backup when it bootstraps the cluster on this node, and recover along the newest
// timeline to a time, or to the end of the archive when it is zero. It is Patroni's custom bootstrap.
func (n *Node) BootstrapFrom(b *Base, target time.Time) error {
	script := filepath.Join(n.Dir, "restore.sh")
	text := fmt.Sprintf("#!/bin/sh\nexec cp -a --reflink=auto %s %s\n", b.dir, n.PGData())
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return err
	}
	n.bootstrap = fmt.Sprintf("method: restore\n  restore:\n    command: %s\n    no_params: true\n    recovery_conf:\n"+
		"      recovery_target_timeline: latest\n      recovery_target_action: promote\n      restore_command: %q\n", script, n.restoreCommand())
	if !target.IsZero() {
		n.bootstrap += fmt.Sprintf("      recovery_target_time: %q\n", target.UTC().Format(recoveryTime))
	}
	return n.writeConfig()
}

// recoveryTime is how PostgreSQL reads recovery_target_time, in UTC.
const recoveryTime = "2006-01-02 15:04:05.999999+00"

// PromoteCluster ends that a standby cluster follows another one: its standby leader is promoted.
func (c *Cluster) PromoteCluster(ctx context.Context) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	if err := c.Configure(ctx, `{"standby_cluster": null}`); err != nil {
		return err
	}
	return until(ctx, failoverLimit, leader.Name+" takes writes", leader.writable)
}
