package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What an administrator does by hand: with pg_ctl behind Patroni's back, with Patroni's maintenance mode, and with the
// files of one node.

// pgCtl is pg_ctl on the node's data directory, as user postgres. What it starts writes into a log of its own: Patroni's
// would hold up whoever waits for pg_ctl.
func (n *Node) pgCtl(ctx context.Context, args ...string) error {
	args = append([]string{"pg_ctl", "-D", n.PGData(), "-w", "-t", "60", "-l", filepath.Join(n.Dir, "log", "byhand.log")}, args...)
	return Run(n.inside(n.c.command(ctx, n.Dir, nil, args...)))
}

// PromotePostgres is pg_ctl promote: Patroni is not asked.
func (n *Node) PromotePostgres(ctx context.Context) error { return n.pgCtl(ctx, "promote") }

// RestartPostgres is pg_ctl restart, in the way of a fast shutdown, which waits for the archiver.
func (n *Node) RestartPostgres(ctx context.Context) error {
	return n.pgCtl(ctx, "restart", "-m", "fast")
}

// StartPostgres is pg_ctl start, with the settings that Patroni wrote.
func (n *Node) StartPostgres(ctx context.Context) error { return n.pgCtl(ctx, "start") }

// Pause begins Patroni's maintenance mode: it starts, stops, promotes and demotes nothing. It returns when every Patroni
// that answers has noticed.
func (c *Cluster) Pause(ctx context.Context) error { return c.maintenance(ctx, true) }

// Unpause ends it.
func (c *Cluster) Unpause(ctx context.Context) error { return c.maintenance(ctx, false) }

func (c *Cluster) maintenance(ctx context.Context, on bool) error {
	if err := c.patchConfig(ctx, fmt.Sprintf(`{"pause": %t}`, on)); err != nil {
		return err
	}
	return until(ctx, failoverLimit, "every Patroni has noticed", func(ctx context.Context) error {
		for _, n := range c.Nodes {
			_, body, err := get(ctx, n.rest()+"/patroni")
			if err == nil && strings.Contains(string(body), `"pause": true`) != on {
				return fmt.Errorf("%s has not", n.Name)
			}
		}
		return nil
	})
}

// patchConfig changes Patroni's dynamic configuration through the first Patroni that answers.
func (c *Cluster) patchConfig(ctx context.Context, body string) (err error) {
	for _, n := range c.Nodes {
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodPatch, n.rest()+"/config", bytes.NewBufferString(body))
		if err != nil {
			return err
		}
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err != nil {
			continue
		}
		answer, e := io.ReadAll(resp.Body)
		resp.Body.Close()
		if e == nil && resp.StatusCode != http.StatusOK {
			e = fmt.Errorf("change Patroni's configuration: %s: %s", resp.Status, answer)
		}
		return e
	}
	return err
}

// Edit replaces words in one of the node's files below its folder, once each. Whoever reads the file has to be told.
func (n *Node) Edit(file, old, new string) error {
	path := filepath.Join(n.Dir, file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.Count(string(text), old) != 1 {
		return fmt.Errorf("edit %s: it has %q %d times", path, old, strings.Count(string(text), old))
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644)
}

// Install gives the node the walbaton and walbaton-wal in folder bin. PostgreSQL calls the new client from now on, the
// sidecar is the new one after RestartSidecar.
func (n *Node) Install(bin string) error {
	tmp := filepath.Join(n.Dir, "bin.new")
	return errors.Join(os.Symlink(bin, tmp), os.Rename(tmp, filepath.Join(n.Dir, "bin")))
}

// RestartSidecar ends the sidecar in order, as systemd does, and starts it again with the configuration and the
// programs that the node has now.
func (n *Node) RestartSidecar(ctx context.Context) error {
	if err := n.sidecar.terminate(ctx, 20*time.Second); err != nil {
		return fmt.Errorf("stop the sidecar of %s: %w", n.Name, err)
	}
	return n.StartSidecar(ctx)
}
