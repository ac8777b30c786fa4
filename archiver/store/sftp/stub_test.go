package sftp_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/walbaton/walbaton/archiver/store/sftp"
)

// stub is as much of an SSH server with SFTP (draft-ietf-secsh-filexfer-02) as the driver uses, over a folder: the quick tests need
// no server. What OpenSSH does is seen in servers_test.go.
type stub struct {
	url    string // with key and known host
	dir    string
	banner string

	mu       sync.Mutex
	requests []string                       // what was asked, in order, without the writes and closes
	fail     func(request, name string) int // a status instead of an answer; 0 lets it be answered
}

// The requests and answers, by number.
const (
	fxInit, fxVersion                                              = 1, 2
	fxOpen, fxClose, fxRead, fxWrite, fxLstat                      = 3, 4, 5, 6, 7
	fxOpendir, fxReaddir, fxRemove, fxMkdir, fxRmdir, fxStat       = 11, 12, 13, 14, 15, 17
	fxStatus, fxHandle, fxData, fxName, fxAttrs, fxExtended        = 101, 102, 103, 104, 105, 200
	statusOK, statusEOF, statusNoFile, statusDenied, statusFailure = 0, 1, 2, 3, 4
	flagWrite, flagCreate, flagExclusive                           = 2, 8, 32
)

func newStub(t *testing.T, banner string) *stub {
	t.Helper()
	s := &stub{dir: t.TempDir(), banner: banner}
	config := &ssh.ServerConfig{ServerVersion: banner, PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	host := newSigner(t, filepath.Join(t.TempDir(), "host"))
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	newSigner(t, filepath.Join(files, "key"))
	known := filepath.Join(files, "known_hosts")
	if err := os.WriteFile(known, []byte(knownhosts.Line([]string{l.Addr().String()}, host.PublicKey())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.url = "sftp://wal@" + l.Addr().String() + s.dir + "?key_file=" + filepath.Join(files, "key") + "&known_hosts_file=" + known
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { s.connection(conn, config) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

func newSigner(t *testing.T, name string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func (s *stub) open(t *testing.T) *sftp.Store {
	t.Helper()
	store, err := sftp.Open(s.url, sftp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// seen returns the requests since it was last called.
func (s *stub) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.requests
	s.requests = nil
	return seen
}

func (s *stub) connection(conn net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	var wg sync.WaitGroup
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		})
		wg.Go(func() {
			defer channel.Close()
			p := &protocol{stub: s, channel: channel, files: make(map[string]*os.File)}
			for p.next() == nil {
			}
			for _, f := range p.files {
				f.Close()
			}
		})
	}
	wg.Wait()
}

// protocol is one SFTP session.
type protocol struct {
	*stub
	channel ssh.Channel
	files   map[string]*os.File
	in      []byte // of the request that is being read
}

func (p *protocol) number() uint32 {
	n := binary.BigEndian.Uint32(p.in)
	p.in = p.in[4:]
	return n
}

func (p *protocol) text() string {
	n := p.number()
	s := string(p.in[:n])
	p.in = p.in[n:]
	return s
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }

func (p *protocol) send(kind byte, parts ...[]byte) error {
	body := append([]byte{kind}, slices.Concat(parts...)...)
	_, err := p.channel.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// next answers one request.
func (p *protocol) next() error {
	var length [4]byte
	if _, err := io.ReadFull(p.channel, length[:]); err != nil {
		return err
	}
	p.in = make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(p.channel, p.in); err != nil {
		return err
	}
	kind := p.in[0]
	p.in = p.in[1:]
	if kind == fxInit {
		return p.send(fxVersion, []byte{0, 0, 0, 3}, text("hardlink@openssh.com"), text("1"), text("fsync@openssh.com"), text("1"))
	}
	id := binary.BigEndian.AppendUint32(nil, p.number())
	kindOut, body, err := p.answer(kind)
	if err != nil {
		status := statusFailure
		var told errStatus
		switch {
		case errors.As(err, &told):
			status = int(told)
		case err == io.EOF:
			status = statusEOF
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			status = statusNoFile
		case errors.Is(err, fs.ErrPermission):
			status = statusDenied
		}
		kindOut, body = fxStatus, slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(status)), text("says the stub"), text(""))
	}
	if kindOut == fxStatus && err == nil {
		body = slices.Concat([]byte{0, 0, 0, statusOK}, text(""), text(""))
	}
	return p.send(kindOut, id, body)
}

// errStatus is a status to answer with.
type errStatus int

func (errStatus) Error() string { return "says the test" }

// note remembers a request, and fails it when the test says so.
func (p *protocol) note(request, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	short := strings.TrimPrefix(name, p.dir)
	if i := strings.Index(short, ".walbaton-"); i >= 0 {
		short = short[:i] + "TEMP"
	}
	p.requests = append(p.requests, request+" "+short)
	if p.fail != nil {
		if status := p.fail(request, short); status != 0 {
			return errStatus(status)
		}
	}
	return nil
}

func (p *protocol) answer(kind byte) (answer byte, body []byte, err error) {
	name := p.text()
	file := p.files[name]
	switch kind {
	case fxOpen:
		return p.openFile(name, p.number())
	case fxClose:
		delete(p.files, name)
		return fxStatus, nil, file.Close()
	case fxRead:
		offset := int64(p.number())<<32 | int64(p.number())
		data := make([]byte, p.number())
		n, err := file.ReadAt(data, offset)
		if n > 0 {
			err = nil
		}
		return fxData, text(string(data[:n])), err
	case fxWrite:
		offset := int64(p.number())<<32 | int64(p.number())
		_, err := file.WriteAt([]byte(p.text()), offset)
		return fxStatus, nil, err
	case fxLstat, fxStat:
		if err := p.note(map[byte]string{fxLstat: "lstat", fxStat: "stat"}[kind], name); err != nil {
			return 0, nil, err
		}
		info, err := os.Lstat(name)
		if err != nil {
			return 0, nil, err
		}
		return fxAttrs, attributes(info), nil
	case fxOpendir:
		if err := p.note("opendir", name); err != nil {
			return 0, nil, err
		}
		return p.handle(os.Open(name))
	case fxReaddir:
		return readDir(file)
	case fxRemove:
		if err := p.note("remove", name); err != nil {
			return 0, nil, err
		}
		return fxStatus, nil, syscall.Unlink(name)
	case fxMkdir:
		if err := p.note("mkdir", name); err != nil {
			return 0, nil, err
		}
		return fxStatus, nil, os.Mkdir(name, 0o755)
	case fxExtended:
		return p.extended(name)
	}
	return 0, nil, errStatus(8) // unsupported
}

func (p *protocol) extended(request string) (byte, []byte, error) {
	name := p.text()
	if request == "hardlink@openssh.com" {
		to := p.text()
		if err := p.note("hardlink", to); err != nil {
			return 0, nil, err
		}
		return fxStatus, nil, os.Link(name, to)
	}
	if request == "posix-rename@openssh.com" { // for mutants
		return fxStatus, nil, os.Rename(name, p.text())
	}
	file := p.files[name]
	if err := p.note("fsync", file.Name()); err != nil {
		return 0, nil, err
	}
	return fxStatus, nil, file.Sync()
}

func (p *protocol) openFile(name string, flags uint32) (byte, []byte, error) {
	request, mode := "open", os.O_RDONLY
	if flags&flagWrite != 0 {
		request, mode = "create", os.O_WRONLY
	}
	if flags&flagCreate != 0 {
		mode |= os.O_CREATE
	}
	if flags&flagExclusive != 0 {
		mode |= os.O_EXCL
	}
	if err := p.note(request, name); err != nil {
		return 0, nil, err
	}
	return p.handle(os.OpenFile(name, mode, 0o644))
}

func (p *protocol) handle(f *os.File, err error) (byte, []byte, error) {
	if err != nil {
		return 0, nil, err
	}
	handle := rand.Text()
	p.files[handle] = f
	return fxHandle, text(handle), nil
}

func readDir(f *os.File) (byte, []byte, error) {
	entries, err := f.ReadDir(100)
	if err != nil {
		return 0, nil, err
	}
	body, n := []byte(nil), uint32(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			body = slices.Concat(body, text(e.Name()), text(""), attributes(info))
			n++
		}
	}
	return fxName, append(binary.BigEndian.AppendUint32(nil, n), body...), nil
}

// attributes are size, mode and times.
func attributes(info fs.FileInfo) []byte {
	mode := uint32(info.Mode().Perm())
	switch {
	case info.IsDir():
		mode |= syscall.S_IFDIR
	case info.Mode().IsRegular():
		mode |= syscall.S_IFREG
	default:
		mode |= syscall.S_IFIFO
	}
	b := []byte{0, 0, 0, 1 | 4 | 8}
	b = binary.BigEndian.AppendUint64(b, uint64(info.Size()))
	b = binary.BigEndian.AppendUint32(b, mode)
	b = binary.BigEndian.AppendUint32(b, uint32(info.ModTime().Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(info.ModTime().Unix()))
}
