package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  walbaton version",
		Args:    takes(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(w.stdout, "walbaton "+version())
			return err
		},
	}
}

// release is the version where the build has no git to ask, in an image for example: the linker writes it (-X main.release=v1.2.3).
var release string

// version comes from the build: a tag, or a pseudo-version made of the commit.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
