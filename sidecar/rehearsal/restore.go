package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver/wal"
)

// scratch is a folder with a copy of the cluster, and the PostgreSQL that recovers it. Only its owner can get in: the server has no other way in than a
// socket in the folder.
type scratch struct {
	o   *RestoreOptions
	bin map[string]string
	dir string

	server *exec.Cmd
	ended  chan struct{} // closed when it was waited for
}

func newScratch(o *RestoreOptions, bin map[string]string) (*scratch, error) {
	dir, err := os.MkdirTemp(o.Scratch, "walbaton-drill-")
	if err != nil {
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	return &scratch{o: o, bin: bin, dir: dir}, nil
}

func (s *scratch) data() string { return filepath.Join(s.dir, "data") }

// backup copies the cluster from a member. It has no WAL, so it ends when the archive has what it needs.
func (s *scratch) backup(ctx context.Context, m member, tablespaces []string) error {
	conninfo, env := s.o.Backup(m.host, m.port)
	args := []string{"-d", conninfo, "-D", s.data(), "-X", "none", "-c", "fast", "-w", "--no-sync"}
	for i, dir := range tablespaces {
		args = append(args, "-T", fmt.Sprintf("%s=%s", strings.ReplaceAll(dir, "=", `\=`), filepath.Join(s.dir, fmt.Sprintf("tablespace%d", i+1))))
	}
	cmd := exec.CommandContext(ctx, s.bin["pg_basebackup"], args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we end it
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("base backup of %s: %w: %s", m.name, errors.Join(ctx.Err(), err), lastLine(string(out)))
	}
	return nil
}

// recovery is what a server is recovered to.
type recovery struct {
	target   string // a restore point
	timeline wal.Timeline
	settings map[string]string // that a hot standby must have
	user     string
	database string
}

// recover starts a server that recovers the copy up to the target, where it stays and can be read.
func (s *scratch) recover(ctx context.Context, r recovery) (*pgx.Conn, error) {
	if err := s.configure(r); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.server = exec.Command(s.bin["postgres"], "-D", s.data(), "-c", "config_file="+filepath.Join(s.dir, "postgresql.conf"))
	s.server.Dir, s.server.Stdout, s.server.Stderr = s.dir, log, log
	s.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.server.Start(); err != nil {
		s.server = nil
		return nil, fmt.Errorf("start the restored server: %w", err)
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.server.Wait() // its log says how it ended
	}()
	for {
		conn, err := s.paused(ctx, r)
		if err == nil {
			return conn, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("the restored server stopped: %s", s.lastWords())
		case <-ctx.Done():
			return nil, fmt.Errorf("the restored server did not come to the restore point: %w: %s", ctx.Err(), s.lastWords())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// configure makes the copy a server of its own: nothing of the cluster's configuration counts.
func (s *scratch) configure(r recovery) error {
	for _, name := range []string{"standby.signal", "postgresql.auto.conf"} {
		if err := os.Remove(filepath.Join(s.data(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	quote := func(v string) string { return "'" + strings.ReplaceAll(v, "'", "''") + "'" }
	var b strings.Builder
	for _, kv := range [][2]string{
		{"data_directory", s.data()}, {"hba_file", filepath.Join(s.dir, "hba.conf")}, {"ident_file", filepath.Join(s.dir, "ident.conf")},
		{"listen_addresses", ""}, {"port", "5432"}, {"unix_socket_directories", s.dir}, {"unix_socket_permissions", "0700"},
		{"restore_command", s.o.Command}, {"recovery_target_name", r.target}, {"recovery_target_timeline", fmt.Sprint(uint32(r.timeline))}, {"recovery_target_action", "pause"},
		{"hot_standby", "on"}, {"archive_mode", "off"}, {"fsync", "off"}, {"autovacuum", "off"}, {"logging_collector", "off"}, {"log_destination", "stderr"},
		{"lc_messages", "C"}, {"shared_buffers", "32MB"}, {"huge_pages", "off"}, {"jit", "off"}, {"ssl", "off"},
	} {
		fmt.Fprintf(&b, "%s = %s\n", kv[0], quote(kv[1]))
	}
	for _, name := range hotStandby() {
		fmt.Fprintf(&b, "%s = %s\n", name, quote(r.settings[name]))
	}
	files := map[string]string{
		"postgresql.conf": b.String(), "hba.conf": "local all all trust\n", "ident.conf": "", "data/recovery.signal": "", "data/postgresql.auto.conf": "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

var errReplays = errors.New("it replays")

// paused connects to a server that waits at its target.
func (s *scratch) paused(ctx context.Context, r recovery) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.User, c.Database, c.Password, c.Fallbacks, c.ValidateConnect = s.dir, 5432, r.user, r.database, "", nil, nil
	c.ConnectTimeout = 2 * time.Second
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	var paused bool
	if err = conn.QueryRow(ctx, "select pg_is_wal_replay_paused()").Scan(&paused); err == nil && !paused {
		err = errReplays
	}
	if err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// lastWords is the last error in the server's log.
func (s *scratch) lastWords() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(all) - 1; i >= 0; i-- {
		for _, kind := range []string{"FATAL:  ", "PANIC:  "} {
			if _, words, ok := strings.Cut(all[i], kind); ok && !strings.Contains(words, "database system is starting up") && !strings.Contains(words, "not yet accepting connections") {
				return words
			}
		}
	}
	return lastLine(string(text))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// remove ends the server and removes the folder. It needs no context: it does not wait for anyone's consent.
func (s *scratch) remove() error {
	if s.server != nil {
		_ = s.server.Process.Signal(syscall.SIGQUIT) // it may have ended
		select {
		case <-s.ended:
		case <-time.After(15 * time.Second):
			_ = syscall.Kill(-s.server.Process.Pid, syscall.SIGKILL)
			<-s.ended
		}
	}
	return os.RemoveAll(s.dir)
}
