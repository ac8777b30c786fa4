// Package consul is the driver for Consul's key/value store.
//
// Below the path of the Patroni scope, for instance service/batman/, it reads everything and
// writes two kinds of keys, never Patroni's:
//
//	service/batman/walbaton/baton              {"holder":"n1","ttl":15}
//	service/batman/walbaton/records/<member>   what the sidecar announces, member path-escaped
//
// Each is locked by a session of its own with the behavior "delete", so that they vanish when
// their sidecar does. The token of a lease is the id of its session. The epoch of a baton, and
// the Token of a node, is the key's create index: every claim creates the key anew, so no raft
// index is an epoch twice. (The lock index begins again at 1 when a key was deleted.)
//
// # Sessions
//
// A session lives for the TTL of its lease, but not less than the servers' session_ttl_min
// (10 s unless somebody lowered it): a shorter TTL is raised to it. Consul promises that a
// session lives for its TTL, and in fact ends it after two. So promise 3 of package dcs is a
// lower bound here: the baton of a sidecar that died is free after one to two TTLs.
//
// After a session has ended nobody gets its locks for the lock delay: 15 s if nothing is said,
// so that a holder can notice. Here it is a millisecond, the shortest that there is, as
// Patroni has it. Our holder has noticed before: its term ends, by its own clock, before the
// TTL does. All that a longer delay would give is a free baton that cannot be claimed.
//
// Sessions have no health checks (serfHealth is the default). A network that loses gossip must
// not end a lease early; the TTL is for that. What still ends one early is somebody's word:
// the session is destroyed, the key deleted, or the agent's node taken out of the catalog. An
// agent does the last by itself when it is stopped and leave_on_terminate is on (the default of
// clients). Then Patroni's leader key is gone as well, and until the holder's next renewal, or
// the end of its term, two nodes may ship. What they put is put only once, and before a batch
// of deletes the term is read back.
//
// # Requests
//
// All requests go to one address, the agent that Patroni asks, over HTTP/1.1: a connection that
// died holds up one request, whose context ends it. A renewal may be answered by a leader that
// has been replaced and has not noticed; the read of the key that follows it cannot.
//
// Where Patroni's configuration has no token, CONSUL_HTTP_TOKEN and CONSUL_HTTP_TOKEN_FILE
// count, as for Consul's own tools.
package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Config says how to reach a scope.
type Config struct {
	Address    string // host:port of the agent
	Scheme     string // "http" (default) or "https"
	Prefix     string // path of the scope: no "/" in front, one at the end
	Token      string
	Datacenter string // "": the agent's
	CACert     string // PEM file; without it the system's authorities
	Cert, Key  string // PEM files; the key may be in Cert
	Insecure   bool   // any certificate is good, unless there is a CACert
}

// Our keys below the scope.
const (
	ours     = "walbaton/"
	batonKey = ours + "baton"
	records  = ours + "records/"
)

const dialTimeout = 5 * time.Second // connect, and then agree on TLS, within the context of the call

// Client is a dcs.DCS.
type Client struct {
	api       *api.Client
	http      *http.Client
	prefix    string
	name      string
	sessions  sessions
	claims    claims
	announced announced
}

var _ dcs.DCS = (*Client)(nil)

// New checks the configuration and reads the certificates; it does not connect.
func New(c Config) (*Client, error) {
	if strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") || len(c.Prefix) < 2 {
		return nil, fmt.Errorf("open consul: prefix %q must end, and not begin, with /", c.Prefix)
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return nil, fmt.Errorf("open consul: address %q is not host:port", c.Address)
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 8, // a request of each kind, and some to spare
		IdleConnTimeout:     90 * time.Second,
	}
	switch c.Scheme {
	case "", "http":
		c.Scheme = "http"
	case "https":
		t, err := c.files().Config()
		if err != nil {
			return nil, fmt.Errorf("open consul: %w", err)
		}
		transport.TLSClientConfig = t
	default:
		return nil, fmt.Errorf("open consul: scheme %q is neither http nor https", c.Scheme)
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this address
	}
	a, err := api.NewClient(&api.Config{Address: c.Address, Scheme: c.Scheme, HttpClient: client, Token: c.Token, Datacenter: c.Datacenter})
	if err != nil {
		return nil, fmt.Errorf("open consul: %w", err)
	}
	return &Client{
		api:       a,
		http:      client,
		prefix:    c.Prefix,
		name:      "consul " + c.Address + "/" + c.Prefix,
		announced: announced{sem: make(chan struct{}, 1)},
	}, nil
}

func (c Config) files() dcs.TLSFiles {
	return dcs.TLSFiles{CACert: c.CACert, Cert: c.Cert, Key: c.Key, Insecure: c.Insecure && c.CACert == ""}
}

func (c *Client) String() string { return c.name }

// Close gives the connections back. Sessions run out by themselves.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Read is one consistent listing of the scope: the leader asks its followers whether it still
// is the leader before it answers.
func (c *Client) Read(ctx context.Context) (dcs.Reading, error) {
	before := c.announced.count()
	pairs, meta, err := c.api.KV().List(c.prefix, consistent(ctx))
	if err == nil && meta.ResultsFilteredByACLs { // what a token may not read, Consul leaves out
		err = c.unread()
	}
	if err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", because(ctx, err, c.readRule()))
	}
	r := c.reading(pairs)
	r.Revision = strconv.FormatUint(meta.LastIndex, 10)
	c.announced.seen(r, before)
	return r, nil
}

func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

// reading sorts the keys of the scope. One of ours that no session has locked is left over
// from somebody's hand: nobody holds it, and nobody lives by it.
func (c *Client) reading(pairs api.KVPairs) dcs.Reading {
	r := dcs.Reading{Nodes: map[string]dcs.Node{}, Records: map[string]dcs.Node{}}
	for _, kv := range pairs {
		key := strings.TrimPrefix(kv.Key, c.prefix)
		member, isRecord := strings.CutPrefix(key, records)
		switch {
		case key == batonKey:
			r.Baton = batonOf(kv)
		case isRecord:
			if name, err := url.PathUnescape(member); err == nil && name != "" && kv.Session != "" {
				r.Records[name] = node(kv)
			}
		case strings.HasPrefix(key, ours) || key == "":
		default:
			r.Nodes[key] = node(kv)
		}
	}
	return r
}

func node(kv *api.KVPair) dcs.Node {
	return dcs.Node{Value: string(kv.Value), Version: kv.ModifyIndex, Token: kv.CreateIndex}
}

// change is one transaction. The answer of a transaction whose conditions did not hold is a
// *conflictError; needed is the permission that it takes.
func (c *Client) change(ctx context.Context, needed string, ops ...*api.KVTxnOp) ([]*api.KVPair, error) {
	ok, resp, _, err := c.api.KV().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil:
		return nil, because(ctx, err, needed)
	case ok:
		return resp.Results, nil
	case len(resp.Errors) == 0:
		return nil, errors.New("consul refused a transaction without a word")
	}
	return nil, because(ctx, &conflictError{resp.Errors[0].What}, needed)
}

// conflictError is what Consul says of a transaction that it did not carry out.
type conflictError struct{ what string }

func (e *conflictError) Error() string { return e.what }

func isConflict(err error) bool { return errors.As(err, new(*conflictError)) }

// pair reads one key that may be somebody else's; nil when it is not there.
func (c *Client) pair(ctx context.Context, below, key string) (*api.KVPair, error) {
	// A listing, because a key with a percent sign cannot be asked for by its name.
	pairs, meta, err := c.api.KV().List(below, consistent(ctx))
	if err == nil && meta.ResultsFilteredByACLs {
		err = c.unread()
	}
	if err != nil {
		return nil, because(ctx, err, c.readRule())
	}
	for _, kv := range pairs {
		if kv.Key == key {
			return kv, nil
		}
	}
	return nil, nil
}
