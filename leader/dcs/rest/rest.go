// Package rest reads a Patroni cluster through Patroni's REST API, where the DCS itself cannot
// be read: there are no credentials for it, or it lives inside the Patroni processes (raft).
//
// It is a reader only. There are no records of other sidecars and no baton: what Claim and
// Announce keep is this process's own (package static), so that one node's work runs as it does
// everywhere. A running primary ships, and put-if-absent in the archive is all that stands between two
// of them.
//
// What it reads is what a Patroni says, put together as if it came from the DCS:
//
//	leader          the member whose role in /cluster is leader or standby_leader
//	members/<name>  from /cluster; of the Patroni asked, role, timeline and LSN are /patroni's
//	initialize      database_system_identifier in /patroni
//	config          /config
//	history         /history
//
// It is not linearizable: /cluster reads the DCS, or a copy of it that a watch keeps; /config
// and /history are up to one loop old (patroni/api.py of 2.1 to 4.1). So nothing may rest on it that a
// stale answer could spoil: restores hide no history by it.
//
// The Patroni beside us is asked first. When it does not answer, cannot read the DCS, or has not
// seen it for a ttl, the members that it named last are asked.
package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/dcs/static"
)

// Config says whom to ask, and how.
type Config struct {
	Member string // our own name
	Scope  string // the cluster's name, as Patroni has it; an API of another cluster is refused
	URL    string // of the REST API of our own Patroni: http://host:port
	CACert string // file; "": the system's authorities. Only for https, as what follows

	Cert     string // file, where Patroni asks clients for a certificate (verify_client: required)
	Key      string // file; may be in Cert
	Insecure bool   // accept any server certificate

	Poll time.Duration // between the questions of Wait; 2 s
}

const (
	idle     = 10 * time.Second // how long Wait waits for a change
	patience = 2 * time.Second  // for our own Patroni, before others are asked; its own limit for SQL is the same
)

// DCS is a dcs.DCS that reads Patroni's REST API.
type DCS struct {
	*static.DCS // record and baton

	c    Config
	http *http.Client

	mu     sync.Mutex
	others []string // URLs of the other members, by the last answer
	known  map[string]dcs.Node
	writes uint64
}

// New makes the reader. It asks nobody yet.
func New(c Config) (*DCS, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("open REST API of Patroni: %q is not http://host:port", c.URL)
	}
	if c.Poll <= 0 {
		c.Poll = 2 * time.Second
	}
	t, err := dcs.TLSFiles{CACert: c.CACert, Cert: c.Cert, Key: c.Key, Insecure: c.Insecure}.Config()
	if err != nil {
		return nil, fmt.Errorf("open REST API of Patroni: %w", err)
	}
	return &DCS{
		DCS: static.New(c.Member, ""), c: c, known: map[string]dcs.Node{},
		http: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: t, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: 30 * time.Second}, // no proxy: members are neighbours
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close ends idle connections.
func (d *DCS) Close() error {
	d.http.CloseIdleConnections()
	return nil
}

func (d *DCS) String() string { return "Patroni's REST API at " + d.c.URL + ", scope " + d.c.Scope }

// Read asks our own Patroni, or else the others.
func (d *DCS) Read(ctx context.Context) (dcs.Reading, error) {
	r, err := d.DCS.Read(ctx)
	if err != nil {
		return dcs.Reading{}, err
	}
	s, err := d.look(ctx)
	if err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	r.Nodes, r.Revision = d.remember(s.nodes()), s.cluster.revision()
	return r, nil
}

// look gives what our own Patroni says of the cluster, else what the first of the others does.
func (d *DCS) look(ctx context.Context) (said, error) {
	mine, cancel := context.WithTimeout(ctx, patience)
	s, err := d.ask(mine, d.c.URL)
	cancel()
	if err == nil {
		d.meet(s.cluster)
		return s, nil
	}
	if ctx.Err() != nil || errors.Is(err, errOtherCluster) {
		return said{}, err
	}
	own := s.status // it may know about itself though it cannot read the DCS
	if s, ok := d.askOthers(ctx); ok {
		d.meet(s.cluster)
		if own.State != "" {
			own.SystemID = cmp.Or(own.SystemID, s.status.SystemID)
			s.status, s.asked = own, d.c.Member
		}
		return s, nil
	}
	return said{}, err
}

// askOthers asks all others at once, and gives the first answer.
func (d *DCS) askOthers(ctx context.Context) (said, bool) {
	d.mu.Lock()
	others := d.others
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan said, len(others))
	var asking sync.WaitGroup
	for _, u := range others {
		asking.Go(func() {
			if s, err := d.ask(ctx, u); err == nil {
				answers <- s
			}
		})
	}
	go func() {
		asking.Wait()
		close(answers)
	}()
	s, ok := <-answers
	cancel()
	for range answers { // until all have returned
	}
	return s, ok
}

// meet remembers where the other members answer.
func (d *DCS) meet(c cluster) {
	var others []string
	for _, m := range c.Members {
		if u, err := url.Parse(m.APIURL); m.Name != d.c.Member && err == nil && u.Host != "" {
			others = append(others, u.Scheme+"://"+u.Host)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.others = others
}

// remember gives each key a version and a token, as far as readings can tell: another value is a
// write, and a key that was gone, or a leader of another name, is a creation.
func (d *DCS) remember(values map[string]string) map[string]dcs.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	nodes := make(map[string]dcs.Node, len(values))
	for key, value := range values {
		n, ok := d.known[key]
		if !ok || n.Value != value {
			d.writes++
			if !ok || key == "leader" {
				n.Token = d.writes
			}
			n.Value, n.Version = value, d.writes
		}
		nodes[key] = n
	}
	d.known = nodes
	return nodes
}

// Wait asks for /cluster every Config.Poll, and returns when it differs in more than LSNs, or
// after 10 s.
func (d *DCS) Wait(ctx context.Context, since dcs.Reading) error {
	end := time.Now().Add(idle)
	for {
		if c, err := d.lookAround(ctx); err == nil && c.revision() != since.Revision {
			return ctx.Err()
		}
		t := time.NewTimer(d.c.Poll)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for a change: %w", ctx.Err())
		case <-t.C:
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// lookAround is look for what Wait needs.
func (d *DCS) lookAround(ctx context.Context) (cluster, error) {
	mine, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var c cluster
	if err := d.get(mine, d.c.URL, "/cluster", &c); err == nil {
		return c, nil
	}
	s, ok := d.askOthers(ctx)
	if !ok {
		return cluster{}, errors.New("nobody answers")
	}
	return s.cluster, nil
}

// errOtherCluster means that the API is not of the cluster that we were configured for.
var errOtherCluster = errors.New("it belongs to another cluster")

// ask puts together what one Patroni says. On error status holds what it said of itself, if anything.
func (d *DCS) ask(ctx context.Context, base string) (said, error) {
	var s said
	seen, err := d.getDated(ctx, base, "/patroni", &s.status)
	if err != nil {
		return said{}, err
	}
	if got := s.status.Patroni.Scope; got != "" && got != d.c.Scope {
		return said{}, fmt.Errorf("%s: %w: %q, not %q", base, errOtherCluster, got, d.c.Scope)
	}
	if s.asked = s.status.Patroni.Name; base == d.c.URL {
		s.asked = d.c.Member // older Patroni do not say it
	}
	if err := d.get(ctx, base, "/cluster", &s.cluster); err != nil {
		return s, err
	}
	if err := d.get(ctx, base, "/config", &s.config); err != nil && !errors.Is(err, errAbsent) {
		return s, err
	}
	if age := seen.Sub(time.Unix(int64(s.status.DCSLastSeen), 0)); s.status.DCSLastSeen > 0 && age > s.ttl() {
		return s, fmt.Errorf("%s: this Patroni has not seen the DCS for %v", base, age.Round(time.Second))
	}
	err = d.get(ctx, base, "/history", &s.history)
	return s, err
}

func (s said) ttl() time.Duration {
	var c struct {
		TTL float64 `json:"ttl"`
	}
	if json.Unmarshal(s.config, &c) != nil || c.TTL <= 0 {
		c.TTL = 30 // Patroni's default
	}
	return time.Duration(c.TTL * float64(time.Second))
}

// trim shortens what a server said where JSON was expected.
func trim(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return s
}
