package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// say prints a line.
func (d *demo) say(format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, format+"\n", args...); err != nil {
		d.end()
	}
}

// act begins a step with a headline.
func (d *demo) act(format string, args ...any) {
	d.say("\n[%3.0f s] %s", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

// note says something within a step.
func (d *demo) note(format string, args ...any) {
	d.say("%s", strings.TrimRight("        "+fmt.Sprintf(format, args...), " "))
}

// status shows what an administrator sees. Its exit code 3 says that something is not in order, as during the outage.
func (d *demo) status(ctx context.Context) error {
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	err = d.print(p.Walbaton(ctx, "status"))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 3 {
		return nil
	}
	return err
}

// print runs a command of walbaton and shows it, and what it prints.
func (d *demo) print(cmd *exec.Cmd) error {
	d.note("$ walbaton %s", strings.Join(slices.Concat(cmd.Args[1:2], cmd.Args[4:]), " ")) // without --config FILE
	text, err := drill.Output(cmd)
	for line := range strings.Lines(text) {
		d.note("  %s", strings.TrimSuffix(line, "\n"))
	}
	return err
}

// pgbench is PostgreSQL's own load generator.
func (d *demo) pgbench(ctx context.Context, n *drill.Node, args ...string) *exec.Cmd {
	return d.cluster.Command(ctx, "pgbench", append(args, n.DSN())...)
}
