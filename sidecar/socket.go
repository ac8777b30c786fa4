package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerer says what walbaton-wal is told, and the verbs that ask the local sidecar. All methods
// return soon after ctx ends, which it does when the client is gone or the sidecar stops.
type answerer interface {
	// Push answers archive_command for the file at path, which is absolute.
	Push(ctx context.Context, path string) Answer
	// Fetch answers restore_command: put the file called name at dest, which is absolute.
	Fetch(ctx context.Context, name, dest string) Answer
	// Explain says all about one file of pg_wal, as JSON.
	Explain(ctx context.Context, name string) Answer
	// Resolve takes an administrator's decision; request and answer are JSON.
	Resolve(ctx context.Context, request string) Answer
	// Expire plans what an expire deletes, or carries it out; request and answer are JSON.
	Expire(ctx context.Context, request string) Answer
	// Cleanup answers archive_cleanup_command: name is the segment of this node's last restart point.
	Cleanup(ctx context.Context, name string) Answer
}

// Answer is an exit code for walbaton-wal and a line for PostgreSQL's log, or "". A code below
// zero means that this sidecar cannot answer: push then exits 1, and fetch asks the archive
// itself, since 1 would say that the file is proven not to be there.
type Answer struct {
	Code    int
	Message string
}

const (
	socketBeat    = time.Second     // one dot; the client gives up after five seconds without any
	socketWrite   = 5 * time.Second // how long the client may not read
	socketRequest = 5 * time.Second // how long it may take to ask
	maxRequest    = 16 << 10        // bytes
)

// socketServer answers walbaton-wal; the conversation is described in the comment of its package. The verbs
// explain, resolve and expire speak it too (askSidecar), with words that walbaton-wal does not know.
type socketServer struct {
	listener net.Listener
	peer     func(net.Conn) error // refuses who may not ask: checkPeer
	lock     *os.File             // held as long as we listen
	log      *slog.Logger
}

// listenSocket listens at path and makes its folder. A socket that nobody answers is left from a
// sidecar that died, and is replaced; a second sidecar at the same path is an error.
func listenSocket(path string, log *slog.Logger) (*socketServer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, withHint(fmt.Errorf("listen on socket %s: %w", path, bare(err)), socketHint(path))
	}
	// The lock keeps two sidecars that start at once from each removing the other's socket.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, withHint(fmt.Errorf("listen on socket %s: %w", path, bare(err)), socketHint(path))
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errSocketTaken
		}
		return nil, withHint(fmt.Errorf("listen on socket %s: %w", path, err), takenHint)
	}
	listener, err := listenUnix(path)
	if err != nil {
		lock.Close()
		return nil, withHint(fmt.Errorf("listen on socket %s: %w", path, bare(err)), takenHint)
	}
	return &socketServer{listener, checkPeer, lock, log}, nil
}

var errSocketTaken = errors.New("another sidecar is there")

const takenHint = "one sidecar serves one PostgreSQL; another cluster's on this host needs another --socket, also in archive_command and restore_command"

func socketHint(path string) string {
	return "make the folder " + filepath.Dir(path) + " for the user that runs PostgreSQL (systemd does it with RuntimeDirectory=walbaton),\n" +
		"or name another socket: --socket here, and in archive_command and restore_command"
}

func listenUnix(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Until here the umask decided; the check of the peer makes the moment harmless.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("a file that is no socket is in the way")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return errors.New("another program answers there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Close removes the socket where Serve was not called.
func (s *socketServer) Close() error { return errors.Join(s.listener.Close(), s.lock.Close()) }

// Serve answers until ctx ends, then ends every call, waits for all of them and removes the socket.
func (s *socketServer) Serve(ctx context.Context, a answerer) error {
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer s.lock.Close()
	defer calls.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	defer s.listener.Close()
	for {
		c, err := s.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on socket: %w", err)
		case err != nil: // out of file descriptors, most likely
			s.log.Warn("cannot accept a call on the socket", "error", err)
			if sleep(ctx, time.Second) != nil {
				return nil
			}
			continue
		}
		calls.Go(func() {
			defer c.Close()
			s.call(ctx, c, a)
		})
	}
}

// call answers one client.
func (s *socketServer) call(ctx context.Context, c net.Conn, a answerer) {
	if err := s.peer(c); err != nil {
		s.log.Warn("refused a call on the socket", "error", err)
		reply(c, Answer{-1, err.Error()})
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(socketRequest)) // fails only on a closed connection, and so does the read
	r := bufio.NewReader(io.LimitReader(c, maxRequest))
	line, err := r.ReadString('\n')
	if err != nil {
		return // it went away, or it is none of ours
	}
	verb, words, err := parseRequest(line)
	if err != nil {
		s.log.Warn("did not understand a call on the socket", "error", err)
		reply(c, Answer{-1, err.Error()})
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	reply(c, s.answer(ctx, c, verb, words, a))
}

// answer runs the verb, sends a dot every second meanwhile, and cancels it when the client goes away.
func (s *socketServer) answer(ctx context.Context, c net.Conn, verb string, words []string, a answerer) Answer {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan Answer, 1)
	var helpers sync.WaitGroup
	helpers.Go(func() {
		defer cancel()
		_, _ = c.Read(make([]byte, 1)) // clients say no more: it returns when they are gone
	})
	helpers.Go(func() {
		switch verb {
		case "push":
			answers <- a.Push(ctx, words[0])
		case "fetch":
			answers <- a.Fetch(ctx, words[0], words[1])
		case "explain":
			answers <- a.Explain(ctx, words[0])
		case "expire":
			answers <- a.Expire(ctx, words[0])
		case "cleanup":
			answers <- a.Cleanup(ctx, words[0])
		default:
			answers <- a.Resolve(ctx, words[0])
		}
	})
	defer helpers.Wait()
	defer c.SetReadDeadline(time.Unix(1, 0)) //nolint // ends the Read above; a failure means that it has ended
	defer cancel()
	beat := time.NewTicker(socketBeat)
	defer beat.Stop()
	for {
		select {
		case got := <-answers:
			// Whatever a fetch that was cut short came to, it is no proof that the file is not there.
			if verb == "fetch" && got.Code != 0 && ctx.Err() != nil {
				got.Code = -1
			}
			return got
		case <-beat.C:
			if err := write(c, "."); err != nil {
				cancel()
			}
		}
	}
}

func reply(c net.Conn, a Answer) {
	_ = write(c, strconv.Itoa(a.Code)+" "+strconv.Quote(a.Message)+"\n") // a client that is gone asks again
}

func write(c net.Conn, s string) error {
	if err := c.SetWriteDeadline(time.Now().Add(socketWrite)); err != nil {
		return err
	}
	_, err := io.WriteString(c, s)
	return err
}

// checkPeer lets our own user and root in: whoever may ask for a push may also make files
// disappear from this server, and whoever may ask for a fetch may have files written.
func checkPeer(c net.Conn) error {
	uid, err := peerUID(c)
	if err != nil {
		return fmt.Errorf("check peer: %w", err)
	}
	return checkUID(uid, uint32(os.Geteuid()))
}

// peerUID is the user of the program at the other end: who connected, or who listens.
func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is no unix socket", c.LocalAddr().Network())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

func checkUID(peer, own uint32) error {
	if peer != 0 && peer != own {
		return fmt.Errorf("this sidecar answers user %d and root only, and user %d asked: run walbaton as the user that runs PostgreSQL", own, peer)
	}
	return nil
}

// parseRequest takes a request line apart. Paths come back absolute.
func parseRequest(line string) (verb string, words []string, err error) {
	rest := strings.TrimSuffix(line, "\n")
	for len(words) == 0 || rest != "" {
		q, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return "", nil, fmt.Errorf("read request %.80q: a word is not in quotes", line)
		}
		w, err := strconv.Unquote(q)
		if err != nil {
			return "", nil, fmt.Errorf("read request %.80q: %w", line, err)
		}
		words = append(words, w)
		rest = strings.TrimPrefix(rest[len(q):], " ")
	}
	if words[0] != "walbaton/1" {
		return "", nil, fmt.Errorf("read request: it is in %.20q, and this sidecar speaks walbaton/1: install walbaton-wal of the same version", words[0])
	}
	switch {
	case len(words) == 4 && words[1] == "push":
		path, err := absolute(words[2], words[3])
		return "push", []string{path}, err
	case len(words) == 5 && words[1] == "fetch":
		dest, err := absolute(words[3], words[4])
		return "fetch", []string{words[2], dest}, err
	case len(words) == 4 && words[1] == "cleanup":
		return "cleanup", words[2:3], nil
	case len(words) == 3 && (words[1] == "explain" || words[1] == "resolve" || words[1] == "expire"):
		return words[1], words[2:], nil
	}
	return "", nil, fmt.Errorf("read request: %.80q is none of push, fetch, cleanup, explain, resolve and expire with their words", strings.Join(words[1:], " "))
}

func absolute(path, dir string) (string, error) {
	if path == "" {
		return "", errors.New("read request: the path is empty")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("read request: the path %q is relative, and the working directory is not known: give an absolute one", path)
	}
	return filepath.Clean(path), nil
}

// sleep waits for d, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
