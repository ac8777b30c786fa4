// Package mem is a DCS in memory: a real implementation, with leases that run out by a
// clock that is handed in. It passes the same suites as the drivers for real servers;
// simulations and tests under testing/synctest are driven with it.
//
//	server := mem.New(time.Now)          // or the clock of a simulation
//	n1, n2 := server.Client(), server.Client()
//	server.Put("leader", "n1")           // as Patroni would
//
// Leases end lazily: whoever looks next finds them gone. A Wait that is under way is woken
// by a timer, which fits time.Now, also in a synctest bubble. With another clock, call
// Expire after moving it.
//
// Faulty puts a broken network in front of any dcs.DCS.
package mem

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// Idle is how long Wait waits for a change.
const Idle = 10 * time.Second

// Server is one scope. Its methods may be called at the same time.
type Server struct {
	now func() time.Time

	mu       sync.Mutex
	revision uint64
	quiet    uint64 // the last revision that Wait counts
	nodes    map[string]dcs.Node
	records  map[string]record
	baton    dcs.Lease
	batonEnd time.Time
	changed  chan struct{} // closed at the next change that Wait counts
}

type record struct {
	dcs.Node
	end time.Time
}

// New gives an empty scope whose leases end by the clock now.
func New(now func() time.Time) *Server {
	return &Server{
		now:     now,
		nodes:   map[string]dcs.Node{},
		records: map[string]record{},
		changed: make(chan struct{}),
	}
}

// Client gives one sidecar's access to the scope.
func (s *Server) Client() dcs.DCS { return client{s} }

// Put writes one of Patroni's keys, for instance "leader" or "members/n1".
func (s *Server) Put(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if key == "status" {
		s.revision++
	} else {
		s.touch()
	}
	n, ok := s.nodes[key]
	if !ok {
		n.Token = s.revision
	}
	n.Value, n.Version = value, s.revision
	s.nodes[key] = n
}

// Delete removes one of Patroni's keys.
func (s *Server) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if _, ok := s.nodes[key]; ok {
		delete(s.nodes, key)
		s.touch()
	}
}

// Expire removes the leases that have run out and wakes those who wait for that.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
}

// touch counts a change and wakes the waiters.
func (s *Server) touch() {
	s.revision++
	s.quiet = s.revision
	close(s.changed)
	s.changed = make(chan struct{})
}

// expire ends what has run out. A lease of TTL t is alive before its end and gone at it.
func (s *Server) expire() {
	now := s.now()
	for member, r := range s.records {
		if !now.Before(r.end) {
			delete(s.records, member)
			s.touch()
		}
	}
	if s.baton.Held() && !now.Before(s.batonEnd) {
		s.baton = dcs.Lease{}
		s.touch()
	}
}

// next is the time until the next lease ends, at most Idle.
func (s *Server) next() time.Duration {
	d, now := Idle, s.now()
	for _, r := range s.records {
		d = min(d, r.end.Sub(now))
	}
	if s.baton.Held() {
		d = min(d, s.batonEnd.Sub(now))
	}
	return max(d, 0)
}

type client struct{ s *Server }

func (c client) String() string { return "mem" }

func (c client) Read(ctx context.Context) (dcs.Reading, error) {
	if err := ctx.Err(); err != nil {
		return dcs.Reading{}, fmt.Errorf("read scope: %w", err)
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	r := dcs.Reading{
		Nodes:    maps.Clone(s.nodes),
		Records:  make(map[string]dcs.Node, len(s.records)),
		Baton:    seen(s.baton),
		Revision: strconv.FormatUint(s.revision, 10),
	}
	for member, rec := range s.records {
		r.Records[member] = rec.Node
	}
	return r, nil
}

// seen is the lease as others see it.
func seen(l dcs.Lease) dcs.Lease {
	l.Token = ""
	return l
}

func (c client) Wait(ctx context.Context, since dcs.Reading) error {
	from, err := strconv.ParseUint(since.Revision, 10, 64)
	if err != nil {
		return ctx.Err() // no revision that we gave: read again
	}
	s := c.s
	idle := time.NewTimer(Idle)
	defer idle.Stop()
	for {
		s.mu.Lock()
		s.expire()
		differs, changed, next := s.quiet > from, s.changed, s.next()
		s.mu.Unlock()
		if differs {
			return ctx.Err()
		}
		end := time.NewTimer(next)
		select {
		case <-ctx.Done():
			end.Stop()
			return fmt.Errorf("wait for a change: %w", ctx.Err())
		case <-idle.C:
			end.Stop()
			return nil
		case <-changed:
			end.Stop()
		case <-end.C:
		}
	}
}

func (c client) Claim(ctx context.Context, l dcs.Lease) (dcs.Lease, error) {
	if err := ctx.Err(); err != nil {
		return dcs.Lease{}, fmt.Errorf("claim baton: %w", err)
	}
	if l.Holder == "" || l.TTL <= 0 {
		return dcs.Lease{}, fmt.Errorf("claim baton: holder %q, ttl %v: both are needed", l.Holder, l.TTL)
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if l.Epoch != 0 {
		if !s.owns(l) {
			return dcs.Lease{}, fmt.Errorf("extend baton: %w", dcs.ErrLost)
		}
		s.baton.TTL, s.batonEnd = l.TTL, s.now().Add(l.TTL)
		return s.baton, nil
	}
	if s.baton.Held() {
		return dcs.Lease{}, &dcs.HeldError{Lease: seen(s.baton)}
	}
	s.touch()
	s.baton = dcs.Lease{Holder: l.Holder, TTL: l.TTL, Epoch: s.revision, Token: "mem-" + strconv.FormatUint(s.revision, 10)}
	s.batonEnd = s.now().Add(l.TTL)
	return s.baton, nil
}

func (s *Server) owns(l dcs.Lease) bool {
	return s.baton.Held() && l.Holder == s.baton.Holder && l.Epoch == s.baton.Epoch && l.Token == s.baton.Token
}

func (c client) Release(ctx context.Context, l dcs.Lease) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("release baton: %w", err)
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if s.owns(l) {
		s.baton = dcs.Lease{}
		s.touch()
	}
	return nil
}

func (c client) Announce(ctx context.Context, member, value string, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("announce %s: %w", member, err)
	}
	if err := dcs.CheckValue(value); err != nil {
		return fmt.Errorf("announce %s: %w", member, err)
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	r, ok := s.records[member]
	switch {
	case ttl <= 0 && ok:
		delete(s.records, member)
		s.touch()
		return nil
	case ttl <= 0:
		return nil
	case !ok || r.Value != value:
		s.touch()
		r.Value, r.Version = value, s.revision
		if !ok {
			r.Token = s.revision
		}
	}
	r.end = s.now().Add(ttl)
	s.records[member] = r
	return nil
}
