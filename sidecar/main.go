// Walbaton archives the WAL of a Patroni cluster. One sidecar runs beside every PostgreSQL:
//
//	walbaton sidecar --patroni-config /etc/patroni/config.yml --archive s3://bucket/prefix
//
// PostgreSQL reaches it through the small program walbaton-wal (its own folder), which asks over
// a unix socket:
//
//	PostgreSQL ── walbaton-wal push ──▶ socket.go ──▶ app.go ──▶ archiver, if leader allows
//	                                    postgres.go, drivers.go, web.go
//
// This package is the porch where the two rooms of the house meet: leader (may I ship?) and
// archiver (move the WAL) never import each other, and app.go alone knows both. Every other
// command is one file with one constructor, listed in verbs. What an error means for the exit
// code stands in exit.go, every setting and its default in config.go.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends a program that does not
	if args := os.Args[1:]; len(args) > 0 && args[0] == "fetch" && fetchCode(errors.New("crashed"), ".") == exitCannotSay {
		debug.SetTraceback("crash") // a panic ends by a signal: its usual exit code 2 would mean the end of the WAL
	}
	code := execute(ctx, os.Args[1:], world{os.Getenv, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// world is what a command sees of the process it runs in.
type world struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// verbs are the commands, in the order of the help.
func verbs(w world) []*cobra.Command {
	return []*cobra.Command{
		newSidecarCommand(w),
		newFetchCommand(w),
		newStatusCommand(w),
		newListCommand(w),
		newExplainCommand(w),
		newVerifyCommand(w),
		newResolveCommand(w),
		newVersionCommand(w),
	}
}

const rootHelp = `walbaton archives the WAL of a Patroni cluster, without a gap across failovers.

One sidecar runs beside every PostgreSQL. They pass one baton: the node that holds
it ships WAL to the archive; the others keep theirs until the archive has it.
PostgreSQL itself calls the small program walbaton-wal:

  archive_command = 'walbaton-wal push %p'
  restore_command = 'walbaton-wal fetch %f %p'`

// execute runs one command line and gives the exit code.
func execute(ctx context.Context, args []string, w world) int {
	root := &cobra.Command{
		Use:               "walbaton",
		Short:             "Archive the WAL of a Patroni cluster",
		Long:              rootHelp,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(verbs(w)...)
	root.SetArgs(args)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err) })
	c, err := root.ExecuteContextC(ctx)
	if err != nil && c == root {
		err = usageError(c, err) // cobra's own: an unknown command
	}
	if err != nil {
		_, _ = io.WriteString(w.stderr, explainError(err)) // nobody is left to tell
	}
	if len(args) > 0 && args[0] == "fetch" {
		return fetchCode(err, ".")
	}
	return exitCode(err)
}

func usageError(c *cobra.Command, err error) error {
	return withHint(withCode(exitUsage, err), `try "`+c.CommandPath()+` --help"`)
}

// takes is the check of a command's arguments.
func takes(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError(c, err)
		}
		return nil
	}
}

// addSettings gives a command flags for settings: those with these keys, or all without any.
func addSettings(c *cobra.Command, keys ...string) {
	c.Flags().SortFlags = false
	c.Flags().String("config", "", "walbaton's own `file` (default "+defaultConfigFile+", if it exists)")
	for _, s := range settings() {
		if s.secret || len(keys) > 0 && !slices.Contains(keys, s.key) {
			continue
		}
		help := s.help
		if s.value != "" {
			help += " (default " + s.value + ")"
		}
		c.Flags().String(s.flagName(), "", help)
	}
}

// configOf reads the configuration for a command.
func configOf(c *cobra.Command, w world) (Config, error) {
	flags := map[string]string{}
	for _, name := range append(flagNames(), "config") {
		if f := c.Flags().Lookup(name); f != nil && f.Changed {
			flags[name] = f.Value.String()
		}
	}
	return loadConfig(sources{w.getenv, flags})
}

func flagNames() []string {
	var names []string
	for _, s := range settings() {
		names = append(names, s.flagName())
	}
	return names
}

// logger writes to stderr at the configured level.
func (c Config) logger(w world) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log)); err != nil {
		level = slog.LevelInfo // the setting allows known words only
	}
	return newLogger(w.stderr, level)
}
