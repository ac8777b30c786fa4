package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/patroni"
)

// Config is everything the program is told: walbaton.yml, WALBATON_*, flags, and Patroni's own
// configuration.
type Config struct {
	Archive       ArchiveConfig    // with several, the first one, or the one that was chosen
	Archives      []ArchiveConfig  // all of several that get the same WAL, in the order in which fetch asks them; nil when there is one
	RestoreFrom   []string         // URLs of other archives that fetch may read
	EncryptTo     []seal.Recipient // of encrypt_to
	EncryptToFile []seal.Recipient // of encrypt_to_file
	Identities    []string         // paths of files with private keys, for those who restore
	Restore       RestoreConfig
	PatroniConfig string // file or folder
	Socket        string
	Listen        string // host:port for the web server
	Web           WebConfig
	Policy        string // primary or replica: who ships (DESIGN section 6)
	MaxLag        int64  // bytes that a shipping replica may lag behind
	PushWait      time.Duration
	ShutdownWait  time.Duration
	StoppedWait   time.Duration
	StallTimeout  time.Duration
	VerifyEvery   time.Duration // between two looks of the holder at names and histories in the archive
	KeepDir       string        // where a stopped server's WAL is copied to; outside the data directory
	Bandwidth     int64         // bytes a second, of what the sidecar sends to archives, and of what it receives from them but for a restore; 0: no limit
	Workers       int
	TTL           time.Duration // of the baton
	Renewal       time.Duration // between its extensions
	Margin        time.Duration // before its end at which a term is over
	DCS           DCSChoice
	Retention     RetentionConfig
	Postgres      PostgresConfig
	Log           string // level: debug, info, warn, error

	// Scope and Name are the cluster's and this member's; where Patroni's configuration is
	// read they come from there. The Scope of a Citus group is <Patroni's scope>-<group>.
	Scope, Name string

	Patroni   patroni.Config // zero without Patroni
	noPatroni error          // why it is zero, where it should not be
	chosen    bool           // one of several archives was chosen by name or address
}

// ArchiveConfig is where the WAL goes.
type ArchiveConfig struct {
	Name            string // of one of several
	Required        bool   // of several: push waits until it has the file
	URL             string // file:///folder, s3://bucket/prefix?...
	Codec           string // zstd, lz4, none
	AccessKeyID     string // of S3, where neither the environment nor a role gives it
	SecretAccessKey string
	AccountKey      string // of Azure, the same
	SASToken        string
}

// RestoreConfig is how fetch reads the archive.
type RestoreConfig struct {
	Patience    time.Duration // how long a recovery asks before it stops
	Prefetch    int64         // bytes on the disk of segments that were not asked for yet; 0: none
	PrefetchDir string
}

// DCSChoice says how sidecars find each other.
type DCSChoice struct {
	Kind string // "": as Patroni's configuration says; "static": a single PostgreSQL without Patroni; "rest": Patroni's REST API instead of the DCS
}

// PostgresConfig adds to what Patroni's configuration says about the local server.
type PostgresConfig struct {
	DSN     string // libpq's; "" makes one from Patroni's configuration
	DataDir string
}

// static says that there is no Patroni, only one PostgreSQL.
func (c Config) static() bool { return c.DCS.Kind == "static" }

// rest says that the cluster is read through Patroni's REST API, so that there is no baton.
func (c Config) rest() bool { return c.DCS.Kind == "rest" }

// settings is every key of walbaton.yml with its default: the only place for defaults. Each key
// is also an environment variable, and each but the secrets a flag.
func settings() []setting {
	return []setting{
		{key: "archive.url", flag: "archive", help: "`URL` of the archive, such as file:///folder or s3://bucket/prefix", set: text(func(c *Config) *string { return &c.Archive.URL })},
		setting{key: "archive.codec", value: "zstd", help: "how segments are compressed: `zstd`, lz4 or none"}.among(func(c *Config) *string { return &c.Archive.Codec }, "zstd", "lz4", "none"),
		{key: "archive.access_key_id", secret: true, help: "of S3, where neither the environment nor a role gives it", set: text(func(c *Config) *string { return &c.Archive.AccessKeyID })},
		{key: "archive.secret_access_key", secret: true, help: "of S3, the same", set: text(func(c *Config) *string { return &c.Archive.SecretAccessKey })},
		{key: "archive.account_key", secret: true, help: "of Azure, where neither a SAS token nor an identity of the machine is used", set: text(func(c *Config) *string { return &c.Archive.AccountKey })},
		{key: "archive.sas_token", secret: true, help: "of Azure, instead of an account key", set: text(func(c *Config) *string { return &c.Archive.SASToken })},
		{key: "restore_from", list: true, help: "`URLs` of other archives that fetch may read, with commas between", set: func(c *Config, v []string) error { c.RestoreFrom = v; return nil }},
		{key: "restore.patience", value: "10m", help: "how much `time` fetch goes on asking in a recovery before it stops it with exit code 200", set: duration(func(c *Config) *time.Duration { return &c.Restore.Patience })},
		{key: "restore.prefetch", value: "1GB", help: "how much of the disk segments may take that a recovery has not asked for yet, a `size`; 0: none are fetched ahead", set: size(func(c *Config) *int64 { return &c.Restore.Prefetch })},
		{key: "restore.prefetch_dir", help: "`folder` for them, on pg_wal's file system and outside of it (default <keep_dir>/prefetch)", set: text(func(c *Config) *string { return &c.Restore.PrefetchDir })},
		{key: "encrypt_to", list: true, help: "public `keys` that segments are encrypted to (age1... or ssh-...), with commas between", set: recipients},
		{key: "encrypt_to_file", path: true, help: "`file` with such keys, one a line", set: recipientFile},
		{key: "identities", list: true, path: true, help: "`files` with the private keys that open encrypted WAL, with commas between; only where one restores", set: identityFiles},
		{key: "patroni_config", help: "Patroni's configuration `file` or folder", set: text(func(c *Config) *string { return &c.PatroniConfig })},
		{key: "scope", help: "`name` of the cluster; Patroni's when it has one", set: text(func(c *Config) *string { return &c.Scope })},
		{key: "name", help: "`name` of this member; Patroni's when it has one, or else the host's", set: text(func(c *Config) *string { return &c.Name })},
		{key: "socket", value: "/run/walbaton/walbaton.sock", help: "`path` of the socket that walbaton-wal calls", set: text(func(c *Config) *string { return &c.Socket })},
		{key: "listen", value: ":9847", help: "`address` for the page of the cluster, /metrics, /livez, /readyz and /status.json", set: text(func(c *Config) *string { return &c.Listen })},
		{key: "web.username", help: "the `name` that the page asks for; without one it asks for nothing", set: text(func(c *Config) *string { return &c.Web.Username })},
		{key: "web.password", secret: true, help: "the password that goes with it", set: text(func(c *Config) *string { return &c.Web.Password })},
		{key: "web.cert", path: true, help: "`file` with the certificate that makes it HTTPS", set: text(func(c *Config) *string { return &c.Web.Cert })},
		{key: "web.key", path: true, help: "`file` with its key", set: text(func(c *Config) *string { return &c.Web.Key })},
		{key: "web.ca", path: true, help: "`file` with the certificates of who signed those of the other sidecars", set: text(func(c *Config) *string { return &c.Web.CA })},
		setting{key: "policy", value: "primary", help: "who ships while nobody lacks anything: `primary` or replica"}.among(func(c *Config) *string { return &c.Policy }, "primary", "replica"),
		{key: "max_lag", value: "128MB", help: "how far a shipping replica may lag behind, a `size`", set: size(func(c *Config) *int64 { return &c.MaxLag })},
		{key: "push_wait", value: "60s", help: "how much `time` push waits for a file to be stored", set: duration(func(c *Config) *time.Duration { return &c.PushWait })},
		{key: "shutdown_wait", value: "5s", help: "how much `time` push holds up a shutdown while the archive takes nothing", set: duration(func(c *Config) *time.Duration { return &c.ShutdownWait })},
		{key: "stopped_wait", value: "30s", help: "how much `time` push waits while PostgreSQL is stopped", set: duration(func(c *Config) *time.Duration { return &c.StoppedWait })},
		{key: "stall_timeout", value: "60s", help: "after how much `time` without progress there is an alarm", set: duration(func(c *Config) *time.Duration { return &c.StallTimeout })},
		{key: "verify_every", value: "1h", help: "the `time` between two looks of the holder of the baton at the archive, for holes", set: duration(func(c *Config) *time.Duration { return &c.VerifyEvery })},
		{key: "keep_dir", help: "`folder` for WAL of a stopped server that is not stored yet (default <data directory>-walbaton)", set: text(func(c *Config) *string { return &c.KeepDir })},
		{key: "bandwidth_limit", help: "how much the sidecar sends to the archives in a second at most, and receives from them, a `size`; 0 is no limit", set: size(func(c *Config) *int64 { return &c.Bandwidth })},
		{key: "workers", value: "4", help: "the `number` of segments that are shipped at the same time", set: count(func(c *Config) *int { return &c.Workers })},
		{key: "ttl", value: "15s", help: "how much `time` the baton lasts without renewal", set: duration(func(c *Config) *time.Duration { return &c.TTL })},
		{key: "renewal", value: "5s", help: "the `time` between renewals of the baton", set: duration(func(c *Config) *time.Duration { return &c.Renewal })},
		{key: "margin", value: "3s", help: "how much `time` before the end of the baton shipping stops", set: duration(func(c *Config) *time.Duration { return &c.Margin })},
		setting{key: "dcs.kind", help: "`static`: a single PostgreSQL without Patroni; rest: Patroni's REST API instead of the DCS, and no baton; otherwise Patroni's configuration says it"}.among(func(c *Config) *string { return &c.DCS.Kind }, "", "static", "rest"),
		setting{key: "retention.mode", flag: "retention", value: retentionOff, help: "what the holder of the baton expires by itself: `off`, or standby-only: all that no member's restart needs"}.among(func(c *Config) *string { return &c.Retention.Mode }, retentionOff, retentionStandby),
		{key: "retention.keep", help: "how much `time` stays restorable, such as 14d; what no restore to it needs is expired once a day", set: span(func(c *Config) *time.Duration { return &c.Retention.Keep })},
		{key: "retention.without_backups", value: "false", help: "`true`: keep from that time itself, as expire --without-backups does", set: yesNo(func(c *Config) *bool { return &c.Retention.WithoutBackups })},
		{key: "retention.every", help: "the `time` between two of its runs (default 24h; with standby-only 1h)", set: span(func(c *Config) *time.Duration { return &c.Retention.Every })},
		{key: "postgres.dsn", secret: true, help: "connection string of the local PostgreSQL, where the one made from Patroni's configuration does not work", set: text(func(c *Config) *string { return &c.Postgres.DSN })},
		{key: "postgres.data_dir", help: "PostgreSQL's data `directory`, where it differs from Patroni's configuration", set: text(func(c *Config) *string { return &c.Postgres.DataDir })},
		setting{key: "log", value: "info", help: "least `level` that is logged: debug, info, warn or error"}.among(func(c *Config) *string { return &c.Log }, "debug", "info", "warn", "error"),
	}
}

// defaultConfigFile is read when it exists and no other is named.
const defaultConfigFile = "/etc/walbaton/walbaton.yml"

// sources are where a configuration comes from, besides the files.
type sources struct {
	getenv func(string) string
	flags  map[string]string // by name, those that were given
}

// loadConfig puts the configuration together: a flag beats the environment, that beats the file, and
// that the default. What a verb needs of it is checked by needArchive and needServer.
func loadConfig(src sources) (Config, error) {
	var c Config
	all := settings()
	for _, s := range all {
		if s.value != "" {
			if err := s.set(&c, []string{s.value}); err != nil {
				return Config{}, fmt.Errorf("set default of %s: %w", s.key, err)
			}
		}
	}
	if err := loadFile(&c, all, src); err != nil {
		return Config{}, err
	}
	if len(c.Archives) > 0 && c.Archive.URL != "" {
		return Config{}, withHint(configError("archives", "archive.url is given, too"), "make the one archive an element of archives, or leave archives out")
	}
	for _, s := range all {
		if v := src.getenv(s.envName()); v != "" {
			if err := s.set(&c, s.split(v)); err != nil {
				return Config{}, configError(s.envName(), "%w", err)
			}
		}
	}
	for _, s := range all {
		if v, ok := src.flags[s.flagName()]; ok {
			if err := s.set(&c, s.split(v)); err != nil {
				return Config{}, configError("--"+s.flagName(), "%w", err)
			}
		}
	}
	if err := c.chooseArchive(); err != nil {
		return Config{}, err
	}
	if err := c.readPatroni(src.getenv); err != nil {
		return Config{}, err
	}
	return c, c.check()
}

func loadFile(c *Config, all []setting, src sources) error {
	path, named := src.flags["config"]
	if !named {
		path = src.getenv("WALBATON_CONFIG")
		named = path != ""
	}
	if !named {
		path = defaultConfigFile
	}
	b, err := readSmall(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && !named {
			return nil
		}
		return withHint(configError("", "%w", bare(err)), "name walbaton's own file with --config; Patroni's goes to --patroni-config")
	}
	return readFile(c, all, path, b, src.getenv)
}

// maxConfig bounds a file of the configuration in bytes: something else may have been named by mistake.
const maxConfig = 1 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s: it has more than %d bytes, so it is no configuration", path, maxConfig)
	}
	return b, err
}

func (c *Config) readPatroni(getenv func(string) string) error {
	if c.static() && c.PatroniConfig == "" {
		if c.Name == "" {
			c.Name, _ = os.Hostname() // "" is refused where a name is needed
		}
		return nil
	}
	p, err := patroni.ReadConfig(c.PatroniConfig, getenv)
	if err != nil {
		if c.PatroniConfig == "" {
			c.noPatroni = err // many verbs do without; needServer asks for it
			return nil
		}
		return withHint(configError("patroni_config", "%w", patroniReason(c.PatroniConfig, err)), "--patroni-config takes the file or folder that Patroni itself is started with")
	}
	c.Patroni = p
	if name := p.ClusterName(); p.Scope != "" {
		if c.Scope != "" && c.Scope != name {
			return configError("scope", "it is %q here and %q by Patroni's configuration: leave it out here", c.Scope, name)
		}
		c.Scope = name
	}
	if p.Name != "" {
		if c.Name != "" && c.Name != p.Name {
			return configError("name", "it is %q here and %q in Patroni's configuration: leave it out here", c.Name, p.Name)
		}
		c.Name = p.Name
	}
	if c.Postgres.DataDir == "" {
		c.Postgres.DataDir = p.PostgreSQL.DataDir
	}
	return nil
}

// patroniReason says which file is wrong, once.
func patroniReason(path string, err error) error {
	cause := errors.Unwrap(err)
	var file *fs.PathError
	switch {
	case cause == nil:
		return err
	case errors.As(cause, &file):
		return bare(cause)
	case strings.HasPrefix(cause.Error(), path):
		return cause
	}
	return fmt.Errorf("%s: %w", path, cause)
}

// isElement says whether a name can be a folder of the archive.
func isElement(name string) bool { return store.CheckKey(name) == nil && !strings.Contains(name, "/") }

// check refuses values that cannot work together, whatever the verb.
func (c *Config) check() error {
	for _, n := range []struct{ key, name string }{{"scope", c.Scope}, {"name", c.Name}} {
		if n.name != "" && !isElement(n.name) {
			return withHint(configError(n.key, "%q cannot be the name of a folder in the archive", n.name), "give a name without slashes, the same as in Patroni's configuration")
		}
	}
	if err := c.Archive.check(); err != nil {
		return err
	}
	if _, err := seal.New(seal.Zstd, c.encryptTo()...); err != nil {
		return withHint(configError("encrypt_to", "these recipients do not go together: %w", errors.Unwrap(err)), "give either only hybrid keys (age1pq1...) or none")
	}
	if _, err := pgx.ParseConfig(c.Postgres.DSN); c.Postgres.DSN != "" && err != nil {
		// Not err: it may show a password that stands in the wrong place.
		return withHint(configError("postgres.dsn", "it is no connection string"), "give one such as host=/var/run/postgresql dbname=postgres, or a URL postgres://HOST:PORT/DATABASE")
	}
	if c.Bandwidth != 0 && c.Bandwidth < leastBandwidth {
		return withHint(configError("bandwidth_limit", "%d bytes a second are less than any archive could keep up with", c.Bandwidth), "give at least --bandwidth-limit 64kB, or more than your server writes WAL; 0 is no limit")
	}
	if c.Margin <= leader.UploadGrace {
		return withHint(configError("margin", "%v is not above %v, which uploads get after the end of a term", c.Margin, leader.UploadGrace), "leave it out, or give --margin 3s")
	}
	if c.Renewal+c.Margin >= c.TTL {
		return withHint(configError("ttl", "renewal %v and margin %v leave no time within ttl %v", c.Renewal, c.Margin, c.TTL),
			"ttl must be longer than renewal and margin together; the defaults are 15s, 5s and 3s")
	}
	if c.rest() && c.Policy != string(leader.PolicyPrimary) {
		return withHint(configError("policy", "%s needs a baton, and dcs.kind rest has none", c.Policy), "leave it out: with rest the running primary ships")
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || !isPort(port) {
		return withHint(configError("listen", "%q is not an address with a port", c.Listen), "give one such as --listen :9847 or --listen 127.0.0.1:9847")
	}
	if err := c.Web.check(); err != nil {
		return err
	}
	if err := c.Retention.check(c.static() || c.rest()); err != nil {
		return err
	}
	if c.KeepDir != "" && !filepath.IsAbs(c.KeepDir) {
		return withHint(configError("keep_dir", "%q is relative", c.KeepDir), "give the absolute path of a folder beside the data directory, on the same file system")
	}
	if !filepath.IsAbs(c.Socket) {
		return withHint(configError("socket", "%q is relative", c.Socket), "give an absolute path: PostgreSQL and the sidecar have different working directories")
	}
	if len(c.Socket) > maxSocketPath {
		return withHint(configError("socket", "%s has %d bytes, and no socket's path may have more than %d", c.Socket, len(c.Socket), maxSocketPath),
			"give a shorter one: --socket here, and in archive_command and restore_command")
	}
	if c.Postgres.DataDir != "" {
		c.Postgres.DataDir = filepath.Clean(c.Postgres.DataDir)
		if c.KeepDir == "" {
			c.KeepDir = c.Postgres.DataDir + "-walbaton"
		}
		if within(c.Postgres.DataDir, c.KeepDir) {
			return withHint(configError("keep_dir", "%s lies in the data directory %s", c.KeepDir, c.Postgres.DataDir),
				"choose a folder beside it, on the same file system: Patroni may empty the data directory")
		}
	}
	return c.checkPrefetch()
}

// checkPrefetch keeps the window's files out of PostgreSQL's: what lies there is removed at each start.
func (c *Config) checkPrefetch() error {
	dir := c.Restore.PrefetchDir
	if dir == "" {
		if c.KeepDir != "" {
			c.Restore.PrefetchDir = filepath.Join(c.KeepDir, "prefetch")
		}
		return nil
	}
	if !filepath.IsAbs(dir) {
		return withHint(configError("restore.prefetch_dir", "%q is relative", dir), "give the absolute path of a folder that is for this alone, on the file system of pg_wal")
	}
	if data := c.Postgres.DataDir; data != "" {
		for _, theirs := range []string{data, filepath.Join(data, "pg_wal")} {
			if within(real(theirs), real(dir)) {
				return withHint(configError("restore.prefetch_dir", "%s lies in PostgreSQL's %s", dir, theirs),
					"choose a folder beside it, on the file system of pg_wal; or leave it out, which means <keep_dir>/prefetch")
			}
		}
	}
	return nil
}

// real follows symbolic links as far as the path is there.
func real(path string) string {
	if at, err := filepath.EvalSymlinks(path); err == nil {
		return at
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(real(dir), filepath.Base(path))
	}
	return path
}

// within says whether path is dir or lies in it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// leastBandwidth is 64 kB a second: a segment of 16 MB takes four minutes.
const leastBandwidth = 64 << 10

// maxSocketPath is sun_path without its last byte, 0 (unix(7)).
const maxSocketPath = 107

func isPort(s string) bool {
	_, err := net.LookupPort("tcp", s)
	return err == nil && s != ""
}

// needArchive checks what every verb needs that reads the archive.
func (c Config) needArchive() error {
	if c.Archive.URL == "" {
		return withHint(configError("archive.url", "no archive is configured"),
			"give --archive file:///folder or s3://bucket/prefix, or write to "+defaultConfigFile+":\n  archive: {url: s3://bucket/prefix}")
	}
	return c.needScope()
}

func (c Config) needScope() error {
	if c.Scope == "" {
		return withHint(configError("scope", "the name of the cluster is unknown"),
			"give --patroni-config with Patroni's file, or --scope with the cluster's name")
	}
	return nil
}

// needServer checks what the sidecar needs: the archive, a member's name and its data directory.
func (c Config) needServer() error {
	if err := c.needArchive(); err != nil {
		return err
	}
	if c.chosen {
		return withHint(configError("--archive", "walbaton.yml has several archives, and the sidecar is to put WAL into all of them"),
			"leave --archive and WALBATON_ARCHIVE out; archives in walbaton.yml says which are required")
	}
	if !c.static() && c.Patroni.Scope == "" {
		return withHint(configError("patroni_config", "no file is named, and the PATRONI_* variables do not make one up (%w)", patroniReason("", c.noPatroni)),
			"give --patroni-config /etc/patroni/config.yml; for a single PostgreSQL without Patroni: --dcs-kind static --scope NAME --postgres-data-dir DIR")
	}
	if c.Name == "" {
		return withHint(configError("name", "the name of this member is unknown"), "give --name, the same as Patroni's name for this node")
	}
	if c.Postgres.DataDir == "" {
		return withHint(configError("postgres.data_dir", "PostgreSQL's data directory is unknown"), "give --postgres-data-dir")
	}
	if !filepath.IsAbs(c.Postgres.DataDir) {
		return withHint(configError("postgres.data_dir", "%q is relative to Patroni's working directory, which is not known here", c.Postgres.DataDir),
			"give --postgres-data-dir with the absolute path")
	}
	return nil
}
