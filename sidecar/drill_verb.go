package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/rehearsal"
)

func newDrillCommand(w world) *cobra.Command {
	f := drillFlags{}
	c := &cobra.Command{
		Use:   "drill switchover",
		Short: "Rehearse a change of the primary on your cluster, and prove that nothing is missing",
		Long: `Rehearse a change of the primary on this cluster, and say what it cost: numbered rows are
written through the primary, Patroni is asked to switch over (or --kill-command is run), and then
every row and every segment is looked for. With --restore a copy of the cluster is recovered from
the archive, too, and every row compared.

It shows what it will do and asks first. A cluster that is paused, or not healthy, or without a
replica that could take over, is refused. It makes a schema with one small table, and drops it;
interrupted, it cleans up as well. While the primary changes, nobody can write.

It needs Patroni's REST API (with the user that may change something, as Patroni's configuration
has it), a sidecar, the archive, and a user of PostgreSQL that may make a schema and call
pg_switch_wal; with --restore also one that may replicate, PostgreSQL's programs, and a folder
with room for the cluster. On a node of the cluster all of that is in Patroni's configuration.

Exit code 0: passed. 3: it took place, and something was not in order. 1: not run: refused, not
confirmed, or it did not come to its end.`,
		Example: `  walbaton drill switchover
  walbaton drill switchover --candidate n2 --restore --report out/
  walbaton drill switchover --repeat 5 --yes --json | jq .verdict
  walbaton drill switchover --kill-command 'ssh "$WALBATON_DRILL_HOST" sudo pkill -9 -o postgres'`,
		ValidArgs: []string{"switchover"},
		Args:      takes(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
	}
	addSettings(c, readingSettings("listen", "web.username", "web.ca", "stall_timeout", "log")...)
	f.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if err := f.check(cfg); err != nil {
			return err
		}
		return f.run(c, w, cfg)
	}
	return c
}

type drillFlags struct {
	candidate, command, report, scratch string
	address, patroni, dsn               string
	restore, yes, json                  bool
	repeat, rate                        int
	write, wait                         time.Duration
	systemID                            uint64
}

func (f *drillFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.candidate, "candidate", "", "`member` that shall be the primary (default: Patroni chooses)")
	c.Flags().StringVar(&f.command, "kill-command", "", "`command` for sh that takes the primary away, instead of a switchover; $WALBATON_DRILL_PRIMARY, _HOST and _PORT name it")
	c.Flags().IntVar(&f.repeat, "repeat", 1, "`number` of changes, one after the other")
	c.Flags().BoolVar(&f.restore, "restore", false, "restore a copy of the cluster from the archive, and compare every row")
	c.Flags().StringVar(&f.scratch, "scratch", "", "`folder` with room for that copy (default: the one for temporary files, $TMPDIR or /tmp)")
	c.Flags().StringVar(&f.report, "report", "", "write report.html, report.md, report.json and the pictures into this `folder`")
	c.Flags().IntVar(&f.rate, "rate", 50, "`number` of rows a second")
	c.Flags().DurationVar(&f.write, "write", 10*time.Second, "how much `time` rows are written before the change, and after it")
	c.Flags().DurationVar(&f.wait, "wait", 5*time.Minute, "how much `time` each wait for the cluster may take")
	c.Flags().StringVar(&f.dsn, "dsn", "", "`connection` string for PostgreSQL (default: the superuser of Patroni's configuration); without a host, that of the primary is added")
	c.Flags().StringVar(&f.patroni, "patroni-url", "", "`URL` of any member's REST API, such as http://10.0.0.7:8008 (default: by Patroni's configuration)")
	c.Flags().StringVar(&f.address, "address", "", "`host:port` of any sidecar (default: the local one, by --listen)")
	c.Flags().Uint64Var(&f.systemID, "system-identifier", 0, "`number` of the cluster (default: that of the data directory, or the only one)")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&f.json, "json", false, "print the report as JSON; what happens is told on stderr")
}

// check refuses what cannot work, and fills in what the configuration knows.
func (f *drillFlags) check(cfg Config) error {
	usage := func(hint, format string, args ...any) error {
		return withHint(withCode(exitUsage, fmt.Errorf("drill: "+format, args...)), hint)
	}
	if f.patroni == "" {
		f.patroni = cfg.Patroni.RestAPI.URL()
	}
	if f.address == "" {
		f.address = localAddress(cfg.Listen)
	}
	if f.scratch == "" {
		f.scratch = os.TempDir()
	}
	u, err := url.Parse(f.patroni)
	_, dsnErr := pgx.ParseConfig(f.dsn)
	switch {
	case cfg.static():
		return usage("switch over by hand, and look with walbaton verify", "there is no Patroni here (dcs.kind static), and so no switchover")
	case f.patroni == "":
		return usage("give --patroni-config with Patroni's file, or --patroni-url http://HOST:8008", "it is not known where Patroni's REST API answers")
	case err != nil || !isBaseURL(f.patroni):
		return usage("give one such as --patroni-url http://10.0.0.7:8008", "--patroni-url %q is no address of a REST API", f.patroni)
	case !isAddress(f.address):
		return withHint(withCode(exitUsage, notAddress(f.address)), `try "walbaton drill --help"`)
	case f.dsn == "" && cfg.Patroni.PostgreSQL.Superuser.Username == "":
		return usage("give --patroni-config with Patroni's file, or --dsn 'user=postgres password=...'", "it is not known how PostgreSQL is reached")
	case f.dsn != "" && dsnErr != nil:
		return usage("give one such as --dsn 'user=postgres dbname=postgres'", "--dsn is no connection string") // not the error: it may show a password
	case f.repeat < 1 || f.repeat > 1000:
		return usage("give a number from 1 to 1000", "--repeat %d", f.repeat)
	case f.rate < 1 || f.rate > 1000:
		return usage("give a number from 1 to 1000", "--rate %d", f.rate)
	case f.write < time.Second || f.wait < time.Second:
		return usage("give at least 1s", "--write %v and --wait %v", f.write, f.wait)
	case f.restore && len(cfg.encryptTo()) > 0 && len(cfg.Identities) == 0:
		return usage("give --identities with the file that opens them, or leave --restore out", "the segments are encrypted, and no private key is configured here")
	case f.candidate != "" && f.repeat > 1:
		return usage("leave --candidate out, and Patroni chooses each time", "one --candidate cannot take over %d times", f.repeat)
	case f.command != "" && f.candidate != "":
		return usage("leave out one of them", "after a --kill-command nobody can choose the --candidate")
	}
	f.patroni = u.Scheme + "://" + u.Host
	if f.scratch, err = filepath.Abs(f.scratch); err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	return nil
}

func (f *drillFlags) run(c *cobra.Command, w world, cfg Config) error {
	archive, err := openArchive(c.Context(), cfg, f.systemID, cfg.logger(w))
	if err != nil {
		return err
	}
	api, err := restapi.New(restapi.ConfigOf(cfg.Patroni))
	if err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	defer api.Close()
	ask, err := cfg.Web.asker()
	if err != nil {
		return err
	}
	defer ask.http.CloseIdleConnections()
	told := w.stdout
	if f.json {
		told = w.stderr
	}
	o := rehearsal.Options{
		API: api, Patroni: f.patroni, Archive: archive, Sidecar: f.address, Connect: f.connector(cfg),
		Status: func(ctx context.Context, address string) ([]byte, error) {
			_, raw, err := ask.status(ctx, address)
			return raw, err
		},
		Candidate: f.candidate, Command: f.command, Rounds: f.repeat, Rate: f.rate, Write: f.write, Wait: f.wait, Version: version(),
		Say: func(format string, args ...any) { _, _ = fmt.Fprintf(told, format+"\n", args...) },
	}
	if f.restore {
		fetch, err := f.fetchCommand(c)
		if err != nil {
			return err
		}
		o.Restore = &rehearsal.RestoreOptions{Scratch: f.scratch, BinDir: cfg.Patroni.PostgreSQL.BinDir, Command: fetch, Backup: f.backup(cfg)}
	}
	r := rehearsal.New(o)
	plan, err := r.Plan(c.Context())
	var refused *rehearsal.Refused
	switch {
	case errors.As(err, &refused):
		return f.refused(w, r, refused)
	case err != nil:
		return withHint(fmt.Errorf("drill: %w", err), "nothing was done; it needs Patroni's REST API (--patroni-url), a sidecar (--address) and PostgreSQL (--dsn)")
	}
	if _, err := io.WriteString(told, plan.String()); err != nil {
		return err
	}
	if !f.yes {
		if err := confirm(c, w, f.json, "drill", "Run it?", "nothing was done"); err != nil {
			return err
		}
	}
	if err := f.reportFolder(); err != nil {
		return err
	}
	res := r.Run(c.Context(), plan)
	if err := f.print(w, res); err != nil {
		return err
	}
	switch {
	case c.Context().Err() != nil:
		return c.Context().Err()
	case res.Verdict == rehearsal.Failed:
		return justCode(exitFound)
	case res.Verdict == rehearsal.NotRun:
		return justCode(exitFailed)
	}
	return nil
}

// refused says why nothing was done, for people and in the report.
func (f *drillFlags) refused(w world, r *rehearsal.Rehearsal, why *rehearsal.Refused) error {
	if f.report != "" || f.json {
		if err := f.reportFolder(); err != nil {
			return err
		}
		res := r.Refuse(why)
		if f.report != "" {
			if err := rehearsal.Write(f.report, res); err != nil {
				return err
			}
		}
		if f.json {
			if err := printJSON(w.stdout, res); err != nil {
				return err
			}
		}
	}
	return withHint(errors.New("drill: not run: this cluster is not fit for it, and nothing was done"), "! "+strings.Join(why.Why, "\n! "))
}

// reportFolder makes the folder before anything else is done: a report that cannot be written is no use.
func (f *drillFlags) reportFolder() error {
	if f.report == "" {
		return nil
	}
	if err := os.MkdirAll(f.report, 0o755); err != nil {
		return withHint(fmt.Errorf("drill: make the folder of the report: %w", bare(err)), "nothing was done; give a folder that you may write to")
	}
	return nil
}

func (f *drillFlags) print(w world, res *rehearsal.Result) (err error) {
	if f.report != "" {
		if err := rehearsal.Write(f.report, res); err != nil {
			return err
		}
	}
	if f.json {
		return printJSON(w.stdout, res)
	}
	text := res.Text()
	if f.report != "" {
		text += "report    " + filepath.Join(f.report, "report.html") + "\n"
	}
	_, err = io.WriteString(w.stdout, text)
	return err
}

// namesHost finds a host in a connection string of keywords.
func namesHost(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		return u.Host != "" || u.Query().Has("host")
	}
	return regexp.MustCompile(`(^|\s)(host|hostaddr|service)\s*=`).MatchString(dsn)
}

// connector says how the PostgreSQL at host and port is reached: as --dsn says, or as the superuser of Patroni's configuration.
func (f *drillFlags) connector(cfg Config) func(host string, port int) (*pgx.ConnConfig, error) {
	return func(host string, port int) (*pgx.ConnConfig, error) {
		dsn := f.dsn
		switch at := keywords([]string{"host", host, "port", strconv.Itoa(port)}); {
		case dsn == "":
			pg := cfg.Patroni.PostgreSQL
			dsn = at + " " + keywords([]string{"dbname", "postgres", "user", pg.Superuser.Username, "password", pg.Superuser.Password, "passfile", pg.PgPass,
				"sslmode", pg.Superuser.SSLMode, "sslcert", pg.Superuser.SSLCert, "sslkey", pg.Superuser.SSLKey, "sslrootcert", pg.Superuser.SSLRootCert})
		case namesHost(dsn): // a pooler, or several hosts
		case strings.Contains(dsn, "://"):
			u, err := url.Parse(dsn)
			if err != nil {
				return nil, errors.New("--dsn is no connection string")
			}
			u.Host = host + ":" + strconv.Itoa(port)
			dsn = u.String()
		default:
			dsn = "dbname=postgres " + dsn + " " + at
		}
		return pgx.ParseConfig(dsn)
	}
}

// backup says how pg_basebackup reaches a member: as the user for replication of Patroni's configuration, or the one of --dsn. Passwords are in the environment,
// where other users do not see them.
func (f *drillFlags) backup(cfg Config) func(host string, port int) (string, []string) {
	return func(host string, port int) (string, []string) {
		r := cfg.Patroni.PostgreSQL.Replication
		if r.Username == "" {
			if c, err := f.connector(cfg)(host, port); err == nil {
				r.Username, r.Password = c.User, c.Password
			}
		}
		var env []string
		if r.Password != "" {
			env = append(env, "PGPASSWORD="+r.Password)
		} else if cfg.Patroni.PostgreSQL.PgPass != "" {
			env = append(env, "PGPASSFILE="+cfg.Patroni.PostgreSQL.PgPass)
		}
		return keywords([]string{"host", host, "port", strconv.Itoa(port), "user", r.Username,
			"sslmode", r.SSLMode, "sslcert", r.SSLCert, "sslkey", r.SSLKey, "sslrootcert", r.SSLRootCert}), env
	}
}

// fetchCommand is the restore_command of the copy: this program, told where the archive is as this one was.
func (f *drillFlags) fetchCommand(c *cobra.Command) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("drill: %w", err)
	}
	quote := func(s string) string {
		return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "'", `'\''`), "%", "%%") + "'"
	}
	words := []string{quote(self), "fetch"}
	for _, name := range []string{"config", "patroni-config", "archive", "scope", "identities", "stall-timeout"} {
		flag := c.Flags().Lookup(name)
		if flag == nil || !flag.Changed {
			continue
		}
		v := flag.Value.String()
		if name == "config" || name == "patroni-config" { // PostgreSQL runs it in its data directory
			if v, err = filepath.Abs(v); err != nil {
				return "", fmt.Errorf("drill: %w", err)
			}
		}
		words = append(words, "--"+name, quote(v))
	}
	return strings.Join(append(words, "%f", "%p"), " "), nil
}
