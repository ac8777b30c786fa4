package servers

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshdBinary is Debian's, of its package openssh-server (.ci/install). sshd wants to be called by its whole path.
const sshdBinary = "/usr/sbin/sshd"

// SSHDOptions say what an SSH server is like.
type SSHDOptions struct {
	// Dir is its folder: the archive below data/. Users other than ours must get into it. Keys that are there stay.
	Dir string
	// Accounts are the ways in, each at a port of its own. The first one's user owns data/.
	Accounts []Account
	// Addresses are theirs, for a server that starts again; empty means free ports.
	Addresses []string
	// Config are further lines of sshd_config, for all accounts.
	Config []string
}

// Account is one way into an SSH server.
type Account struct {
	User   string   // of this machine; see Users
	Config []string // lines of sshd_config, for it alone
}

// Users are two users of this machine who own nothing. Who is not root can only be himself, twice.
func Users() (first, second string, err error) {
	if os.Geteuid() == 0 {
		return "nobody", "games", nil
	}
	u, err := user.Current()
	if err != nil {
		return "", "", err
	}
	return u.Username, u.Username, nil
}

// SSH is a running SSH server.
type SSH struct {
	*Server
	Addresses  []string // of each account, 127.0.0.1:port
	KeyFile    string   // logs in to every account
	KnownHosts string   // has the server's key
	Data       string   // the archive's folder
	users      []string
}

// URL is that of the store in the folder data/ for one account, for the sftp driver.
func (s *SSH) URL(account int) string {
	q := url.Values{"key_file": {s.KeyFile}, "known_hosts_file": {s.KnownHosts}}
	u := url.URL{Scheme: "sftp", User: url.User(s.users[account]), Host: s.Addresses[account], Path: s.Data, RawQuery: q.Encode()}
	return u.String()
}

// SSHD starts OpenSSH's server, as root when we are, and as an ordinary user otherwise.
func SSHD(ctx context.Context, o SSHDOptions) (*SSH, error) {
	s := &SSH{Server: &Server{output: new(tail), exited: make(chan struct{})}, Addresses: o.Addresses,
		KeyFile: filepath.Join(o.Dir, "id_ed25519"), KnownHosts: filepath.Join(o.Dir, "known_hosts"), Data: filepath.Join(o.Dir, "data")}
	config, err := s.prepare(o)
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s.cmd = exec.Command(sshdBinary, "-D", "-e", "-f", config)
	if err := s.run(); err != nil {
		return nil, fmt.Errorf("start sshd: %w (.ci/install installs it)", err)
	}
	if err := s.greets(ctx); err != nil {
		return nil, fmt.Errorf("start sshd: %w; its last words: %s", errors.Join(err, s.Kill()), s.output)
	}
	return s, nil
}

// prepare writes the server's files and returns the name of its configuration.
func (s *SSH) prepare(o SSHDOptions) (config string, err error) {
	if os.Geteuid() == 0 {
		err = os.MkdirAll("/run/sshd", 0o755) // where sshd locks its unprivileged half in
	}
	err = errors.Join(err, os.MkdirAll(s.Data, 0o755))
	hostKey, hostErr := makeKey(filepath.Join(o.Dir, "host_key"))
	clientKey, clientErr := makeKey(s.KeyFile)
	if err := errors.Join(err, hostErr, clientErr); err != nil {
		return "", err
	}
	lines := []string{"ListenAddress 127.0.0.1", "HostKey " + filepath.Join(o.Dir, "host_key"), "PidFile none",
		"AuthorizedKeysFile " + filepath.Join(o.Dir, "authorized_keys"), "StrictModes no", "UsePAM no", "UseDNS no", "PasswordAuthentication no",
		"KbdInteractiveAuthentication no", "MaxStartups 200", "LogLevel VERBOSE", "Subsystem sftp internal-sftp"}
	lines = append(lines, o.Config...)
	var blocks, hosts []string
	for i, account := range o.Accounts {
		if len(s.Addresses) <= i {
			address, err := freeAddress()
			if err != nil {
				return "", err
			}
			s.Addresses = append(s.Addresses, address)
		}
		_, port, err := net.SplitHostPort(s.Addresses[i])
		if err != nil {
			return "", err
		}
		lines = append(lines, "Port "+port)
		blocks = append(append(blocks, "Match LocalPort "+port), account.Config...)
		hosts = append(hosts, knownhosts.Line([]string{s.Addresses[i]}, hostKey))
		s.users = append(s.users, account.User)
	}
	config = filepath.Join(o.Dir, "sshd_config")
	return config, errors.Join(own(s.Data, s.users[0]), writeLines(config, append(lines, blocks...)), writeLines(s.KnownHosts, hosts),
		writeLines(filepath.Join(o.Dir, "authorized_keys"), []string{string(ssh.MarshalAuthorizedKey(clientKey))}))
}

func writeLines(name string, lines []string) error {
	return os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// own gives a folder to a user, where we may.
func own(name, owner string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return errors.Join(err1, err2, os.Chown(name, uid, gid))
}

// NewKey writes a private key that no server knows.
func NewKey(name string) error {
	_, err := makeKey(name)
	return err
}

// makeKey writes a new private key, unless there is one, and returns its public half.
func makeKey(name string) (ssh.PublicKey, error) {
	if data, err := os.ReadFile(name); err == nil {
		s, err := ssh.ParsePrivateKey(data)
		if err != nil {
			return nil, err
		}
		return s.PublicKey(), nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}

// greets returns when the server shows its banner at every port.
func (s *SSH) greets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for i := 0; i < len(s.Addresses); {
		if greeting(s.Addresses[i]) {
			i++
			continue
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %v", s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func greeting(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	banner := make([]byte, 4)
	_, err = conn.Read(banner)
	return err == nil && string(banner) == "SSH-"
}

// Stop ends the server and its sessions, each of which is a process that would go on alone.
func (s *SSH) Stop() error {
	for deadline := time.Now().Add(stopTime); s.Cut() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	return s.Server.Stop()
}

// Kill ends the server and its sessions as a crash of the machine would.
func (s *SSH) Kill() error {
	_ = s.Signal(syscall.SIGSTOP) // so that it begins no session meanwhile; it may have ended
	for _, pid := range descendants(s.cmd.Process.Pid) {
		kill(pid)
	}
	return s.Server.Kill()
}

// Cut ends every connection to the server, and not the server, and says how many of its processes there were. Only the last ones of
// each family are killed: the others end by themselves, and bury them.
func (s *SSH) Cut() (processes int) {
	all := descendants(s.cmd.Process.Pid)
	for _, pid := range all {
		if len(descendants(pid)) == 0 {
			kill(pid)
		}
	}
	return len(all)
}

func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it may just have ended
	}
}

// descendants finds the children of a process, and theirs.
func descendants(pid int) (found []int) {
	children := make(map[int][]int)
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …: the name may hold anything, so from its last parenthesis on.
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		child, err1 := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], child)
		}
	}
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		found = append(found, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return found
}
