package patroni

import (
	"errors"
	"net"
	"net/url"
	"strconv"
)

// Consul is the section "consul" (patroni/dcs/consul.py of 2.1 to 4.1). What it says of consistency, checks
// and the registration of services is for Patroni alone.
type Consul struct {
	Address    string // host:port of the agent, from url or host and port; default 127.0.0.1:8500
	Scheme     string // "http" (default) or "https"
	Token      string
	Datacenter string
	CACert     string
	Cert       string
	Key        string // may be in Cert
	Insecure   bool   // "verify: false" and no CACert
}

// consulOf takes url before host, as Patroni does. The port beside host wins over the one in it;
// url has its own.
func consulOf(s section) (Consul, error) {
	c := Consul{
		Scheme:     s.text("scheme"),
		Token:      s.text("token"),
		Datacenter: s.text("dc"),
		CACert:     s.text("cacert"),
		Cert:       s.text("cert"),
		Key:        s.text("key"),
	}
	c.Insecure = c.CACert == "" && s.no("verify")
	if _, ok := s["url"]; ok {
		u, err := url.Parse(s.text("url"))
		if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return c, errors.New("url is not an http or https URL") // it may hold a password
		}
		port := u.Port()
		if port == "" {
			port = "8500"
		}
		c.Scheme, c.Address = u.Scheme, net.JoinHostPort(u.Hostname(), port)
		return c, nil
	}
	host, port := "127.0.0.1", 8500
	if h := s.text("host"); h != "" {
		host, port = splitHostPort(h, port)
	}
	if n, err := strconv.ParseUint(s.text("port"), 10, 16); err == nil && n > 0 {
		port = int(n)
	}
	if c.Scheme == "" {
		c.Scheme = "http"
	}
	c.Address = join(host, port)
	return c, nil
}
