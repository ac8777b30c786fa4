// Package etcd is the driver for etcd's v3 API, which Patroni calls etcd3.
//
// Below the path of the Patroni scope, for instance /service/batman/, it reads everything
// and writes two kinds of keys, never Patroni's:
//
//	/service/batman/walbaton/baton           {"holder":"n1","ttl":15,"token":"..."}
//	/service/batman/walbaton/records/<member>  what the sidecar announces, member path-escaped
//
// Each hangs on an etcd lease of its own, so that they vanish when their sidecar does. The
// epoch of a baton, and the Token of a node, is the key's create revision.
//
// One client serves all endpoints that are configured. The member list is never asked for
// (etcd 3.4.42, 3.5.28 and 3.6.9 refuse it without root), so endpoints do not follow the
// cluster's membership. Where there are several, a request that gets no answer for a second
// goes to the next one; a watch on a server that hangs is moved by gRPC's keepalive, after
// 13 s.
//
// With user and password every new stream logs in, which costs the server a bcrypt
// round and a raft write. So leases are renewed over one stream each that is kept, and one
// watch outlives many calls of Wait. New does not connect: the first call does, and the
// next one tries again when it could not.
//
// A renewal may be answered by an etcd leader that has been replaced and has not noticed,
// which it does within two election timeouts (2 s by default); the margin of the election
// must be wider.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Config says how to reach a scope.
type Config struct {
	Endpoints []string // URLs, http or https
	Prefix    string   // path of the scope: begins and ends with "/"
	Username  string
	Password  string
	CACert    string // PEM files; without CACert the system's authorities
	Cert, Key string
}

// Our keys below the scope.
const (
	ours     = "walbaton/"
	batonKey = ours + "baton"
	records  = ours + "records/"
)

const (
	dialTimeout      = 5 * time.Second  // log in, within the context of the call
	keepaliveTime    = 10 * time.Second // gRPC does not allow less
	keepaliveTimeout = 3 * time.Second
	reconnectWithin  = 2 * time.Second
)

// Client is a dcs.DCS.
type Client struct {
	config clientv3.Config
	prefix string
	name   string

	sem       chan struct{} // guards the two below; making a client may take a while
	client    *clientv3.Client
	closed    bool
	claims    claims
	announced announced
	watches   watches
}

var _ dcs.DCS = (*Client)(nil)

// New checks the configuration and reads the certificates; it does not connect.
func New(c Config) (*Client, error) {
	if !strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") || len(c.Prefix) < 3 {
		return nil, fmt.Errorf("open etcd: prefix %q must begin and end with /", c.Prefix)
	}
	if len(c.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoints")
	}
	secure := 0
	names := make([]string, len(c.Endpoints))
	for i, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("open etcd: endpoint %q is not an http or https URL", e)
		}
		if u.User != nil {
			return nil, fmt.Errorf("open etcd: endpoint %s: user and password have their own settings", u.Redacted())
		}
		if u.Scheme == "https" {
			secure++
		}
		names[i] = u.Host
	}
	if secure != 0 && secure != len(c.Endpoints) {
		return nil, errors.New("open etcd: endpoints mix http and https")
	}
	cfg := clientv3.Config{
		Endpoints:            c.Endpoints,
		Username:             c.Username,
		Password:             c.Password,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepaliveTime,
		DialKeepAliveTimeout: keepaliveTimeout,
		Logger:               zap.NewNop(), // errors come back from the calls
	}
	// gRPC by itself would try an etcd that comes back only after up to two minutes.
	again := backoff.DefaultConfig
	again.MaxDelay = reconnectWithin
	cfg.DialOptions = []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: dialTimeout})}
	if len(c.Endpoints) > 1 {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(goRound))
	}
	if secure > 0 {
		t, err := c.files().Config()
		if err != nil {
			return nil, fmt.Errorf("open etcd: %w", err)
		}
		cfg.TLS = t
	}
	return &Client{
		config:    cfg,
		prefix:    c.Prefix,
		name:      "etcd " + strings.Join(names, ",") + c.Prefix,
		sem:       make(chan struct{}, 1),
		claims:    claims{keeper: newKeeper(len(c.Endpoints))},
		announced: announced{sem: make(chan struct{}, 1), keeper: newKeeper(len(c.Endpoints))},
	}, nil
}

// goRound gives a request that is not answered another chance on the next endpoint. All
// that this package sends may be carried out twice: transactions have conditions, and a
// lease that is granted twice runs out.
func goRound(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return attempts(ctx, func(ctx context.Context) error { return invoke(ctx, method, req, reply, cc, opts...) })
}

// attempts calls f with contexts of 1 s, 2 s, 4 s, ... until one is enough or ctx ends. They
// grow, so that a slow server is not taken for a hung one for ever.
func attempts(ctx context.Context, f func(ctx context.Context) error) error {
	for d := time.Second; ; d *= 2 {
		one, cancel := context.WithTimeout(ctx, d)
		err := f(one)
		late := one.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !late {
			return err
		}
	}
}

func (c Config) files() dcs.TLSFiles { return dcs.TLSFiles{CACert: c.CACert, Cert: c.Cert, Key: c.Key} }

func (c *Client) String() string { return c.name }

// Close ends all streams. Leases run out by themselves.
func (c *Client) Close() error {
	c.sem <- struct{}{}
	defer func() { <-c.sem }()
	c.closed = true
	if c.client == nil {
		return nil
	}
	c.watches.close()
	c.claims.keeper.close()
	c.announced.keeper.close()
	err := c.client.Close()
	c.client = nil
	return err
}

// connect makes the client. With user and password that logs in, so it can fail, and must
// end with ctx.
func (c *Client) connect(ctx context.Context) (*clientv3.Client, error) {
	select {
	case c.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.sem }()
	switch {
	case c.closed:
		return nil, errors.New("connect: client is closed")
	case c.client != nil:
		return c.client, nil
	}
	base, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	cfg := c.config
	cfg.Context = base
	client, err := clientv3.New(cfg)
	if !stop() && err == nil {
		err = errors.Join(ctx.Err(), client.Close())
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	c.client = client
	return client, nil
}

// Read is one linearizable range over the scope.
func (c *Client) Read(ctx context.Context) (dcs.Reading, error) {
	client, err := c.connect(ctx)
	if err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	resp, err := client.Get(ctx, c.prefix, clientv3.WithPrefix())
	if err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", denied(ended(ctx, err), "read", c.prefix))
	}
	r := dcs.Reading{
		Nodes:    map[string]dcs.Node{},
		Records:  map[string]dcs.Node{},
		Revision: strconv.FormatInt(resp.Header.Revision, 10),
	}
	for _, kv := range resp.Kvs {
		key := string(kv.Key[len(c.prefix):])
		member, isRecord := strings.CutPrefix(key, records)
		switch {
		case key == batonKey:
			r.Baton = batonOf(kv)
		case isRecord:
			if name, err := url.PathUnescape(member); err == nil && name != "" {
				r.Records[name] = node(kv)
			}
		case strings.HasPrefix(key, ours) || key == "":
		default:
			r.Nodes[key] = node(kv)
		}
	}
	c.announced.seen(r, resp.Header.Revision)
	return r, nil
}

func node(kv *mvccpb.KeyValue) dcs.Node {
	return dcs.Node{Value: string(kv.Value), Version: uint64(kv.ModRevision), Token: uint64(kv.CreateRevision)}
}

// denied says which permission the user's role lacks; it is fs.ErrPermission to errors.Is. docs/dcs.md has all of them.
func denied(err error, permission, key string) error {
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	return fmt.Errorf("%w: the role lacks %s on %s", fs.ErrPermission, permission, key)
}

// ended prefers the context's own error to gRPC's words for it.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
