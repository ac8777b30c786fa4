package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Base is a base backup of the cluster, without any WAL, and what a recovery from it needs.
type Base struct {
	c        *Cluster
	dir      string
	first    uint64 // the segment in which it starts
	systemID string
	timeline string // that a recovery follows, "" for the newest
}

// Along is the same backup for a recovery that follows a timeline to its end, whatever else grew from it since.
func (b *Base) Along(timeline int) *Base {
	other := *b
	other.timeline = fmt.Sprint(timeline)
	return &other
}

// In is the same backup for a recovery on a node of another cluster: with that one's configuration and archive.
func (b *Base) In(c *Cluster) *Base {
	other := *b
	other.c = c
	return &other
}

// Folder is where the archive of the server is, seen from the archive's root.
func (b *Base) Folder() string { return filepath.Join(b.c.o.Scope, b.systemID) }

// TakeBase takes a base backup of the primary, or of a standby leader. Without WAL in it, pg_basebackup returns when what it needs is archived.
func (c *Cluster) TakeBase(ctx context.Context) (*Base, error) {
	p, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	oracle, err := c.folder("oracle")
	if err != nil {
		return nil, err
	}
	b := &Base{c: c}
	for i := 1; b.dir == "" || exists(b.dir); i++ {
		b.dir = filepath.Join(oracle, fmt.Sprintf("base%d", i))
	}
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	err = Run(c.command(ctx, oracle, nil, "pg_basebackup", "-D", b.dir, "-l", filepath.Base(b.dir), "-X", "none", "-c", "fast", "-d", p.DSN()))
	if err != nil {
		return nil, err
	}
	return c.baseIn(ctx, b.dir, p)
}

// baseIn is a base backup that is in a folder, of a node's server.
func (c *Cluster) baseIn(ctx context.Context, dir string, of *Node) (*Base, error) {
	b := &Base{c: c, dir: dir}
	label, err := os.ReadFile(filepath.Join(dir, "backup_label"))
	if err != nil {
		return nil, err
	}
	_, file, _ := strings.Cut(string(label), "(file ")
	if _, b.first, err = parseSegment(file[:min(24, len(file))], c.segmentSize()); err != nil {
		return nil, fmt.Errorf("backup_label: %w", err)
	}
	b.systemID, err = query[string](ctx, of.DSN(), "select system_identifier::text from pg_control_system()")
	return b, err
}

func (c *Cluster) segmentSize() uint64 { return uint64(c.o.SegmentMB) << 20 }

// Settle ends the primary's current segment and waits until the archive has every file that a recovery from b to
// there needs. What is still missing after limit is returned, oldest first; that is no error.
func (c *Cluster) Settle(ctx context.Context, b *Base, limit time.Duration) (missing []string, err error) {
	p, err := c.Primary(ctx)
	if err != nil {
		return nil, err
	}
	last, err := query[string](ctx, p.DSN(), "select pg_walfile_name(pg_switch_wal())")
	if err != nil {
		return nil, err
	}
	timeline, no, err := parseSegment(last, c.segmentSize())
	if err != nil {
		return nil, err
	}
	at, err := line(filepath.Join(p.PGData(), "pg_wal"), timeline)
	if err != nil {
		return nil, err
	}
	names := needed(at, b.first, no, c.segmentSize())
	err = until(ctx, limit, "the archive is whole", func(ctx context.Context) error {
		objects, err := c.Store.Objects(ctx)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, o := range objects {
			have[o.Key] = true
		}
		missing = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return have[b.key(name)] })
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d files are missing, the first is %s", len(missing), len(names), missing[0])
		}
		return nil
	})
	if len(missing) > 0 && ctx.Err() == nil {
		return missing, nil
	}
	return missing, err
}

// key is where the archive keeps a segment or a history file (DESIGN section 5); the control just copies.
func (b *Base) key(name string) string {
	if b.c.o.Archiver == Copy {
		return name
	}
	folder := "wal/" + name[:8]
	if strings.HasSuffix(name, ".history") {
		folder = "history"
	}
	return filepath.Join(b.Folder(), folder, name)
}

// How a recovery gets its WAL.
type How string

const (
	ByHand     How = "by hand"         // a shell script and zstd
	ByWalbaton How = "by walbaton-wal" // walbaton-wal fetch, without a sidecar
)

// Server is a PostgreSQL that was restored from a base backup and the archive, outside the cluster.
type Server struct {
	Dir  string
	port int
	p    *process
}

// DSN is the server's connection string.
func (s *Server) DSN() string { return dsn("127.0.0.1", s.port) }

// Stop kills the server and deletes its files.
func (s *Server) Stop() error {
	s.p.kill()
	killBelow(s.Dir)
	return os.RemoveAll(s.Dir)
}

// Restore recovers a new server from the backup along the newest timeline, or that of [Base.Along], to its end, or to a time when target is not
// zero, and returns when it has left recovery.
func (b *Base) Restore(ctx context.Context, how How, target time.Time) (*Server, error) {
	b.c.restored++
	dir, err := b.c.folder(fmt.Sprintf("restored%d", b.c.restored))
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "pgdata")
	if err := Run(b.c.command(ctx, dir, nil, "cp", "-a", "--reflink=auto", b.dir, data)); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(data, "standby.signal")); err != nil { // in a backup of a standby
		return nil, err
	}
	signal := filepath.Join(data, "recovery.signal")
	if err := errors.Join(os.WriteFile(signal, nil, 0o600), b.c.own(signal)); err != nil {
		return nil, err
	}
	command, err := b.restoreCommand(ctx, how, dir)
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, port: b.c.port(portRestored + b.c.restored)}
	// The settings in the backup are those of the node that it was taken from.
	settings := map[string]string{
		"port": fmt.Sprint(s.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
		"archive_mode": "off", "logging_collector": "off", "primary_conninfo": "", "primary_slot_name": "",
		"restore_command": command, "recovery_target_timeline": cmp.Or(b.timeline, "latest"),
	}
	if !target.IsZero() {
		settings["recovery_target_time"] = target.UTC().Format(recoveryTime)
		settings["recovery_target_action"] = "promote"
	}
	argv := []string{"postgres", "-D", data}
	for name, value := range settings {
		argv = append(argv, "-c", name+"="+value)
	}
	env := append(b.c.Store.Env(), "WALBATON_CONFIG="+b.c.Nodes[0].config())
	if b.c.o.Identity != "" {
		env = append(env, "WALBATON_IDENTITIES="+b.c.identity())
	}
	if s.p, err = b.c.spawn("postgres", dir, env, argv...); err != nil {
		return nil, err
	}
	err = until(ctx, restoreLimit, "the restored server has left recovery", func(ctx context.Context) error {
		select {
		case <-s.p.done:
			return errors.New("it stopped")
		default:
		}
		inRecovery, err := query[bool](ctx, s.DSN(), "select pg_is_in_recovery()")
		if err == nil && inRecovery {
			err = errors.New("it is in recovery")
		}
		return err
	})
	return s, err
}

// restoreCommand writes the script of a recovery by hand below dir, or names walbaton-wal.
func (b *Base) restoreCommand(ctx context.Context, how How, dir string) (string, error) {
	if how == ByWalbaton {
		return fmt.Sprintf("%s fetch --socket %s/none.sock %%f %%p", b.c.Bin("walbaton-wal"), dir), nil
	}
	archive, err := mirror(ctx, b.c.Store, filepath.Join(dir, "archive"))
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "restore.sh")
	text := fmt.Sprintf(`#!/bin/sh
# restore.sh <file> <path>: exit 1 says that the archive has no such file; more than 125 ends the recovery.
case $1 in
*.history) from=%[1]s/history/$1 ;;
*) from=%[1]s/wal/$(printf %%.8s "$1")/$1 ;;
esac
[ -f "$from" ] || exit 1
zstd -dqf "$from" -o "$2" || exit 200
`, filepath.Join(archive, b.Folder()))
	if b.c.o.Identity != "" { // docs/encryption.md
		text = strings.Replace(text, "zstd -dqf \"$from\" -o \"$2\" || exit 200\n", fmt.Sprintf(`case $1 in
*.history) zstd -dqf "$from" -o "$2" || exit 200; exit 0 ;;
esac
n=$(od --endian=little -An -tu4 -j4 -N4 "$from")
tail -c +$((n + 9)) "$from" | age -d -i %s | zstd -dqf -o "$2" || exit 200
`, b.c.identity()), 1)
	}
	if b.c.o.Archiver == Copy {
		text = fmt.Sprintf("#!/bin/sh\n[ -f %[1]s/\"$1\" ] || exit 1\ncp %[1]s/\"$1\" \"$2\" || exit 200\n", archive)
	}
	return script + " %f %p", os.WriteFile(script, []byte(text), 0o755)
}

// Compare compares every row that a running node has with the rows of a restored server.
func (c *Cluster) Compare(ctx context.Context, s *Server) error {
	got, err := Rows(ctx, s.DSN())
	if err != nil {
		return err
	}
	p, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	var differences error
	for _, n := range append([]*Node{p}, c.Standbys(p)...) {
		if len(Below(n.PGData())) == 0 {
			continue
		}
		if err := c.caughtUp(ctx, p, n); err != nil {
			return err
		}
		want, err := Rows(ctx, n.DSN())
		if err != nil {
			return err
		}
		if len(want) == 0 {
			return errNoRows
		}
		if err := Difference(got, want); err != nil {
			differences = errors.Join(differences, fmt.Errorf("restored server against %s with %d rows: %w", n.Name, len(want), err))
		}
	}
	return differences
}

// caughtUp waits until a standby has replayed what the primary has written by now.
func (c *Cluster) caughtUp(ctx context.Context, p, standby *Node) error {
	if p == standby {
		return nil
	}
	lsn, err := query[string](ctx, p.DSN(), "select pg_current_wal_flush_lsn()::text")
	if err != nil {
		return err
	}
	return until(ctx, clusterLimit, standby.Name+" has replayed "+lsn, func(ctx context.Context) error {
		behind, err := query[int64](ctx, standby.DSN(), "select ($1::pg_lsn - pg_last_wal_replay_lsn())::bigint", lsn)
		if err == nil && behind > 0 {
			err = fmt.Errorf("%d bytes to replay", behind)
		}
		return err
	})
}
