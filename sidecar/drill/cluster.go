package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// What archives.
type Archiver string

const (
	Walbaton Archiver = "walbaton" // a sidecar beside each node
	Copy     Archiver = "cp"       // the control: archive_command = cp, archive_mode = on, no sidecar
	Nothing  Archiver = "true"     // archive_command = /bin/true, no sidecar: how fast things are without any archive
	Nobody   Archiver = "nobody"   // archive_mode = off, no archive_command, no sidecar: a cluster that is to get an archive
)

// Where the archive is.
type Place string

const (
	Files Place = "files"
	MinIO Place = "minio"
)

const (
	pgBin  = "/usr/lib/postgresql/15/bin"
	nodes  = 3
	dbName = "postgres"

	folderPrefix = "walbaton-drill-"
)

// Options of a cluster; the zero value is walbaton, a folder, archive_mode=always and segments of 1 MB.
type Options struct {
	Archiver    Archiver
	DCS         DCS      // "" is $WALBATON_DRILL_DCS, or etcd
	Apart       bool     // each node in a network namespace of its own, so that it can be cut off; on Kubernetes always
	Machines    bool     // each node has, besides a network, a file system of its own: see machine.go
	Scope       string   // Patroni's, "drill" by default
	Beside      *Cluster // share the DCS and the archive of that cluster, in a scope of one's own; stop this one first
	Place       Place
	Second      bool              // a second archive, in a folder, which is to have every file too
	ArchiveMode string            // "always" or "on"
	SegmentMB   int               // wal_segment_size
	Binaries    string            // a folder with walbaton and walbaton-wal; "" builds them from the checkout
	Failsafe    bool              // Patroni's failsafe_mode
	Parameters  map[string]string // more PostgreSQL settings
	Cleanup     bool              // archive_cleanup_command is set
	Bare        bool              // Patroni's configuration names no archive: that is for `walbaton setup`
	Settings    string            // more lines of walbaton.yml
	Identity    string            // an age identity, with which one restores; the nodes do not have it
	Dynamic     string            // more lines of Patroni's dynamic configuration, at the cluster's bootstrap
	Tags        map[string]string // Patroni's tags by the name of the node, as YAML: "walbaton: designated"
	DiskMB      map[string]int    // the size of the disk of a node, by its name; it is the machine's by default
	Log         func(format string, args ...any)
}

// Cluster is three nodes n1, n2, n3 (m1, m2, m3 beside another cluster), a DCS and an archive. Everything it starts has its working directory below Dir:
// that is how it is found again, whoever its parent is by now.
type Cluster struct {
	Dir   string
	Nodes []*Node
	Store Store

	Second Store // with Options.Second, else nil

	o        Options
	restored int // servers restored so far
	solos    atomic.Int32
	base     int // first of the 100 ports that the cluster uses
	cred     *syscall.Credential
	dcs      dcsServer
}

// complete fills in what was left out.
func (o *Options) complete() error {
	if o.Archiver == "" {
		o.Archiver = Walbaton
	}
	if o.Place == "" {
		o.Place = Files
	}
	if o.ArchiveMode == "" {
		o.ArchiveMode = "always"
	}
	switch o.Archiver {
	case Copy:
		o.ArchiveMode = "on"
	case Nobody:
		o.ArchiveMode = "off"
	}
	if o.DCS == "" {
		o.DCS = DCS(cmp.Or(os.Getenv("WALBATON_DRILL_DCS"), string(Etcd)))
	}
	if o.Beside != nil {
		o.DCS, o.Place, o.Binaries = o.Beside.o.DCS, o.Beside.o.Place, cmp.Or(o.Binaries, o.Beside.Bin(""))
		if o.Scope == o.Beside.o.Scope || o.Apart || o.Beside.o.Apart {
			return errors.New("a cluster beside another one: it needs another scope, and neither can be apart")
		}
	}
	if o.DCS == Kubernetes || o.Machines { // Endpoints refuse addresses of loopback
		o.Apart = true
	}
	if o.Scope == "" {
		o.Scope = "drill"
	}
	if o.SegmentMB == 0 {
		o.SegmentMB = 1
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return nil
}

// New prepares the folder of a cluster, and builds walbaton, without starting anything. Stop removes the folder.
func New(ctx context.Context, o Options) (c *Cluster, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := prerequisites(); err != nil {
		return nil, err
	}
	c = &Cluster{o: o}
	if c.cred, err = credential(); err != nil {
		return nil, err
	}
	if c.base, err = freePorts(); err != nil {
		return nil, err
	}
	// Not below TMPDIR: user postgres must be able to search every folder above.
	parent := os.Getenv("WALBATON_DRILLS")
	if parent == "" {
		parent = "/tmp"
	}
	if c.Dir, err = os.MkdirTemp(parent, folderPrefix); err != nil {
		return nil, err
	}
	dir := c.Dir
	defer func() {
		if err != nil {
			unmount(dir)
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := c.binaries(ctx); err != nil {
		return nil, err
	}
	if o.Identity != "" {
		if err := errors.Join(os.WriteFile(c.identity(), []byte(o.Identity+"\n"), 0o600), c.own(c.identity())); err != nil {
			return nil, err
		}
	}
	if err := c.servers(); err != nil {
		return nil, err
	}
	for i := 1; i <= nodes; i++ {
		n, err := c.newNode(i)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c, nil
}

// servers makes the archive and the DCS, or takes those of the cluster beside.
func (c *Cluster) servers() (err error) {
	if c.o.Beside != nil {
		c.Store, c.dcs = c.o.Beside.Store, c.o.Beside.dcs
		return nil
	}
	switch c.o.Place {
	case Files:
		c.Store, err = newFolder(c, "store")
	case MinIO:
		c.Store, err = newMinIO(c)
	default:
		err = fmt.Errorf("archive in %q: no such place", c.o.Place)
	}
	if err == nil && c.o.Second {
		c.Second, err = newFolder(c, "second")
	}
	if err != nil {
		return err
	}
	c.dcs, err = c.newDCS()
	return err
}

// Start starts the archive, the DCS and the nodes, n1 first, and returns when two standbys stream from a primary.
func (c *Cluster) Start(ctx context.Context) error {
	if c.o.Beside == nil {
		if err := errors.Join(c.connect(ctx), c.Store.start(ctx)); err != nil {
			return err
		}
		if err := c.StartDCS(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := n.StartSidecar(ctx); err != nil {
			return err
		}
	}
	return c.StartPatroni(ctx)
}

// StartPatroni starts Patroni of all nodes, n1 first, and returns when two standbys stream from n1.
func (c *Cluster) StartPatroni(ctx context.Context) error {
	first, rest := c.Nodes[0], c.Nodes[1:]
	if err := first.StartPatroni(ctx); err != nil {
		return err
	}
	if err := until(ctx, 60*time.Second, first.Name+" leads", first.leads); err != nil {
		return err
	}
	for _, n := range rest {
		if err := n.StartPatroni(ctx); err != nil {
			return err
		}
	}
	return c.AllStreaming(ctx)
}

// connect makes the network of a cluster whose nodes are apart.
func (c *Cluster) connect(ctx context.Context) error {
	if !c.o.Apart {
		return nil
	}
	if err := c.lay(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := errors.Join(n.plug(ctx), n.furnish(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// Stop kills everything below Dir and removes it; a second time it does nothing. It needs no context: it does not wait for anyone's
// consent.
func (c *Cluster) Stop() error {
	err := Remove(c.Dir)
	if c.o.Apart && c.Nodes[0].network != nil {
		err = errors.Join(err, ip(context.Background(), nil, []string{"link del " + bridge}))
		c.Nodes[0].network = nil
	}
	return err
}

// Remove kills every process that works below a cluster's folder, also of a cluster that another program left running,
// and deletes the folder.
func Remove(dir string) error {
	if !strings.HasPrefix(filepath.Base(dir), folderPrefix) || !filepath.IsAbs(dir) {
		return fmt.Errorf("remove %s: this is not the folder of a drill", dir)
	}
	killBelow(dir)
	unmount(dir)
	return os.RemoveAll(dir)
}

// Logs are the last lines of every log below Dir, for a person who wants to know why a drill failed.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	files, _ := filepath.Glob(c.Dir + "/*/log/*.log")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 {
			continue
		}
		all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", strings.TrimPrefix(f, c.Dir+"/"), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// Bin is the path of a program that the cluster uses: walbaton or walbaton-wal.
func (c *Cluster) Bin(name string) string { return filepath.Join(c.Dir, "bin", name) }

// identity is the path of a file with Options.Identity.
func (c *Cluster) identity() string { return filepath.Join(c.Dir, "identity") }

// port is the i-th port of the cluster.
func (c *Cluster) port(i int) int { return c.base + i }

// binaries builds walbaton and walbaton-wal, or copies them from Options.Binaries or $WALBATON_BIN.
func (c *Cluster) binaries(ctx context.Context) error {
	if c.o.Archiver != Walbaton {
		return nil
	}
	bin := filepath.Join(c.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	from := c.o.Binaries
	if from == "" {
		from = os.Getenv("WALBATON_BIN")
	}
	if from == "" {
		return Build(ctx, bin)
	}
	return Run(exec.CommandContext(ctx, "cp", filepath.Join(from, "walbaton"), filepath.Join(from, "walbaton-wal"), bin))
}

// Build builds walbaton and walbaton-wal from the checkout that holds the working directory into folder bin.
func Build(ctx context.Context, bin string) error {
	for name, pkg := range map[string]string{"walbaton": "sidecar", "walbaton-wal": "sidecar/walbaton-wal"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(bin, name), "github.com/walbaton/walbaton/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it removes its temporary folder
		if err := Run(cmd); err != nil {
			return err
		}
	}
	return nil
}

// prerequisites says what to install when something is missing.
func prerequisites() error {
	var missing []string
	for _, name := range []string{pgBin + "/postgres", "patroni", "etcd", "zstd", "age"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("start a cluster: no %s here; .ci/install installs what drills need", strings.Join(missing, ", "))
	}
	return nil
}

// freePorts returns the first of 100 consecutive ports of which those that a cluster uses are free.
func freePorts() (int, error) {
	for base := 17400; base < 19400; base += 100 {
		if portsFree(base) {
			return base, nil
		}
	}
	return 0, errors.New("find ports: none of 17400 to 19400 is free")
}

func portsFree(base int) bool {
	for i := range lastPort {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// Ports, counted from the first one of the cluster.
const (
	portDCS       = 0
	portDCSPeer   = 1
	portMinIO     = 2
	portDCSGossip = 3
	portPG        = 10 // + number of the node
	portREST      = 20
	portSidecar   = 30
	portRestored  = 40 // + number of the restored server
	lastPort      = 50
	portSolos     = 50 // + a number: each Solo has one for PostgreSQL and one for its sidecar
	portSolosWeb  = 75
)
