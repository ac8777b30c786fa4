package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader/patroni"
)

// sqlReader keeps one connection. Its methods are not safe for concurrent use.
type sqlReader struct {
	dsn     string // configured; "" makes them of Patroni's configuration and postmaster.pid
	patroni patroni.Config
	conn    *pgx.Conn
}

func newSQLReader(cfg Config) *sqlReader {
	return &sqlReader{dsn: cfg.Postgres.DSN, patroni: cfg.Patroni}
}

// The flush position of a standby is the higher of received and replayed: only what is
// flushed is replayed, and WAL from the archive is replayed without being received. It is asked
// for by functions, since PostgreSQL 13 renamed the columns of pg_stat_wal_receiver. A timeline
// stands in pg_walfile_name's first 8 digits at a boundary of segments too, where versions differ
// about the rest. Columns of the view are NULL to a role without pg_monitor.
const serverQuery = `
select current_setting('server_version_num')::int,
       (select system_identifier from pg_control_system()),
       current_setting('archive_mode'),
       extract(epoch from pg_postmaster_start_time())::float8,
       case when pg_is_in_recovery() then '' else pg_walfile_name(pg_current_wal_flush_lsn()) end,
       coalesce(case when pg_is_in_recovery() then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                     else pg_current_wal_flush_lsn() end::text, '0/0'),
       coalesce(r.status = 'streaming', false), coalesce(r.received_tli, 0)::int,
       coalesce(r.sender_host, ''), coalesce(r.sender_port, 0)::int,
       current_setting('archive_command'), coalesce(current_setting('restore_command', true), '')
  from (select) one left join pg_stat_wal_receiver r on true`

// read asks the server; it connects when it must. After an error the caller closes.
func (r *sqlReader) read(ctx context.Context, p postmaster) (sqlAnswer, error) {
	if r.conn == nil || r.conn.IsClosed() {
		conn, err := r.connect(ctx, p)
		if err != nil {
			return sqlAnswer{}, err
		}
		r.conn = conn
	}
	var (
		a         sqlAnswer
		id        int64
		epoch     float64
		file, lsn string
		tli, port int32
		version   int32
	)
	err := r.conn.QueryRow(ctx, serverQuery).Scan(&version, &id, &a.archiveMode, &epoch, &file, &lsn,
		&a.receiver.Streaming, &tli, &a.receiver.Host, &port, &a.commands.Archive, &a.commands.Restore)
	if err != nil {
		return sqlAnswer{}, fmt.Errorf("ask postgresql: %w", err)
	}
	a.version, a.systemID = int(version), uint64(id) // int8 in SQL, unsigned in pg_control
	a.started = time.UnixMilli(int64(epoch * 1000))
	a.receiver.Timeline, a.receiver.Port = wal.Timeline(tli), int(port)
	if !a.receiver.Streaming {
		a.receiver = archiver.Receiver{Timeline: a.receiver.Timeline}
	}
	if a.flush, err = wal.ParseLSN(lsn); err != nil {
		return sqlAnswer{}, fmt.Errorf("ask postgresql: %w", err)
	}
	if file != "" {
		if a.timeline, err = wal.ParseTimeline(file[:min(8, len(file))]); err != nil {
			return sqlAnswer{}, fmt.Errorf("ask postgresql: %w", err)
		}
	}
	return a, nil
}

// close drops the connection without waiting for the server.
func (r *sqlReader) close() {
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = r.conn.Close(ctx) // it is gone either way
	r.conn = nil
}

// connect tries each address in turn, and says why every one failed.
func (r *sqlReader) connect(ctx context.Context, p postmaster) (*pgx.Conn, error) {
	var all []error
	for _, dsn := range r.dsns(p) {
		c, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, fmt.Errorf("connect to postgresql: %w", err) // pgx leaves the password out
		}
		c.RuntimeParams["application_name"] = "walbaton"
		c.RuntimeParams["statement_timeout"] = strconv.FormatInt(postgresSQL.Milliseconds(), 10)
		conn, err := pgx.ConnectConfig(ctx, c)
		if err == nil {
			return conn, nil
		}
		all = append(all, err)
	}
	return nil, fmt.Errorf("connect to postgresql: %w", errors.Join(all...))
}

// dsns lists how to reach the server: where it says itself that it listens (postmaster.pid), then
// where Patroni's configuration says so.
func (r *sqlReader) dsns(p postmaster) []string {
	if r.dsn != "" {
		return []string{r.dsn}
	}
	pg := r.patroni.PostgreSQL
	var all []string
	add := func(host, port string) {
		if dsn := superuserDSN(pg, host, port); host != "" && !slices.Contains(all, dsn) {
			all = append(all, dsn)
		}
	}
	port := strconv.Itoa(p.port)
	if p.socket != "" && exists(p.socket) {
		add(p.socket, port)
	}
	if p.address != "" {
		add(p.host(), port)
	}
	if pg.ConnectAddress != "" || pg.Listen != "" {
		host, port := pg.Local()
		add(host, strconv.Itoa(port))
	}
	return all
}

// superuserDSN is how Patroni's superuser reaches a PostgreSQL.
func superuserDSN(pg patroni.PostgreSQL, host, port string) string {
	return keywords([]string{"host", host, "port", port, "dbname", "postgres", "user", pg.Superuser.Username, "password", pg.Superuser.Password,
		"passfile", pg.PgPass, "sslmode", pg.Superuser.SSLMode, "sslcert", pg.Superuser.SSLCert, "sslkey", pg.Superuser.SSLKey, "sslrootcert", pg.Superuser.SSLRootCert})
}

// keywords writes pairs the way libpq reads them, without those that are empty.
func keywords(pairs []string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		v := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(pairs[i+1])
		b.WriteString(pairs[i] + "='" + v + "' ")
	}
	return strings.TrimSuffix(b.String(), " ")
}
