// Package patroni reads what Patroni has: its configuration (a file, a directory, PATRONI_*
// variables) and its view of the cluster (the keys below its scope in the DCS).
//
// It never writes and never asks the network; it is lenient, because neither format is
// ours: unknown keys are ignored, values that cannot be understood are left out. What
// Patroni 2.1 to 4.1 write is understood, "master" is read as "primary".
//
//	config, err := patroni.ReadConfig("/etc/patroni/patroni.yml", os.Getenv)
//	config.Path()                       // /service/batman/
//	reading, err := dcs.Read(ctx)
//	cluster, err := patroni.Parse(reading.Nodes)
//
// ReadConfig follows the order of Patroni itself (patroni/config.py). Where a path is
// given, it is read, and PATRONI_* variables override it. Else PATRONI_CONFIGURATION holds a
// whole configuration, and no other variable counts. Else the variables alone make it up.
package patroni

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is the part of Patroni's configuration that a sidecar needs. What is not set is
// zero, except where a default is named.
type Config struct {
	Scope        string         // name of the cluster, or with Citus of all its groups; always set
	Namespace    string         // default "service"; without slashes around
	Name         string         // of this member; "" in a configuration for patronictl
	Group        *int           // Citus group; 0 is the coordinator, nil is no Citus
	DCS          DCSConfig      // the one section that Patroni uses
	RestAPI      RestAPI        // of this member
	Ctl          Ctl            // how patronictl, and so we, reach other members' REST API
	PostgreSQL   PostgreSQL     // of this member
	TTL          time.Duration  // hints, from the top level or bootstrap.dcs: the DCS decides
	LoopWait     time.Duration  //
	RetryTimeout time.Duration  //
	Tags         map[string]any // of this member
}

// RestAPI is the section "restapi".
type RestAPI struct {
	Listen         string // host:port
	ConnectAddress string // host:port, default Listen
	Username       string // for requests that change something
	Password       string
	CertFile       string // set: it speaks HTTPS
	KeyFile        string
	CAFile         string
	VerifyClient   string // "", "none", "optional", "required"
}

// Ctl is the section "ctl".
type Ctl struct {
	Insecure bool
	CACert   string
	CertFile string
	KeyFile  string
}

// PostgreSQL is the section "postgresql".
type PostgreSQL struct {
	DataDir        string // may be relative to Patroni's working directory
	ConfigDir      string // default DataDir
	BinDir         string // "": PATH decides
	Listen         string // host[,host...]:port, default port 5432
	ConnectAddress string // host:port for other members
	PgPass         string // file that Patroni writes
	UseUnixSocket  bool
	SocketDirs     []string // parameters.unix_socket_directories
	Superuser      Credentials
	Replication    Credentials
	Rewind         Credentials       // default Superuser
	Parameters     map[string]string // set locally; the DCS may set more
	RecoveryConf   map[string]string // the same, of recovery_conf. Patroni ignores it where parameters has a setting of recovery
}

// Credentials is one user of "postgresql.authentication".
type Credentials struct {
	Username, Password                         string
	SSLMode, SSLCert, SSLKey, SSLPassword      string
	SSLRootCert, SSLCRL, SSLCRLDir             string
	GSSEncMode, ChannelBinding, SSLNegotiation string
}

// ReadConfig reads the file or directory at path, or with an empty path the variables
// alone. Of a directory all *.yml and *.yaml are merged in the order of their names: maps are
// merged, a null deletes, else the later value wins.
func ReadConfig(path string, getenv func(string) string) (Config, error) {
	tree, err := readTree(path, getenv)
	if err != nil {
		return Config{}, fmt.Errorf("read Patroni configuration: %w", err)
	}
	c, err := configOf(tree)
	if err != nil {
		if path == "" {
			path = "PATRONI_* variables"
		}
		return Config{}, fmt.Errorf("read Patroni configuration %s: %w", path, err)
	}
	return c, nil
}

func readTree(path string, getenv func(string) string) (section, error) {
	tree := section{}
	if path == "" {
		whole := getenv("PATRONI_CONFIGURATION")
		if whole == "" {
			return environment(getenv), nil
		}
		if err := mergeYAML(tree, []byte(whole)); err != nil {
			return nil, fmt.Errorf("PATRONI_CONFIGURATION: %w", err)
		}
		return tree, nil
	}
	files, err := filesOf(path)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if err := mergeYAML(tree, b); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	merge(tree, environment(getenv))
	return tree, nil
}

// filesOf lists a directory in the byte order of its names, as Python's sorted does.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".yml" && ext != ".yaml" {
			continue
		}
		f := filepath.Join(path, e.Name())
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() { // follows links
			files = append(files, f)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.yml or *.yaml in it", path)
	}
	return files, nil
}

// merge is Patroni's patch_config.
func merge(into, from section) {
	for k, v := range from {
		old, isMap := into[k].(map[string]any)
		sub, subIsMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap && subIsMap:
			merge(old, sub)
		case subIsMap:
			into[k] = maps.Clone(sub)
		default:
			into[k] = v
		}
	}
}

func configOf(t section) (Config, error) {
	c := Config{
		Scope:     t.text("scope"),
		Namespace: strings.Trim(t.text("namespace"), "/"),
		Name:      t.text("name"),
		Tags:      t.section("tags"),
	}
	if c.Scope == "" {
		return c, errors.New("no scope in it")
	}
	if t.text("namespace") == "" {
		c.Namespace = "service"
	}
	if citus := t.section("citus"); citus.text("database") != "" {
		if g, err := strconv.ParseUint(citus.text("group"), 10, 31); err == nil { // Patroni needs both
			group := int(g)
			c.Group = &group
		}
	}
	hints := t.section("bootstrap").section("dcs")
	for name, d := range map[string]*time.Duration{"ttl": &c.TTL, "loop_wait": &c.LoopWait, "retry_timeout": &c.RetryTimeout} {
		s := t.text(name)
		if s == "" {
			s = hints.text(name)
		}
		if n, err := strconv.ParseUint(s, 10, 31); err == nil {
			*d = time.Duration(n) * time.Second
		}
	}
	c.RestAPI, c.Ctl = restAPIOf(t.section("restapi")), ctlOf(t.section("ctl"))
	c.PostgreSQL = postgresOf(t.section("postgresql"))
	var err error
	c.DCS, err = dcsOf(t)
	return c, err
}

func restAPIOf(s section) RestAPI {
	r := RestAPI{
		Listen:         s.text("listen"),
		ConnectAddress: s.text("connect_address"),
		Username:       s.section("authentication").text("username"),
		Password:       s.section("authentication").text("password"),
		CertFile:       s.text("certfile"),
		KeyFile:        s.text("keyfile"),
		CAFile:         s.text("cafile"),
		VerifyClient:   s.text("verify_client"),
	}
	if r.ConnectAddress == "" {
		r.ConnectAddress = r.Listen
	}
	return r
}

func ctlOf(s section) Ctl {
	return Ctl{Insecure: s.boolean("insecure"), CACert: s.text("cacert"), CertFile: s.text("certfile"), KeyFile: s.text("keyfile")}
}

func postgresOf(s section) PostgreSQL {
	auth := s.section("authentication")
	p := PostgreSQL{
		DataDir:        s.text("data_dir"),
		ConfigDir:      s.text("config_dir"),
		BinDir:         s.text("bin_dir"),
		Listen:         s.text("listen"),
		ConnectAddress: s.text("connect_address"),
		PgPass:         s.text("pgpass"),
		UseUnixSocket:  s.boolean("use_unix_socket"),
		Superuser:      credentialsOf(auth.section("superuser")),
		Replication:    credentialsOf(auth.section("replication")),
		Rewind:         credentialsOf(auth.section("rewind")),
		Parameters:     s.texts("parameters"),
		RecoveryConf:   s.texts("recovery_conf"),
	}
	if p.ConfigDir == "" {
		p.ConfigDir = p.DataDir
	}
	if p.Rewind == (Credentials{}) {
		p.Rewind = p.Superuser
	}
	for dir := range strings.SplitSeq(p.Parameters["unix_socket_directories"], ",") {
		if dir = strings.Trim(dir, ` "'`); dir != "" {
			p.SocketDirs = append(p.SocketDirs, dir)
		}
	}
	return p
}

func credentialsOf(s section) Credentials {
	return Credentials{
		Username: s.text("username"), Password: s.text("password"),
		SSLMode: s.text("sslmode"), SSLCert: s.text("sslcert"), SSLKey: s.text("sslkey"), SSLPassword: s.text("sslpassword"),
		SSLRootCert: s.text("sslrootcert"), SSLCRL: s.text("sslcrl"), SSLCRLDir: s.text("sslcrldir"),
		GSSEncMode: s.text("gssencmode"), ChannelBinding: s.text("channel_binding"), SSLNegotiation: s.text("sslnegotiation"),
	}
}

// Path is where Patroni keeps the keys of this scope, with a slash at both ends:
// /<namespace>/<scope>/, or /<namespace>/<scope>/<group>/ with Citus.
func (c Config) Path() string {
	p := "/" + c.Namespace + "/" + c.Scope + "/"
	if c.Group != nil {
		p += strconv.Itoa(*c.Group) + "/"
	}
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// ClusterName names this PostgreSQL cluster: the scope, and with Citus <scope>-<group>, since each group is a cluster with a
// system identifier of its own. Patroni names its Kubernetes objects so.
func (c Config) ClusterName() string {
	if c.Group == nil {
		return c.Scope
	}
	return c.Scope + "-" + strconv.Itoa(*c.Group)
}

// URL is where this member's REST API answers, "" when it is not configured.
func (r RestAPI) URL() string {
	if r.ConnectAddress == "" {
		return ""
	}
	host, port := splitHostPort(r.ConnectAddress, 8008)
	scheme := "http"
	if r.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// Local is where the server answers on this machine: a socket directory ("" means the
// default one) if use_unix_socket is set, else a host; as Patroni itself connects
// (patroni/postgresql/config.py).
func (p PostgreSQL) Local() (host string, port int) {
	hosts, port := splitHostPort(p.Listen, 5432)
	if p.UseUnixSocket {
		if len(p.SocketDirs) > 0 {
			return p.SocketDirs[0], port
		}
		return "", port
	}
	first := ""
	for h := range strings.SplitSeq(hosts, ",") {
		h = strings.Trim(strings.TrimSpace(h), "[]")
		switch {
		case h == "*" || h == "0.0.0.0" || h == "::" || h == "":
			return "localhost", port
		case h == "localhost" || h == "127.0.0.1":
			return h, port
		case first == "":
			first = h
		}
	}
	return first, port
}

// splitHostPort takes the port behind the last colon, as Patroni does; an address with
// several colons is in brackets when it has a port.
func splitHostPort(s string, port int) (string, int) {
	host, p, ok := cutLast(strings.TrimSpace(s), ":")
	n, err := strconv.ParseUint(p, 10, 16)
	switch {
	case !ok, err != nil, strings.Contains(host, ":") && !strings.Contains(host, "]"):
		return strings.Trim(strings.TrimSpace(s), "[]"), port
	}
	if !strings.Contains(host, ",") {
		host = strings.Trim(host, "[]")
	}
	return host, int(n)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// section is a map of a configuration that is read leniently.
type section map[string]any

func (s section) section(name string) section {
	m, _ := s[name].(map[string]any)
	return m
}

// text gives any scalar as it was meant to be written.
func (s section) text(name string) string { return scalar(s[name]) }

func scalar(v any) string {
	switch v := v.(type) {
	case nil, map[string]any, []any:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// boolean takes YAML's booleans and Patroni's words for them.
func (s section) boolean(name string) bool {
	switch strings.ToLower(s.text(name)) {
	case "true", "on", "yes", "1":
		return true
	}
	return false
}

// no says whether an option that is on by default is switched off, in Patroni's words.
func (s section) no(name string) bool {
	switch strings.ToLower(s.text(name)) {
	case "false", "off", "no", "0":
		return true
	}
	return false
}

// list takes a YAML list or a string with commas.
func (s section) list(name string) []string {
	var out []string
	switch v := s[name].(type) {
	case []any:
		for _, e := range v {
			out = append(out, strings.TrimSpace(scalar(e)))
		}
	case string:
		for e := range strings.SplitSeq(v, ",") {
			out = append(out, strings.TrimSpace(e))
		}
	}
	return out
}
