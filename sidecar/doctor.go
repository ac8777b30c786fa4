package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/sidecar/doctor"
)

func newDoctorCommand(w world) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine everything that must be true, and say what to type",
		Long: `Examine this node, PostgreSQL on every node, Patroni and the DCS, every sidecar, and the
archive: a line for each thing that must be true, with ✓, ! or ✗, and the fix below it. A
line with - says what there is nothing to look at for.

It works with the sidecar running and without, on any member, as the user that runs
PostgreSQL or as root (then it becomes that user), and on another machine with
--patroni-config and --archive. It changes nothing. In the archive it puts a few small
objects below <scope>/probe/ and deletes them, to see that no writer can replace another's.

The exit code is a monitoring plugin's. 0: all is well. 1: something could fail you (!), or
could not be looked at. 2: something is broken (✗), also the configuration.`,
		Example: `  walbaton doctor
  sudo walbaton doctor --patroni-config /etc/patroni/config.yml
  walbaton doctor --json | jq '.findings[] | select(.level == "broken")'`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, "archive.url", "patroni_config", "scope", "name", "socket", "listen", "dcs.kind", "postgres.data_dir", "keep_dir")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err == nil && becomeOwner(cfg.Postgres.DataDir) {
			cfg, err = configOf(c, w) // is it readable for that user?
		}
		if err == nil {
			err = cfg.needScope()
		}
		var f doctor.Facts
		if err != nil {
			f = configurationFacts(err)
		} else {
			f = gatherFacts(c.Context(), cfg, configFileOf(c, w))
		}
		if c.Context().Err() != nil {
			return c.Context().Err()
		}
		found := doctor.Examine(f)
		if asJSON {
			err = doctor.PrintJSON(w.stdout, f, found)
		} else {
			err = doctor.Print(w.stdout, f, found, styleOf(w))
		}
		if err != nil {
			return err
		}
		switch doctor.Worst(found) {
		case doctor.Broken:
			return justCode(exitBroken)
		case doctor.Warning:
			return justCode(exitWarned)
		}
		return nil
	}
	return c
}

// configurationFacts are those of a configuration that cannot be used.
func configurationFacts(err error) doctor.Facts {
	f := doctor.Facts{Now: time.Now(), Version: version(), ConfigurationErr: err.Error(), ConfigurationHint: "mend it; the sidecar would not start with it either"}
	var h *hintError
	if errors.As(err, &h) {
		f.ConfigurationHint = h.hint
	}
	return f
}

// configFileOf is the walbaton.yml that was read, "" for none.
func configFileOf(c *cobra.Command, w world) string {
	if f := c.Flags().Lookup("config"); f.Changed {
		return f.Value.String()
	}
	path := cmp.Or(w.getenv("WALBATON_CONFIG"), defaultConfigFile)
	if !exists(path) {
		return ""
	}
	return path
}

// styleOf is color on a terminal, unless somebody wants none (no-color.org).
func styleOf(w world) doctor.Style {
	f, ok := w.stdout.(*os.File)
	if !ok || !isTerminal(f) {
		return doctor.Style{}
	}
	s := doctor.Style{Color: w.getenv("NO_COLOR") == "" && w.getenv("TERM") != "dumb"}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col >= 60 {
		s.Width = min(int(size.Col), 120)
	}
	return s
}

// becomeOwner makes root the user that the data directory belongs to, and says whether it did: what root may read and write says
// nothing about the sidecar, and what root wrote below a folder would be in the sidecar's way.
func becomeOwner(dataDir string) bool {
	var st syscall.Stat_t
	if dataDir == "" || os.Geteuid() != 0 || syscall.Stat(dataDir, &st) != nil || st.Uid == 0 {
		return false
	}
	gid, groups := int(st.Gid), []int{int(st.Gid)}
	u, err := user.LookupId(strconv.Itoa(int(st.Uid)))
	if err == nil {
		if g, err := strconv.Atoi(u.Gid); err == nil {
			gid = g
		}
		if all, err := u.GroupIds(); err == nil {
			groups = nil
			for _, s := range all {
				if g, err := strconv.Atoi(s); err == nil {
					groups = append(groups, g)
				}
			}
		}
		_ = os.Setenv("HOME", u.HomeDir) // fails for a bad name only
	}
	return syscall.Setgroups(groups) == nil && syscall.Setgid(gid) == nil && syscall.Setuid(int(st.Uid)) == nil
}

// userNameOf names a user, by number where it has no name here.
func userNameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}

// probeTime bounds each question of doctor, and archiveTime all that one archive is asked. They run side by side. Within recordTime each
// sidecar has written into its record what it knows now.
const (
	probeTime   = 5 * time.Second
	archiveTime = 20 * time.Second
	recordTime  = 3 * time.Second
)

// gatherFacts asks everybody: first who belongs to the cluster, then all of those and the archives.
func gatherFacts(ctx context.Context, cfg Config, configFile string) doctor.Facts {
	f := doctor.Facts{Now: time.Now(), Version: version(), ConfigFile: configFile, PatroniConfig: cfg.PatroniConfig, Scope: cfg.Scope, Member: cfg.Name,
		Cluster: clusterOf(cfg), Static: cfg.static(), Pods: cfg.Patroni.DCS.Kind == "kubernetes", REST: cfg.rest(), UID: os.Geteuid(), User: userNameOf(os.Geteuid())}
	f.Local, f.NotLocal = lookHere(cfg)
	g := &gatherer{cfg: cfg, facts: &f, here: f.Local != nil}
	defer g.close()
	g.members(ctx)
	g.nodes(ctx)
	g.lookAgain(ctx)
	return f
}

// clusterOf is what patronictl calls the cluster.
func clusterOf(cfg Config) string {
	if cfg.Patroni.Group != nil {
		return fmt.Sprintf("%s --group %d", cfg.Patroni.Scope, *cfg.Patroni.Group)
	}
	return cfg.Scope
}
