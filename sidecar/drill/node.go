package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/jackc/pgx/v5"
)

// Node is one PostgreSQL with its Patroni and, unless the archiver is Copy, its sidecar.
type Node struct {
	Name string
	Dir  string // <cluster>/<name>: pgdata, patroni.yml, walbaton.yml, log
	c    *Cluster
	no   int

	patroni, sidecar *process
	network          *process // keeps its namespaces, when the cluster's nodes are apart
	cuts             []rule
	bootstrap        string // more lines of Patroni's section bootstrap: how the first node of a cluster begins
}

func (c *Cluster) newNode(no int) (*Node, error) {
	n := &Node{Name: fmt.Sprintf("n%d", no), c: c, no: no}
	if c.o.Beside != nil {
		n.Name = fmt.Sprintf("m%d", no) // two clusters may stream from one another
	}
	var err error
	if n.Dir, err = c.folder(n.Name); err != nil {
		return nil, err
	}
	if err := errors.Join(n.mount(), n.Install(filepath.Join(c.Dir, "bin")), n.writeConfig()); err != nil {
		return nil, err
	}
	return n, nil
}

// Start starts the sidecar, so that PostgreSQL never archives without it, and Patroni. It does not wait for them.
func (n *Node) Start(ctx context.Context) error {
	return errors.Join(n.StartSidecar(ctx), n.StartPatroni(ctx))
}

// StartPatroni starts Patroni alone, which starts PostgreSQL or finds it running.
func (n *Node) StartPatroni(context.Context) (err error) {
	env := n.c.dcs.env(n)
	if n.c.o.Bare {
		env = append(env, n.environment()...)
	}
	n.patroni, err = n.spawn("patroni", env, "patroni", filepath.Join(n.Dir, "patroni.yml"))
	return err
}

// environment is what makes one archive_command do for all nodes of this machine: PostgreSQL and what it calls have it from Patroni.
func (n *Node) environment() []string {
	return []string{"WALBATON_SOCKET=" + n.Socket(), "WALBATON_CONFIG=" + n.config(), "PGBACKREST_CONFIG=" + filepath.Join(n.Dir, "pgbackrest.conf")}
}

// StopPatroni is SIGTERM to Patroni, as an administrator stops the service: PostgreSQL shuts down, and the leader key is given
// back. It returns when Patroni has ended.
func (n *Node) StopPatroni(ctx context.Context) error {
	if err := n.patroni.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return until(ctx, clusterLimit, "Patroni of "+n.Name+" has ended", func(context.Context) error {
		select {
		case <-n.patroni.done:
			return nil
		default:
			return errors.New("it runs")
		}
	})
}

// Freeze stops the clock of everything that runs on the node, as a hypervisor does that moves it. Packets for it are queued.
func (n *Node) Freeze(context.Context) error { return signalBelow(n.Dir, syscall.SIGSTOP) }

// Thaw lets it go on.
func (n *Node) Thaw(context.Context) error { return signalBelow(n.Dir, syscall.SIGCONT) }

// StartSidecar starts the sidecar alone.
func (n *Node) StartSidecar(context.Context) error {
	if n.c.o.Archiver != Walbaton {
		return nil
	}
	var err error
	env := append(n.c.Store.Env(), n.c.dcs.env(n)...)
	n.sidecar, err = n.spawn("sidecar", env, n.bin("walbaton"), "sidecar", "--config", n.config())
	return err
}

// Kill is kill -9 of everything that runs on the node, as when the machine dies: Patroni, PostgreSQL with its
// children, what its archiver called, the sidecar. The disk stays.
func (n *Node) Kill(context.Context) error {
	killBelow(n.Dir)
	// A dying process leaves its folder before its ports are free: those that we started are waited for.
	n.patroni.kill()
	n.sidecar.kill()
	return nil
}

// KillSidecar is kill -9 of the sidecar alone.
func (n *Node) KillSidecar(context.Context) error {
	n.sidecar.kill()
	return nil
}

// KillPostgres is kill -9 of the postmaster and its children; Patroni lives, and recovers it.
func (n *Node) KillPostgres(context.Context) error {
	killBelow(n.PGData())
	return nil
}

// KillPatroni is kill -9 of Patroni alone. PostgreSQL goes on, and when it was the primary it takes writes, until somebody
// stops it.
func (n *Node) KillPatroni(context.Context) error {
	n.patroni.kill()
	return nil
}

// PausePatroni stops Patroni's clock: it answers nobody and takes part in no election, until Resume.
func (n *Node) PausePatroni(context.Context) error { return n.patroni.signal(syscall.SIGSTOP) }

// ResumePatroni lets it go on.
func (n *Node) ResumePatroni(context.Context) error { return n.patroni.signal(syscall.SIGCONT) }

// StopPostgres is a fast shutdown of PostgreSQL by hand, which waits for its archiver.
func (n *Node) StopPostgres(ctx context.Context) error {
	return Run(n.inside(n.c.command(ctx, n.Dir, nil, "pg_ctl", "stop", "-m", "fast", "-t", "60", "-D", n.PGData())))
}

// Restart is Kill, and Start.
func (n *Node) Restart(ctx context.Context) error {
	return errors.Join(n.Kill(ctx), n.Start(ctx))
}

// Reinit loses the node's disk: Kill, and Start with an empty data directory, which Patroni fills with a new clone.
func (n *Node) Reinit(ctx context.Context) error {
	if err := n.Kill(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(n.PGData()); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Walbaton is a walbaton command as an administrator types it on the node. The settings are all in its walbaton.yml.
func (n *Node) Walbaton(ctx context.Context, verb string, args ...string) *exec.Cmd {
	cmd := n.c.Command(ctx, n.bin("walbaton"), append([]string{verb, "--config", n.config()}, args...)...)
	cmd.Env = append(cmd.Env, n.c.dcs.env(n)...)
	return n.inside(cmd)
}

// Page is where its sidecar's page is.
func (n *Node) Page() string { return "http://" + n.listen() + "/" }

// PGData is the data directory.
func (n *Node) PGData() string { return filepath.Join(n.disk(), "pgdata") }

// Socket is where the sidecar answers walbaton-wal.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "walbaton.sock") }

// bin is the path of walbaton or walbaton-wal on this node.
func (n *Node) bin(name string) string { return filepath.Join(n.Dir, "bin", name) }

func (n *Node) config() string { return filepath.Join(n.Dir, "walbaton.yml") }
func (n *Node) port() int      { return n.c.port(portPG + n.no) }
func (n *Node) host() string   { return n.c.host(atNode + n.no) }
func (n *Node) listen() string { return fmt.Sprintf("%s:%d", n.host(), n.c.port(portSidecar+n.no)) }
func (n *Node) rest() string   { return fmt.Sprintf("http://%s:%d", n.host(), n.c.port(portREST+n.no)) }

// spawn is Cluster.spawn in the node's folder and network.
func (n *Node) spawn(name string, env []string, argv ...string) (*process, error) {
	return n.c.logged(name, n.Dir, n.inside(n.c.command(context.Background(), n.Dir, env, argv...)))
}

// dsn is a connection string for the PostgreSQL that listens on a port.
func dsn(host string, port int) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable connect_timeout=3", host, port, dbName)
}

// DSN is the connection string of the node's PostgreSQL.
func (n *Node) DSN() string { return dsn(n.host(), n.port()) }

// Exec runs SQL statements on the node.
func (n *Node) Exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// query returns the one value that sql selects from the PostgreSQL that dsn names.
func query[T any](ctx context.Context, dsn, sql string, args ...any) (value T, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, err
}

// writable is nil when Patroni says that the node is the primary and PostgreSQL takes writes.
func (n *Node) writable(ctx context.Context) error {
	if code, _, err := get(ctx, n.rest()+"/primary"); err != nil || code != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s is not the primary: its Patroni answers %d", n.Name, code))
	}
	inRecovery, err := query[bool](ctx, n.DSN(), "select pg_is_in_recovery()")
	if err != nil {
		return err
	}
	if inRecovery {
		return fmt.Errorf("%s is in recovery", n.Name)
	}
	return nil
}

// leads is nil when Patroni says that the node has the leader key, and PostgreSQL is what a leader's has to be: it takes
// writes, or it is in recovery in a standby cluster.
func (n *Node) leads(ctx context.Context) error {
	if code, _, err := get(ctx, n.rest()+"/standby-leader"); err == nil && code == http.StatusOK {
		_, err = query[bool](ctx, n.DSN(), "select pg_is_in_recovery()")
		return err
	}
	return n.writable(ctx)
}

// Status is what the sidecar's /status.json says.
func (n *Node) Status(ctx context.Context) (json.RawMessage, error) {
	code, body, err := get(ctx, "http://"+n.listen()+"/status.json")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("status of %s: %d: %s", n.Name, code, body)
	}
	return body, nil
}

// Holder is the node that has the baton, as far as one of the sidecars knows.
func (c *Cluster) Holder(ctx context.Context) (*Node, error) {
	err := errors.New("no node has the baton")
	for _, n := range c.Nodes {
		text, e := n.Status(ctx)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		var status struct{ Baton struct{ Holder string } }
		if e := json.Unmarshal(text, &status); e != nil {
			return nil, fmt.Errorf("status of %s: %w", n.Name, e)
		}
		for _, h := range c.Nodes {
			if h.Name == status.Baton.Holder {
				return h, nil
			}
		}
	}
	return nil, err
}

// WAL returns the names of the complete segments, histories and so on in the node's pg_wal that have the given status:
// "ready", "done", or "" for any status and none.
func (n *Node) WAL(status string) ([]string, error) {
	dir := filepath.Join(n.PGData(), "pg_wal")
	if status != "" {
		dir = filepath.Join(dir, "archive_status")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if status != "" {
			var ok bool
			if name, ok = strings.CutSuffix(name, "."+status); !ok {
				continue
			}
		}
		if !e.IsDir() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// LoseWAL deletes segments and their status files from the node's pg_wal, as a bad disk does.
func (n *Node) LoseWAL(names ...string) error {
	dir := filepath.Join(n.PGData(), "pg_wal")
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
		for _, status := range []string{".ready", ".done"} {
			err := os.Remove(filepath.Join(dir, "archive_status", name+status))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Log is what a program of the node has written: "patroni", with PostgreSQL's own, or "sidecar".
func (n *Node) Log(program string) string {
	text, _ := os.ReadFile(filepath.Join(n.Dir, "log", program+".log")) // there is none before it starts
	return string(text)
}

// get asks an HTTP server and returns the status code and the body.
func get(ctx context.Context, url string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// archiveCommand is each node's own: with walbaton it names the node's socket.
func (n *Node) archiveCommand() string {
	if n.c.o.Bare {
		return ""
	}
	switch n.c.o.Archiver {
	case Copy:
		return fmt.Sprintf("cp %%p %s/%%f", strings.TrimPrefix(n.c.Store.URL(), "file://"))
	case Nothing:
		return "/bin/true"
	case Nobody:
		return ""
	}
	return fmt.Sprintf("%s push --socket %s %%p", n.bin("walbaton-wal"), n.Socket())
}

// Without walbaton there is none: a former primary copies its diverged last segment under its full name into the
// archive, and a standby that reads that one never finds back to the line.
func (n *Node) restoreCommand() string {
	if n.c.o.Archiver != Walbaton || n.c.o.Bare {
		return ""
	}
	return fmt.Sprintf("%s fetch --socket %s %%f %%p", n.bin("walbaton-wal"), n.Socket())
}

func (n *Node) cleanupCommand() string {
	if !n.c.o.Cleanup {
		return ""
	}
	return fmt.Sprintf("%s cleanup --socket %s %%r", n.bin("walbaton-wal"), n.Socket())
}

// patroni.yml. The times are the shortest that Patroni 3.0 takes, and so is wal_keep_size: with less it takes 128 MB, and
// no checkpoint of a drill would recycle anything. fsync is off because a killed process loses
// nothing that it wrote, only a machine without power does.
var patroniConfig = template.Must(template.New("patroni.yml").Parse(`scope: {{.Scope}}
{{with .Namespace}}namespace: {{.}}
{{end -}}
name: {{.Name}}

restapi:
  listen: {{.Host}}:{{.REST}}
  connect_address: {{.Host}}:{{.REST}}

{{.DCS}}
tags: { {{.Tags}} }

bootstrap:
{{- with .Bootstrap}}
  {{.}}
{{- end}}
  dcs:
    ttl: 8
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    failsafe_mode: {{.Failsafe}}
{{- with .Dynamic}}
    {{.}}
{{- end}}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        wal_level: replica
        hot_standby: "on"
        max_connections: 50
        max_wal_senders: 10
        max_replication_slots: 10
        wal_log_hints: "on"
        archive_mode: "{{.ArchiveMode}}"
        wal_keep_size: 16MB
  initdb:
  - encoding: UTF8
  - locale: C.UTF-8
  - data-checksums
  - wal-segsize: "{{.SegmentMB}}"

postgresql:
  listen: {{.Host}}:{{.PG}}
  connect_address: {{.Host}}:{{.PG}}
  data_dir: {{.PGData}}
  bin_dir: {{.BinDir}}
  pgpass: {{.Dir}}/pgpass
  use_unix_socket: false
  basebackup:
  - checkpoint: fast
  pg_hba:
  - local all all trust
  - host all all samenet trust
  - host replication all samenet trust
  authentication:
    superuser: {username: postgres, password: postgres}
    replication: {username: replicator, password: replicator}
    rewind: {username: rewind, password: rewind}
  parameters:
{{- with .Archive}}
    archive_command: {{printf "%q" .}}
{{- end}}
{{- with .Restore}}
    restore_command: {{printf "%q" .}}
{{- end}}
{{- with .Cleanup}}
    archive_cleanup_command: {{printf "%q" .}}
{{- end}}
    unix_socket_directories: {{.Dir}}
    fsync: "off"
    shared_buffers: 64MB
    max_wal_size: 256MB
    wal_sender_timeout: 8s
    wal_receiver_timeout: 8s
    log_line_prefix: '%m [%p] %b '
{{- range $name, $value := .Parameters}}
    {{$name}}: {{printf "%q" $value}}
{{- end}}
`))

func (n *Node) writeConfig() error {
	namespace := "/service/"
	if _, ok := n.c.dcs.(*kubernetesServer); ok {
		namespace = "" // Patroni would take it for the one of Kubernetes
	}
	var b strings.Builder
	err := patroniConfig.Execute(&b, map[string]any{
		"Scope": n.c.o.Scope, "Namespace": namespace, "Name": n.Name, "Dir": n.Dir, "PGData": n.PGData(), "BinDir": pgBin,
		"REST": n.c.port(portREST + n.no), "PG": n.port(), "Host": n.host(), "DCS": n.c.dcs.section(n), "Tags": n.c.o.Tags[n.Name],
		"Bootstrap": n.bootstrap, "Dynamic": strings.ReplaceAll(strings.TrimSpace(n.c.o.Dynamic), "\n", "\n    "),
		"ArchiveMode": n.c.o.ArchiveMode, "SegmentMB": n.c.o.SegmentMB, "Failsafe": n.c.o.Failsafe,
		"Archive": n.archiveCommand(), "Restore": n.restoreCommand(), "Cleanup": n.cleanupCommand(), "Parameters": n.c.o.Parameters,
	})
	if err != nil {
		return err
	}
	patroni := filepath.Join(n.Dir, "patroni.yml")
	archive := fmt.Sprintf("archive: {url: %q}", n.c.Store.URL())
	if n.c.Second != nil {
		archive = fmt.Sprintf("archives: [{name: first, url: %q}, {name: second, url: %q}]", n.c.Store.URL(), n.c.Second.URL())
	}
	settings := fmt.Sprintf("%s\npatroni_config: %s\nsocket: %s\nlisten: %s\n%s",
		archive, patroni, n.Socket(), n.listen(), n.c.o.Settings)
	return errors.Join(os.WriteFile(patroni, []byte(b.String()), 0o644), os.WriteFile(n.config(), []byte(settings), 0o644))
}
