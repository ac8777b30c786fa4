package main

import (
	"context"
	"fmt"
	"os/exec"
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
func (d *demo) note(format string, args ...any) { d.say("        "+format, args...) }

// status shows what an administrator sees.
func (d *demo) status(ctx context.Context) error {
	p, err := d.cluster.Primary(ctx)
	if err != nil {
		return err
	}
	return d.print(p.Walbaton(ctx, "status"))
}

// print runs a command of walbaton and shows it, and what it prints.
func (d *demo) print(cmd *exec.Cmd) error {
	d.note("$ walbaton %s", cmd.Args[1])
	text, err := drill.Output(cmd)
	for line := range strings.Lines(text) {
		d.note("  %s", strings.TrimRight(line, "\n"))
	}
	return err
}

// pgbench is PostgreSQL's own load generator.
func (d *demo) pgbench(ctx context.Context, n *drill.Node, args ...string) *exec.Cmd {
	return d.cluster.Command(ctx, "pgbench", append(args, n.DSN())...)
}
