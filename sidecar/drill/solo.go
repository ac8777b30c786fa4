package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Solo is one PostgreSQL without Patroni, with a sidecar beside it (dcs.kind static): what a restore is rehearsed with
// where no cluster is needed. It uses the folder, the archive and the programs of a [Cluster] that was not started.
type Solo struct {
	Server
	c       *Cluster
	sidecar *process
	web     int // the port of the sidecar's metrics
}

// NewSolo makes a server that archives, and starts it. wal_segment_size is the cluster's.
func (c *Cluster) NewSolo(ctx context.Context) (*Solo, error) {
	if err := c.Store.start(ctx); err != nil {
		return nil, err
	}
	s, err := c.solo("solo", c.Store.URL())
	if err != nil {
		return nil, err
	}
	err = Run(s.Command(ctx, "initdb", "-D", s.Data(), "-U", "postgres", "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
		"--data-checksums", "--wal-segsize", fmt.Sprint(c.o.SegmentMB)))
	if err != nil {
		return nil, err
	}
	if err := s.StartSidecar(ctx); err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// solo makes the folder of a server and a walbaton.yml in it. One without a name is numbered.
func (c *Cluster) solo(name, url string) (*Solo, error) {
	no := int(c.solos.Add(1))
	if name == "" {
		name = fmt.Sprint("restored", no)
	}
	dir, err := c.folder(name)
	if err != nil {
		return nil, err
	}
	slot := no % (portSolosWeb - portSolos)
	s := &Solo{c: c, Server: Server{Dir: dir, port: c.port(portSolos + slot)}, web: c.port(portSolosWeb + slot)}
	text := fmt.Sprintf("archive: {url: %q}\nscope: %s\nname: %s\ndcs: {kind: static}\nsocket: %s\nlisten: 127.0.0.1:%d\n"+
		"postgres: {data_dir: %s, dsn: %q}\n", url, c.o.Scope, name, s.Socket(), s.web, s.Data(), s.DSN())
	return s, os.WriteFile(s.config(), []byte(text), 0o644)
}

// Data is the data directory.
func (s *Server) Data() string { return filepath.Join(s.Dir, "pgdata") }

// Socket is where its sidecar answers.
func (s *Solo) Socket() string { return filepath.Join(s.Dir, "walbaton.sock") }

func (s *Solo) config() string { return filepath.Join(s.Dir, "walbaton.yml") }

// Command is a program as user postgres types it on this machine: walbaton finds its configuration, and PostgreSQL's programs the server.
func (s *Solo) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return s.c.command(ctx, s.Dir, s.env(), append([]string{name}, args...)...)
}

func (s *Solo) env() []string {
	return append(s.c.Store.Env(), "WALBATON_CONFIG="+s.config(), "WALBATON_SOCKET="+s.Socket(), "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", s.port),
		"PGUSER=postgres", "PGDATABASE="+dbName, "PGDATA="+s.Data())
}

// StartSidecar starts walbaton beside the server.
func (s *Solo) StartSidecar(context.Context) (err error) {
	s.sidecar, err = s.c.spawn("sidecar", s.Dir, s.env(), "walbaton", "sidecar")
	return err
}

// Launch starts PostgreSQL on what is in its data directory, with these settings besides those of every server here.
func (s *Solo) Launch(settings map[string]string) (err error) {
	all := map[string]string{
		"port": fmt.Sprint(s.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": s.Dir, "fsync": "off", "shared_buffers": "16MB",
		"archive_mode": "on", "archive_command": s.c.Bin("walbaton-wal") + " push %p", "restore_command": s.c.Bin("walbaton-wal") + " fetch %f %p",
		"autovacuum": "off", "track_commit_timestamp": "on", "wal_log_hints": "on", "logging_collector": "off", "checkpoint_timeout": "1h",
	}
	for name, value := range settings {
		all[name] = value
	}
	argv := []string{"postgres", "-D", s.Data()}
	for name, value := range all {
		argv = append(argv, "-c", name+"="+value)
	}
	s.p, err = s.c.spawn("postgres", s.Dir, s.env(), argv...)
	return err
}

// Start starts PostgreSQL, and returns when it takes writes.
func (s *Solo) Start(ctx context.Context) error {
	if err := s.Launch(nil); err != nil {
		return err
	}
	return s.Writable(ctx)
}

// Writable waits until the server has left recovery.
func (s *Solo) Writable(ctx context.Context) error {
	return s.reach(ctx, "the server has left recovery", func(ctx context.Context) error {
		inRecovery, err := query[bool](ctx, s.DSN(), "select pg_is_in_recovery()")
		if err == nil && inRecovery {
			err = errors.New("it is in recovery")
		}
		return err
	})
}

// reach waits for something of a server that runs.
func (s *Solo) reach(ctx context.Context, what string, ok func(context.Context) error) error {
	err := until(ctx, restoreLimit, what, func(ctx context.Context) error {
		select {
		case <-s.p.done:
			return nil
		default:
			return ok(ctx)
		}
	})
	select {
	case <-s.p.done:
		return fmt.Errorf("wait until %s: it stopped:\n%s", what, s.Log("postgres"))
	default:
		return err
	}
}

// Ended waits until PostgreSQL has stopped by itself.
func (s *Solo) Ended(ctx context.Context) error {
	return until(ctx, restoreLimit, "the server has stopped", func(context.Context) error {
		select {
		case <-s.p.done:
			return nil
		default:
			return errors.New("it runs")
		}
	})
}

// Halt stops PostgreSQL: fast, or immediate, which leaves it as a crash does.
func (s *Solo) Halt(ctx context.Context, mode string) error {
	return errors.Join(Run(s.Command(ctx, "pg_ctl", "stop", "-m", mode, "-t", "60")), s.Ended(ctx))
}

// Set appends lines to postgresql.conf: for programs that read it while the server is down.
func (s *Solo) Set(lines string) error {
	f, err := os.OpenFile(filepath.Join(s.Data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(lines)
	return errors.Join(err, f.Close())
}

// Standby starts a server that follows another one, from a base backup. It archives nothing, and has no sidecar.
func (c *Cluster) Standby(ctx context.Context, of *Solo, backup string) (*Solo, error) {
	s, err := c.solo("", c.Store.URL())
	if err != nil {
		return nil, err
	}
	if err := Run(s.Command(ctx, "cp", "-a", "--reflink=auto", backup, s.Data())); err != nil {
		return nil, err
	}
	return s, s.Follow(ctx, &of.Server)
}

// Follow starts PostgreSQL as a standby of another server, and returns when it streams.
func (s *Solo) Follow(ctx context.Context, of *Server) error {
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", of.port)
	if err := errors.Join(s.signal("standby.signal"), s.Launch(map[string]string{"primary_conninfo": conninfo, "archive_mode": "off"})); err != nil {
		return err
	}
	return s.reach(ctx, "it streams", func(ctx context.Context) error {
		streams, err := query[bool](ctx, s.DSN(), "select exists (select from pg_stat_wal_receiver where status = 'streaming')")
		if err == nil && !streams {
			err = errors.New("it does not")
		}
		return err
	})
}

// Replayed waits until a standby has replayed up to an LSN.
func (s *Solo) Replayed(ctx context.Context, lsn string) error {
	return s.reach(ctx, "the standby has replayed "+lsn, func(ctx context.Context) error {
		done, err := query[bool](ctx, s.DSN(), "select pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn)
		if err == nil && !done {
			err = errors.New("not yet")
		}
		return err
	})
}

// Promote ends the recovery of a standby that answers, and writes the checkpoint of its new timeline.
func (s *Solo) Promote(ctx context.Context) error {
	if _, err := query[bool](ctx, s.DSN(), "select pg_promote()"); err != nil {
		return err
	}
	return errors.Join(s.Writable(ctx), Run(s.Command(ctx, "psql", "-Xqc", "checkpoint")))
}

// Fail makes PostgreSQL crash and, as a failover does with a standby that has all its WAL, go on on the next timeline.
func (s *Solo) Fail(ctx context.Context) error {
	if err := s.Halt(ctx, "immediate"); err != nil {
		return err
	}
	if err := s.signal("standby.signal"); err != nil {
		return err
	}
	if err := s.Launch(nil); err != nil {
		return err
	}
	err := s.reach(ctx, "the standby answers", func(ctx context.Context) error {
		_, err := query[bool](ctx, s.DSN(), "select pg_promote(wait => false)")
		return err
	})
	return errors.Join(err, s.Writable(ctx))
}

// signal makes recovery.signal or standby.signal.
func (s *Solo) signal(name string) error {
	path := filepath.Join(s.Data(), name)
	return errors.Join(os.WriteFile(path, nil, 0o600), s.c.own(path))
}

// Log is what a program has written: "postgres" or "sidecar".
func (s *Server) Log(program string) string {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "log", program+".log")) // there is none before it starts
	return string(text)
}

// Recovery is how a server is restored.
type Recovery struct {
	Backup   string            // the folder of a base backup
	Archive  string            // the URL of the archive; "" for the cluster's
	Sidecar  bool              // walbaton-wal asks a sidecar; otherwise it executes walbaton fetch
	Settings map[string]string // recovery_target_time and so on
}

// Recover starts a server in recovery from a base backup, and does not wait for it. Stop deletes it.
func (c *Cluster) Recover(ctx context.Context, r Recovery) (*Solo, error) {
	if r.Archive == "" {
		r.Archive = c.Store.URL()
	}
	s, err := c.solo("", r.Archive)
	if err != nil {
		return nil, err
	}
	return s, s.Begin(ctx, r)
}

// Begin replaces the data directory by a base backup and starts recovery.
func (s *Solo) Begin(ctx context.Context, r Recovery) error {
	if err := os.RemoveAll(s.Data()); err != nil {
		return err
	}
	if err := Run(s.Command(ctx, "cp", "-a", "--reflink=auto", r.Backup, s.Data())); err != nil {
		return err
	}
	if r.Sidecar {
		if err := s.StartSidecar(ctx); err != nil {
			return err
		}
	}
	return errors.Join(s.signal("recovery.signal"), s.Launch(r.Settings))
}

// Stop kills the server and its sidecar, and deletes its files.
func (s *Solo) Stop() error {
	s.sidecar.kill()
	if s.p == nil {
		return os.RemoveAll(s.Dir)
	}
	return s.Server.Stop()
}

// Archived waits until the archive of the server has all of these files: segments, histories, or other names below wal/.
func (s *Solo) Archived(ctx context.Context, names ...string) error {
	id, err := query[string](ctx, s.DSN(), "select system_identifier::text from pg_control_system()")
	if err != nil {
		return err
	}
	b := &Base{c: s.c, systemID: id}
	return until(ctx, clusterLimit, fmt.Sprint("the archive has ", names), func(ctx context.Context) error {
		objects, err := s.c.Store.Objects(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !slices.ContainsFunc(objects, func(o Object) bool { return o.Key == b.key(name) }) {
				return fmt.Errorf("it has no %s", name)
			}
		}
		return nil
	})
}

// FinishSegment ends the present segment and waits until the archive has it.
func (s *Solo) FinishSegment(ctx context.Context) error {
	name, err := query[string](ctx, s.DSN(), "select pg_walfile_name(pg_switch_wal())")
	if err != nil {
		return err
	}
	return s.Archived(ctx, name)
}

// CopyBackup is a base backup as a file-system copy: between pg_backup_start and pg_backup_stop, with the backup_label
// written by hand. during runs while it is made.
func (s *Solo) CopyBackup(ctx context.Context, dir string, during func() error) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "select pg_backup_start('a copy', fast => true)"); err != nil {
		return err
	}
	err = Run(s.Command(ctx, "sh", "-c", `cp -a --reflink=auto "$1" "$2" && rm -rf "$2"/pg_wal/* "$2"/postmaster.*`, "sh", s.Data(), dir))
	if err != nil {
		return err
	}
	if err := during(); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, "select labelfile from pg_backup_stop()").Scan(&label); err != nil {
		return err
	}
	path := filepath.Join(dir, "backup_label")
	return errors.Join(os.WriteFile(path, []byte(label), 0o600), s.c.own(path), Run(s.Command(ctx, "mkdir", "-p", dir+"/pg_wal/archive_status")))
}
