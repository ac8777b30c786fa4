package zookeeper

import (
	"context"
	"errors"
	"sync"
	"time"
)

// hosts is where the servers are, and which of them answered last: a new session begins there.
type hosts struct {
	all []string
	mu  sync.Mutex
	at  int
}

func (h *hosts) start() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hosts) good(at int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = at
}

// skip lets the next session begin behind a host that did not answer.
func (h *hosts) skip(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[h.at] == host {
		h.at = (h.at + 1) % len(h.all)
	}
}

// rota is the library's zk.HostProvider for one session. Names are looked up by the dialer, anew
// each time.
type rota struct {
	hosts *hosts
	s     *session

	mu    sync.Mutex
	at    int
	tried int // since the last connection
	ever  bool
}

// Init is the library's; the hosts are known.
func (r *rota) Init([]string) error { return nil }

// Len is how many hosts there are.
func (r *rota) Len() int { return len(r.hosts.all) }

// Next goes round. A session that no host would open is over after one round.
func (r *rota) Next() (host string, round bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = (r.at + 1) % len(r.hosts.all)
	round = r.tried > 0 && r.tried%len(r.hosts.all) == 0
	r.tried++
	if round && !r.ever {
		why := r.s.lastFailure()
		if why == nil {
			why = errors.New("the server closed the connection: it may want TLS, or not, or have no quorum")
		}
		r.s.end(why)
	}
	select {
	case <-r.s.over:
		round = true // then the library looks whether it is to stop
	default:
	}
	return r.hosts.all[r.at], round
}

// Connected is called when a session is there.
func (r *rota) Connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried, r.ever = 0, true
	r.hosts.good(r.at)
}

func (r *rota) connected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ever
}

func (r *rota) host() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hosts.all[max(r.at, 0)]
}

// attempts calls f with contexts of 1 s, 2 s, 4 s, ... until one is enough or ctx ends, where
// there is another host to try; a call whose context ends leaves the connection to its host. They
// grow, so that a slow server is not taken for a hung one for ever.
func (c *Client) attempts(ctx context.Context, f func(ctx context.Context) error) error {
	if len(c.hosts.all) == 1 {
		return f(ctx)
	}
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
