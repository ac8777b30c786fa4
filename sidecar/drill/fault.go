package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"syscall"
	"time"
)

// Limits of the waits below. Patroni's ttl is 8 s: a failover takes 8 to 10.
const (
	failoverLimit = 60 * time.Second
	clusterLimit  = 120 * time.Second
	restoreLimit  = 5 * time.Minute
)

// StopStore takes the archive away: MinIO is killed, a folder is renamed and locked.
func (c *Cluster) StopStore(ctx context.Context) error { return c.Store.stop(ctx) }

// StartStore brings the archive back.
func (c *Cluster) StartStore(ctx context.Context) error { return c.Store.start(ctx) }

// FreezeStore lets a MinIO hang: it neither answers nor breaks connections, until ThawStore.
func (c *Cluster) FreezeStore(context.Context) error { return c.signalStore(syscall.SIGSTOP) }

// ThawStore lets it go on.
func (c *Cluster) ThawStore(context.Context) error { return c.signalStore(syscall.SIGCONT) }

func (c *Cluster) signalStore(s syscall.Signal) error {
	m, ok := c.Store.(*minioStore)
	if !ok {
		return errors.New("freeze the store: a folder does not hang")
	}
	return m.server.signal(s)
}

// Primary waits until there is a primary that takes writes.
func (c *Cluster) Primary(ctx context.Context) (primary *Node, err error) {
	err = until(ctx, failoverLimit, "there is a primary", func(ctx context.Context) error {
		var all error
		for _, n := range c.Nodes {
			err := n.writable(ctx)
			if err == nil {
				primary = n
				return nil
			}
			all = errors.Join(all, err)
		}
		return all
	})
	return primary, err
}

// Leader waits until there is a primary that takes writes or, in a standby cluster, a standby leader.
func (c *Cluster) Leader(ctx context.Context) (leader *Node, err error) {
	err = until(ctx, failoverLimit, "there is a leader", func(ctx context.Context) error {
		var all error
		for _, n := range c.Nodes {
			err := n.leads(ctx)
			if err == nil {
				leader = n
				return nil
			}
			all = errors.Join(all, err)
		}
		return all
	})
	return leader, err
}

// Promoted waits until another node than the old primary takes writes, also while the old one still does.
func (c *Cluster) Promoted(ctx context.Context, old *Node) error {
	return until(ctx, failoverLimit, "another node takes writes", func(ctx context.Context) error {
		var all error
		for _, n := range c.Standbys(old) {
			err := n.writable(ctx)
			if err == nil {
				return nil
			}
			all = errors.Join(all, err)
		}
		return all
	})
}

// Standbys are all nodes but the given one.
func (c *Cluster) Standbys(of *Node) []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n == of })
}

// Switchover asks Patroni to make another node the leader, and returns when that node takes writes, or is the standby leader.
func (c *Cluster) Switchover(ctx context.Context, to *Node) error {
	from, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	body := fmt.Sprintf(`{"leader": %q, "candidate": %q}`, from.Name, to.Name)
	if err := from.ask(ctx, http.MethodPost, "/switchover", body); err != nil {
		return fmt.Errorf("switchover from %s to %s: %w", from.Name, to.Name, err)
	}
	return until(ctx, failoverLimit, to.Name+" leads", to.leads)
}

// Configure changes the cluster's dynamic configuration: JSON, in which null takes a setting away.
func (c *Cluster) Configure(ctx context.Context, change string) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	return leader.ask(ctx, http.MethodPatch, "/config", change)
}

// ask sends a request to the node's Patroni; another answer than 200 is an error.
func (n *Node) ask(ctx context.Context, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, n.rest()+path, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

// AllStreaming waits until every node but the primary streams from it.
func (c *Cluster) AllStreaming(ctx context.Context) error {
	return c.Streaming(ctx, nodes-1)
}

// Streaming waits until there is a primary, or a standby leader, from which that many standbys stream, or from one another that
// does.
func (c *Cluster) Streaming(ctx context.Context, standbys int) error {
	return until(ctx, clusterLimit, fmt.Sprintf("%d standbys stream", standbys), func(ctx context.Context) error {
		p, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		got, err := c.followers(ctx, p)
		if err == nil && len(got) != standbys {
			err = fmt.Errorf("from %s stream %v", p.Name, got)
		}
		if err != nil {
			return err
		}
		return p.patroniKnows(ctx, 1+standbys)
	})
}

// followers are the names of the nodes that stream from n, or from one another that does.
func (c *Cluster) followers(ctx context.Context, n *Node) (names []string, err error) {
	direct, err := query[[]string](ctx, n.DSN(), "select coalesce(array_agg(application_name), '{}') from pg_stat_replication where state = 'streaming' and application_name = any($1)", c.names())
	for _, m := range c.Nodes {
		if err == nil && slices.Contains(direct, m.Name) {
			var more []string
			more, err = c.followers(ctx, m)
			names = append(append(names, m.Name), more...)
		}
	}
	return names, err
}

// names are those of the nodes: Patroni connects its standbys with them.
func (c *Cluster) names() (all []string) {
	for _, n := range c.Nodes {
		all = append(all, n.Name)
	}
	return all
}

// patroniKnows is nil when Patroni's view of the cluster, which runs a little behind, has that many running members.
func (n *Node) patroniKnows(ctx context.Context, running int) error {
	_, body, err := get(ctx, n.rest()+"/cluster")
	if err != nil {
		return err
	}
	var view struct {
		Members []struct{ Name, State string }
	}
	if err := json.Unmarshal(body, &view); err != nil {
		return err
	}
	for _, m := range view.Members {
		if m.State == "running" || m.State == "streaming" {
			running--
		}
	}
	if running > 0 {
		return fmt.Errorf("members that Patroni sees: %v", view.Members)
	}
	return nil
}

// Finish waits until the primary has finished that many more segments.
func (c *Cluster) Finish(ctx context.Context, segments int) error {
	size := int64(c.o.SegmentMB) << 20
	position := func(ctx context.Context) (int64, error) {
		p, err := c.Primary(ctx)
		if err != nil {
			return 0, err
		}
		return query[int64](ctx, p.DSN(), "select (pg_current_wal_lsn() - '0/0')::bigint")
	}
	begin, err := position(ctx)
	if err != nil {
		return err
	}
	goal := begin/size + int64(segments)
	return until(ctx, clusterLimit, fmt.Sprintf("%d segments are finished", segments), func(ctx context.Context) error {
		now, err := position(ctx)
		if err == nil && now/size < goal {
			err = fmt.Errorf("%d more to finish", goal-now/size)
		}
		return err
	})
}
