package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// asker asks sidecars over HTTP, as those of one cluster do: with the same name, password and certificates.
type asker struct {
	web  WebConfig
	http *http.Client
}

// asker makes one. What is wrong with web.ca is an error.
func (w WebConfig) asker() (asker, error) {
	c, err := w.client()
	return asker{w, c}, err
}

// askStatus asks one sidecar once.
func (c Config) askStatus(ctx context.Context, address string) (Status, []byte, error) {
	a, err := c.Web.asker()
	if err != nil {
		return Status{}, nil, err
	}
	defer a.http.CloseIdleConnections()
	return a.status(ctx, address)
}

// errNoPassword is the answer 401.
var errNoPassword = errors.New("it asks for a name and a password, and does not take ours")

// status asks the sidecar at host:port, or at https://host:port, for its /status.json. It takes five seconds at most.
func (a asker) status(ctx context.Context, address string) (Status, []byte, error) {
	fail := func(err error) (Status, []byte, error) {
		return Status{}, nil, fmt.Errorf("ask the sidecar at %s: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := address
	if withoutScheme(address) == address {
		url = "http://" + address
		if a.web.https() {
			url = "https://" + address
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/status.json", nil)
	if err != nil {
		return fail(err)
	}
	if a.web.Username != "" {
		req.SetBasicAuth(a.web.Username, a.web.Password)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fail(bare(errors.Unwrap(err)))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	switch {
	case err != nil:
		return fail(err)
	case resp.StatusCode == http.StatusUnauthorized:
		return fail(errNoPassword)
	case resp.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("it answers %s", resp.Status))
	}
	var st Status
	if err := json.Unmarshal(raw, &st); err != nil {
		return fail(fmt.Errorf("it is none, or of another version: %w", err))
	}
	return st, raw, nil
}

// askHint says what to do about an error of asker.status.
func askHint(err error) string {
	switch {
	case errors.Is(err, errNoPassword):
		return "web.username and web.password_file in walbaton.yml are to be the sidecar's; or WALBATON_WEB_USERNAME and WALBATON_WEB_PASSWORD"
	case strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: "):
		return "--web-ca names a file with the certificate of who signed the sidecar's; on a node itself web.cert in walbaton.yml is enough"
	case strings.Contains(err.Error(), "400 Bad Request"):
		return "does it talk HTTPS? --address https://host:port, and --web-ca where its certificate is not of a public authority"
	}
	return "is the sidecar running? walbaton sidecar --help says how to start it; --address asks another node's"
}

// withoutScheme is host:port of what may be https://host:port.
func withoutScheme(address string) string { return strings.TrimPrefix(address, "https://") }

// isAddress says whether a sidecar may be at what --address says: host:port, or https://host:port.
func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(withoutScheme(s))
	return err == nil && isPort(port)
}

func notAddress(s string) error {
	return fmt.Errorf("--address: %q is not host:port, as in --address 10.0.0.7:9847", s)
}

// isBaseURL says whether a REST API of Patroni may be at what --patroni-url says.
func isBaseURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// ask asks the sidecar of a member of a cluster for its status, and refuses that of another one at its address.
func (m MemberStatus) ask(ctx context.Context, a asker, scope string) (Status, error) {
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		return Status{}, fmt.Errorf("ask the sidecar of %s: its address %q is none", m.Name, m.Address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = m.Host // it listens on all of its addresses
	}
	if host == "" {
		return Status{}, fmt.Errorf("ask the sidecar of %s: the address of its host is not known", m.Name)
	}
	st, _, err := a.status(ctx, net.JoinHostPort(host, port))
	if err == nil && (st.Member != m.Name || st.Scope != scope) {
		err = fmt.Errorf("ask the sidecar of %s: at %s answers %s of %s", m.Name, m.Address, st.Member, st.Scope)
	}
	return st, err
}
