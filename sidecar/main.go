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
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
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
		newLocateCommand(w),
		newExplainCommand(w),
		newVerifyCommand(w),
		newResolveCommand(w),
		newExpireCommand(w),
		newCleanupCommand(w),
		newDrillCommand(w),
		newSetupCommand(w),
		newDoctorCommand(w),
		newCompletionCommand(w),
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
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}, // completion.go
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(verbs(w)...)
	root.AddCommand(newManCommand(w))
	root.SetVersionTemplate("walbaton {{.Version}}\n") // --version says what the verb says
	root.SetArgs(args)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand(root))
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		if err := completes(root, w); err != nil {
			return exitFailed
		}
	}
	c, err := root.ExecuteContextC(ctx)
	if err != nil && c == root {
		err = unknownVerb(root, args, err) // cobra's own, or of a flag
	}
	if exitCode(err) == exitSignal { // whatever it was at
		err = withCode(exitSignal, fmt.Errorf("%s: ended by a signal before it was done", c.Name()))
	}
	if err != nil {
		said := explainError(err)
		if c.Name() == "fetch" {
			said = explainLine(err)
		}
		_, _ = io.WriteString(w.stderr, said) // nobody is left to tell
	}
	if len(args) > 0 && args[0] == "fetch" {
		return fetchCode(err, ".")
	}
	return exitCode(err)
}

// helpCommand is "walbaton help", which says so when there is no such verb.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [verb]",
		Short: "Help about a verb",
		ValidArgsFunction: func(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, c := range root.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownVerb(root, args, fmt.Errorf("unknown command %q", strings.Join(args, " ")))
			}
			return c.Help()
		},
	}
}

// flagError says in our words what cobra says of a flag.
func flagError(c *cobra.Command, err error) error {
	s, _, found := strings.Cut(err.Error(), " flag: ")
	var n *strconv.NumError
	if found && errors.As(err, &n) {
		why := "is not a number"
		switch {
		case n.Func == "ParseBool":
			why = "is neither true nor false"
		case errors.Is(n, strconv.ErrRange):
			why = "is too large"
		}
		_, name, _ := strings.Cut(s, " for ")
		return usageError(c, fmt.Errorf("%s: %q %s", strings.Trim(name, `"`), n.Num, why))
	}
	if found && strings.Contains(err.Error(), "invalid duration") {
		word, name, _ := strings.Cut(strings.TrimPrefix(s, "invalid argument "), " for ")
		return usageError(c, fmt.Errorf("%s: %s is no time: give one such as 30s, 5m or 2h", strings.Trim(name, `"`), word))
	}
	return usageError(c, err)
}

// unknownVerb is usageError for a command line without a verb that exists; a typing error is one that is near to one.
func unknownVerb(root *cobra.Command, args []string, err error) error {
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return withHint(withCode(exitUsage, err), `did you mean "walbaton `+strings.Join(near, `", or "walbaton `)+`"?`)
	}
	return usageError(root, err)
}

func usageError(c *cobra.Command, err error) error {
	return withHint(withCode(exitUsage, err), `try "`+c.CommandPath()+` --help"`)
}

// takes is the check of a command's arguments.
func takes(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if check(c, args) == nil {
			return nil
		}
		want := strings.TrimSpace(strings.TrimPrefix(c.Use, c.Name()))
		if want == "" {
			want = "nothing but flags"
		}
		got := "nothing"
		if len(args) > 0 {
			got = strconv.Quote(strings.Join(args, " "))
		}
		return usageError(c, fmt.Errorf("%s takes %s, and got %s", c.Name(), want, got))
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
