package drill

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// zooKeeper is Debian's, without its service: one server on its own.
type zooKeeper struct {
	c       *Cluster
	dir     string
	address string
	p       *process
}

func newZooKeeper(c *Cluster) (*zooKeeper, error) {
	dir, err := c.folder("zookeeper")
	if err != nil {
		return nil, err
	}
	z := &zooKeeper{c: c, dir: dir, address: fmt.Sprintf("%s:%d", c.host(atDCS), c.port(portDCS))}
	// Sessions last 2 to 20 ticks: Patroni asks for 8 s, a sidecar for 15 s.
	config := fmt.Sprintf("tickTime=1000\ndataDir=%s\nclientPort=%d\nclientPortAddress=%s\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n",
		filepath.Join(dir, "data"), c.port(portDCS), c.host(atDCS))
	return z, os.WriteFile(filepath.Join(dir, "zoo.cfg"), []byte(config), 0o644)
}

func (z *zooKeeper) start(ctx context.Context) (err error) {
	z.p, err = z.c.spawn("zookeeper", z.dir, nil, "java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar",
		"org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(z.dir, "zoo.cfg"))
	if err != nil {
		return err
	}
	return until(ctx, 60*time.Second, "ZooKeeper serves", z.serves)
}

// serves asks by one of its four-letter words.
func (z *zooKeeper) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", z.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(answer), "Mode: ") {
		err = fmt.Errorf("it says %q", answer)
	}
	return err
}

func (z *zooKeeper) stop() { z.p.kill() }

func (z *zooKeeper) signal(s syscall.Signal) error { return z.p.signal(s) }

func (z *zooKeeper) section(*Node) string { return fmt.Sprintf("zookeeper:\n  hosts: %s\n", z.address) }

func (z *zooKeeper) env(*Node) []string { return nil }
