// Package restapi talks to Patroni's REST API, as patronictl does: it asks what a member and the cluster are, and, for an administrator
// who asked for it, changes the dynamic configuration, restarts a member, and switches the primary over.
//
//	api, err := restapi.New(restapi.ConfigOf(config))
//	cluster, err := api.Cluster(ctx, config.RestAPI.URL())
//	for _, m := range cluster.Members {
//		node, err := api.Node(ctx, m.URL)
//	}
//
// The sidecar itself never uses it: walbaton changes nothing in Patroni by itself. (Package leader/dcs/rest reads the same API in place of
// a DCS.) What Patroni 2.1 to 4.1 answer is understood (patroni/api.py); "master" is read as "primary".
package restapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/patroni"
)

// Config says how the API is reached. The zero value is plain HTTP without a password.
type Config struct {
	CACert   string // file; "": the system's authorities. Only for https, as the next three
	Cert     string // file, where Patroni asks clients for a certificate
	Key      string // file; may be in Cert
	Insecure bool   // accept any server certificate
	Username string // for what changes something; "": none
	Password string
}

// ConfigOf takes what patronictl takes: the section ctl, and what it lacks from restapi (patroni/request.py).
func ConfigOf(p patroni.Config) Config {
	c := Config{Insecure: p.Ctl.Insecure, CACert: cmp.Or(p.Ctl.CACert, p.RestAPI.CAFile), Cert: p.Ctl.CertFile, Key: p.Ctl.KeyFile,
		Username: p.RestAPI.Username, Password: p.RestAPI.Password}
	if c.Cert == "" {
		c.Cert, c.Key = p.RestAPI.CertFile, p.RestAPI.KeyFile
	}
	return c
}

// Client asks and tells. It is for any number of goroutines.
type Client struct {
	c    Config
	http *http.Client
}

// New makes a client. It asks nobody yet.
func New(c Config) (*Client, error) {
	t, err := dcs.TLSFiles{CACert: c.CACert, Cert: c.Cert, Key: c.Key, Insecure: c.Insecure}.Config()
	if err != nil {
		return nil, fmt.Errorf("open REST API of Patroni: %w", err)
	}
	return &Client{c, &http.Client{
		Transport:     &http.Transport{TLSClientConfig: t, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: 30 * time.Second}, // no proxy: members are neighbours
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// ErrNoConfig means that the cluster has no dynamic configuration yet: it was never bootstrapped.
var ErrNoConfig = errors.New("the cluster has no dynamic configuration yet")

// StatusError is an answer that is not success.
type StatusError struct {
	Code int    // of HTTP
	Says string // what Patroni wrote, in one line
}

func (e *StatusError) Error() string {
	why := ""
	switch e.Code {
	case http.StatusUnauthorized:
		why = "user name or password (restapi.authentication) refused: "
	case http.StatusForbidden:
		why = "refused by its allowlist or for want of a client certificate: "
	}
	return fmt.Sprintf("%sPatroni answers %d: %s", why, e.Code, cmp.Or(e.Says, http.StatusText(e.Code)))
}

// Unsure says whether what was asked for may still happen: Patroni gave up waiting, it did not refuse.
func (e *StatusError) Unsure() bool { return e.Code == http.StatusServiceUnavailable }

// unreached is an error of the way to a Patroni, in the words of somebody who typed its address: without the method, and without which call
// of the system it was.
type unreached struct{ err *url.Error }

func (e *unreached) Error() string {
	host := e.err.URL
	if u, err := url.Parse(host); err == nil {
		host = u.Host
	}
	cause := e.err.Err
	var op *net.OpError
	if errors.As(cause, &op) {
		cause = op.Err
	}
	var call *os.SyscallError
	if errors.As(cause, &call) {
		cause = call.Err
	}
	switch {
	case e.err.Timeout():
		return host + ": no answer in time"
	case errors.Is(cause, io.EOF):
		return host + ": it hung up without an answer"
	}
	return host + ": " + cause.Error()
}

func (e *unreached) Unwrap() error { return e.err }

// shorter is err, and what it says in short.
func shorter(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return &unreached{u}
	}
	return err
}

// maxAnswer bounds an answer in bytes.
const maxAnswer = 16 << 20

// Node asks the Patroni at base, http://host:port, what its member is.
func (c *Client) Node(ctx context.Context, base string) (Node, error) {
	var n Node
	if err := c.get(ctx, base, "/patroni", &n); err != nil {
		return Node{}, fmt.Errorf("ask member: %w", err)
	}
	n.Role = normalRole(n.Role)
	return n, nil
}

// Cluster asks the Patroni at base for all members.
func (c *Client) Cluster(ctx context.Context, base string) (Cluster, error) {
	var cl Cluster
	if err := c.get(ctx, base, "/cluster", &cl); err != nil {
		return Cluster{}, fmt.Errorf("ask for the members: %w", err)
	}
	for i := range cl.Members {
		m := &cl.Members[i]
		if u, err := url.Parse(m.URL); err == nil && u.Host != "" {
			m.URL = u.Scheme + "://" + u.Host
		}
	}
	return cl, nil
}

// Dynamic asks the Patroni at base for the dynamic configuration, which all members share. ErrNoConfig when there is none.
func (c *Client) Dynamic(ctx context.Context, base string) (map[string]any, error) {
	var d map[string]any
	err := c.get(ctx, base, "/config", &d)
	var se *StatusError
	if errors.As(err, &se) && se.Code == http.StatusBadGateway {
		err = ErrNoConfig
	}
	if err != nil {
		return nil, fmt.Errorf("read dynamic configuration: %w", err)
	}
	return d, nil
}

// Patch merges change into the dynamic configuration: maps are merged, a nil deletes. It gives the whole as it is afterwards.
func (c *Client) Patch(ctx context.Context, base string, change map[string]any) (map[string]any, error) {
	var d map[string]any
	if _, err := c.send(ctx, http.MethodPatch, base, "/config", change, &d); err != nil {
		return nil, fmt.Errorf("change dynamic configuration: %w", err)
	}
	return d, nil
}

// Restart restarts the PostgreSQL of the member at base, and waits for it as long as primary_start_timeout says. With onlyPending a member
// that needs none is left alone (Patroni answers 503 then).
func (c *Client) Restart(ctx context.Context, base string, onlyPending bool) error {
	what := map[string]any{}
	if onlyPending {
		what["restart_pending"] = true
	}
	if _, err := c.send(ctx, http.MethodPost, base, "/restart", what, nil); err != nil {
		return fmt.Errorf("restart PostgreSQL: %w", err)
	}
	return nil
}

// Switchover makes candidate the primary in place of leader, and waits for it; with an empty candidate Patroni chooses. It gives
// Patroni's words.
func (c *Client) Switchover(ctx context.Context, base, leader, candidate string) (string, error) {
	what := map[string]any{"leader": leader}
	if candidate != "" {
		what["candidate"] = candidate
	}
	says, err := c.send(ctx, http.MethodPost, base, "/switchover", what, nil)
	if err != nil {
		return "", fmt.Errorf("switch over: %w", err)
	}
	return says, nil
}

func (c *Client) get(ctx context.Context, base, path string, into any) error {
	_, err := c.send(ctx, http.MethodGet, base, path, nil, into)
	return err
}

// send asks, and decodes the answer into into unless that is nil. It gives the answer's first line.
func (c *Client) send(ctx context.Context, method, base, path string, what, into any) (string, error) {
	var body io.Reader
	if what != nil {
		b, err := json.Marshal(what)
		if err != nil {
			return "", err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return "", err
	}
	if what != nil {
		req.Header.Set("Content-Type", "application/json")
		if c.c.Username != "" {
			req.SetBasicAuth(c.c.Username, c.c.Password)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", shorter(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("%s%s: %w", base, path, err)
	}
	says := firstLine(b)
	if resp.StatusCode/100 != 2 { // /patroni answers 200 whatever its member is
		return says, fmt.Errorf("%s%s: %w", base, path, &StatusError{resp.StatusCode, says})
	}
	if into == nil {
		return says, nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return says, fmt.Errorf("%s%s: this is no Patroni: %w", base, path, err)
	}
	return says, nil
}

// firstLine shortens what Patroni says to what fits into a message.
func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return s
}
