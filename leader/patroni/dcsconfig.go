package patroni

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// kinds are the sections that Patroni looks for, in its order: of several the first is
// used (patroni/dynamic_loader.py: by the names of its modules).
func kinds() []string {
	return []string{"consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"}
}

// DCSConfig is the one DCS section that Patroni uses.
type DCSConfig struct {
	Kind       string         // one of consul, etcd, etcd3, exhibitor, kubernetes, raft, zookeeper; "" without any
	Consul     Consul         // set for consul
	Etcd3      Etcd3          // set for etcd3 and etcd, which have the same options
	Kubernetes Kubernetes     // set for kubernetes
	ZooKeeper  ZooKeeper      // set for zookeeper and exhibitor
	Options    map[string]any // the whole section, with the variables applied
}

// Etcd3 is the section "etcd3" (or "etcd").
type Etcd3 struct {
	Hosts      []string // host:port, from host, hosts, url or proxy; default port 2379
	Protocol   string   // "http" (default) or "https"
	Username   string
	Password   string
	CACert     string
	Cert       string
	Key        string // may be in Cert
	SRV        string // domain to find the hosts in, when Hosts is empty
	SRVSuffix  string
	UseProxies bool // Hosts are proxies, not members
}

// Endpoints are the URLs of Hosts.
func (e Etcd3) Endpoints() []string {
	urls := make([]string, len(e.Hosts))
	for i, h := range e.Hosts {
		urls[i] = e.Protocol + "://" + h
	}
	return urls
}

// ErrNotDirect is about a DCS that can be reached through Patroni's REST API only.
var ErrNotDirect = errors.New("only Patroni's REST API can read this DCS (--dcs-kind rest)")

// Direct says why the DCS cannot be read and written directly: an error that wraps
// ErrNotDirect, or nil.
func (d DCSConfig) Direct() error {
	switch d.Kind {
	case "":
		return fmt.Errorf("no DCS section (%s) in Patroni's configuration: %w", strings.Join(kinds(), ", "), ErrNotDirect)
	case "etcd":
		return fmt.Errorf("section etcd is the v2 API of etcd, which is gone since etcd 3.6 (Patroni's etcd3 is the v3 API): %w", ErrNotDirect)
	case "raft":
		return fmt.Errorf("section raft is inside the Patroni processes: %w", ErrNotDirect)
	}
	return nil
}

func dcsOf(t section) (DCSConfig, error) {
	if e := t.section("zookeeper").section("exhibitor"); e != nil { // its place in old configurations
		t = maps.Clone(t)
		t["exhibitor"] = map[string]any(e)
		delete(t, "zookeeper")
	}
	for _, kind := range kinds() {
		s, ok := t[kind]
		if !ok {
			continue
		}
		d := DCSConfig{Kind: kind}
		d.Options, _ = s.(map[string]any)
		var err error
		switch kind {
		case "consul":
			d.Consul, err = consulOf(d.Options)
		case "etcd3", "etcd":
			d.Etcd3, err = etcd3Of(d.Options)
		case "kubernetes":
			d.Kubernetes = kubernetesOf(d.Options)
			if _, ok := t["namespace"]; ok { // Patroni gives it to every DCS, and there it wins
				d.Kubernetes.Namespace = cmp.Or(t.text("namespace"), "default")
			}
		case "exhibitor":
			d.ZooKeeper, err = exhibitorOf(d.Options)
		case "zookeeper":
			d.ZooKeeper, err = zookeeperOf(d.Options)
		}
		if err != nil {
			return d, fmt.Errorf("section %s: %w", kind, err)
		}
		return d, nil
	}
	return DCSConfig{}, nil
}

// etcd3Of takes proxy before url before hosts before host, as Patroni does
// (patroni/dcs/etcd.py).
func etcd3Of(s section) (Etcd3, error) {
	e := Etcd3{
		Protocol:   s.text("protocol"),
		Username:   s.text("username"),
		Password:   s.text("password"),
		CACert:     s.text("cacert"),
		Cert:       s.text("cert"),
		Key:        s.text("key"),
		SRVSuffix:  s.text("srv_suffix"),
		UseProxies: s.boolean("use_proxies"),
	}
	if e.Protocol == "" {
		e.Protocol = "http"
	}
	port := 2379
	if n, err := strconv.ParseUint(s.text("port"), 10, 16); err == nil {
		port = int(n)
	}
	address := s.text("url")
	if p := s.text("proxy"); p != "" {
		address, e.UseProxies = p, true
	}
	switch {
	case address != "":
		return e, e.url(address)
	case s["hosts"] != nil:
		for _, h := range s.list("hosts") {
			if h != "" {
				e.Hosts = append(e.Hosts, join(splitHostPort(h, port)))
			}
		}
	case s.text("host") != "":
		e.Hosts = []string{join(splitHostPort(s.text("host"), port))}
	}
	for _, name := range []string{"srv", "discovery_srv", "srv_domain"} { // the last two are old
		if v := s.text(name); v != "" && e.SRV == "" && len(e.Hosts) == 0 {
			e.SRV = v
		}
	}
	if len(e.Hosts) == 0 && e.SRV == "" {
		return e, errors.New("no host, hosts, url, proxy or srv in it")
	}
	return e, nil
}

func (e *Etcd3) url(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("url is not an http or https URL") // it may hold a password
	}
	e.Protocol = u.Scheme
	port := u.Port()
	if port == "" {
		port = "2379"
	}
	e.Hosts = []string{net.JoinHostPort(u.Hostname(), port)}
	if u.User != nil {
		e.Username = u.User.Username()
		e.Password, _ = u.User.Password()
	}
	return nil
}

func join(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// options that PATRONI_<SECTION>_<OPTION> may set in a DCS section (patroni/config.py of
// 2.1 to 4.1), by how their value is read. PATRONI_<NAME>_PASSWORD makes a database user
// unless the section is one that knows a password.
func options(kind string) (texts, lists, maps []string) {
	switch kind {
	case "raft":
		return []string{"self_addr", "bind_addr", "data_dir", "password"}, []string{"partner_addrs"}, nil
	case "etcd", "etcd3":
		texts = []string{"username", "password"}
	}
	texts = append(texts, "host", "port", "protocol", "srv", "srv_suffix", "url", "proxy", "use_proxies",
		"cacert", "cert", "key", "key_password", "verify", "token", "dc", "consistency", "register_service",
		"service_check_interval", "service_check_tls_server_name", "namespace", "context", "use_endpoints",
		"scope_label", "role_label", "leader_label_value", "follower_label_value", "standby_leader_label_value",
		"tmp_role_label", "pod_ip", "bypass_api_service", "use_ssl")
	lists = []string{"hosts", "ports", "checks", "service_tags", "retriable_http_codes"}
	maps = []string{"labels", "bootstrap_labels", "set_acls", "auth_data"}
	return texts, lists, maps
}

// environment maps PATRONI_* variables to the tree of a configuration. Empty ones do not
// count. There are none for postgresql.parameters and tags.
func environment(getenv func(string) string) section {
	t := section{}
	set := func(path []string, v any) {
		at := t
		for _, p := range path[:len(path)-1] {
			sub, ok := at[p].(map[string]any)
			if !ok {
				sub = map[string]any{}
				at[p] = sub
			}
			at = sub
		}
		at[path[len(path)-1]] = v
	}
	get := func(parts ...string) string {
		return getenv("PATRONI_" + strings.ToUpper(strings.Join(parts, "_")))
	}
	take := func(sec string, names ...string) {
		for _, name := range names {
			if v := get(sec, name); v != "" {
				set([]string{sec, name}, v)
			}
		}
	}
	for _, name := range []string{"name", "namespace", "scope"} {
		if v := get(name); v != "" {
			set([]string{name}, v)
		}
	}
	take("restapi", "listen", "connect_address", "certfile", "keyfile", "cafile", "verify_client")
	take("ctl", "insecure", "cacert", "certfile", "keyfile")
	take("citus", "group", "database")
	take("postgresql", "listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir")
	for _, name := range []string{"username", "password"} {
		if v := get("restapi", name); v != "" {
			set([]string{"restapi", "authentication", name}, v)
		}
	}
	for _, user := range []string{"superuser", "replication", "rewind"} {
		for _, name := range []string{"username", "password", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert",
			"sslcrl", "sslcrldir", "gssencmode", "channel_binding", "sslnegotiation"} {
			if v := get(user, name); v != "" {
				set([]string{"postgresql", "authentication", user, name}, v)
			}
		}
	}
	for _, kind := range kinds() {
		texts, lists, maps := options(kind)
		take(kind, texts...)
		for _, name := range lists {
			if l := parseList(get(kind, name)); len(l) > 0 {
				set([]string{kind, name}, l)
			}
		}
		for _, name := range maps {
			if m := parseMap(get(kind, name)); len(m) > 0 {
				set([]string{kind, name}, m)
			}
		}
	}
	return t
}

// parseList reads a YAML list, or one without its brackets: 'a:1','b:2'. What is neither is
// left out, as Patroni does.
func parseList(v string) []any {
	if !strings.HasPrefix(strings.TrimSpace(v), "-") && !strings.Contains(v, "[") {
		v = "[" + v + "]"
	}
	parsed, _ := parseYAML([]byte(v))
	list, _ := parsed.([]any)
	return list
}

// parseMap reads a YAML map, or one without its braces.
func parseMap(v string) map[string]any {
	if !strings.HasPrefix(strings.TrimSpace(v), "{") {
		v = "{" + v + "}"
	}
	parsed, _ := parseYAML([]byte(v))
	m, _ := parsed.(map[string]any)
	return m
}
