// Package zookeeper is the driver for Apache ZooKeeper.
//
// Patroni's znodes are read below the path of its scope, for instance /service/batman/. Ours
// live below a root of their own, because Patroni's set_acls may close its directories to
// others, and because Patroni before 3.2 runs its loop on every node when a child of its
// directory comes or goes:
//
//	/walbaton/service/batman/baton             {"holder":"n1","ttl":15}
//	/walbaton/service/batman/records/<member>  what the sidecar announces, member path-escaped
//
// Both are ephemeral, each in a session of its own, so that they vanish when their sidecar
// does, and the baton's end leaves the record alone. The epoch of a baton, and the Token of a
// node, is the czxid, its Version the mzxid. A baton is ours if its owner is our session.
//
// # Leases
//
// A session lives as long as its client pings, and the library pings by itself. So a lease has a
// timer here, too: when its time has passed since the last claim or extension that was answered,
// the session is closed, and the server removes the znode. A sidecar that is frozen (SIGSTOP)
// pings no more, and the server ends the session. One that is cut off from the server cannot
// close it: the session then ends one TTL after the last ping, at most two after the last
// extension. A session that has ended is never opened anew under the same lease.
//
// An extension is a transaction that checks our znode and changes nothing (check-version in a
// multi): the quorum has to carry it out, in our session, which must be alive for that; and nobody's
// watch fires, as it would for a set. A server may hear of the extension half a tick before the
// leader does that counts the sessions' time; should it die in between, the lease ends up to half a
// tick (1 s) early, so the margin of the election must be wider. The server chooses the session's
// time between 2 and 20 ticks: Claim returns what holds, and refuses what is less than was asked.
//
// # Readings
//
// ZooKeeper answers reads from memory of whichever server one is connected to, and even sync may
// be answered by a leader that has been replaced. So Read begins with a transaction (a check, as
// above) and reads in the same session after it: it sees all that was written before Read was called.
// It keeps what it has read, with a watch on each znode. A server sends the event of a change before
// any answer that shows this or a later change; so when an answer has come and no event, all that
// was read before still held when it was answered: one revision. A quiet scope costs one small
// transaction for each reading. Patroni's status (and its forerunner optime/leader) is read last and
// without a watch: it changes with every loop, and must not wake anybody.
//
// The library has no contexts: a call whose context ends cuts the connection, which ends
// everything under way on it. Where there are several hosts, a request that gets no answer for a
// second goes to the next one in the same way; the session goes along.
package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Config says how to reach a scope.
type Config struct {
	Hosts  []string // host:port
	Chroot string   // "" or a path that begins with "/": all paths are below it
	Prefix string   // path of Patroni's scope: begins and ends with "/"
	TLS    *TLS     // nil: plain text
	Auth   []Auth   // what we say who we are
	ACL    []ACL    // of the znodes that we make; none: everybody may do everything, as with Patroni
}

// Auth is one addauth: for the scheme digest the credential is user:password.
type Auth struct{ Scheme, Credential string }

// ACL is what those may do whom the scheme knows by this ID.
type ACL struct {
	Scheme, ID  string
	Permissions Permissions
}

// Permissions are ZooKeeper's five, as bits.
type Permissions int32

// The bits are ZooKeeper's own.
const (
	Read   Permissions = zk.PermRead
	Write  Permissions = zk.PermWrite
	Create Permissions = zk.PermCreate
	Delete Permissions = zk.PermDelete
	Admin  Permissions = zk.PermAdmin
)

const root = "/walbaton"

// Client is a dcs.DCS.
type Client struct {
	hosts *hosts
	tls   *tls.Config
	auth  []Auth
	acl   []zk.ACL
	scope string // Patroni's directory, without a slash at the end
	dir   string // ours
	name  string

	claims    claims
	announced announced
	reading   reading

	mu       sync.Mutex
	closed   bool
	sessions map[*session]struct{}
	running  sync.WaitGroup // their goroutines
}

var _ dcs.DCS = (*Client)(nil)

// New checks the configuration and reads the certificates; it does not connect.
func New(c Config) (*Client, error) {
	if !strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") || len(c.Prefix) < 3 {
		return nil, fmt.Errorf("open zookeeper: prefix %q must begin and end with /", c.Prefix)
	}
	chroot := strings.TrimRight(c.Chroot, "/")
	if chroot != "" && !strings.HasPrefix(chroot, "/") {
		return nil, fmt.Errorf("open zookeeper: chroot %q must begin with /", c.Chroot)
	}
	if len(c.Hosts) == 0 {
		return nil, errors.New("open zookeeper: no hosts")
	}
	for _, h := range c.Hosts {
		if host, port, err := net.SplitHostPort(h); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("open zookeeper: host %q is not host:port", h)
		}
	}
	acl := zk.WorldACL(zk.PermAll)
	if len(c.ACL) > 0 {
		acl = nil
	}
	for _, a := range c.ACL {
		acl = append(acl, zk.ACL{Perms: int32(a.Permissions), Scheme: a.Scheme, ID: a.ID})
	}
	d := &Client{
		hosts:     &hosts{all: c.Hosts},
		auth:      c.Auth,
		acl:       acl,
		scope:     chroot + strings.TrimSuffix(c.Prefix, "/"),
		dir:       chroot + root + strings.TrimSuffix(c.Prefix, "/"),
		name:      "zookeeper " + strings.Join(c.Hosts, ",") + chroot + c.Prefix,
		claims:    claims{sem: make(chan struct{}, 1)},
		announced: announced{sem: make(chan struct{}, 1)},
		reading:   reading{sem: make(chan struct{}, 1)},
		sessions:  map[*session]struct{}{},
	}
	if c.TLS != nil {
		var err error
		if d.tls, err = c.TLS.config(); err != nil {
			return nil, fmt.Errorf("open zookeeper: %w", err)
		}
	}
	return d, nil
}

func (c *Client) String() string { return c.name }

func (c *Client) baton() string   { return c.dir + "/baton" }
func (c *Client) records() string { return c.dir + "/records" }

// Close ends all sessions, and with them the baton and the record. It returns when every goroutine has ended.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	for s := range c.sessions {
		s.end(errClosed)
	}
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

var errClosed = errors.New("client is closed")

// lock takes a mutex that ends with a context.
func lock(ctx context.Context, sem chan struct{}) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
