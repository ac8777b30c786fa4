// Package kubernetes is the driver for Patroni's Kubernetes mode, where the API server is the DCS.
//
// Patroni keeps its keys in annotations (patroni/dcs/kubernetes.py), and nothing of it is ever
// written here:
//
//	Endpoints <scope>, or ConfigMap <scope>-leader        leader, status (optime, slots), failsafe
//	<scope>-config, <scope>-sync, <scope>-failover        of the same kind: config, initialize, history; sync; failover
//	Pods with Patroni's labels                            members/<pod>: the annotation "status"
//
// With Citus each name has the group behind the scope, and the label citus-group. A Pod on which
// Patroni has not written yet is no member.
//
// What we write are Lease objects (coordination.k8s.io) in the same namespace, with the label
// walbaton/scope, and never with Patroni's labels:
//
//	<scope>-walbaton            the baton: holder in the spec, epoch and token in annotations
//	<scope>-walbaton-<member>   a sidecar's record in the annotation walbaton/record
//
// They are emptied, not deleted, so no right to delete is needed.
//
// # Time
//
// The API server ends nothing: a dead leader's annotations and a dead holder's Lease stay as they
// are. So, as Patroni itself does, each client remembers by its own monotonic clock since when an
// object has not changed (type seen), and takes it for ended when that is as long as its
// duration. Clocks are never compared. A client that starts takes everything for alive and waits
// the whole duration.
//
//	holder                  sent the extension           its lease ends, by its own clock
//	                        |---------- duration -------->|
//	server                     handled it
//	claimant                        saw it                     may claim
//	                                |---------- duration ------>|
//
// The holder's end comes first, whatever the network does: it counts from when it sent what was
// answered, a claimant from when it saw the answer's effect. A claim and an extension carry the
// resourceVersion of what they replace, so that one that comes late finds a Conflict; an extension
// whose answer comes after the holder's end is lost, and is taken back.
//
// # One revision
//
// A reading is three lists, each linearizable (no resourceVersion in the request): our Leases and
// the Pods first, then the objects with the leader. Each list is of one revision, but not all three
// of the same: they could be only if all resources shared one etcd, which large installations do
// not. The order makes that harmless. The leader is the newest part of a reading, so the rest can
// only lag behind it, by some milliseconds, as members and records always do.
//
// A reading costs the API server three lists of a few objects, an extension or an unchanged record one
// update; three watches last for many calls of Wait. What is renewed in every loop (Patroni's renewTime,
// optime and slots, our own renewals) ends no Wait.
//
// # Epochs
//
// An epoch is the revision of the list in which a claim found the baton free (or one more than the
// former epoch, if an etcd was restored). The former holder's claim was written before, with a list
// from before that; so epochs grow, also when somebody deletes the Lease in between.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Config says how to reach a scope.
type Config struct {
	Access     Access
	Namespace  string            // of Patroni's objects
	Scope      string            // name of the cluster, as in Patroni's labels and object names
	Group      *int              // Citus group
	Labels     map[string]string // Patroni's labels besides the two below
	ScopeLabel string            // the label whose value is the scope
	Endpoints  bool              // Patroni's use_endpoints; otherwise ConfigMaps
}

// Client is a dcs.DCS.
type Client struct {
	reader  *api // lists and watches: a slow list must not cost the connection of a renewal
	writer  *api
	names   names
	name    string
	seen    seen
	baton   baton
	record  record
	watches watches
}

var _ dcs.DCS = (*Client)(nil)

// New checks the configuration and reads the files that it names; it does not connect.
func New(c Config) (*Client, error) {
	if c.Namespace == "" || c.Scope == "" || c.ScopeLabel == "" {
		return nil, fmt.Errorf("open kubernetes: namespace %q, scope %q, scope label %q: all are needed", c.Namespace, c.Scope, c.ScopeLabel)
	}
	n := namesOf(c)
	reader, err := newAPI(c.Access, c.Namespace, n)
	if err != nil {
		return nil, fmt.Errorf("open kubernetes: %w", err)
	}
	writer, err := newAPI(c.Access, c.Namespace, n)
	if err != nil {
		return nil, fmt.Errorf("open kubernetes: %w", err)
	}
	return &Client{
		reader: reader,
		writer: writer,
		names:  n,
		name:   fmt.Sprintf("kubernetes %s/%s/%s", reader.host, c.Namespace, n.base),
		record: record{sem: make(chan struct{}, 1)},
	}, nil
}

func (c *Client) String() string { return c.name }

// Close ends the watches. Leases run out by themselves.
func (c *Client) Close() error {
	c.watches.close()
	c.reader.reset()
	c.writer.reset()
	return nil
}

// The three lists of a reading, in the order of Reading.Revision.
const (
	leases = iota
	pods
	kinds // Endpoints or ConfigMaps
	lists
)

// revisions are those of the three lists.
type revisions [lists]uint64

func (r revisions) String() string { return fmt.Sprintf("%d/%d/%d", r[leases], r[pods], r[kinds]) }

func parseRevisions(s string) (r revisions, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) != lists {
		return r, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return r, false
		}
		r[i] = n
	}
	return r, true
}

// Read lists Leases and Pods, and then the objects with the leader.
func (c *Client) Read(ctx context.Context) (dcs.Reading, error) {
	var found [lists][]metav1.Object
	var rev revisions
	var errs [lists]error
	var both sync.WaitGroup
	for _, i := range []int{leases, pods} {
		both.Go(func() { found[i], rev[i], errs[i] = c.reader.list(ctx, i) })
	}
	both.Wait()
	if err := errors.Join(errs[leases], errs[pods]); err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	if found[kinds], rev[kinds], errs[kinds] = c.reader.list(ctx, kinds); errs[kinds] != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", errs[kinds])
	}
	r := dcs.Reading{Nodes: map[string]dcs.Node{}, Records: map[string]dcs.Node{}, Revision: rev.String()}
	present := map[string]bool{}
	for i, objects := range found {
		for _, o := range objects {
			c.add(&r, i, o)
			present[sightKey(i, o.GetName())] = true
		}
	}
	c.seen.keep(present)
	return r, nil
}

// add puts into r what an object says.
func (c *Client) add(r *dcs.Reading, list int, o metav1.Object) {
	if list != leases {
		maps.Copy(r.Nodes, c.nodesOf(list, o))
		return
	}
	l := leaseOf(o)
	switch {
	case l == nil:
	case l.Name == c.names.baton:
		r.Baton = c.holding(l)
	default:
		if member, n, ok := c.recordOf(l); ok {
			r.Records[member] = n
		}
	}
}

// names are the objects of one scope.
type names struct {
	base     string // <scope>, or <scope>-<group>
	kind     string // endpoints or configmaps
	leader   string
	config   string
	sync     string
	failover string
	baton    string
	labels   map[string]string // ours
	patroni  string            // selectors
	ours     string
}

// The label on our Leases.
const (
	scopeLabel = "walbaton/scope"
	groupLabel = "walbaton/group"
	citusLabel = "citus-group" // Patroni's
)

func namesOf(c Config) names {
	theirs := maps.Clone(c.Labels)
	if theirs == nil {
		theirs = map[string]string{}
	}
	theirs[c.ScopeLabel] = c.Scope
	n := names{base: c.Scope, labels: map[string]string{scopeLabel: c.Scope}}
	without := ",!" + groupLabel
	if c.Group != nil {
		g := strconv.Itoa(*c.Group)
		n.base += "-" + g
		theirs[citusLabel], n.labels[groupLabel] = g, g
		without = ""
	}
	n.patroni, n.ours = selector(theirs), selector(n.labels)+without
	n.kind, n.leader = "endpoints", n.base
	if !c.Endpoints {
		n.kind, n.leader = "configmaps", n.base+"-leader"
	}
	n.config, n.sync, n.failover = n.base+"-config", n.base+"-sync", n.base+"-failover"
	n.baton = n.base + "-walbaton"
	return n
}

func selector(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}
