package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// serverFiles is what a data directory says about its server.
type serverFiles struct {
	err        error // pg_control or PG_VERSION cannot be read
	major      int
	control    wal.Control
	postmaster postmaster
	running    bool // the process in postmaster.pid is there
}

// postmaster is postmaster.pid (miscadmin.h, LOCK_FILE_LINE_*). Zero when there is none.
type postmaster struct {
	pid     int // negative: a server in single-user mode
	started time.Time
	port    int
	socket  string // folder
	address string
	status  string // starting, stopping, ready (accepts connections), standby (does not, since hot_standby is off)
}

func readServerFiles(dir string) serverFiles {
	var f serverFiles
	f.major, f.err = readMajor(dir)
	if f.err == nil {
		f.control, f.err = readControl(dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err == nil {
		f.postmaster = parsePostmaster(string(b))
		f.running = f.postmaster.alive(dir)
	}
	return f
}

// whyUnreadable says why a data directory says nothing about its server, and what to do.
func whyUnreadable(dir string) error {
	const check = "check postgresql.data_dir in Patroni's configuration, or give --postgres-data-dir"
	const asPostgres = "run the sidecar as the user that runs PostgreSQL"
	_, err := readMajor(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("PostgreSQL's data directory %s is closed to this user; %s", dir, asPostgres)
	case errors.Is(err, fs.ErrNotExist) && !exists(dir):
		return fmt.Errorf("PostgreSQL's data directory %s is not there yet; %s", dir, check)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is not a data directory yet, it has no PG_VERSION; %s", dir, check)
	case err == nil:
		_, err = readControl(dir)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("PostgreSQL's data directory %s is closed to this user; %s", dir, asPostgres)
	case err != nil:
		return fmt.Errorf("PostgreSQL's data directory %s cannot be read: %w", dir, bare(err))
	}
	return fmt.Errorf("PostgreSQL's data directory %s was not read yet", dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func readMajor(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read PG_VERSION: %w", err)
	}
	return n, nil
}

func readControl(dir string) (wal.Control, error) {
	r, err := os.Open(filepath.Join(dir, "global", "pg_control"))
	if err != nil {
		return wal.Control{}, err
	}
	defer r.Close()
	return wal.ReadControl(r)
}

func parsePostmaster(s string) postmaster {
	lines := strings.Split(s, "\n")
	line := func(n int) string {
		if n > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[n-1])
	}
	var p postmaster
	p.pid, _ = strconv.Atoi(line(1)) // 0 when it is just being written: then nothing is known of it
	p.port, _ = strconv.Atoi(line(4))
	if s, err := strconv.ParseInt(line(3), 10, 64); err == nil {
		p.started = time.Unix(s, 0)
	}
	p.socket, p.address, p.status = line(5), line(6), line(8)
	return p
}

// alive says whether the server that wrote postmaster.pid in dir still runs. Where it has process
// numbers of its own (another container of the pod) its port answers for it.
func (p postmaster) alive(dir string) bool {
	pid := max(p.pid, -p.pid)
	if pid == 0 {
		return false
	}
	if err := syscall.Kill(pid, 0); err == nil || errors.Is(err, syscall.EPERM) {
		// A number may be in use again, after a crash of the machine for instance. A server works in
		// its data directory; where that cannot be read the benefit of the doubt is its.
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil || sameFolder(cwd, dir) {
			return true
		}
	}
	return p.listens()
}

func sameFolder(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// listens says whether anybody accepts connections where this server said it would.
func (p postmaster) listens() bool {
	if p.port == 0 {
		return false
	}
	network, address := "unix", filepath.Join(p.socket, fmt.Sprintf(".s.PGSQL.%d", p.port))
	if p.socket == "" || !exists(address) {
		network, address = "tcp", net.JoinHostPort(p.host(), strconv.Itoa(p.port))
	}
	c, err := net.DialTimeout(network, address, 300*time.Millisecond)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// host is where a client on this machine reaches the first address that the server listens on.
func (p postmaster) host() string {
	switch p.address {
	case "", "*", "0.0.0.0":
		return "127.0.0.1"
	case "::":
		return "::1"
	}
	return p.address
}

// connects says that the server accepts connections.
func (f serverFiles) connects() bool {
	return f.err == nil && f.running && f.postmaster.pid > 0 && f.postmaster.status == "ready"
}

// server is the answer of the files alone.
func (f serverFiles) server() archiver.Server {
	s := archiver.Server{State: f.state()}
	if f.err != nil {
		return s
	}
	c := f.control
	s.SystemID, s.Major, s.SegmentSize = c.SystemID, f.major, c.SegmentSize
	// Right after a promotion only the recovery's timeline is the new one.
	s.Timeline = max(c.RedoTimeline, c.MinRecoveryTimeline)
	s.Flush, s.Redo = max(c.Checkpoint, c.MinRecovery), c.Redo
	switch c.State {
	case wal.DBInProduction, wal.DBShuttingDown, wal.DBShutDown, wal.DBCrashRecovery:
		s.WasPrimary = true
	}
	return s
}

func (f serverFiles) state() archiver.ServerState {
	switch {
	case !f.running && f.err != nil:
		return archiver.ServerUnknown
	case !f.running:
		return archiver.ServerStopped
	case f.postmaster.pid < 0:
		return archiver.ServerStarting // in single-user mode: recovering after a crash, for nobody to connect
	}
	switch f.postmaster.status {
	case "stopping":
		return archiver.ServerStopping
	case "ready", "standby":
		switch {
		case f.err != nil:
			return archiver.ServerStarting // it runs, and nothing says as what
		case f.control.State == wal.DBInProduction:
			return archiver.ServerPrimary
		}
		return archiver.ServerStandby
	}
	return archiver.ServerStarting
}

// startSlack bounds the time in seconds between the two clocks that a starting server reads: the one for
// postmaster.pid and, after it made its shared memory, the one for pg_postmaster_start_time().
const startSlack = 60

// same refuses an answer of another server. Through a proxy or a wrong DSN a standby
// would get the primary's answer, and both have the same system identifier.
func (f serverFiles) same(a sqlAnswer) error {
	if f.err != nil {
		return f.err
	}
	if a.systemID != f.control.SystemID {
		return fmt.Errorf("check server: the one that answers has system identifier %d, the data directory %d: see postgres.dsn", a.systemID, f.control.SystemID)
	}
	later := a.started.Unix() - f.postmaster.started.Unix()
	if later < -1 || later > startSlack {
		return fmt.Errorf("check server: the one that answers was started at %v, the one in postmaster.pid at %v: see postgres.dsn",
			a.started.UTC().Format(time.RFC3339), f.postmaster.started.UTC().Format(time.RFC3339))
	}
	return nil
}
