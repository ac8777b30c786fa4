// Package servers starts real object stores for tests and drills, each as a process of its own on
// the loopback interface, over http or TLS.
//
//	minio, err := servers.MinIO(ctx, servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}})
//	defer minio.Stop()
//	s, err := s3.Open(ctx, minio.URL("wal", "prefix"), s3.Options{AccessKey: servers.AccessKey, SecretKey: servers.SecretKey})
//
// A server that was stopped or killed starts again with the same Dir and, if it is given, the same Address.
//
// The binaries are those that .ci/build-tools makes, in ~/.cache/walbaton/tools or $WALBATON_TOOLS. A
// missing one is an error: a test that cannot run has failed.
package servers

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// The credentials of every server.
const (
	AccessKey = "walbaton"
	SecretKey = "walbaton-secret"
)

// The binaries, by the names and versions of .ci/build-tools.
const (
	minioBinary     = "minio@v0.0.0-20260212201848-7aac2a2c5b7c"
	versitygwBinary = "versitygw@v1.8.0"
	rcloneBinary    = "rclonelean@v1.75.1"
)

const (
	readyTime = 60 * time.Second // to be ready, on a busy machine
	stopTime  = 10 * time.Second // from SIGTERM to SIGKILL
)

// Options say where a server runs.
type Options struct {
	Dir     string   // its folder: data below data/, certificates below certs/. Made if it is missing
	Address string   // 127.0.0.1:port; empty means a free port
	TLS     bool     // https, with a certificate of its own authority
	Buckets []string // that are there when it starts
	Env     []string // of MinIO, besides what it needs: NAME=value
	// Versions says that buckets of versitygw can have versions. Those of MinIO always can.
	Versions bool
}

// Server is a running one.
type Server struct {
	Endpoint string // http://127.0.0.1:port, or https://…
	Address  string // 127.0.0.1:port
	CAFile   string // PEM of the authority to trust; empty without TLS

	cmd    *exec.Cmd
	output *tail
	exited chan struct{} // closed when the process has ended
}

// MinIO starts MinIO. Its own health page says ready a moment before requests stop to get 503, so it is asked
// for what a client wants.
func MinIO(ctx context.Context, o Options) (*Server, error) {
	return start(ctx, o, minioBinary, "/", func(o Options, c certificates) *exec.Cmd {
		args := []string{"server", "--quiet", "--address", o.Address}
		if o.TLS {
			args = append(args, "--certs-dir", c.dir)
		}
		cmd := exec.Command(binary(minioBinary), append(args, dataDir(o))...)
		cmd.Env = []string{"MINIO_ROOT_USER=" + AccessKey, "MINIO_ROOT_PASSWORD=" + SecretKey, "MINIO_BROWSER=off",
			"MINIO_UPDATE=off", "HOME=" + o.Dir, "PATH=" + os.Getenv("PATH")}
		cmd.Env = append(cmd.Env, o.Env...)
		return cmd
	})
}

// VersityGW starts versitygw over its posix backend.
func VersityGW(ctx context.Context, o Options) (*Server, error) {
	return start(ctx, o, versitygwBinary, "/health", func(o Options, c certificates) *exec.Cmd {
		args := []string{"--access", AccessKey, "--secret", SecretKey, "--port", o.Address, "--health", "/health", "--quiet"}
		if o.TLS {
			args = append(args, "--cert", c.cert, "--key", c.key)
		}
		args = append(args, "posix")
		if o.Versions {
			args = append(args, "--versioning-dir", filepath.Join(o.Dir, "versions"))
		}
		return exec.Command(binary(versitygwBinary), append(args, dataDir(o))...)
	})
}

// Rclone starts "rclone serve s3", which ignores If-None-Match: what must be refused. It knows no TLS here.
func Rclone(ctx context.Context, o Options) (*Server, error) {
	if o.TLS {
		return nil, errors.New("start rclone: no TLS")
	}
	return start(ctx, o, rcloneBinary, "/", func(o Options, _ certificates) *exec.Cmd {
		return exec.Command(binary(rcloneBinary), "serve", "s3", "--addr", o.Address, "--auth-key", AccessKey+","+SecretKey,
			"--vfs-cache-mode", "off", dataDir(o))
	})
}

// URL is that of a store in one of the buckets, for the s3 driver.
func (s *Server) URL(bucket, prefix string) string {
	q := url.Values{"endpoint": {s.Endpoint}}
	if s.CAFile != "" {
		q.Set("ca_file", s.CAFile)
	}
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix, RawQuery: q.Encode()}
	return u.String()
}

// Stop asks the server to end, and makes it end if it does not within 10 seconds.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.cmd.Path, err)
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopTime):
		return s.Kill()
	}
}

// Kill ends the server as a crash would.
func (s *Server) Kill() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", s.cmd.Path, err)
	}
	<-s.exited
	return nil
}

// Signal sends a signal: SIGSTOP makes a server hang, SIGCONT wakes it.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

func dataDir(o Options) string { return filepath.Join(o.Dir, "data") }

func binary(name string) string {
	dir := os.Getenv("WALBATON_TOOLS")
	if dir == "" {
		dir = filepath.Join(os.Getenv("HOME"), ".cache", "walbaton", "tools")
	}
	return filepath.Join(dir, name)
}

func start(ctx context.Context, o Options, name, ready string, command func(Options, certificates) *exec.Cmd) (*Server, error) {
	s, err := launch(o, name, command)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := s.wait(ctx, ready); err != nil {
		return nil, fmt.Errorf("start %s: %w; its last words: %s", name, errors.Join(err, s.Kill()), s.output)
	}
	return s, nil
}

func launch(o Options, name string, command func(Options, certificates) *exec.Cmd) (*Server, error) {
	if _, err := os.Stat(binary(name)); err != nil {
		return nil, fmt.Errorf("%w (.ci/build-tools makes it)", err)
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil { // versitygw changes its folder
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "versions"), 0o755); err != nil {
		return nil, err
	}
	for _, bucket := range append(o.Buckets, "") {
		if err := os.MkdirAll(filepath.Join(dataDir(o), bucket), 0o755); err != nil {
			return nil, err
		}
	}
	if o.Address == "" {
		if o.Address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	s := &Server{Address: o.Address, Endpoint: "http://" + o.Address, output: new(tail), exited: make(chan struct{})}
	var c certificates
	if o.TLS {
		if c, err = makeCertificates(filepath.Join(o.Dir, "certs")); err != nil {
			return nil, err
		}
		s.Endpoint, s.CAFile = "https://"+o.Address, c.ca
	}
	s.cmd = command(o, c)
	return s, s.run()
}

// run starts the process.
func (s *Server) run() error {
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives its test
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait() // why it ended is in its output
	}()
	return nil
}

// freeAddress returns one that was free a moment ago. Its port is below those that Linux gives to outgoing connections and to port 0
// (32768 on), so that nobody gets it before the server listens, or while it is restarted.
func freeAddress() (address string, err error) {
	for range 1000 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", err
}

// wait returns when the server answers at the path ready, with whatever is not a failure of its own.
func (s *Server) wait(ctx context.Context, ready string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	// Only whether it is there is asked: no secret is sent, so no certificate is checked.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+ready, nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode < 500 {
				return nil
			}
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %v", s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail keeps the last output of a server.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const keep = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = bytes.Clone(t.data[max(0, len(t.data)-keep):])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.data))
}
