package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newCompletionCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete verbs, flags and values",
		Long: `Print a script for the shell. With it, the Tab key completes verbs, flags, the words
that a setting may be and, where a sidecar runs, names of members and of files that need a person.

The Debian package brings it; it is there in the next shell that you open.`,
		Example: `  source <(walbaton completion bash)
  walbaton completion zsh >"${fpath[1]}/_walbaton"
  walbaton completion fish >~/.config/fish/completions/walbaton.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      takes(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(c *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return c.Root().GenZshCompletion(w.stdout)
			case "fish":
				return c.Root().GenFishCompletion(w.stdout, true)
			}
			return c.Root().GenBashCompletionV2(w.stdout, true)
		},
	}
}

// completes says what may follow each flag and each verb. Only a shell that completes asks for it, so nobody else waits for it.
func completes(root *cobra.Command, w world) error {
	words := map[string][]string{}
	for _, s := range settings() {
		words[s.flagName()] = s.words
	}
	var errs []error
	for _, c := range root.Commands() {
		switch {
		case c.ValidArgs != nil || c.Name() == "fetch": // its second word is a path
		case c.Name() == "explain" || c.Name() == "resolve":
			c.ValidArgsFunction = askNames(w, (Status).unsettled)
		default:
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			var complete cobra.CompletionFunc
			value, help := pflag.UnquoteUsage(f)
			f.Usage = help // shells show it as it is
			switch {
			case words[f.Name] != nil:
				complete = cobra.FixedCompletions(words[f.Name], cobra.ShellCompDirectiveNoFileComp)
			case f.Name == "member":
				complete = askNames(w, (Status).memberNames)
			case value == "folder" || value == "directory":
				complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
			case value == "file" || value == "files" || value == "path":
				return // as every shell does by itself
			default:
				complete = cobra.NoFileCompletions
			}
			errs = append(errs, c.RegisterFlagCompletionFunc(f.Name, complete))
		})
	}
	return errors.Join(errs...)
}

// askNames completes names out of what the local sidecar knows. Who waits for the Tab key is not told why there are none.
func askNames(w world, names func(Status) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		cfg, err := configOf(c, w)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		st, _, err := cfg.askStatus(ctx, localAddress(cfg.Listen))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(st), cobra.ShellCompDirectiveNoFileComp
	}
}

// memberNames are all members of the cluster.
func (s Status) memberNames() (names []string) {
	for _, m := range s.Members {
		names = append(names, m.Name)
	}
	return names
}

// unsettled names the files that need a person, or were not shipped when they were tried.
func (s Status) unsettled() (names []string) {
	for _, a := range s.Alarms {
		names = append(names, a.Name)
	}
	for name := range s.Failed {
		names = append(names, name)
	}
	if s.Archive.Oldest != "" {
		names = append(names, s.Archive.Oldest)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
