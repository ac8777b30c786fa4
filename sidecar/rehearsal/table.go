package rehearsal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// schemaPrefix begins the names of our schemas.
const schemaPrefix = "walbaton_drill_"

// newSchema names a schema that no other rehearsal has, also when two begin in the same second.
func newSchema(now time.Time, random string) string {
	return schemaPrefix + now.UTC().Format("20060102_150405_") + strings.ToLower(random[:6])
}

// note is the content of a row: it follows from the schema and the number, so what comes back can be told from anything else.
func note(schema string, id int64) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", schema, id)))[:32]
}

// sqlTime bounds one statement: a primary that hangs is none.
const sqlTime = 5 * time.Second

// connect opens a connection to the primary at host and port.
func (r *Rehearsal) connect(ctx context.Context, host string, port int) (*pgx.Conn, error) {
	c, err := r.o.Connect(host, port)
	if err != nil {
		return nil, err
	}
	if c.ConnectTimeout == 0 || c.ConnectTimeout > 2*time.Second {
		c.ConnectTimeout = 2 * time.Second
	}
	if c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	c.RuntimeParams["application_name"] = "walbaton drill"
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler between may not know prepared statements
	ctx, cancel := context.WithTimeout(ctx, 2*sqlTime)
	defer cancel()
	return pgx.ConnectConfig(ctx, c)
}

// connectError is why nobody could connect, in one line: pgx has one for each way that it tried, as for each address with and without TLS.
type connectError struct {
	said string
	err  error
}

func (e *connectError) Error() string { return e.said }
func (e *connectError) Unwrap() error { return e.err }

// inOneLine takes the last word of the server, or of the way to it.
func inOneLine(err error) error {
	said := strings.Join(strings.Fields(err.Error()), " ")
	var pg *pgconn.PgError
	var op *net.OpError
	var call *os.SyscallError
	var dns *net.DNSError
	switch {
	case errors.As(err, &pg):
		said = pg.Message
	case strings.Contains(said, "read only connection"):
		said = "it is read-only, as a standby is"
	case errors.Is(err, context.DeadlineExceeded):
		said = "no answer"
	case errors.As(err, &dns):
		said = dns.Error()
	case errors.As(err, &op) && op.Addr != nil && errors.As(op.Err, &call):
		said = op.Addr.String() + ": " + call.Err.Error()
	case errors.As(err, &op):
		said = op.Err.Error()
	}
	return &connectError{said, err}
}

// server is what the primary says of itself and of us.
type server struct {
	database    string
	version     int // 150004
	segment     int64
	may         rights
	left        []string // schemas of rehearsals that were killed
	size        int64    // bytes on disk, 0: not known
	tablespaces []string // folders
	settings    map[string]string
}

type rights struct{ schema, switchWAL, restorePoint bool }

// hotStandby are the settings that a standby must have at least as large as its primary
// (postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN).
func hotStandby() []string {
	return []string{"max_connections", "max_prepared_transactions", "max_locks_per_transaction", "max_wal_senders", "max_worker_processes"}
}

// ask looks at the primary.
func ask(ctx context.Context, conn *pgx.Conn) (s server, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*sqlTime)
	defer cancel()
	err = conn.QueryRow(ctx, `select current_database(), current_setting('server_version_num')::int,
		(select setting::bigint from pg_settings where name = 'wal_segment_size'),
		has_database_privilege(current_database(), 'create'), has_function_privilege('pg_switch_wal()', 'execute'),
		has_function_privilege('pg_create_restore_point(text)', 'execute'),
		array(select nspname::text from pg_namespace where nspname like $1 order by 1)`, strings.ReplaceAll(schemaPrefix, "_", `\_`)+"%").Scan(
		&s.database, &s.version, &s.segment, &s.may.schema, &s.may.switchWAL, &s.may.restorePoint, &s.left)
	if err != nil {
		return s, fmt.Errorf("ask the primary: %w", err)
	}
	s.settings = map[string]string{}
	for _, name := range hotStandby() {
		var v string
		if err := conn.QueryRow(ctx, "select current_setting($1)", name).Scan(&v); err != nil {
			return s, fmt.Errorf("ask the primary: %w", err)
		}
		s.settings[name] = v
	}
	// Not everybody may know these; then they are not known.
	_ = conn.QueryRow(ctx, "select coalesce(sum(pg_tablespace_size(oid)), 0)::bigint from pg_tablespace").Scan(&s.size)
	err = conn.QueryRow(ctx, "select array(select pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> '')").Scan(&s.tablespaces)
	if err != nil {
		return s, fmt.Errorf("ask the primary for its tablespaces: %w", err)
	}
	return s, nil
}

// lacks says which rights the user has not.
func (s server) lacks(restore bool) (why []string) {
	if !s.may.schema {
		why = append(why, fmt.Sprintf("the user may not make a schema in the database %s: grant create on database %s", s.database, s.database))
	}
	if !s.may.switchWAL {
		why = append(why, "the user may not end segments: grant execute on function pg_switch_wal()")
	}
	if restore && !s.may.restorePoint {
		why = append(why, "the user may not make a restore point: grant execute on function pg_create_restore_point(text)")
	}
	return why
}

// makeTable makes the schema. It is not interrupted in the middle: then nobody would know whether there is one.
func makeTable(ctx context.Context, conn *pgx.Conn, schema string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqlTime)
	defer cancel()
	// Without a primary key, so that a row that is there twice is seen.
	_, err := conn.Exec(ctx, fmt.Sprintf(`create schema %[1]s;
		comment on schema %[1]s is 'made by walbaton drill, which removes it; otherwise drop it';
		create table %[1]s.rows (id bigint not null, note text not null)`, schema))
	if err != nil {
		return fmt.Errorf("make schema %s: %w", schema, err)
	}
	return nil
}

// dropTable drops the schema, and says whether it was there.
func dropTable(ctx context.Context, conn *pgx.Conn, schema string) (was bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*sqlTime)
	defer cancel()
	err = conn.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", schema).Scan(&was)
	if err == nil && was {
		_, err = conn.Exec(ctx, "drop schema if exists "+schema+" cascade")
	}
	return was, err
}

// readRows gives every row of the table: its content by number, and how many numbers are there more than once.
func readRows(ctx context.Context, conn *pgx.Conn, schema string) (rows map[int64]string, twice int, err error) {
	found, err := conn.Query(ctx, "select id, note from "+schema+".rows")
	if err != nil {
		return nil, 0, fmt.Errorf("read rows: %w", err)
	}
	rows = map[int64]string{}
	var id int64
	var text string
	_, err = pgx.ForEachRow(found, []any{&id, &text}, func() error {
		if _, ok := rows[id]; ok {
			twice++
		}
		rows[id] = text
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read rows: %w", err)
	}
	return rows, twice, nil
}

// endSegment ends the segment that is written to, and gives its name.
func endSegment(ctx context.Context, conn *pgx.Conn) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sqlTime)
	defer cancel()
	if err = conn.QueryRow(ctx, "select pg_walfile_name(pg_switch_wal())").Scan(&name); err != nil {
		return "", fmt.Errorf("end a segment: %w", err)
	}
	return name, nil
}

// restorePoint marks this moment in the WAL.
func restorePoint(ctx context.Context, conn *pgx.Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, sqlTime)
	defer cancel()
	if _, err := conn.Exec(ctx, "select pg_create_restore_point($1)", name); err != nil {
		return fmt.Errorf("make restore point: %w", err)
	}
	return nil
}

// shortReason is why a write failed, in few words: the server's own, without addresses, so that like failures read alike.
func shortReason(err error) string {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		return pg.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	case strings.Contains(err.Error(), "connection refused"):
		return "connection refused"
	case strings.Contains(err.Error(), "read only connection"):
		return "it is read-only"
	case errors.Is(err, errNoPrimary):
		return errNoPrimary.Error()
	}
	return "connection lost"
}

var errNoPrimary = errors.New("no member is the primary")
