package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/setup"
)

// setupFlags are the flags of setup that are no settings.
type setupFlags struct {
	apply, restart, yes, json      bool
	mode, client, archive, restore string
	restAPI, sidecar               string // whom to ask
}

func newSetupCommand(w world) *cobra.Command {
	var f setupFlags
	c := &cobra.Command{
		Use:   "setup",
		Short: "Make Patroni's configuration call walbaton: show the difference, apply it, restart",
		Long: `Compare Patroni's dynamic configuration with what walbaton needs of it: archive_mode,
archive_command and restore_command; and say what nodes have of their own (in Patroni's
file, or by ALTER SYSTEM), since that beats it. Nothing is changed without --apply.

--apply makes the change through Patroni's REST API, of the settings that differ alone.
archive_mode counts from the next start of each PostgreSQL: --restart restarts those that
need it, one at a time, replicas first, each when the one before streams again and its
sidecar is alive. The primary comes last and is restarted in place, not switched over:
it takes the same seconds without writes, and no role and no timeline changes. It refuses
while Patroni is paused or the cluster is not healthy.

walbaton-wal is expected at the same path on every node: beside this program, or in PATH.
In a pod give --client with the path that it has in PostgreSQL's container.
An archive_command of your own, one that feeds two archives for instance, is given with
--archive-command (docs/coming-from.md).

Exit code 0: nothing is left to do. 3: something is. 1: it did not work, or nobody said yes.`,
		Example: `  walbaton setup
  walbaton setup --apply
  walbaton setup --apply --restart --yes
  walbaton setup --archive-mode on --client /opt/walbaton/walbaton-wal`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, "patroni_config", "socket", "listen", "name", "postgres.data_dir", "dcs.kind")
	c.Flags().BoolVar(&f.apply, "apply", false, "make the change; asks first")
	c.Flags().BoolVar(&f.restart, "restart", false, "with --apply: restart the nodes that need it, one at a time")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().StringVar(&f.mode, "archive-mode", "always", "archive_mode, a `word`: always, or on, which is best effort")
	c.Flags().StringVar(&f.client, "client", "", "`path` of walbaton-wal on every node (default: beside this program, or in PATH)")
	c.Flags().StringVar(&f.archive, "archive-command", "", "this archive_command instead, a `command`")
	c.Flags().StringVar(&f.restore, "restore-command", "", "this restore_command instead, a `command`")
	c.Flags().StringVar(&f.restAPI, "patroni-url", "", "`URL` of any member's REST API, such as http://10.0.0.7:8008 (default: this node's, by Patroni's configuration)")
	c.Flags().StringVar(&f.sidecar, "address", "", "`host:port` of the sidecar to ask about the others (default: the local one, by --listen)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if err := f.check(cfg); err != nil {
			return usageError(c, err)
		}
		want, err := f.want(cfg, configFile(c, w), w.getenv("KUBERNETES_SERVICE_HOST") != "")
		if err != nil {
			return err
		}
		api, err := restapi.New(restapi.ConfigOf(cfg.Patroni))
		if err != nil {
			return withCode(exitUsage, err)
		}
		defer api.Close()
		l := &lookout{cfg: cfg, api: api, base: cmp.Or(f.restAPI, cfg.Patroni.RestAPI.URL()), address: cmp.Or(f.sidecar, localAddress(cfg.Listen)), want: want}
		return (&settingUp{setupFlags: f, lookout: l, c: c, w: w, every: time.Second, patience: restartPatience}).run(c.Context())
	}
	return c
}

// check refuses what does not fit together.
func (f setupFlags) check(cfg Config) error {
	switch {
	case f.mode != "always" && f.mode != "on":
		return fmt.Errorf("setup: --archive-mode is always or on, not %q", f.mode)
	case f.restart && !f.apply:
		return errors.New("setup: --restart belongs to --apply: what is not in Patroni's configuration no restart brings")
	case f.client != "" && !filepath.IsAbs(f.client):
		return fmt.Errorf("setup: --client: %q is not an absolute path", f.client)
	case cfg.static():
		return errors.New("setup: with dcs.kind static there is no Patroni; type it: psql -c \"alter system set archive_mode = 'always'\", archive_command and restore_command likewise, and restart PostgreSQL")
	case f.restAPI != "" && !isBaseURL(f.restAPI):
		return fmt.Errorf("setup: --patroni-url %q is no address of a REST API, such as http://10.0.0.7:8008", f.restAPI)
	case f.sidecar != "" && !isAddress(f.sidecar):
		return notAddress(f.sidecar)
	case f.restAPI == "" && cfg.Patroni.RestAPI.URL() == "":
		return errors.New("setup: where Patroni's REST API answers is not known: give --patroni-config /etc/patroni/config.yml, or --patroni-url http://HOST:8008")
	}
	return nil
}

// want is what the settings should be. config is walbaton's own file, where it was named. In a pod PostgreSQL's container has other files than the
// sidecar's.
func (f setupFlags) want(cfg Config, config string, pod bool) (setup.Want, error) {
	client := setup.Client{Path: f.client, Config: config}
	search := client.Path == "" && (f.archive == "" || f.restore == "")
	if search && pod {
		return setup.Want{}, withHint(withCode(exitUsage, errors.New("setup: in a pod only you know where PostgreSQL's container has walbaton-wal")),
			"give --client with that path; with the chart it is /opt/walbaton/walbaton-wal")
	}
	if search {
		var err error
		if client.Path, err = findClient(os.Args[0]); err != nil {
			return setup.Want{}, withHint(withCode(exitUsage, err), "name it with --client, by the path that it has on every node")
		}
	}
	if cfg.Socket != setup.DefaultSocket {
		client.Socket = cfg.Socket
	}
	return setup.Want{Mode: f.mode, Archive: cmp.Or(f.archive, client.Push()), Restore: cmp.Or(f.restore, client.Fetch())}, nil
}

// configFile is walbaton's own file when it is named and not the default one: a fetch where no sidecar runs has to be told.
func configFile(c *cobra.Command, w world) string {
	path := w.getenv("WALBATON_CONFIG")
	if flag := c.Flags().Lookup("config"); flag != nil && flag.Changed {
		path = flag.Value.String()
	}
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if path == defaultConfigFile {
		return ""
	}
	return path
}

// findClient looks for walbaton-wal beside a program, by the path with which it was called: that may be a link that stays when the version
// changes. Otherwise in PATH.
func findClient(program string) (string, error) {
	const name = "walbaton-wal"
	if at, err := exec.LookPath(program); err == nil {
		if at, err = filepath.Abs(at); err == nil {
			if beside := filepath.Join(filepath.Dir(at), name); executable(beside) {
				return beside, nil
			}
		}
	}
	at, err := exec.LookPath(name)
	if err == nil {
		at, err = filepath.Abs(at)
	}
	if err != nil {
		return "", fmt.Errorf("setup: %s is neither beside %s nor in PATH", name, program)
	}
	return at, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
