//go:build servers

package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

// server is one ZooKeeper process on free loopback ports, from Debian's package.
type server struct {
	address string // plain text
	secure  string // TLS, if there is an authority
	dir     string
	dcstest.Process
}

// tick is short, so that sessions may be as short as 0.4 s.
const tick = 200 * time.Millisecond

func startServer(t testing.TB, ca *dcstest.Authority, settings ...string) *server {
	t.Helper()
	s := newServer(t, ca, settings...)
	s.Start(t)
	return s
}

func newServer(t testing.TB, ca *dcstest.Authority, settings ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{address: freeAddress(t), dir: dir, Process: dcstest.Process{Log: filepath.Join(dir, "log")}}
	_, port, _ := net.SplitHostPort(s.address)
	conf := []string{
		fmt.Sprintf("tickTime=%d", tick.Milliseconds()), "maxSessionTimeout=120000", "maxClientCnxns=0",
		"dataDir=" + filepath.Join(dir, "data"), "clientPort=" + port, "clientPortAddress=127.0.0.1",
		"admin.enableServer=false", "4lw.commands.whitelist=ruok,srvr", "initLimit=50", "syncLimit=10",
	}
	if ca != nil {
		s.secure = freeAddress(t)
		_, port, _ := net.SplitHostPort(s.secure)
		conf = append(conf, "secureClientPort="+port, "secureClientPortAddress=127.0.0.1",
			"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
			"ssl.keyStore.location="+ca.Server+".pem", "ssl.keyStore.type=PEM",
			"ssl.trustStore.location="+ca.File, "ssl.trustStore.type=PEM", "ssl.clientAuth=need",
			"authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider")
	}
	conf = append(conf, settings...)
	write(t, filepath.Join(dir, "zoo.cfg"), strings.Join(conf, "\n")+"\n")
	return s
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t testing.TB) string { return dcstest.FreeAddresses(t, 1)[0] }

func (s *server) launch(t testing.TB) {
	t.Helper()
	// zookeeper.jar names most others, but no logger, nor all of netty, which TLS needs.
	jars := []string{"/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar", "/usr/share/java/netty-codec.jar", "/usr/share/java/netty-resolver.jar"}
	args := []string{"-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dzookeeper.forceSync=no"}
	args = append(args, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", strings.Join(jars, ":"),
		"org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	cmd := exec.Command("java", args...)
	cmd.Dir = s.dir
	s.Launch(t, "Debian's libzookeeper-java and default-jre-headless", cmd)
}

func (s *server) Start(t testing.TB) {
	t.Helper()
	s.launch(t)
	s.waitReady(t)
}

// waitReady waits for both ports: the plain one listens first.
func (s *server) waitReady(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		answer, err := s.ask("srvr")
		if strings.Contains(answer, "Mode: ") {
			if err = s.listensSecurely(); err == nil {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("ZooKeeper does not answer: %q, %v\n%s", answer, err, s.Said())
		}
	}
}

// listensSecurely is an error when there is a port for TLS and nobody listens on it.
func (s *server) listensSecurely() error {
	if s.secure == "" {
		return nil
	}
	conn, err := net.DialTimeout("tcp", s.secure, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// ask sends one of ZooKeeper's four letter words.
func (s *server) ask(word string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// raw is a client of the library, to play Patroni and the administrator.
type raw struct {
	*zk.Conn
	acl []zk.ACL // of what it makes
}

func (s *server) raw(t testing.TB) raw {
	t.Helper()
	conn, events, err := zk.Connect([]string{s.address}, 30*time.Second, zk.WithLogger(silent{}), zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	return raw{conn, zk.WorldACL(zk.PermAll)}
}

// put writes as Patroni does: with the directories above.
func (r raw) put(t testing.TB, path, value string) {
	t.Helper()
	r.insist(t, "put "+path, func() error {
		_, err := r.Set(path, []byte(value), -1)
		if errors.Is(err, zk.ErrNoNode) {
			r.dir(t, parent(path))
			_, err = r.Create(path, []byte(value), 0, r.acl)
		}
		return err
	})
}

// insist tries again while the server is away, and until this client has found it again: another may be sooner.
func (r raw) insist(t testing.TB, what string, act func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = act(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func (r raw) dir(t testing.TB, path string) {
	t.Helper()
	if path == "/" {
		return
	}
	r.dir(t, parent(path))
	if _, err := r.Create(path, nil, 0, r.acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		t.Logf("create %s: %v", path, err)
	}
}

func (r raw) remove(t testing.TB, path string) {
	t.Helper()
	r.insist(t, "delete "+path, func() error {
		if err := r.Delete(path, -1); !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		return nil
	})
}

// open makes a client of ours that is closed at the end.
func open(t testing.TB, c Config) *Client {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// prefixOf gives each test a scope of its own.
func prefixOf(t testing.TB) string {
	return "/service/" + strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name()) + "/"
}
