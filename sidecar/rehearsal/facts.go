package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// member is how one of them is reached.
type member struct {
	name    string
	rest    string // http://host:port
	host    string
	port    int
	sidecar string // host:port, "" when it is not known
}

// gatherTime bounds how long Patroni and the sidecar are waited for: one that hangs takes connections and answers none.
const gatherTime = 10 * time.Second

// gather asks Patroni and the sidecar. The error is about the asking; then nothing is known.
func (r *Rehearsal) gather(ctx context.Context) (facts, []member, error) {
	ctx, cancel := context.WithTimeout(ctx, min(gatherTime, r.o.Wait))
	defer cancel()
	f := facts{systemID: r.o.Archive.Identity().SystemID, scope: r.o.Archive.Identity().Scope, candidate: r.o.Candidate, command: r.o.Command != ""}
	var err error
	if f.cluster, err = r.o.API.Cluster(ctx, r.o.Patroni); err != nil {
		return f, nil, err
	}
	if lead, ok := f.cluster.Leader(); ok {
		base := lead.URL
		if base == "" {
			base = r.o.Patroni
		}
		if f.node, err = r.o.API.Node(ctx, base); err != nil {
			return f, nil, fmt.Errorf("leader %s: %w", lead.Name, err)
		}
	}
	dynamic, err := r.o.API.Dynamic(ctx, r.o.Patroni)
	if err != nil && !errors.Is(err, restapi.ErrNoConfig) {
		return f, nil, err
	}
	f.synchronous, f.maxLag = synchronous(dynamic["synchronous_mode"]), 1<<20 // Patroni's default
	if lag, ok := dynamic["maximum_lag_on_failover"].(float64); ok {
		f.maxLag = lag
	}
	r.askLags(ctx, &f)
	if f.sidecar, err = r.status(ctx, r.o.Sidecar); err != nil {
		return f, nil, err
	}
	return f, f.members(r.o.Sidecar), nil
}

// askLags asks the replicas that seem to lag too far behind where they are. Patroni's own figure compares what members write into the DCS once in
// loop_wait, so a cluster that writes a lot seems to lag; and before a switchover Patroni asks the members as well (patroni/ha.py).
func (r *Rehearsal) askLags(ctx context.Context, f *facts) {
	for i := range f.cluster.Members {
		m := &f.cluster.Members[i]
		if lag, known := m.Lag.(float64); !known || lag <= f.maxLag || m.URL == "" {
			continue
		}
		n, err := r.o.API.Node(ctx, m.URL)
		if has := max(n.XLog.Received, n.XLog.Replayed); err == nil && has > 0 && f.node.XLog.Location > 0 {
			m.Lag = float64(f.node.XLog.Location - min(has, f.node.XLog.Location)) // the leader was asked before
		}
	}
}

// synchronous reads Patroni's words for it.
func synchronous(v any) bool {
	switch strings.ToLower(fmt.Sprint(v)) {
	case "true", "on", "yes", "1", "quorum":
		return true
	}
	return false
}

// status asks the sidecar at an address.
func (r *Rehearsal) status(ctx context.Context, address string) (s sidecarStatus, err error) {
	raw, err := r.o.Status(ctx, address)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("ask the sidecar at %s: it is none, or of another version: %w", address, err)
	}
	return s, nil
}

// members joins what Patroni and the sidecar know of them. asked is the sidecar's own address.
func (f facts) members(asked string) (all []member) {
	for _, m := range f.cluster.Members {
		one := member{name: m.Name, rest: m.URL, host: m.Host, port: m.Port}
		if m.Name == f.sidecar.Member {
			one.sidecar = asked
		}
		for _, s := range f.sidecar.Members {
			if s.Name == m.Name && one.sidecar == "" && s.Sidecar {
				one.sidecar = reachable(s.Address, m.Host)
			}
		}
		all = append(all, one)
	}
	return all
}

// reachable is where a sidecar answers that listens on an address: on host when that is all of its addresses; "" when nobody knows.
func reachable(address, host string) string {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
		h = host
	}
	if h == "" {
		return ""
	}
	return net.JoinHostPort(h, port)
}
