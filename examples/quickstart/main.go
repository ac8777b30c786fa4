// Quickstart is `make demo`: a Patroni cluster loses its primary under load while the archive is away, and nothing is
// missing afterwards. It says what it does in plain words, and at the end what came of it.
//
//	quickstart              shows it all, and stops everything it started, also after Ctrl-C
//	KEEP=1 quickstart       leaves the cluster running, and says how to use and how to stop it
//	quickstart stop FOLDER  stops a cluster that was left running
//
// WALBATON_BIN names the folder with walbaton and walbaton-wal, as in `make demo`; without it they are built first.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// When nobody reads any more (`quickstart | head`), the write fails and the demo ends in order.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := run(ctx, os.Args[1:], os.Getenv("KEEP") != ""); err != nil {
		fmt.Fprintf(os.Stderr, "\nquickstart: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, keep bool) error {
	switch {
	case len(args) == 2 && args[0] == "stop":
		return drill.Remove(args[1])
	case len(args) > 0:
		return errors.New("usage: quickstart, or: quickstart stop FOLDER")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{out: os.Stdout, begin: time.Now(), end: cancel, stopLoad: func() {}}
	d.say("walbaton ships the WAL of a Patroni cluster to an archive. This demo kills the primary at the worst moment:\n" +
		"while the archive is away and finished WAL waits for it. It takes about two minutes. Ctrl-C stops everything.")
	err := d.show(ctx)
	if err == nil && keep {
		d.kept()
		return nil
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if d.cluster != nil {
		d.say("\nStopping everything.")
		err = errors.Join(err, d.cluster.Stop())
	}
	return err
}
