package main

import "github.com/spf13/cobra"

func newSidecarCommand(w world) *cobra.Command {
	c := &cobra.Command{
		Use:   "sidecar",
		Short: "Run beside PostgreSQL: answer walbaton-wal, and ship WAL while it holds the baton",
		Long: `Run beside PostgreSQL, as the same user, for as long as the node lives.

Every flag is also an environment variable (--push-wait is WALBATON_PUSH_WAIT) and
a key of walbaton.yml. A flag beats the environment, and that beats the file.
Secrets have no flags: give them in the file as KEY_file, which names a file that
holds the secret, or inside a value as ${NAME}, an environment variable.`,
		Example: `  walbaton sidecar --patroni-config /etc/patroni/config.yml --archive s3://bucket/prefix
  walbaton sidecar --config /etc/walbaton/walbaton.yml
  walbaton sidecar --dcs-kind static --scope shop --postgres-data-dir /var/lib/postgresql/15/main \
      --archive file:///mnt/archive`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if err := cfg.needServer(); err != nil {
			return err
		}
		return runSidecar(c.Context(), cfg, cfg.logger(w))
	}
	return c
}
