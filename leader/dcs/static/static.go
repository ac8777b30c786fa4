// Package static is the DCS of one PostgreSQL without Patroni: there is one member, and it
// is the leader.
//
// There is no baton to pass and nobody to pass it to. Every claim for the own member
// succeeds and never runs out, a claim for another member finds it held. Put-if-absent
// in the archive is all that protects it from a second server that was configured the same
// way. Read names the member as Patroni's leader; whether its PostgreSQL runs as a primary
// only that server can say.
package static

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// idle is how long Wait waits for a change of the record.
const idle = 10 * time.Second

// DCS is a dcs.DCS of one member.
type DCS struct {
	member string
	node   string // the member's key, as Patroni would write it

	mu       sync.Mutex
	revision uint64
	records  map[string]dcs.Node
	changed  chan struct{}
}

// New gives the scope of one member. connURL says where its PostgreSQL answers, as
// Patroni writes it (postgres://host:port/dbname); it may be empty.
func New(member, connURL string) *DCS {
	m := map[string]string{"role": "primary", "state": "running"}
	if connURL != "" {
		m["conn_url"] = connURL
	}
	node, _ := json.Marshal(m) // strings only
	return &DCS{member: member, node: string(node), revision: 1, records: map[string]dcs.Node{}, changed: make(chan struct{})}
}

func (d *DCS) String() string { return "static " + d.member }

// Read shows the member, its leader key, and its record once it was announced.
func (d *DCS) Read(ctx context.Context) (dcs.Reading, error) {
	if err := ctx.Err(); err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := dcs.Reading{
		Nodes: map[string]dcs.Node{
			"leader":              {Value: d.member, Version: 1, Token: 1},
			"members/" + d.member: {Value: d.node, Version: 1, Token: 1},
		},
		Records:  map[string]dcs.Node{},
		Baton:    dcs.Lease{Holder: d.member, Epoch: 1},
		Revision: strconv.FormatUint(d.revision, 10),
	}
	for k, n := range d.records {
		r.Records[k] = n
	}
	return r, nil
}

// Wait returns when the record changed, or after 10 s.
func (d *DCS) Wait(ctx context.Context, since dcs.Reading) error {
	d.mu.Lock()
	differs, changed := since.Revision != strconv.FormatUint(d.revision, 10), d.changed
	d.mu.Unlock()
	if differs {
		return ctx.Err()
	}
	t := time.NewTimer(idle)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for a change: %w", ctx.Err())
	case <-changed:
	case <-t.C:
	}
	return nil
}

// Claim always succeeds for the own member.
func (d *DCS) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if err := ctx.Err(); err != nil {
		return dcs.Lease{}, fmt.Errorf("claim baton: %w", err)
	}
	if l.Holder != d.member {
		return dcs.Lease{}, &dcs.HeldError{Lease: dcs.Lease{Holder: d.member, Epoch: 1}}
	}
	return dcs.Lease{Holder: d.member, TTL: l.TTL, Epoch: 1, Token: "static"}, nil
}

// Release has nothing to do.
func (d *DCS) Release(ctx context.Context, _ dcs.Lease) error { return ctx.Err() }

// Announce keeps the record until it is withdrawn: whoever reads it is the process that
// wrote it.
func (d *DCS) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("announce %s: %w", member, err)
	}
	if err := dcs.CheckValue(value); err != nil {
		return fmt.Errorf("announce %s: %w", member, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.records[member]
	switch {
	case ttl <= 0 && !ok, ttl > 0 && ok && n.Value == value:
		return nil
	case ttl <= 0:
		d.touch()
		delete(d.records, member)
		return nil
	}
	d.touch()
	n.Value, n.Version = value, d.revision
	if !ok {
		n.Token = d.revision
	}
	d.records[member] = n
	return nil
}

func (d *DCS) touch() {
	d.revision++
	close(d.changed)
	d.changed = make(chan struct{})
}
