package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/setup"
)

// lookout gathers the facts for setup: from Patroni's REST API, from each PostgreSQL, and from a sidecar.
type lookout struct {
	cfg     Config
	api     *restapi.Client
	base    string // of the REST API that is asked about the cluster
	address string // of the sidecar that is asked about the others
	want    setup.Want
	ask     func(ctx context.Context, m restapi.Member) (inForce, error) // a PostgreSQL; nil: by SQL
}

// inForce is what a PostgreSQL has.
type inForce struct {
	values  map[string]setup.Value
	pending []string // settings that wait for a restart
}

// askPatience bounds how long one node is waited for, in each way of asking it.
const askPatience = 5 * time.Second

// look asks everybody, all at once. An error means that the cluster as a whole could not be asked.
func (l *lookout) look(ctx context.Context) (setup.Facts, error) {
	f := setup.Facts{Want: l.want, Scope: l.cfg.Patroni.Scope}
	short, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	cluster, err := l.api.Cluster(short, l.base)
	if err != nil {
		return f, err
	}
	if f.Dynamic, err = l.api.Dynamic(short, l.base); err != nil {
		return f, err
	}
	f.Paused = cluster.Paused
	f.Nodes = make([]setup.Node, len(cluster.Members))
	said := make([]restapi.Node, len(cluster.Members))
	var all sync.WaitGroup
	for i, m := range cluster.Members {
		all.Go(func() { f.Nodes[i], said[i] = l.node(ctx, m) })
	}
	var alive map[string]bool
	all.Go(func() { alive, f.Unwatched = l.sidecars(ctx) })
	all.Wait()
	if err := ctx.Err(); err != nil {
		return f, err
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		n.Streams = n.Standby || slices.ContainsFunc(said, func(s restapi.Node) bool { return s.Streams(n.Name) }) || noStream(cluster.Members[i].Tags)
		if alive != nil {
			n.Sidecar = setup.SidecarAbsent
			if alive[n.Name] {
				n.Sidecar = setup.SidecarAlive
			}
		}
	}
	return f, nil
}

// noStream says whether a member is told to live on the archive alone (since Patroni 3.3).
func noStream(tags json.RawMessage) bool {
	var t struct {
		NoStream any `json:"nostream"`
	}
	return json.Unmarshal(tags, &t) == nil && t.NoStream == true
}

// node asks one member and its PostgreSQL.
func (l *lookout) node(ctx context.Context, m restapi.Member) (setup.Node, restapi.Node) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	n := setup.Node{Name: m.Name, Leads: m.Leads(), Standby: m.Role == "standby_leader", Restart: m.Pending, State: m.State}
	if m.Name == l.cfg.Name {
		pg := l.cfg.Patroni.PostgreSQL
		n.Local = &setup.Local{File: l.cfg.PatroniConfig, Parameters: pg.Parameters, RecoveryConf: pg.RecoveryConf}
		if n.Local.File == "" {
			n.Local.File = "the variables PATRONI_*"
		}
	}
	said, err := l.api.Node(ctx, m.URL)
	if err != nil {
		n.State = bare(err).Error()
	} else {
		n.State, n.Running, n.Version, n.Patroni = said.State, said.Running(), said.ServerVersion, said.Patroni.Version
		n.Restart, n.Others = said.Pending, said.PendingSettings()
	}
	ask := l.ask
	if ask == nil {
		ask = l.askSQL
	}
	got, err := ask(ctx, m)
	if err != nil {
		n.Unasked = whyUnasked(m, err)
	} else {
		n.Has, n.Others = got.values, append(n.Others, got.pending...)
	}
	slices.Sort(n.Others)
	n.Others = slices.DeleteFunc(slices.Compact(n.Others), func(s string) bool { return slices.Contains(setup.Names(), s) })
	return n, said
}

// whyUnasked shortens what pgx says of each way that it tried to the last word of the last one.
func whyUnasked(m restapi.Member, err error) string {
	said := strings.Join(strings.Fields(err.Error()), " ")
	if at := strings.LastIndex(said, ": "); at >= 0 {
		said = said[at+2:]
	}
	return net.JoinHostPort(m.Host, strconv.Itoa(m.Port)) + ": " + said
}

// sidecars says beside which members a sidecar is alive, or why that is not known. With dcs.kind rest no sidecar knows.
func (l *lookout) sidecars(ctx context.Context) (alive map[string]bool, why string) {
	if l.cfg.rest() {
		return nil, ""
	}
	st, _, err := l.cfg.askStatus(ctx, l.address)
	if err != nil {
		return nil, err.Error()
	}
	if st.DCS.REST {
		return nil, ""
	}
	alive = map[string]bool{}
	for _, m := range st.Members {
		alive[m.Name] = m.Sidecar
	}
	return alive, ""
}

// askSQL asks a PostgreSQL as Patroni's superuser, who may see what its files say.
func (l *lookout) askSQL(ctx context.Context, m restapi.Member) (inForce, error) {
	reader, files := &sqlReader{dsn: superuserDSN(l.cfg.Patroni.PostgreSQL, m.Host, strconv.Itoa(m.Port))}, serverFiles{}
	if m.Name == l.cfg.Name {
		reader, files = newSQLReader(l.cfg), readServerFiles(l.cfg.Postgres.DataDir)
	}
	conn, err := reader.connect(ctx, files.postmaster)
	if err != nil {
		return inForce{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return settingsOf(ctx, conn)
}

// settingsOf reads the settings that setup looks after. The last file that has one counts (guc-file.l); pg_file_settings reads the files as they are
// now.
func settingsOf(ctx context.Context, conn *pgx.Conn) (inForce, error) {
	got := inForce{values: map[string]setup.Value{}}
	fail := func(err error) (inForce, error) { return inForce{}, fmt.Errorf("ask postgresql: %w", err) }
	rows, err := conn.Query(ctx, "select name, setting, pending_restart from pg_settings where name = any($1) or pending_restart", setup.Names())
	if err != nil {
		return fail(err)
	}
	var name, value, file string
	var pending bool
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &pending}, func() error {
		if slices.Contains(setup.Names(), name) {
			got.values[name] = setup.Value{InEffect: value}
		}
		if pending {
			got.pending = append(got.pending, name)
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	rows, err = conn.Query(ctx, "select lower(name), coalesce(setting, ''), coalesce(sourcefile, '') from pg_file_settings where lower(name) = any($1) order by seqno", setup.Names())
	if err != nil {
		return fail(err)
	}
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &file}, func() error {
		v, known := got.values[name]
		if known { // archive_library, of PostgreSQL 14, is not
			v.InFile, v.File = value, filepath.Clean(file)
			got.values[name] = v
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return got, nil
}
