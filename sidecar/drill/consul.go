package drill

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const consulTool = "consul@v1.22.5"

// consulServer is the Consul that .ci/build-tools built: one durable server, which all nodes ask.
type consulServer struct {
	c   *Cluster
	dir string
	url string
	p   *process
}

func newConsul(c *Cluster) (*consulServer, error) {
	tool, err := toolPath(consulTool)
	if err != nil {
		return nil, err
	}
	dir, err := c.folder("consul")
	if err != nil {
		return nil, err
	}
	// User postgres may not search the home of root, where the tool is.
	if err := Run(exec.Command("cp", "--reflink=auto", tool, filepath.Join(dir, "consul"))); err != nil {
		return nil, err
	}
	return &consulServer{c: c, dir: dir, url: fmt.Sprintf("http://%s:%d", c.host(atDCS), c.port(portDCS))}, nil
}

// start lets sessions be as short as Patroni wants them (half of its ttl, which Consul doubles again): with the 10 s of a Consul
// as it comes a failover would take 20.
func (s *consulServer) start(ctx context.Context) (err error) {
	port := func(n int) string { return strconv.Itoa(s.c.port(n)) }
	s.p, err = s.c.spawn("consul", s.dir, nil, filepath.Join(s.dir, "consul"), "agent", "-server", "-bootstrap-expect=1", "-node", "consul",
		"-data-dir", filepath.Join(s.dir, "data"), "-log-level", "warn", "-bind", "127.0.0.1", "-client", s.c.host(atDCS),
		"-http-port", port(portDCS), "-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1",
		"-server-port", port(portDCSPeer), "-serf-lan-port", port(portDCSGossip), "-serf-wan-port", "-1",
		"-hcl", `session_ttl_min = "1s" connect { enabled = false } disable_update_check = true performance { raft_multiplier = 1 }`)
	if err != nil {
		return err
	}
	return until(ctx, 30*time.Second, "consul has a leader", func(ctx context.Context) error {
		code, body, err := get(ctx, s.url+"/v1/status/leader")
		if err == nil && (code != http.StatusOK || !bytes.Contains(body, []byte(":"))) {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
}

func (s *consulServer) stop() { s.p.kill() }

func (s *consulServer) signal(sig syscall.Signal) error { return s.p.signal(sig) }

func (s *consulServer) section(*Node) string {
	return fmt.Sprintf("consul:\n  host: %s:%d\n", s.c.host(atDCS), s.c.port(portDCS))
}

func (s *consulServer) env(*Node) []string { return nil }
